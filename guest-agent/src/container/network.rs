//! The container's network: the namespace that it is in, and its interface.
//!
//! The network card belongs to the guest's first network namespace, which is the agent's as well. A
//! container with an interface is in there; nothing has to be moved or made for it. One without is in
//! a namespace that has a loopback interface and nothing else, so that it sees no card. A template is
//! saved with such a namespace, and joining it is one system call; it lives as long as the guest,
//! because the kernel takes long to remove one.

use super::cgroup::mount_proc;
use crate::failure::{failed, setup as setup_failure, words};
use crate::sys;
use hullbox_netif::NetifError;
use hullbox_protocol::{Failure, Interface};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::error::Error;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

const OWN: &str = "/proc/self/ns/net";

/// Parameters of a network namespace that let ordinary users bind any port and ping, as Docker has it.
const PARAMETERS: [(&str, &[u8]); 2] = [
    ("/proc/sys/net/ipv4/ip_unprivileged_port_start", b"0"),
    ("/proc/sys/net/ipv4/ping_group_range", b"0 2147483647"),
];

/// A network namespace with a loopback interface and nothing else.
#[derive(Debug)]
pub(super) struct Isolated(OwnedFd);

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
        made.map(Self).map_err(what())
    }

    /// For whoever is to [`enter`] it.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
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

/// Configures the container's interface.
pub(super) fn configure(interface: &Interface) -> Result<(), Failure> {
    hullbox_netif::configure(interface).map_err(refused)
}

/// Has a copy of a container go on with an interface of its own, or none. Its connections were the
/// original's: who answers now does not know them, and resets them.
pub(super) fn begin_anew(
    interface: Option<&Interface>,
    isolated: Option<&Isolated>,
) -> Result<(), Failure> {
    match (isolated, interface) {
        (None, interface) => hullbox_netif::reconfigure(interface).map_err(refused),
        (Some(_), None) => Ok(()),
        (Some(isolated), interface) => {
            hullbox_netif::hand_over(isolated.fd()).map_err(refused)?;
            isolated.within(|| hullbox_netif::reconfigure(interface).map_err(refused))
        }
    }
}

fn refused(error: NetifError) -> Failure {
    let cause = error.source().and_then(|source| source.downcast_ref());
    match cause {
        Some(&errno) => setup_failure(format_args!("{error}: {}", words(errno))),
        None => setup_failure(error),
    }
}
