//! Processes beside the workload in two steps, and what is known of them.

use super::talk::{Contact, exec_spec, unexpected};
use super::{ContainerError, Engine, ExecOrder, Joined};
use crate::monitor::control::{Answer, Command};
use crate::monitor::execs;
use crate::state::Record;
use crate::timing::Timing;
use hullbox_model::exec::ExecInspect;
use hullbox_protocol::StreamSet;

impl Engine {
    /// Makes a process beside the workload that is not started yet: its id.
    ///
    /// # Errors
    /// [`ContainerError::NotRunning`] among others.
    pub fn create_exec(&self, record: &Record, order: ExecOrder) -> Result<String, ContainerError> {
        let spec = Box::new(exec_spec(&record.spec, order));
        match self.query(record, &Command::ExecCreate { spec })? {
            Answer::Made(id) => Ok(id),
            other => Err(unexpected(other)),
        }
    }

    /// Starts a process that was made. What refuses it shows as a failed session.
    ///
    /// # Errors
    /// [`ContainerError::NotRunning`] among others.
    pub fn start_exec(
        &self,
        record: &Record,
        id: &str,
        detach: bool,
        timing: &Timing,
    ) -> Result<Joined, ContainerError> {
        let command = Command::ExecStart {
            id: id.to_owned(),
            detach,
            timing: timing.clone(),
        };
        let connection = self.connect(record, &command)?.into();
        Ok(Joined {
            connection,
            direct: StreamSet::default(),
        })
    }

    /// The processes that were run beside a container's workload, the oldest first: those that run,
    /// and the newest ones of those that ended.
    ///
    /// # Errors
    /// [`ContainerError`].
    pub fn execs(&self, record: &Record) -> Result<Vec<ExecInspect>, ContainerError> {
        let dir = self.roots.container_dir(&record.id);
        let mut all = execs::kept(&dir);
        match self.try_query(record, &Command::Execs) {
            Ok(Contact::Answered(Answer::Execs(text))) => {
                all.extend(serde_json::from_str::<Vec<_>>(&text).unwrap_or_default());
            }
            Ok(Contact::Answered(other)) => return Err(unexpected(other)),
            Ok(Contact::NotRunning) => {}
            Ok(contact @ Contact::Unresponsive) => contact.or_error(record).map(drop)?,
            // A monitor that ended between question and answer has left its execs in the file.
            Err(ContainerError::Talk { .. }) => all = execs::kept(&dir),
            Err(error) => return Err(error),
        }
        Ok(all)
    }

    /// What is known of such a process, by its id or the beginning of that, whose container ever it
    /// belongs to.
    ///
    /// # Errors
    /// [`ContainerError::NoExec`] among others.
    pub fn inspect_exec(&self, id: &str) -> Result<ExecInspect, ContainerError> {
        let none = || ContainerError::NoExec(id.to_owned());
        if id.is_empty() || !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(none());
        }
        let mut found = None;
        for record in self.state.list()? {
            // One container that does not answer is no reason to hide the others' execs.
            for exec in self.execs(&record).unwrap_or_default() {
                if exec.id == id {
                    return Ok(exec);
                }
                if exec.id.starts_with(id) && found.replace(exec).is_some() {
                    return Err(none());
                }
            }
        }
        found.ok_or_else(none)
    }
}
