//! What a process is to have for its root: the parent says it, and the child makes it so.

use crate::failure::setup;
use hullbox_archive::Layers;
use hullbox_protocol::{Builtin, Failure, FailureKind, ProcessSpec};
use std::os::fd::{BorrowedFd, OwnedFd};

/// What differs between a container's first process, one that joins it, and one of the machine.
pub trait Root {
    /// Descriptors that [`Self::enter`] needs.
    fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        Vec::new()
    }

    /// Makes the child's root what the program shall see as `/`.
    ///
    /// # Errors
    /// Why that cannot be done.
    fn enter(&self, _: &ProcessSpec) -> Result<(), Failure> {
        Err(setup("no program runs here"))
    }

    /// Where a builtin is done, instead of [`Self::enter`].
    ///
    /// # Errors
    /// Why that cannot be done here.
    fn place(&self, _: &Builtin) -> Result<Place, Failure> {
        Err(setup("this cannot be done here"))
    }

    /// Runs the program under a small init of its own.
    fn init(&self) -> bool {
        false
    }

    /// Binds the terminal to the container's console.
    fn console(&self) -> bool {
        false
    }

    /// Makes a missing working directory.
    fn makes_cwd(&self) -> bool {
        true
    }

    /// What sort of failure a missing working directory is that is not made.
    fn lacks_cwd(&self) -> FailureKind {
        FailureKind::Setup
    }

    /// Tells when it has been entered.
    fn timed(&self) -> bool {
        false
    }

    /// Another way to a program whose path leads to a file that is no longer there.
    fn reopen(&self, _path: &[u8]) -> Option<OwnedFd> {
        None
    }

    /// What filters the program's system calls, as [`sys::filter_system_calls`] takes it; nothing does
    /// if it is empty, or if the program is privileged.
    fn filter(&self) -> &[u8] {
        &[]
    }

    /// The last step before the program: what must not be possible earlier.
    ///
    /// # Errors
    /// Why that cannot be done.
    fn seal(&self) -> Result<(), Failure> {
        Ok(())
    }
}

/// Where a builtin is done.
#[derive(Debug)]
pub enum Place {
    /// In a container's root.
    Root(OwnedFd),
    /// With its writable layer.
    Layers(Layers),
}
