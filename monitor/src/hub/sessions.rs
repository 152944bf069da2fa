//! The processes on the workload's side and the requests to it.

use crate::network::Place;
use crate::rules::{Reported, WORKLOAD};
use crate::streams::{Input, Shared};
use hullbox_backend::network::Member;
use hullbox_backend::saving::Description;
use hullbox_host::timing::Timing;
use hullbox_protocol::{CgroupLimits, Frame};
use std::path::PathBuf;
use std::time::Instant;

/// All that runs there, and all that was asked.
#[derive(Debug)]
pub(super) struct Sessions {
    pub(super) workload: Workload,
    pub(super) execs: Vec<Exec>,
    pub(super) requests: Vec<PendingRequest>,
    /// Of the next session or request.
    next_number: u32,
}

impl Sessions {
    pub(super) const fn new(workload: Workload) -> Self {
        Self {
            workload,
            execs: Vec::new(),
            requests: Vec::new(),
            next_number: WORKLOAD + 1,
        }
    }

    /// A number that neither a session nor a request has.
    pub(super) fn next_number(&mut self) -> u32 {
        let number = self.next_number;
        self.next_number = number.checked_add(1).unwrap_or(WORKLOAD + 1);
        number
    }

    /// The process of a session beside the workload's.
    pub(super) fn exec(&mut self, session: u32) -> Option<&mut Exec> {
        self.execs.iter_mut().find(|exec| exec.session == session)
    }
}

/// The workload.
#[derive(Debug, Default)]
pub(super) struct Workload {
    pub(super) reported: Reported,
    /// The workload's side has sent `Hello`.
    pub(super) hello_received: bool,
    /// It has written something.
    pub(super) has_output: bool,
    pub(super) outputs: [Shared; 2],
    pub(super) input: Input,
    /// Streams of it go to whoever started it without coming by here.
    pub(super) direct: bool,
    /// Its input ends with the first client that was attached to it.
    pub(super) stdin_once: bool,
}

/// Whose a process beside the workload is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    /// A client's that is sent everything.
    Client(u64),
    /// A client's that leaves when it runs.
    Leaving(u64),
    /// Nobody's: its output is dropped.
    Nobody,
    /// The health check's.
    Health,
}

/// A process beside the workload.
#[derive(Debug)]
pub(super) struct Exec {
    pub(super) session: u32,
    /// Under which it is remembered, if it is.
    pub(super) id: Option<String>,
    pub(super) owner: Owner,
    pub(super) reported: Reported,
    /// It has written something.
    pub(super) has_output: bool,
    pub(super) outputs: [Shared; 2],
    /// Credit for its input that was not passed on to its client yet, in bytes.
    pub(super) credit: u32,
    /// For its client.
    pub(super) timing: Timing,
}

impl Exec {
    /// One that is asked for just now.
    pub(super) fn new(session: u32, owner: Owner) -> Self {
        Self {
            session,
            id: None,
            owner,
            reported: Reported::default(),
            has_output: false,
            credit: 0,
            outputs: [Shared::default(); 2],
            timing: Timing::default(),
        }
    }
}

/// A request on its way.
#[derive(Debug)]
pub(super) struct PendingRequest {
    pub(super) number: u32,
    pub(super) client: Option<u64>,
    /// When it succeeds, the container is paused, or no longer.
    pub(super) pauses: Option<bool>,
    /// It stays so only while the client is there.
    pub(super) holds: bool,
    /// When it succeeds, these are the limits.
    pub(super) limits: Option<CgroupLimits>,
    /// What it is a part of: another network of the container's.
    pub(super) network: Option<NetworkChange>,
    /// What is to be done once the workload's side is at rest.
    pub(super) save: Option<Save>,
    /// When its client has waited long enough.
    pub(super) due: Option<Instant>,
}

/// Another network for the container, or one less.
#[derive(Debug)]
pub(super) enum NetworkChange {
    /// The interface is asked for; its frames are carried by this.
    Connect(Place, Member),
    /// The interface of this number is to go.
    Disconnect(u8),
}

/// A snapshot to be made.
#[derive(Debug)]
pub(super) struct Save {
    pub(super) dir: PathBuf,
    pub(super) about: Description,
}

/// The same frame about another session.
pub(super) fn renumbered(mut frame: Frame, to: u32) -> Frame {
    match &mut frame {
        Frame::Started { session, .. }
        | Frame::Failed { session, .. }
        | Frame::Exited { session, .. }
        | Frame::Eof { session, .. }
        | Frame::Credit { session, .. }
        | Frame::Signal { session, .. }
        | Frame::Resize { session, .. } => *session = to,
        _ => {}
    }
    frame
}
