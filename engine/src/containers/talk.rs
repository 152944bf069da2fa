//! Commands to the monitors of running containers.

use super::launch::fit;
use super::{ContainerError, Engine};
use crate::monitor::control::{self, Answer, Command};
use crate::monitor::refused;
use crate::networks::dns_names;
use crate::paths::short_id;
use crate::plan::life::Restart;
use crate::plan::{ContainerSpec, environment};
use crate::state::{Phase, Record};
use crate::timing::Timing;
use hullbox_model::container::Refused;
use hullbox_model::event::Verb;
use hullbox_protocol::{
    CgroupLimits, Decoder, Frame, HEADER_LEN, ProcessInfo, ProcessSpec, Request, Sender, StreamSet,
    TerminalSize, UserSpec,
};
use hullbox_session::connection::Connection;
use hullbox_session::direct::{Descriptors, send_with};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with, sockopt,
};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long a monitor may take to acknowledge a command. It does nothing that takes long, but its host
/// may be overloaded.
const ACKNOWLEDGE_LIMIT: Duration = Duration::from_secs(10);

/// The same where its answer is a part of a whole that is shown without it.
const LOOK_LIMIT: Duration = Duration::from_secs(2);
/// How long it may take to answer one that it has acknowledged. It waits for the workload's side
/// itself, and not as long as this.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);
/// Most that is read of the payload of the first frame, in bytes. An acknowledgement is shorter; a
/// longer frame is not one, and the connection is of no use.
const MAX_ACKNOWLEDGEMENT: usize = 64;
/// SIGKILL.
const KILL: u8 = 9;

/// What `exec` is asked for.
#[derive(Debug, Clone, Default)]
pub struct ExecOrder {
    /// Program and arguments.
    pub argv: Vec<Vec<u8>>,
    /// `-e` and `--env-file`, as [`environment`] reads them.
    pub env: Vec<Vec<u8>>,
    /// `-w`.
    pub workdir: Option<String>,
    /// `-u`.
    pub user: Option<String>,
    /// `-t`, and the size of the caller's terminal.
    pub terminal: Option<TerminalSize>,
    /// `-i`.
    pub interactive: bool,
    /// `--privileged`.
    pub privileged: bool,
}

/// A connection on which frames follow, as from a monitor that was just started.
#[derive(Debug)]
pub struct Joined {
    /// Speaks frames of session 0.
    pub connection: OwnedFd,
    /// Streams of the process that do not travel on it.
    pub direct: StreamSet,
}

/// A container that is frozen meanwhile.
#[derive(Debug)]
pub struct Held {
    _kept: UnixStream,
}

impl Engine {
    /// Joins the workload's streams.
    ///
    /// # Errors
    /// [`ContainerError::NotRunning`] among others.
    pub fn attach(&self, record: &Record, stdin: bool) -> Result<Joined, ContainerError> {
        let connection = self.connect(record, &Command::Attach { stdin })?;
        Ok(Joined {
            connection: connection.into(),
            direct: StreamSet::default(),
        })
    }

    /// Runs a process beside the workload. What refuses it shows as a failed session. `own` are the
    /// caller's standard streams, of those that the process's may be joined to without frames:
    /// which were is in [`Joined::direct`].
    ///
    /// # Errors
    /// [`ContainerError::NotRunning`] among others.
    pub fn exec(
        &self,
        record: &Record,
        order: ExecOrder,
        detach: bool,
        timing: &Timing,
        own: Descriptors,
    ) -> Result<Joined, ContainerError> {
        let spec = Box::new(exec_spec(&record.spec, order));
        let may_be_direct = !detach && spec.terminal.is_none();
        let own = Some(own).filter(|_| may_be_direct).unwrap_or_default();
        let own = fit(own, record.spec.isolation);
        self.exec_spec(record, spec, (detach, timing), own)
    }

    pub(super) fn exec_spec(
        &self,
        record: &Record,
        spec: Box<ProcessSpec>,
        (detach, timing): (bool, &Timing),
        descriptors: Descriptors,
    ) -> Result<Joined, ContainerError> {
        let command = Command::Exec {
            spec,
            detach,
            timing: timing.clone(),
            streams: descriptors.streams(),
        };
        let direct = descriptors.streams();
        let connection = self.connect(record, &command)?;
        pass(&connection, &descriptors).map_err(|error| talk_error(record, error))?;
        Ok(Joined {
            connection: connection.into(),
            direct,
        })
    }

    /// Sends the workload a signal.
    ///
    /// # Errors
    /// [`ContainerError::NotRunning`] among others.
    pub fn signal(&self, record: &Record, signal: u8) -> Result<(), ContainerError> {
        let contact = self.try_command(record, &Command::Signal(signal))?;
        match contact {
            _ if signal != KILL => contact.or_error(record),
            Contact::Unresponsive => self.end_monitor(record),
            Contact::NotRunning => contact.or_error(record),
            // As in Docker, what was killed has ended when this returns.
            Contact::Answered(()) => self.see_it_end(record),
        }
    }

    /// Stops a container: its stop signal, and SIGKILL after a while (`None`: never). One that does
    /// not run is stopped.
    ///
    /// # Errors
    /// [`ContainerError::Talk`] among others.
    pub fn stop(
        &self,
        record: &Record,
        signal: Option<u8>,
        timeout_ms: Option<u64>,
    ) -> Result<(), ContainerError> {
        let signal = signal.unwrap_or(record.spec.stop_signal);
        self.stop_by(record, &Command::Stop { signal, timeout_ms })
    }

    /// Freezes a container, or lets it go on.
    ///
    /// # Errors
    /// [`ContainerError`].
    pub fn pause(&self, record: &Record, pause: bool) -> Result<(), ContainerError> {
        let request = if pause {
            Request::Freeze
        } else {
            Request::Thaw
        };
        self.command(record, &Command::Ask(request))
    }

    /// Freezes a container until [`Held`] is dropped or this process ends, however it does.
    ///
    /// # Errors
    /// [`ContainerError`].
    pub fn hold(&self, record: &Record) -> Result<Held, ContainerError> {
        let stream = self.connect(record, &Command::Hold)?;
        let talk = |source| ContainerError::Talk {
            id: short_id(&record.id).to_owned(),
            source,
        };
        let kept = stream.try_clone().map_err(talk)?;
        match receive_answer(stream.into(), Some(ANSWER_LIMIT)).map_err(talk)? {
            Answer::Done => Ok(Held { _kept: kept }),
            other => Err(unexpected(other)),
        }
    }

    /// Sets limits, of a running container at once, and for its next start; 0 leaves one as it is.
    ///
    /// # Errors
    /// [`ContainerError`]; nothing has changed then.
    pub fn update(&mut self, record: &Record, limits: CgroupLimits) -> Result<(), ContainerError> {
        let vm_bytes = u64::from(record.spec.memory_mib) << 20;
        if vm_bytes > 0 && limits.memory_bytes > vm_bytes {
            return Err(ContainerError::Refused(format!(
                "a microVM cannot grow: container {} was made with {} MiB",
                record.name, record.spec.memory_mib
            )));
        }
        match self.try_command(record, &Command::Ask(Request::Limit(limits)))? {
            Contact::NotRunning => {
                self.state.change_spec(&record.id, |spec| {
                    spec.setup.limits = limits.over(spec.setup.limits);
                })?;
                self.note(record, Verb::Update);
                Ok(())
            }
            // Its monitor records it.
            contact => contact.or_error(record),
        }
    }

    /// Replaces a container's restart policy.
    ///
    /// # Errors
    /// [`ContainerError`].
    pub fn set_restart(&mut self, record: &Record, restart: Restart) -> Result<(), ContainerError> {
        match self.try_command(record, &Command::SetRestart(restart))? {
            Contact::NotRunning => {
                let change = |spec: &mut crate::plan::ContainerSpec| spec.life.restart = restart;
                self.state.change_spec(&record.id, change)?;
                self.note(record, Verb::Update);
                Ok(())
            }
            // Its monitor records it.
            contact => contact.or_error(record),
        }
    }

    /// What runs in a container.
    ///
    /// # Errors
    /// [`ContainerError`].
    pub fn processes(&self, record: &Record) -> Result<Vec<ProcessInfo>, ContainerError> {
        match self.query(record, &Command::Ask(Request::Processes))? {
            Answer::Processes(processes) => {
                self.note(record, Verb::Top);
                Ok(processes)
            }
            other => Err(unexpected(other)),
        }
    }

    /// A descriptor that is readable, or closed, when the container has ended.
    ///
    /// # Errors
    /// [`ContainerError::NotRunning`] among others.
    pub fn watch(&self, record: &Record) -> Result<OwnedFd, ContainerError> {
        let path = control::socket_path(&self.roots.container_runtime_dir(&record.id));
        let connection = connect_and_send(&path, &Command::Watch);
        let contact = Contact::of(connection).map_err(|source| talk_error(record, source))?;
        match contact {
            // The end of its process is as good, but for the exit code.
            Contact::Unresponsive => match self.monitor_of(record)? {
                Some(process) => Ok(process),
                None => contact.or_error(record).map(OwnedFd::from),
            },
            contact => contact.or_error(record).map(OwnedFd::from),
        }
    }

    /// Sends the monitor, if there is one, the container's new name.
    pub(super) fn send_name(&self, record: &Record, name: &str) {
        let renamed = Record {
            name: name.to_owned(),
            ..record.clone()
        };
        let command = Command::SetName {
            name: name.to_owned(),
            dns: dns_names(&renamed),
        };
        // Where it does not arrive, events and other members have the name before.
        let _ = self.command(record, &command);
    }

    /// What its networks have refused a container in its present run, or in the last one.
    pub(super) fn refused(&self, record: &Record) -> Refused {
        let kept = || refused::kept(&self.roots.container_dir(&record.id));
        if !matches!(
            record.phase,
            Phase::Running | Phase::Paused | Phase::Restarting
        ) {
            return kept();
        }
        match self.try_query(record, &Command::Refused) {
            Ok(Contact::Answered(Answer::Refused(text))) => {
                serde_json::from_str(&text).unwrap_or_default()
            }
            // It has ended meanwhile, or does not answer.
            _ => kept(),
        }
    }

    /// Sends a command that is answered with [`Answer::Done`].
    pub(crate) fn command(&self, record: &Record, command: &Command) -> Result<(), ContainerError> {
        self.try_command(record, command)?.or_error(record)
    }

    /// As [`Self::command`], for who has something else to do where no monitor answers.
    pub(super) fn try_command(
        &self,
        record: &Record,
        command: &Command,
    ) -> Result<Contact<()>, ContainerError> {
        Ok(match self.try_query(record, command)? {
            Contact::Answered(Answer::Done) => Contact::Answered(()),
            Contact::Answered(other) => return Err(unexpected(other)),
            Contact::NotRunning => Contact::NotRunning,
            Contact::Unresponsive => Contact::Unresponsive,
        })
    }

    /// Connects, sends a command, and waits for its acknowledgement.
    pub(super) fn connect(
        &self,
        record: &Record,
        command: &Command,
    ) -> Result<UnixStream, ContainerError> {
        let path = control::socket_path(&self.roots.container_runtime_dir(&record.id));
        Contact::of(connect_and_send(&path, command))
            .map_err(|source| talk_error(record, source))?
            .or_error(record)
    }

    /// Sends a command and waits for the answer.
    pub(super) fn query(
        &self,
        record: &Record,
        command: &Command,
    ) -> Result<Answer, ContainerError> {
        self.try_query(record, command)?.or_error(record)
    }

    /// As [`Self::query`], for who has something else to do where no monitor answers.
    pub(super) fn try_query(
        &self,
        record: &Record,
        command: &Command,
    ) -> Result<Contact<Answer>, ContainerError> {
        let path = control::socket_path(&self.roots.container_runtime_dir(&record.id));
        let answer = connect_and_send(&path, command)
            .and_then(|stream| receive_answer(stream.into(), answer_limit(command)));
        match Contact::of(answer) {
            Ok(Contact::Answered(Answer::Failed(why))) => Err(ContainerError::Refused(why)),
            contact => contact.map_err(|source| talk_error(record, source)),
        }
    }
}

/// What came of a command to a container's monitor.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Contact<T> {
    /// It answered.
    Answered(T),
    /// There is no monitor: the container does not run.
    NotRunning,
    /// It did not acknowledge or answer in time.
    Unresponsive,
}

impl<T> Contact<T> {
    /// Tells a monitor that is not there or does not answer from a conversation that failed.
    fn of(result: io::Result<T>) -> io::Result<Self> {
        use io::ErrorKind as Kind;
        match result {
            Ok(answer) => Ok(Self::Answered(answer)),
            Err(error) => match error.kind() {
                Kind::NotFound | Kind::ConnectionRefused => Ok(Self::NotRunning),
                // A socket's timeout, and our own.
                Kind::WouldBlock | Kind::TimedOut => Ok(Self::Unresponsive),
                _ => Err(error),
            },
        }
    }

    /// The answer, where there is nothing to do without it.
    pub(super) fn or_error(self, record: &Record) -> Result<T, ContainerError> {
        let id = || short_id(&record.id).to_owned();
        match self {
            Self::Answered(answer) => Ok(answer),
            Self::NotRunning => Err(ContainerError::NotRunning(id())),
            Self::Unresponsive => Err(ContainerError::NoAnswer(id())),
        }
    }
}

fn talk_error(record: &Record, source: io::Error) -> ContainerError {
    ContainerError::Talk {
        id: short_id(&record.id).to_owned(),
        source,
    }
}

/// How long the answer itself may take of a monitor that has acknowledged the command. What it asks of
/// the container it bounds itself.
fn answer_limit(command: &Command) -> Option<Duration> {
    match command {
        Command::Watch | Command::Save { .. } => None,
        Command::Stop { timeout_ms, .. } => {
            timeout_ms.map(|ms| Duration::from_millis(ms).saturating_add(ANSWER_LIMIT))
        }
        _ => Some(ANSWER_LIMIT),
    }
}

/// How long a monitor may take to acknowledge a command. Whoever only looks can do without its answer.
const fn acknowledge_limit(command: &Command) -> Duration {
    match command {
        Command::Execs | Command::Refused => LOOK_LIMIT,
        _ => ACKNOWLEDGE_LIMIT,
    }
}

/// Connects to a monitor, sends a command, and waits for its acknowledgement.
fn connect_and_send(path: &Path, command: &Command) -> io::Result<UnixStream> {
    let frame = control::to_frame(command).map_err(io::Error::other)?;
    let mut bytes = Vec::new();
    hullbox_protocol::encode_into(&frame, &mut bytes).map_err(io::Error::other)?;
    let socket = socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    // It holds for connecting, too: one that accepts nobody has a full backlog before long.
    let limit = Some(acknowledge_limit(command));
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, limit)?;
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, limit)?;
    connect(&socket, &SocketAddrUnix::new(path)?)?;
    let stream = UnixStream::from(socket);
    (&stream).write_all(&bytes)?;
    match receive_short_answer(&stream)? {
        Some(Answer::Acknowledged) => {}
        _ => return Err(io::Error::from(io::ErrorKind::InvalidData)),
    }
    stream.set_read_timeout(None)?;
    stream.set_write_timeout(None)?;
    Ok(stream)
}

/// Sends the descriptors that belong to a command, once that is acknowledged. A monitor that has closed
/// the connection has answered already.
fn pass(to: &UnixStream, descriptors: &Descriptors) -> io::Result<()> {
    match send_descriptors(to, descriptors) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        sent => sent,
    }
}

fn send_descriptors(mut to: &UnixStream, descriptors: &Descriptors) -> io::Result<()> {
    let streams = descriptors.streams();
    if streams.is_empty() {
        return Ok(());
    }
    let frame = Frame::Descriptors {
        session: 0,
        streams,
    };
    let mut bytes = Vec::new();
    hullbox_protocol::encode_into(&frame, &mut bytes).map_err(io::Error::other)?;
    let sent = send_with(to.as_fd(), &bytes, descriptors)?;
    to.write_all(bytes.get(sent..).unwrap_or_default())
}

/// Receives one short answer, and not a byte of what follows it.
fn receive_short_answer(mut stream: &UnixStream) -> io::Result<Option<Answer>> {
    let mut header = [0; HEADER_LEN];
    stream.read_exact(&mut header)?;
    let mut decoder = Decoder::of(Sender::Monitor);
    decoder.push(&header);
    let mut payload = vec![0; decoder.lacking().unwrap_or(0).min(MAX_ACKNOWLEDGEMENT)];
    stream.read_exact(&mut payload)?;
    decoder.push(&payload);
    let frame = decoder.next_frame().map_err(io::Error::other)?;
    Ok(frame.as_ref().and_then(control::from_frame))
}

/// Receives one answer, if it comes in time.
pub(super) fn receive_answer(connection: OwnedFd, limit: Option<Duration>) -> io::Result<Answer> {
    let mut connection = Connection::to(connection, Sender::Monitor).map_err(io::Error::other)?;
    let due = limit.and_then(|limit| Instant::now().checked_add(limit));
    loop {
        let incoming = connection.next_incoming().map_err(io::Error::other)?;
        if let Some(hullbox_protocol::Incoming::Frame(frame)) = incoming {
            return control::from_frame(&frame)
                .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData));
        }
        let mut fds = [PollFd::from_borrowed_fd(connection.as_fd(), PollFlags::IN)];
        let left = due.map(|due| due.saturating_duration_since(Instant::now()));
        let left = left.and_then(|left| Timespec::try_from(left).ok());
        match poll(&mut fds, left.as_ref()) {
            Ok(0) => return Err(io::Error::from(io::ErrorKind::TimedOut)),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        if !connection.fill().map_err(io::Error::other)? {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
        }
    }
}

pub(super) fn unexpected(answer: Answer) -> ContainerError {
    ContainerError::Refused(match answer {
        Answer::Failed(why) => why,
        _ => "the monitor answered something else".to_owned(),
    })
}

/// The workload's surroundings with what was asked for in their place, as Docker does.
pub(super) fn exec_spec(container: &ContainerSpec, order: ExecOrder) -> ProcessSpec {
    let mut spec = container.process.clone();
    spec.argv = order.argv;
    spec.env = environment::merge(container.environment(order.terminal.is_some()), order.env);
    if let Some(cwd) = order.workdir {
        spec.cwd = cwd;
    }
    if let Some(user) = order.user {
        spec.user = UserSpec::Named {
            user,
            additional_groups: Vec::new(),
        };
    }
    spec.terminal = order.terminal;
    spec.stdin = order.interactive;
    spec.builtin = None;
    spec.privileged = order.privileged;
    if order.privileged {
        spec.capabilities = None;
    }
    spec
}
