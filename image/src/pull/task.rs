//! One layer being fetched: from its bytes to a converted layer, in one pass.

use super::error::PullError;
use super::shared::{Shared, lock};
use super::tee::{Report, Stopped, Tee};
use super::{converted, flush};
use crate::ahead;
use crate::compress::Stream;
use crate::digest::Digest;
use crate::layer::LayerError;
use crate::limits::Limits;
use crate::load::{LayerFiles, LoadError, StagedLayer, Syncs, convert_blob};
use crate::store::{BlobLock, LayerInfo, StoreError};
use sha2::{Digest as _, Sha256};
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;

/// A blob of at least so many bytes is decompressed by a thread of its own, and its image written
/// out to the disk by another.
const MIN_AHEAD: u64 = 1024 * 1024;

/// A layer that this pull fetches; every other pull that wants it waits. One thread has one of
/// these and feeds it: two pulls whose threads wait while they hold others' layers would wait for
/// ever.
#[derive(Debug)]
pub struct LayerTask {
    shared: Arc<Shared>,
    index: usize,
    lock: BlobLock,
    partial_bytes: u64,
}

/// What became of one pass over a blob.
struct Pass {
    outcome: Result<(StagedLayer, Syncs), LoadError>,
    report: Report,
}

impl LayerTask {
    /// Takes up what is there of the blob.
    pub(super) fn new(
        shared: Arc<Shared>,
        index: usize,
        lock: BlobLock,
    ) -> Result<Self, PullError> {
        let mut partial_bytes = lock.part_bytes();
        if partial_bytes > shared.blobs[index].size_bytes {
            lock.remove_part()?;
            partial_bytes = 0;
        }
        Ok(Self {
            shared,
            index,
            lock,
            partial_bytes,
        })
    }

    /// The layer.
    #[must_use]
    pub fn info(&self) -> &LayerInfo {
        &self.shared.blobs[self.index]
    }

    /// How many of the blob's first bytes are there: the source begins behind them.
    #[must_use]
    pub const fn partial_bytes(&self) -> u64 {
        self.partial_bytes
    }

    /// Reads the rest of the blob to its end and converts the layer. At most as many bytes are
    /// taken as the layer's descriptor promises, and everything is compared with its digests.
    /// Waits while as many layers are being converted as memory is meant for.
    ///
    /// # Errors
    /// [`PullError`]. After a failure of the source the layer can be asked for again, and goes on
    /// where this ended.
    pub fn feed(self, mut source: impl Read + Send) -> Result<(), PullError> {
        let path = self.lock.part();
        let part = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(StoreError::io("open", &path))?;
        let slot = self.shared.slots.take(1);
        let share = self.shared.share();
        let mut pass = self.pass(&part, self.partial_bytes, &mut source, &share)?;
        drop(slot);
        if wants_more(&pass, &share, &self.shared.limits) {
            // What it has read is in the file: it begins anew, alone, with all the memory.
            let _alone = self.shared.slots.take_all();
            let kept = pass.report.bytes;
            pass = self.pass(&part, kept, &mut source, &self.shared.limits)?;
        }
        let (mut layer, syncs) = self.judge(pass, &part)?;
        self.shared.spend(layer.digests.plain_bytes);
        converted::keep(&self.lock, &layer)?;
        if self.shared.is_once(self.index) {
            layer.finish_once();
        }
        self.lock.remove_part()?;
        self.shared.set_ready(self.index, layer, syncs);
        Ok(())
    }

    fn pass(
        &self,
        part: &File,
        kept: u64,
        source: &mut (impl Read + Send),
        limits: &Limits,
    ) -> Result<Pass, PullError> {
        let info = self.info();
        let part = part
            .try_clone()
            .map_err(StoreError::io("open", &self.lock.part()))?;
        let tee = Tee::new(part, kept, info.size_bytes, source);
        let report = tee.report();
        let files = self.shared.with_staging(LayerFiles::create)?;
        let paths = files.paths();
        let mut syncs = Syncs::default();
        let max_bytes = limits.max_layer_bytes.min(self.shared.left());
        let name = info.digest.to_string();
        let outcome = if info.size_bytes < MIN_AHEAD {
            Stream::new(tee, true, max_bytes, limits)
                .map_err(|error| LoadError::from_read(&name, error))
                .and_then(|plain| convert_blob(&name, plain, files, limits, &mut syncs))
        } else {
            let image = files.image()?;
            ahead::with(tee, max_bytes, limits, |plain| {
                flush::meanwhile(&image, || {
                    convert_blob(&name, plain, files, limits, &mut syncs)
                })
            })
            .map_err(StoreError::io("start a thread for", &self.lock.part()))?
        };
        if outcome.is_err() {
            for path in paths {
                let _ = std::fs::remove_file(path);
            }
        }
        Ok(Pass {
            outcome: outcome.map(|layer| (layer, syncs)),
            report: std::mem::take(&mut lock(&report)),
        })
    }

    /// The layer, if it is the right one. Bytes that cannot be right are not kept.
    fn judge(&self, pass: Pass, part: &File) -> Result<(StagedLayer, Syncs), PullError> {
        let info = self.info();
        let Report {
            bytes,
            ended,
            stopped,
        } = pass.report;
        match stopped {
            Some(Stopped::Source(error)) => return Err(PullError::Source(info.digest, error)),
            Some(Stopped::Part(error)) => {
                return Err(StoreError::io("use", &self.lock.part())(error).into());
            }
            Some(Stopped::TooLong) => {
                self.lock.remove_part()?;
                return Err(PullError::TooLong {
                    digest: info.digest,
                    expected: info.size_bytes,
                });
            }
            None => {}
        }
        if ended && bytes < info.size_bytes {
            return Err(PullError::CutOff {
                digest: info.digest,
                expected: info.size_bytes,
                found: bytes,
            });
        }
        let error = match pass.outcome {
            Ok((layer, syncs)) => match compare(info, &layer) {
                Ok(()) => return Ok((layer, syncs)),
                Err(error) => error,
            },
            Err(error) if is_ours(&error) => return Err(error.into()),
            // Bytes that make no layer are most likely not those that were promised.
            Err(error) if bytes == info.size_bytes => {
                let found = digest_of(part).map_err(StoreError::io("read", &self.lock.part()))?;
                digest_error(info, found).unwrap_or(error)
            }
            Err(error) => error,
        };
        self.lock.remove_part()?;
        Err(match self.partial_bytes {
            0 => error.into(),
            _ => PullError::Partial(info.digest, Box::new(error)),
        })
    }
}

/// Whether only its share of memory was too small for a layer.
fn wants_more(pass: &Pass, share: &Limits, all: &Limits) -> bool {
    let share = share.max_layer_memory_bytes;
    share < all.max_layer_memory_bytes
        && pass.report.stopped.is_none()
        && matches!(
            &pass.outcome,
            Err(LoadError::Layer(_, LayerError::TooMany { limit, .. })) if *limit == share
        )
}

/// Whether the host failed, and not the layer.
const fn is_ours(error: &LoadError) -> bool {
    matches!(
        error,
        LoadError::Store(_) | LoadError::Layer(_, LayerError::Write(_))
    )
}

fn compare(info: &LayerInfo, layer: &StagedLayer) -> Result<(), LoadError> {
    if let Some(error) = digest_error(info, layer.digests.raw) {
        return Err(error);
    }
    if layer.digests.plain != *info.diff_id.digest() {
        return Err(LoadError::DiffId {
            name: info.digest.to_string(),
            expected: *info.diff_id.digest(),
            found: layer.digests.plain,
        });
    }
    Ok(())
}

fn digest_error(info: &LayerInfo, found: Digest) -> Option<LoadError> {
    (found != info.digest).then(|| LoadError::Digest {
        name: "layer".to_owned(),
        expected: info.digest,
        found,
    })
}

fn digest_of(mut part: &File) -> io::Result<Digest> {
    use io::Seek;
    part.rewind()?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 128 * 1024];
    loop {
        match part.read(&mut buffer)? {
            0 => return Ok(Digest::from_hasher(hasher)),
            len => hasher.update(&buffer[..len]),
        }
    }
}
