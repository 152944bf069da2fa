//! Deadlines, and the signals to this process.

use super::commands::NO_ANSWER;
use super::link::Guest;
use super::sessions::PendingRequest;
use super::timers::Deadline;
use super::{CAUSE_LIMIT, Hub, KILL_LIMIT, SAME_SIGNAL};
use crate::client::Client;
use crate::control::Answer;
use crate::entrance::Entrance;
use crate::health::Checker;
use crate::log::Log;
use crate::rules::Ending;
use crate::signals::Requested;
use hullbox_protocol::{Frame, Request};
use std::time::Instant;

impl Hub<'_> {
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let checks = self.may_check();
        let health = self.health.as_ref().filter(|_| checks);
        let health = health.and_then(Checker::due);
        let deadline = self.timers.deadline.map(|(at, _)| at);
        let log = self.log.as_ref().and_then(Log::due);
        let request = self
            .sessions
            .requests
            .iter()
            .filter_map(|request| request.due)
            .min();
        let command = self.clients.list.iter().filter_map(Client::due).min();
        let entrance = self.clients.entrance.as_ref().and_then(Entrance::due);
        [
            deadline,
            self.stopping.kill_at,
            self.timers.settled_at,
            health,
            self.network.due(),
            log,
            request,
            command,
            entrance,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Stops the container as `stop` does, or kills it where that was the signal. A second signal
    /// leaves it no time.
    pub(super) fn on_signal(&mut self) {
        let Some(requested) = self.signals.take() else {
            return;
        };
        let now = Instant::now();
        let first = *self.stopping.first_signal_at.get_or_insert(now);
        let again = now.duration_since(first) >= SAME_SIGNAL;
        if requested == Requested::Kill || again {
            self.stopping.manual = true;
            self.kill();
        } else if first == now {
            self.stop(self.stopping.signal, self.stopping.timeout);
        }
    }

    pub(super) fn run_timers(&mut self) -> Option<Ending> {
        let now = Instant::now();
        if self.stopping.kill_at.is_some_and(|at| now >= at) {
            self.kill();
        }
        if self.timers.settled_at.take_if(|at| now >= *at).is_some() {
            // Not doing so costs memory and nothing else.
            let _ = hullbox_host::sys::program::forget_code();
            hullbox_host::sys::program::trim_heap();
        }
        if let Some(log) = &mut self.log {
            log.write_begun(now);
        }
        self.expire_requests(now);
        if let Some(entrance) = &mut self.clients.entrance {
            entrance.wake(now);
        }
        // They have sent no command, so nothing is lost with them.
        self.clients
            .list
            .retain(|client| client.due().is_none_or(|due| now < due));
        self.check_health(now);
        let (_, what) = self.timers.deadline.filter(|(at, _)| now >= *at)?;
        match what {
            Deadline::Boot => Some(Ending::Died(Some(format!(
                "the guest did not come up within {} s",
                self.boot_limit().as_secs()
            )))),
            Deadline::Cause => Some(Ending::Died(None)),
            Deadline::Kill => {
                // What it would have died of.
                self.stopping.interrupted.get_or_insert(9);
                self.backend.kill();
                self.timers.deadline = Some((now + CAUSE_LIMIT, Deadline::Cause));
                None
            }
        }
    }

    /// Answers for requests that are overdue. A reply may come yet: what it means for the container
    /// counts.
    pub(super) fn expire_requests(&mut self, now: Instant) {
        let late = |request: &&mut PendingRequest| request.due.is_some_and(|due| now >= due);
        for request in self.sessions.requests.iter_mut().filter(late) {
            request.due = None;
            let asker = request.client.take();
            if let Some(client) = self.clients.list.iter_mut().find(|c| Some(c.id) == asker) {
                client.answer(&Answer::Failed(NO_ANSWER.to_owned()));
            }
        }
    }

    /// Kills the workload, and everything if that does not help.
    pub(super) fn kill(&mut self) {
        self.stopping.kill_at = None;
        self.cancel_saving();
        if std::mem::replace(&mut self.stopping.killing, true) {
            return;
        }
        let now = Instant::now();
        if self.sessions.workload.reported.started && matches!(self.link.guest, Guest::Connected(_))
        {
            self.signal(9);
            self.observer.signalled(9);
            self.thaw();
            // A connection that takes no frames is dealt with by the deadline.
            self.timers.deadline = Some((now + KILL_LIMIT, Deadline::Kill));
        } else {
            if !self.sessions.workload.reported.started {
                // What it would have died of.
                self.stopping.interrupted.get_or_insert(9);
            }
            self.backend.kill();
            self.timers.deadline = Some((now + CAUSE_LIMIT, Deadline::Cause));
        }
    }

    /// What is frozen takes no signal.
    pub(super) fn thaw(&mut self) {
        if self.paused {
            let number = self.sessions.next_number();
            self.sessions.requests.push(PendingRequest {
                number,
                client: None,
                pauses: Some(false),
                holds: false,
                network: None,
                save: None,
                limits: None,
                due: None,
            });
            let request = Request::Thaw;
            self.link.send(Frame::Request { number, request });
        }
    }
}
