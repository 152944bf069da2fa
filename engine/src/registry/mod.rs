//! Images on their way: between registries, the store and layouts.
//!
//! ```text
//! registry ─ hullbox_registry ─► feed ─► Target: the store, here (local) or in the helper machine (remote)
//! registry ◄─ hullbox_registry ◄─ feed ◄─ Origin: the same
//! registry, layout ◄─ copy ─► registry, layout
//! ```
//!
//! The network's side is asynchronous and the store's blocks: [`feed`] is where they meet, with a bounded
//! queue for each layer. The runtime is made when a transfer begins; nothing else in the engine knows one.

mod archive;
mod copy;
mod ends;
mod error;
mod feed;
mod layout;
mod local;
mod progress;
mod pull;
mod push;
mod remote;

pub use copy::{Copied, Place, Which};
pub use ends::{Compression, EndError, Form, Origin, Target};
pub use error::TransferError;
pub use hullbox_registry::{LoggedIn, Notice, Places, Platform, PlatformError, StoredLogin};
pub use layout::LayoutError;
pub use local::LocalStore;
pub use progress::{Progress, Step, Way};
pub use pull::Pulled;
pub use push::Pushed;
pub use remote::{Remote, serve};

use ends::Blob;
use hullbox_image::Transport;
use hullbox_registry::{Client, Descriptor, Digest, ImageName, Options, ResolveError, Settings};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Runtime;

/// Receives what happens in a transfer, from several threads at once.
pub type Watch = Arc<progress::Watch<'static>>;

/// Threads of the network's side: it decrypts and hashes.
const NETWORK_THREADS: usize = 2;
/// How long the store's threads may take to end after a failure. What they hold is sound at any time.
const GRACE: Duration = Duration::from_secs(2);

/// Carries out transfers with the settings of this host and user.
pub struct Transfers {
    client: Client,
    runtime: Option<Runtime>,
    watch: Watch,
    /// What is in the store need not be compared with a key.
    trusts_store: bool,
}

impl std::fmt::Debug for Transfers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transfers").finish_non_exhaustive()
    }
}

impl Drop for Transfers {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(GRACE);
        }
    }
}

impl Transfers {
    /// Reads the settings. `warn` receives what is to be shown once, such as a missing helper;
    /// `verify_key` is a file with the public key by which images must be signed.
    ///
    /// # Errors
    /// [`TransferError::Settings`], [`TransferError::Runtime`], or the key cannot be used.
    pub fn new(
        watch: Watch,
        warn: impl Fn(&str) + Send + Sync + 'static,
        verify_key: Option<PathBuf>,
    ) -> Result<Self, TransferError> {
        let settings = Settings::load(Places::of_process())?;
        let trusts_store = verify_key.is_none();
        let theirs = Arc::clone(&watch);
        let observer = move |notice: Notice| match notice {
            Notice::Warning(text) => warn(&text),
            Notice::Retry { why, wait_ms } => {
                let seconds = wait_ms.div_ceil(1000);
                theirs(Progress::Retry {
                    why: format!("{why}; trying again in {seconds} s"),
                });
            }
            _ => {}
        };
        let options = Options {
            observer: Some(Arc::new(observer)),
            verify_key,
            ..Options::default()
        };
        let client = Client::new(Arc::new(settings), options)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(NETWORK_THREADS)
            .thread_name("registry")
            .enable_all()
            .build()?;
        Ok(Self {
            client,
            runtime: Some(runtime),
            watch,
            trusts_store,
        })
    }

    /// Runs a transfer on the runtime.
    fn run<T>(
        &self,
        transfer: impl Future<Output = Result<T, TransferError>>,
    ) -> Result<T, TransferError> {
        let runtime = self.runtime.as_ref();
        let gone = || io::Error::other("the runtime has ended");
        runtime.ok_or_else(gone)?.block_on(transfer)
    }

    fn candidates(&self, text: &str) -> Result<Vec<ImageName>, TransferError> {
        // As Podman and Skopeo call what is in a registry.
        let text = text.strip_prefix("docker://").unwrap_or(text);
        let candidates = self.client.settings().candidates(text);
        candidates.map_err(|source| TransferError::Name {
            text: text.to_owned(),
            source,
        })
    }

    /// The names that a typed one may stand for, in the order in which they are tried.
    ///
    /// # Errors
    /// [`TransferError::Name`].
    pub fn names(&self, text: &str) -> Result<Vec<String>, TransferError> {
        let names = self.candidates(text)?;
        Ok(names.iter().map(ToString::to_string).collect())
    }

    /// Pulls an image into a store: of an index the image for `platform`, or else the one that guests here
    /// can run.
    ///
    /// # Errors
    /// [`TransferError`]; the store is as it was.
    pub fn pull(
        &self,
        target: &Arc<dyn Target>,
        text: &str,
        platform: Option<&Platform>,
    ) -> Result<Pulled, TransferError> {
        let candidates = self.candidates(text)?;
        let alone = candidates.len() == 1;
        let mut failed = Vec::new();
        for name in &candidates {
            let told = (&self.watch, self.trusts_store);
            let pulled = pull::pull(&self.client, target, name, platform, told);
            match self.run(pulled) {
                Err(TransferError::Resolve(error)) if !alone && may_be_elsewhere(&error) => {
                    failed.push(error);
                }
                other => return other,
            }
        }
        Err(TransferError::Nowhere {
            text: text.to_owned(),
            tried: error::Names(failed),
        })
    }

    /// Pulls all tags of a repository, and tells `done` of each as soon as it is there. Gives the
    /// repository: of a short name the first that has tags.
    ///
    /// # Errors
    /// [`TransferError`]; images before the one that fails are in the store.
    pub fn pull_all(
        &self,
        target: &Arc<dyn Target>,
        text: &str,
        platform: Option<&Platform>,
        done: &mut dyn FnMut(&Pulled),
    ) -> Result<String, TransferError> {
        let (name, tags) = self.tags(text)?;
        for tag in &tags {
            done(&self.pull(target, &format!("{name}:{tag}"), platform)?);
        }
        Ok(name)
    }

    /// The repository that was typed, without a tag, and its tags.
    fn tags(&self, text: &str) -> Result<(String, Vec<String>), TransferError> {
        let last = text.rsplit('/').next().unwrap_or(text);
        if last.contains(':') || text.contains('@') {
            return Err(TransferError::TagWithAll(text.to_owned()));
        }
        let candidates = self.candidates(text)?;
        let alone = candidates.len() == 1;
        let mut failed = Vec::new();
        for name in &candidates {
            match self.run(async { Ok(self.client.tags(name).await?) }) {
                Err(TransferError::Resolve(error)) if !alone && may_be_elsewhere(&error) => {
                    failed.push(error);
                }
                Ok(tags) if tags.is_empty() => return Err(TransferError::NoTags(name.name())),
                tags => return Ok((name.name(), tags?)),
            }
        }
        Err(TransferError::Nowhere {
            text: text.to_owned(),
            tried: error::Names(failed),
        })
    }

    /// Pushes an image of a store.
    ///
    /// # Errors
    /// [`TransferError`].
    pub fn push(
        &self,
        origin: &Arc<dyn Origin>,
        name: &str,
        compression: Option<Compression>,
    ) -> Result<Pushed, TransferError> {
        // A name without a registry is Docker Hub's: where a name leads to must not depend on who is
        // asked first.
        let target: ImageName = name.parse().map_err(|source| TransferError::Name {
            text: name.to_owned(),
            source,
        })?;
        if target.digest().is_some() {
            return Err(TransferError::Digest(name.to_owned()));
        }
        self.run(push::push(
            &self.client,
            origin,
            &target,
            compression,
            &self.watch,
        ))
    }

    /// Pushes all tags that a store has of a repository.
    ///
    /// # Errors
    /// [`TransferError`]; images before the one that fails are in the registry.
    pub fn push_all(
        &self,
        origin: &Arc<dyn Origin>,
        text: &str,
        compression: Option<Compression>,
    ) -> Result<Vec<Pushed>, TransferError> {
        let last = text.rsplit('/').next().unwrap_or(text);
        if last.contains(':') || text.contains('@') {
            return Err(TransferError::TagWithAll(text.to_owned()));
        }
        let tags = origin.tags(text)?;
        if tags.is_empty() {
            return Err(TransferError::NoTags(text.to_owned()));
        }
        let with_tag = |tag: &String| self.push(origin, &format!("{text}:{tag}"), compression);
        tags.iter().map(with_tag).collect()
    }

    /// Copies an image from one place to another, without unpacking it.
    ///
    /// # Errors
    /// [`TransferError`].
    pub fn copy(
        &self,
        source: &Place,
        destination: &Place,
        which: &Which,
    ) -> Result<Copied, TransferError> {
        self.run(archive::copy(
            &self.client,
            source,
            destination,
            which,
            &self.watch,
        ))
    }

    /// The bytes of what a name leads to: a manifest or an index.
    ///
    /// # Errors
    /// [`TransferError`].
    pub fn manifest(&self, place: &Place) -> Result<Vec<u8>, TransferError> {
        self.run(copy::manifest(&self.client, place))
    }

    /// A place as typed: a layout, an archive, or a name in a registry, the first one that a short name may
    /// stand for.
    ///
    /// # Errors
    /// [`TransferError::Name`], [`TransferError::Place`].
    pub fn place(&self, text: &str) -> Result<Place, TransferError> {
        if let Some(layout) = Place::layout(text) {
            return Ok(layout);
        }
        match Transport::parse(text) {
            Some(Ok(archive)) => return Ok(Place::Archive(archive)),
            Some(Err(source)) => return Err(source.into()),
            None => {}
        }
        // As a name it would be Docker Hub's, with the directory as the tag.
        if text.starts_with("dir:") {
            return Err(TransferError::Place(text.to_owned()));
        }
        let empty = || TransferError::NoTags(text.to_owned());
        let first = self.candidates(text)?.into_iter().next();
        Ok(Place::Registry(first.ok_or_else(empty)?))
    }

    /// Asks a registry whether it takes these credentials, and keeps them.
    ///
    /// # Errors
    /// [`TransferError::Login`].
    pub fn login(
        &self,
        server: &str,
        user: &str,
        password: &str,
    ) -> Result<LoggedIn, TransferError> {
        self.run(async { Ok(self.client.login(server, user, password).await?) })
    }

    /// Asks a registry whether it takes the credentials that are kept for it; `None` without any.
    ///
    /// # Errors
    /// [`TransferError::Login`].
    pub fn login_stored(&self, server: &str) -> Result<Option<StoredLogin>, TransferError> {
        self.run(async { Ok(self.client.login_stored(server).await?) })
    }

    /// Forgets the credentials of a registry. `false` if there were none.
    ///
    /// # Errors
    /// [`TransferError::Login`].
    pub fn logout(&self, server: &str) -> Result<bool, TransferError> {
        Ok(self.client.logout(server)?)
    }
}

/// Whether the next name of a search list may still lead to an image.
const fn may_be_elsewhere(error: &ResolveError) -> bool {
    matches!(
        error,
        ResolveError::NotFound { .. }
            | ResolveError::Unavailable { .. }
            | ResolveError::Blocked { .. }
    )
}

/// What an image is for, as its configuration says. One that does not say is run as it is.
#[must_use]
pub fn platform_of(config: &hullbox_image::oci::ImageConfiguration) -> Platform {
    let text = format!("{}/{}", config.os(), config.architecture());
    let mut platform = text.parse().unwrap_or_else(|_| Platform::guest());
    if let Some(variant) = config.variant() {
        let with_variant = format!("{text}/{variant}");
        platform = with_variant.parse().unwrap_or(platform);
    }
    platform
}

/// Runs what blocks on a thread that may.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    Ok(tokio::task::spawn_blocking(work).await?)
}

fn digest_of(text: &str) -> Result<Digest, EndError> {
    text.parse()
        .map_err(|error: hullbox_registry::DigestError| EndError::Store(error.to_string()))
}

fn descriptor(blob: &Blob) -> Result<Descriptor, EndError> {
    Ok(Descriptor {
        media_type: blob.media_type.clone(),
        digest: digest_of(&blob.digest)?,
        size_bytes: blob.size_bytes,
        platform: None,
        annotations: std::collections::BTreeMap::new(),
    })
}
