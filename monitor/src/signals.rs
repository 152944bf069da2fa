//! Signals to a monitor, delivered where a poll loop can see them.
//!
//! SIGTERM, SIGINT and SIGHUP are what a host's shutdown, or its user, sends: the container is
//! stopped as `stop` does it. [`KILL_NOW`] is Hullbox's own: `rm -f` sends it.

pub use hullbox_backend::backend::KILL_NOW;
use signal_hook::consts;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether a monitor ended of [`KILL_NOW`], before it could catch that.
#[must_use]
pub fn ended_by_kill_now(status: ExitStatus) -> bool {
    status.signal() == Some(KILL_NOW.as_raw())
}

/// What a signal to a monitor asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Requested {
    /// To stop the container.
    Stop,
    /// To kill it at once.
    Kill,
}

/// Caught signals.
#[derive(Debug)]
pub(super) struct Signals {
    readable: OwnedFd,
    kill: Arc<AtomicBool>,
}

impl Signals {
    /// Catches them from now on.
    pub(super) fn catch() -> io::Result<Self> {
        let (ours, theirs) = UnixStream::pair()?;
        let signals = Self::read_from(ours)?;
        // Set before the descriptor is readable: actions run in this order.
        signal_hook::flag::register(KILL_NOW.as_raw(), Arc::clone(&signals.kill))?;
        for signal in [
            KILL_NOW.as_raw(),
            consts::SIGTERM,
            consts::SIGINT,
            consts::SIGHUP,
        ] {
            signal_hook::low_level::pipe::register(signal, theirs.try_clone()?)?;
        }
        Ok(signals)
    }

    /// Takes a byte from this end for a signal.
    pub(super) fn read_from(ours: UnixStream) -> io::Result<Self> {
        ours.set_nonblocking(true)?;
        Ok(Self {
            readable: ours.into(),
            kill: Arc::default(),
        })
    }

    /// What came since the last call.
    pub(super) fn take(&self) -> Option<Requested> {
        // How often it came does not matter.
        let mut buffer = [0u8; 64];
        let came = rustix::io::read(&self.readable, &mut buffer).is_ok_and(|read| read > 0);
        if self.kill.swap(false, Ordering::AcqRel) {
            return Some(Requested::Kill);
        }
        came.then_some(Requested::Stop)
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.readable.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use signal_hook::low_level::raise;

    #[test]
    fn an_end_of_kill_now_is_recognised() {
        let ended = |signal| ended_by_kill_now(ExitStatus::from_raw(signal));
        assert!(ended(KILL_NOW.as_raw()));
        assert!(!ended(consts::SIGKILL) && !ended(0));
    }

    #[test]
    fn a_kill_and_a_stop_are_different() {
        // Raised in this thread, a signal is handled before the call returns.
        let signals = Signals::catch().unwrap();
        assert_eq!(signals.take(), None);
        raise(consts::SIGTERM).unwrap();
        raise(consts::SIGHUP).unwrap();
        assert_eq!(signals.take(), Some(Requested::Stop));
        raise(consts::SIGTERM).unwrap();
        raise(KILL_NOW.as_raw()).unwrap();
        assert_eq!(signals.take(), Some(Requested::Kill));
        assert_eq!(signals.take(), None);
    }
}
