//! The container's network: the namespace that it is in, and its interface.
//!
//! The network card belongs to the guest's first network namespace, which is the agent's as well. A
//! container with an interface is in there; nothing has to be moved or made for it. One without is in
//! a namespace that has a loopback interface and nothing else, so that it sees no card. A template is
//! saved with such a namespace, and joining it is one system call; it lives as long as the guest,
//! because the kernel takes long to remove one.

use super::cgroup::mount_proc;
use super::connections::Connections;
use crate::failure::{failed, setup as setup_failure, words};
use crate::sys;
use hullbox_netif::NetifError;
use hullbox_protocol::{Failure, INTERFACE_NAME, Interface, interface_name};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::collections::BTreeSet;
use std::error::Error;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

const OWN: &str = "/proc/self/ns/net";

/// Parameters of a network namespace that let ordinary users bind any port and ping, as Docker has it.
const PARAMETERS: [(&str, &[u8]); 2] = [
    ("/proc/sys/net/ipv4/ip_unprivileged_port_start", b"0"),
    ("/proc/sys/net/ipv4/ping_group_range", b"0 2147483647"),
];

/// A network namespace with a loopback interface and nothing else, until a container that is in it is
/// connected to a network: then the card is moved there.
#[derive(Debug)]
pub(super) struct Isolated {
    namespace: OwnedFd,
    has_card: bool,
}

impl Isolated {
    /// Makes one.
    pub(super) fn make() -> Result<Self, Failure> {
        let what = || failed("cannot make a network namespace");
        mount_proc().map_err(what())?;
        let home = own().map_err(what())?;
        sys::unshare_network().map_err(what())?;
        let made = own();
        arrange();
        enter(home.as_fd())?;
        let isolated = |namespace| Self {
            namespace,
            has_card: false,
        };
        made.map(isolated).map_err(what())
    }

    /// For whoever is to [`enter`] it.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.namespace.as_fd()
    }

    /// Does something in there. The agent must not stay: failing to come back is a failure of all.
    pub(super) fn within<T>(
        &self,
        work: impl FnOnce() -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let home = own().map_err(failed("cannot open the network namespace"))?;
        enter(self.fd())?;
        let result = work();
        enter(home.as_fd())?;
        result
    }
}

fn own() -> Result<OwnedFd, Errno> {
    rustix::fs::open(OWN, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
}

/// Joins a network namespace.
pub(super) fn enter(namespace: BorrowedFd<'_>) -> Result<(), Failure> {
    move_into_link_name_space(namespace, Some(LinkNameSpaceType::Network))
        .map_err(failed("cannot join the network namespace"))
}

/// Arranges a new network namespace. A workload without loopback is rather a workload than none.
pub(super) fn arrange() {
    let _ = hullbox_netif::loopback_up();
    for (path, value) in PARAMETERS {
        let _ = write(path, value);
    }
}

fn write(path: &str, value: &[u8]) -> Result<(), Errno> {
    let file = rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::io::write(&file, value).map(drop)
}

/// The interfaces that a container has.
#[derive(Debug, Default)]
pub(super) struct Interfaces {
    /// By the number in their names. The card is there in any case.
    indexes: BTreeSet<u8>,
}

impl Interfaces {
    /// Configures all of them, in a guest that has none yet.
    pub(super) fn configure(interfaces: &[Interface]) -> Result<Self, Failure> {
        let mut made = Self::default();
        for (index, interface) in (0..).zip(interfaces) {
            let name = interface_name(index.into());
            match index {
                0 => hullbox_netif::configure(&name, interface),
                _ => hullbox_netif::add_beside_first(&name, interface),
            }
            .map_err(refused)?;
            made.indexes.insert(index);
        }
        Ok(made)
    }

    /// Has a copy of a container go on with interfaces of its own. Its connections were the original's, and are
    /// reset.
    pub(super) fn begin_anew(
        &mut self,
        interfaces: &[Interface],
        isolated: Option<&mut Isolated>,
    ) -> Result<(), Failure> {
        if isolated.is_some() && interfaces.is_empty() && self.indexes.is_empty() {
            return Ok(());
        }
        with_card(isolated, || {
            mount_proc().map_err(failed("cannot mount /proc"))?;
            let connections = Connections::with_others();
            if !connections.is_empty() {
                // Nobody is to hear of it who is there now.
                hullbox_netif::reconfigure(INTERFACE_NAME, None).map_err(refused)?;
                connections.reset();
            }
            let given: BTreeSet<u8> = (0..).zip(interfaces).map(|(index, _)| index).collect();
            for &index in self.indexes.difference(&given).filter(|index| **index > 0) {
                hullbox_netif::remove(&interface_name(index.into())).map_err(refused)?;
            }
            if interfaces.is_empty() {
                hullbox_netif::reconfigure(INTERFACE_NAME, None).map_err(refused)?;
            }
            for (index, interface) in (0..).zip(interfaces) {
                let name = interface_name(index.into());
                match index == 0 || self.indexes.contains(&index) {
                    true => hullbox_netif::reconfigure(&name, Some(interface)),
                    false => hullbox_netif::add_beside_first(&name, interface),
                }
                .map_err(refused)?;
            }
            self.indexes = given;
            Ok(())
        })
    }

    /// Makes one more.
    pub(super) fn connect(
        &mut self,
        index: u8,
        interface: &Interface,
        isolated: Option<&mut Isolated>,
    ) -> Result<(), Failure> {
        if !self.indexes.insert(index) {
            return Err(setup_failure("there is such an interface already"));
        }
        let name = interface_name(index.into());
        let is_first_used = self.indexes.contains(&0);
        let made = with_card(isolated, || {
            if index == 0 {
                return hullbox_netif::reconfigure(&name, Some(interface)).map_err(refused);
            }
            if !is_first_used {
                // Interfaces beside it need it up.
                hullbox_netif::reconfigure(INTERFACE_NAME, Some(&UNUSED)).map_err(refused)?;
            }
            hullbox_netif::add_beside_first(&name, interface).map_err(refused)
        });
        if made.is_err() {
            self.indexes.remove(&index);
        }
        made
    }

    /// Removes one.
    pub(super) fn disconnect(
        &mut self,
        index: u8,
        isolated: Option<&mut Isolated>,
    ) -> Result<(), Failure> {
        if !self.indexes.remove(&index) {
            return Err(setup_failure("there is no such interface"));
        }
        let keeps_card_up = !self.indexes.is_empty();
        with_card(isolated, || {
            let name = interface_name(index.into());
            match (index, keeps_card_up) {
                (0, true) => hullbox_netif::reconfigure(&name, Some(&UNUSED)),
                (0, false) => hullbox_netif::reconfigure(&name, None),
                _ => hullbox_netif::remove(&name),
            }
            .map_err(refused)
        })
    }
}

/// The card of a guest whose first interface is in no network: it carries the frames of the others.
const UNUSED: Interface = Interface {
    mac: [0x02, 0x48, 0x55, 0x4c, 0x4c, 0x00],
    mtu: 65520,
    ipv4: None,
    ipv6: None,
    gateway_mac: [0; 6],
    route_metric: None,
};

/// Does something in the container's network namespace, where the card is from then on.
fn with_card<T>(
    isolated: Option<&mut Isolated>,
    work: impl FnOnce() -> Result<T, Failure>,
) -> Result<T, Failure> {
    let Some(isolated) = isolated else {
        return work();
    };
    if !isolated.has_card {
        hullbox_netif::hand_over(isolated.fd()).map_err(refused)?;
        isolated.has_card = true;
    }
    isolated.within(work)
}

fn refused(error: NetifError) -> Failure {
    let cause = error.source().and_then(|source| source.downcast_ref());
    match cause {
        Some(&errno) => setup_failure(format_args!("{error}: {}", words(errno))),
        None => setup_failure(error),
    }
}
