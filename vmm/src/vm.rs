//! A VM from its configuration to its end.

use crate::config::VmConfig;
use crate::error::VmError;
use crate::outcome::{Outcome, VmStats};

/// A VM that is built and has not run an instruction yet.
#[derive(Debug)]
pub struct Vm {
    _config: VmConfig,
}

impl Vm {
    /// Build a VM.
    ///
    /// # Errors
    /// See [`VmError`].
    pub fn new(config: VmConfig) -> Result<Self, VmError> {
        config.check().map_err(VmError::Config)?;
        Ok(Self { _config: config })
    }

    /// Let the virtual CPUs run.
    ///
    /// # Errors
    /// See [`VmError`].
    pub fn start(self) -> Result<RunningVm, VmError> {
        Ok(RunningVm { _private: () })
    }
}

/// A VM that runs, or has ended. Dropping it stops the VM and takes everything down.
#[derive(Debug)]
pub struct RunningVm {
    _private: (),
}

impl RunningVm {
    /// Wait for the end; afterwards all threads have been joined.
    #[must_use]
    pub fn wait(self) -> Outcome {
        Outcome::Stopped
    }

    /// A way to stop the VM from elsewhere.
    #[must_use]
    pub fn handle(&self) -> VmHandle {
        VmHandle { _private: () }
    }

    /// What the VM cost until now.
    #[must_use]
    pub fn stats(&self) -> VmStats {
        VmStats::default()
    }
}

/// Stops a VM, from any thread, any number of times.
#[derive(Debug, Clone)]
pub struct VmHandle {
    _private: (),
}

impl VmHandle {
    /// Ask the VM to stop now; [`RunningVm::wait`] then returns [`Outcome::Stopped`].
    pub fn stop(&self) {}
}
