//! The container's network namespace, for one that is to have more than a loopback.
//!
//! It is made, or joined, by whoever forks the container's parent, just before the fork: so the parent
//! and all that it starts are in it, the runtime has nothing to make, and the TAP device behind the
//! container's interface belongs to somebody who is not in the container and gets none of its code to
//! run. Who forked goes back to where it was.
//!
//! ```text
//! monitor ─ unshare ─► parameters, TAP, addresses ─ fork ─► parent ─► container
//!         ◄─ setns ─ keeps the TAP's descriptor
//! ```
//!
//! A container without a network gets its namespace from the runtime, as it has always been.

use super::cgroup::Cgroup;
use crate::sys;
use hullbox_backend::bundle::Bundle;
use hullbox_backend::network::Network;
use hullbox_net::{keep_tap, open_tap};
use hullbox_netif::NetifError;
use hullbox_protocol::{Interface, interface_name};
use hullbox_session::cgroup::processes;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use rustix::thread::{
    LinkNameSpaceType, ThreadNameSpaceType, move_into_link_name_space, move_into_thread_name_spaces,
};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

const OWN: &str = "/proc/self/ns/net";

/// Settings of a container's own network namespace that let ordinary users bind any port and ping, as
/// Docker has it.
pub(super) const PARAMETERS: [(&str, &str); 2] = [
    ("net.ipv4.ip_unprivileged_port_start", "0"),
    ("net.ipv4.ping_group_range", "0 2147483647"),
];

/// Why a container cannot have its network.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetworkError {
    /// A network namespace cannot be made, joined or left.
    #[error("cannot {action} a network namespace")]
    Namespace {
        /// What was attempted.
        action: &'static str,
        /// Why not.
        #[source]
        source: Errno,
    },
    /// The kernel has no TAP devices.
    #[error(
        "the host has no /dev/net/tun, which a container's network needs: \
         load the kernel's module with `modprobe tun`, or use `--network none`"
    )]
    NoTun,
    /// The TAP device cannot be made.
    #[error("cannot make the container's network interface")]
    Tap(#[source] Errno),
    /// Its addresses cannot be set.
    #[error("cannot configure the container's network")]
    Interface(#[source] NetifError),
    /// A parameter of the namespace cannot be set.
    #[error("cannot set sysctl {name}")]
    Parameter {
        /// Its name.
        name: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A parameter of the host's network, which a container does not set.
    #[error("sysctl {0} not allowed in host network namespace")]
    HostParameter(String),
    /// The container to join does not run.
    #[error("cannot join network of a non running container: {0}")]
    NotRunning(String),
}

fn namespace(action: &'static str) -> impl FnOnce(Errno) -> NetworkError {
    move |source| NetworkError::Namespace { action, source }
}

/// The network namespace that this thread is in, for the time of a fork.
#[derive(Debug, Default)]
#[must_use = "the thread stays in the container's network namespace"]
pub struct Entered {
    /// Where it was before, if that was elsewhere.
    home: Option<OwnedFd>,
    taps: Vec<OwnedFd>,
}

impl Entered {
    /// Goes back. Gives the TAP devices behind the container's interfaces, in order. The devices
    /// go with their network namespace, whether the descriptors are closed or not.
    ///
    /// # Errors
    /// [`NetworkError::Namespace`]: this thread is where it should not be.
    pub fn leave(self) -> Result<Vec<OwnedFd>, NetworkError> {
        if let Some(home) = self.home {
            go_back(&home)?;
        }
        Ok(self.taps)
    }
}

/// Moves this thread into the network namespace that a bundle asks for, which is made and arranged if
/// it is to be the container's own. What is forked before [`Entered::leave`] is in it.
///
/// # Errors
/// [`NetworkError`]; the thread is where it was, unless it cannot go back there.
pub fn enter(bundle: &Bundle) -> Result<Entered, NetworkError> {
    // What is done with a container's files in the place of its workload needs no network.
    if bundle.process.builtin.is_some() {
        return Ok(Entered::default());
    }
    let container = match &bundle.network {
        Network::None => return Ok(Entered::default()),
        Network::Host => {
            return match asked(bundle).next() {
                Some((name, _)) => Err(NetworkError::HostParameter(name.clone())),
                None => Ok(Entered::default()),
            };
        }
        Network::User(_) => None,
        Network::Container(id) => Some(id),
    };
    let home = own().map_err(namespace("find"))?;
    let taps = match container {
        None => make(bundle),
        Some(id) => join(bundle, id).map(|()| Vec::new()),
    };
    match taps {
        Ok(taps) => Ok(Entered {
            home: Some(home),
            taps,
        }),
        Err(error) => {
            go_back(&home)?;
            Err(error)
        }
    }
}

fn own() -> Result<OwnedFd, Errno> {
    rustix::fs::open(OWN, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
}

fn go_back(home: &OwnedFd) -> Result<(), NetworkError> {
    move_into_link_name_space(home.as_fd(), Some(LinkNameSpaceType::Network))
        .map_err(namespace("leave"))
}

/// Makes a namespace with interfaces whose other ends are the descriptors.
fn make(bundle: &Bundle) -> Result<Vec<OwnedFd>, NetworkError> {
    sys::unshare_network().map_err(namespace("make"))?;
    for (name, value) in PARAMETERS {
        match set(name, value) {
            // Not in every kernel.
            Err(NetworkError::Parameter { source, .. })
                if source.kind() == io::ErrorKind::NotFound => {}
            other => other?,
        }
    }
    let interfaces = bundle.setup.interfaces.iter().enumerate();
    let taps = interfaces
        .map(|(index, interface)| add_interface(&interface_name(index), interface))
        .collect::<Result<_, _>>()?;
    if bundle.setup.interfaces.is_empty() {
        hullbox_netif::loopback_up().map_err(NetworkError::Interface)?;
    }
    asked(bundle).try_for_each(|(name, value)| set(name, value))?;
    Ok(taps)
}

/// Makes an interface in this thread's namespace; the descriptor is its other end.
fn add_interface(name: &str, interface: &Interface) -> Result<OwnedFd, NetworkError> {
    let tap = open_tap(name).map_err(|errno| match errno {
        // No node, or one with no driver behind it.
        Errno::NOENT | Errno::NODEV | Errno::NXIO => NetworkError::NoTun,
        errno => NetworkError::Tap(errno),
    })?;
    // Closing the last descriptor would remove the device, which takes the kernel some 15 ms that
    // somebody would have to wait for.
    keep_tap(&tap).map_err(NetworkError::Tap)?;
    match hullbox_netif::configure(name, interface) {
        Ok(()) => Ok(tap),
        Err(error) => {
            // The first error is the one to tell; the device would stay in a container that runs.
            let _ = hullbox_netif::remove(name);
            Err(NetworkError::Interface(error))
        }
    }
}

/// Makes one more interface for a container that runs, given a process in its namespace.
pub(super) fn connect(
    process: BorrowedFd<'_>,
    name: &str,
    interface: &Interface,
) -> Result<OwnedFd, NetworkError> {
    within(process, || add_interface(name, interface))
}

/// Removes an interface of a container that runs, given a process in its namespace.
pub(super) fn disconnect(process: BorrowedFd<'_>, name: &str) -> Result<(), NetworkError> {
    within(process, || {
        hullbox_netif::remove(name).map_err(NetworkError::Interface)
    })
}

/// Does something in a process's network namespace.
fn within<T>(
    process: BorrowedFd<'_>,
    work: impl FnOnce() -> Result<T, NetworkError>,
) -> Result<T, NetworkError> {
    let home = own().map_err(namespace("find"))?;
    move_into_thread_name_spaces(process, ThreadNameSpaceType::NETWORK)
        .map_err(namespace("join"))?;
    let done = work();
    go_back(&home)?;
    done
}

/// Joins the namespace of another container that runs.
fn join(bundle: &Bundle, id: &str) -> Result<(), NetworkError> {
    let process = first_process(id).ok_or_else(|| NetworkError::NotRunning(id.to_owned()))?;
    let home = id_of(OWN).map_err(namespace("find"))?;
    move_into_thread_name_spaces(process.as_fd(), ThreadNameSpaceType::NETWORK)
        .map_err(namespace("join"))?;
    let is_home = id_of(OWN).map_err(namespace("find"))? == home;
    for (name, value) in asked(bundle) {
        // That container may be in the host's.
        if is_home {
            return Err(NetworkError::HostParameter(name.clone()));
        }
        set(name, value)?;
    }
    Ok(())
}

fn id_of(path: &str) -> Result<(u64, u64), Errno> {
    let stat = rustix::fs::stat(path)?;
    Ok((stat.st_dev, stat.st_ino))
}

/// The first process of a container that runs, found by its control group. It is what it was found to
/// be, however soon numbers of processes are used again.
fn first_process(id: &str) -> Option<OwnedFd> {
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    if id.is_empty() || !id.bytes().all(is_name) {
        return None;
    }
    let group = Cgroup::find(id).ok()??;
    processes(group.fd()).into_iter().find_map(|number| {
        let pid = Pid::from_raw(number.try_into().ok()?)?;
        let process = pidfd_open(pid, PidfdFlags::empty()).ok()?;
        let found = is_first(number)? && is_of(number, id)? && runs(&process);
        found.then_some(process)
    })
}

/// Whether a process is the first of a PID namespace just below this one's.
fn is_first(number: u32) -> Option<bool> {
    let status = std::fs::read_to_string(format!("/proc/{number}/status")).ok()?;
    let ids = status
        .lines()
        .find_map(|line| line.strip_prefix("NSpid:"))?;
    let mut ids = ids.split_ascii_whitespace().skip(1);
    Some(ids.next() == Some("1") && ids.next().is_none())
}

/// Whether a process is in the container's control group, or below it.
fn is_of(number: u32, id: &str) -> Option<bool> {
    let groups = std::fs::read_to_string(format!("/proc/{number}/cgroup")).ok()?;
    let path = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    Some(path.split('/').any(|part| part == id))
}

fn runs(process: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(process, PollFlags::IN)];
    matches!(poll(&mut fds, Some(&Timespec::default())), Ok(0))
}

/// The parameters of the network namespace among those that were asked for.
fn asked(bundle: &Bundle) -> impl Iterator<Item = &(String, String)> {
    let sysctls = bundle.setup.sysctls.iter();
    sysctls.filter(|(name, _)| is_parameter(name))
}

/// Whether a parameter is the network namespace's.
pub(super) fn is_parameter(name: &str) -> bool {
    name.starts_with("net.") || name.starts_with("net/")
}

fn set(name: &str, value: &str) -> Result<(), NetworkError> {
    let path = name.replace('.', "/");
    let odd = |part: &str| matches!(part, "" | "." | "..");
    let written = match path.split('/').any(odd) {
        true => Err(io::ErrorKind::InvalidInput.into()),
        false => std::fs::OpenOptions::new()
            .write(true)
            .open(format!("/proc/sys/{path}"))
            .and_then(|mut file| io::Write::write_all(&mut file, value.as_bytes())),
    };
    written.map_err(|source| NetworkError::Parameter {
        name: name.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_parameters_of_the_network_are_set_here() {
        assert!(is_parameter("net.ipv4.ip_forward") && is_parameter("net/ipv4/ip_forward"));
        assert!(!is_parameter("kernel.net.x") && !is_parameter("network"));
        let error = set("net.ipv4...ip_forward", "1").unwrap_err();
        let NetworkError::Parameter { source, .. } = error else {
            panic!("{error:?}");
        };
        assert_eq!(source.kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn a_container_that_does_not_run_is_not_found() {
        for id in ["", "..", "a/b", "0123456789abcdef"] {
            assert!(first_process(id).is_none(), "{id}");
        }
        // This process is no container's first.
        let own = std::process::id();
        assert_eq!(is_of(own, "0123456789abcdef"), Some(false));
        assert_ne!(is_first(own), Some(true));
        assert_eq!(is_first(u32::MAX), None);
    }
}
