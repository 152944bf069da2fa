//! One load at work: its staging area, the layers converted so far, its budget.

use super::error::{LoadError, stream_error};
use crate::compress::{Digests, Stream, StreamError};
use crate::erofs::Written;
use crate::layer::{Converted, CopyBudget, Draft, LayerError, Workspace, convert};
use crate::limits::Limits;
use crate::recipe::{RecipeWriter, Recorder};
use crate::store::{Staging, Store, StoreError};
use hullbox_tar::{TarError, TarReader};
use std::cell::Cell;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::thread::JoinHandle;

/// Layers that one source may have, wanted or not.
const MAX_STAGED: usize = 1024;
/// Files that are being written out to the disk at a time.
const MAX_SYNCING: usize = 32;
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

/// A layer that was converted.
#[derive(Debug)]
pub(crate) struct StagedLayer {
    pub digests: Digests,
    pub form: Form,
    pub recipe: PathBuf,
    pub recipe_bytes: u64,
    /// Entries of its tar.
    pub entries: u64,
    /// Whether the tar has the mark of its end.
    pub ended: bool,
}

/// How far its image is.
#[derive(Debug)]
pub(crate) enum Form {
    Finished { path: PathBuf, written: Written },
    Draft(Draft),
}

pub(crate) struct Session<'a> {
    pub store: &'a Store,
    pub staging: Staging,
    pub layers: Vec<StagedLayer>,
    /// Decompressed bytes that may still come.
    budget: u64,
    pub copies: CopyBudget,
    layer_count: Rc<Cell<usize>>,
    syncing: VecDeque<(PathBuf, JoinHandle<io::Result<()>>)>,
    sync_failed: Option<StoreError>,
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
            syncing: VecDeque::new(),
            sync_failed: None,
        })
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
        let fail = |error| LoadError::Layer(name.to_owned(), error);
        if self.layers.len() == MAX_STAGED {
            return Err(LoadError::TooMany {
                what: "layers",
                limit: MAX_STAGED as u64,
            });
        }
        let limits = self.limits();
        let image = self.staging.create_file()?;
        let spool = self.staging.create_file()?;
        let tree = self.staging.create_file()?;
        let (path, spool_path, tree_path) = (image.1.clone(), spool.1.clone(), tree.1.clone());
        let max_bytes = limits.max_layer_bytes.min(self.budget);
        let stream = Stream::new(blob, true, max_bytes, limits)
            .map_err(|error| LoadError::from_read(name, error))?;
        let (recipe_file, recipe) = self.staging.create_file()?;
        let writer = RecipeWriter::new(recipe_file).map_err(StoreError::io("write", &recipe))?;
        let mut tar = TarReader::new(Recorder::new(stream, writer), limits.max_header_bytes);
        let space = Workspace { image, spool, tree };
        let converted =
            convert(&mut tar, space, limits).map_err(|e| prefer_limit_error(name, e))?;
        tar.drain()
            .map_err(|error| prefer_limit_error(name, error.into()))?;
        let (entries, ended) = (tar.entries(), tar.ended());
        let (stream, writer) = tar.into_inner().into_parts();
        let recipe_bytes = self.finish_recipe(writer, &recipe)?;
        let digests = stream
            .digests()
            .map_err(|error| LoadError::from_read(name, error))?
            .ok_or_else(|| fail(LayerError::TooLarge))?;
        self.budget = self.budget.saturating_sub(digests.plain_bytes);
        let form = match converted {
            Converted::Independent { file, written } => {
                for path in [spool_path, tree_path] {
                    let _ = std::fs::remove_file(path);
                }
                self.sync(path.clone(), file);
                Form::Finished { path, written }
            }
            Converted::Dependent(draft) => Form::Draft(draft),
        };
        self.layers.push(StagedLayer {
            digests,
            form,
            recipe,
            recipe_bytes,
            entries,
            ended,
        });
        self.layer_count.set(self.layers.len());
        Ok(self.layers.len() - 1)
    }

    fn finish_recipe(&mut self, writer: RecipeWriter, path: &Path) -> Result<u64, StoreError> {
        let failed = || StoreError::io("write", path);
        let (file, _) = writer.finish().map_err(failed())?;
        let len = file.metadata().map_err(failed())?.len();
        self.sync(path.to_owned(), file);
        Ok(len)
    }

    /// Writes a finished file out to the disk while work goes on; a few at a time, each of which is
    /// a thread and a descriptor.
    pub(crate) fn sync(&mut self, path: PathBuf, file: File) {
        if self.syncing.len() >= MAX_SYNCING
            && let Some((path, thread)) = self.syncing.pop_front()
        {
            self.synced(&path, thread);
        }
        let thread = std::thread::Builder::new()
            .name("sync-layer".to_owned())
            .spawn({
                let file = file.try_clone();
                move || file?.sync_data()
            });
        match thread {
            Ok(thread) => self.syncing.push_back((path, thread)),
            // Without a thread it is done at once; the result is looked at like any other's.
            Err(_) => {
                let done = file.sync_data();
                self.note_sync(&path, done);
            }
        }
    }

    fn synced(&mut self, path: &Path, thread: JoinHandle<io::Result<()>>) {
        let lost = || io::Error::other("the thread that syncs ended early");
        let done = thread.join().unwrap_or_else(|_| Err(lost()));
        self.note_sync(path, done);
    }

    /// Keeps the first failure for [`Self::into_staging`].
    fn note_sync(&mut self, path: &Path, done: io::Result<()>) {
        if let Err(error) = done {
            let _ = self
                .sync_failed
                .get_or_insert_with(|| StoreError::io("sync", path)(error));
        }
    }

    /// Waits until every finished file is on the disk, and gives up the staging area.
    pub(crate) fn into_staging(mut self) -> Result<Staging, StoreError> {
        while let Some((path, thread)) = self.syncing.pop_front() {
            self.synced(&path, thread);
        }
        match self.sync_failed {
            Some(error) => Err(error),
            None => Ok(self.staging),
        }
    }
}

/// A limit that was hit deep down is the story, not the reading that it interrupted.
fn prefer_limit_error(name: &str, error: LayerError) -> LoadError {
    if let LayerError::Tar(TarError::Read(source)) = &error
        && let Some(refused) = stream_error(source)
    {
        return LoadError::Refused(name.to_owned(), refused);
    }
    LoadError::Layer(name.to_owned(), error)
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
