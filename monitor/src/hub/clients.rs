//! Frames of clients, and their coming and going.

use super::link::Guest;
use super::sessions::{Owner, renumbered};
use super::{Hub, MAX_UNANSWERED};
use crate::client::{Client, Role};
use crate::control::{Answer, Command};
use crate::rules::{WORKLOAD, is_client_frame};
use crate::streams::{Input, index};
use hullbox_protocol::{Frame, Incoming, Stream};
use hullbox_session::connection::ConnectionError;
use rustix::event::PollFlags;

/// Signals that end a guest that has not started its workload yet.
pub(super) const ENDING: [u32; 5] = [1, 2, 3, 9, 15];

impl Hub<'_> {
    /// Whether a client is read from now: not before there is room for what it sends.
    pub(super) fn may_read(&self, client: &Client) -> bool {
        let guest_has_room = match &self.link.guest {
            Guest::Connected(guest) => guest.has_room(),
            Guest::Awaited(_) => true,
            Guest::Gone => return !matches!(client.role, Role::Leaving),
        };
        let may_queue = self.link.unanswered() < MAX_UNANSWERED;
        match client.role {
            // A guest is never long in taking what it has credit for. All that they send goes to it.
            Role::Attached { .. } | Role::Exec { .. } => guest_has_room && may_queue,
            Role::Leaving => false,
            _ => client.connection.may_fill(),
        }
    }

    pub(super) fn serve_clients(&mut self, events: &[PollFlags]) {
        // From the end, because the lost ones are taken out.
        for at in (0..events.len().min(self.clients.list.len())).rev() {
            let events = events[at];
            if events.is_empty() {
                continue;
            }
            let connection = &mut self.clients.list[at].connection;
            let mut lost = events.contains(PollFlags::OUT) && connection.flush().is_err();
            if events.contains(PollFlags::IN) {
                lost |= !matches!(connection.fill(), Ok(true));
                lost |= self.read_client(at).is_err();
            } else if events.intersects(PollFlags::HUP | PollFlags::ERR) {
                lost = true;
            }
            if lost {
                self.drop_client(at);
            }
        }
    }

    fn read_client(&mut self, at: usize) -> Result<(), ConnectionError> {
        // What was queued before comes first.
        self.link.flush();
        loop {
            let client = &mut self.clients.list[at];
            let frame = match client.connection.next_incoming()? {
                None => return Ok(()),
                Some(Incoming::Frame(frame)) => frame,
                Some(Incoming::Data {
                    session: WORKLOAD,
                    stream: Stream::Stdin,
                    bytes,
                }) => {
                    let input = &mut self.sessions.workload.input;
                    if let Some(session) = input_session(&client.role, client.id, input, bytes)? {
                        self.link.send_input(session, bytes)?;
                    }
                    continue;
                }
                Some(Incoming::Data { .. }) => {
                    return Err(ConnectionError::Violation("not a client's frame"));
                }
            };
            self.on_client_frame(at, frame)?;
            self.link.flush();
        }
    }

    fn on_client_frame(&mut self, at: usize, frame: Frame) -> Result<(), ConnectionError> {
        match self.clients.list[at].role {
            Role::Asking => self.on_first_frames(at, &frame),
            Role::Attached { .. } => self.on_attached_frame(at, frame),
            Role::Exec { session } if matches!(Client::command(&frame), Some(Command::Detach)) => {
                self.detach_exec(at, session);
                Ok(())
            }
            Role::Exec { session } if is_client_frame(&frame) => {
                self.on_exec_client_frame(session, frame);
                Ok(())
            }
            // It did not know yet that it has all there is: the rest of that must reach it.
            Role::Leaving if is_client_frame(&frame) => Ok(()),
            _ => Err(ConnectionError::Violation("not a client's frame")),
        }
    }

    /// A client's command, and descriptors that belong to it.
    fn on_first_frames(&mut self, at: usize, frame: &Frame) -> Result<(), ConnectionError> {
        let client = &mut self.clients.list[at];
        let command = match (client.postponed.take(), frame) {
            (Some(command), Frame::Descriptors { streams, .. }) => {
                match client.connection.take_descriptors(*streams) {
                    Ok(descriptors) => client.descriptors = Some(descriptors),
                    Err(missing) => {
                        client.answer(&Answer::Failed(missing.to_string()));
                        return Ok(());
                    }
                }
                command
            }
            (None, frame) if let Some(command) = Client::command(frame) => {
                client.acknowledge();
                if command.awaits_descriptors() {
                    client.postponed = Some(command);
                    return Ok(());
                }
                command
            }
            _ => return Err(ConnectionError::Violation("not a command")),
        };
        self.execute(at, command);
        Ok(())
    }

    pub(super) fn on_attached_frame(
        &mut self,
        at: usize,
        frame: Frame,
    ) -> Result<(), ConnectionError> {
        if matches!(Client::command(&frame), Some(Command::Detach)) {
            self.detach_client(at);
            self.observer.detached();
            return Ok(());
        }
        if !is_client_frame(&frame) {
            return Err(ConnectionError::Violation("not a client's frame"));
        }
        let client = &mut self.clients.list[at];
        let id = client.id;
        let Role::Attached {
            owner,
            unread,
            closed,
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
                    let known = std::mem::replace(&mut closed[at], true);
                    // Whoever started it in the foreground is its reader, as with a pipe: the
                    // workload's next write fails, log or no log.
                    if *owner && !known {
                        self.link.send(frame);
                    }
                }
                None => self.end_input(id),
            },
            Frame::Signal { signal, .. }
                if !self.sessions.workload.reported.started && ENDING.contains(signal) =>
            {
                self.stopping.interrupted = u8::try_from(*signal).ok();
                self.stopping.manual = true;
                self.kill();
            }
            Frame::Signal { signal, .. } => {
                let signal = u8::try_from(*signal).unwrap_or(0);
                self.send_signal(signal);
            }
            _ => self.link.send(frame),
        }
        Ok(())
    }

    /// The writer of the workload's input has no more.
    fn end_input(&mut self, client: u64) {
        if self.sessions.workload.input.release(client)
            && self.sessions.workload.stdin_once
            && !self.sessions.workload.input.closed
        {
            self.sessions.workload.input.closed = true;
            self.link.send(Frame::Eof {
                session: WORKLOAD,
                stream: Stream::Stdin,
            });
        }
    }

    pub(super) fn on_exec_client_frame(&mut self, session: u32, frame: Frame) {
        if let Frame::Credit { stream, bytes, .. } = &frame
            && let Some(at) = index(*stream)
            && let Some(exec) = self.sessions.exec(session)
        {
            exec.outputs[at].granted(u64::from(*bytes));
        }
        self.link.send(renumbered(frame, session));
    }

    /// A client leaves and means no harm.
    fn detach_client(&mut self, at: usize) {
        let id = self.clients.list[at].id;
        self.sessions.workload.input.release(id);
        self.clients.list[at].role = Role::Leaving;
    }

    /// The client of a process beside the workload leaves that to itself.
    fn detach_exec(&mut self, at: usize, session: u32) {
        self.clients.list[at].role = Role::Leaving;
        if let Some(exec) = self.sessions.exec(session) {
            exec.owner = Owner::Nobody;
            if let Some(id) = &exec.id {
                self.observer.exec_left(id);
            }
        }
    }

    /// A client's connection is of no use any more.
    pub(super) fn drop_client(&mut self, at: usize) {
        let client = self.clients.list.remove(at);
        match client.role {
            Role::Attached { owner, .. } => {
                self.end_input(client.id);
                if owner {
                    self.stopping.manual = true;
                    self.kill();
                }
            }
            Role::Exec { session } => {
                if let Some(exec) = self.sessions.exec(session) {
                    exec.owner = Owner::Nobody;
                    self.link.send(Frame::Eof {
                        session,
                        stream: Stream::Stdin,
                    });
                    if self.backend.takes_descriptors() {
                        // Its output is dropped from now on.
                        self.link.send(Frame::Relay { session });
                    }
                }
            }
            Role::Holding => self.thaw(),
            _ => {}
        }
    }
}

/// The session that input of a client goes to; `None` where it is dropped.
fn input_session(
    role: &Role,
    client: u64,
    input: &mut Input,
    bytes: &[u8],
) -> Result<Option<u32>, ConnectionError> {
    match role {
        Role::Attached { .. } if !input.is_owner(client) => Ok(None),
        Role::Attached { .. } if !input.take(bytes.len()) => {
            Err(ConnectionError::Violation("input beyond its credit"))
        }
        Role::Attached { .. } => Ok(Some(WORKLOAD)),
        Role::Exec { session } => Ok(Some(*session)),
        Role::Leaving => Ok(None),
        _ => Err(ConnectionError::Violation("input for nobody")),
    }
}
