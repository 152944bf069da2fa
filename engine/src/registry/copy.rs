//! From registry to registry, and to and from layouts, without unpacking anything.

use super::ends::Blob;
use super::error::TransferError;
use super::feed::Streamed;
use super::layout::Layout;
use super::progress::{Progress, Step, Way, short};
use super::pull::tag_of;
use super::push::from_registries;
use super::{Watch, blocking, descriptor};
use hullbox_image::Transport;
use hullbox_registry::{
    BlobSource, Client, Descriptor, Digest, Fetched, ImageName, Manifest, Platform, PushOptions,
    Resolution,
};
use std::fmt;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Arc;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Blobs that are copied at a time.
const COPIES: usize = 6;
/// Indexes in indexes that are followed.
const MAX_DEPTH: usize = 4;

/// Where an image is, or is to be.
#[derive(Debug, Clone)]
pub enum Place {
    /// In a registry.
    Registry(ImageName),
    /// In a layout.
    Layout {
        /// Its directory.
        dir: PathBuf,
        /// The image in it.
        tag: Option<String>,
    },
    /// In an archive.
    Archive(Transport),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Registry(name) => write!(f, "{name}"),
            Self::Layout { dir, .. } => write!(f, "{}", dir.display()),
            Self::Archive(archive) => write!(f, "{archive}"),
        }
    }
}

impl Place {
    /// `oci:DIR[:TAG]`; `None` for anything else.
    #[must_use]
    pub fn layout(text: &str) -> Option<Self> {
        let rest = text.strip_prefix("oci:")?;
        let (dir, tag) = match rest.split_once(':') {
            Some((dir, tag)) => (dir, Some(tag.to_owned())),
            None => (rest, None),
        };
        Some(Self::Layout {
            dir: PathBuf::from(dir),
            tag,
        })
    }
}

/// What of an index is copied.
#[derive(Debug, Clone)]
pub enum Which {
    /// All of it.
    All,
    /// The image for a platform.
    Platform(Platform),
}

/// An image that was copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copied {
    /// The digest of the manifest or index that is there now.
    pub digest: String,
}

/// What a place has under its name: a manifest or an index.
async fn document(client: &Client, place: &Place) -> Result<Fetched, TransferError> {
    match place {
        Place::Registry(name) => Ok(client.manifest(name).await?),
        Place::Layout { dir, tag } => {
            let (layout, tag) = (Layout::at(dir.clone()), tag.clone());
            Ok(blocking(move || layout.manifest(tag.as_deref())).await??)
        }
        Place::Archive(archive) => Err(TransferError::Place(archive.to_string())),
    }
}

pub(super) async fn manifest(client: &Client, place: &Place) -> Result<Vec<u8>, TransferError> {
    Ok(document(client, place).await?.raw)
}

/// Copies between registries and layouts. `shown` is what the source stands for, if not for itself.
pub(super) async fn copy(
    client: &Client,
    source: &Place,
    destination: &Place,
    which: &Which,
    shown: Option<&Place>,
    watch: &Watch,
) -> Result<Copied, TransferError> {
    let copier = Copier {
        client: client.clone(),
        source: source.clone(),
        destination: match destination {
            Place::Registry(name) if name.digest().is_some() => {
                return Err(TransferError::Digest(name.to_string()));
            }
            Place::Registry(name) => Destination::Registry(name.clone()),
            Place::Layout { dir, .. } => Destination::Layout(Layout::at(dir.clone())),
            Place::Archive(archive) => return Err(TransferError::Place(archive.to_string())),
        },
        shown: shown.unwrap_or(source).to_string(),
        watch: Arc::clone(watch),
    };
    let top = copier.choose(which).await?;
    // No directory is made for an image that is not there.
    if let Place::Layout { dir, .. } = destination {
        let dir = dir.clone();
        blocking(move || Layout::create(dir)).await??;
    }
    let (repository, tag) = match shown.unwrap_or(source) {
        Place::Registry(name) => (name.name(), tag_of(name)),
        Place::Layout { dir, tag } => (dir.display().to_string(), tag.clone().unwrap_or_default()),
        Place::Archive(archive) => (archive.to_string(), String::new()),
    };
    watch(Progress::Begin {
        way: Way::Copy,
        repository,
        tag,
    });
    copier.copy_document(&top, 0).await?;
    copier.name(&top, destination).await?;
    Ok(Copied {
        digest: top.digest.to_string(),
    })
}

#[derive(Clone)]
enum Destination {
    Registry(ImageName),
    Layout(Layout),
}

/// A copy at work.
#[derive(Clone)]
struct Copier {
    client: Client,
    source: Place,
    destination: Destination,
    /// The source, as it is shown.
    shown: String,
    watch: Watch,
}

impl Copier {
    /// The document that is to be copied.
    async fn choose(&self, which: &Which) -> Result<Fetched, TransferError> {
        let platform = match which {
            Which::All => return self.whole().await,
            Which::Platform(platform) => platform,
        };
        match &self.source {
            Place::Registry(name) => match self.client.resolve(name, platform, None).await? {
                Resolution::Image(resolved) => Ok(resolved.manifest),
                // Nothing was known that could be unchanged.
                Resolution::Unchanged(_) => document(&self.client, &self.source).await,
            },
            Place::Layout { .. } | Place::Archive(_) => {
                let mut top = document(&self.client, &self.source).await?;
                for _ in 0..MAX_DEPTH {
                    let Manifest::Index(entries) = self.parse(&top)? else {
                        return Ok(top);
                    };
                    let fits = |entry: &&Descriptor| match &entry.platform {
                        Some(offered) => platform.distance(offered),
                        None => Some(u32::MAX),
                    };
                    let best = entries.iter().filter(|entry| fits(entry).is_some());
                    let best = best.min_by_key(fits).ok_or_else(|| {
                        hullbox_registry::ResolveError::NoPlatform {
                            name: self.shown.clone(),
                            platform: platform.to_string(),
                            offers: String::new(),
                        }
                    })?;
                    top = self.child(best).await?;
                }
                Ok(top)
            }
        }
    }

    /// What is there, with all that it names: of a registry whose images are rejected nothing is asked.
    async fn whole(&self) -> Result<Fetched, TransferError> {
        let Place::Registry(name) = &self.source else {
            return document(&self.client, &self.source).await;
        };
        self.client.may_ask(name).await?;
        let top = document(&self.client, &self.source).await?;
        if self.client.wants_signatures(name) {
            self.allowed(name, &top, &[]).await?;
        }
        Ok(top)
    }

    /// Whether the policy allows every image that a document is or leads to, before anything is copied.
    /// `above` are the digests of the indexes that led to it, whose signatures count too.
    async fn allowed(
        &self,
        name: &ImageName,
        top: &Fetched,
        above: &[Digest],
    ) -> Result<(), TransferError> {
        let path = [above, &[top.digest]].concat();
        match self.parse(top)? {
            Manifest::Index(_) if above.len() == MAX_DEPTH => Err(self.too_deep()),
            Manifest::Index(entries) if !entries.is_empty() => {
                for entry in entries {
                    let child = self.child(&entry).await?;
                    Box::pin(self.allowed(name, &child, &path)).await?;
                }
                Ok(())
            }
            Manifest::Index(_) | Manifest::Image { .. } => {
                Ok(self.client.allows(name, &path).await?)
            }
        }
    }

    fn too_deep(&self) -> TransferError {
        let error = hullbox_registry::ResolveError::TooDeep {
            name: self.shown.clone(),
            limit: MAX_DEPTH,
        };
        error.into()
    }

    fn parse(&self, document: &Fetched) -> Result<Manifest, TransferError> {
        document.parse().map_err(|source| TransferError::Manifest {
            name: self.shown.clone(),
            source,
        })
    }

    /// A document that another names.
    async fn child(&self, entry: &Descriptor) -> Result<Fetched, TransferError> {
        match &self.source {
            Place::Registry(name) => Ok(self
                .client
                .manifest(&name.with_digest(entry.digest))
                .await?),
            Place::Layout { dir, .. } => {
                let (layout, entry) = (Layout::at(dir.clone()), entry.clone());
                Ok(blocking(move || layout.document(&entry)).await??)
            }
            Place::Archive(archive) => Err(TransferError::Place(archive.to_string())),
        }
    }

    /// Copies all that a document names, and then the document, which nobody finds before.
    async fn copy_document(&self, top: &Fetched, depth: usize) -> Result<(), TransferError> {
        match self.parse(top)? {
            Manifest::Image { config, layers } => {
                let mut blobs = layers;
                blobs.push(config);
                blobs.sort_by_key(|blob| blob.digest);
                blobs.dedup_by_key(|blob| blob.digest);
                self.copy_blobs(blobs).await?;
            }
            Manifest::Index(_) if depth == MAX_DEPTH => return Err(self.too_deep()),
            Manifest::Index(entries) => {
                for entry in entries {
                    let child = self.child(&entry).await?;
                    Box::pin(self.copy_document(&child, depth + 1)).await?;
                }
            }
        }
        let document = top.clone();
        match &self.destination {
            Destination::Registry(name) => {
                let by_digest = name.with_digest(document.digest);
                Ok(self.client.push_manifest(&by_digest, &document).await?)
            }
            Destination::Layout(layout) => {
                let layout = layout.clone();
                Ok(blocking(move || layout.take_document(&document)).await??)
            }
        }
    }

    async fn copy_blobs(&self, blobs: Vec<Descriptor>) -> Result<(), TransferError> {
        let places = Arc::new(Semaphore::new(COPIES));
        let mut copies = JoinSet::new();
        for blob in blobs {
            let (copier, places) = (self.clone(), Arc::clone(&places));
            copier.tell(&blob, Step::Waiting);
            copies.spawn(async move {
                // The semaphore is never closed.
                let _place = places.acquire_owned().await;
                let step = copier.copy_blob(&blob).await?;
                copier.tell(&blob, step);
                Ok::<_, TransferError>(())
            });
        }
        while let Some(done) = copies.join_next().await {
            done.map_err(io::Error::from)??;
        }
        Ok(())
    }

    fn tell(&self, blob: &Descriptor, step: Step) {
        let id = short(&blob.digest.to_string());
        (self.watch)(Progress::Layer { id, step });
    }

    async fn copy_blob(&self, blob: &Descriptor) -> Result<Step, TransferError> {
        match &self.destination {
            Destination::Registry(target) => {
                let mount_from = match &self.source {
                    Place::Registry(name)
                        if name.registry() == target.registry()
                            && name.repository() != target.repository() =>
                    {
                        vec![name.clone()]
                    }
                    _ => Vec::new(),
                };
                let (watch, id) = (Arc::clone(&self.watch), short(&blob.digest.to_string()));
                let of = blob.size_bytes;
                let progress = move |bytes: u64| {
                    let (id, step) = (id.clone(), Step::Bytes(bytes, of));
                    watch(Progress::Layer { id, step });
                };
                let options = PushOptions {
                    mount_from,
                    progress: Some(Arc::new(progress)),
                    ..PushOptions::default()
                };
                let source = self.source_of(blob);
                let pushed = self
                    .client
                    .push_blob(target, blob, source, &options)
                    .await?;
                Ok(pushed.into())
            }
            Destination::Layout(layout) => self.take_blob(layout, blob).await,
        }
    }

    /// A blob's bytes, for a registry that wants them.
    fn source_of(&self, blob: &Descriptor) -> Arc<dyn BlobSource> {
        match &self.source {
            Place::Registry(name) => {
                from_registries(&self.client, vec![name.clone()], Blob::from(blob))
            }
            Place::Layout { dir, .. } => {
                let (layout, digest) = (Layout::at(dir.clone()), blob.digest);
                Arc::new(move |offset: u64| {
                    let file = layout.open(&digest, offset)?;
                    Ok(Box::new(file) as Box<dyn Read + Send>)
                })
            }
            Place::Archive(_) => Arc::new(|_: u64| Err(io::ErrorKind::Unsupported.into())),
        }
    }

    async fn take_blob(&self, layout: &Layout, blob: &Descriptor) -> Result<Step, TransferError> {
        let (layout, digest, about) = (layout.clone(), blob.digest, Blob::from(blob));
        if layout.has(&about, &digest) {
            return Ok(Step::Exists);
        }
        match &self.source {
            Place::Registry(name) => {
                // The stream's end is its verification.
                let stream = self.client.blob(name, &descriptor(&about)?, 0).await?;
                let runtime = Handle::current();
                let take = move || layout.take(&digest, &mut Streamed::new(runtime, stream));
                blocking(take).await??;
            }
            Place::Layout { dir, .. } => {
                let from = Layout::at(dir.clone());
                blocking(move || from.give(&digest, &layout)).await??;
            }
            Place::Archive(archive) => return Err(TransferError::Place(archive.to_string())),
        }
        Ok(Step::Done)
    }

    /// Gives what was copied its name.
    async fn name(&self, top: &Fetched, destination: &Place) -> Result<(), TransferError> {
        match (&self.destination, destination) {
            (Destination::Registry(name), _) => Ok(self.client.push_manifest(name, top).await?),
            (Destination::Layout(layout), Place::Layout { tag, .. }) => {
                let (layout, tag, top) = (layout.clone(), tag.clone(), top.clone());
                Ok(blocking(move || layout.name(&top, tag.as_deref())).await??)
            }
            (Destination::Layout(_), Place::Registry(_) | Place::Archive(_)) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_are_told_from_names() {
        assert!(Place::layout("debian:12").is_none());
        assert!(Place::layout("oci.example.com/x").is_none());
        let Some(Place::Layout { dir, tag }) = Place::layout("oci:a/b:1.0") else {
            panic!("a layout");
        };
        assert_eq!((dir, tag.as_deref()), (PathBuf::from("a/b"), Some("1.0")));
        let Some(Place::Layout { dir, tag }) = Place::layout("oci:/x") else {
            panic!("a layout");
        };
        assert_eq!((dir, tag), (PathBuf::from("/x"), None));
    }
}
