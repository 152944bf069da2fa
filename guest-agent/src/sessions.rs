//! The processes of one connection: from their `Exec` to their `Exited`.

use crate::process::{Pipes, Report, Spawned, StatusReader};
use crate::sys;
use hullbox_protocol::{ExitStatus, Started};
use hullbox_session::connection::ConnectionError;
use hullbox_session::server::Pump;
use rustix::process::{Pid, Signal, WaitStatus};
use rustix::time::{ClockId, clock_gettime};
use std::os::fd::{AsFd, BorrowedFd};

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

/// One process.
#[derive(Debug)]
struct Running {
    session: u32,
    pid: Pid,
    /// Until the program runs.
    status: Option<StatusReader>,
    /// Until the terminal comes.
    pipes: Option<Pipes>,
    /// It told why it does not run; its end is then of no interest.
    failed: bool,
    pending: Vec<Signal>,
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
#[derive(Debug, Default)]
pub struct Sessions {
    running: Vec<Running>,
}

impl Sessions {
    /// Takes in a process that was just forked.
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
            status: Some(spawned.status),
            pipes,
            failed: false,
            pending: Vec::new(),
        });
        Ok(())
    }

    /// Descriptors that tell of processes on their way.
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.running
            .iter()
            .filter_map(|running| running.status.as_ref().map(AsFd::as_fd))
    }

    /// Passes on what processes on their way have reported. Gives sessions that failed.
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
    pub fn reaped(
        &mut self,
        pump: &mut Pump,
        pid: Pid,
        status: WaitStatus,
    ) -> Result<Option<Ended>, ConnectionError> {
        let Some(index) = self.running.iter().position(|r| r.pid == pid) else {
            return Ok(None);
        };
        // A program can be over before it was noticed that it runs.
        self.running[index].take_reports(pump)?;
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
        let Some(signal) = sys::signal(number) else {
            return;
        };
        // On its way the child would take a signal for itself, with none of the program's handlers.
        if running.status.is_some() && signal != Signal::KILL {
            if running.pending.len() < MAX_PENDING {
                running.pending.push(signal);
            }
            return;
        }
        running.send(signal, reach);
    }

    /// Sends a signal to every process.
    pub fn signal_all(&mut self, signal: Signal, reach: Reach) {
        for running in &self.running {
            running.send(signal, reach);
        }
    }

    /// Delivers what was kept, to those that run by now.
    pub fn deliver_pending(&mut self, reach: Reach) {
        for running in &mut self.running {
            if running.status.is_none() {
                for signal in std::mem::take(&mut running.pending) {
                    running.send(signal, reach);
                }
            }
        }
    }

    /// The process of a session.
    pub fn pid(&self, session: u32) -> Option<Pid> {
        let running = self.running.iter().find(|r| r.session == session);
        running.map(|running| running.pid)
    }

    /// Whether any process is left.
    pub fn is_empty(&self) -> bool {
        self.running.is_empty()
    }
}

impl Running {
    fn take_reports(&mut self, pump: &mut Pump) -> Result<(), ConnectionError> {
        while let Some(report) = self.status.as_ref().and_then(StatusReader::next) {
            match report {
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
                    let uptime_us = uptime_us();
                    pump.started(self.session, Started { pid, uptime_us })?;
                }
            }
        }
        Ok(())
    }

    fn send(&self, signal: Signal, reach: Reach) {
        // A process that is gone but not reaped yet cannot mind.
        let _ = match reach {
            Reach::Process => rustix::process::kill_process(self.pid, signal),
            Reach::Group => rustix::process::kill_process_group(self.pid, signal),
        };
    }
}

fn exit_status(status: WaitStatus) -> ExitStatus {
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

/// Time since the guest's start, in microseconds.
pub fn uptime_us() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let micros = u64::try_from(now.tv_nsec / 1000).unwrap_or(0);
    seconds * 1_000_000 + micros
}
