//! From a store into a registry: what is there is not sent, what is elsewhere is mounted.

use super::ends::{Blob, Compression, Document, EndError, Giving, Origin, OutgoingLayer};
use super::error::TransferError;
use super::feed::Streamed;
use super::progress::{Progress, Step, Way, short};
use super::pull::tag_of;
use super::{Watch, blocking, descriptor, digest_of};
use hullbox_registry::{BlobSource, Client, Fetched, ImageName, PushError, PushOptions};
use std::collections::BTreeMap;
use std::io::{self, Cursor, Read};
use std::sync::Arc;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Layers that are compressed and sent at a time.
const UPLOADS: usize = 4;
/// The media type of a configuration, by the manifest's: Docker's manifests name Docker's.
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// An image that was pushed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    /// Its name in full.
    pub name: String,
    /// Its tag.
    pub tag: String,
    /// The digest of its manifest.
    pub digest: String,
    /// Bytes of the manifest.
    pub size_bytes: u64,
}

/// Pushes an image under its own name.
pub(super) async fn push(
    client: &Client,
    origin: &Arc<dyn Origin>,
    target: &ImageName,
    compression: Option<Compression>,
    watch: &Watch,
) -> Result<Pushed, TransferError> {
    let giving = {
        let (origin, name) = (Arc::clone(origin), target.to_string());
        blocking(move || origin.outgoing(&name, compression)).await??
    };
    watch(Progress::Begin {
        way: Way::Push,
        repository: target.name(),
        tag: tag_of(target),
    });
    let layers = send_layers(client, &giving, target, watch).await?;
    let manifest = {
        let (giving, layers) = (Arc::clone(&giving), layers.clone());
        blocking(move || giving.manifest(&layers)).await??
    };
    send_config(client, &giving, target, &manifest).await?;
    let fetched = Fetched {
        raw: manifest.raw.clone(),
        media_type: manifest.media_type.clone(),
        digest: digest_of(&manifest.digest)?,
    };
    client.push_manifest(target, &fetched).await?;
    let pushed = Pushed {
        name: target.to_string(),
        tag: tag_of(target),
        digest: manifest.digest.clone(),
        size_bytes: manifest.raw.len() as u64,
    };
    let name = target.to_string();
    blocking(move || giving.sent(&name, &manifest, &layers)).await??;
    Ok(pushed)
}

async fn send_config(
    client: &Client,
    giving: &Arc<dyn Giving>,
    target: &ImageName,
    manifest: &Document,
) -> Result<(), TransferError> {
    let outgoing = giving.outgoing();
    let media_type = match &manifest.media_type[..] {
        DOCKER_MANIFEST => DOCKER_CONFIG,
        _ => OCI_CONFIG,
    };
    let config = Blob {
        media_type: media_type.to_owned(),
        digest: outgoing.id.clone(),
        size_bytes: outgoing.config.len() as u64,
    };
    let raw = outgoing.config.clone();
    let source = in_memory(raw);
    let options = PushOptions::default();
    client
        .push_blob(target, &descriptor(&config)?, source, &options)
        .await?;
    Ok(())
}

/// Bytes in memory, to be sent.
pub(super) fn in_memory(raw: Vec<u8>) -> Arc<dyn BlobSource> {
    Arc::new(move |offset: u64| {
        let mut cursor = Cursor::new(raw.clone());
        cursor.set_position(offset);
        Ok(Box::new(cursor) as Box<dyn Read + Send>)
    })
}

/// Sends each layer once, and gives the forms of all of them, lowest first.
async fn send_layers(
    client: &Client,
    giving: &Arc<dyn Giving>,
    target: &ImageName,
    watch: &Watch,
) -> Result<Vec<Blob>, TransferError> {
    let places = Arc::new(Semaphore::new(UPLOADS));
    let mut sending = JoinSet::new();
    let layers = &giving.outgoing().layers;
    let mut first: BTreeMap<&str, usize> = BTreeMap::new();
    for (index, layer) in layers.iter().enumerate() {
        if first.contains_key(&layer.diff_id[..]) {
            continue;
        }
        first.insert(&layer.diff_id, index);
        let sender = Sender {
            client: client.clone(),
            giving: Arc::clone(giving),
            target: target.clone(),
            watch: Arc::clone(watch),
            id: short(
                layer
                    .blob
                    .as_ref()
                    .map_or(&layer.diff_id, |blob| &blob.digest),
            ),
            index,
        };
        sender.tell(Step::Waiting);
        let (places, layer) = (Arc::clone(&places), layer.clone());
        sending.spawn(async move {
            // The semaphore is never closed.
            let _place = places.acquire_owned().await;
            Ok::<_, TransferError>((index, sender.send(&layer).await?))
        });
    }
    let mut sent: BTreeMap<usize, Blob> = BTreeMap::new();
    while let Some(done) = sending.join_next().await {
        let (index, blob) = done.map_err(io::Error::from)??;
        sent.insert(index, blob);
    }
    let blob_of = |layer: &OutgoingLayer| {
        let index = first.get(&layer.diff_id[..])?;
        sent.get(index).cloned()
    };
    let all: Option<Vec<Blob>> = layers.iter().map(blob_of).collect();
    Ok(all.ok_or(EndError::Broken)?)
}

/// A layer on its way.
struct Sender {
    client: Client,
    giving: Arc<dyn Giving>,
    target: ImageName,
    watch: Watch,
    id: String,
    index: usize,
}

impl Sender {
    fn tell(&self, step: Step) {
        let id = self.id.clone();
        (self.watch)(Progress::Layer { id, step });
    }

    async fn send(&self, layer: &OutgoingLayer) -> Result<Blob, TransferError> {
        if let Some(blob) = &layer.blob {
            let source = if layer.local {
                self.made(blob)
            } else {
                self.elsewhere(blob, &layer.origins)
            };
            match self.send_blob(blob, &layer.origins, source).await {
                // Nobody has that form any more: another one is made.
                Err(PushError::Source { .. }) if !layer.local => {}
                sent => {
                    sent?;
                    return Ok(blob.clone());
                }
            }
        }
        let (giving, index) = (Arc::clone(&self.giving), self.index);
        let blob = blocking(move || giving.make(index)).await??;
        self.send_blob(&blob, &[], self.made(&blob)).await?;
        Ok(blob)
    }

    async fn send_blob(
        &self,
        blob: &Blob,
        origins: &[String],
        source: Arc<dyn BlobSource>,
    ) -> Result<(), PushError> {
        let digest = digest_of(&blob.digest).and_then(|_| descriptor(blob));
        let Ok(descriptor) = digest else {
            let found = "no digest".to_owned();
            let digest = hullbox_registry::Digest::of(b"");
            return Err(PushError::Damaged { digest, found });
        };
        let (watch, id, of) = (Arc::clone(&self.watch), self.id.clone(), blob.size_bytes);
        let progress = move |bytes: u64| {
            let (id, step) = (id.clone(), Step::Bytes(bytes, of));
            watch(Progress::Layer { id, step });
        };
        let here = self.target.name();
        let options = PushOptions {
            mount_from: origins
                .iter()
                .filter_map(|origin| origin.parse::<ImageName>().ok())
                .filter(|origin| {
                    origin.registry() == self.target.registry() && origin.name() != here
                })
                .collect(),
            progress: Some(Arc::new(progress)),
            ..PushOptions::default()
        };
        let pushed = self
            .client
            .push_blob(&self.target, &descriptor, source, &options)
            .await?;
        self.tell(pushed.into());
        Ok(())
    }

    /// The store makes it, when somebody wants bytes of it.
    fn made(&self, blob: &Blob) -> Arc<dyn BlobSource> {
        let (giving, index, expected) = (Arc::clone(&self.giving), self.index, blob.digest.clone());
        Arc::new(move |offset: u64| {
            let made = giving.make(index).map_err(io::Error::other)?;
            if made.digest != expected {
                return Err(io::Error::other("the layer cannot be compressed as it was"));
            }
            giving.open(index, offset).map_err(io::Error::other)
        })
    }

    /// Another repository has it.
    fn elsewhere(&self, blob: &Blob, origins: &[String]) -> Arc<dyn BlobSource> {
        let names: Vec<ImageName> = origins
            .iter()
            .filter_map(|name| name.parse().ok())
            .collect();
        from_registries(&self.client, names, blob.clone())
    }
}

/// A blob that registries have, to be sent to another.
pub(super) fn from_registries(
    client: &Client,
    names: Vec<ImageName>,
    blob: Blob,
) -> Arc<dyn BlobSource> {
    let (client, runtime) = (client.clone(), Handle::current());
    Arc::new(move |offset: u64| {
        let descriptor = descriptor(&blob).map_err(io::Error::other)?;
        let mut failed = io::Error::from(io::ErrorKind::NotFound);
        for name in &names {
            match runtime.block_on(client.blob(name, &descriptor, offset)) {
                Ok(stream) => {
                    let reader = Streamed::new(runtime.clone(), stream.hashed_by_reader());
                    return Ok(Box::new(reader) as Box<dyn Read + Send>);
                }
                Err(error) => failed = io::Error::other(error),
            }
        }
        Err(failed)
    })
}

impl From<hullbox_registry::Pushed> for Step {
    fn from(pushed: hullbox_registry::Pushed) -> Self {
        match pushed {
            hullbox_registry::Pushed::Exists => Self::Exists,
            hullbox_registry::Pushed::Mounted => Self::Mounted,
            hullbox_registry::Pushed::Uploaded => Self::Done,
        }
    }
}
