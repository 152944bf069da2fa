//! Pulling: an image that arrives as a manifest, a configuration and blobs, each by itself.
//!
//! What travels and how is not known here. Whoever fetches hands over the two documents, asks
//! which layers are wanted, and feeds each into its [`LayerTask`], from as many threads as it
//! likes. A layer is hashed, decompressed and converted while it arrives, and its bytes are kept
//! meanwhile, so that a pull that is broken off goes on where it was. The store changes once, when
//! everything is there and verified.
//!
//! One lock a blob makes two pulls of one layer fetch it once: the second waits, and then has it.

mod converted;
mod error;
mod flush;
mod request;
mod shared;
mod slots;
mod task;
mod tee;

pub use error::PullError;
pub use request::PullRequest;
pub use shared::LayerState;
pub use task::LayerTask;

use crate::digest::{Digest, ImageId};
use crate::load::Loaded;
use crate::store::{BlobLock, LayerInfo, Store};
use serde::{Deserialize, Serialize};
use shared::Shared;
use std::sync::Arc;

/// A layer of an image that is pulled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WantedLayer {
    /// Its number, for [`Pull::layer`].
    pub index: usize,
    /// The layer.
    pub layer: LayerInfo,
    /// What is there of it.
    pub state: LayerState,
}

/// What [`Pull::layer`] answers.
#[derive(Debug)]
pub enum LayerStep {
    /// Nothing is to be fetched.
    Had,
    /// The layer is to be fetched.
    Fetch(LayerTask),
}

/// An image being pulled. Several threads may use it. Dropped, it leaves the store as it was, and
/// what was fetched of the layers for the next pull.
#[derive(Debug)]
pub struct Pull {
    shared: Arc<Shared>,
}

impl Store {
    /// Begins to pull an image.
    ///
    /// # Errors
    /// [`PullError`], if the manifest or the configuration is not what it has to be.
    pub fn begin_pull(&self, request: PullRequest) -> Result<Pull, PullError> {
        let shared = Shared::begin(self, request)?;
        Ok(Pull {
            shared: Arc::new(shared),
        })
    }
}

impl Pull {
    /// The layers' blobs, each once, lowest first.
    #[must_use]
    pub fn layers(&self) -> &[LayerInfo] {
        &self.shared.blobs
    }

    /// The image's id.
    #[must_use]
    pub fn id(&self) -> ImageId {
        self.shared.id
    }

    /// What is there of every layer just now.
    ///
    /// # Errors
    /// [`PullError::Store`].
    pub fn wanted(&self) -> Result<Vec<WantedLayer>, PullError> {
        let layers = self.shared.blobs.iter().enumerate();
        layers
            .map(|(index, layer)| {
                Ok(WantedLayer {
                    index,
                    layer: layer.clone(),
                    state: self.shared.state_of(index)?,
                })
            })
            .collect()
    }

    /// Asks for a layer, and waits while another pull fetches it.
    ///
    /// # Errors
    /// [`PullError`].
    pub fn layer(&self, index: usize) -> Result<LayerStep, PullError> {
        if self.shared.is_there(index)? {
            return Ok(LayerStep::Had);
        }
        let lock = self
            .shared
            .partials
            .lock(&self.shared.blobs[index].digest)?;
        self.locked(index, lock)
    }

    /// Asks for a layer. `None` while another pull fetches it.
    ///
    /// # Errors
    /// [`PullError`].
    pub fn try_layer(&self, index: usize) -> Result<Option<LayerStep>, PullError> {
        if self.shared.is_there(index)? {
            return Ok(Some(LayerStep::Had));
        }
        let digest = &self.shared.blobs[index].digest;
        match self.shared.partials.try_lock(digest)? {
            None => Ok(None),
            Some(lock) => self.locked(index, lock).map(Some),
        }
    }

    fn locked(&self, index: usize, lock: BlobLock) -> Result<LayerStep, PullError> {
        // Whoever had the lock until now may have done all that is to be done.
        if self.shared.is_there(index)? || self.shared.take_converted(index, &lock)? {
            return Ok(LayerStep::Had);
        }
        let task = LayerTask::new(Arc::clone(&self.shared), index, lock)?;
        Ok(LayerStep::Fetch(task))
    }

    /// Takes the image in, under its names.
    ///
    /// # Errors
    /// [`PullError`]; the store is then as it was.
    pub fn finish(self, store: &mut Store) -> Result<Loaded, PullError> {
        let shared = Arc::into_inner(self.shared).ok_or(PullError::Busy)?;
        let partials = shared.partials.clone();
        let blobs: Vec<Digest> = shared.blobs.iter().map(|blob| blob.digest).collect();
        let (staging, image) = shared.assemble(store)?;
        let loaded = Loaded {
            id: image.id,
            names: image.names.clone(),
        };
        store.commit(staging, &[image])?;
        for digest in &blobs {
            // What stays is for `prune`; who fetches one of them just now will find that out.
            if let Ok(Some(lock)) = partials.try_lock(digest) {
                let _ = lock.remove_done();
                let _ = lock.remove_part();
            }
        }
        Ok(loaded)
    }
}
