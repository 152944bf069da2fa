//! The processes of one connection, as their parent has them: from `Exec` to `Exited`.

use crate::connection::ConnectionError;
use crate::server::{Pump, Stdio};
use crate::status::{Report, StatusReader};
use hullbox_protocol::{ExitStatus, Hygiene, ProcessSpec, Started};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, WaitStatus};
use rustix::time::{ClockId, clock_gettime};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// The signal that cannot wait.
const SIGKILL: u32 = 9;

/// Signals that may wait for a process to start.
const MAX_PENDING: usize = 64;

/// Whom a signal for a session reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Its process, as `docker kill` does.
    Process,
    /// Its process group, as a terminal's keyboard does.
    Group,
}

/// Sends a signal by its number. A process that is gone cannot mind.
pub type Send = fn(Pid, u32, Reach);

/// A process on its way to its program.
#[derive(Debug)]
pub struct Spawned {
    /// Its id here.
    pub pid: Pid,
    /// Tells what becomes of it.
    pub status: StatusReader,
    /// Our ends of its streams; with a terminal, of those that are pipes all the same.
    pub pipes: Pipes,
    /// It will report a terminal before it runs.
    pub terminal: bool,
}

/// One process's ends of its pipes: the parent's, or the child's.
#[derive(Debug, Default)]
pub struct Pipes {
    /// Standard input.
    pub stdin: Option<OwnedFd>,
    /// Standard output.
    pub stdout: Option<OwnedFd>,
    /// Standard error.
    pub stderr: Option<OwnedFd>,
}

impl Pipes {
    /// Both sides' ends of the pipes that a process needs: ours, then its own.
    ///
    /// # Errors
    /// No more descriptors.
    pub fn make(spec: &ProcessSpec) -> rustix::io::Result<(Self, Self)> {
        let [stdin, stdout, stderr] = Self::needed(spec);
        let (mut ours, mut theirs) = (Self::default(), Self::default());
        let pipe = || pipe_with(PipeFlags::CLOEXEC);
        if stdin {
            let (read, write) = pipe()?;
            (theirs.stdin, ours.stdin) = (Some(read), Some(write));
        }
        if stdout {
            let (read, write) = pipe()?;
            (ours.stdout, theirs.stdout) = (Some(read), Some(write));
        }
        if stderr {
            let (read, write) = pipe()?;
            (ours.stderr, theirs.stderr) = (Some(read), Some(write));
        }
        Ok((ours, theirs))
    }

    /// One process's ends again, in the order of [`Self::borrowed`], after they have been passed on.
    #[must_use]
    pub fn of(spec: &ProcessSpec, fds: impl IntoIterator<Item = OwnedFd>) -> Self {
        let mut fds = fds.into_iter();
        let [stdin, stdout, stderr] =
            Self::needed(spec).map(|needed| if needed { fds.next() } else { None });
        Self {
            stdin,
            stdout,
            stderr,
        }
    }

    /// Which of the three streams are pipes.
    fn needed(spec: &ProcessSpec) -> [bool; 3] {
        // What the agent does itself is never done on a terminal.
        let terminal = spec.terminal.is_some() && spec.builtin.is_none();
        [
            spec.stdin && (!terminal || spec.pipes.stdin),
            !terminal || spec.pipes.stdout,
            !terminal || spec.pipes.stderr,
        ]
    }

    /// Those that there are.
    pub fn borrowed(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        [&self.stdin, &self.stdout, &self.stderr]
            .into_iter()
            .filter_map(|fd| fd.as_ref().map(AsFd::as_fd))
    }

    /// What the pump takes, with the terminal's master if there is one.
    #[must_use]
    pub fn into_stdio(self, master: Option<OwnedFd>) -> Stdio {
        let Self {
            stdin,
            stdout,
            stderr,
        } = self;
        match master {
            Some(master) => Stdio::Mixed {
                master,
                stdin,
                stdout,
                stderr,
            },
            None => Stdio::Pipes {
                stdin,
                stdout,
                stderr,
            },
        }
    }
}

/// One process.
#[derive(Debug)]
struct Running {
    session: u32,
    pid: Pid,
    /// Who forked it, and has not been reaped yet.
    helper: Option<Pid>,
    replaced: bool,
    /// Until the program runs.
    status: Option<StatusReader>,
    /// Until the terminal comes.
    pipes: Option<Pipes>,
    /// It told why it does not run; its end is then of no interest.
    failed: bool,
    /// When its root was arranged, if it told.
    rooted_us: u64,
    hygiene: Hygiene,
    pending: Vec<u32>,
}

/// A process that ended.
#[derive(Debug)]
pub struct Ended {
    /// Its session.
    pub session: u32,
    /// How.
    pub status: ExitStatus,
}

/// All processes.
#[derive(Debug)]
pub struct Children {
    running: Vec<Running>,
    send: Send,
}

impl Children {
    /// None yet. Signals go out by `send`.
    #[must_use]
    pub fn new(send: Send) -> Self {
        Self {
            running: Vec::new(),
            send,
        }
    }

    /// Takes in a process that was just forked.
    ///
    /// # Errors
    /// See [`Pump::open`].
    pub fn add(
        &mut self,
        pump: &mut Pump,
        session: u32,
        spawned: Spawned,
    ) -> Result<(), ConnectionError> {
        let pipes = if spawned.terminal {
            Some(spawned.pipes)
        } else {
            pump.open(session, spawned.pipes.into_stdio(None))?;
            None
        };
        self.running.push(Running {
            session,
            pid: spawned.pid,
            helper: None,
            replaced: false,
            status: Some(spawned.status),
            pipes,
            failed: false,
            rooted_us: 0,
            hygiene: Hygiene::default(),
            pending: Vec::new(),
        });
        Ok(())
    }

    /// Records the hygiene done before this session's process started; it is reported with `Started`.
    pub fn set_hygiene(&mut self, session: u32, hygiene: Hygiene) {
        if let Some(running) = self.running.iter_mut().find(|r| r.session == session) {
            running.hygiene = hygiene;
        }
    }

    /// Descriptors that tell of processes on their way.
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.running
            .iter()
            .filter_map(|running| running.status.as_ref().map(AsFd::as_fd))
    }

    /// Passes on what processes on their way have reported. Gives sessions that failed.
    ///
    /// # Errors
    /// See [`Pump::send`].
    pub fn take_reports(&mut self, pump: &mut Pump) -> Result<Vec<u32>, ConnectionError> {
        let mut failed = Vec::new();
        for running in &mut self.running {
            running.take_reports(pump)?;
            if running.failed && running.status.is_none() {
                failed.push(running.session);
            }
        }
        Ok(failed)
    }

    /// The process of this id ended. `None` if it was no session's, or had failed.
    ///
    /// # Errors
    /// See [`Pump::send`].
    pub fn reaped(
        &mut self,
        pump: &mut Pump,
        pid: Pid,
        status: WaitStatus,
    ) -> Result<Option<Ended>, ConnectionError> {
        let is_its = |r: &Running| r.pid == pid || r.helper == Some(pid);
        let Some(index) = self.running.iter().position(is_its) else {
            return Ok(None);
        };
        // A program can be over before it was noticed that it runs.
        let running = &mut self.running[index];
        running.take_reports(pump)?;
        if running.helper == Some(pid) {
            running.helper = None;
            return Ok(None);
        }
        let running = self.running.remove(index);
        if running.failed {
            return Ok(None);
        }
        Ok(Some(Ended {
            session: running.session,
            status: exit_status(status),
        }))
    }

    /// Sends a signal to a session's process; keeps it until there is one.
    pub fn signal(&mut self, session: u32, number: u32, reach: Reach) {
        let Some(running) = self.running.iter_mut().find(|r| r.session == session) else {
            return;
        };
        // On its way the child would take a signal for itself, with none of the program's handlers.
        if running.status.is_some() && number != SIGKILL {
            if running.pending.len() < MAX_PENDING {
                running.pending.push(number);
            }
            return;
        }
        (self.send)(running.pid, number, reach);
    }

    /// Sends a signal to every process.
    pub fn signal_all(&mut self, number: u32, reach: Reach) {
        for running in &self.running {
            (self.send)(running.pid, number, reach);
        }
    }

    /// Delivers what was kept, to those that run by now.
    pub fn deliver_pending(&mut self, reach: Reach) {
        for running in &mut self.running {
            if running.status.is_none() {
                for number in std::mem::take(&mut running.pending) {
                    (self.send)(running.pid, number, reach);
                }
            }
        }
    }

    /// Kills all processes but one session's, and wants to hear nothing more of them.
    pub fn abandon_others(&mut self, session: u32) {
        self.running.retain(|running| {
            let keep = running.session == session;
            if !keep {
                (self.send)(running.pid, SIGKILL, Reach::Process);
            }
            keep
        });
    }

    /// Whether a session's process runs its program.
    #[must_use]
    pub fn is_running(&self, session: u32) -> bool {
        let running = self.running.iter().find(|r| r.session == session);
        running.is_some_and(|running| running.status.is_none() && !running.failed)
    }

    /// Every process that is to be reaped.
    pub fn pids(&self) -> impl Iterator<Item = Pid> {
        self.running
            .iter()
            .flat_map(|running| [Some(running.pid), running.helper])
            .flatten()
    }

    /// The process of a session.
    #[must_use]
    pub fn pid(&self, session: u32) -> Option<Pid> {
        let running = self.running.iter().find(|r| r.session == session);
        running.map(|running| running.pid)
    }

    /// Whether any process is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.running.is_empty()
    }
}

impl Running {
    fn take_reports(&mut self, pump: &mut Pump) -> Result<(), ConnectionError> {
        while let Some(report) = self.status.as_ref().and_then(StatusReader::next) {
            match report {
                // Once only: afterwards the channel is in the hands of who was forked.
                Report::Forked(pid) if !self.replaced => {
                    self.replaced = true;
                    self.helper = Some(std::mem::replace(&mut self.pid, pid));
                }
                Report::Forked(_) => {}
                Report::Rooted(uptime_us) => self.rooted_us = uptime_us,
                Report::Terminal(master) => {
                    let pipes = self.pipes.take().unwrap_or_default();
                    pump.open(self.session, pipes.into_stdio(Some(master)))?;
                }
                Report::Failed(failure) => {
                    self.failed = true;
                    self.status = None;
                    pump.fail(self.session, failure)?;
                }
                Report::Running => {
                    self.status = None;
                    let pid = self.pid.as_raw_nonzero().get().unsigned_abs();
                    let started = Started {
                        pid,
                        uptime_us: uptime_us(),
                        rooted_us: self.rooted_us,
                        hygiene: self.hygiene,
                    };
                    pump.started(self.session, started)?;
                }
            }
        }
        Ok(())
    }
}

/// A wait status in the words of the protocol.
#[must_use]
pub fn exit_status(status: WaitStatus) -> ExitStatus {
    let byte = |number: i32| u8::try_from(number & 0xff).unwrap_or(u8::MAX);
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => ExitStatus::Code(byte(code)),
        (None, Some(signal)) => ExitStatus::Signal {
            signal: byte(signal),
            oom: false,
        },
        (None, None) => ExitStatus::Code(u8::MAX),
    }
}

/// Time since the kernel's start, in microseconds.
#[must_use]
pub fn uptime_us() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let micros = u64::try_from(now.tv_nsec / 1000).unwrap_or(0);
    seconds * 1_000_000 + micros
}
