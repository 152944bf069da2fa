//! A blob's bytes as one stream: first those that are there, then those that come, which are kept.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, PoisonError};

/// Why a stream stopped that should have gone on.
#[derive(Debug)]
pub(super) enum Stopped {
    /// The source failed.
    Source(io::Error),
    /// The file that keeps the bytes failed.
    Part(io::Error),
    /// More came than was promised.
    TooLong,
}

/// What is known of a stream when whoever read it is done.
#[derive(Debug, Default)]
pub(super) struct Report {
    /// Bytes handed on.
    pub bytes: u64,
    /// Whether the source has ended.
    pub ended: bool,
    pub stopped: Option<Stopped>,
}

/// The stream. Its errors are the report's; those that it returns only end the reading.
pub(super) struct Tee<R> {
    part: File,
    /// Bytes of the blob that were there.
    kept: u64,
    /// Bytes of the whole blob.
    size: u64,
    source: R,
    report: Arc<Mutex<Report>>,
}

impl<R: Read> Tee<R> {
    pub(super) fn new(part: File, kept: u64, size: u64, source: R) -> Self {
        Self {
            part,
            kept,
            size,
            source,
            report: Arc::default(),
        }
    }

    pub(super) fn report(&self) -> Arc<Mutex<Report>> {
        Arc::clone(&self.report)
    }

    fn step(&mut self, at: u64, buffer: &mut [u8]) -> Result<usize, Stopped> {
        let limit = |left: u64| usize::try_from(left).unwrap_or(usize::MAX);
        if at < self.kept {
            let len = buffer.len().min(limit(self.kept - at));
            let len = self.part.read_at(&mut buffer[..len], at);
            return match len {
                Ok(0) => Err(Stopped::Part(io::ErrorKind::UnexpectedEof.into())),
                other => other.map_err(Stopped::Part),
            };
        }
        if at == self.size {
            return match read(&mut self.source, &mut [0]) {
                Ok(0) => Ok(0),
                Ok(_) => Err(Stopped::TooLong),
                Err(error) => Err(Stopped::Source(error)),
            };
        }
        let len = buffer.len().min(limit(self.size - at));
        let len = read(&mut self.source, &mut buffer[..len]).map_err(Stopped::Source)?;
        self.part
            .write_all_at(&buffer[..len], at)
            .map_err(Stopped::Part)?;
        Ok(len)
    }
}

impl<R: Read> Read for Tee<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let (at, over) = {
            let report = self.report.lock().unwrap_or_else(PoisonError::into_inner);
            (report.bytes, report.ended || report.stopped.is_some())
        };
        if over || buffer.is_empty() {
            return Ok(0);
        }
        let step = self.step(at, buffer);
        let mut report = self.report.lock().unwrap_or_else(PoisonError::into_inner);
        match step {
            Ok(0) => {
                report.ended = true;
                Ok(0)
            }
            Ok(len) => {
                report.bytes += len as u64;
                Ok(len)
            }
            Err(stopped) => {
                report.stopped = Some(stopped);
                Err(io::Error::other("the blob's stream stopped"))
            }
        }
    }
}

/// A read that a signal does not end.
fn read(source: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match source.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}
