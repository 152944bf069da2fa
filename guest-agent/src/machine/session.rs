//! One connection of the machine: one program.

use super::names::Known;
use super::root;
use crate::clock;
use crate::failure::setup;
use crate::process::{self, Root};
use crate::sys::{self, Namespaces};
use hullbox_protocol::{Failure, Frame, Hello, PROTOCOL_VERSION, ProcessSpec, Reply, Request};
use hullbox_session::children::{Children, Reach, uptime_us};
use hullbox_session::connection::ConnectionError;
use hullbox_session::server::{Drain, Event, Pump};
use rustix::fs::{Mode, OFlags};
use rustix::process::WaitOptions;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

/// Exit code by which a connection's process asks PID 1 to stop the machine.
pub(super) const STOP_MACHINE: i32 = 75;

/// As the protocol numbers signals.
const SIGHUP: u32 = 1;
const SIGKILL: u32 = 9;

/// How long descendants may hold up the end, and a hung-up program may tidy up.
const GRACE: Duration = Duration::from_secs(2);
/// How long the client may take to close after the end.
const CLOSING: Duration = Duration::from_secs(5);

/// Serves a connection in a process of its own. Gives that process's exit code.
///
/// `share`: the host's files without the memory above them. `known`: what the program must not see of
/// them any more.
pub fn serve(connection: OwnedFd, share: &OwnedFd, known: Option<Known>) -> i32 {
    sys::close_others(&[connection.as_fd(), share.as_fd()]);
    let _ = rustix::thread::set_name(c"hullbox-session");
    match Handler::new(connection, share.as_fd(), known).and_then(|mut handler| handler.run()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("hullbox-agent: session: {error}");
            1
        }
    }
}

/// The same where no machine is around it.
pub fn serve_alone(connection: OwnedFd) -> i32 {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    rustix::fs::open("/", flags, Mode::empty()).map_or(1, |root| serve(connection, &root, None))
}

/// The machine's own root, as it is.
struct Here<'a> {
    share: BorrowedFd<'a>,
}

impl Root for Here<'_> {
    fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        vec![self.share]
    }

    fn enter(&self, _: &ProcessSpec) -> Result<(), Failure> {
        Ok(())
    }

    fn makes_cwd(&self) -> bool {
        false
    }

    // Overlayfs knows a file that runs for as long as it runs, though the host has put another in
    // its place, a newer version of this program for one.
    fn reopen(&self, path: &[u8]) -> Option<OwnedFd> {
        root::find(self.share, path).ok()
    }
}

struct Handler<'a> {
    share: BorrowedFd<'a>,
    known: Option<Known>,
    pump: Pump,
    signals: OwnedFd,
    sessions: Children,
    started: bool,
    /// The client is gone, or done: what is left ends at this time.
    due: Option<Instant>,
    connected: bool,
    code: i32,
}

impl<'a> Handler<'a> {
    fn new(
        connection: OwnedFd,
        share: BorrowedFd<'a>,
        known: Option<Known>,
    ) -> Result<Self, ConnectionError> {
        Ok(Self {
            share,
            known,
            pump: Pump::new(connection)?,
            signals: sys::watch_signals(&[])?,
            sessions: Children::new(process::send_signal),
            started: false,
            due: None,
            connected: true,
            code: 0,
        })
    }

    fn run(&mut self) -> Result<i32, ConnectionError> {
        self.pump.send(&Frame::Hello(Hello {
            version: PROTOCOL_VERSION,
            uptime_us: uptime_us(),
        }))?;
        while self.connected || !self.sessions.is_empty() {
            let timeout = self
                .due
                .map(|due| due.saturating_duration_since(Instant::now()));
            let mut watched = vec![self.signals.as_fd()];
            watched.extend(self.sessions.descriptors());
            match self.pump.wait(&watched, timeout)? {
                Event::Exec { session, spec } => self.exec(session, &spec)?,
                Event::Signal { session, signal } => {
                    self.sessions.signal(session, signal, Reach::Group);
                }
                Event::Ready(_) => self.take_ends()?,
                Event::Shutdown => {
                    self.code = STOP_MACHINE;
                    self.hang_up();
                }
                Event::Finished { .. } => self.due = Some(Instant::now() + CLOSING),
                Event::Closed(_) => self.hang_up(),
                Event::Timeout => {
                    self.sessions.signal_all(SIGKILL, Reach::Group);
                    self.connected = false;
                    self.due = None;
                }
                Event::Request { number, request } => {
                    let reply = match request {
                        Request::SetClock { wall_clock_ns } => clock::keep(wall_clock_ns),
                        _ => Reply::Failed("not something this side can do".to_owned()),
                    };
                    self.pump.send(&Frame::Reply { number, reply })?;
                }
                Event::Setup(_) | Event::Resize { .. } => {}
            }
        }
        Ok(self.code)
    }

    fn exec(&mut self, session: u32, spec: &ProcessSpec) -> Result<(), ConnectionError> {
        if std::mem::replace(&mut self.started, true) {
            let failure = setup("one connection runs one program");
            return self.pump.fail(session, failure);
        }
        if let Some(known) = self.known {
            known.expire();
        }
        let here = Here { share: self.share };
        match process::spawn(spec, &here, Namespaces::Inherit, None) {
            Ok(spawned) => self.sessions.add(&mut self.pump, session, spawned),
            Err(failure) => self.pump.fail(session, failure),
        }
    }

    fn take_ends(&mut self) -> Result<(), ConnectionError> {
        self.sessions.take_reports(&mut self.pump)?;
        self.sessions.deliver_pending(Reach::Group);
        while sys::next_signal(self.signals.as_fd()).is_some() {}
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            if let Some(ended) = self.sessions.reaped(&mut self.pump, pid, status)? {
                let drain = Drain::Grace(GRACE);
                self.pump.finish(ended.session, ended.status, drain);
            }
        }
        Ok(())
    }

    /// The client is gone: so is the program soon, as with a terminal that hangs up.
    fn hang_up(&mut self) {
        self.connected = false;
        self.sessions.signal_all(SIGHUP, Reach::Group);
        self.due = Some(Instant::now() + GRACE);
    }
}
