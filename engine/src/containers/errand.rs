//! Doing something in a container's root, whether it runs or not.

use super::{ContainerError, Engine, Launch};
use crate::monitor::{self, Mode};
use crate::state::{Record, StateError};
use crate::timing::Timing;
use hullbox_backend::network::Network;
use hullbox_protocol::{Builtin, CgroupLimits, ProcessSpec, UserSpec};
use hullbox_session::direct::Descriptors;
use std::os::fd::OwnedFd;
use std::process::Child;

/// Something of the agent's own that is done in a container's root.
#[derive(Debug)]
pub struct Errand {
    /// Speaks frames of session 0.
    pub connection: OwnedFd,
    /// The monitor, where one was started for this alone.
    pub process: Option<Child>,
}

impl Engine {
    /// Does something in the container's root: beside its workload where that runs, otherwise in
    /// its place, behind the same wall.
    ///
    /// # Errors
    /// [`ContainerError`].
    pub fn errand(
        &mut self,
        record: &Record,
        builtin: Builtin,
        stdin: bool,
    ) -> Result<Errand, ContainerError> {
        let spec = ProcessSpec {
            argv: vec![b"hullbox".to_vec()],
            cwd: "/".to_owned(),
            user: UserSpec::Ids {
                uid: 0,
                gid: 0,
                groups: Vec::new(),
            },
            stdin,
            builtin: Some(builtin),
            privileged: true,
            ..ProcessSpec::default()
        };
        if let Some(builtin) = &spec.builtin {
            self.note_errand(record, builtin);
        }
        match self.exec_spec(
            record,
            Box::new(spec.clone()),
            (false, &Timing::default()),
            Descriptors::default(),
        ) {
            Err(ContainerError::NotRunning(_)) => self.errand_alone(record, spec),
            joined => Ok(Errand {
                connection: joined?.connection,
                process: None,
            }),
        }
    }

    fn errand_alone(
        &mut self,
        record: &Record,
        spec: ProcessSpec,
    ) -> Result<Errand, ContainerError> {
        let launch = Launch::prepare_for(self.roots(), record, false, &Timing::default())?;
        let record = match self.state.take_for_errand(&record.id, launch.starter()) {
            Err(StateError::Running(short)) => {
                return Err(ContainerError::Refused(format!(
                    "container {short} is just being started or stopped: try again"
                )));
            }
            other => other?,
        };
        let layers = self.layers_of(&record)?;
        let mut bundle = record.spec.bundle(&record.id, self.roots(), layers);
        // As in Docker, what is copied to where a volume is mounted is in the volume. What is about the
        // container's own files leaves mounts out, and does not depend on them.
        if reaches_mounts(&spec) {
            bundle.mounts = crate::volumes::resolve(self, &record.id, &record.spec)?;
        }
        bundle.process = spec;
        // The workload's own limits are not for what we do.
        bundle.setup.limits = CgroupLimits::default();
        bundle.setup.init = false;
        // What lies in memory would be gone with the errand: as in Docker, the files of a container
        // that does not run are those of its root.
        bundle.setup.tmpfs.clear();
        bundle.setup.persist = true;
        // What we do ourselves talks with nobody, and its ports are not the container's.
        bundle.network = Network::None;
        bundle.setup.interfaces.clear();
        let created = super::Created {
            record,
            launch,
            bundle,
        };
        let monitor: monitor::Monitor =
            self.start(created, Mode::Errand, Descriptors::default())?;
        Ok(Errand {
            connection: monitor.connection,
            process: Some(monitor.process),
        })
    }
}

/// Whether something is done where files from outside are to be seen.
fn reaches_mounts(spec: &ProcessSpec) -> bool {
    matches!(
        spec.builtin,
        Some(Builtin::Stat { .. } | Builtin::ArchiveIn { .. } | Builtin::ArchiveOut { .. })
    )
}
