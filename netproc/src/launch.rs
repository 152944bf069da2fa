//! Starting the process, and what its starter says to it.

use crate::counts::{Counts, Refusal};
use crate::home::Home;
use crate::message::{Answer, Carrier, Incoming, Link, Request, Start, send};
use crate::{ENTRY, JOIN_OPTION, RELAY_OPTION};
use hullbox_backend::network::{Member, Membership, OpenPort, UserNetwork};
use hullbox_host::wait::is_readable;
use hullbox_protocol::Interface;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::ffi::OsString;
use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How long its end may take once its control connection has ended. One that is stopped never ends.
const END_LIMIT: Duration = Duration::from_secs(2);
/// The same in the helper machine, where the host's process has to end first.
const MACHINE_END_LIMIT: Duration = Duration::from_secs(10);

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

/// A container's place in a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seat {
    /// What it may do, and its ports.
    pub network: UserNetwork,
    /// Its interface, and the gateway's addresses.
    pub interface: Interface,
    /// The network, if it is one that containers share.
    pub membership: Option<Membership>,
    /// Its resolver knows other networks' name servers, too.
    pub has_other_networks: bool,
}

impl Seat {
    /// A place in a network of its own.
    #[must_use]
    pub const fn alone(network: UserNetwork, interface: Interface) -> Self {
        Self {
            network,
            interface,
            membership: None,
            has_other_networks: false,
        }
    }
}

/// How the process is started.
#[derive(Debug, Clone)]
pub struct Launcher {
    program: PathBuf,
    arguments: Vec<OsString>,
    /// Where networks have their sockets that containers share, if they are served here.
    networks: Option<PathBuf>,
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
            networks: None,
        }
    }

    /// The same, for places in networks that containers share, which have their sockets in this directory.
    /// In the helper machine, the host has another one.
    #[must_use]
    pub fn joining(mut self, networks: &Path) -> Self {
        if !self.arguments.iter().any(|word| word == RELAY_OPTION) {
            self.arguments.push(JOIN_OPTION.into());
            self.arguments.push(networks.into());
            self.networks = Some(networks.to_owned());
        }
        self
    }

    /// Starts a process that is to serve a network to this member, or to have it join a network. It answers
    /// later.
    ///
    /// # Errors
    /// [`ProcessError::Start`].
    pub fn start(&self, seat: &Seat, member: &Member) -> Result<Process, ProcessError> {
        let (carrier, descriptor) = match member {
            Member::Tap(fd) => (Carrier::Tap, fd),
            Member::Packets(fd) => (Carrier::Packets, fd),
        };
        let request = Request::Start(Box::new(Start {
            network: seat.network.clone(),
            membership: seat.membership.clone(),
            has_other_networks: seat.has_other_networks,
            interface: seat.interface.clone(),
            member: Link::Inherited(carrier),
        }));
        let (connection, theirs) = UnixStream::pair().map_err(ProcessError::Start)?;
        // It waits in the socket until there is somebody to read it.
        connection
            .set_nonblocking(true)
            .and_then(|()| send(connection.as_fd(), &request, &[descriptor.as_fd()]))
            .map_err(ProcessError::Start)?;
        let child = self.spawn(theirs.into()).map_err(ProcessError::Start)?;
        let shared = self.networks.as_ref().zip(seat.membership.as_ref());
        let is_relay = self.arguments.iter().any(|word| word == RELAY_OPTION);
        Ok(Process {
            child,
            connection,
            incoming: Incoming::default(),
            shared: shared.map(|(dir, membership)| (dir.clone(), membership.id.clone())),
            end_limit: match is_relay {
                true => MACHINE_END_LIMIT,
                false => END_LIMIT,
            },
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

/// Removes what is left of a shared network's process that is no more.
///
/// # Errors
/// It cannot be removed.
pub fn tidy(networks: &Path, id: &str) -> io::Result<()> {
    Home::open(networks, id)?.tidy()
}

/// A process that serves a network, or is about to. When this is dropped it ends, or has no such member any
/// more, and has done so then.
#[derive(Debug)]
pub struct Process {
    /// That serves the network, or joins it.
    child: Child,
    connection: UnixStream,
    incoming: Incoming,
    /// The network that the child joins, by directory and id: it is served by another process.
    shared: Option<(PathBuf, String)>,
    /// How long its end may take.
    end_limit: Duration,
}

/// What a process has said.
#[derive(Debug)]
pub enum Heard {
    /// It serves: the published ports that are open. Its first word, unless it fails.
    Ready(Vec<OpenPort>),
    /// It does not do what it was asked to, and why, in one line.
    Failed(String),
    /// What it has counted.
    Counted(Box<Counts>),
    /// It has done what it was asked to.
    Done,
    /// The container was refused something, for the first time. Not asked for; of much, a part is told.
    Refused(Refusal),
}

impl AsFd for Process {
    /// Readable when it has answered or ended.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.connection.as_fd()
    }
}

impl Process {
    /// The process id of what was started, which has ended long since if it joined a network.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has said, without waiting. To be asked until there is nothing: each says one thing.
    ///
    /// # Errors
    /// It has ended, or makes no sense.
    pub fn hear(&mut self) -> Result<Option<Heard>, ProcessError> {
        let Some(answer) = self.answer()? else {
            return Ok(None);
        };
        Ok(Some(match answer {
            Answer::Ready { ports, .. } => Heard::Ready(ports),
            Answer::Failed { message } => Heard::Failed(message),
            Answer::Counters(counts) => Heard::Counted(Box::new(counts.heard())),
            Answer::Done => Heard::Done,
            Answer::Refused(refusal) => Heard::Refused(refusal.heard()),
            Answer::Dial(_) => return Err(ProcessError::Ended),
        }))
    }

    /// Whether it serves, without waiting: the published ports that are open; none, if it has not
    /// answered yet. To be asked until it has answered.
    ///
    /// # Errors
    /// It does not serve ([`ProcessError::Refused`]), or has ended.
    pub fn ready(&mut self) -> Result<Option<Vec<OpenPort>>, ProcessError> {
        match self.hear()? {
            None => Ok(None),
            Some(Heard::Ready(ports)) => Ok(Some(ports)),
            Some(Heard::Failed(message)) => Err(ProcessError::Refused(message)),
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

    /// Asks what it has counted; it says so later. To be asked of one that is ready.
    ///
    /// # Errors
    /// It has ended, or does not read.
    pub fn ask_for_counts(&self) -> Result<(), ProcessError> {
        self.request(&Request::Counters)
    }

    /// Gives the container other names among the network's members. It says later that it has done so. To
    /// be asked of one that is ready.
    ///
    /// # Errors
    /// It has ended, or does not read.
    pub fn rename(&self, names: Vec<String>) -> Result<(), ProcessError> {
        self.request(&Request::Names(names))
    }

    /// What it has counted. To be asked of one that is ready and owes no answer; what it tells of refusals
    /// meanwhile is among that.
    ///
    /// # Errors
    /// It has ended, or does not answer in time.
    pub fn counters(&mut self, limit: Duration) -> Result<Counts, ProcessError> {
        match self.ask(&Request::Counters, limit)? {
            Heard::Counted(counts) => Ok(*counts),
            _ => Err(ProcessError::Ended),
        }
    }

    /// Gives it another policy, as [`UserNetwork::egress`] has it. To be asked of one that is ready and owes
    /// no answer.
    ///
    /// # Errors
    /// The text is none, or the process has ended, or does not answer in time.
    pub fn set_policy(
        &mut self,
        egress: Option<String>,
        limit: Duration,
    ) -> Result<(), ProcessError> {
        match self.ask(&Request::Policy(egress), limit)? {
            Heard::Done => Ok(()),
            Heard::Failed(message) => Err(ProcessError::Refused(message)),
            _ => Err(ProcessError::Ended),
        }
    }

    fn request(&self, request: &Request) -> Result<(), ProcessError> {
        send(self.connection.as_fd(), request, &[]).map_err(|_| ProcessError::Ended)
    }

    fn ask(&mut self, request: &Request, limit: Duration) -> Result<Heard, ProcessError> {
        self.request(request)?;
        let deadline = Instant::now() + limit;
        loop {
            match self.hear()? {
                Some(Heard::Refused(_)) => {}
                Some(heard) => return Ok(heard),
                None => self.wait_for_answer(deadline)?,
            }
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
        match is_readable(self.connection.as_fd(), deadline) {
            true => Ok(()),
            false => Err(ProcessError::Silent),
        }
    }

    /// Ends it at once; of a network that others share, the membership.
    pub fn kill(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.connection.shutdown(Shutdown::Both);
    }

    /// Has it end, or the membership. When it has, [`Self::hear`] says so, and nobody has to wait who drops
    /// this; who drops it before waits for that.
    pub fn close(&self) {
        // One that has ended hears it no more. The end of the other direction tells when the ports are
        // closed.
        let _ = self.connection.shutdown(Shutdown::Write);
    }

    /// How long its end may take after [`Self::close`]. One that takes longer is to be killed.
    #[must_use]
    pub const fn end_limit(&self) -> Duration {
        self.end_limit
    }

    /// Has it end, and waits for that. Returns how it ended.
    ///
    /// # Errors
    /// It cannot be waited for.
    pub fn end(mut self) -> io::Result<ExitStatus> {
        self.finish()
    }

    fn finish(&mut self) -> io::Result<ExitStatus> {
        if let Some((dir, id)) = self.shared.take() {
            return self.leave(&dir, &id);
        }
        // Its number may be another's once it was waited for.
        if let Some(status) = self.child.try_wait()? {
            return Ok(status);
        }
        self.close();
        let ended = pidfd_open(Pid::from_child(&self.child), PidfdFlags::empty())
            .is_ok_and(|handle| is_readable(handle.as_fd(), Instant::now() + self.end_limit));
        if !ended {
            // It has no child, and nothing to tidy up.
            let _ = self.child.kill();
        }
        self.child.wait()
    }

    /// Leaves a network that others share: when this returns, the ports are closed, and of a process that
    /// served nobody else nothing is left.
    fn leave(&mut self, dir: &Path, id: &str) -> io::Result<ExitStatus> {
        // One that has not joined yet does not any more.
        let _ = self.child.kill();
        let status = self.child.wait();
        let deadline = Instant::now() + self.end_limit;
        let _ = self.connection.shutdown(Shutdown::Write);
        // What was answered meanwhile is read and forgotten.
        while is_readable(self.connection.as_fd(), deadline)
            && self.incoming.fill(&self.connection).unwrap_or(false)
        {
            self.incoming = Incoming::default();
        }
        // The next one to join makes do with what is left.
        let _ = tidy(dir, id);
        status
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // However it ended.
        let _ = self.finish();
    }
}
