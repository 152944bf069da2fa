//! What a monitor asks of either wall.

use super::control::VmUsage;
use crate::snapshots::About;
use crate::state::BegunFrom;
use hullbox_protocol::{Failure, Setup};
use rustix::pipe::{PipeFlags, pipe_with};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender, TryRecvError};

/// How the workload's side is reached.
#[derive(Debug)]
pub(crate) enum Link {
    /// It is there.
    Connected(OwnedFd),
    /// It will dial in, once.
    Awaited(UnixListener),
}

/// What happens while a container is saved.
#[derive(Debug)]
pub(crate) enum Progress {
    /// What had to stand still goes on.
    Resumed,
    /// It is saved, or why not in one line.
    Done(Result<(), String>),
}

/// A container that is being saved beside everything else.
#[derive(Debug)]
pub(crate) struct Saving {
    receiver: Receiver<Progress>,
    wake: OwnedFd,
    cancel: Arc<AtomicBool>,
}

/// Who saves it.
#[derive(Debug)]
pub(crate) struct Reporter {
    sender: Sender<Progress>,
    wake: OwnedFd,
}

/// Both ends. `cancel` is looked at by whoever saves.
///
/// # Errors
/// No more descriptors.
pub(crate) fn saving(cancel: Arc<AtomicBool>) -> io::Result<(Saving, Reporter)> {
    let (sender, receiver) = mpsc::channel();
    let (readable, wake) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
    let saving = Saving {
        receiver,
        wake: readable,
        cancel,
    };
    Ok((saving, Reporter { sender, wake }))
}

impl Reporter {
    pub(crate) fn tell(&self, progress: Progress) {
        // Nobody may listen any more.
        let _ = self.sender.send(progress);
        let _ = rustix::io::write(&self.wake, &[1]);
    }
}

impl Saving {
    /// What has happened since the last call. Whoever broke off without a word has failed.
    pub(crate) fn progress(&self) -> Option<Progress> {
        let _ = rustix::io::read(&self.wake, &mut [0u8; 8]);
        match self.receiver.try_recv() {
            Ok(progress) => Some(progress),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => {
                let why = "the virtual machine has ended".to_owned();
                Some(Progress::Done(Err(why)))
            }
        }
    }

    /// Has what stands still go on soon.
    pub(crate) fn cancel(&self) {
        self.cancel.store(true, Ordering::Release);
    }
}

impl AsFd for Saving {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}

/// A container that has been started behind one wall or the other.
pub(crate) trait Backend {
    /// The connection that speaks the protocol. Asked for once.
    ///
    /// # Errors
    /// It was asked for before.
    fn link(&mut self) -> io::Result<Link>;

    /// Becomes readable when all is over, of itself or because of [`Self::kill`].
    fn ended(&self) -> BorrowedFd<'_>;

    /// Ends everything at once. May be called at any time, more than once.
    fn kill(&mut self);

    /// What whoever started it should hear, once.
    fn warning(&mut self) -> Option<String> {
        None
    }

    /// Where its guest began, if it has one.
    fn begun(&self) -> Option<BegunFrom> {
        None
    }

    /// Whether [`Self::begin_anew`] may be of use.
    fn can_begin_anew(&self) -> bool {
        false
    }

    /// Boots another guest in place of one that was of no use, before anything of the workload was
    /// started; once, and only if it began at a template. `why` is what is known of the reason.
    /// Fills in what differs for that guest.
    fn begin_anew(&mut self, _: &mut Setup, _why: Option<&str>) -> Option<Result<Link, Failure>> {
        None
    }

    /// There was a template, and it was of no use.
    fn found_useless_template(&self) -> bool {
        false
    }

    /// Whether its wall clock is its own and has to be kept to the host's.
    fn has_own_clock(&self) -> bool {
        false
    }

    /// What it costs, seen from outside; `None` where the workload's side knows all.
    fn usage(&self) -> Option<VmUsage> {
        None
    }

    /// Begins to save it as a snapshot into an empty directory, while its agent is at rest.
    ///
    /// # Errors
    /// Why not, in one line.
    fn save(&mut self, _dir: &Path, _about: About) -> Result<Saving, String> {
        Err("only a container in a microVM can be saved".to_owned())
    }

    /// Ends everything, unless the workload is known to have ended in good order, in which case the
    /// backend may finish what it has to; and frees what it holds. Returns how it ended in words,
    /// for when the workload's side did not say.
    fn release(self: Box<Self>, orderly: bool) -> String;
}
