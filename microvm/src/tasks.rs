//! Doing something with a VM that a thread of its own waits for.

use crate::snapshots::Work;
use hullbox_backend::saving::{Progress, Reporter, Saving, saving};
use hullbox_host::error::chain;
use hullbox_vmm::{Outcome, RunningVm};
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;

type Task = Box<dyn FnOnce(&mut RunningVm) + Send>;

/// Where tasks are put.
#[derive(Debug)]
pub(crate) struct Tasks {
    sender: Sender<Task>,
    wake: OwnedFd,
    /// Cancels the last saving.
    cancel: Arc<AtomicBool>,
}

/// Where they come out.
pub(crate) struct Inbox {
    receiver: Receiver<Task>,
    wake: OwnedFd,
}

impl Tasks {
    pub(crate) fn new() -> io::Result<(Self, Inbox)> {
        let (sender, receiver) = mpsc::channel();
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let inbox = Inbox {
            receiver,
            wake: wake.try_clone()?,
        };
        let tasks = Self {
            sender,
            wake,
            cancel: Arc::default(),
        };
        Ok((tasks, inbox))
    }

    /// Has the VM saved, and tells how that goes.
    pub(crate) fn save(&mut self, work: Work) -> io::Result<Saving> {
        let cancel = Arc::new(AtomicBool::new(false));
        let (under_way, reporter) = saving(Arc::clone(&cancel))?;
        self.cancel = Arc::clone(&cancel);
        let task = move |running: &mut RunningVm| save(work, running, cancel, reporter);
        // Where there is no VM any more the task is dropped, and its reporter with it.
        let _ = self.sender.send(Box::new(task));
        // An eventfd takes a first 1 without fail, and a second one changes nothing.
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
        Ok(under_way)
    }

    /// Has the VM go on soon, if it stands still to be saved.
    pub(crate) fn cancel_save(&self) {
        self.cancel.store(true, Ordering::Release);
    }
}

/// Writes down what has to be while the VM stands still, and leaves the rest to a thread.
fn save(work: Work, running: &mut RunningVm, cancel: Arc<AtomicBool>, reporter: Reporter) {
    let written = work.write(running, &|| cancel.load(Ordering::Acquire));
    reporter.tell(Progress::Resumed);
    let unsealed = match written {
        Ok(unsealed) => unsealed,
        Err(error) => return reporter.tell(Progress::Done(Err(chain(&error)))),
    };
    let seal = move || {
        let sealed = work.seal(unsealed).map_err(|error| chain(&error));
        reporter.tell(Progress::Done(sealed));
    };
    // Without a thread the reporter is dropped, which tells as much.
    let _ = thread::Builder::new().name("seal".to_owned()).spawn(seal);
}

impl Inbox {
    /// Waits for the VM's end, doing what it is told meanwhile.
    pub(crate) fn wait(self, mut running: RunningVm) -> Outcome {
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
        // Whoever waits for a task that was not begun is told now.
        drop(self);
        running.wait()
    }
}
