//! Standing still, and being saved.

use super::RunningVm;
use crate::arch::{self, VcpuState};
use crate::error::VmError;
use crate::snapshot::{self, Origin, SnapshotError, SnapshotKey, Unsealed, VmState};
use crate::worker::PausedQueues;
use kvm_ioctls::Kvm;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Between two looks at whether a guest has come to rest.
const REST: Duration = Duration::from_millis(2);

/// How long virtual CPUs and devices have to come out of what they are at.
const PAUSE_LIMIT: Duration = Duration::from_secs(5);

/// Why a VM could not be saved.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// Its state could not be taken.
    #[error("cannot take the virtual machine's state")]
    State(#[source] VmError),
    /// The snapshot could not be written.
    #[error("cannot write the snapshot")]
    Write(#[source] SnapshotError),
    /// Its guest did not come to rest in time.
    #[error("the guest does not come to rest")]
    Restless,
    /// Its files are served from outside, where what it has open is known, and nowhere else.
    #[error("a guest with files from outside cannot be saved")]
    Files,
}

impl RunningVm {
    /// A descriptor that becomes readable when the guest of a template has put the first packet
    /// into its vsock device: it waits for the host, which will not answer. Do not read it.
    #[must_use]
    pub fn dialled(&self) -> BorrowedFd<'_> {
        let fd = self.dialled.as_raw_fd();
        // SAFETY: the descriptor is open as long as `self`, from which the lifetime comes.
        unsafe { BorrowedFd::borrow_raw(fd) }
    }

    /// Stop all virtual CPUs, and then all devices between two requests. Nothing happens in a VM
    /// that is paused already.
    ///
    /// # Errors
    /// [`VmError::Ended`], or [`VmError::Silent`] if something does not stop within a few seconds;
    /// all goes on then.
    pub fn pause(&mut self) -> Result<(), VmError> {
        if self.paused.is_some() {
            return Ok(());
        }
        for vcpu in &self.vcpus {
            vcpu.pause();
        }
        match self.pause_devices() {
            Ok(queues) => {
                self.paused = Some(queues);
                Ok(())
            }
            Err(error) => {
                self.let_go_on();
                Err(error)
            }
        }
    }

    /// Stop the devices, once all virtual CPUs have stopped.
    fn pause_devices(&self) -> Result<PausedQueues, VmError> {
        let deadline = Instant::now() + PAUSE_LIMIT;
        // An answer means that the thread is out of the guest.
        self.vcpu_states(&no_msrs(), deadline)?;
        let mut queues = Vec::new();
        for worker in &self.workers {
            let paused = worker.pause(deadline);
            queues.extend(paused.ok_or_else(|| match self.outcome() {
                Some(_) => VmError::Ended,
                None => VmError::Silent("a device"),
            })?);
        }
        Ok(queues)
    }

    /// Let everything go on. The guest's clocks have gone on all the while.
    pub fn resume(&mut self) {
        if self.paused.take().is_some() {
            self.let_go_on();
        }
    }

    fn let_go_on(&self) {
        for worker in &self.workers {
            worker.resume();
        }
        for vcpu in &self.vcpus {
            vcpu.resume();
        }
    }

    /// Pause the VM at a moment when its guest waits for something, and nothing is under way.
    ///
    /// # Errors
    /// [`SaveError::Restless`] if there is no such moment within the limit.
    pub fn pause_at_rest(&mut self, limit: Duration) -> Result<(), SaveError> {
        self.pause_at_rest_unless(limit, &|| false)
    }

    /// The same, unless it is cancelled meanwhile.
    ///
    /// # Errors
    /// [`SaveError::Restless`] then, too.
    pub fn pause_at_rest_unless(
        &mut self,
        limit: Duration,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<(), SaveError> {
        let deadline = Instant::now() + limit;
        loop {
            self.pause().map_err(SaveError::State)?;
            let states = self
                .vcpu_states(&no_msrs(), Instant::now() + PAUSE_LIMIT)
                .map_err(SaveError::State)?;
            if states.iter().all(VcpuState::is_idle) {
                return Ok(());
            }
            self.resume();
            if Instant::now() > deadline || cancelled() {
                return Err(SaveError::Restless);
            }
            std::thread::sleep(REST);
        }
    }

    /// Write a snapshot into an empty directory. The VM is paused for it, and stays so.
    ///
    /// What is behind its disks is not in it. Files of the directory that are named belong to it:
    /// they have to be unchanged when it is opened.
    ///
    /// # Errors
    /// [`SaveError`]; what was written by then is of no use.
    pub fn save(
        &mut self,
        dir: &Path,
        key: &SnapshotKey,
        origin: Origin,
        beside: &[&str],
    ) -> Result<(), SaveError> {
        self.check_savable()?;
        self.pause().map_err(SaveError::State)?;
        let state = self.state().map_err(SaveError::State)?;
        snapshot::write(dir, state, &self.memory, key, origin, beside).map_err(SaveError::Write)
    }

    /// Write what changes as soon as the VM goes on, as the beginning of a snapshot in an empty
    /// directory. The VM is paused for it, and stays so.
    ///
    /// # Errors
    /// [`SaveError`], of its being cancelled too; what was written by then is of no use.
    pub fn write_down(
        &mut self,
        dir: &Path,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Unsealed, SaveError> {
        self.check_savable()?;
        self.pause().map_err(SaveError::State)?;
        let state = self.state().map_err(SaveError::State)?;
        Unsealed::write(dir, state, &self.memory, cancelled).map_err(SaveError::Write)
    }

    /// Refuse to save what cannot be restored.
    fn check_savable(&self) -> Result<(), SaveError> {
        let connected = self
            .files
            .as_ref()
            .is_some_and(|files| files.is_connected());
        if connected {
            return Err(SaveError::Files);
        }
        Ok(())
    }

    fn state(&self) -> Result<VmState, VmError> {
        let kvm = Kvm::new().map_err(|error| VmError::OpenKvm(error.into()))?;
        let msrs = arch::state_msrs(&kvm)?.into();
        let queues = self.paused.clone().unwrap_or_default();
        Ok(VmState {
            memory_mib: u32::try_from(self.memory.bytes() >> 20).unwrap_or(u32::MAX),
            // Before the interrupt controllers: asking settles what is pending.
            vcpus: self.vcpu_states(&msrs, Instant::now() + PAUSE_LIMIT)?,
            machine: arch::save_machine(&self.vm)?,
            devices: self.bus.save(queues, self.held),
        })
    }

    fn vcpu_states(&self, msrs: &Arc<[u32]>, deadline: Instant) -> Result<Vec<VcpuState>, VmError> {
        let states = self.vcpus.iter().map(|vcpu| vcpu.save(msrs, deadline));
        states.collect()
    }
}

fn no_msrs() -> Arc<[u32]> {
    Arc::new([])
}
