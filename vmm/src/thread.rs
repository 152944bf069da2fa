//! Threads whose end can be waited for with a deadline.
//!
//! A thread may be in a system call that does not return: a read from a file system that hangs, or
//! a KVM that does not let go of a virtual CPU. Whoever ends a VM has to get on all the same.

use std::convert::Infallible;
use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

/// How long the threads of a VM that ends have to come out of what they are at.
pub(crate) const STOP_LIMIT: Duration = Duration::from_secs(5);

/// A thread that runs, or has ended. Dropping it leaves the thread to itself.
#[derive(Debug)]
pub(crate) struct Thread {
    handle: JoinHandle<()>,
    /// Its sender is dropped as the last thing that the thread does.
    over: Receiver<Infallible>,
}

impl Thread {
    pub(crate) fn spawn(
        builder: Builder,
        body: impl FnOnce() + Send + 'static,
    ) -> io::Result<Self> {
        let (alive, over) = sync_channel(0);
        let handle = builder.spawn(move || {
            let _alive = alive;
            body();
        })?;
        Ok(Self { handle, over })
    }

    /// Wait for the thread's end. False: it runs on after the deadline, and is left to itself.
    pub(crate) fn join_until(self, deadline: Instant) -> bool {
        let left = deadline.saturating_duration_since(Instant::now());
        match self.over.recv_timeout(left) {
            Err(RecvTimeoutError::Timeout) => false,
            Err(RecvTimeoutError::Disconnected) => {
                // A panic was reported by the panic hook; there is nothing to add.
                let _ = self.handle.join();
                true
            }
            Ok(never) => match never {},
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;
    use std::time::Duration;

    #[test]
    fn one_that_ends_is_joined_and_one_that_does_not_is_left() {
        let deadline = Instant::now() + Duration::from_secs(600);
        let ends = Thread::spawn(Builder::new(), || {}).unwrap();
        assert!(ends.join_until(deadline));
        let (stays, wait) = channel::<()>();
        let hang = move || {
            let _ = wait.recv();
        };
        let hangs = Thread::spawn(Builder::new(), hang).unwrap();
        assert!(!hangs.join_until(Instant::now()));
        drop(stays);
    }
}
