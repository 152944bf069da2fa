//! cosign's signatures: an image of its own beside the signed one, under the tag `sha256-….sig`.
//! Each of its layers is a payload (simple signing's JSON) whose signature is in an annotation.

use super::key::Key;
use super::requirement::Requirement;
use crate::ask::Shared;
use crate::blob;
use crate::error::{PolicyError, ResolveError, chain};
use crate::manifest::{Descriptor, Manifest};
use crate::names::{ImageName, shown};
use crate::resolve::fetch;
use base64::Engine as _;
use hullbox_model::digest::Digest;
use serde::Deserialize;
use std::sync::Arc;

const PAYLOAD_TYPE: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
const SIGNATURE_ANNOTATION: &str = "dev.cosignproject.cosign/signature";
const CRITICAL_TYPE: &str = "cosign container image signature";
/// Largest payload, in bytes.
const MAX_PAYLOAD_BYTES: u64 = 256 << 10;
/// Most signatures of one image that are looked at.
const MAX_SIGNATURES: usize = 64;

#[derive(Deserialize)]
struct Payload {
    critical: Critical,
}

#[derive(Deserialize)]
struct Critical {
    #[serde(rename = "type")]
    kind: String,
    image: Image,
    identity: SignedName,
}

#[derive(Deserialize)]
struct Image {
    #[serde(rename = "docker-manifest-digest")]
    digest: Digest,
}

#[derive(Deserialize)]
struct SignedName {
    #[serde(rename = "docker-reference")]
    name: String,
}

/// A payload with its signature.
struct Signature {
    payload: Vec<u8>,
    signature: Vec<u8>,
}

/// Whether `name`, which leads to these digests (the index's, the manifest's), fulfils all
/// requirements. A signature of the index covers the manifests that it names.
pub(crate) async fn check(
    shared: &Arc<Shared>,
    name: &ImageName,
    digests: &[Digest],
    requirements: &[Requirement],
) -> Result<(), PolicyError> {
    let mut signatures = None;
    for requirement in requirements {
        match requirement {
            Requirement::Accept => {}
            Requirement::Reject => return Err(PolicyError::Rejected),
            Requirement::Unknown(kind) => return Err(PolicyError::Unsupported(kind.clone())),
            Requirement::Signed { keys, identity } => {
                let found = match signatures.take() {
                    Some(found) => found,
                    None => fetch_all(shared, name, digests).await?,
                };
                let accepts = |signed: &str| identity.accepts(name, signed);
                verify(&found, digests, keys, &accepts)?;
                signatures = Some(found);
            }
        }
    }
    Ok(())
}

/// One valid signature is enough.
fn verify(
    signatures: &[Signature],
    digests: &[Digest],
    keys: &[Key],
    accepts: &dyn Fn(&str) -> bool,
) -> Result<(), PolicyError> {
    let mut why = None;
    for signature in signatures {
        match signature.verify(digests, keys, accepts) {
            Ok(()) => return Ok(()),
            Err(reason) => why = Some(reason),
        }
    }
    Err(match why {
        None => PolicyError::Unsigned,
        Some(why) => PolicyError::NoValidSignature {
            count: signatures.len(),
            why,
        },
    })
}

impl Signature {
    /// Nothing of the payload is looked at before a key vouches for it.
    fn verify(
        &self,
        digests: &[Digest],
        keys: &[Key],
        accepts: &dyn Fn(&str) -> bool,
    ) -> Result<(), String> {
        let signed = |key: &Key| key.verifies(&self.payload, &self.signature);
        if !keys.iter().any(signed) {
            return Err("it is not by the key that is demanded".to_owned());
        }
        let payload: Payload = serde_json::from_slice(&self.payload)
            .map_err(|_| "what was signed is not cosign's JSON".to_owned())?;
        let critical = payload.critical;
        if critical.kind != CRITICAL_TYPE {
            return Err(format!("it is a {:?}", shown(&critical.kind)));
        }
        if !digests.contains(&critical.image.digest) {
            return Err(format!("it is for {}", critical.image.digest));
        }
        if !accepts(&critical.identity.name) {
            return Err(format!(
                "it is for the name {:?}",
                shown(&critical.identity.name)
            ));
        }
        Ok(())
    }
}

/// All signatures that a repository has for one of the digests.
async fn fetch_all(
    shared: &Arc<Shared>,
    name: &ImageName,
    digests: &[Digest],
) -> Result<Vec<Signature>, PolicyError> {
    let mut found = Vec::new();
    for digest in digests {
        let failed = |error| PolicyError::Signatures(Box::new(error));
        let tag = format!("sha256-{}.sig", digest.hex());
        let Ok(place) = name.with_tag(&tag) else {
            continue;
        };
        let manifest = match fetch(shared, &place).await {
            Ok(manifest) => manifest,
            Err(ResolveError::NotFound { .. }) => continue,
            Err(error) => return Err(failed(error)),
        };
        let parsed = manifest.parse().map_err(|source| {
            failed(ResolveError::Manifest {
                name: place.to_string(),
                source,
            })
        })?;
        if let Manifest::Image { layers, .. } = parsed {
            for layer in layers.iter().take(MAX_SIGNATURES) {
                found.extend(fetch_one(shared, &place, layer).await?);
            }
        }
    }
    Ok(found)
}

/// A payload; none for a layer that is something else.
async fn fetch_one(
    shared: &Arc<Shared>,
    place: &ImageName,
    layer: &Descriptor,
) -> Result<Option<Signature>, PolicyError> {
    let Some(signature) = layer.annotations.get(SIGNATURE_ANNOTATION) else {
        return Ok(None);
    };
    let decoded = base64::engine::general_purpose::STANDARD.decode(signature.trim());
    let (true, Ok(signature)) = (layer.media_type == PAYLOAD_TYPE, decoded) else {
        return Ok(None);
    };
    let payload = blob::whole(shared, place, layer, MAX_PAYLOAD_BYTES).await;
    let payload = payload.map_err(|error| PolicyError::NoValidSignature {
        count: 1,
        why: chain(&error),
    })?;
    Ok(Some(Signature { payload, signature }))
}
