//! One load at work: its staging area, the layers converted so far, its budget.

use super::convert::{LayerFiles, StagedLayer, convert_blob};
use super::error::LoadError;
use super::syncs::Syncs;
use crate::compress::{Stream, StreamError};
use crate::layer::{CopyBudget, LayerError};
use crate::limits::Limits;
use crate::store::{Staging, Store, StoreError};
use std::cell::Cell;
use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;
use std::rc::Rc;

/// Layers that one source may have, wanted or not.
const MAX_STAGED: usize = 1024;
/// Bytes between two reports of progress.
const REPORT_EVERY: u64 = 1024 * 1024;

/// How far a load is. Reported often; drawing it less often is the receiver's business.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Bytes of the source read so far.
    pub read_bytes: u64,
    /// Bytes of the source, where that is known.
    pub total_bytes: Option<u64>,
    /// Layers converted so far.
    pub layers: usize,
}

pub(crate) struct Session<'a> {
    pub store: &'a Store,
    pub staging: Staging,
    pub layers: Vec<StagedLayer>,
    /// Decompressed bytes that may still come.
    budget: u64,
    pub copies: CopyBudget,
    layer_count: Rc<Cell<usize>>,
    syncs: Syncs,
}

impl<'a> Session<'a> {
    pub(crate) fn new(store: &'a Store) -> Result<Self, StoreError> {
        Ok(Self {
            store,
            staging: store.stage()?,
            layers: Vec::new(),
            budget: store.limits().max_total_layer_bytes,
            copies: CopyBudget::new(store.limits()),
            layer_count: Rc::default(),
            syncs: Syncs::default(),
        })
    }

    /// A session whose layers were converted elsewhere, in this staging area.
    pub(crate) fn of_converted(
        store: &'a Store,
        staging: Staging,
        layers: Vec<StagedLayer>,
        syncs: Syncs,
    ) -> Self {
        Self {
            store,
            staging,
            layers,
            budget: 0,
            copies: CopyBudget::new(store.limits()),
            layer_count: Rc::default(),
            syncs,
        }
    }

    pub(crate) fn limits(&self) -> &'a Limits {
        self.store.limits()
    }

    /// Wraps a source so that reading it reports progress.
    pub(crate) fn watch<'p, R: Read>(
        &self,
        inner: R,
        total_bytes: Option<u64>,
        progress: &'p mut dyn FnMut(Progress),
    ) -> Watched<'p, R> {
        Watched {
            inner,
            progress,
            layers: Rc::clone(&self.layer_count),
            read_bytes: 0,
            reported: 0,
            total_bytes,
        }
    }

    /// Converts a layer's blob and hashes it on both sides. `name` is for errors.
    pub(crate) fn add_layer(&mut self, name: &str, blob: impl Read) -> Result<usize, LoadError> {
        if self.layers.len() == MAX_STAGED {
            return Err(LoadError::TooMany {
                what: "layers",
                limit: MAX_STAGED as u64,
            });
        }
        let limits = self.limits();
        let files = LayerFiles::create(&mut self.staging)?;
        let max_bytes = limits.max_layer_bytes.min(self.budget);
        let stream = Stream::new(blob, true, max_bytes, limits)
            .map_err(|error| LoadError::from_read(name, error))?;
        let layer = convert_blob(name, stream, files, limits, &mut self.syncs)?;
        self.budget = self.budget.saturating_sub(layer.digests.plain_bytes);
        self.layers.push(layer);
        self.layer_count.set(self.layers.len());
        Ok(self.layers.len() - 1)
    }

    /// Writes a finished file out to the disk while work goes on.
    pub(crate) fn sync(&mut self, path: PathBuf, file: File) {
        self.syncs.start(path, file);
    }

    /// Waits until every finished file is on the disk, and gives up the staging area.
    pub(crate) fn into_staging(self) -> Result<Staging, StoreError> {
        self.syncs.wait()?;
        Ok(self.staging)
    }
}

/// Whether an error means that reading on is pointless or dangerous, not just that this is
/// no layer.
pub(crate) fn is_fatal(error: &LoadError) -> bool {
    match error {
        LoadError::Refused(_, StreamError::Expansion(_) | StreamError::TooLarge(_))
        | LoadError::TooMany { .. }
        | LoadError::Store(_) => true,
        LoadError::Layer(_, error) => matches!(
            error,
            LayerError::Write(_)
                | LayerError::TooMany { .. }
                | LayerError::TooLarge
                | LayerError::Below(_)
        ),
        _ => false,
    }
}

/// A source that reports how far it was read.
pub(crate) struct Watched<'p, R> {
    inner: R,
    progress: &'p mut dyn FnMut(Progress),
    layers: Rc<Cell<usize>>,
    read_bytes: u64,
    reported: u64,
    total_bytes: Option<u64>,
}

impl<'p, R> Watched<'p, R> {
    /// Goes on with another source.
    pub(crate) fn replace<S>(self, inner: S) -> Watched<'p, S> {
        Watched {
            inner,
            progress: self.progress,
            layers: self.layers,
            read_bytes: self.read_bytes,
            reported: self.reported,
            total_bytes: self.total_bytes,
        }
    }
}

impl<R: Read> Read for Watched<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = self.inner.read(buffer)?;
        self.read_bytes += len as u64;
        if len == 0 || self.read_bytes - self.reported >= REPORT_EVERY {
            self.reported = self.read_bytes;
            (self.progress)(Progress {
                read_bytes: self.read_bytes,
                total_bytes: self.total_bytes,
                layers: self.layers.get(),
            });
        }
        Ok(len)
    }
}
