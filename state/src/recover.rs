//! Cleaning up after the dead.

use crate::database::State;
use crate::error::StateError;
use crate::record::{self, End, Record};
use hullbox_host::sys::{self, LockKind};

/// What a container is recorded to have died of when its monitor was killed: SIGKILL's code.
pub const KILLED: u8 = 137;

impl State {
    /// Finishes what somebody was killed over: a container whose row says that it starts or runs, or
    /// that there is an errand in it, and whose lock nobody holds. `release` frees what outlives a monitor (control groups,
    /// mounts, processes of a namespace container) and must cope with finding nothing.
    ///
    /// Costs one query when there is nothing to do. Each of what was found is given to `dead`, once,
    /// by whoever was the first to find it.
    ///
    /// # Errors
    /// The database or the directories fail; the rest is tried all the same and the first error
    /// returned.
    pub fn recover(
        &self,
        release: &dyn Fn(&Record) -> std::io::Result<()>,
        dead: &mut dyn FnMut(Record),
    ) -> Result<(), StateError> {
        let alive = {
            let mut statement = self.database.prepare_cached(&format!(
                "SELECT {} FROM containers WHERE row IN (
                    SELECT row FROM containers WHERE monitor_pid IS NOT NULL
                    UNION
                    SELECT row FROM containers
                        WHERE phase IN ('starting', 'running', 'paused', 'restarting'))",
                record::COLUMNS
            ))?;
            let rows = statement.query_map([], record::from_row)?;
            rows.map(|row| row?)
                .collect::<Result<Vec<_>, StateError>>()?
        };
        let mut first_error = None;
        for record in &alive {
            match self.recover_one(record, release) {
                Ok(Some(record)) => dead(record),
                Ok(None) => {}
                Err(error) => first_error = first_error.or(Some(error)),
            }
        }
        first_error.map_or(Ok(()), Err)
    }

    fn recover_one(
        &self,
        seen: &Record,
        release: &dyn Fn(&Record) -> std::io::Result<()>,
    ) -> Result<Option<Record>, StateError> {
        let file = self.open_lock_file()?;
        let failed = || StateError::io("lock", &self.lock_file);
        // Looked at first: taken for nothing, the lock would be in others' way.
        if sys::is_byte_locked(&file, seen.row).map_err(failed())? {
            return Ok(None);
        }
        match self.get(&seen.id) {
            Err(StateError::NotFound(_)) => return Ok(None),
            Ok(record) if !record.was_begun() => return Ok(None),
            other => drop(other?),
        }
        let dead = sys::try_lock_byte(&file, LockKind::Exclusive, seen.row).map_err(failed())?;
        if !dead {
            return Ok(None);
        }
        // Under the lock, look again: it may have ended in good order since.
        let mut record = match self.get(&seen.id) {
            Err(StateError::NotFound(_)) => return Ok(None),
            other => other?,
        };
        if !record.was_begun() {
            return Ok(None);
        }
        release(&record).map_err(StateError::io(
            "clean up",
            &self.roots.container_runtime_dir(&record.id),
        ))?;
        if !record.is_active() {
            self.end_errand(&record.id)?;
            return Ok(None);
        }
        let end = End {
            exit_code: KILLED,
            error: Some("its monitor was killed".to_owned()),
            ..End::default()
        };
        record.changed_volumes = self.finish(&record.id, &end)?;
        Ok(Some(record))
    }
}
