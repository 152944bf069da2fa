//! Starting the process, and what its starter says to it.

use crate::message::{Answer, Carrier, Counts, Incoming, Link, Request, Start, send};
use crate::{ENTRY, RELAY_OPTION};
use hullbox_backend::network::{Member, OpenPort, UserNetwork};
use hullbox_protocol::Interface;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How long its end may take once its control connection has ended. In the helper machine, the host's
/// process has to end first.
const END_LIMIT: Duration = Duration::from_secs(10);

/// Why a process cannot be started, or is of no use.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProcessError {
    /// There is no process, or it is not told.
    #[error("cannot start the network process")]
    Start(#[source] io::Error),
    /// It cannot do what it is asked, in its own words.
    #[error("{0}")]
    Refused(String),
    /// It has ended, or makes no sense.
    #[error("the network process has ended")]
    Ended,
    /// It does not answer.
    #[error("the network process does not answer")]
    Silent,
}

/// How the process is started.
#[derive(Debug, Clone)]
pub struct Launcher {
    program: PathBuf,
    arguments: Vec<OsString>,
}

impl Default for Launcher {
    /// This program; as a relay inside the helper machine.
    fn default() -> Self {
        let mut arguments = vec![ENTRY.into()];
        if hullbox_host::place::is_in_machine() {
            arguments.push(RELAY_OPTION.into());
        }
        Self::of("/proc/self/exe", arguments)
    }
}

impl Launcher {
    /// Another program that calls [`crate::main`], with these arguments.
    #[must_use]
    pub fn of(program: impl Into<PathBuf>, arguments: Vec<OsString>) -> Self {
        Self {
            program: program.into(),
            arguments,
        }
    }

    /// Starts a process that is to serve this network to its one member. It answers later.
    ///
    /// # Errors
    /// [`ProcessError::Start`].
    pub fn start(
        &self,
        network: &UserNetwork,
        interface: &Interface,
        member: &Member,
    ) -> Result<Process, ProcessError> {
        let (carrier, descriptor) = match member {
            Member::Tap(fd) => (Carrier::Tap, fd),
            Member::Packets(fd) => (Carrier::Packets, fd),
        };
        let request = Request::Start(Box::new(Start {
            network: network.clone(),
            interface: interface.clone(),
            member: Link::Inherited(carrier),
        }));
        let (connection, theirs) = UnixStream::pair().map_err(ProcessError::Start)?;
        // It waits in the socket until there is somebody to read it.
        connection
            .set_nonblocking(true)
            .and_then(|()| send(connection.as_fd(), &request, Some(descriptor.as_fd())))
            .map_err(ProcessError::Start)?;
        let child = self.spawn(theirs.into()).map_err(ProcessError::Start)?;
        Ok(Process {
            child,
            connection,
            incoming: Incoming::default(),
        })
    }

    fn spawn(&self, control: OwnedFd) -> io::Result<Child> {
        // Everything this program opens is close-on-exec; what it was started with may not be.
        hullbox_host::sys::set_cloexec_from_3()?;
        Command::new(&self.program)
            .arg0("hullbox")
            .args(&self.arguments)
            .env_clear()
            .stdin(Stdio::from(control))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
    }
}

/// A process that serves a network, or is about to. It ends when this is dropped, and has ended then.
#[derive(Debug)]
pub struct Process {
    child: Child,
    connection: UnixStream,
    incoming: Incoming,
}

impl AsFd for Process {
    /// Readable when it has answered or ended.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.connection.as_fd()
    }
}

impl Process {
    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it serves, without waiting: the published ports that are open; none, if it has not
    /// answered yet. To be asked until it has answered.
    ///
    /// # Errors
    /// It does not serve ([`ProcessError::Refused`]), or has ended.
    pub fn ready(&mut self) -> Result<Option<Vec<OpenPort>>, ProcessError> {
        match self.answer()? {
            None => Ok(None),
            Some(Answer::Ready { ports, .. }) => Ok(Some(ports)),
            Some(Answer::Failed { message }) => Err(ProcessError::Refused(message)),
            Some(_) => Err(ProcessError::Ended),
        }
    }

    /// The same, waiting for so long.
    ///
    /// # Errors
    /// As [`Self::ready`], and [`ProcessError::Silent`].
    pub fn wait_until_ready(&mut self, limit: Duration) -> Result<Vec<OpenPort>, ProcessError> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(ports) = self.ready()? {
                return Ok(ports);
            }
            self.wait_for_answer(deadline)?;
        }
    }

    /// What it has counted. To be asked of one that is ready.
    ///
    /// # Errors
    /// It has ended, or does not answer in time.
    pub fn counters(&mut self, limit: Duration) -> Result<Counts, ProcessError> {
        match self.ask(&Request::Counters, limit)? {
            Answer::Counters(counts) => Ok(counts),
            _ => Err(ProcessError::Ended),
        }
    }

    /// Gives it another policy, as [`UserNetwork::egress`] has it. To be asked of one that is ready.
    ///
    /// # Errors
    /// The text is none, or the process has ended, or does not answer in time.
    pub fn set_policy(
        &mut self,
        egress: Option<String>,
        limit: Duration,
    ) -> Result<(), ProcessError> {
        match self.ask(&Request::Policy(egress), limit)? {
            Answer::Done => Ok(()),
            Answer::Failed { message } => Err(ProcessError::Refused(message)),
            _ => Err(ProcessError::Ended),
        }
    }

    fn ask(&mut self, request: &Request, limit: Duration) -> Result<Answer, ProcessError> {
        send(self.connection.as_fd(), request, None).map_err(|_| ProcessError::Ended)?;
        let deadline = Instant::now() + limit;
        loop {
            if let Some(answer) = self.answer()? {
                return Ok(answer);
            }
            self.wait_for_answer(deadline)?;
        }
    }

    /// The next answer, if it is here.
    fn answer(&mut self) -> Result<Option<Answer>, ProcessError> {
        loop {
            if let Some(answer) = self.incoming.next().map_err(|_| ProcessError::Ended)? {
                return Ok(Some(answer));
            }
            let before = self.incoming.len();
            match self.incoming.fill(&self.connection) {
                Ok(true) if self.incoming.len() > before => {}
                Ok(true) => return Ok(None),
                Ok(false) | Err(_) => return Err(ProcessError::Ended),
            }
        }
    }

    fn wait_for_answer(&self, deadline: Instant) -> Result<(), ProcessError> {
        match wait_for(self.connection.as_fd(), deadline) {
            true => Ok(()),
            false => Err(ProcessError::Silent),
        }
    }

    /// Ends it at once.
    pub fn kill(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
    }

    /// Has it end. Whoever drops it waits for that.
    pub fn close(&self) {
        // One that has ended hears it no more.
        let _ = self.connection.shutdown(std::net::Shutdown::Both);
    }

    /// Has it end, and waits for that. Returns how it ended.
    ///
    /// # Errors
    /// It cannot be waited for.
    pub fn end(mut self) -> io::Result<ExitStatus> {
        self.finish()
    }

    fn finish(&mut self) -> io::Result<ExitStatus> {
        // Its number may be another's once it was waited for.
        if let Some(status) = self.child.try_wait()? {
            return Ok(status);
        }
        self.close();
        let ended = pidfd_open(Pid::from_child(&self.child), PidfdFlags::empty())
            .is_ok_and(|handle| wait_for(handle.as_fd(), Instant::now() + END_LIMIT));
        if !ended {
            // It has no child, and nothing to tidy up.
            let _ = self.child.kill();
        }
        self.child.wait()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // However it ended.
        let _ = self.finish();
    }
}

/// Whether it becomes readable before that time.
fn wait_for(fd: BorrowedFd<'_>, deadline: Instant) -> bool {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let Ok(timeout) = Timespec::try_from(left) else {
            return false;
        };
        let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
        match poll(&mut fds, Some(&timeout)) {
            Ok(0) => return false,
            Ok(_) => return true,
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return false,
        }
    }
}
