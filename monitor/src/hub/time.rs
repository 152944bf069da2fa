//! What the clock and the signals to this process say.

use super::clients::NO_ANSWER;
use super::sessions::Pending;
use super::{CAUSE_LIMIT, Deadline, Guest, Hub, KILL_LIMIT, SAME_SIGNAL};
use crate::monitor::client::Client;
use crate::monitor::control::Answer;
use crate::monitor::health::Checker;
use crate::monitor::log::Log;
use crate::monitor::rules::Ending;
use crate::monitor::signals::Told;
use hullbox_protocol::{Frame, Request};
use std::time::Instant;

impl Hub<'_> {
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let checks = self.may_check();
        let health = self.health.as_ref().filter(|_| checks);
        let health = health.and_then(Checker::due);
        let deadline = self.deadline.map(|(at, _)| at);
        let log = self.log.as_ref().and_then(Log::due);
        let request = self.pending.iter().filter_map(|request| request.due).min();
        let word = self.clients.iter().filter_map(Client::due).min();
        [
            deadline,
            self.kill_at,
            self.settled_at,
            health,
            log,
            request,
            word,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Stops the container as `stop` does, or kills it where that was said; told once more, it has
    /// no time left.
    pub(super) fn obey_signal(&mut self) {
        let Some(told) = self.signals.take() else {
            return;
        };
        let now = Instant::now();
        let first = *self.told_at.get_or_insert(now);
        let again = now.duration_since(first) >= SAME_SIGNAL;
        if told == Told::Kill || again {
            self.manual = true;
            self.stop();
        } else if first == now {
            self.begin_stop(self.stop_signal, self.stop_timeout);
        }
    }

    pub(super) fn keep_time(&mut self) -> Option<Ending> {
        let now = Instant::now();
        if self.kill_at.is_some_and(|at| now >= at) {
            self.stop();
        }
        if self.settled_at.take_if(|at| now >= *at).is_some() {
            // Not doing so costs memory and nothing else.
            let _ = hullbox_host::sys::program::forget_code();
        }
        if let Some(log) = &mut self.log {
            log.write_begun(now);
        }
        self.check_requests(now);
        // They have said nothing, so nothing is lost with them.
        self.clients
            .retain(|client| client.due().is_none_or(|due| now < due));
        self.check_health(now);
        let (_, what) = self.deadline.filter(|(at, _)| now >= *at)?;
        match what {
            Deadline::Boot => Some(Ending::Died(Some(format!(
                "the guest did not come up within {} s",
                self.boot_limit().as_secs()
            )))),
            Deadline::Cause => Some(Ending::Died(None)),
            Deadline::Kill => {
                // What it would have died of.
                self.interrupted.get_or_insert(9);
                self.backend.kill();
                self.deadline = Some((now + CAUSE_LIMIT, Deadline::Cause));
                None
            }
        }
    }

    /// Has nobody wait for ever for an answer. It may come yet: what it says of the container counts.
    pub(super) fn check_requests(&mut self, now: Instant) {
        let late = |request: &&mut Pending| request.due.is_some_and(|due| now >= due);
        for request in self.pending.iter_mut().filter(late) {
            request.due = None;
            let asker = request.client.take();
            if let Some(client) = self.clients.iter_mut().find(|c| Some(c.id) == asker) {
                client.answer(&Answer::Failed(NO_ANSWER.to_owned()));
            }
        }
    }

    /// Kills the workload, and everything if that does not help.
    pub(super) fn stop(&mut self) {
        self.kill_at = None;
        self.cancel_saving();
        if std::mem::replace(&mut self.stopping, true) {
            return;
        }
        let now = Instant::now();
        if self.work.said.started && matches!(self.guest, Guest::Connected(_)) {
            self.signal(9);
            self.observer.signalled(9);
            self.thaw();
            // A connection that takes no frames is dealt with by the deadline.
            self.deadline = Some((now + KILL_LIMIT, Deadline::Kill));
        } else {
            if !self.work.said.started {
                // What it would have died of.
                self.interrupted.get_or_insert(9);
            }
            self.backend.kill();
            self.deadline = Some((now + CAUSE_LIMIT, Deadline::Cause));
        }
    }

    /// What is frozen takes no signal.
    pub(super) fn thaw(&mut self) {
        if self.paused {
            let number = self.number();
            self.pending.push(Pending {
                number,
                client: None,
                pauses: Some(false),
                holds: false,
                save: None,
                limits: None,
                due: None,
            });
            let request = Request::Thaw;
            self.say(Frame::Request { number, request });
        }
    }
}
