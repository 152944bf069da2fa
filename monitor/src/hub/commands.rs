//! Commands of clients.

use super::clients::ENDING;
use super::link::Guest;
use super::sessions::{Exec, Owner, PendingRequest, Save};
use super::{ANSWER_LIMIT, Hub, MAX_CLIENTS, MAX_EXECS, MAX_REQUESTS};
use crate::client::Role;
use crate::control::{Answer, Command};
use crate::pipes::ClientPipes;
use crate::rules::WORKLOAD;
use hullbox_host::timing::{Phase, Timing};
use hullbox_protocol::{Frame, ProcessSpec, Request, Stream};
use std::time::{Duration, Instant};

const NOT_RUNNING: &str = "the container is not running yet";
pub(super) const NO_ANSWER: &str = "the container does not answer";
const TOO_MANY: &str = "too many commands are connected to the container";

impl Hub<'_> {
    pub(super) fn execute(&mut self, at: usize, command: Command) {
        let id = self.clients.list[at].id;
        if self.clients.list.len() > MAX_CLIENTS && command.stays() {
            self.clients.list[at].answer(&Answer::Failed(TOO_MANY.to_owned()));
            return;
        }
        match command {
            Command::Attach { stdin } => {
                self.clients.list[at].role = Role::attached(false);
                if std::mem::take(&mut self.sessions.workload.direct) {
                    // There are two readers now.
                    self.link.send(Frame::Relay { session: WORKLOAD });
                }
                let (session, stream) = (WORKLOAD, Stream::Stdin);
                let input = &mut self.sessions.workload.input;
                let frame = if stdin && input.claim(id) {
                    Frame::Credit {
                        session,
                        stream,
                        bytes: input.left(),
                    }
                } else {
                    Frame::Eof { session, stream }
                };
                // One that cannot be reached is dropped soon.
                let _ = self.clients.list[at].connection.send(&frame);
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
                self.clients.list[at].answer(&answer);
            }
            Command::ExecStart { id, detach, timing } => match self.observer.exec_spec(&id) {
                Ok(spec) => self.start_exec(at, Some(id), spec, (detach, timing)),
                Err(why) => self.clients.list[at].answer(&Answer::Failed(why.to_owned())),
            },
            Command::Execs => {
                self.clients.list[at].answer(&Answer::of_execs(self.observer.execs()));
            }
            Command::Detach => self.clients.list[at].role = Role::Leaving,
            Command::Signal(signal) => {
                let answer = if self.sessions.workload.reported.started {
                    self.send_signal(signal);
                    Answer::Done
                } else if ENDING.contains(&signal.into()) {
                    self.stopping.interrupted = Some(signal);
                    self.stopping.manual = true;
                    self.kill();
                    Answer::Done
                } else {
                    Answer::Failed(NOT_RUNNING.to_owned())
                };
                self.clients.list[at].answer(&answer);
            }
            Command::Stop { signal, timeout_ms } => {
                self.clients.list[at].role = Role::Stopper;
                self.stop(signal, timeout_ms.map(Duration::from_millis));
            }
            Command::Ask(
                Request::Suspend
                | Request::Resume
                | Request::SetClock { .. }
                | Request::Connect { .. }
                | Request::Disconnect { .. },
            ) => {
                let answer = Answer::Failed("nobody but the monitor asks for this".to_owned());
                self.clients.list[at].answer(&answer);
            }
            Command::Ask(request) => self.ask(at, request, false, None),
            Command::Hold => self.ask(at, Request::Freeze, true, None),
            Command::Save { .. } if self.is_saving() => {
                let answer = Answer::Failed("the container is being saved already".to_owned());
                self.clients.list[at].answer(&answer);
            }
            Command::Save { dir, about } => match serde_json::from_str(&about) {
                Ok(about) => self.ask(at, Request::Suspend, false, Some(Save { dir, about })),
                Err(error) => self.clients.list[at].answer(&Answer::Failed(error.to_string())),
            },
            Command::Connect {
                membership,
                interface,
                names,
            } => {
                let membership = membership.map(|membership| *membership);
                self.connect_network(at, membership, *interface, names);
            }
            Command::Disconnect { network, names } => {
                self.disconnect_network(at, network.as_deref(), names);
            }
            Command::Refused => {
                self.clients.list[at].role = Role::Asked;
                self.network.ask_for_counts(id);
            }
            Command::SetRestart(restart) => {
                self.observer.restart(restart);
                self.clients.list[at].answer(&Answer::Done);
            }
            Command::SetName { name, dns } => {
                self.observer.renamed(name, &dns);
                self.clients.list[at].role = Role::Asked;
                self.network.rename(id, &dns);
            }
            Command::Watch => self.clients.list[at].role = Role::Watcher,
        }
    }

    fn refuses_exec(&self, spec: &ProcessSpec) -> Option<&'static str> {
        match (self.sessions.workload.reported.started, self.paused) {
            (false, _) => Some(NOT_RUNNING),
            _ if self.sessions.execs.len() >= MAX_EXECS => {
                Some("too many processes beside the workload")
            }
            _ if self.link.is_stalled() => Some(NO_ANSWER),
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
        let client = &mut self.clients.list[at];
        if let Some(why) = refused {
            if let Some(id) = &made {
                self.observer.exec_ended(id, 126, false);
            }
            client.answer(&Answer::Failed(why.to_owned()));
            return;
        }
        let id = client.id;
        let session = self.sessions.next_number();
        let owner = match detach {
            true => Owner::Leaving(id),
            false => Owner::Client(id),
        };
        timing.mark(Phase::Monitor);
        self.sessions.execs.push(Exec {
            timing,
            ..Exec::new(session, owner)
        });
        self.clients.list[at].role = Role::Exec { session };
        self.pass_descriptors(at, session);
        // What we do ourselves is no exec to anybody.
        let program = spec.builtin.is_none().then(|| spec.clone());
        self.link.send(Frame::Exec { session, spec });
        // While it starts there is time to write that down.
        self.link.flush();
        let id = program.and_then(|spec| match made {
            Some(id) => {
                self.observer.exec_starts(&id, &spec);
                Some(id)
            }
            None => self.observer.exec_begins(&spec),
        });
        if let Some(exec) = self.sessions.exec(session) {
            exec.id = id;
        }
    }

    /// Joins what a client passed to the streams of its process: on the workload's side, or here.
    fn pass_descriptors(&mut self, at: usize, session: u32) {
        let Some(descriptors) = self.clients.list[at].descriptors.take() else {
            return;
        };
        if !self.backend.takes_descriptors() {
            self.clients.list[at].pipes = ClientPipes::of(descriptors);
            return;
        }
        // What was queued before comes first.
        self.link.flush();
        if let Guest::Connected(guest) = &mut self.link.guest {
            // A broken guest is noticed when it is read.
            let _ = guest.send_descriptors(session, descriptors);
        }
    }

    /// Why a request cannot be passed on at the moment.
    pub(super) fn refuses(&self, request: &Request) -> Option<&'static str> {
        match (
            request,
            self.sessions.workload.reported.started,
            self.paused,
        ) {
            (_, false, _) => Some(NOT_RUNNING),
            _ if self.sessions.requests.len() >= MAX_REQUESTS || self.link.is_stalled() => {
                Some(NO_ANSWER)
            }
            (Request::Freeze, _, true) => Some("the container is paused already"),
            (Request::Thaw, _, false) => Some("the container is not paused"),
            _ => None,
        }
    }

    fn ask(&mut self, at: usize, request: Request, holds: bool, save: Option<Save>) {
        if let Some(why) = self.refuses(&request) {
            self.clients.list[at].answer(&Answer::Failed(why.to_owned()));
            return;
        }
        let number = self.sessions.next_number();
        let client = &mut self.clients.list[at];
        self.sessions.requests.push(PendingRequest {
            number,
            client: Some(client.id),
            pauses: match request {
                Request::Freeze => Some(true),
                Request::Thaw => Some(false),
                _ => None,
            },
            holds,
            network: None,
            save,
            limits: match request {
                Request::Limit(limits) => Some(limits),
                _ => None,
            },
            due: Instant::now().checked_add(ANSWER_LIMIT),
        });
        client.role = Role::Asked;
        self.link.send(Frame::Request { number, request });
    }

    /// A signal for the workload. Those that are meant to end it rule a restart out.
    pub(super) fn send_signal(&mut self, signal: u8) {
        if signal == 9 || signal == self.stopping.signal {
            self.stopping.manual = true;
        }
        if signal == 9 {
            // Whatever the workload's side makes of it, this ends.
            self.kill();
            return;
        }
        self.signal(signal);
        self.observer.signalled(signal);
    }

    /// Sends the first signal of a stop; SIGKILL follows after so long (`None`: never).
    pub(super) fn stop(&mut self, signal: u8, timeout: Option<Duration>) {
        self.stopping.manual = true;
        self.stopping.stopped = true;
        if !self.sessions.workload.reported.started {
            self.stopping.interrupted = Some(signal);
            self.kill();
            return;
        }
        self.cancel_saving();
        self.signal(signal);
        self.observer.signalled(signal);
        self.thaw();
        let due = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        // Two who stop it: the more impatient one counts.
        self.stopping.kill_at = [self.stopping.kill_at, due].into_iter().flatten().min();
    }
}
