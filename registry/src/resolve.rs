//! From a name to a manifest: mirrors, the index, the platform, and the digest of everything.

use crate::ask::{Head, Shared};
use crate::auth::Scope;
use crate::error::{Attempt, RequestError, ResolveError, Tried};
use crate::manifest::{
    Descriptor, Fetched, MAX_MANIFEST_BYTES, Manifest, ManifestError, choices, is_known_type,
    offers,
};
use crate::names::{ImageName, tag_is_valid};
use crate::platform::Platform;
use crate::settings::registries::Endpoint;
use crate::transport::Call;
use hullbox_model::digest::Digest;
use reqwest::Method;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderValue, LINK};
use serde::Deserialize;

/// Most indexes between a name and its manifest.
const MAX_DEPTH: usize = 4;
/// Most tags of a repository, and most pages they come in.
const MAX_TAGS: usize = 100_000;
const MAX_PAGES: usize = 1000;
const PAGE_TAGS: usize = 1000;
const MAX_PAGE_BYTES: u64 = 4 << 20;
/// Where a registry says what the digest of its answer is.
const DIGEST_HEADER: &str = "docker-content-digest";

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
    /// shows as the repository's digest, and what `known` of [`crate::Client::resolve`] compares.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.indexes.first().unwrap_or(&self.manifest).digest
    }
}

/// What may come for a manifest.
fn accept() -> HeaderValue {
    HeaderValue::from_static(
        "application/vnd.oci.image.index.v1+json, \
         application/vnd.oci.image.manifest.v1+json, \
         application/vnd.docker.distribution.manifest.list.v2+json, \
         application/vnd.docker.distribution.manifest.v2+json",
    )
}

fn manifest_call(method: Method, place: &Endpoint, wanted: &str) -> Call {
    Call::new(method, format!("{}/manifests/{wanted}", place.repository))
        .with_header(ACCEPT, accept())
}

/// See [`crate::Client::resolve`]; the policy is its caller's.
pub(crate) async fn resolve(
    shared: &Shared,
    name: &ImageName,
    platform: &Platform,
    known: Option<&Digest>,
) -> Result<Resolution, ResolveError> {
    if let Some(known) = known
        && (name.digest() == Some(known) || head(shared, name).await? == Some(*known))
    {
        return Ok(Resolution::Unchanged(*known));
    }
    let mut indexes = Vec::new();
    let mut fetched = fetch(shared, name).await?;
    loop {
        let parsed = fetched.parse().map_err(|source| ResolveError::Manifest {
            name: name.to_string(),
            source,
        })?;
        let entries = match parsed {
            Manifest::Image { config, layers } => {
                return Ok(Resolution::Image(Box::new(Resolved {
                    name: name.clone(),
                    indexes,
                    manifest: fetched,
                    config,
                    layers,
                })));
            }
            Manifest::Index(entries) => entries,
        };
        if indexes.len() == MAX_DEPTH {
            return Err(ResolveError::TooDeep {
                name: name.to_string(),
                limit: MAX_DEPTH,
            });
        }
        let chosen = choose(name, platform, &entries)?;
        indexes.push(fetched);
        fetched = fetch(shared, &name.with_digest(chosen.digest)).await?;
        agrees(chosen, &fetched).map_err(|source| ResolveError::Manifest {
            name: name.to_string(),
            source,
        })?;
    }
}

/// Whether a manifest is what its index says.
fn agrees(entry: &Descriptor, fetched: &Fetched) -> Result<(), ManifestError> {
    if entry.size_bytes != fetched.raw.len() as u64 {
        return Err(ManifestError::Contradiction(
            "its length is not the one that the index gives",
        ));
    }
    if is_known_type(&entry.media_type) && entry.media_type != fetched.media_type {
        return Err(ManifestError::Contradiction(
            "its media type is not the one that the index gives",
        ));
    }
    Ok(())
}

fn choose<'a>(
    name: &ImageName,
    platform: &Platform,
    entries: &'a [Descriptor],
) -> Result<&'a Descriptor, ResolveError> {
    choices(entries, platform)
        .first()
        .copied()
        .ok_or_else(|| ResolveError::NoPlatform {
            name: name.to_string(),
            platform: platform.to_string(),
            offers: match offers(entries) {
                offers if offers.is_empty() => offers,
                offers => format!("it is for {offers}"),
            },
        })
}

/// The places that may have an image, and the scope that is asked for there.
pub(crate) fn places(shared: &Shared, name: &ImageName) -> Result<Vec<Endpoint>, ResolveError> {
    let sources = shared.settings.registries.sources(name);
    let sources = sources.map_err(|_| ResolveError::Blocked {
        name: name.to_string(),
    })?;
    Ok(shared.reachable(sources))
}

/// The digest that a name leads to, if the first place that answers says it.
async fn head(shared: &Shared, name: &ImageName) -> Result<Option<Digest>, ResolveError> {
    for place in places(shared, name)? {
        let call = manifest_call(Method::HEAD, &place, &name.wanted());
        let scope = Scope::pull(&place.repository);
        match shared.ask(&place, &scope, &call).await {
            Ok(answer) if answer.status().is_success() => {
                let digest = answer.header(DIGEST_HEADER).unwrap_or_default();
                return Ok(digest.parse().ok());
            }
            // The request for the whole manifest has more to say.
            Ok(_) => {}
            Err(error) => shared.note(&place, &error),
        }
    }
    Ok(None)
}

/// A manifest or index from the first place that has it.
pub(crate) async fn fetch(shared: &Shared, name: &ImageName) -> Result<Fetched, ResolveError> {
    let mut tried = Vec::new();
    for place in places(shared, name)? {
        match fetch_from(shared, &place, name).await {
            Ok(fetched) => return Ok(fetched),
            Err(why) => {
                shared.note(&place, &why);
                tried.push(Attempt {
                    asked: asked(&place, name),
                    why,
                });
            }
        }
    }
    Err(not_served(name, tried))
}

fn not_served(name: &ImageName, mut tried: Vec<Attempt>) -> ResolveError {
    let name = name.to_string();
    // Where the name itself says all, it is said once.
    if let [only] = &mut tried[..]
        && only.asked == name
    {
        only.asked.clear();
    }
    let source = Tried(tried);
    if source.is_not_found() {
        ResolveError::NotFound { name, source }
    } else {
        ResolveError::Unavailable { name, source }
    }
}

/// Which image a place is asked for.
fn asked(place: &Endpoint, name: &ImageName) -> String {
    let separator = if name.digest().is_some() { '@' } else { ':' };
    format!(
        "{}/{}{separator}{}",
        place.host(),
        place.repository,
        name.wanted()
    )
}

async fn fetch_from(
    shared: &Shared,
    place: &Endpoint,
    name: &ImageName,
) -> Result<Fetched, RequestError> {
    let call = manifest_call(Method::GET, place, &name.wanted());
    let scope = Scope::pull(&place.repository);
    let limit = MAX_MANIFEST_BYTES as u64;
    let (head, raw) = shared
        .document(place, &scope, &call, "a manifest", limit)
        .await?;
    let host = head.host.clone();
    let declared = media_type(&head);
    let stated: Option<Digest> = match head.header(DIGEST_HEADER) {
        Some(text) if name.digest().is_none() => text.parse().ok(),
        _ => None,
    };
    let media_type = crate::manifest::media_type(&raw, &declared);
    if is_known_type(&declared) && declared != media_type {
        return Err(RequestError::Protocol {
            host,
            what: "a manifest of another type than it says itself".to_owned(),
        });
    }
    let found = Digest::of(&raw);
    match name.digest().copied().or(stated) {
        Some(wanted) if wanted != found => Err(RequestError::Protocol {
            host,
            what: format!("a manifest that is not {wanted} but {found}"),
        }),
        _ => Ok(Fetched {
            media_type,
            raw,
            digest: found,
        }),
    }
}

/// The answer's type without parameters.
fn media_type(head: &Head) -> String {
    let text = head.header(CONTENT_TYPE).unwrap_or_default();
    let end = text.find(';').unwrap_or(text.len());
    text[..end].trim().to_ascii_lowercase()
}

#[derive(Deserialize)]
struct Page {
    tags: Option<Vec<String>>,
}

/// All tags of a repository, from the first place that lists them.
pub(crate) async fn tags(shared: &Shared, name: &ImageName) -> Result<Vec<String>, ResolveError> {
    let mut tried = Vec::new();
    for place in places(shared, name)? {
        match tags_of(shared, &place).await {
            Ok(tags) => return Ok(tags),
            Err(why) => {
                shared.note(&place, &why);
                tried.push(Attempt {
                    asked: format!("{}/{}", place.host(), place.repository),
                    why,
                });
            }
        }
    }
    Err(not_served(name, tried))
}

async fn tags_of(shared: &Shared, place: &Endpoint) -> Result<Vec<String>, RequestError> {
    let scope = Scope::pull(&place.repository);
    let bad = |what: &str| RequestError::Protocol {
        host: place.host().to_owned(),
        what: what.to_owned(),
    };
    let first = format!("{}/tags/list?n={PAGE_TAGS}", place.repository);
    let mut path = Some(first);
    let mut tags = Vec::new();
    for _ in 0..MAX_PAGES {
        let Some(next) = path else { return Ok(tags) };
        let call = Call::get(next);
        let read = shared.document(place, &scope, &call, "a list of tags", MAX_PAGE_BYTES);
        let (head, bytes) = read.await?;
        path = next_page(&head, place);
        let page: Page =
            serde_json::from_slice(&bytes).map_err(|_| bad("a list of tags that is not one"))?;
        let valid = page.tags.unwrap_or_default().into_iter();
        tags.extend(valid.filter(|tag| tag_is_valid(tag)));
        if tags.len() > MAX_TAGS {
            return Err(bad("more tags than are read"));
        }
    }
    Err(bad("a list of tags without end"))
}

/// Where the next page is (RFC 8288): a path of this repository's, whatever host it names.
fn next_page(head: &Head, place: &Endpoint) -> Option<String> {
    let link = head.header(LINK)?;
    let (target, parameters) = link.trim().strip_prefix('<')?.split_once('>')?;
    if !parameters.contains("next") {
        return None;
    }
    let url = head.url.join(target).ok()?;
    let list = format!("{}/tags/list", place.repository);
    if !url.path().ends_with(&list) {
        return None;
    }
    Some(format!("{list}?{}", url.query()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::{INDEX_TYPES, MANIFEST_TYPES};

    #[test]
    fn every_type_that_is_understood_is_asked_for() {
        let accept = accept();
        let accept = accept.to_str().unwrap();
        for kind in MANIFEST_TYPES.iter().chain(&INDEX_TYPES) {
            assert!(accept.contains(kind), "{kind}");
        }
    }
}
