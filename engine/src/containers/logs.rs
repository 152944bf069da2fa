//! What the workload has said.

use super::{ContainerError, Engine};
use crate::logs::LogFollower;
use crate::state::Record;
use hullbox_model::log::LogQuery;

impl Engine {
    /// A container's log; with `follow`, and while the container runs, what comes, too.
    ///
    /// # Errors
    /// [`ContainerError::NoLog`] among others.
    pub fn logs(
        &self,
        record: &Record,
        query: LogQuery,
        follow: bool,
    ) -> Result<LogFollower, ContainerError> {
        if !record.spec.life.log.keep {
            return Err(ContainerError::NoLog(record.name.clone()));
        }
        let follows = follow && record.is_active();
        // One that has ended by now says no more.
        let ended = follows.then(|| self.watch(record).ok()).flatten();
        let dir = self.roots.container_dir(&record.id);
        Ok(LogFollower::open(&dir, query, ended)?)
    }
}
