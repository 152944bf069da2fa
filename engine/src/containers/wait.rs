//! Waiting for what becomes of a container.

use super::talk::receive_answer;
use super::{ContainerError, Engine};
use crate::events::{Query, Subscription};
use crate::monitor::control::Answer;
use crate::state::{Record, StateError};
use hullbox_model::event::{EventFilter, Verb};
use std::os::fd::{AsFd, OwnedFd};

/// What is waited for, in the words of Docker's API.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Condition {
    /// It does not run, and is not about to be started again by its restart policy.
    #[default]
    NotRunning,
    /// Its workload ends, of the next run if it does not run now.
    NextExit,
    /// It is removed.
    Removed,
}

/// A wait that misses nothing from the moment it was made.
#[derive(Debug)]
pub struct Armed {
    condition: Condition,
    record: Record,
    events: Subscription,
    /// Gives [`Answer::Ended`], or ends with the monitor, of whose death by a signal there is no event.
    monitor: Option<OwnedFd>,
}

impl Engine {
    /// Prepares to wait: what happens from now on counts, whenever [`Self::wait_armed`] is called.
    ///
    /// # Errors
    /// [`ContainerError`].
    pub fn arm(&self, record: &Record, condition: Condition) -> Result<Armed, ContainerError> {
        let filter = EventFilter::of_container(&record.id);
        let events = self.events(Query {
            filter,
            ..Query::default()
        })?;
        Ok(Armed {
            condition,
            record: record.clone(),
            events,
            monitor: self.watch(record).ok(),
        })
    }

    /// Waits until the condition holds: the exit code.
    ///
    /// # Errors
    /// [`ContainerError`]; [`StateError::NotFound`] if the container was removed before it ended
    /// once more.
    pub fn wait_armed(&self, mut armed: Armed) -> Result<u8, ContainerError> {
        let record = armed.record.clone();
        if armed.condition == Condition::NotRunning {
            let monitor = armed.monitor.take();
            return self.wait_for_rest(&record, monitor, &mut armed.events);
        }
        let mut code = record.exit_code.unwrap_or(0);
        let mut monitor_ended = false;
        loop {
            while let Some(event) = armed.events.try_next()? {
                match (&event.action.verb, armed.condition) {
                    (Verb::Die, Condition::NextExit) => return Ok(event.exit_code().unwrap_or(0)),
                    (Verb::Die, _) => code = event.exit_code().unwrap_or(0),
                    (Verb::Destroy, Condition::Removed) => return Ok(code),
                    (Verb::Destroy, _) => return Err(StateError::NotFound(record.id).into()),
                    (Verb::Start, _) => armed.monitor = self.watch(&record).ok(),
                    _ => {}
                }
            }
            if std::mem::take(&mut monitor_ended) {
                // If it was killed, nobody has noted its container's end yet.
                self.state.wait_for_end(&record)?;
                self.recover()?;
                continue;
            }
            let monitor = armed.monitor.as_ref().map(AsFd::as_fd);
            let woken = armed.events.wait(monitor, None)?;
            if woken == crate::events::Woken::Other {
                (armed.monitor, monitor_ended) = (None, true);
            }
        }
    }

    /// Waits until a container's monitor has let go of it: its end is on record, or it is removed.
    ///
    /// # Errors
    /// The lock file cannot be used.
    pub fn wait_until_let_go(&self, record: &Record) -> Result<(), ContainerError> {
        Ok(self.state.wait_for_end(record)?)
    }

    fn wait_for_rest(
        &self,
        record: &Record,
        monitor: Option<OwnedFd>,
        events: &mut Subscription,
    ) -> Result<u8, ContainerError> {
        if let Some(Answer::Ended(code)) = monitor.and_then(|fd| receive_answer(fd, None).ok()) {
            return Ok(code);
        }
        // It does not run, or its monitor was killed.
        self.state.wait_for_end(record)?;
        self.recover()?;
        match self.state.get(&record.id) {
            Ok(record) => Ok(record.exit_code.unwrap_or(0)),
            Err(error) => {
                // Removed with its end, which the log of events has.
                let mut code = None;
                while let Some(event) = events.try_next()? {
                    code = event
                        .exit_code()
                        .filter(|_| event.action.verb == Verb::Die)
                        .or(code);
                }
                code.ok_or_else(|| error.into())
            }
        }
    }
}
