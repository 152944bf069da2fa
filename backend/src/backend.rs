//! What a monitor asks of either backend.

use crate::network::Member;
use crate::saving::{Description, Saving};
use hullbox_protocol::{Failure, Interface, Setup};
use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;

/// Has a monitor kill its container at once. A backend's own processes leave it to the monitor.
pub const KILL_NOW: Signal = Signal::USR1;

/// How the workload's side is reached.
#[derive(Debug)]
pub enum Link {
    /// It is there.
    Connected(OwnedFd),
    /// It will dial in, once.
    Awaited(UnixListener),
}

/// What a microVM costs, seen from outside.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmUsage {
    /// Exits of its virtual CPUs, and interrupts to them, by reason.
    pub events: Vec<(String, u64)>,
    /// Memory of its process that nobody else shares, in bytes.
    pub host_private_bytes: u64,
    /// Resident memory of its process, in bytes.
    pub host_resident_bytes: u64,
}

/// Where a guest began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BegunFrom {
    /// At the kernel's entry.
    Boot,
    /// Where the guest of the template with this id was saved.
    Template(String),
    /// Where the container was saved in the snapshot of this name.
    Snapshot(String),
}

/// A container that has been started, in a microVM or in namespaces.
pub trait Backend {
    /// The connection that speaks the protocol. Asked for once.
    ///
    /// # Errors
    /// It was asked for before.
    fn link(&mut self) -> io::Result<Link>;

    /// Becomes readable when all is over, of itself or because of [`Self::kill`].
    fn ended(&self) -> BorrowedFd<'_>;

    /// Ends everything at once. May be called at any time, more than once.
    fn kill(&mut self);

    /// What carries the frames of its interfaces, in order. Asked for once a run.
    fn members(&mut self) -> Vec<Member> {
        Vec::new()
    }

    /// Makes what carries the frames of one more interface. Where the workload's side makes the interface
    /// itself, it is asked to when this has returned ([`hullbox_protocol::Request::Connect`]).
    ///
    /// # Errors
    /// Why not, in one line.
    fn connect(&mut self, _index: u8, _interface: &Interface) -> Result<Member, String> {
        Err("the container's network cannot be changed".to_owned())
    }

    /// Removes an interface, or what carried its frames. The workload's side was asked before.
    ///
    /// # Errors
    /// Why not, in one line.
    fn disconnect(&mut self, _index: u8) -> Result<(), String> {
        Err("the container's network cannot be changed".to_owned())
    }

    /// Has the container see a link at an interface, or none. One that cannot show it does nothing. A TAP
    /// device's is for whoever holds its descriptor.
    fn set_link(&mut self, _index: u8, _up: bool) {}

    /// Whether its connection takes descriptors for the streams of processes.
    fn takes_descriptors(&self) -> bool {
        false
    }

    /// What whoever started it should hear, once.
    fn warning(&mut self) -> Option<String> {
        None
    }

    /// Where its guest began, if it has one.
    fn begun(&self) -> Option<BegunFrom> {
        None
    }

    /// Whether [`Self::begin_anew`] may be of use.
    fn can_begin_anew(&self) -> bool {
        false
    }

    /// Boots another guest in place of one that was of no use, before anything of the workload was
    /// started; once, and not if it booted and ended. `why` is what is known of the reason.
    /// Fills in what differs for that guest.
    fn begin_anew(&mut self, _: &mut Setup, _why: Option<&str>) -> Option<Result<Link, Failure>> {
        None
    }

    /// There was a template, and it was of no use.
    fn found_useless_template(&self) -> bool {
        false
    }

    /// Whether its wall clock is its own and has to be kept to the host's.
    fn has_own_clock(&self) -> bool {
        false
    }

    /// What it costs, seen from outside; `None` where the workload's side knows all.
    fn usage(&self) -> Option<VmUsage> {
        None
    }

    /// Begins to save it as a snapshot into an empty directory, while its agent is at rest.
    ///
    /// # Errors
    /// Why not, in one line.
    fn save(&mut self, _dir: &Path, _about: Description) -> Result<Saving, String> {
        Err("only a container in a microVM can be saved".to_owned())
    }

    /// Ends everything, unless the workload is known to have ended in good order, in which case the
    /// backend may finish what it has to; and frees what it holds. Returns how it ended in words,
    /// for when the workload's side did not say.
    fn release(self: Box<Self>, orderly: bool) -> String;
}
