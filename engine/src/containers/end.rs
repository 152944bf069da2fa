//! Seeing containers start and end, whatever state their monitors are in.

use super::talk::Contact;
use super::{ContainerError, Engine};
use crate::events::{Query, Woken};
use crate::monitor::KILL_NOW;
use crate::monitor::control::Command;
use crate::paths::short_id;
use crate::state::{Phase, Record, StateError};
use hullbox_model::event::{EventFilter, Verb, attribute};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

/// How long a monitor may take to kill its container after [`KILL_NOW`].
const KILL_LIMIT: Duration = Duration::from_secs(10);
/// How long a container may take to be gone whose end is decided, cleaning up included.
const END_LIMIT: Duration = Duration::from_secs(30);
/// How long the kernel may take over a killed monitor. A device that does not answer, below a file
/// that it has open, keeps it for ever.
const DEATH_LIMIT: Duration = Duration::from_secs(10);
/// How long a container may take to start, a guest that has to boot after all included.
const START_LIMIT: Duration = Duration::from_secs(200);

impl Engine {
    /// Waits while somebody else is starting the container.
    ///
    /// # Errors
    /// [`ContainerError`].
    pub fn wait_for_start(&self, record: &Record) -> Result<(), ContainerError> {
        self.wait_for_start_within(record, START_LIMIT)
    }

    fn wait_for_start_within(
        &self,
        record: &Record,
        limit: Duration,
    ) -> Result<(), ContainerError> {
        let starts = |record: &Record| record.phase == Phase::Starting;
        if !starts(&self.state.get(&record.id)?) {
            return Ok(());
        }
        let deadline = Instant::now() + limit;
        let mut events = self.events(Query {
            filter: EventFilter::of_container(&record.id),
            ..Query::default()
        })?;
        loop {
            // What comes after this wakes us.
            while events.try_next()?.is_some() {}
            let record = self.state.get(&record.id)?;
            let monitor = self.monitor_of(&record)?;
            if !starts(&record) || !self.state.is_alive(&record)? {
                return Ok(());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            match events.wait(monitor.as_ref().map(AsFd::as_fd), Some(left))? {
                Woken::Changed => {}
                Woken::Timeout => return Err(no_answer(&record)),
                Woken::Other => {
                    self.state.wait_for_end_within(&record, left)?;
                    return Ok(());
                }
            }
        }
    }

    /// Has the monitor stop the container, and waits until it has.
    pub(super) fn stop_by(&self, record: &Record, stop: &Command) -> Result<(), ContainerError> {
        let mut contact = self.try_stop(record, stop)?;
        if contact == Contact::NotRunning {
            if !self.state.get(&record.id)?.is_active() {
                return Ok(());
            }
            // Its monitor does not listen yet.
            contact = match self.wait_for_start_within(record, KILL_LIMIT) {
                Err(ContainerError::NoAnswer(_)) => Contact::Unresponsive,
                started => started.and_then(|()| self.try_stop(record, stop))?,
            };
        }
        match contact {
            Contact::Unresponsive => {
                self.end_monitor(record)?;
                self.note(record, Verb::Stop);
                Ok(())
            }
            Contact::Answered(()) | Contact::NotRunning => self.see_it_end(record),
        }
    }

    /// Sends a stop. A monitor that ends while it is asked has done what it is asked for.
    fn try_stop(&self, record: &Record, stop: &Command) -> Result<Contact<()>, ContainerError> {
        match self.try_command(record, stop) {
            Err(ContainerError::Talk { .. }) => Ok(Contact::Answered(())),
            contact => contact,
        }
    }

    /// Has the monitor kill the container, and waits until it has.
    pub(super) fn kill(&self, record: &Record) -> Result<(), ContainerError> {
        let sent = match self.monitor_of(record)? {
            Some(monitor) => pidfd_send_signal(monitor, KILL_NOW),
            None => Ok(()),
        };
        // One that ended meanwhile is as good.
        let gone = |error| !matches!(error, rustix::io::Errno::SRCH);
        sent.or_else(|error| if gone(error) { Err(error) } else { Ok(()) })
            .map_err(|error| cannot_end(record, error.into()))?;
        if self.state.wait_for_end_within(record, KILL_LIMIT)? {
            return Ok(());
        }
        self.end_monitor(record)
    }

    /// Waits for an end that was decided.
    pub(super) fn see_it_end(&self, record: &Record) -> Result<(), ContainerError> {
        if self.state.wait_for_end_within(record, END_LIMIT)? {
            return Ok(());
        }
        self.end_monitor(record)
    }

    /// Kills a monitor that does not answer, its container with it, and cleans up what that leaves.
    pub(super) fn end_monitor(&self, record: &Record) -> Result<(), ContainerError> {
        let record = match self.state.get(&record.id) {
            // It answered after all.
            Err(StateError::NotFound(_)) => return Ok(()),
            other => other?,
        };
        if let Some(monitor) = self.monitor_of(&record)? {
            if record.is_active() {
                let signal = Signal::KILL.as_raw().to_string();
                let event = super::note::happened(&record, Verb::Kill);
                crate::events::emit_all(&self.roots, &[event.with(attribute::SIGNAL, signal)]);
            }
            // One that ended meanwhile is as good.
            let _ = pidfd_send_signal(monitor, Signal::KILL);
        }
        if !self.state.wait_for_end_within(&record, DEATH_LIMIT)? {
            let why = "its killed monitor does not end";
            return Err(cannot_end(
                &record,
                io::Error::new(io::ErrorKind::TimedOut, why),
            ));
        }
        self.recover()
    }

    /// The process that runs the container, or an errand in it.
    pub(super) fn monitor_of(&self, record: &Record) -> Result<Option<OwnedFd>, ContainerError> {
        let record = match self.state.get(&record.id) {
            Err(StateError::NotFound(_)) => return Ok(None),
            other => other?,
        };
        let pid = record
            .monitor_pid
            .and_then(|pid| i32::try_from(pid).ok())
            .and_then(Pid::from_raw);
        // First the handle, then the check: whoever still holds the lock is this process.
        let monitor = pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
        Ok(monitor.filter(|_| self.state.is_held(&record).unwrap_or(false)))
    }
}

fn no_answer(record: &Record) -> ContainerError {
    ContainerError::NoAnswer(short_id(&record.id).to_owned())
}

fn cannot_end(record: &Record, source: io::Error) -> ContainerError {
    let id = short_id(&record.id).to_owned();
    ContainerError::Stop { id, source }
}
