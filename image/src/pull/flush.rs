//! Writing a large file out to the disk while it grows, so that little is left to wait for at its
//! end.

use std::fs::File;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

/// How long what was written may stay in memory.
const INTERVAL: Duration = Duration::from_millis(100);

/// Does `work`, which writes to `file`, and has the file written out meanwhile. Whether that
/// succeeds is for the sync at the file's end to say.
pub(super) fn meanwhile<T>(file: &File, work: impl FnOnce() -> T) -> T {
    std::thread::scope(|scope| {
        let (working, over) = channel::<()>();
        // Without a thread all is left to the end.
        let _ = std::thread::Builder::new()
            .name("flush-layer".to_owned())
            .spawn_scoped(scope, move || {
                while over.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout) {
                    let _ = file.sync_data();
                }
            });
        let done = work();
        drop(working);
        done
    })
}
