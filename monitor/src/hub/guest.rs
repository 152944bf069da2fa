//! Frames of the workload's side.

use super::link::Guest;
use super::sessions::{Exec, Owner, renumbered};
use super::timers::Deadline;
use super::{CAUSE_LIMIT, Hub, SETTLED};
use crate::client::{Client, Role};
use crate::control::Answer;
use crate::health::Task;
use crate::rules::{
    Ending, GuestError, Meaning, WORKLOAD, check_exec, check_workload, clean, consume, one_line,
};
use crate::streams::{OUTPUTS, index};
use hullbox_host::clock::wall_clock_ns;
use hullbox_host::timing::{Phase, Timing};
use hullbox_protocol::{Failure, Frame, Incoming, Reply, Request, Started, Stream};
use hullbox_session::connection::{Connection, ConnectionError};
use rustix::event::PollFlags;
use std::io;
use std::time::Instant;

impl Hub<'_> {
    pub(super) fn serve_guest(&mut self, events: PollFlags) -> Option<Ending> {
        if events.is_empty() {
            return None;
        }
        if let Guest::Awaited(listener) = &self.link.guest {
            return match listener.accept() {
                Ok((stream, _)) => {
                    // The listener is dropped here: there is exactly one connection.
                    self.connect(stream.into())
                        .err()
                        .map(|error| Ending::Died(Some(error.to_string())))
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
                Err(error) => Some(Ending::Died(Some(format!("accept failed: {error}")))),
            };
        }
        match self.exchange(events) {
            Ok(None) => None,
            Ok(Some(ending)) => Some(ending),
            Err(GuestError::Violation(what)) => Some(Ending::Died(Some(format!(
                "the guest broke the protocol: {what}"
            )))),
            Err(GuestError::Connection(ConnectionError::Io(_))) => {
                self.on_guest_disconnect();
                None
            }
            Err(GuestError::Connection(error)) => Some(Ending::Died(Some(error.to_string()))),
        }
    }

    /// The connection ended without `Exited`: the backend is about to know why.
    fn on_guest_disconnect(&mut self) {
        self.link.guest = Guest::Gone;
        self.timers.deadline = Some((Instant::now() + CAUSE_LIMIT, Deadline::Cause));
    }

    fn exchange(&mut self, events: PollFlags) -> Result<Option<Ending>, GuestError> {
        // Out of its place while its frames, which lie in it, are dealt with.
        let Guest::Connected(mut guest) = std::mem::replace(&mut self.link.guest, Guest::Gone)
        else {
            return Ok(None);
        };
        // One that takes no more may still have sent why.
        let broken = events.contains(PollFlags::OUT) && guest.flush().is_err();
        let readable = events.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR);
        let mut open = true;
        let mut result = Ok(None);
        if broken || readable {
            open = guest.fill()?;
            result = self.on_frames(&mut guest);
        }
        self.link.guest = Guest::Connected(guest);
        if !open && matches!(result, Ok(None)) {
            self.on_guest_disconnect();
        }
        result
    }

    fn on_frames(&mut self, guest: &mut Connection) -> Result<Option<Ending>, GuestError> {
        while let Some(incoming) = guest.next_incoming()? {
            self.on_guest_contact();
            match incoming {
                Incoming::Data {
                    session,
                    stream,
                    bytes,
                } => self.on_output(session, stream, bytes)?,
                Incoming::Frame(Frame::Reply { number, reply }) => self.on_reply(number, reply)?,
                Incoming::Frame(frame) => {
                    let ending = match session_of(&frame) {
                        WORKLOAD => self.on_workload_frame(&frame)?,
                        session => self.on_exec_frame(session, frame).map(|()| None)?,
                    };
                    if ending.is_some() {
                        return Ok(ending);
                    }
                }
            }
        }
        Ok(None)
    }

    fn on_output(&mut self, session: u32, stream: Stream, bytes: &[u8]) -> Result<(), GuestError> {
        let violation = |what: &str| Err(GuestError::Violation(what.to_owned()));
        let Some(at) = index(stream) else {
            return violation("input from a guest");
        };
        if session != WORKLOAD {
            let Some(exec) = self.sessions.exec(session) else {
                return violation("output of no process");
            };
            if !exec.outputs[at].take(bytes.len()) {
                return violation("output beyond its credit");
            }
            if exec.reported.has_ended(stream) {
                return violation("output behind its end");
            }
            // Its start may be reported later than its output: see `mark_started`.
            if !std::mem::replace(&mut exec.has_output, true) && exec.reported.started {
                exec.timing.mark(Phase::FirstOutput);
            }
            match exec.owner {
                Owner::Client(id) => {
                    if let Some(client) = self.clients.find(id) {
                        client.send_output(stream, bytes)?;
                    }
                }
                Owner::Health => {
                    if let Some(health) = &mut self.health {
                        health.output(bytes);
                    }
                }
                Owner::Leaving(_) | Owner::Nobody => {}
            }
            return Ok(());
        }
        if !self.sessions.workload.outputs[at].take(bytes.len()) {
            return violation("output beyond its credit");
        }
        if self.sessions.workload.reported.has_ended(stream) {
            return violation("output behind its end");
        }
        if !std::mem::replace(&mut self.sessions.workload.has_output, true)
            && self.sessions.workload.reported.started
        {
            self.timing.mark(Phase::FirstOutput);
        }
        if let Some(log) = &mut self.log {
            log.add(stream, bytes);
        }
        for client in &mut self.clients.list {
            if let Role::Attached { unread, closed, .. } = &mut client.role
                && !closed[at]
            {
                unread[at] += bytes.len() as u64;
                client.send_output(stream, bytes)?;
            }
        }
        Ok(())
    }

    fn on_workload_frame(&mut self, frame: &Frame) -> Result<Option<Ending>, GuestError> {
        match check_workload(
            frame,
            &mut self.sessions.workload.reported,
            &mut self.sessions.workload.hello_received,
        )? {
            Meaning::Keep => {
                consume(frame, self.timing, self.debug);
                return Ok(None);
            }
            Meaning::Started(started) => {
                self.sessions.workload.reported.started = true;
                self.timers.settled_at = Some(Instant::now() + SETTLED);
                if let Some(since_us) = since_rooted_us(&started) {
                    self.timing.mark_ago(Phase::Rootfs, since_us);
                }
                mark_started(self.timing, self.sessions.workload.has_output);
                self.observer.started(&started, self.backend.begun());
                if let Some(health) = &mut self.health {
                    let report = health.workload_started(Instant::now());
                    self.observer.health(report);
                }
                for client in &mut self.clients.list {
                    if matches!(client.role, Role::Starter) {
                        client.send_timing(self.timing);
                        client.answer(&Answer::Done);
                    }
                }
            }
            Meaning::Credit(bytes) => {
                self.sessions.workload.input.grant(bytes);
                return Ok(None);
            }
            Meaning::Forward => {
                if let Frame::Eof {
                    stream: Stream::Stdin,
                    ..
                } = frame
                {
                    self.sessions.workload.input.closed = true;
                }
            }
            Meaning::Oom => {
                self.observer.oom();
                return Ok(None);
            }
            Meaning::End(ending) => return Ok(Some(ending)),
        }
        for client in &mut self.clients.list {
            if matches!(client.role, Role::Attached { .. }) {
                client.send(frame)?;
            }
        }
        Ok(None)
    }

    /// Passes credit for input on to its writers, in one sum for all that was granted since they had
    /// room for a frame.
    pub(super) fn pass_credit(&mut self) {
        let clients = &mut self.clients.list;
        let mut grant = |id: u64, credit: &mut u32| {
            let Some(client) = clients.iter_mut().find(|c| c.id == id) else {
                return;
            };
            if let Some(input) = &mut client.pipes.input {
                input.credit = input.credit.saturating_add(std::mem::take(credit));
            } else if client.connection.has_room() {
                let credit = Frame::Credit {
                    session: WORKLOAD,
                    stream: Stream::Stdin,
                    bytes: std::mem::take(credit),
                };
                // One that cannot be reached is dropped soon.
                let _ = client.connection.send(&credit);
            }
        };
        if let Some((writer, ungranted)) = self.sessions.workload.input.ungranted() {
            grant(writer, ungranted);
        }
        for exec in self
            .sessions
            .execs
            .iter_mut()
            .filter(|exec| exec.credit > 0)
        {
            match exec.owner {
                Owner::Client(id) => grant(id, &mut exec.credit),
                _ => exec.credit = 0,
            }
        }
    }

    /// A frame about a process beside the workload, for whose it is.
    fn on_exec_frame(&mut self, session: u32, mut frame: Frame) -> Result<(), GuestError> {
        let Some(at) = self
            .sessions
            .execs
            .iter()
            .position(|e| e.session == session)
        else {
            return Err(GuestError::Violation("a frame about no process".to_owned()));
        };
        check_exec(&frame, &mut self.sessions.execs[at].reported)?;
        if let Frame::Credit { bytes, .. } = frame {
            let exec = &mut self.sessions.execs[at];
            exec.credit = exec.credit.saturating_add(bytes);
            return Ok(());
        }
        let over = matches!(frame, Frame::Exited { .. } | Frame::Failed { .. });
        match &mut frame {
            Frame::Started { .. } => {
                self.sessions.execs[at].reported.started = true;
                mark_started(
                    &self.sessions.execs[at].timing,
                    self.sessions.execs[at].has_output,
                );
                if let (Some(id), Frame::Started { started, .. }) =
                    (&self.sessions.execs[at].id, &frame)
                {
                    self.observer.exec_runs(id, started.pid);
                }
            }
            Frame::Exited { status, .. } => {
                if let Some(id) = &self.sessions.execs[at].id {
                    self.observer.exec_ended(id, status.exit_code(), true);
                }
            }
            Frame::Failed { failure, .. } => {
                *failure = clean(failure);
                if let Some(id) = &self.sessions.execs[at].id {
                    self.observer.exec_ended(id, failure.exit_code(), false);
                }
            }
            _ => {}
        }
        let owner = self.sessions.execs[at].owner;
        let timing = self.sessions.execs[at].timing.clone();
        // Whoever leaves when it runs waits for that: a stream may end before.
        let ran = over || matches!(frame, Frame::Started { .. });
        if matches!(owner, Owner::Leaving(_)) && !ran {
            return Ok(());
        }
        if over {
            timing.mark(Phase::Exit);
            self.sessions.execs.remove(at);
        }
        match owner {
            Owner::Client(id) | Owner::Leaving(id) => {
                let leaving = matches!(owner, Owner::Leaving(_));
                if let Some(client) = self.clients.find(id) {
                    if over || leaving {
                        client.send_timing(&timing);
                    }
                    client.send(&renumbered(frame, WORKLOAD))?;
                    if over || leaving {
                        client.role = Role::Leaving;
                    }
                }
                if leaving && let Some(exec) = self.sessions.execs.get_mut(at).filter(|_| !over) {
                    exec.owner = Owner::Nobody;
                }
            }
            Owner::Health => self.on_health_frame(&frame),
            Owner::Nobody => {}
        }
        Ok(())
    }

    fn on_reply(&mut self, number: u32, reply: Reply) -> Result<(), GuestError> {
        if let Some(again) = self.clock.as_mut().and_then(|c| c.answered(number)) {
            if again {
                self.set_guest_clock();
            }
            return Ok(());
        }
        let Some(at) = self
            .sessions
            .requests
            .iter()
            .position(|p| p.number == number)
        else {
            return Err(GuestError::Violation("an answer to nothing".to_owned()));
        };
        let mut pending = self.sessions.requests.remove(at);
        let reply = match (pending.save.take(), reply) {
            (Some(save), Reply::Done) => match self.save(save, pending.client) {
                // Its client is answered when it is done.
                Ok(()) => return Ok(()),
                Err(why) => Reply::Failed(why),
            },
            (_, reply) => reply,
        };
        if let (Some(paused), Reply::Done) = (pending.pauses, &reply)
            && self.paused != paused
        {
            self.paused = paused;
            self.observer.paused(paused);
        }
        let reply = match (pending.network.take(), pending.client) {
            (Some(change), client) => match self.on_network_change(change, client, reply) {
                Some(reply) => reply,
                // Its client is answered when it is in the network.
                None => return Ok(()),
            },
            (None, _) => reply,
        };
        if let (Some(limits), Reply::Done) = (&pending.limits, &reply) {
            self.observer.limited(limits);
        }
        let Some(client) = self
            .clients
            .list
            .iter_mut()
            .find(|c| Some(c.id) == pending.client)
        else {
            if pending.holds && reply == Reply::Done {
                self.thaw();
            }
            return Ok(());
        };
        let holds = pending.holds && reply == Reply::Done;
        client.answer(&match reply {
            Reply::Done => Answer::Done,
            Reply::Failed(why) => Answer::Failed(one_line(&why)),
            Reply::Usage(usage) => Answer::Usage(usage, self.backend.usage()),
            Reply::Processes(mut processes) => {
                for process in &mut processes {
                    process.command = one_line(&process.command);
                    process.tty = one_line(&process.tty);
                }
                Answer::Processes(processes)
            }
        });
        if holds {
            client.role = Role::Holding;
        }
        Ok(())
    }

    /// Sets the guest's clock.
    pub(super) fn set_guest_clock(&mut self) {
        let number = self.sessions.next_number();
        if let Some(clock) = &mut self.clock {
            clock.tells(number);
            let wall_clock_ns = wall_clock_ns();
            let request = Request::SetClock { wall_clock_ns };
            self.link.send(Frame::Request { number, request });
        }
    }

    /// A workload that is paused, saved or dying is not to blame for what it does not answer.
    pub(super) fn may_check(&self) -> bool {
        !self.paused && !self.stopping.killing && !self.is_saving()
    }

    /// Starts a check that is due, or ends one that takes too long.
    pub(super) fn check_health(&mut self, now: Instant) {
        // Nor does the time count.
        let held = self.paused || self.is_saving();
        if let Some(health) = &mut self.health {
            health.hold(held, now);
        }
        if !self.may_check() {
            return;
        }
        match self.health.as_mut().and_then(|health| health.task(now)) {
            None => {}
            Some(Task::Kill(session)) => self.link.send(Frame::Signal { session, signal: 9 }),
            Some(Task::Run(spec)) => {
                let session = self.sessions.next_number();
                self.sessions.execs.push(Exec::new(session, Owner::Health));
                if let Some(health) = &mut self.health {
                    health.running(session, now);
                }
                self.link.send(Frame::Exec { session, spec });
            }
        }
    }

    fn on_health_frame(&mut self, frame: &Frame) {
        let result: Result<u8, &Failure> = match frame {
            Frame::Exited { status, .. } => Ok(status.exit_code()),
            Frame::Failed { failure, .. } => Err(failure),
            _ => return,
        };
        // What ended with the container is no result.
        if let Some(health) = self.health.as_mut().filter(|_| !self.stopping.killing) {
            let report = health.ended(result, Instant::now());
            self.observer.health(report);
        }
    }

    /// Gives the workload, and processes that nobody listens to, the credit that is due.
    pub(super) fn grant(&mut self) {
        let mut grants = Vec::new();
        for (at, stream) in OUTPUTS.into_iter().enumerate() {
            let unread = self
                .clients
                .list
                .iter()
                .map(|c| Client::unread(c, at))
                .max();
            if let Some(bytes) = self.sessions.workload.outputs[at].grant(unread.unwrap_or(0)) {
                grants.push((WORKLOAD, stream, bytes));
            }
            for exec in &mut self.sessions.execs {
                let passed_on = matches!(exec.owner, Owner::Client(_));
                if !passed_on && let Some(bytes) = exec.outputs[at].grant(0) {
                    grants.push((exec.session, stream, bytes));
                }
            }
        }
        for (session, stream, bytes) in grants {
            self.link.send(Frame::Credit {
                session,
                stream,
                bytes,
            });
        }
    }
}

/// How long before its program ran a process had its root, if it tells.
fn since_rooted_us(started: &Started) -> Option<u64> {
    (started.rooted_us > 0).then(|| started.uptime_us.saturating_sub(started.rooted_us))
}

/// What has written something was started before.
fn mark_started(timing: &Timing, spoke: bool) {
    timing.mark(Phase::Exec);
    if spoke {
        timing.mark(Phase::FirstOutput);
    }
}

/// Which process a frame is about; those about none count as the workload's.
const fn session_of(frame: &Frame) -> u32 {
    match frame {
        Frame::Started { session, .. }
        | Frame::Failed { session, .. }
        | Frame::Exited { session, .. }
        | Frame::Eof { session, .. }
        | Frame::Credit { session, .. } => *session,
        _ => WORKLOAD,
    }
}
