//! What all threads of a pull share: what is known of each layer, and what becomes of them all.

use super::converted;
use super::error::PullError;
use super::request::{Examined, Position, PullRequest, examine};
use super::slots::Slots;
use crate::digest::{DiffId, Digest, ImageId};
use crate::limits::Limits;
use crate::load::{Finisher, Form, LayerPart, Session, StagedLayer, Syncs};
use crate::reference::Reference;
use crate::store::{
    BlobLock, LayerInfo, NewBlob, NewImage, NewLayer, NewRepoDigest, Partials, Staging, Store,
    StoreError, Travel,
};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Layers of one pull that are converted at a time; each may use its part of the memory that the
/// limits allow one layer.
const MAX_CONVERSIONS: usize = 6;

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

/// What all threads of a pull use.
#[derive(Debug)]
pub(super) struct Shared {
    store: Mutex<Store>,
    pub partials: Partials,
    pub limits: Limits,
    request: PullRequest,
    pub id: ImageId,
    created: Option<i64>,
    /// Every blob once, in the order of the manifest.
    pub blobs: Vec<LayerInfo>,
    /// Lowest first.
    positions: Vec<Position>,
    /// Decompressed bytes that may still come.
    budget: AtomicU64,
    pub slots: Slots,
    state: Mutex<State>,
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

/// What is named by its digest gets no tag, as in Docker.
fn is_tag(name: &Reference) -> bool {
    name.tag().is_some() && name.digest().is_none()
}

/// Nothing that is kept behind these locks can be half done.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// Begins a pull.
    pub(super) fn begin(store: &Store, request: PullRequest) -> Result<Self, PullError> {
        let limits = store.limits().clone();
        let Examined {
            blobs,
            positions,
            created,
        } = examine(&request, &limits)?;
        let staging = store.stage()?;
        let partials = store.partials();
        partials.create()?;
        let state = State {
            staging,
            ready: blobs.iter().map(|_| None).collect(),
            had: vec![None; positions.len()],
            syncs: Syncs::default(),
        };
        Ok(Self {
            store: Mutex::new(Store::open(store.root())?.with_limits(limits.clone())),
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
        })
    }

    /// The limits of a layer that is converted beside others.
    pub(super) fn share(&self) -> Limits {
        Limits {
            max_layer_memory_bytes: self.limits.max_layer_memory_bytes / MAX_CONVERSIONS as u64,
            ..self.limits.clone()
        }
    }

    pub(super) fn left(&self) -> u64 {
        self.budget.load(Ordering::Relaxed)
    }

    pub(super) fn spend(&self, bytes: u64) {
        let take = |left: u64| Some(left.saturating_sub(bytes));
        let _ = self
            .budget
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
    }

    pub(super) fn with_staging<T>(
        &self,
        work: impl FnOnce(&mut Staging) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        work(&mut lock(&self.state).staging)
    }

    /// Whether the image has the layer once.
    pub(super) fn is_once(&self, index: usize) -> bool {
        let places = self.positions.iter().filter(|place| place.blob == index);
        places.count() == 1
    }

    pub(super) fn set_ready(&self, index: usize, layer: StagedLayer, syncs: Syncs) {
        let mut state = lock(&self.state);
        state.ready[index] = Some(layer);
        state.syncs.append(syncs);
    }

    /// Whether nothing is to be done for this blob any more.
    pub(super) fn is_there(&self, index: usize) -> Result<bool, StoreError> {
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
    pub(super) fn take_converted(&self, index: usize, blob: &BlobLock) -> Result<bool, StoreError> {
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

    pub(super) fn state_of(&self, index: usize) -> Result<LayerState, StoreError> {
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
    pub(super) fn assemble(self, store: &Store) -> Result<(Staging, NewImage), PullError> {
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
                manifest,
                shown: true,
            }));
            repo_digests.push(NewRepoDigest {
                repository: repository.clone(),
                digest: manifest,
                manifest,
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
