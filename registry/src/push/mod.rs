//! Push: blobs that a repository does not have yet, by the cheapest way there is, and manifests
//! byte for byte (distribution-spec 1.1, "Push").

mod body;
mod options;
mod place;
mod upload;

pub use options::{BlobSource, PushOptions, Pushed};

use crate::ask::{Shared, expect};
use crate::auth::Scope;
use crate::error::{PushError, RequestError};
use crate::manifest::{Descriptor, Fetched};
use crate::names::ImageName;
use crate::settings::registries::Endpoint;
use crate::transport::{Answer, Call};
use bytes::Bytes;
use hullbox_model::digest::Digest;
use reqwest::Method;
use reqwest::header::{CONTENT_TYPE, HeaderValue};
use std::sync::Arc;
use upload::{Failure, Upload};

/// Most repositories that a blob is mounted from, one after the other.
const MAX_MOUNTS: usize = 3;
const DIGEST_HEADER: &str = "docker-content-digest";

/// One blob on its way to one repository.
struct Job<'a> {
    shared: &'a Arc<Shared>,
    place: Endpoint,
    scope: Scope,
    blob: &'a Descriptor,
    source: Arc<dyn BlobSource>,
    options: &'a PushOptions,
}

/// See [`crate::Client::push_blob`].
pub(crate) async fn blob(
    shared: &Arc<Shared>,
    target: &ImageName,
    blob: &Descriptor,
    source: Arc<dyn BlobSource>,
    options: &PushOptions,
) -> Result<Pushed, PushError> {
    let place = place_of(shared, target)?;
    let job = Job {
        scope: Scope::push(&place.repository),
        shared,
        place,
        blob,
        source,
        options,
    };
    let failed = |source| PushError::Request {
        what: blob.digest.to_string(),
        target: format!("{}/{}", job.place.host(), job.place.repository),
        source,
    };
    match job.run().await {
        Ok(pushed) => Ok(pushed),
        Err(Failure::Request(source)) => Err(failed(source)),
        Err(Failure::Source(source)) => Err(PushError::Source {
            digest: blob.digest,
            source,
        }),
        Err(Failure::Damaged(found)) => Err(PushError::Damaged {
            digest: blob.digest,
            found,
        }),
    }
}

fn place_of(shared: &Shared, target: &ImageName) -> Result<Endpoint, PushError> {
    let place = shared.settings.registries.target(target);
    place.map_err(|_| PushError::Blocked {
        name: target.to_string(),
    })
}

impl Job<'_> {
    async fn run(&self) -> Result<Pushed, Failure> {
        if self.is_there().await? {
            return Ok(Pushed::Exists);
        }
        let upload = match self.mount().await {
            Mount::Done => return Ok(Pushed::Mounted),
            Mount::Upload(answer) => *answer,
            Mount::None => self.start().await?,
        };
        Upload::begin(self, upload).await?.run().await?;
        Ok(Pushed::Uploaded)
    }

    async fn is_there(&self) -> Result<bool, RequestError> {
        let path = format!("{}/blobs/{}", self.place.repository, self.blob.digest);
        let call = Call::new(Method::HEAD, path);
        let answer = self.shared.ask(&self.place, &self.scope, &call).await?;
        match answer.status().as_u16() {
            200 => Ok(true),
            404 => Ok(false),
            _ => Err(self.shared.refusal(answer).await),
        }
    }

    /// Asks the registry to take the blob from another of its repositories. What goes wrong here is
    /// no reason to fail: then its bytes are sent.
    async fn mount(&self) -> Mount {
        let mut outcome = Mount::None;
        let sources = self.options.mount_from.iter();
        let sources = sources.filter_map(|name| self.shared.settings.registries.target(name).ok());
        let others = sources.filter(|from| {
            from.host() == self.place.host() && from.repository != self.place.repository
        });
        for from in others.take(MAX_MOUNTS) {
            let path = format!(
                "{}/blobs/uploads/?mount={}&from={}",
                self.place.repository, self.blob.digest, from.repository
            );
            let scope = self.scope.clone().and_pull(&from.repository);
            let call = Call::new(Method::POST, path);
            let answer = self.shared.ask_once(&self.place, &scope, &call).await;
            if let Mount::Upload(unused) = std::mem::replace(&mut outcome, Mount::None) {
                upload::cancel(self, &unused).await;
            }
            match answer {
                Ok(answer) if answer.status() == 201 => return Mount::Done,
                Ok(answer) if answer.status() == 202 => outcome = Mount::Upload(Box::new(answer)),
                _ => {}
            }
        }
        outcome
    }

    /// Begins an upload.
    async fn start(&self) -> Result<Answer, RequestError> {
        let path = format!("{}/blobs/uploads/", self.place.repository);
        let mut call = Call::new(Method::POST, path);
        call.body = Some(Bytes::new());
        let answer = self.shared.ask(&self.place, &self.scope, &call).await?;
        expect(self.shared, answer, &[202]).await
    }
}

/// What became of mounting.
enum Mount {
    Done,
    /// The registry would rather have the bytes, and has begun an upload.
    Upload(Box<Answer>),
    None,
}

/// See [`crate::Client::push_manifest`].
pub(crate) async fn manifest(
    shared: &Arc<Shared>,
    target: &ImageName,
    manifest: &Fetched,
) -> Result<(), PushError> {
    let place = place_of(shared, target)?;
    let name = match (target.digest(), target.tag()) {
        (None, Some(tag)) => tag.to_owned(),
        _ => manifest.digest.to_string(),
    };
    let failed = |source| PushError::Request {
        what: "the manifest".to_owned(),
        target: format!("{}/{}:{name}", place.host(), place.repository),
        source,
    };
    let answer = put(shared, &place, &name, manifest).await.map_err(failed)?;
    let stated = answer.header(DIGEST_HEADER);
    match stated.and_then(|text| text.parse::<Digest>().ok()) {
        Some(found) if found != manifest.digest => Err(PushError::OtherDigest {
            target: place.host().to_owned(),
            digest: manifest.digest,
            found: found.to_string(),
        }),
        _ => Ok(()),
    }
}

async fn put(
    shared: &Shared,
    place: &Endpoint,
    name: &str,
    manifest: &Fetched,
) -> Result<Answer, RequestError> {
    let media_type =
        HeaderValue::from_str(&manifest.media_type).map_err(|_| RequestError::Protocol {
            host: place.host().to_owned(),
            what: "a manifest's type that cannot be sent".to_owned(),
        })?;
    let mut call = Call::new(
        Method::PUT,
        format!("{}/manifests/{name}", place.repository),
    )
    .with_header(CONTENT_TYPE, media_type);
    call.body = Some(Bytes::copy_from_slice(&manifest.raw));
    let scope = Scope::push(&place.repository);
    let answer = shared.ask(place, &scope, &call).await?;
    expect(shared, answer, &[201, 200]).await
}
