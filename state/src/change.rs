//! What happens to a container between its making and its end.

use crate::database::{self, State};
use crate::error::StateError;
use crate::health::HealthReport;
use crate::lock::Starter;
use crate::networks;
use crate::record::{Beginning, End, Phase, Record};
use crate::schema;
use crate::time::now_ns;
use hullbox_backend::network::OpenPort;
use hullbox_plan::ContainerSpec;
use rusqlite::{TransactionBehavior, params};

impl State {
    /// Takes a container that does not run to start it: its lock, and phase [`Phase::Starting`].
    ///
    /// # Errors
    /// [`StateError::Running`] when somebody has it already, among others.
    pub fn take_for_start(&mut self, id: &str, starter: Starter<'_>) -> Result<Record, StateError> {
        let transaction = self.take(&starter.lock.file, id)?;
        let spec = database::get(&transaction, id)?.spec;
        networks::lease_all(&transaction, id, &spec)?;
        self.make_dirs(id)?;
        transaction.execute(
            "UPDATE containers SET phase = ?2, restarts = 0, stopped = 0,
             beginning = NULL, error = NULL, oom = 0, ports = NULL, monitor_pid = ?3
             WHERE id = ?1",
            params![id, Phase::Starting.as_str(), starter.monitor_pid],
        )?;
        transaction.commit()?;
        self.get(id)
    }

    /// Takes a container that does not run for an errand in its root, which leaves its record as it
    /// is but for the monitor's process: while that is there without a holder of the lock, somebody
    /// was killed.
    ///
    /// # Errors
    /// [`StateError::Running`] when somebody has it already, among others.
    pub fn take_for_errand(&self, id: &str, starter: Starter<'_>) -> Result<Record, StateError> {
        let transaction = self.take(&starter.lock.file, id)?;
        self.make_dirs(id)?;
        transaction.execute(
            "UPDATE containers SET monitor_pid = ?2 WHERE id = ?1",
            params![id, starter.monitor_pid],
        )?;
        transaction.commit()?;
        self.get(id)
    }

    /// An errand is over.
    ///
    /// # Errors
    /// What it left cannot be removed.
    pub fn end_errand(&self, id: &str) -> Result<(), StateError> {
        database::remove_dir(&self.roots.container_runtime_dir(id))?;
        self.database.execute(
            "UPDATE containers SET monitor_pid = NULL WHERE id = ?1",
            [id],
        )?;
        Ok(())
    }

    /// Notes that the workload runs, as which process of the host, if it is one, and how its guest
    /// began, if it has one.
    ///
    /// # Errors
    /// The database fails.
    pub fn set_running(
        &self,
        id: &str,
        pid: Option<u32>,
        beginning: Option<&Beginning>,
    ) -> Result<(), StateError> {
        let beginning = beginning.and_then(|beginning| serde_json::to_string(beginning).ok());
        self.database.execute(
            "UPDATE containers SET phase = ?2, started_ns = ?3, beginning = ?4, pid = ?5
             WHERE id = ?1",
            params![id, Phase::Running.as_str(), now_ns(), beginning, pid],
        )?;
        Ok(())
    }

    /// Notes which ports of the host lead to the container, until it ends or is started again.
    ///
    /// # Errors
    /// The database fails.
    pub fn set_open_ports(&self, id: &str, ports: &[OpenPort]) -> Result<(), StateError> {
        let text = match ports {
            [] => None,
            _ => serde_json::to_string(ports).ok(),
        };
        self.database.execute(
            "UPDATE containers SET ports = ?2 WHERE id = ?1",
            params![id, text],
        )?;
        Ok(())
    }

    /// Notes that the workload was frozen or goes on.
    ///
    /// # Errors
    /// The database fails.
    pub fn set_paused(&self, id: &str, paused: bool) -> Result<(), StateError> {
        let phase = if paused {
            Phase::Paused
        } else {
            Phase::Running
        };
        self.database.execute(
            "UPDATE containers SET phase = ?2 WHERE id = ?1",
            params![id, phase.as_str()],
        )?;
        Ok(())
    }

    /// Notes how the workload ended that is about to be started again, for the `restarts`th time.
    ///
    /// # Errors
    /// The database fails.
    pub fn set_restarting(&self, id: &str, end: &End, restarts: u32) -> Result<(), StateError> {
        self.database.execute(
            "UPDATE containers SET phase = ?2, finished_ns = ?3, exit_code = ?4, signal = ?5,
             oom = ?6, error = ?7, restarts = ?8, ports = NULL WHERE id = ?1",
            params![
                id,
                Phase::Restarting.as_str(),
                now_ns(),
                end.exit_code,
                end.signal,
                end.oom,
                end.error,
                restarts
            ],
        )?;
        Ok(())
    }

    /// Notes that the out-of-memory killer was at work in a container that runs.
    ///
    /// # Errors
    /// The database fails.
    pub fn set_oom(&self, id: &str) -> Result<(), StateError> {
        self.database
            .execute("UPDATE containers SET oom = 1 WHERE id = ?1", [id])?;
        Ok(())
    }

    /// Notes what a health check found.
    ///
    /// # Errors
    /// The database fails.
    pub fn set_health(&self, id: &str, report: &HealthReport) -> Result<(), StateError> {
        let text = serde_json::to_string(report).unwrap_or_default();
        self.database.execute(
            "UPDATE containers SET health = ?2 WHERE id = ?1",
            params![id, text],
        )?;
        Ok(())
    }

    /// Changes what is kept of a container for its next start.
    ///
    /// # Errors
    /// [`StateError::NotFound`] among others.
    pub fn change_spec(
        &mut self,
        id: &str,
        change: impl FnOnce(&mut ContainerSpec),
    ) -> Result<(), StateError> {
        let transaction = self
            .database
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut record = database::get(&transaction, id)?;
        change(&mut record.spec);
        networks::write_spec(&transaction, id, &record.spec)?;
        Ok(transaction.commit()?)
    }

    /// Gives a container another name.
    ///
    /// # Errors
    /// [`StateError::NameInUse`] among others.
    pub fn rename(&mut self, id: &str, name: &str) -> Result<(), StateError> {
        let transaction = self
            .database
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        if let Some(holder) = schema::id_of_name(&transaction, name)? {
            return Err(StateError::NameInUse {
                name: name.to_owned(),
                id: holder,
            });
        }
        let changed = transaction.execute(
            "UPDATE containers SET name = ?2 WHERE id = ?1",
            params![id, name],
        )?;
        if changed == 0 {
            return Err(StateError::NotFound(id.to_owned()));
        }
        Ok(transaction.commit()?)
    }
}
