//! A container's user-mode network, as its monitor has it: who may need a process that serves it, and when.
//!
//! The monitor holds the descriptor that carries the container's frames and reads none of them. A
//! container that publishes ports gets its process before its workload starts; any other one with the
//! first frame that it sends, so that what never uses its network costs nothing. While there is a process
//! its connection alone is watched. One that died is started again by the same rule, with the ports that
//! it had, but not more often than once a second.

use hullbox_backend::bundle::Bundle;
use hullbox_backend::network::{Member, Network, OpenPort, PublishedPort, UserNetwork};
use hullbox_host::error::chain;
use hullbox_netproc::{Launcher, Process, ProcessError};
use hullbox_protocol::{Failure, FailureKind, Interface};
use rustix::event::{PollFd, PollFlags};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

/// How long a process may take until it serves. A helper machine is emulated, and so is its host busy.
const READY_LIMIT: Duration = Duration::from_secs(60);
/// Least time from one start of the process to the next; twice as long after each that failed.
const PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_mins(1);
/// A process that served for this long was a good one.
const GOOD_RUN: Duration = Duration::from_secs(10);

/// What is done for the network of one run of a container; nothing, where that has none in user mode.
#[derive(Debug, Default)]
pub(super) struct ContainerNetwork {
    served: Option<Served>,
}

#[derive(Debug)]
struct Served {
    launcher: Launcher,
    network: UserNetwork,
    interface: Interface,
    member: Member,
    phase: Phase,
    begun: Option<Instant>,
    /// Starts in a row that came to nothing.
    failures: u32,
    /// Its clients heard that it cannot be served.
    has_warned: bool,
}

#[derive(Debug)]
enum Phase {
    /// There is no process, nor will there be one before that time.
    Waiting(Option<Instant>),
    /// It has not answered, and has until then.
    Starting(Box<Process>, Instant),
    /// It serves.
    Serving(Box<Process>),
}

impl ContainerNetwork {
    /// That of a container whose frames this descriptor carries.
    pub(super) fn new(bundle: &Bundle, member: Option<Member>) -> Self {
        match (&bundle.network, &bundle.setup.interface, member) {
            (Network::User(network), Some(interface), Some(member)) => Self::served_by(
                Launcher::default(),
                network.clone(),
                interface.clone(),
                member,
            ),
            _ => Self::default(),
        }
    }

    pub(super) fn served_by(
        launcher: Launcher,
        network: UserNetwork,
        interface: Interface,
        member: Member,
    ) -> Self {
        Self {
            served: Some(Served {
                launcher,
                network,
                interface,
                member,
                phase: Phase::Waiting(None),
                begun: None,
                failures: 0,
                has_warned: false,
            }),
        }
    }

    /// Opens the published ports, if there are any, before the workload starts. Later processes open the
    /// same ones.
    pub(super) fn open(&mut self) -> Result<Vec<OpenPort>, Failure> {
        let Some(served) = self.served.as_mut().filter(|served| served.publishes()) else {
            return Ok(Vec::new());
        };
        let started = served.start().and_then(|mut process| {
            let ports = process.wait_until_ready(READY_LIMIT)?;
            Ok((process, ports))
        });
        match started {
            Ok((process, ports)) => {
                served.network.ports = ports.iter().map(the_same).collect();
                served.phase = Phase::Serving(process);
                Ok(ports)
            }
            Err(error) => {
                self.served = None;
                Err(Failure {
                    kind: FailureKind::Setup,
                    message: chain(&error),
                })
            }
        }
    }

    /// Another guest has taken the place of the one whose frames were carried: by this descriptor from
    /// now on. The guest of before may have sent nothing that matters.
    pub(super) fn replace(&mut self, member: Option<Member>) -> Result<(), Failure> {
        let Some(mut served) = self.served.take() else {
            return Ok(());
        };
        served.phase = Phase::Waiting(None);
        if let Some(member) = member {
            served.member = member;
            self.served = Some(served);
        }
        self.open().map(drop)
    }

    /// What to poll for.
    pub(super) fn interest(&self) -> Option<PollFd<'_>> {
        let served = self.served.as_ref()?;
        let fd = match &served.phase {
            Phase::Waiting(Some(_)) => return None,
            Phase::Waiting(None) => served.member(),
            Phase::Starting(process, _) | Phase::Serving(process) => process.as_fd(),
        };
        Some(PollFd::from_borrowed_fd(fd, PollFlags::IN))
    }

    /// When [`Self::turn`] has to be called although nothing happened.
    pub(super) fn due(&self) -> Option<Instant> {
        match self.served.as_ref()?.phase {
            Phase::Waiting(due) => due,
            Phase::Starting(_, deadline) => Some(deadline),
            Phase::Serving(_) => None,
        }
    }

    /// Does what is due after these events of [`Self::interest`]. Returns what the container's clients
    /// should hear.
    pub(super) fn turn(&mut self, events: PollFlags) -> Option<String> {
        let served = self.served.as_mut()?;
        let now = Instant::now();
        let result = match &mut served.phase {
            Phase::Waiting(Some(due)) if *due > now => return None,
            Phase::Waiting(Some(_)) => {
                served.phase = Phase::Waiting(None);
                // Whoever connects to a published port sends the first frame.
                match served.publishes() {
                    true => served.begin(now),
                    false => return None,
                }
            }
            Phase::Waiting(None) => {
                if events.intersects(PollFlags::HUP | PollFlags::ERR) {
                    // The interface is gone, and with it the container, of which others tell.
                    self.served = None;
                    return None;
                }
                match events.contains(PollFlags::IN) {
                    true => served.begin(now),
                    false => return None,
                }
            }
            Phase::Starting(_, deadline) if *deadline <= now => Err(ProcessError::Silent),
            Phase::Starting(..) | Phase::Serving(_) if events.is_empty() => return None,
            Phase::Starting(process, _) | Phase::Serving(process) => process.ready().map(|ready| {
                if ready.is_some() {
                    served.serve();
                }
            }),
        };
        result.err().and_then(|error| served.failed(&error, now))
    }

    /// Has the process end, if there is one. It has ended when this is dropped.
    pub(super) fn close(&self) {
        if let Some(Served {
            phase: Phase::Starting(process, _) | Phase::Serving(process),
            ..
        }) = &self.served
        {
            process.close();
        }
    }

    #[cfg(test)]
    pub(super) fn is_serving(&self) -> bool {
        let served = self.served.as_ref();
        served.is_some_and(|served| matches!(served.phase, Phase::Serving(_)))
    }

    #[cfg(test)]
    pub(super) fn pid(&self) -> Option<u32> {
        match &self.served.as_ref()?.phase {
            Phase::Waiting(_) => None,
            Phase::Starting(process, _) | Phase::Serving(process) => Some(process.pid()),
        }
    }
}

impl Served {
    fn publishes(&self) -> bool {
        !self.network.ports.is_empty()
    }

    fn member(&self) -> BorrowedFd<'_> {
        match &self.member {
            Member::Tap(fd) | Member::Packets(fd) => fd.as_fd(),
        }
    }

    fn start(&mut self) -> Result<Box<Process>, ProcessError> {
        self.begun = Some(Instant::now());
        self.launcher
            .start(&self.network, &self.interface, &self.member)
            .map(Box::new)
    }

    fn begin(&mut self, now: Instant) -> Result<(), ProcessError> {
        let process = self.start()?;
        self.phase = Phase::Starting(process, now + READY_LIMIT);
        Ok(())
    }

    fn serve(&mut self) {
        self.phase = match std::mem::replace(&mut self.phase, Phase::Waiting(None)) {
            Phase::Starting(process, _) => Phase::Serving(process),
            other => other,
        };
    }

    /// There is no process any more. Returns what clients should hear: why the first one could not serve.
    fn failed(&mut self, error: &ProcessError, now: Instant) -> Option<String> {
        if let Phase::Starting(process, _) | Phase::Serving(process) = &mut self.phase {
            // One that is of no use is not waited for.
            process.kill();
        }
        let has_served = matches!(self.phase, Phase::Serving(_));
        let begun = self.begun.unwrap_or(now);
        self.failures = match has_served && now.duration_since(begun) >= GOOD_RUN {
            true => 0,
            false => self.failures.saturating_add(1),
        };
        self.phase = Phase::Waiting(Some(begun + pause(self.failures)));
        let warns = !has_served && !std::mem::replace(&mut self.has_warned, true);
        warns.then(|| format!("the container has no network: {}", chain(error)))
    }
}

/// The least time between two starts, after so many in a row that came to nothing.
fn pause(failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    PAUSE.saturating_mul(1 << doublings).min(LONGEST_PAUSE)
}

/// A port to be opened as this one was.
fn the_same(port: &OpenPort) -> PublishedPort {
    PublishedPort {
        protocol: port.protocol,
        host_ip: Some(port.host_ip),
        host_ports: (port.host_port, port.host_port),
        container_port: port.container_port,
    }
}
