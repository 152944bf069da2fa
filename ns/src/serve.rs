//! The conversation about one container, from `Hello` to `Exited`.

use super::error::{NsError, io};
use super::launch::{Running, Surroundings};
use super::oom::OomWatch;
use super::others::Others;
use super::{builtin, join, requests};
use crate::sys;
use hullbox_backend::bundle::Bundle;
use hullbox_backend::network::Network;
use hullbox_protocol::{
    ExitStatus, Failure, FailureKind, Frame, Hello, NameFiles, PROTOCOL_VERSION, ProcessSpec,
    Reply, Request, Started, TerminalSize,
};
use hullbox_session::children::Spawned;
use hullbox_session::direct::Descriptors;
use hullbox_session::server::{Drain, Event, Pump, Stdio};
use hullbox_session::status::decode_failure;
use rustix::fd::{AsFd, OwnedFd};
use rustix::process::{WaitId, WaitIdOptions, waitid};
use rustix::termios::Winsize;
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// The session of the workload.
const WORKLOAD: u32 = 0;
/// How long the peer may take to hear of a failure.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest failure text in the report.
const MAX_REPORT: usize = 8 * 1024;

// Index of the descriptor among those that the pump watches for us.
const REPORT: usize = 1;

/// Runs a bundle to its end, and says on `connection` what the guest agent would say.
///
/// The bundle has all that is needed, so the container starts at once; a `Setup` frame and an
/// `Exec` frame of session 0 are taken as repetitions of what it says. Only a container with published
/// ports waits for that `Exec` with all made but its workload: nothing of it may run before the ports are
/// open, which may fail. A container that cannot
/// be started is not an error of this function: the peer is told by `Failed`, which the exit
/// code follows from. When this returns, nothing is left of the container but its writable
/// layer.
///
/// The calling process must have no other threads, and is no use for anything else afterwards:
/// it is in a mount namespace of its own, and not dumpable. `descriptors` are the other ends of the
/// workload's streams, of those that are not to travel as frames.
///
/// # Errors
/// [`NsError::Connection`] when the connection breaks, which ends the container;
/// [`NsError::Cgroup`] when something could not be removed.
pub fn run(
    bundle: &Bundle,
    connection: UnixStream,
    descriptors: Descriptors,
) -> Result<(), NsError> {
    let mut pump = Pump::new(OwnedFd::from(connection))?;
    pump.accept_descriptors();
    let hello = Hello {
        version: PROTOCOL_VERSION,
        uptime_us: uptime_us(),
    };
    pump.send(&Frame::Hello(hello))?;
    let mut surroundings = match Surroundings::make(bundle) {
        Ok(surroundings) => surroundings,
        Err(e) => return tell_failure(&mut pump, e.failure()),
    };
    let rooted_us = uptime_us();
    let waits = awaits_exec(bundle);
    let ready = || {
        pump.announce(WORKLOAD, descriptors);
        if waits { await_exec(&mut pump) } else { Ok(()) }
    };
    let told = match surroundings.start(bundle, ready) {
        Ok(running) => {
            let mut conversation = Conversation::new(running, bundle, rooted_us);
            if waits {
                conversation.asked(&surroundings);
            }
            conversation.hold(&mut pump, &mut surroundings)
        }
        Err(e) => Ok(Ending::Failed(e.failure())),
    };
    let removed = surroundings.remove(bundle);
    match told {
        Ok(Ending::Told) => removed,
        // Only now: whoever hears of a failure may count on nothing being left.
        Ok(Ending::Failed(failure)) => tell_failure(&mut pump, failure).and(removed),
        Err(e) => Err(e),
    }
}

/// Whether the workload is not started before the peer asks for it.
fn awaits_exec(bundle: &Bundle) -> bool {
    let publishes = match &bundle.network {
        Network::User(network) => !network.ports.is_empty(),
        _ => false,
    };
    publishes && bundle.process.builtin.is_none()
}

/// Waits until the peer asks for the workload.
fn await_exec(pump: &mut Pump) -> Result<(), NsError> {
    loop {
        match pump.wait(&[], None)? {
            Event::Exec {
                session: WORKLOAD, ..
            } => return Ok(()),
            Event::Exec { session, .. } => {
                pump.fail(session, refusal("the container is not running"))?
            }
            Event::Request { number, .. } => {
                let reply = Reply::Failed("the container is not running".to_owned());
                pump.send(&Frame::Reply { number, reply })?;
            }
            Event::Closed(Some(error)) => return Err(error.into()),
            Event::Closed(None) | Event::Shutdown | Event::Signal { .. } => {
                return Err(NsError::GivenUp);
            }
            _ => {}
        }
    }
}

fn refusal(why: &str) -> Failure {
    Failure {
        kind: FailureKind::Setup,
        message: why.to_owned(),
    }
}

/// How a conversation ended.
enum Ending {
    /// With `Exited`, or with nobody left to tell.
    Told,
    /// The workload could not be run, which is still to be said.
    Failed(Failure),
}

/// Says why there is no container, and waits until the peer has heard it.
fn tell_failure(pump: &mut Pump, failure: Failure) -> Result<(), NsError> {
    pump.fail(WORKLOAD, failure)?;
    loop {
        match pump.wait(&[], Some(PATIENCE))? {
            Event::Closed(_) | Event::Shutdown | Event::Timeout => return Ok(()),
            _ => {}
        }
    }
}

/// Microseconds since the kernel started.
fn uptime_us() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let nanoseconds = u64::try_from(now.tv_nsec).unwrap_or(0);
    seconds * 1_000_000 + nanoseconds / 1000
}

struct Conversation<'a> {
    bundle: &'a Bundle,
    running: Running,
    others: Others,
    oom: OomWatch,
    stdio: Option<Stdio>,
    /// The peer asked for the workload: its session may be opened.
    asked: bool,
    /// The workload's `execve` has succeeded.
    executed: bool,
    failure_text: Vec<u8>,
    /// When the root was arranged.
    rooted_us: u64,
    over: bool,
    /// The end of the workload, to be told once all others' ends are.
    ending: Option<ExitStatus>,
    /// What was written into its files.
    names: NameFiles,
}

impl<'a> Conversation<'a> {
    fn new(mut running: Running, bundle: &'a Bundle, rooted_us: u64) -> Self {
        let nothing = Stdio::Pipes {
            stdin: None,
            stdout: None,
            stderr: None,
        };
        let stdio = std::mem::replace(&mut running.stdio, nothing);
        Self {
            bundle,
            running,
            others: Others::new(),
            oom: OomWatch::default(),
            stdio: Some(stdio),
            asked: false,
            executed: false,
            failure_text: Vec::new(),
            rooted_us,
            over: false,
            ending: None,
            names: NameFiles {
                hosts: bundle.setup.etc_hosts.clone(),
                resolv_conf: bundle.setup.etc_resolv_conf.clone(),
            },
        }
    }

    /// The peer has asked for the workload.
    fn asked(&mut self, around: &Surroundings) {
        self.asked = true;
        // Its start is on its way by then.
        self.oom.watch(&around.cgroup);
    }

    fn hold(mut self, pump: &mut Pump, around: &mut Surroundings) -> Result<Ending, NsError> {
        loop {
            if let Some(status) = self.ending.take_if(|_| self.others.are_over()) {
                pump.finish(WORKLOAD, status, Drain::ToEnd);
            }
            let watched = self.running.watched();
            let own = match (self.executed, self.asked && !self.over) {
                (false, _) => &watched[..],
                // What nobody has asked for cannot have ended for anybody, yet.
                (true, asked) => &watched[..usize::from(asked)],
            };
            let own_count = own.len();
            let mut all = own.to_vec();
            all.extend(self.oom.descriptors());
            let first_other = all.len();
            all.extend(self.others.descriptors());
            match pump.wait(&all, None)? {
                Event::Ready(index) if (own_count..first_other).contains(&index) => {
                    self.tell_oom(pump, around)?;
                }
                Event::Ready(index) if index >= first_other => {
                    self.others.attend(pump, &around.cgroup)?;
                }
                // The report may not have had its turn yet.
                Event::Ready(index) if index == REPORT || !self.executed => {
                    if let Some(failure) = self.read_report(pump)? {
                        return Ok(Ending::Failed(failure));
                    }
                }
                Event::Ready(_) => {
                    self.over = true;
                    self.tell_oom(pump, around)?;
                    self.ending = Some(self.exit_status(around)?);
                    // Programs die with their PID namespace; this is about builtins.
                    self.others.kill();
                }
                Event::Exec {
                    session: WORKLOAD, ..
                } => {
                    self.asked(around);
                    self.open_when_both(pump)?;
                }
                Event::Exec { session, spec } => match self.start(around, &spec) {
                    Ok(spawned) => self.others.add(pump, session, spawned)?,
                    Err(failure) => pump.fail(session, failure)?,
                },
                Event::Signal {
                    session: WORKLOAD,
                    signal,
                } => self.signal(signal),
                Event::Signal { session, signal } => self.others.signal(session, signal),
                Event::Resize {
                    session: WORKLOAD,
                    size,
                } => self.resize(size),
                Event::Shutdown => {
                    around.cgroup.kill()?;
                    self.kill_builtin();
                }
                Event::Request { number, request } => {
                    let reply = self.answer(around, &request);
                    pump.send(&Frame::Reply { number, reply })?;
                    if matches!(request, Request::Limit(_)) {
                        // There may be a controller now that there was not before.
                        self.oom.watch(&around.cgroup);
                    }
                }
                Event::Finished { session: WORKLOAD } | Event::Closed(None) => {
                    self.others.kill();
                    self.kill_builtin();
                    return Ok(Ending::Told);
                }
                Event::Finished { session } => self.others.forget(session),
                Event::Closed(Some(e)) => {
                    self.others.kill();
                    self.kill_builtin();
                    return Err(e.into());
                }
                Event::Setup(_) | Event::Resize { .. } | Event::Timeout => {}
            }
        }
    }

    /// Tells if the out-of-memory killer was at work.
    fn tell_oom(&mut self, pump: &mut Pump, around: &Surroundings) -> Result<(), NsError> {
        if self.oom.take(&around.cgroup) {
            pump.send(&Frame::Oom)?;
        }
        Ok(())
    }

    /// Ends what stands in the workload's place, which is in no cgroup of the container's.
    fn kill_builtin(&self) {
        if self.bundle.process.builtin.is_some() {
            self.signal(libc::SIGKILL.unsigned_abs());
        }
    }

    /// Starts a process beside the workload.
    fn start(&self, around: &Surroundings, spec: &ProcessSpec) -> Result<Spawned, Failure> {
        if !self.executed || self.over {
            return Err(refusal("the container is not running"));
        }
        let process = self.running.pidfd.as_fd();
        let runs_program = self.bundle.process.builtin.is_none();
        let spawned = match &spec.builtin {
            Some(what) => {
                let place = builtin::Place {
                    process: runs_program.then_some(process),
                    rootfs: &around.rootfs,
                    bundle: self.bundle,
                };
                builtin::spawn(place, what, spec.stdin)
            }
            None if !runs_program => return Err(refusal("the container is not running")),
            None if around.cgroup.frozen => {
                return Err(refusal("the container is paused, unpause it before exec"));
            }
            None => {
                let target = join::Target {
                    process,
                    pid: self.running.pid,
                    cgroup: &around.cgroup,
                    setup: &self.bundle.setup,
                };
                join::spawn(target, spec)
            }
        };
        spawned.map_err(|error| error.failure())
    }

    fn answer(&mut self, around: &mut Surroundings, request: &Request) -> Reply {
        if !self.executed || self.over {
            return Reply::Failed("the container is not running".to_owned());
        }
        if let Request::Connect { names, .. } | Request::Disconnect { names, .. } = request {
            around.rootfs.renew_names(&mut self.names, names);
        }
        requests::answer(&mut around.cgroup, self.running.pid, request)
    }

    /// Takes the workload's report as far as it goes. A failure that is complete is returned.
    fn read_report(&mut self, pump: &mut Pump) -> Result<Option<Failure>, NsError> {
        let mut chunk = [0; 1024];
        loop {
            let read = rustix::io::read(&self.running.report, &mut chunk);
            match read.map_err(io("read the workload's report"))? {
                0 => break,
                n if self.failure_text.len() < MAX_REPORT => {
                    self.failure_text.extend_from_slice(&chunk[..n]);
                }
                _ => {}
            }
        }
        let failure = decode_failure(&self.failure_text);
        if failure.is_none() {
            self.executed = true;
            self.open_when_both(pump)?;
        }
        Ok(failure)
    }

    /// Opens the session when it is asked for and the workload runs.
    fn open_when_both(&mut self, pump: &mut Pump) -> Result<(), NsError> {
        if self.asked
            && self.executed
            && let Some(stdio) = self.stdio.take()
        {
            let pid = self.running.pid.as_raw_nonzero().get().unsigned_abs();
            pump.started(
                WORKLOAD,
                Started {
                    pid,
                    uptime_us: uptime_us(),
                    rooted_us: self.rooted_us,
                    ..Started::default()
                },
            )?;
            pump.open(WORKLOAD, stdio)?;
        }
        Ok(())
    }

    /// Reaps the container's first process and says how the workload ended.
    fn exit_status(&self, around: &Surroundings) -> Result<ExitStatus, NsError> {
        let how = waitid(
            WaitId::PidFd(self.running.pidfd.as_fd()),
            WaitIdOptions::EXITED,
        )
        .map_err(io("wait for the container"))?;
        let how = how.ok_or_else(|| io("wait for the container")(rustix::io::Errno::CHILD))?;
        let first = match (how.exit_status(), how.terminating_signal()) {
            (Some(code), _) => Status::Code(code),
            (None, signal) => Status::Signal(signal.unwrap_or(libc::SIGKILL)),
        };
        let status = self.status_from_init().unwrap_or(first);
        Ok(match status {
            Status::Code(code) => ExitStatus::Code((code & 0xff) as u8),
            Status::Signal(signal) => ExitStatus::Signal {
                signal: (signal & 0x7f) as u8,
                oom: signal == libc::SIGKILL && around.cgroup.had_oom_kill(),
            },
        })
    }

    /// The wait status that the minimal init wrote before it ended, if it did.
    fn status_from_init(&self) -> Option<Status> {
        let mut status = [0; 4];
        let read = rustix::io::read(self.running.status.as_ref()?, &mut status).ok()?;
        if read != status.len() {
            return None;
        }
        let status = i32::from_ne_bytes(status);
        Some(match libc::WIFEXITED(status) {
            true => Status::Code(libc::WEXITSTATUS(status)),
            false => Status::Signal(libc::WTERMSIG(status)),
        })
    }

    fn signal(&self, signal: u32) {
        // It may have ended just now.
        let _ = sys::send_signal(self.running.pidfd.as_fd(), signal);
    }

    /// A size that came before the terminal was the pump's.
    fn resize(&self, size: TerminalSize) {
        if let Some(Stdio::Terminal(master)) = &self.stdio {
            let size = Winsize {
                ws_row: size.rows,
                ws_col: size.columns,
                ws_xpixel: 0,
                ws_ypixel: 0,
            };
            let _ = rustix::termios::tcsetwinsize(master, size);
        }
    }
}

/// How a process ended.
enum Status {
    Code(i32),
    Signal(i32),
}
