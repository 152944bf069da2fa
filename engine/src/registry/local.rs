//! The image store of this process, as both ends of a transfer.

use super::ends::{
    Blob, Compression, Document, EndError, Form, Giving, Incoming, LayerSink, Origin, Outgoing,
    OutgoingLayer, Stored, Taking, Target, Wanted,
};
use super::platform_of;
use crate::containers::ContainerError;
use crate::events;
use crate::images;
use crate::paths::Roots;
use hullbox_image::{
    Digest, LayerBlob, LayerCompression, LayerInfo, LayerState, LayerStep, LayerTask, Pull,
    PullError, PullRequest, PushOptions, PushPlan, RawManifest, Reference, ResolveError, Store,
};
use hullbox_model::event::{Kind, Verb, attribute};
use hullbox_registry::Platform;
use std::collections::BTreeMap;
use std::error::Error;
use std::io::{self, Read, Seek, SeekFrom};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

/// The store in a data directory.
#[derive(Debug)]
pub struct LocalStore {
    roots: Roots,
}

/// An error and its causes in words, which may travel.
fn store_error(error: &dyn Error) -> EndError {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let words = cause.to_string();
        if !text.ends_with(&words) {
            text = format!("{text}: {words}");
        }
        next = cause.source();
    }
    EndError::Store(text)
}

fn pull_error(error: &PullError) -> EndError {
    if error.retry_from_start() {
        return EndError::Again;
    }
    store_error(error)
}

fn digest(text: &str) -> Result<Digest, EndError> {
    text.parse::<Digest>().map_err(|error| store_error(&error))
}

fn reference(name: &str) -> Result<Reference, EndError> {
    Reference::parse(name).map_err(|error| store_error(&error))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl LocalStore {
    /// The store in these directories, which are made where there are none.
    ///
    /// # Errors
    /// [`ContainerError`].
    pub fn open(roots: Roots) -> Result<Self, ContainerError> {
        roots.create()?;
        images::open(&roots)?;
        Ok(Self { roots })
    }

    fn store(&self) -> Result<Store, EndError> {
        images::open(&self.roots).map_err(|error| store_error(&error))
    }
}

/// Whether an image can be used where one for `platform` is asked for.
fn fits(store: &Store, text: &str, platform: Option<&str>) -> Result<bool, EndError> {
    let image = match store.resolve(text) {
        Ok(image) => image,
        Err(ResolveError::NotFound(_)) => return Ok(false),
        Err(error) => return Err(store_error(&error)),
    };
    let Some(platform) = platform else {
        return Ok(true);
    };
    let wanted = platform.parse::<Platform>();
    let wanted = wanted.map_err(|error| store_error(&error))?;
    Ok(wanted.distance(&platform_of(&image.config)).is_some())
}

impl Target for LocalStore {
    fn has(&self, text: &str, platform: Option<&str>) -> Result<bool, EndError> {
        fits(&self.store()?, text, platform)
    }

    fn known(&self, name: &str, platform: &str) -> Result<Option<String>, EndError> {
        let (store, reference) = (self.store()?, reference(name)?);
        let failed = |error| store_error(&error);
        if let Some(digest) = reference.digest() {
            let images = store.images_by_digest(&reference, digest).map_err(failed)?;
            for image in images {
                if fits(&store, &image.to_string(), Some(platform))? {
                    return Ok(Some(digest.to_string()));
                }
            }
            return Ok(None);
        }
        let Some((image, digest)) = store.known_digest(&reference).map_err(failed)? else {
            return Ok(None);
        };
        let fits = fits(&store, &image.to_string(), Some(platform))?;
        Ok(fits.then(|| digest.to_string()))
    }

    fn stored_config(&self, text: &str) -> Result<Option<Vec<u8>>, EndError> {
        Ok(self.store()?.stored_config(&digest(text)?))
    }

    fn begin(&self, incoming: &Incoming) -> Result<Arc<dyn Taking>, EndError> {
        let name = reference(&incoming.name)?;
        let request = PullRequest {
            manifest: incoming.manifest.raw.clone(),
            media_type: Some(incoming.manifest.media_type.clone()),
            config: incoming.config.clone(),
            index: incoming.index_digest.as_deref().map(digest).transpose()?,
            origin: Some(name.clone()),
            // As in Docker, a name with a digest gives no tag.
            names: name
                .digest()
                .is_none()
                .then(|| name.clone())
                .into_iter()
                .collect(),
        };
        let pull = self.store()?.begin_pull(request);
        let pull = pull.map_err(|error| pull_error(&error))?;
        let wanted = pull.wanted().map_err(|error| pull_error(&error))?;
        let wanted = wanted.into_iter().map(|layer| Wanted {
            index: layer.index,
            blob: blob(&layer.layer),
            // What another pull has converted has to be asked for, too: it becomes this one's then.
            had: layer.state == LayerState::Had,
        });
        Ok(Arc::new(LocalTaking {
            roots: self.roots.clone(),
            name,
            wanted: wanted.collect(),
            pull: RwLock::new(Some(Arc::new(pull))),
        }))
    }
}

fn blob(info: &LayerInfo) -> Blob {
    Blob {
        media_type: info.media_type.clone().unwrap_or_default(),
        digest: info.digest.to_string(),
        size_bytes: info.size_bytes,
    }
}

/// An image on its way into the store.
struct LocalTaking {
    roots: Roots,
    name: Reference,
    wanted: Vec<Wanted>,
    /// Gone when it is finished.
    pull: RwLock<Option<Arc<Pull>>>,
}

impl Taking for LocalTaking {
    fn wanted(&self) -> Vec<Wanted> {
        self.wanted.clone()
    }

    fn layer(&self, index: usize) -> Result<Option<Box<dyn LayerSink>>, EndError> {
        let pull = self.pull.read().unwrap_or_else(PoisonError::into_inner);
        let pull = pull.clone().ok_or(EndError::Broken)?;
        if index >= pull.layers().len() {
            return Err(EndError::Broken);
        }
        match pull.layer(index).map_err(|error| pull_error(&error))? {
            LayerStep::Had => Ok(None),
            LayerStep::Fetch(task) => Ok(Some(Box::new(LocalSink(task)))),
        }
    }

    fn finish(&self) -> Result<Stored, EndError> {
        let mut pull = self.pull.write().unwrap_or_else(PoisonError::into_inner);
        let pull = pull.take().and_then(Arc::into_inner);
        let pull = pull.ok_or(EndError::Broken)?;
        let mut store = images::open(&self.roots).map_err(|error| store_error(&error))?;
        let loaded = pull.finish(&mut store);
        let id = loaded.map_err(|error| pull_error(&error))?.id.to_string();
        note(&self.roots, Verb::Pull, &self.name);
        Ok(Stored { id })
    }
}

/// As Docker notes it: the image by its name, and its repository.
fn note(roots: &Roots, verb: Verb, name: &Reference) {
    let about = [(attribute::NAME.to_owned(), name.familiar_name())];
    let about = about.into_iter().collect();
    events::emit(roots, Kind::Image, verb, &name.familiar(), about);
}

struct LocalSink(LayerTask);

impl LayerSink for LocalSink {
    fn partial_bytes(&self) -> u64 {
        self.0.partial_bytes()
    }

    fn feed(self: Box<Self>, blob: &mut (dyn Read + Send)) -> Result<(), EndError> {
        self.0.feed(blob).map_err(|error| pull_error(&error))
    }
}

impl Origin for LocalStore {
    fn outgoing(
        &self,
        name: &str,
        compression: Option<Compression>,
    ) -> Result<Arc<dyn Giving>, EndError> {
        let compression = compression.map(layer_compression).transpose()?;
        let plan = self.store()?.push_plan(name, PushOptions { compression });
        let plan = plan.map_err(|error| match error {
            hullbox_image::PushError::Resolve(ResolveError::NotFound(name)) => {
                EndError::NotFound(name)
            }
            error => store_error(&error),
        })?;
        let layers = plan.layers.iter().map(|layer| OutgoingLayer {
            blob: layer.blob.as_ref().map(blob),
            local: layer.local,
            diff_id: layer.diff_id.to_string(),
            origins: layer.origins.clone(),
        });
        let outgoing = Outgoing {
            id: plan.image.to_string(),
            config: plan.config.clone(),
            layers: layers.collect(),
        };
        Ok(Arc::new(LocalGiving {
            roots: self.roots.clone(),
            plan,
            outgoing,
            made: Mutex::default(),
        }))
    }

    fn tags(&self, repository: &str) -> Result<Vec<String>, EndError> {
        let wanted = reference(repository)?.familiar_name();
        let images = self.store()?.list();
        let images = images.map_err(|error| store_error(&error))?;
        let named = |image: &hullbox_image::ImageSummary| {
            image
                .repository
                .as_ref()
                .is_some_and(|name| *name == wanted)
        };
        let images = images.into_iter().filter(named);
        Ok(images.filter_map(|image| image.tag).collect())
    }
}

fn layer_compression(compression: Compression) -> Result<LayerCompression, EndError> {
    let form = match compression.form {
        Form::Gzip => "gzip",
        Form::Zstd => "zstd",
    };
    let made = LayerCompression::new(form, compression.level.map(i32::from));
    made.map_err(|error| store_error(&error))
}

/// Layers that were compressed, by their place in the image.
type Made = BTreeMap<usize, Arc<Mutex<LayerBlob>>>;

/// An image on its way out of the store.
struct LocalGiving {
    roots: Roots,
    plan: PushPlan,
    outgoing: Outgoing,
    made: Mutex<Made>,
}

impl LocalGiving {
    fn store(&self) -> Result<Store, EndError> {
        images::open(&self.roots).map_err(|error| store_error(&error))
    }

    fn infos(&self, layers: &[Blob]) -> Result<Vec<LayerInfo>, EndError> {
        let pairs = self.plan.layers.iter().zip(layers);
        let info = |(layer, blob): (&hullbox_image::PushLayer, &Blob)| {
            Ok(LayerInfo {
                digest: digest(&blob.digest)?,
                size_bytes: blob.size_bytes,
                media_type: Some(blob.media_type.clone()).filter(|text| !text.is_empty()),
                diff_id: layer.diff_id,
            })
        };
        pairs.map(info).collect()
    }

    fn made(&self, index: usize) -> Result<Arc<Mutex<LayerBlob>>, EndError> {
        if let Some(made) = lock(&self.made).get(&index) {
            return Ok(Arc::clone(made));
        }
        // Not under the lock: others are compressed meanwhile.
        let made = self.store()?.layer_blob(&self.plan, index);
        let made = Arc::new(Mutex::new(made.map_err(|error| store_error(&error))?));
        lock(&self.made).insert(index, Arc::clone(&made));
        Ok(made)
    }
}

impl Giving for LocalGiving {
    fn outgoing(&self) -> &Outgoing {
        &self.outgoing
    }

    fn make(&self, index: usize) -> Result<Blob, EndError> {
        let made = self.made(index)?;
        let made = lock(&made);
        Ok(blob(made.info()))
    }

    fn open(&self, index: usize, from_bytes: u64) -> Result<Box<dyn Read + Send>, EndError> {
        Ok(Box::new(Part {
            blob: self.made(index)?,
            at: from_bytes,
        }))
    }

    fn manifest(&self, layers: &[Blob]) -> Result<Document, EndError> {
        let manifest = self.plan.manifest_for(&self.infos(layers)?);
        let manifest = manifest.map_err(|error| store_error(&error))?;
        Ok(Document {
            media_type: manifest.media_type,
            digest: manifest.digest.to_string(),
            raw: manifest.bytes,
        })
    }

    fn sent(&self, name: &str, manifest: &Document, layers: &[Blob]) -> Result<(), EndError> {
        let name = reference(name)?;
        let manifest = RawManifest {
            bytes: manifest.raw.clone(),
            media_type: manifest.media_type.clone(),
            digest: digest(&manifest.digest)?,
        };
        let infos = self.infos(layers)?;
        self.store()?
            .pushed(&self.plan, &name, &manifest, &infos)
            .map_err(|error| store_error(&error))?;
        note(&self.roots, Verb::Push, &name);
        Ok(())
    }
}

/// A compressed layer from an offset on.
struct Part {
    blob: Arc<Mutex<LayerBlob>>,
    at: u64,
}

impl Read for Part {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut blob = lock(&self.blob);
        blob.seek(SeekFrom::Start(self.at))?;
        let len = blob.read(buffer)?;
        self.at += len as u64;
        Ok(len)
    }
}
