//! The client: what `engine` calls.

use crate::blob::BlobStream;
use crate::digest::Digest;
use crate::error::{BlobError, LoginError, PushError, ResolveError, Tried};
use crate::manifest::{Descriptor, Fetched};
use crate::names::ImageName;
use crate::platform::Platform;
use crate::settings::Settings;
use std::fmt;
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;

/// What a client tells while it works.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Notice {
    /// Something to be shown once, such as a credential helper that is missing.
    Warning(String),
    /// A request failed and is sent again.
    Retry {
        /// Who did not answer as hoped, and why.
        why: String,
        /// When it is sent again, in milliseconds from now.
        wait_ms: u64,
    },
}

/// Who is told [`Notice`]s. It must not block.
pub type Observer = Arc<dyn Fn(Notice) + Send + Sync>;

/// What a client does that no file says.
#[derive(Clone, Default)]
pub struct Options {
    /// Who is told of retries and warnings.
    pub observer: Option<Observer>,
    /// Images must be signed with this public key (PEM), whatever `policy.json` says.
    pub verify_key: Option<PathBuf>,
}

/// What a name leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resolution {
    /// The registry still has what is known.
    Unchanged(Digest),
    /// The image.
    Image(Box<Resolved>),
}

/// An image of one platform, before its blobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// The name that was asked for, whatever mirror answered.
    pub name: ImageName,
    /// The indexes that led to the manifest, the first as the name has it; none for an image of
    /// one platform.
    pub indexes: Vec<Fetched>,
    /// The image's manifest.
    pub manifest: Fetched,
    /// Its configuration.
    pub config: Descriptor,
    /// Its layers, the lowest first.
    pub layers: Vec<Descriptor>,
}

impl Resolved {
    /// The digest that the name leads to: the index's or else the manifest's. It is what Docker
    /// shows as the repository's digest, and what `known` of [`Client::resolve`] compares.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.indexes.first().unwrap_or(&self.manifest).digest
    }
}

/// How a blob came to be in the repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pushed {
    /// It was there.
    Exists,
    /// The registry had it in another repository.
    Mounted,
    /// Its bytes were sent.
    Uploaded,
}

/// A blob to push. It is read on a blocking thread, from another offset after a stall.
pub trait BlobSource: Send + Sync + 'static {
    /// Its bytes from `offset_bytes` on.
    ///
    /// # Errors
    /// What keeps it from being read.
    fn open(&self, offset_bytes: u64) -> std::io::Result<Box<dyn Read + Send>>;
}

impl<F> BlobSource for F
where
    F: Fn(u64) -> std::io::Result<Box<dyn Read + Send>> + Send + Sync + 'static,
{
    fn open(&self, offset_bytes: u64) -> std::io::Result<Box<dyn Read + Send>> {
        self(offset_bytes)
    }
}

/// How a blob is pushed.
#[derive(Clone, Default)]
pub struct PushOptions {
    /// Repositories of the same registry that may have the blob.
    pub mount_from: Vec<ImageName>,
    /// Send pieces of this many bytes, a request each, instead of one stream.
    pub chunk_bytes: Option<u64>,
    /// Is told how many bytes have been handed to the connection; it may go back.
    pub progress: Option<Arc<dyn Fn(u64) + Send + Sync>>,
}

impl fmt::Debug for PushOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PushOptions")
            .field("mount_from", &self.mount_from)
            .field("chunk_bytes", &self.chunk_bytes)
            .finish_non_exhaustive()
    }
}

/// What a login has done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoggedIn {
    /// Where the credentials are: a file, or a helper's name.
    pub kept_in: String,
    /// Whether they lie there unencrypted.
    pub is_plain: bool,
}

/// A client of any number of registries. Clones share connections, tokens and what is known of
/// registries that do not answer.
#[derive(Clone)]
pub struct Client {
    settings: Arc<Settings>,
}

impl Client {
    /// A client that does what `settings` say.
    ///
    /// # Errors
    /// [`ResolveError::Policy`] for a key that cannot be read.
    pub fn new(settings: Arc<Settings>, options: Options) -> Result<Self, ResolveError> {
        let _ = options;
        Ok(Self { settings })
    }

    /// What it goes by.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// From a name to the manifest for `platform`: one request for an image of one platform, two
    /// for an index. `known` is the digest ([`Resolved::digest`]) of what the caller has: if the
    /// name still leads there, one request (HEAD) is all.
    ///
    /// What the policy or the key refuses is an error in both cases.
    ///
    /// # Errors
    /// [`ResolveError`].
    pub async fn resolve(
        &self,
        name: &ImageName,
        platform: &Platform,
        known: Option<&Digest>,
    ) -> Result<Resolution, ResolveError> {
        let _ = (platform, known);
        Err(unavailable(name))
    }

    /// What a name leads to, without choosing a platform. No policy is asked.
    ///
    /// # Errors
    /// [`ResolveError`].
    pub async fn manifest(&self, name: &ImageName) -> Result<Fetched, ResolveError> {
        Err(unavailable(name))
    }

    /// All tags of a repository.
    ///
    /// # Errors
    /// [`ResolveError`].
    pub async fn tags(&self, name: &ImageName) -> Result<Vec<String>, ResolveError> {
        Err(unavailable(name))
    }

    /// A blob's bytes from `from_bytes` on. The stream goes on by itself after a drop and changes to the
    /// next mirror if it must. Its end is [`Ok`] only if the length is right and, where it began at 0,
    /// the digest.
    ///
    /// # Errors
    /// [`BlobError`] if nobody gives it.
    pub async fn blob(
        &self,
        name: &ImageName,
        blob: &Descriptor,
        from_bytes: u64,
    ) -> Result<BlobStream, BlobError> {
        let _ = (name, from_bytes);
        Err(BlobError::Unavailable {
            digest: blob.digest,
            source: Tried(Vec::new()),
        })
    }

    /// A small blob in one piece, verified: an image's configuration.
    ///
    /// # Errors
    /// [`BlobError`]; [`BlobError::TooLarge`] beyond `limit_bytes`.
    pub async fn blob_bytes(
        &self,
        name: &ImageName,
        blob: &Descriptor,
        limit_bytes: u64,
    ) -> Result<Vec<u8>, BlobError> {
        let _ = (name, limit_bytes);
        Err(BlobError::Unavailable {
            digest: blob.digest,
            source: Tried(Vec::new()),
        })
    }

    /// Sees to it that `target`'s repository has a blob. Its bytes are compared with the
    /// descriptor while they are sent.
    ///
    /// # Errors
    /// [`PushError`].
    pub async fn push_blob(
        &self,
        target: &ImageName,
        blob: &Descriptor,
        source: Arc<dyn BlobSource>,
        options: &PushOptions,
    ) -> Result<Pushed, PushError> {
        let _ = (source, options);
        Err(PushError::Damaged {
            digest: blob.digest,
            found: target.to_string(),
        })
    }

    /// Pushes a manifest or index under `target`'s tag, or else under its own digest, byte for byte.
    ///
    /// # Errors
    /// [`PushError`].
    pub async fn push_manifest(
        &self,
        target: &ImageName,
        manifest: &Fetched,
    ) -> Result<(), PushError> {
        Err(PushError::Damaged {
            digest: manifest.digest,
            found: target.to_string(),
        })
    }

    /// Asks the registry whether it takes the credentials, then keeps them. `server` is a registry's
    /// name, or empty for Docker Hub.
    ///
    /// # Errors
    /// [`LoginError`].
    pub async fn login(
        &self,
        server: &str,
        user: &str,
        password: &str,
    ) -> Result<LoggedIn, LoginError> {
        let _ = (user, password);
        Err(LoginError::Server(server.to_owned()))
    }

    /// Forgets the credentials of a registry. `false` if there were none.
    ///
    /// # Errors
    /// [`LoginError`].
    pub fn logout(&self, server: &str) -> Result<bool, LoginError> {
        Err(LoginError::Server(server.to_owned()))
    }
}

fn unavailable(name: &ImageName) -> ResolveError {
    ResolveError::Unavailable {
        name: name.to_string(),
        source: Tried(Vec::new()),
    }
}
