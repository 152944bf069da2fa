//! The monitor's loop: frames from the workload's side to whoever is connected, and back.
//!
//! ```text
//! guest agent or ns ══ one connection, many sessions ══ hub ══ client: attached
//!                                                         ╞══ client: a process of its own
//!                                                         ├── log        ╘══ client: a question
//! ```
//!
//! Every frame is decoded under its limits, checked against what its sender may send at
//! this moment, and encoded anew. What may be on its way is bounded by credit (see
//! [`super::streams`]), so no buffer grows without end whatever anybody does.

mod clients;
mod commands;
mod guest;
mod link;
mod networks;
mod observer;
mod pipes;
mod saving;
mod sessions;
mod stopping;
mod time;
mod timers;

use super::client::{Client, Clients, Role};
use super::health::Checker;
use super::log::Log;
use super::network::ContainerNetwork;
use super::pipes::PipeEnd;
use super::rules::{Ending, WORKLOAD};
use super::signals::Signals;
use hullbox_backend::backend::{Backend, Link};
use hullbox_backend::saving::Saving;
use hullbox_host::clock::{AGAINST_DRIFT_S, Clock};
use hullbox_host::timing::{Phase, Timing};
use hullbox_protocol::{ExitStatus, Failure, FailureKind, Frame, Sender};
use hullbox_session::connection::Connection;
use link::{Guest, GuestLink};
pub(super) use observer::Observer;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use sessions::{Sessions, Workload};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};
use stopping::Stopping;
use timers::{Deadline, Timers};

/// How long a guest may take to dial in. Software emulation on a busy machine is slow.
const BOOT_LIMIT: Duration = Duration::from_secs(120);
/// How long a guest may take to send its first frame where another can boot instead: many of them may
/// begin at once.
const FIRST_LIMIT: Duration = Duration::from_secs(60);
/// How long a killed workload's end may take to be reported: a microVM writes what it has to first.
/// Less than whoever asks for the end waits.
const KILL_LIMIT: Duration = Duration::from_secs(8);
/// How long after a broken connection the backend may take to end, which tells the cause.
const CAUSE_LIMIT: Duration = Duration::from_secs(3);
/// How long the workload's side may take to answer a request. A guest may be emulated, and busy.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// How long after its workload's start a monitor lets go of the code that it needed for it.
pub(super) const SETTLED: Duration = Duration::from_secs(1);
/// Signals that come within this time are one: a host that shuts down sends several.
const SAME_SIGNAL: Duration = Duration::from_secs(1);
/// Clients at a time that stay for longer than one answer.
pub(super) const MAX_CLIENTS: usize = 256;
/// Connections at a time: when all clients are there, one can still end the container.
const MAX_CONNECTIONS: usize = MAX_CLIENTS + 64;
/// Processes beside the workload at a time. An agent takes a few more.
const MAX_EXECS: usize = 1000;
/// Requests at a time that the workload's side has not answered.
const MAX_REQUESTS: usize = 1000;
/// Frames that may wait for a guest's first frame before nothing more is read for it.
const MAX_UNANSWERED: usize = 4096;

/// The loop and its state.
pub(super) struct Hub<'a> {
    backend: &'a mut dyn Backend,
    observer: &'a mut dyn Observer,
    signals: &'a Signals,
    timing: &'a Timing,
    /// Show the agent's diagnostics.
    debug: bool,
    link: GuestLink,
    clients: Clients<'a>,
    sessions: Sessions,
    stopping: Stopping,
    timers: Timers,
    log: Option<Log>,
    health: Option<Checker>,
    network: &'a mut ContainerNetwork,
    /// Of a guest that has its own.
    clock: Option<Clock>,
    paused: bool,
    /// The snapshot that is being written, and the id of the client that asked for it.
    saving: Option<(Saving, Option<u64>)>,
}

/// What a hub joins.
pub(super) struct Parts<'a> {
    pub backend: &'a mut dyn Backend,
    pub clients: Vec<Client>,
    /// Where more clients connect.
    pub control: Option<BorrowedFd<'a>>,
    /// Signals to this process.
    pub signals: &'a Signals,
    pub opening: Vec<Frame>,
    pub timing: &'a Timing,
    /// Show the agent's diagnostics.
    pub debug: bool,
    pub log: Option<Log>,
    pub health: Option<Checker>,
    pub network: &'a mut ContainerNetwork,
    pub stdin_once: bool,
    /// The first client writes the workload's input.
    pub writes: bool,
    /// Its streams go to the first client without frames, where they can.
    pub direct: bool,
    pub stop_signal: u8,
    /// How long a stop may take before the workload is killed; `None` is for ever.
    pub stop_timeout: Option<Duration>,
    pub observer: &'a mut dyn Observer,
}

/// How it went, and who is still there.
#[derive(Debug)]
pub(super) struct Outcome {
    pub ending: Ending,
    /// The workload's side ended of itself, and reported that.
    pub orderly: bool,
    pub clients: Vec<Client>,
    /// Somebody ended it: a restart policy does not apply.
    pub manual: bool,
    /// By `stop`, or by a signal to its monitor.
    pub stopped: bool,
}

impl<'a> Hub<'a> {
    pub(super) fn new(parts: Parts<'a>) -> io::Result<Self> {
        let mut hub = Self {
            link: GuestLink::new(parts.opening, parts.backend.can_begin_anew()),
            clients: Clients::new(parts.clients, parts.control),
            sessions: Sessions::new(Workload {
                direct: parts.direct && parts.backend.takes_descriptors(),
                stdin_once: parts.stdin_once,
                ..Workload::default()
            }),
            stopping: Stopping::by(parts.stop_signal, parts.stop_timeout),
            timers: Timers::default(),
            signals: parts.signals,
            timing: parts.timing,
            debug: parts.debug,
            log: parts.log,
            health: parts.health,
            network: parts.network,
            // Without a descriptor to spare, it keeps the time that it began with.
            clock: parts
                .backend
                .has_own_clock()
                .then(|| Clock::new(AGAINST_DRIFT_S))
                .and_then(Result::ok),
            paused: false,
            saving: None,
            observer: parts.observer,
            backend: parts.backend,
        };
        if let Some(first) = hub.clients.list.first().filter(|_| parts.writes)
            && matches!(first.role, Role::Attached { .. })
        {
            hub.sessions.workload.input.claim(first.id);
        }
        let link = hub.backend.link()?;
        hub.await_guest(link)?;
        Ok(hub)
    }

    fn await_guest(&mut self, link: Link) -> io::Result<()> {
        match link {
            Link::Awaited(listener) => {
                listener.set_nonblocking(true)?;
                self.link.guest = Guest::Awaited(listener);
                self.timers.deadline = Some((Instant::now() + self.boot_limit(), Deadline::Boot));
            }
            Link::Connected(fd) => self.connect(fd)?,
        }
        Ok(())
    }

    const fn boot_limit(&self) -> Duration {
        match self.link.replay {
            Some(_) => FIRST_LIMIT,
            None => BOOT_LIMIT,
        }
    }

    /// Runs until the workload's side has nothing more to send.
    pub(super) fn run(mut self) -> Outcome {
        let ending = loop {
            let ready = match self.wait() {
                Ok(ready) => ready,
                Err(error) => break Ending::Died(Some(format!("poll failed: {error}"))),
            };
            if let Some(ending) = self.step(&ready)
                && let Err(ending) = self.begin_anew(ending)
            {
                break ending;
            }
        };
        if let Some(log) = &mut self.log {
            log.finish();
        }
        let orderly = matches!(ending, Ending::Exited(_) | Ending::Failed(_));
        let ending = match (ending, self.stopping.interrupted) {
            (Ending::Died(None), Some(signal)) => {
                Ending::Exited(ExitStatus::Signal { signal, oom: false })
            }
            (ending, _) => ending,
        };
        Outcome {
            ending,
            orderly,
            clients: self.clients.list,
            manual: self.stopping.manual,
            stopped: self.stopping.stopped,
        }
    }

    fn connect(&mut self, fd: OwnedFd) -> io::Result<()> {
        let guest = Connection::to(fd, Sender::Agent).map_err(io::Error::other)?;
        self.link.connect(guest);
        Ok(())
    }

    /// The guest answers: it is the one to go on with.
    fn on_guest_contact(&mut self) {
        self.link.replay = None;
        if matches!(self.timers.deadline, Some((_, Deadline::Boot))) {
            self.timers.deadline = None;
        }
    }

    /// Has another guest take the place of one that ended before it sent anything, if that can be.
    fn begin_anew(&mut self, ending: Ending) -> Result<(), Ending> {
        let Ending::Died(why) = &ending else {
            return Err(ending);
        };
        let wanted = self.stopping.interrupted.is_none() && !self.stopping.killing;
        let Some(mut replay) = self.link.replay.take().filter(|_| wanted) else {
            return Err(ending);
        };
        replay.append(&mut self.link.outgoing);
        let setup = replay.iter_mut().find_map(|frame| match frame {
            Frame::Setup(setup) => Some(setup),
            _ => None,
        });
        let Some(begun) = setup.and_then(|setup| self.backend.begin_anew(setup, why.as_deref()))
        else {
            return Err(ending);
        };
        let link = begun.map_err(Ending::Failed)?;
        self.timing.mark(Phase::Fallback);
        (self.link.backend_ended, self.link.outgoing) = (false, replay);
        self.network
            .replace(self.backend.members())
            .map_err(Ending::Failed)?;
        self.await_guest(link)
            .map_err(|error| Ending::Died(Some(error.to_string())))?;
        if let Some(warning) = self.backend.warning() {
            self.warn(&warning);
        }
        Ok(())
    }

    fn warn(&mut self, warning: &str) {
        for client in &mut self.clients.list {
            client.warn(warning);
        }
    }

    fn signal(&mut self, signal: u8) {
        self.link.send(Frame::Signal {
            session: WORKLOAD,
            signal: signal.into(),
        });
    }

    fn wait(&self) -> io::Result<Ready> {
        let mut fds = Vec::with_capacity(4 + self.clients.list.len());
        fds.push(PollFd::new(self.signals, PollFlags::IN));
        let ended = self.backend.ended();
        // Once known, the end would only wake us again and again while the rest is read.
        fds.push(PollFd::from_borrowed_fd(
            ended,
            interest(!self.link.backend_ended, false),
        ));
        let guest_at = match &self.link.guest {
            Guest::Awaited(listener) => {
                fds.push(PollFd::new(listener, PollFlags::IN));
                Some(fds.len() - 1)
            }
            Guest::Connected(guest) => {
                let events = interest(true, guest.pending() > 0);
                fds.push(PollFd::from_borrowed_fd(guest.as_fd(), events));
                Some(fds.len() - 1)
            }
            Guest::Gone => None,
        };
        let control_at = self.clients.entrance.as_ref().map(|entrance| {
            let has_room = self.clients.list.len() < MAX_CONNECTIONS;
            let events = entrance.interest() & interest(has_room, false);
            fds.push(PollFd::from_borrowed_fd(entrance.as_fd(), events));
            fds.len() - 1
        });
        // What the guest knows of the time from its start is for the workload to begin with.
        let clock = self
            .clock
            .as_ref()
            .filter(|_| self.sessions.workload.reported.started);
        let clock_at = clock.map(|clock| {
            fds.push(PollFd::from_borrowed_fd(clock.fd(), PollFlags::IN));
            fds.len() - 1
        });
        let saving_at = self.saving.as_ref().map(|(saving, _)| {
            fds.push(PollFd::new(saving, PollFlags::IN));
            fds.len() - 1
        });
        let mut network_at = Vec::new();
        for fd in self.network.interests() {
            network_at.push(fd.is_some().then_some(fds.len()));
            fds.extend(fd);
        }
        let first_client = fds.len();
        for client in &self.clients.list {
            let events = interest(self.may_read(client), client.connection.pending() > 0);
            fds.push(PollFd::from_borrowed_fd(client.connection.as_fd(), events));
        }
        let first_pipe = fds.len();
        let takes_input = self.takes_piped_input();
        let mut pipes = Vec::new();
        for client in &self.clients.list {
            for (end, fd, events) in client.pipes.interests(takes_input) {
                fds.push(PollFd::from_borrowed_fd(fd, events));
                pipes.push((client.id, end));
            }
        }
        let timeout = self.next_deadline().map(|at| {
            let left = at.saturating_duration_since(Instant::now());
            // Rounded up: a poll that wakes too early would only be repeated.
            Timespec::try_from(left + Duration::from_micros(50)).unwrap_or(Timespec {
                tv_sec: 3600,
                tv_nsec: 0,
            })
        });
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let events = |at: Option<usize>| at.map_or(PollFlags::empty(), |at| fds[at].revents());
        Ok(Ready {
            signals: !fds[0].revents().is_empty(),
            ended: fds[1].revents().contains(PollFlags::IN),
            guest: events(guest_at),
            control: !events(control_at).is_empty(),
            clock: !events(clock_at).is_empty(),
            saving: !events(saving_at).is_empty(),
            network: network_at.into_iter().map(events).collect(),
            clients: fds[first_client..first_pipe]
                .iter()
                .map(PollFd::revents)
                .collect(),
            pipes: pipes
                .into_iter()
                .zip(&fds[first_pipe..])
                .filter(|(_, fd)| !fd.revents().is_empty())
                .map(|((id, end), fd)| (id, end, fd.revents()))
                .collect(),
        })
    }

    fn step(&mut self, ready: &Ready) -> Option<Ending> {
        if ready.signals {
            self.on_signal();
        }
        // Before anybody has its interfaces changed, of which these are the events.
        for news in self.network.turn(&ready.network) {
            self.on_network(news);
        }
        if let Some(ending) = self.serve_guest(ready.guest) {
            return Some(ending);
        }
        self.serve_clients(&ready.clients);
        self.serve_pipes(&ready.pipes);
        if ready.saving {
            self.poll_saving();
        }
        if ready.control {
            self.clients.accept(MAX_CONNECTIONS);
        }
        if ready.clock && self.clock.as_mut().is_some_and(Clock::is_due) {
            self.set_guest_clock();
        }
        if ready.ended {
            self.link.backend_ended = true;
            // What was sent before the end still lies in the connection.
            self.timers.deadline = Some((Instant::now() + CAUSE_LIMIT, Deadline::Cause));
        }
        if self.link.backend_ended && !matches!(self.link.guest, Guest::Connected(_)) {
            return Some(Ending::Died(None));
        }
        let ending = self.run_timers();
        self.flush();
        let too_long = self.link.too_long && !self.sessions.workload.reported.started;
        ending.or_else(|| too_long.then(too_long_to_start))
    }

    /// Writes what waits, and parts with clients that are gone or done.
    fn flush(&mut self) {
        self.settle_pipes();
        self.grant();
        self.pass_credit();
        self.link.flush();
        let lost: Vec<usize> = self
            .clients
            .list
            .iter_mut()
            .enumerate()
            .filter_map(|(at, client)| {
                // What it owes us it was given under credit; more is its own lie.
                let keeps_up = client.flush_connection().is_ok() && client.connection.may_fill();
                (!keeps_up).then_some(at)
            })
            .collect();
        for at in lost.into_iter().rev() {
            self.drop_client(at);
        }
        self.clients.list.retain(|client| !client.is_done());
        if !self.link.outgoing.is_empty() {
            // On behalf of those who are lost.
            self.link.flush();
        }
    }
}

/// In the words of execve(2).
fn too_long_to_start() -> Ending {
    Ending::Failed(Failure {
        kind: FailureKind::NotExecutable,
        message: "argument list too long".to_owned(),
    })
}

/// Which pipe of which client can be used, and how.
type ReadyPipe = (u64, PipeEnd, PollFlags);

struct Ready {
    signals: bool,
    ended: bool,
    guest: PollFlags,
    control: bool,
    clock: bool,
    saving: bool,
    network: Vec<PollFlags>,
    clients: Vec<PollFlags>,
    pipes: Vec<ReadyPipe>,
}

fn interest(read: bool, write: bool) -> PollFlags {
    let mut events = PollFlags::empty();
    events.set(PollFlags::IN, read);
    events.set(PollFlags::OUT, write);
    events
}
