//! The client: what `engine` calls.

use crate::ask::Shared;
use crate::auth::Auth;
use crate::blob::{self, BlobStream};
use crate::error::{BlobError, LoginError, PolicyError, PushError, ResolveError};
use crate::login::{self, LoggedIn, StoredLogin};
use crate::manifest::{Descriptor, Fetched};
use crate::names::ImageName;
use crate::notice::Observer;
use crate::platform::Platform;
use crate::policy::{self, Identity, Key, Requirement};
use crate::push::{self, BlobSource, PushOptions, Pushed};
use crate::resolve::{self, Resolution};
use crate::settings::Settings;
use crate::transport::{Timing, Transport};
use hullbox_model::digest::Digest;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

/// What a client does that no file says.
#[derive(Clone, Default)]
pub struct Options {
    /// Who is told of retries and warnings.
    pub observer: Option<Observer>,
    /// Images must be signed with this public key (PEM), whatever `policy.json` says.
    pub verify_key: Option<PathBuf>,
    /// How long things may take.
    pub timing: Timing,
}

/// A client of any number of registries. Clones share connections, tokens and what is known of
/// registries that do not answer.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
    observer: Option<Observer>,
    /// What `verify_key` demands of every image.
    demanded: Option<Requirement>,
}

impl Client {
    /// A client that does what `settings` say.
    ///
    /// # Errors
    /// [`PolicyError`] for a key that cannot be used.
    pub fn new(settings: Arc<Settings>, options: Options) -> Result<Self, PolicyError> {
        let demanded = match &options.verify_key {
            None => None,
            Some(path) => Some(Requirement::Signed {
                keys: vec![Key::read(path)?],
                // cosign's signatures name the repository without a tag.
                identity: Identity::MatchRepository,
            }),
        };
        let transport = Transport::new(&settings, options.timing);
        let observer = options.observer;
        let shared = Shared::new(settings, transport, Auth::default(), observer.clone());
        Ok(Self {
            shared: Arc::new(shared),
            observer,
            demanded,
        })
    }

    /// What it goes by.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.shared.settings
    }

    /// From a name to the manifest for `platform`: one request for an image of one platform, two
    /// for an index. `known` is the digest ([`Resolved::digest`](crate::Resolved::digest)) of what
    /// the caller has: if the name still leads there, one request (HEAD) is all.
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
        self.may_ask(name).await?;
        let requirements = self.requirements(name);
        // A signature may be the manifest's and not its index's: then both must be there.
        let known = known.filter(|_| !requirements.iter().any(is_signed));
        let resolution = resolve::resolve(&self.shared, name, platform, known).await?;
        let digests = match &resolution {
            Resolution::Unchanged(digest) => vec![*digest],
            Resolution::Image(image) => {
                let indexes = image.indexes.iter().map(|index| index.digest);
                indexes.chain([image.manifest.digest]).collect()
            }
        };
        self.check(name, &digests, &requirements).await?;
        Ok(resolution)
    }

    /// What the policy and the key demand of an image.
    fn requirements(&self, name: &ImageName) -> Vec<Requirement> {
        let requirements = self.shared.settings.policy.requirements(name);
        requirements.iter().chain(&self.demanded).cloned().collect()
    }

    /// Whether anything may come from there: a registry whose images are rejected anyway is not asked.
    ///
    /// # Errors
    /// [`ResolveError::Policy`].
    pub async fn may_ask(&self, name: &ImageName) -> Result<(), ResolveError> {
        let requirements = self.requirements(name);
        let is_open =
            |one: &Requirement| !matches!(one, Requirement::Reject | Requirement::Unknown(_));
        if requirements.iter().all(is_open) {
            return Ok(());
        }
        self.check(name, &[], &requirements).await
    }

    /// Whether an image must be signed.
    #[must_use]
    pub fn wants_signatures(&self, name: &ImageName) -> bool {
        self.requirements(name).iter().any(is_signed)
    }

    /// Whether the policy and the key allow the image that these digests lead to: of its indexes, and its
    /// own. A signature of any of them is enough, for each names the next.
    ///
    /// # Errors
    /// [`ResolveError::Policy`].
    pub async fn allows(&self, name: &ImageName, digests: &[Digest]) -> Result<(), ResolveError> {
        self.check(name, digests, &self.requirements(name)).await
    }

    async fn check(
        &self,
        name: &ImageName,
        digests: &[Digest],
        requirements: &[Requirement],
    ) -> Result<(), ResolveError> {
        policy::check(&self.shared, name, digests, requirements)
            .await
            .map_err(|source| ResolveError::Policy {
                name: name.to_string(),
                source,
            })
    }

    /// What a name leads to, without choosing a platform. No policy is asked.
    ///
    /// # Errors
    /// [`ResolveError`].
    pub async fn manifest(&self, name: &ImageName) -> Result<Fetched, ResolveError> {
        resolve::fetch(&self.shared, name).await
    }

    /// All tags of a repository.
    ///
    /// # Errors
    /// [`ResolveError`].
    pub async fn tags(&self, name: &ImageName) -> Result<Vec<String>, ResolveError> {
        resolve::tags(&self.shared, name).await
    }

    /// A blob's bytes from `from_bytes` on. The stream goes on by itself after a drop and changes
    /// to the next mirror if it must. Its end is [`Ok`] only if the length is right and, where it
    /// began at 0, the digest.
    ///
    /// # Errors
    /// [`BlobError`] if nobody gives it.
    pub async fn blob(
        &self,
        name: &ImageName,
        blob: &Descriptor,
        from_bytes: u64,
    ) -> Result<BlobStream, BlobError> {
        BlobStream::open(self.shared.clone(), name, blob, from_bytes).await
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
        blob::whole(&self.shared, name, blob, limit_bytes).await
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
        push::blob(&self.shared, target, blob, source, options).await
    }

    /// Pushes a manifest or index under `target`'s tag, or else under its own digest, byte for
    /// byte.
    ///
    /// # Errors
    /// [`PushError`].
    pub async fn push_manifest(
        &self,
        target: &ImageName,
        manifest: &Fetched,
    ) -> Result<(), PushError> {
        push::manifest(&self.shared, target, manifest).await
    }

    /// Asks the registry whether it takes the credentials, then keeps them. `server` is a
    /// registry's name, or empty for Docker Hub.
    ///
    /// # Errors
    /// [`LoginError`].
    pub async fn login(
        &self,
        server: &str,
        user: &str,
        password: &str,
    ) -> Result<LoggedIn, LoginError> {
        let timing = self.shared.transport.timing.clone();
        let observer = self.observer.clone();
        let settings = &self.shared.settings;
        login::login(settings, timing, observer, server, user, password).await
    }

    /// Asks the registry whether it takes the credentials that are kept for it; `None` if there are
    /// none.
    ///
    /// # Errors
    /// [`LoginError`] if they cannot be looked up.
    pub async fn login_stored(&self, server: &str) -> Result<Option<StoredLogin>, LoginError> {
        let timing = self.shared.transport.timing.clone();
        let observer = self.observer.clone();
        login::login_stored(&self.shared.settings, timing, observer, server).await
    }

    /// Forgets the credentials of a registry. `false` if there were none. It may start a helper's
    /// program.
    ///
    /// # Errors
    /// [`LoginError`].
    pub fn logout(&self, server: &str) -> Result<bool, LoginError> {
        login::logout(&self.shared.settings, server)
    }
}

const fn is_signed(requirement: &Requirement) -> bool {
    matches!(requirement, Requirement::Signed { .. })
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}
