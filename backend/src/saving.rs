//! Saving a container as a snapshot, beside everything else that its monitor does.

use rustix::pipe::{PipeFlags, pipe_with};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender, TryRecvError};

/// Name of the file of a snapshot that says what it is of: a [`Description`].
pub const DESCRIPTION_FILE: &str = "about.json";

/// What is written beside a saved container to say what it is of. A backend does not read it, but
/// adds what it has to know itself of a guest that it saved.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Description(Map<String, Value>);

impl Description {
    /// With this entry, in place of one of the same name.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.0.insert(name.to_owned(), value.into());
        self
    }
}

/// What happens while a container is saved.
#[derive(Debug)]
pub enum Progress {
    /// What had to stand still goes on.
    Resumed,
    /// It is saved, or why not in one line.
    Done(Result<(), String>),
}

/// A container that is being saved beside everything else.
#[derive(Debug)]
pub struct Saving {
    receiver: Receiver<Progress>,
    wake: OwnedFd,
    cancel: Arc<AtomicBool>,
}

/// Who saves it.
#[derive(Debug)]
pub struct Reporter {
    sender: Sender<Progress>,
    wake: OwnedFd,
}

/// Both ends. `cancel` is looked at by whoever saves.
///
/// # Errors
/// No more descriptors.
pub fn saving(cancel: Arc<AtomicBool>) -> io::Result<(Saving, Reporter)> {
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
    /// Tells whoever holds the other end.
    pub fn tell(&self, progress: Progress) {
        // Nobody may listen any more.
        let _ = self.sender.send(progress);
        let _ = rustix::io::write(&self.wake, &[1]);
    }
}

impl Saving {
    /// What has happened since the last call. Whoever broke off without a word has failed.
    pub fn progress(&self) -> Option<Progress> {
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
    pub fn cancel(&self) {
        self.cancel.store(true, Ordering::Release);
    }
}

impl AsFd for Saving {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_description_keeps_what_its_reader_does_not_know() {
        let text = r#"{"both_disks":false,"spec":{"vcpus":2}}"#;
        let description: Description = serde_json::from_str(text).unwrap();
        let added = description.with("both_disks", true);
        assert_eq!(
            serde_json::to_string(&added).unwrap(),
            r#"{"both_disks":true,"spec":{"vcpus":2}}"#
        );
        assert!(serde_json::from_str::<Description>("[]").is_err());
    }
}
