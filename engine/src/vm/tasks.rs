//! Doing something with a VM that a thread of its own waits for.

use hullbox_vmm::{Outcome, RunningVm};
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::mpsc::{self, Receiver, Sender};

type Task = Box<dyn FnOnce(&mut RunningVm) + Send>;

/// Where tasks are put.
#[derive(Debug)]
pub(super) struct Tasks {
    sender: Sender<Task>,
    wake: OwnedFd,
}

/// Where they come out.
pub(super) struct Inbox {
    receiver: Receiver<Task>,
    wake: OwnedFd,
}

impl Tasks {
    pub(super) fn new() -> io::Result<(Self, Inbox)> {
        let (sender, receiver) = mpsc::channel();
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let inbox = Inbox {
            receiver,
            wake: wake.try_clone()?,
        };
        Ok((Self { sender, wake }, inbox))
    }

    /// Has something done, and waits for its result. `None`: the VM has ended.
    pub(super) fn run<T: Send + 'static>(
        &self,
        task: impl FnOnce(&mut RunningVm) -> T + Send + 'static,
    ) -> Option<T> {
        let (tell, told) = mpsc::channel();
        let task = move |running: &mut RunningVm| {
            // Whoever asked waits for it.
            let _ = tell.send(task(running));
        };
        self.sender.send(Box::new(task)).ok()?;
        // An eventfd takes a first 1 without fail, and a second one changes nothing.
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
        told.recv().ok()
    }
}

impl Inbox {
    /// Waits for the VM's end, doing what it is told meanwhile.
    pub(super) fn wait(self, mut running: RunningVm) -> Outcome {
        while running.outcome().is_none() {
            let mut fds = [
                PollFd::from_borrowed_fd(running.ended(), PollFlags::IN),
                PollFd::new(&self.wake, PollFlags::IN),
            ];
            if !matches!(poll(&mut fds, None), Ok(_) | Err(rustix::io::Errno::INTR)) {
                // Nobody can tell it anything then, but its end is still waited for.
                break;
            }
            if !fds[1].revents().is_empty() {
                let _ = rustix::io::read(&self.wake, &mut [0u8; 8]);
                while let Ok(task) = self.receiver.try_recv() {
                    task(&mut running);
                }
            }
        }
        running.wait()
    }
}
