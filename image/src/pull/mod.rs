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
mod slots;
mod task;
mod tee;

pub use error::PullError;
pub use task::LayerTask;

use crate::digest::{ChainId, DiffId, Digest, ImageId};
use crate::limits::Limits;
use crate::load::{
    Descriptor, Finisher, Form, LayerPart, LoadError, Loaded, Manifest, Session, StagedLayer,
    Syncs, image_config,
};
use crate::reference::Reference;
use crate::store::{
    BlobLock, LayerInfo, NewBlob, NewImage, NewLayer, NewRepoDigest, Partials, Staging, Store,
    StoreError, Travel,
};
use serde::{Deserialize, Serialize};
use slots::Slots;
use std::fs::File;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Layers of one pull that are converted at a time; each may use its part of the memory that the
/// limits allow one layer.
const MAX_CONVERSIONS: usize = 6;

/// An image as whoever has it describes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PullRequest {
    /// The manifest, byte for byte.
    pub manifest: Vec<u8>,
    /// The media type that it was declared with.
    pub media_type: Option<String>,
    /// The configuration, byte for byte.
    pub config: Vec<u8>,
    /// Digest of the index that led to the manifest.
    pub index: Option<Digest>,
    /// The repository it comes from; tag and digest do not matter.
    pub origin: Option<Reference>,
    /// Names that it is given. Those with a digest give it none.
    pub names: Vec<Reference>,
}

/// What is there of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum LayerState {
    /// All: it is in the store.
    Had,
    /// All: a pull that has not ended yet, or was broken off, has fetched it.
    Converted,
    /// As many of its first bytes.
    Partial(u64),
    /// Nothing.
    Missing,
}

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

/// What all threads of a pull use.
#[derive(Debug)]
pub(crate) struct Shared {
    store: Mutex<Store>,
    partials: Partials,
    limits: Limits,
    request: PullRequest,
    id: ImageId,
    created: Option<i64>,
    /// Every blob once, in the order of the manifest.
    blobs: Vec<LayerInfo>,
    /// Lowest first.
    positions: Vec<Position>,
    /// Decompressed bytes that may still come.
    budget: AtomicU64,
    slots: Slots,
    state: Mutex<State>,
}

/// A layer's place in the image.
#[derive(Debug, Clone, Copy)]
struct Position {
    blob: usize,
    diff_id: DiffId,
    chain: ChainId,
}

struct State {
    staging: Staging,
    /// By blob: the layer, once it is converted.
    ready: Vec<Option<StagedLayer>>,
    /// By position: the layer, where the store has it.
    had: Vec<Option<NewLayer>>,
    syncs: Syncs,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").finish_non_exhaustive()
    }
}

impl Store {
    /// Begins to pull an image.
    ///
    /// # Errors
    /// [`PullError`], if the manifest or the configuration is not what it has to be.
    pub fn begin_pull(&self, request: PullRequest) -> Result<Pull, PullError> {
        let limits = self.limits().clone();
        let (blobs, positions, created) = examine(&request, &limits)?;
        let staging = self.stage()?;
        let partials = self.partials();
        partials.create()?;
        let state = State {
            staging,
            ready: blobs.iter().map(|_| None).collect(),
            had: vec![None; positions.len()],
            syncs: Syncs::default(),
        };
        let shared = Shared {
            store: Mutex::new(Store::open(self.root())?.with_limits(limits.clone())),
            partials,
            id: Digest::of(&request.config).into(),
            created,
            request,
            blobs,
            positions,
            budget: AtomicU64::new(limits.max_total_layer_bytes),
            slots: Slots::new(MAX_CONVERSIONS),
            limits,
            state: Mutex::new(state),
        };
        Ok(Pull {
            shared: Arc::new(shared),
        })
    }
}

type Examined = (Vec<LayerInfo>, Vec<Position>, Option<i64>);

/// Reads and compares the two documents.
fn examine(request: &PullRequest, limits: &Limits) -> Result<Examined, LoadError> {
    for (what, document) in [("manifest", &request.manifest), ("config", &request.config)] {
        if document.len() as u64 > limits.max_json_bytes {
            return Err(LoadError::Oversized {
                name: what.to_owned(),
                limit: limits.max_json_bytes,
            });
        }
    }
    let media_type = request.media_type.as_deref();
    let parsed = Manifest::parse("manifest", &request.manifest, media_type)?;
    let Manifest::Image { config, layers } = parsed else {
        return Err(LoadError::Unexpected {
            name: "manifest".to_owned(),
            expected: "an image's manifest, but an index",
        });
    };
    config.verify("config", &request.config)?;
    let (document, diff_ids) = image_config("config", &request.config, limits)?;
    if layers.len() != diff_ids.len() {
        return Err(LoadError::Contradiction(
            "config".to_owned(),
            "it has another number of layers than the manifest",
        ));
    }
    let (blobs, positions) = arrange(layers, diff_ids, limits)?;
    let created = document.created().as_deref();
    Ok((
        blobs,
        positions,
        created.and_then(crate::time::parse_rfc3339),
    ))
}

/// Each blob once, and which blob each layer is.
fn arrange(
    layers: Vec<Descriptor>,
    diff_ids: Vec<DiffId>,
    limits: &Limits,
) -> Result<(Vec<LayerInfo>, Vec<Position>), LoadError> {
    let mut blobs: Vec<LayerInfo> = Vec::new();
    let mut positions = Vec::new();
    let mut chain = None;
    let mut total: u64 = 0;
    for (layer, diff_id) in layers.into_iter().zip(diff_ids) {
        let info = LayerInfo {
            digest: layer.digest,
            size_bytes: layer.size,
            media_type: layer.media_type,
            diff_id,
        };
        let here = ChainId::extend(chain.as_ref(), &diff_id);
        chain = Some(here);
        let known = blobs.iter().position(|blob| blob.digest == info.digest);
        if let Some(known) = known
            && (blobs[known].diff_id, blobs[known].size_bytes) != (diff_id, info.size_bytes)
        {
            return Err(LoadError::Contradiction(
                info.digest.to_string(),
                "two layers of the image are this blob and differ",
            ));
        }
        let blob = known.unwrap_or_else(|| {
            total = total.saturating_add(info.size_bytes);
            blobs.push(info.clone());
            blobs.len() - 1
        });
        if info.size_bytes > limits.max_layer_bytes || total > limits.max_total_layer_bytes {
            return Err(LoadError::Oversized {
                name: info.digest.to_string(),
                limit: limits.max_layer_bytes,
            });
        }
        positions.push(Position {
            blob,
            diff_id,
            chain: here,
        });
    }
    Ok((blobs, positions))
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

/// What is named by its digest gets no tag, as in Docker.
fn is_tag(name: &Reference) -> bool {
    name.tag().is_some() && name.digest().is_none()
}

/// Nothing that is kept behind these locks can be half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// The limits of a layer that is converted beside others.
    fn share(&self) -> Limits {
        Limits {
            max_layer_memory_bytes: self.limits.max_layer_memory_bytes / MAX_CONVERSIONS as u64,
            ..self.limits.clone()
        }
    }

    fn left(&self) -> u64 {
        self.budget.load(Ordering::Relaxed)
    }

    fn spend(&self, bytes: u64) {
        let take = |left: u64| Some(left.saturating_sub(bytes));
        let _ = self
            .budget
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
    }

    fn with_staging<T>(
        &self,
        work: impl FnOnce(&mut Staging) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        work(&mut lock(&self.state).staging)
    }

    /// Whether the image has the layer once.
    fn is_once(&self, index: usize) -> bool {
        let places = self.positions.iter().filter(|place| place.blob == index);
        places.count() == 1
    }

    fn set_ready(&self, index: usize, layer: StagedLayer, syncs: Syncs) {
        let mut state = lock(&self.state);
        state.ready[index] = Some(layer);
        state.syncs.append(syncs);
    }

    /// Whether nothing is to be done for this blob any more.
    fn is_there(&self, index: usize) -> Result<bool, StoreError> {
        if lock(&self.state).ready[index].is_some() {
            return Ok(true);
        }
        let positions = || {
            let all = self.positions.iter().enumerate();
            all.filter(move |(_, position)| position.blob == index)
        };
        for (at, position) in positions() {
            let known = lock(&self.state).had[at].is_some();
            if !known {
                let layer = self.stored(position)?;
                lock(&self.state).had[at] = layer;
            }
        }
        let state = lock(&self.state);
        Ok(positions().all(|(at, _)| state.had[at].is_some()))
    }

    /// The store's layer of this place. While the staging area exists its files stay.
    fn stored(&self, position: &Position) -> Result<Option<NewLayer>, StoreError> {
        let store = lock(&self.store);
        for (key, dependent) in [
            (position.diff_id.hex(), false),
            (position.chain.hex(), true),
        ] {
            if let Some(known) = store.known_layer(&key)?
                && known.dependent == dependent
                && known.diff_id == position.diff_id
                // One without a proof gets it now, with a new file.
                && known.facts.proof.is_some()
            {
                return Ok(Some(NewLayer {
                    diff_id: position.diff_id,
                    key,
                    dependent,
                    staged: None,
                    facts: known.facts,
                }));
            }
        }
        Ok(None)
    }

    /// Takes over what another pull has converted.
    fn take_converted(&self, index: usize, blob: &BlobLock) -> Result<bool, StoreError> {
        let info = &self.blobs[index];
        let take = |staging: &mut Staging| converted::take(blob, &info.digest, staging);
        let Some(layer) = self.with_staging(take)? else {
            return Ok(false);
        };
        if layer.digests.plain != *info.diff_id.digest() {
            // Another manifest told the truth of this blob: fetching it will say so.
            return Ok(false);
        }
        let mut syncs = Syncs::default();
        let mut sync = |path: &std::path::Path| {
            let file = File::open(path).map_err(StoreError::io("open", path))?;
            syncs.start(path.to_owned(), file);
            Ok::<_, StoreError>(())
        };
        sync(&layer.recipe)?;
        if let Form::Finished { path, .. } = &layer.form {
            sync(path)?;
        }
        self.set_ready(index, layer, syncs);
        Ok(true)
    }

    fn state_of(&self, index: usize) -> Result<LayerState, StoreError> {
        if self.is_there(index)? {
            return Ok(LayerState::Had);
        }
        let (converted, bytes) = self.partials.look(&self.blobs[index].digest);
        Ok(match bytes {
            _ if converted => LayerState::Converted,
            0 => LayerState::Missing,
            bytes => LayerState::Partial(bytes),
        })
    }

    /// Finishes what needs the layers below, and makes the image that is to be taken in.
    fn assemble(self, store: &Store) -> Result<(Staging, NewImage), PullError> {
        for (index, info) in self.blobs.iter().enumerate() {
            if !self.is_there(index)? {
                return Err(PullError::Incomplete(info.digest));
            }
        }
        let travel = self.travel();
        let state = self.state.into_inner();
        let State {
            staging,
            ready,
            had,
            syncs,
        } = state.unwrap_or_else(PoisonError::into_inner);
        let mut layers = Vec::new();
        let places: Vec<Option<usize>> = ready
            .into_iter()
            .map(|layer| {
                layer.map(|layer| {
                    layers.push(layer);
                    layers.len() - 1
                })
            })
            .collect();
        let mut parts = Vec::new();
        for (position, had) in self.positions.iter().zip(had) {
            let info = &self.blobs[position.blob];
            let index = match (places[position.blob], had) {
                (Some(index), _) => index,
                (None, Some(stored)) => {
                    layers.push(StagedLayer::stored(stored));
                    layers.len() - 1
                }
                (None, None) => return Err(PullError::Incomplete(info.digest)),
            };
            parts.push(LayerPart {
                name: info.digest.to_string(),
                index,
                raw: None,
                media_type: None,
            });
        }
        let diff_ids: Vec<DiffId> = self.positions.iter().map(|p| p.diff_id).collect();
        let mut session = Session::of_converted(store, staging, layers, syncs);
        let layers = Finisher::default().stack(&mut session, &[], &parts, &diff_ids)?;
        let names = self.request.names.into_iter();
        let image = NewImage {
            id: self.id,
            config: self.request.config,
            manifest: Some(self.request.manifest),
            created: self.created,
            layers,
            names: names.filter(is_tag).collect(),
            travel,
        };
        Ok((session.into_staging()?, image))
    }

    /// What the store remembers of where the image came from.
    fn travel(&self) -> Travel {
        let ready = lock(&self.state);
        let origin = self.request.origin.as_ref().map(Reference::name);
        let manifest = Digest::of(&self.request.manifest);
        let mut repo_digests = Vec::new();
        if let Some(repository) = &origin {
            let index = self.request.index.filter(|index| *index != manifest);
            repo_digests.extend(index.map(|digest| NewRepoDigest {
                repository: repository.clone(),
                digest,
                shown: true,
            }));
            repo_digests.push(NewRepoDigest {
                repository: repository.clone(),
                digest: manifest,
                shown: index.is_none(),
            });
        }
        let blobs = self.blobs.iter().zip(&ready.ready);
        Travel {
            blobs: blobs
                .map(|(info, layer)| NewBlob {
                    info: info.clone(),
                    verified: layer.is_some(),
                    made: None,
                    origin: origin.clone(),
                })
                .collect(),
            repo_digests,
        }
    }
}
