//! Finished files on their way to the disk, while work goes on.

use crate::store::StoreError;
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

/// Files that are being written out at a time.
const MAX_SYNCING: usize = 32;

/// Files being synced: a few at a time, each of which is a thread and a descriptor.
#[derive(Default)]
pub(crate) struct Syncs {
    running: VecDeque<(PathBuf, JoinHandle<io::Result<()>>)>,
    failed: Option<StoreError>,
}

impl Syncs {
    /// Begins to write a finished file out.
    pub(crate) fn start(&mut self, path: PathBuf, file: File) {
        if self.running.len() >= MAX_SYNCING
            && let Some((path, thread)) = self.running.pop_front()
        {
            self.join(&path, thread);
        }
        let thread = std::thread::Builder::new()
            .name("sync-layer".to_owned())
            .spawn({
                let file = file.try_clone();
                move || file?.sync_data()
            });
        match thread {
            Ok(thread) => self.running.push_back((path, thread)),
            // Without a thread it is done at once; the result is looked at like any other's.
            Err(_) => {
                let done = file.sync_data();
                self.note(&path, done);
            }
        }
    }

    /// Takes over what another has begun.
    pub(crate) fn append(&mut self, mut other: Self) {
        self.running.append(&mut other.running);
        self.failed = self.failed.take().or(other.failed);
    }

    /// Waits for all of them.
    pub(crate) fn wait(mut self) -> Result<(), StoreError> {
        while let Some((path, thread)) = self.running.pop_front() {
            self.join(&path, thread);
        }
        self.failed.map_or(Ok(()), Err)
    }

    fn join(&mut self, path: &Path, thread: JoinHandle<io::Result<()>>) {
        let lost = || io::Error::other("the thread that syncs ended early");
        let done = thread.join().unwrap_or_else(|_| Err(lost()));
        self.note(path, done);
    }

    /// Keeps the first failure.
    fn note(&mut self, path: &Path, done: io::Result<()>) {
        if let Err(error) = done {
            let _ = self
                .failed
                .get_or_insert_with(|| StoreError::io("sync", path)(error));
        }
    }
}
