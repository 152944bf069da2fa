//! The monitor's loop: frames from the workload's side to whoever is connected, and back.
//!
//! ```text
//! guest agent or ns ══ one connection, many sessions ══ hub ══ client: attached
//!                                                         ╞══ client: a process of its own
//!                                                         ├── log        ╘══ client: a question
//! ```
//!
//! Every frame is decoded under its limits, checked against what its sender may say at this
//! moment, and encoded anew. What may be on its way is bounded by credit (see
//! [`super::streams`]), so no buffer grows without end whatever anybody does.

mod clients;
mod guest;
mod saving;
mod sessions;
mod time;

use super::backend::{Backend, Link};
use super::client::{Client, Role};
use super::health::{Checker, HealthReport, HealthResult};
use super::log::Log;
use super::rules::{Ending, WORKLOAD};
use super::signals::Signals;
use crate::clock::{self, AGAINST_DRIFT_S, Clock};
use crate::plan::life::Restart;
use crate::state::BegunFrom;
use crate::timing::{Phase, Timing};
use hullbox_backend::saving::Saving;
use hullbox_model::exec::ExecInspect;
use hullbox_protocol::{
    CgroupLimits, ExitStatus, Failure, FailureKind, Frame, ProcessSpec, Sender, Started,
};
use hullbox_session::connection::{Connection, ConnectionError};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use sessions::{Exec, Pending, Workload};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

/// How long a guest may take to dial in. Software emulation on a busy machine is slow.
const BOOT_LIMIT: Duration = Duration::from_secs(120);
/// How long a guest that need not boot may take to say its first word, where another can boot
/// instead: many of them may begin at once.
const RESUME_LIMIT: Duration = Duration::from_secs(60);
/// How long a killed workload may take to say that it is dead: a microVM writes what it has to first.
/// Less than whoever asks for the end waits.
const KILL_LIMIT: Duration = Duration::from_secs(8);
/// How long after a broken connection the backend may take to say why.
const CAUSE_LIMIT: Duration = Duration::from_secs(3);
/// How long the workload's side may take to answer a request. A guest may be emulated, and busy.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// How long after its workload's start a monitor lets go of the code that it needed for it.
const SETTLED: Duration = Duration::from_secs(1);
/// Signals that come within this time are one: a host that shuts down sends several.
const SAME_SIGNAL: Duration = Duration::from_secs(1);
/// Clients at a time that stay for longer than a word.
pub(super) const MAX_CLIENTS: usize = 256;
/// Connections at a time: when all clients are there, one can still be told to go.
const MAX_CONNECTIONS: usize = MAX_CLIENTS + 64;
/// Processes beside the workload at a time. An agent takes a few more.
const MAX_EXECS: usize = 1000;
/// Requests at a time that the workload's side has not answered.
const MAX_REQUESTS: usize = 1000;
/// Frames that may wait for a guest's first word before nothing more is read for it.
const MAX_UNHEARD: usize = 4096;

/// Where the workload's side is.
#[derive(Debug)]
enum Guest {
    Awaited(UnixListener),
    Connected(Connection),
    Gone,
}

/// What happens when time is up.
#[derive(Debug, Clone, Copy)]
enum Deadline {
    Boot,
    Kill,
    Cause,
}

/// Who is told what happens to the container.
pub(super) trait Observer {
    /// The workload runs, in a guest that began there, if it has one.
    fn started(&mut self, started: &Started, begun: Option<BegunFrom>);
    /// It was frozen, or goes on.
    fn paused(&mut self, paused: bool);
    /// A health check ended, or checks begin.
    fn health(&mut self, report: &HealthReport);
    /// What health checks found in earlier runs of the container.
    fn health_log(&self) -> Vec<HealthResult> {
        Vec::new()
    }
    /// There is another restart policy.
    fn restart(&mut self, restart: Restart);
    /// The restart policy now.
    fn policy(&self) -> Restart {
        Restart::No
    }
    /// There are other limits.
    fn limited(&mut self, _limits: &CgroupLimits) {}
    /// The container has another name.
    fn renamed(&mut self, _name: String) {}
    /// A client was attached.
    fn attached(&mut self) {}
    /// A client left by its detach keys.
    fn detached(&mut self) {}
    /// The workload is sent a signal.
    fn signalled(&mut self, _signal: u8) {}
    /// The out-of-memory killer was at work in the container.
    fn oom(&mut self) {}
    /// A process beside the workload is asked for: its id.
    fn exec_created(&mut self, _spec: &ProcessSpec) -> Option<String> {
        None
    }
    /// One that was asked for is being started.
    fn exec_starts(&mut self, _id: &str, _spec: &ProcessSpec) {}
    /// One is asked for and started at once: its id.
    fn exec_begins(&mut self, _spec: &ProcessSpec) -> Option<String> {
        None
    }
    /// It runs.
    fn exec_runs(&mut self, _id: &str, _pid: u32) {}
    /// It ended, or did not run at all.
    fn exec_ended(&mut self, _id: &str, _code: u8, _ran: bool) {}
    /// Its client left by its detach keys.
    fn exec_left(&mut self, _id: &str) {}
    /// What is to be run, of one that was asked for and not started yet.
    fn exec_spec(&mut self, _id: &str) -> Result<Box<ProcessSpec>, &'static str> {
        Err("no such exec")
    }
    /// All of them that are remembered.
    fn execs(&self) -> Vec<ExecInspect> {
        Vec::new()
    }
}

/// The loop and what it knows.
pub(super) struct Hub<'a> {
    backend: &'a mut dyn Backend,
    guest: Guest,
    clients: Vec<Client>,
    next_client: u64,
    control: Option<BorrowedFd<'a>>,
    signals: &'a Signals,
    timing: &'a Timing,
    debug: bool,
    /// To be said to the workload's side, once it is there.
    outgoing: Vec<Frame>,
    /// What was said to a guest that has said nothing yet, for another that may have to take its
    /// place.
    said: Option<Vec<Frame>>,
    work: Workload,
    execs: Vec<Exec>,
    pending: Vec<Pending>,
    next_number: u32,
    log: Option<Log>,
    health: Option<Checker>,
    /// Of a guest that has its own.
    clock: Option<Clock>,
    stdin_once: bool,
    stop_signal: u8,
    /// How long a stop may take; `None` is for ever.
    stop_timeout: Option<Duration>,
    /// When this process was first told to end.
    told_at: Option<Instant>,
    /// The signal that ended everything before there was a workload to send it to.
    interrupted: Option<u8>,
    /// Somebody wants it to end: no restart.
    manual: bool,
    /// By `stop`, or as `stop` does it.
    stopped: bool,
    paused: bool,
    stopping: bool,
    deadline: Option<(Instant, Deadline)>,
    /// When a stop has taken long enough.
    kill_at: Option<Instant>,
    /// When what only the start needed can go.
    settled_at: Option<Instant>,
    /// What the workload is to be started with does not fit a frame.
    too_long: bool,
    /// It is being saved, for this client.
    saving: Option<(Saving, Option<u64>)>,
    /// The backend has ended; what is left is to read what was said before.
    over: bool,
    observer: &'a mut dyn Observer,
}

/// What a hub joins.
pub(super) struct Parts<'a> {
    pub backend: &'a mut dyn Backend,
    pub clients: Vec<Client>,
    /// Where more clients connect.
    pub control: Option<BorrowedFd<'a>>,
    /// What this process is told.
    pub signals: &'a Signals,
    pub opening: Vec<Frame>,
    pub timing: &'a Timing,
    /// Show the agent's diagnostics.
    pub debug: bool,
    pub log: Option<Log>,
    pub health: Option<Checker>,
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
    /// The workload's side ended of itself, and said so.
    pub orderly: bool,
    pub clients: Vec<Client>,
    /// It was told to end: a restart policy does not apply.
    pub manual: bool,
    /// It was told so by `stop`, or by a signal to its monitor.
    pub stopped: bool,
}

impl<'a> Hub<'a> {
    pub(super) fn new(parts: Parts<'a>) -> io::Result<Self> {
        let next_client = parts.clients.iter().map(|c| c.id + 1).max().unwrap_or(0);
        let mut hub = Self {
            guest: Guest::Gone,
            next_client,
            clients: parts.clients,
            control: parts.control,
            signals: parts.signals,
            timing: parts.timing,
            debug: parts.debug,
            outgoing: parts.opening,
            said: parts.backend.can_begin_anew().then(Vec::new),
            work: Workload {
                direct: parts.direct,
                ..Workload::default()
            },
            execs: Vec::new(),
            pending: Vec::new(),
            next_number: WORKLOAD + 1,
            log: parts.log,
            health: parts.health,
            // Without a descriptor to spare, it keeps the time that it began with.
            clock: parts
                .backend
                .has_own_clock()
                .then(|| Clock::new(AGAINST_DRIFT_S))
                .and_then(Result::ok),
            stdin_once: parts.stdin_once,
            stop_signal: parts.stop_signal,
            stop_timeout: parts.stop_timeout,
            told_at: None,
            interrupted: None,
            manual: false,
            stopped: false,
            paused: false,
            stopping: false,
            deadline: None,
            kill_at: None,
            settled_at: None,
            too_long: false,
            saving: None,
            over: false,
            observer: parts.observer,
            backend: parts.backend,
        };
        if let Some(first) = hub.clients.first().filter(|_| parts.writes)
            && matches!(first.role, Role::Attached { .. })
        {
            hub.work.input.claim(first.id);
        }
        let link = hub.backend.link()?;
        hub.await_guest(link)?;
        Ok(hub)
    }

    fn await_guest(&mut self, link: Link) -> io::Result<()> {
        match link {
            Link::Awaited(listener) => {
                listener.set_nonblocking(true)?;
                self.guest = Guest::Awaited(listener);
                self.deadline = Some((Instant::now() + self.boot_limit(), Deadline::Boot));
            }
            Link::Connected(fd) => self.connect(fd)?,
        }
        Ok(())
    }

    const fn boot_limit(&self) -> Duration {
        match self.said {
            Some(_) => RESUME_LIMIT,
            None => BOOT_LIMIT,
        }
    }

    /// Runs until the workload's side has nothing more to say.
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
        let ending = match (ending, self.interrupted) {
            (Ending::Died(None), Some(signal)) => {
                Ending::Exited(ExitStatus::Signal { signal, oom: false })
            }
            (ending, _) => ending,
        };
        Outcome {
            ending,
            orderly,
            clients: self.clients,
            manual: self.manual,
            stopped: self.stopped,
        }
    }

    fn connect(&mut self, fd: OwnedFd) -> io::Result<()> {
        let guest = Connection::to(fd, Sender::Agent).map_err(io::Error::other)?;
        self.guest = Guest::Connected(guest);
        self.outgoing.iter_mut().for_each(clock::refresh);
        self.drain();
        Ok(())
    }

    /// The guest has said something: it is the one to go on with.
    fn heard_guest(&mut self) {
        self.said = None;
        if matches!(self.deadline, Some((_, Deadline::Boot))) {
            self.deadline = None;
        }
    }

    /// Has another guest take the place of one that ended before it said anything, if that can be.
    fn begin_anew(&mut self, ending: Ending) -> Result<(), Ending> {
        let Ending::Died(why) = &ending else {
            return Err(ending);
        };
        let wanted = self.interrupted.is_none() && !self.stopping;
        let Some(mut said) = self.said.take().filter(|_| wanted) else {
            return Err(ending);
        };
        said.append(&mut self.outgoing);
        let setup = said.iter_mut().find_map(|frame| match frame {
            Frame::Setup(setup) => Some(setup),
            _ => None,
        });
        let Some(begun) = setup.and_then(|setup| self.backend.begin_anew(setup, why.as_deref()))
        else {
            return Err(ending);
        };
        let link = begun.map_err(Ending::Failed)?;
        self.timing.mark(Phase::Fallback);
        (self.over, self.outgoing) = (false, said);
        self.await_guest(link)
            .map_err(|error| Ending::Died(Some(error.to_string())))?;
        if let Some(warning) = self.backend.warning() {
            for client in &mut self.clients {
                client.warn(&warning);
            }
        }
        Ok(())
    }

    /// Says something to the workload's side, once it is there.
    fn say(&mut self, frame: Frame) {
        self.outgoing.push(frame);
    }

    /// Says what is to be said. A broken guest is noticed when it is read: it may have said why.
    fn drain(&mut self) {
        match &mut self.guest {
            Guest::Connected(guest) => {
                for frame in self.outgoing.drain(..) {
                    let sent = guest.send(&frame);
                    let begins = matches!(frame, Frame::Setup(_) | Frame::Exec { .. });
                    self.too_long |= begins && matches!(sent, Err(ConnectionError::Encode(_)));
                    if let Some(said) = &mut self.said {
                        said.push(frame);
                    }
                }
                let _ = guest.flush();
            }
            Guest::Awaited(_) => {}
            // Kept for another guest, if there may be one.
            Guest::Gone if self.said.is_some() => {}
            Guest::Gone => self.outgoing.clear(),
        }
    }

    fn signal(&mut self, signal: u8) {
        self.say(Frame::Signal {
            session: WORKLOAD,
            signal: signal.into(),
        });
    }

    fn number(&mut self) -> u32 {
        let number = self.next_number;
        self.next_number = number.checked_add(1).unwrap_or(WORKLOAD + 1);
        number
    }

    fn wait(&self) -> io::Result<Ready> {
        let mut fds = Vec::with_capacity(4 + self.clients.len());
        fds.push(PollFd::new(self.signals, PollFlags::IN));
        let ended = self.backend.ended();
        // Once known, the end would only wake us again and again while the rest is read.
        fds.push(PollFd::from_borrowed_fd(ended, interest(!self.over, false)));
        let guest_at = match &self.guest {
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
        let control_at = self.control.map(|control| {
            let events = interest(self.clients.len() < MAX_CONNECTIONS, false);
            fds.push(PollFd::from_borrowed_fd(control, events));
            fds.len() - 1
        });
        // What the guest knows of the time from its start is for the workload to begin with.
        let clock = self.clock.as_ref().filter(|_| self.work.said.started);
        let clock_at = clock.map(|clock| {
            fds.push(PollFd::from_borrowed_fd(clock.fd(), PollFlags::IN));
            fds.len() - 1
        });
        let saving_at = self.saving.as_ref().map(|(saving, _)| {
            fds.push(PollFd::new(saving, PollFlags::IN));
            fds.len() - 1
        });
        let first_client = fds.len();
        for client in &self.clients {
            let events = interest(self.may_read(client), client.connection.pending() > 0);
            fds.push(PollFd::from_borrowed_fd(client.connection.as_fd(), events));
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
            clients: fds[first_client..].iter().map(PollFd::revents).collect(),
        })
    }

    fn step(&mut self, ready: &Ready) -> Option<Ending> {
        if ready.signals {
            self.obey_signal();
        }
        if let Some(ending) = self.serve_guest(ready.guest) {
            return Some(ending);
        }
        self.serve_clients(&ready.clients);
        if ready.saving {
            self.attend_saving();
        }
        if ready.control {
            self.accept();
        }
        if ready.clock && self.clock.as_mut().is_some_and(Clock::is_due) {
            self.tell_time();
        }
        if ready.ended {
            self.over = true;
            // What was said before the end still lies in the connection.
            self.deadline = Some((Instant::now() + CAUSE_LIMIT, Deadline::Cause));
        }
        if self.over && !matches!(self.guest, Guest::Connected(_)) {
            return Some(Ending::Died(None));
        }
        let ending = self.keep_time();
        self.flush();
        let too_long = self.too_long && !self.work.said.started;
        ending.or_else(|| too_long.then(too_long_to_start))
    }

    /// Writes what waits, and parts with clients that are gone or done.
    fn flush(&mut self) {
        self.grant();
        self.pass_credit();
        self.drain();
        let lost: Vec<usize> = self
            .clients
            .iter_mut()
            .enumerate()
            .filter_map(|(at, client)| {
                let connection = &mut client.connection;
                // What it owes us it was given under credit; more is its own lie.
                let keeps_up = connection.flush().is_ok() && connection.may_fill();
                (!keeps_up).then_some(at)
            })
            .collect();
        for at in lost.into_iter().rev() {
            self.lose_client(at);
        }
        self.clients.retain(|client| !client.is_done());
        if !self.outgoing.is_empty() {
            // On behalf of those who are lost.
            self.drain();
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

struct Ready {
    signals: bool,
    ended: bool,
    guest: PollFlags,
    control: bool,
    clock: bool,
    saving: bool,
    clients: Vec<PollFlags>,
}

fn interest(read: bool, write: bool) -> PollFlags {
    let mut events = PollFlags::empty();
    events.set(PollFlags::IN, read);
    events.set(PollFlags::OUT, write);
    events
}
