//! What clients say.

use super::guest::renumbered;
use super::sessions::{Exec, Owner, Pending, Save};
use super::{
    ANSWER_LIMIT, Guest, Hub, MAX_CLIENTS, MAX_CONNECTIONS, MAX_EXECS, MAX_REQUESTS, MAX_UNHEARD,
};
use crate::monitor::client::{Client, Role};
use crate::monitor::control::{Answer, Command};
use crate::monitor::rules::{WORKLOAD, client_may_say};
use crate::monitor::streams::index;
use crate::timing::{Phase, Timing};
use hullbox_protocol::{Frame, Incoming, ProcessSpec, Request, Stream};
use hullbox_session::connection::ConnectionError;
use rustix::event::PollFlags;
use rustix::net::{SocketFlags, accept_with};
use std::time::{Duration, Instant};

/// Signals that end a guest that has not started its workload yet.
const ENDING: [u32; 5] = [1, 2, 3, 9, 15];

const NOT_RUNNING: &str = "the container is not running yet";
pub(super) const NO_ANSWER: &str = "the container does not answer";
const TOO_MANY: &str = "too many commands are connected to the container";

impl Hub<'_> {
    pub(super) fn accept(&mut self) {
        let Some(control) = self.control else { return };
        while self.clients.len() < MAX_CONNECTIONS
            && let Ok(fd) = accept_with(control, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)
        {
            // One that cannot be served sees its connection end.
            if let Ok(client) = Client::new(self.next_client, fd, Role::Asking) {
                self.next_client += 1;
                self.clients.push(client);
            }
        }
    }

    /// Whether a client is read from now: not before there is room for what it says.
    pub(super) fn may_read(&self, client: &Client) -> bool {
        let guest_has_room = match &self.guest {
            Guest::Connected(guest) => guest.has_room(),
            Guest::Awaited(_) => true,
            Guest::Gone => return !matches!(client.role, Role::Leaving),
        };
        let unheard = self.outgoing.len() + self.said.as_ref().map_or(0, Vec::len);
        match client.role {
            // A guest is never long in taking what it has credit for. All that they say goes to it.
            Role::Attached { .. } | Role::Exec { .. } => guest_has_room && unheard < MAX_UNHEARD,
            Role::Leaving => false,
            _ => client.connection.may_fill(),
        }
    }

    pub(super) fn serve_clients(&mut self, events: &[PollFlags]) {
        // From the end, because the lost ones are taken out.
        for at in (0..events.len().min(self.clients.len())).rev() {
            let events = events[at];
            if events.is_empty() {
                continue;
            }
            let connection = &mut self.clients[at].connection;
            let mut lost = events.contains(PollFlags::OUT) && connection.flush().is_err();
            if events.contains(PollFlags::IN) {
                lost |= !matches!(connection.fill(), Ok(true));
                lost |= self.read_client(at).is_err();
            } else if events.intersects(PollFlags::HUP | PollFlags::ERR) {
                lost = true;
            }
            if lost {
                self.lose_client(at);
            }
        }
    }

    fn read_client(&mut self, at: usize) -> Result<(), ConnectionError> {
        // What was said before comes first.
        self.drain();
        loop {
            let Self {
                clients,
                guest,
                outgoing,
                said,
                work,
                ..
            } = self;
            let Client {
                id,
                connection,
                role,
                ..
            } = &mut clients[at];
            let frame = match connection.next_incoming()? {
                None => return Ok(()),
                Some(Incoming::Frame(frame)) => frame,
                Some(Incoming::Data {
                    session: WORKLOAD,
                    stream: stream @ Stream::Stdin,
                    bytes,
                }) => {
                    let session = match role {
                        Role::Attached { .. } if !work.input.is_owner(*id) => continue,
                        Role::Attached { .. } if !work.input.take(bytes.len()) => {
                            return Err(ConnectionError::Violation("input beyond its credit"));
                        }
                        Role::Attached { .. } => WORKLOAD,
                        Role::Exec { session } => *session,
                        Role::Leaving => continue,
                        _ => return Err(ConnectionError::Violation("input for nobody")),
                    };
                    match guest {
                        Guest::Connected(guest) if said.is_none() => {
                            guest.send_data(session, stream, bytes)?;
                        }
                        Guest::Gone if said.is_none() => {}
                        // It goes out with the rest, and is kept as long as that is.
                        _ => outgoing.push(Frame::Data {
                            session,
                            stream,
                            bytes: bytes.to_vec(),
                        }),
                    }
                    continue;
                }
                Some(Incoming::Data { .. }) => {
                    return Err(ConnectionError::Violation("not a client's frame"));
                }
            };
            self.client_said(at, frame)?;
            self.drain();
        }
    }

    fn client_said(&mut self, at: usize, frame: Frame) -> Result<(), ConnectionError> {
        match self.clients[at].role {
            Role::Asking => self.asking_said(at, &frame),
            Role::Attached { .. } => self.attached_said(at, frame),
            Role::Exec { session } if matches!(Client::command(&frame), Some(Command::Detach)) => {
                self.let_exec_go(at, session);
                Ok(())
            }
            Role::Exec { session } if client_may_say(&frame) => {
                self.exec_said(session, frame);
                Ok(())
            }
            // It did not know yet that it has all there is: the rest of that must reach it.
            Role::Leaving if client_may_say(&frame) => Ok(()),
            _ => Err(ConnectionError::Violation("not a client's frame")),
        }
    }

    fn asking_said(&mut self, at: usize, frame: &Frame) -> Result<(), ConnectionError> {
        let client = &mut self.clients[at];
        let command = match (client.postponed.take(), frame) {
            (Some(command), Frame::Descriptors { streams, .. }) => {
                client.descriptors = Some(client.connection.take_descriptors(*streams)?);
                command
            }
            (None, frame) if let Some(command) = Client::command(frame) => {
                client.heard();
                if command.awaits_descriptors() {
                    client.postponed = Some(command);
                    return Ok(());
                }
                command
            }
            _ => return Err(ConnectionError::Violation("not a command")),
        };
        self.obey(at, command);
        Ok(())
    }

    fn attached_said(&mut self, at: usize, frame: Frame) -> Result<(), ConnectionError> {
        if matches!(Client::command(&frame), Some(Command::Detach)) {
            self.let_go(at);
            self.observer.detached();
            return Ok(());
        }
        if !client_may_say(&frame) {
            return Err(ConnectionError::Violation("not a client's frame"));
        }
        let client = &mut self.clients[at];
        let id = client.id;
        let Role::Attached {
            owner,
            unread,
            muted,
        } = &mut client.role
        else {
            return Ok(());
        };
        match &frame {
            Frame::Credit { stream, bytes, .. } => {
                if let Some(at) = index(*stream) {
                    unread[at] = unread[at].saturating_sub(u64::from(*bytes));
                }
            }
            Frame::Eof { stream, .. } => match index(*stream) {
                Some(at) => {
                    let told = std::mem::replace(&mut muted[at], true);
                    // Whoever started it in the foreground is its reader, as with a pipe: the
                    // workload's next write fails, log or no log.
                    if *owner && !told {
                        self.say(frame);
                    }
                }
                None => self.end_input(id),
            },
            Frame::Signal { signal, .. } if !self.work.said.started && ENDING.contains(signal) => {
                self.interrupted = u8::try_from(*signal).ok();
                self.manual = true;
                self.stop();
            }
            Frame::Signal { signal, .. } => {
                let signal = u8::try_from(*signal).unwrap_or(0);
                self.send_signal(signal);
            }
            _ => self.say(frame),
        }
        Ok(())
    }

    /// The writer of the workload's input has no more.
    fn end_input(&mut self, client: u64) {
        if self.work.input.release(client) && self.stdin_once && !self.work.input.closed {
            self.work.input.closed = true;
            self.say(Frame::Eof {
                session: WORKLOAD,
                stream: Stream::Stdin,
            });
        }
    }

    fn exec_said(&mut self, session: u32, frame: Frame) {
        if let Frame::Credit { stream, bytes, .. } = &frame
            && let Some(at) = index(*stream)
            && let Some(exec) = self.execs.iter_mut().find(|e| e.session == session)
        {
            exec.outputs[at].granted(u64::from(*bytes));
        }
        self.say(renumbered(frame, session));
    }

    fn obey(&mut self, at: usize, command: Command) {
        let id = self.clients[at].id;
        if self.clients.len() > MAX_CLIENTS && command.stays() {
            self.clients[at].answer(&Answer::Failed(TOO_MANY.to_owned()));
            return;
        }
        match command {
            Command::Attach { stdin } => {
                self.clients[at].role = Role::attached(false);
                if std::mem::take(&mut self.work.direct) {
                    // There are two readers now.
                    self.say(Frame::Relay { session: WORKLOAD });
                }
                let (session, stream) = (WORKLOAD, Stream::Stdin);
                let input = &mut self.work.input;
                let frame = if stdin && input.claim(id) {
                    Frame::Credit {
                        session,
                        stream,
                        bytes: input.left(),
                    }
                } else {
                    Frame::Eof { session, stream }
                };
                // One that cannot be told is lost soon.
                let _ = self.clients[at].connection.send(&frame);
                self.observer.attached();
            }
            Command::Exec {
                spec,
                detach,
                timing,
                streams: _,
            } => self.start_exec(at, None, spec, (detach, timing)),
            Command::ExecCreate { spec } => {
                let answer = match self.refuses_exec(&spec) {
                    Some(why) => Answer::Failed(why.to_owned()),
                    None => match self.observer.exec_created(&spec) {
                        Some(id) => Answer::Made(id),
                        None => Answer::Failed("no exec can be made here".to_owned()),
                    },
                };
                self.clients[at].answer(&answer);
            }
            Command::ExecStart { id, detach, timing } => match self.observer.exec_spec(&id) {
                Ok(spec) => self.start_exec(at, Some(id), spec, (detach, timing)),
                Err(why) => self.clients[at].answer(&Answer::Failed(why.to_owned())),
            },
            Command::Execs => {
                self.clients[at].answer(&Answer::of_execs(self.observer.execs()));
            }
            Command::Detach => self.clients[at].role = Role::Leaving,
            Command::Signal(signal) => {
                let answer = if self.work.said.started {
                    self.send_signal(signal);
                    Answer::Done
                } else if ENDING.contains(&signal.into()) {
                    self.interrupted = Some(signal);
                    self.manual = true;
                    self.stop();
                    Answer::Done
                } else {
                    Answer::Failed(NOT_RUNNING.to_owned())
                };
                self.clients[at].answer(&answer);
            }
            Command::Stop { signal, timeout_ms } => {
                self.clients[at].role = Role::Stopper;
                self.begin_stop(signal, timeout_ms.map(Duration::from_millis));
            }
            Command::Ask(Request::Suspend | Request::Resume | Request::SetClock { .. }) => {
                let answer = Answer::Failed("nobody but the monitor asks for this".to_owned());
                self.clients[at].answer(&answer);
            }
            Command::Ask(request) => self.ask(at, request, false, None),
            Command::Hold => self.ask(at, Request::Freeze, true, None),
            Command::Save { .. } if self.is_saving() => {
                let answer = Answer::Failed("the container is being saved already".to_owned());
                self.clients[at].answer(&answer);
            }
            Command::Save { dir, about } => match serde_json::from_str(&about) {
                Ok(about) => self.ask(at, Request::Suspend, false, Some(Save { dir, about })),
                Err(error) => self.clients[at].answer(&Answer::Failed(error.to_string())),
            },
            Command::SetRestart(restart) => {
                self.observer.restart(restart);
                self.clients[at].answer(&Answer::Done);
            }
            Command::SetName(name) => {
                self.observer.renamed(name);
                self.clients[at].answer(&Answer::Done);
            }
            Command::Watch => self.clients[at].role = Role::Watcher,
        }
    }

    /// Whether the workload's side leaves unread what it is told.
    fn is_deaf(&self) -> bool {
        matches!(&self.guest, Guest::Connected(guest) if !guest.may_fill())
    }

    fn refuses_exec(&self, spec: &ProcessSpec) -> Option<&'static str> {
        match (self.work.said.started, self.paused) {
            (false, _) => Some(NOT_RUNNING),
            _ if self.execs.len() >= MAX_EXECS => Some("too many processes beside the workload"),
            _ if self.is_deaf() => Some(NO_ANSWER),
            // What the agent does itself is not frozen.
            (true, true) if spec.builtin.is_none() => {
                Some("the container is paused: unpause it first")
            }
            _ => None,
        }
    }

    /// Starts a process beside the workload: one that was made before, under its id, or a new one.
    fn start_exec(
        &mut self,
        at: usize,
        made: Option<String>,
        spec: Box<ProcessSpec>,
        (detach, timing): (bool, Timing),
    ) {
        let refused = self.refuses_exec(&spec);
        let client = &mut self.clients[at];
        if let Some(why) = refused {
            if let Some(id) = &made {
                self.observer.exec_ended(id, 126, false);
            }
            client.answer(&Answer::Failed(why.to_owned()));
            return;
        }
        let id = client.id;
        let session = self.number();
        let owner = match detach {
            true => Owner::Leaving(id),
            false => Owner::Client(id),
        };
        timing.mark(Phase::Monitor);
        self.execs.push(Exec {
            timing,
            ..Exec::new(session, owner)
        });
        self.clients[at].role = Role::Exec { session };
        self.pass_descriptors(at, session);
        // What we do ourselves is no exec to anybody.
        let program = spec.builtin.is_none().then(|| spec.clone());
        self.say(Frame::Exec { session, spec });
        // While it starts there is time to write that down.
        self.drain();
        let id = program.and_then(|spec| match made {
            Some(id) => {
                self.observer.exec_starts(&id, &spec);
                Some(id)
            }
            None => self.observer.exec_begins(&spec),
        });
        if let Some(exec) = self.execs.iter_mut().find(|e| e.session == session) {
            exec.id = id;
        }
    }

    /// Gives the workload's side what a client passed for the streams of its process.
    fn pass_descriptors(&mut self, at: usize, session: u32) {
        let Some(descriptors) = self.clients[at].descriptors.take() else {
            return;
        };
        // What was said before comes first.
        self.drain();
        if let Guest::Connected(guest) = &mut self.guest
            && self.backend.takes_descriptors()
        {
            // A broken guest is noticed when it is read.
            let _ = guest.send_descriptors(session, descriptors);
        }
    }

    fn ask(&mut self, at: usize, request: Request, holds: bool, save: Option<Save>) {
        let refused = match (&request, self.work.said.started, self.paused) {
            (_, false, _) => Some(NOT_RUNNING),
            _ if self.pending.len() >= MAX_REQUESTS || self.is_deaf() => Some(NO_ANSWER),
            (Request::Freeze, _, true) => Some("the container is paused already"),
            (Request::Thaw, _, false) => Some("the container is not paused"),
            _ => None,
        };
        if let Some(why) = refused {
            self.clients[at].answer(&Answer::Failed(why.to_owned()));
            return;
        }
        let number = self.number();
        let client = &mut self.clients[at];
        self.pending.push(Pending {
            number,
            client: Some(client.id),
            pauses: match request {
                Request::Freeze => Some(true),
                Request::Thaw => Some(false),
                _ => None,
            },
            holds,
            save,
            limits: match request {
                Request::Limit(limits) => Some(limits),
                _ => None,
            },
            due: Instant::now().checked_add(ANSWER_LIMIT),
        });
        client.role = Role::Asked;
        self.say(Frame::Request { number, request });
    }

    /// A signal for the workload. Those that are meant to end it rule a restart out.
    fn send_signal(&mut self, signal: u8) {
        if signal == 9 || signal == self.stop_signal {
            self.manual = true;
        }
        if signal == 9 {
            // Whatever the workload's side makes of it, this ends.
            self.stop();
            return;
        }
        self.signal(signal);
        self.observer.signalled(signal);
    }

    /// Sends the first signal of a stop; SIGKILL follows after so long (`None`: never).
    pub(super) fn begin_stop(&mut self, signal: u8, timeout: Option<Duration>) {
        self.manual = true;
        self.stopped = true;
        if !self.work.said.started {
            self.interrupted = Some(signal);
            self.stop();
            return;
        }
        self.cancel_saving();
        self.signal(signal);
        self.observer.signalled(signal);
        self.thaw();
        let due = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        // Two who stop it: the more impatient one counts.
        self.kill_at = [self.kill_at, due].into_iter().flatten().min();
    }

    /// A client leaves and means no harm.
    fn let_go(&mut self, at: usize) {
        let id = self.clients[at].id;
        self.work.input.release(id);
        self.clients[at].role = Role::Leaving;
    }

    /// The client of a process beside the workload leaves that to itself.
    fn let_exec_go(&mut self, at: usize, session: u32) {
        self.clients[at].role = Role::Leaving;
        if let Some(exec) = self.execs.iter_mut().find(|e| e.session == session) {
            exec.owner = Owner::Nobody;
            if let Some(id) = &exec.id {
                self.observer.exec_left(id);
            }
        }
    }

    /// A client's connection is of no use any more.
    pub(super) fn lose_client(&mut self, at: usize) {
        let client = self.clients.remove(at);
        match client.role {
            Role::Attached { owner, .. } => {
                self.end_input(client.id);
                if owner {
                    self.manual = true;
                    self.stop();
                }
            }
            Role::Exec { session } => {
                if let Some(exec) = self.execs.iter_mut().find(|e| e.session == session) {
                    exec.owner = Owner::Nobody;
                    self.say(Frame::Eof {
                        session,
                        stream: Stream::Stdin,
                    });
                    // What it says from now on is dropped.
                    self.say(Frame::Relay { session });
                }
            }
            Role::Holding => self.thaw(),
            _ => {}
        }
    }
}
