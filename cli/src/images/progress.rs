//! Progress of loading and importing.

use crate::output::text::size;
use hullbox_image::Progress;
use rustix::termios::isatty;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// Progress on standard error, where that is a terminal.
pub(super) struct Meter {
    verb: &'static str,
    on: bool,
    last: Option<Instant>,
    started: Instant,
}

impl Meter {
    /// Short work shows nothing, and nothing flickers.
    const DELAY: Duration = Duration::from_millis(300);
    const INTERVAL: Duration = Duration::from_millis(100);

    pub(super) fn new(verb: &'static str, quiet: bool) -> Self {
        Self {
            verb,
            on: !quiet && isatty(io::stderr().as_fd()),
            last: None,
            started: Instant::now(),
        }
    }

    pub(super) fn show(&mut self, progress: Progress) {
        let due = match self.last {
            None => self.started.elapsed() >= Self::DELAY,
            Some(last) => last.elapsed() >= Self::INTERVAL,
        };
        if !self.on || !due {
            return;
        }
        self.last = Some(Instant::now());
        let total = progress
            .total_bytes
            .map_or_else(String::new, |total| format!(" of {}", size(total)));
        let line = format!(
            "\r{} {}{total}, {} layers\x1b[K",
            self.verb,
            size(progress.read_bytes),
            progress.layers
        );
        // Progress that cannot be shown is not worth failing over.
        let _ = io::stderr().write_all(line.as_bytes());
    }

    pub(super) fn clear(&self) {
        if self.last.is_some() {
            let _ = io::stderr().write_all(b"\r\x1b[K");
        }
    }
}
