//! A blob's bytes on their way into a request: read on a blocking thread, hashed once, counted.

use super::options::{BlobSource, PushOptions};
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hullbox_model::digest::Digest;
use sha2::{Digest as _, Sha256};
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use tokio::sync::mpsc;

/// Bytes that are read at once.
const PIECE_BYTES: usize = 128 << 10;
/// Pieces that wait for the connection.
const PIECES: usize = 4;

/// What is known of a blob's bytes over all tries to send them.
#[derive(Default)]
pub(super) struct Reading {
    hashed: Mutex<Hashed>,
    /// The first error of the source.
    error: Mutex<Option<io::Error>>,
    /// Offset behind the last byte that a connection took.
    sent_bytes: AtomicU64,
    /// The connection would take more than the source has given.
    is_hungry: AtomicBool,
}

#[derive(Default)]
struct Hashed {
    hasher: Sha256,
    upto_bytes: u64,
}

impl Reading {
    pub(super) fn sent_bytes(&self) -> u64 {
        self.sent_bytes.load(Ordering::Relaxed)
    }

    pub(super) fn set_sent(&self, offset_bytes: u64) {
        self.sent_bytes.store(offset_bytes, Ordering::Relaxed);
    }

    /// Whether the connection waits for the source, and not the other way round.
    pub(super) fn is_hungry(&self) -> bool {
        self.is_hungry.load(Ordering::Relaxed)
    }

    /// The error that ended a body, if the source had one.
    pub(super) fn take_error(&self) -> Option<io::Error> {
        self.error
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    /// The digest of all bytes, once all were read.
    pub(super) fn digest(&self, size_bytes: u64) -> Option<Digest> {
        let hashed = self.hashed.lock().unwrap_or_else(PoisonError::into_inner);
        (hashed.upto_bytes == size_bytes).then(|| Digest::from_hasher(hashed.hasher.clone()))
    }

    /// Hashes what was not hashed by an earlier try.
    fn hash(&self, offset_bytes: u64, bytes: &[u8]) {
        let mut hashed = self.hashed.lock().unwrap_or_else(PoisonError::into_inner);
        let known = hashed.upto_bytes.saturating_sub(offset_bytes);
        let fresh = usize::try_from(known)
            .ok()
            .and_then(|known| bytes.get(known..));
        if let Some(fresh) = fresh.filter(|_| offset_bytes <= hashed.upto_bytes) {
            hashed.hasher.update(fresh);
            hashed.upto_bytes += fresh.len() as u64;
        }
    }

    fn fail(&self, error: io::Error) {
        let mut first = self.error.lock().unwrap_or_else(PoisonError::into_inner);
        first.get_or_insert(error);
    }
}

/// The body of a request: `length_bytes` of a blob from an offset on.
pub(super) struct BlobBody {
    receiver: mpsc::Receiver<Bytes>,
    reading: Arc<Reading>,
    offset_bytes: u64,
    left_bytes: u64,
    progress: Option<Arc<dyn Fn(u64) + Send + Sync>>,
}

impl BlobBody {
    pub(super) fn new(
        source: &Arc<dyn BlobSource>,
        reading: &Arc<Reading>,
        offset_bytes: u64,
        length_bytes: u64,
        options: &PushOptions,
    ) -> Self {
        let (sender, receiver) = mpsc::channel(PIECES);
        let (source, read) = (source.clone(), reading.clone());
        tokio::task::spawn_blocking(move || {
            if let Err(error) = pump(&*source, &read, offset_bytes, length_bytes, &sender) {
                read.fail(error);
            }
        });
        reading.set_sent(offset_bytes);
        reading.is_hungry.store(false, Ordering::Relaxed);
        Self {
            receiver,
            reading: reading.clone(),
            offset_bytes,
            left_bytes: length_bytes,
            progress: options.progress.clone(),
        }
    }
}

/// Reads a blob until nobody takes it any more.
fn pump(
    source: &dyn BlobSource,
    reading: &Reading,
    mut offset_bytes: u64,
    length_bytes: u64,
    sender: &mpsc::Sender<Bytes>,
) -> io::Result<()> {
    let mut reader = source.open(offset_bytes)?;
    let end = offset_bytes + length_bytes;
    while offset_bytes < end {
        let want = usize::try_from(end - offset_bytes).unwrap_or(usize::MAX);
        let mut piece = vec![0; want.min(PIECE_BYTES)];
        let mut filled = 0;
        while filled < piece.len() {
            match reader.read(&mut piece[filled..]) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(length) => filled += length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        reading.hash(offset_bytes, &piece);
        offset_bytes += filled as u64;
        if sender.blocking_send(piece.into()).is_err() {
            return Ok(());
        }
    }
    Ok(())
}

impl Body for BlobBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if self.left_bytes == 0 {
            return Poll::Ready(None);
        }
        let piece = self.receiver.poll_recv(context);
        let is_hungry = piece.is_pending();
        self.reading.is_hungry.store(is_hungry, Ordering::Relaxed);
        match piece {
            Poll::Pending => Poll::Pending,
            // The source has failed; its error is kept elsewhere.
            Poll::Ready(None) => Poll::Ready(Some(Err(io::ErrorKind::UnexpectedEof.into()))),
            Poll::Ready(Some(piece)) => {
                let length = piece.len() as u64;
                self.left_bytes = self.left_bytes.saturating_sub(length);
                self.offset_bytes += length;
                self.reading.set_sent(self.offset_bytes);
                if let Some(progress) = &self.progress {
                    progress(self.offset_bytes);
                }
                Poll::Ready(Some(Ok(Frame::data(piece))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.left_bytes == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left_bytes)
    }
}
