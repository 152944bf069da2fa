//! From a registry into a store: layers side by side, each as one stream.

use super::ends::{Blob, Document, EndError, Incoming, LayerSink, Taking, Target, Wanted};
use super::error::TransferError;
use super::feed::{Piece, Pieces};
use super::progress::{Progress, Step, Way, short};
use super::{Watch, blocking, descriptor, digest_of, platform_of};
use hullbox_image::oci::ImageConfiguration;
use hullbox_registry::{
    BlobStream, Client, ImageName, Platform, Resolution, ResolveError, Resolved,
};
use std::sync::Arc;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

/// Layers that are downloaded and converted at a time.
const DOWNLOADS: usize = 6;
/// Pieces of a layer between the network and its conversion. One is as long as what the network gives at
/// a time, some 16 KiB.
const QUEUED: usize = 32;
/// Largest configuration, in bytes: what the store takes.
const MAX_CONFIG_BYTES: u64 = 4 << 20;
/// Bytes between two reports of progress.
const REPORT_EVERY: u64 = 128 << 10;

/// An image that was pulled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulled {
    /// Its name in full.
    pub name: String,
    /// What the name leads to: the index, or the manifest of an image of one platform.
    pub digest: String,
    /// Its id; `None` if nothing had changed.
    pub id: Option<String>,
}

/// Pulls what `name` leads to.
pub(super) async fn pull(
    client: &Client,
    target: &Arc<dyn Target>,
    name: &ImageName,
    platform: Option<&Platform>,
    (watch, trusts_store): (&Watch, bool),
) -> Result<Pulled, TransferError> {
    let asked = platform;
    let platform = &asked.cloned().unwrap_or_else(Platform::guest);
    let known = {
        let (target, name) = (Arc::clone(target), name.to_string());
        let platform = platform.to_string();
        blocking(move || target.known(&name, &platform)).await??
    };
    let known = known.as_deref().and_then(|known| digest_of(known).ok());
    let unchanged = |digest: &hullbox_registry::Digest| Pulled {
        name: name.to_string(),
        digest: digest.to_string(),
        id: None,
    };
    // What is named by its digest cannot have changed.
    if let (Some(known), Some(pinned), true) = (&known, name.digest(), trusts_store)
        && known == pinned
    {
        return Ok(unchanged(known));
    }
    let resolution = client.resolve(name, platform, known.as_ref()).await?;
    watch(Progress::Begin {
        way: Way::Pull,
        repository: name.repository().to_owned(),
        tag: tag_of(name),
    });
    let resolved = match resolution {
        Resolution::Unchanged(digest) => return Ok(unchanged(&digest)),
        Resolution::Image(resolved) => resolved,
    };
    let incoming = incoming(client, target, name, &resolved).await?;
    // An image of one platform is taken for what it is, unless another one was asked for.
    if let Some(asked) = asked {
        check_platform(name, asked, &incoming.config)?;
    }
    let taking = {
        let target = Arc::clone(target);
        blocking(move || target.begin(&incoming)).await??
    };
    take_layers(client, name, &taking, watch).await?;
    let stored = blocking(move || taking.finish()).await??;
    Ok(Pulled {
        name: name.to_string(),
        digest: resolved.digest().to_string(),
        id: Some(stored.id),
    })
}

fn check_platform(name: &ImageName, asked: &Platform, config: &[u8]) -> Result<(), TransferError> {
    // What is no configuration is the store's to refuse.
    let Ok(config) = ImageConfiguration::from_reader(config) else {
        return Ok(());
    };
    let is = platform_of(&config);
    if asked.distance(&is).is_some() {
        return Ok(());
    }
    Err(TransferError::Resolve(ResolveError::NoPlatform {
        name: name.to_string(),
        platform: asked.to_string(),
        offers: format!("it is for {is}"),
    }))
}

pub(super) fn tag_of(name: &ImageName) -> String {
    match (name.tag(), name.digest()) {
        (Some(tag), _) => tag.to_owned(),
        (None, Some(digest)) => digest.to_string(),
        (None, None) => String::new(),
    }
}

async fn incoming(
    client: &Client,
    target: &Arc<dyn Target>,
    name: &ImageName,
    resolved: &Resolved,
) -> Result<Incoming, TransferError> {
    let config = &resolved.config;
    let stored = {
        let (target, digest) = (Arc::clone(target), config.digest.to_string());
        blocking(move || target.stored_config(&digest)).await??
    };
    let config = match stored {
        Some(config) => config,
        None => client.blob_bytes(name, config, MAX_CONFIG_BYTES).await?,
    };
    Ok(Incoming {
        name: name.to_string(),
        manifest: Document::from(&resolved.manifest),
        index_digest: resolved
            .indexes
            .first()
            .map(|index| index.digest.to_string()),
        config,
    })
}

async fn take_layers(
    client: &Client,
    name: &ImageName,
    taking: &Arc<dyn Taking>,
    watch: &Watch,
) -> Result<(), TransferError> {
    let places = Arc::new(Semaphore::new(DOWNLOADS));
    let mut layers = JoinSet::new();
    for wanted in taking.wanted() {
        let step = if wanted.had {
            Step::Exists
        } else {
            Step::Waiting
        };
        watch(Progress::Layer {
            id: short(&wanted.blob.digest),
            step,
        });
        if wanted.had {
            continue;
        }
        let layer = Layer {
            client: client.clone(),
            name: name.clone(),
            taking: Arc::clone(taking),
            watch: Arc::clone(watch),
            wanted,
        };
        let places = Arc::clone(&places);
        layers.spawn(async move {
            // The semaphore is never closed.
            let _place = places.acquire_owned().await;
            layer.take().await
        });
    }
    // The first that fails ends the others: what they have so far stays for the next try.
    while let Some(done) = layers.join_next().await {
        done.map_err(std::io::Error::from)??;
    }
    Ok(())
}

/// A layer on its way.
struct Layer {
    client: Client,
    name: ImageName,
    taking: Arc<dyn Taking>,
    watch: Watch,
    wanted: Wanted,
}

impl Layer {
    async fn take(self) -> Result<(), TransferError> {
        match self.try_once().await {
            Err(TransferError::End(EndError::Again)) => self.try_once().await,
            other => other,
        }
    }

    fn tell(&self, step: Step) {
        let id = short(&self.wanted.blob.digest);
        (self.watch)(Progress::Layer { id, step });
    }

    async fn try_once(&self) -> Result<(), TransferError> {
        let (taking, index) = (Arc::clone(&self.taking), self.wanted.index);
        let Some(sink) = blocking(move || taking.layer(index)).await?? else {
            self.tell(Step::Exists);
            return Ok(());
        };
        let blob = &self.wanted.blob;
        let from_bytes = sink.partial_bytes();
        self.tell(Step::Bytes(from_bytes, blob.size_bytes));
        let stream = if from_bytes < blob.size_bytes {
            let descriptor = descriptor(blob)?;
            let stream = self.client.blob(&self.name, &descriptor, from_bytes);
            Some(stream.await?.hashed_by_reader())
        } else {
            None
        };
        self.feed(sink, stream, from_bytes).await?;
        self.tell(Step::Done);
        Ok(())
    }

    /// Pumps the stream into the store's thread, a few pieces ahead of it.
    async fn feed(
        &self,
        sink: Box<dyn LayerSink>,
        stream: Option<BlobStream>,
        from_bytes: u64,
    ) -> Result<(), TransferError> {
        let (pieces, queue) = mpsc::channel(QUEUED);
        let fed = blocking(move || sink.feed(&mut Pieces::new(queue)));
        let fed = tokio::spawn(fed);
        let pumped = match stream {
            Some(stream) => self.pump(stream, &pieces, from_bytes).await,
            None => Ok(()),
        };
        let last = match &pumped {
            Ok(()) => Piece::End,
            Err(_) => Piece::Broken,
        };
        // Whoever does not take it has failed, and says why.
        let _ = pieces.send(last).await;
        if pumped.is_ok() {
            self.tell(Step::Received);
        }
        let fed = fed.await.map_err(std::io::Error::from)??;
        match (pumped, fed) {
            // That the store has seen a broken stream is no news then.
            (Err(error), _) => Err(error),
            (Ok(()), fed) => Ok(fed?),
        }
    }

    async fn pump(
        &self,
        mut stream: BlobStream,
        pieces: &mpsc::Sender<Piece>,
        from_bytes: u64,
    ) -> Result<(), TransferError> {
        let (mut done, mut told) = (from_bytes, from_bytes);
        while let Some(bytes) = stream.next().await? {
            done = done.saturating_add(bytes.len() as u64);
            if pieces.send(Piece::Bytes(bytes)).await.is_err() {
                break;
            }
            if done - told >= REPORT_EVERY {
                told = done;
                self.tell(Step::Bytes(done, self.wanted.blob.size_bytes));
            }
        }
        Ok(())
    }
}

impl From<&hullbox_registry::Fetched> for Document {
    fn from(fetched: &hullbox_registry::Fetched) -> Self {
        Self {
            media_type: fetched.media_type.clone(),
            digest: fetched.digest.to_string(),
            raw: fetched.raw.clone(),
        }
    }
}

impl From<&hullbox_registry::Descriptor> for Blob {
    fn from(descriptor: &hullbox_registry::Descriptor) -> Self {
        Self {
            media_type: descriptor.media_type.clone(),
            digest: descriptor.digest.to_string(),
            size_bytes: descriptor.size_bytes,
        }
    }
}
