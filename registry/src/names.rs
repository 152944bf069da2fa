//! Names of images: a registry, a repository in it, a tag or a digest. Everything that becomes
//! part of a request's path is checked here, once.

use hullbox_model::digest::{Digest, DigestError};
use std::fmt;
use std::str::FromStr;

/// The registry of names without one.
pub const DOCKER_HUB: &str = "docker.io";
/// The namespace of its official images.
const OFFICIAL: &str = "library/";
const DEFAULT_TAG: &str = "latest";
/// Longest repository with its registry, in bytes (distribution's limit).
const MAX_NAME_BYTES: usize = 255;
/// Longest tag, in bytes (distribution-spec 1.1, "Pulling manifests").
const MAX_TAG_BYTES: usize = 128;

/// Why a text is not the name of an image in a registry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// Not a host name or address with an optional port.
    #[error("invalid reference format: bad registry name {0:?}")]
    Registry(String),
    /// Not lower-case components with slashes between them.
    #[error("invalid reference format: bad repository name {0:?}")]
    Repository(String),
    /// Letters, digits, `_`, `.` and `-` are expected.
    #[error("invalid reference format: bad tag {0:?}")]
    Tag(String),
    /// Not a digest.
    #[error("invalid reference format")]
    Digest(#[source] DigestError),
    /// More than a registry takes.
    #[error(
        "invalid reference format: repository name must not be more than {MAX_NAME_BYTES} bytes"
    )]
    TooLong,
}

/// An image in a registry.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ImageName {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl ImageName {
    /// A name of parts. With neither tag nor digest it means the tag `latest`.
    ///
    /// # Errors
    /// [`NameError`] for a part that no registry takes.
    pub fn new(
        registry: &str,
        repository: &str,
        tag: Option<&str>,
        digest: Option<Digest>,
    ) -> Result<Self, NameError> {
        if !registry_is_valid(registry) {
            return Err(NameError::Registry(shown(registry)));
        }
        if !repository.split('/').all(component_is_valid) {
            return Err(NameError::Repository(shown(repository)));
        }
        if registry.len() + 1 + repository.len() > MAX_NAME_BYTES {
            return Err(NameError::TooLong);
        }
        if let Some(tag) = tag.filter(|tag| !tag_is_valid(tag)) {
            return Err(NameError::Tag(shown(tag)));
        }
        let tag = match (tag, &digest) {
            (None, None) => Some(DEFAULT_TAG),
            (tag, _) => tag,
        };
        Ok(Self {
            registry: registry.to_owned(),
            repository: repository.to_owned(),
            tag: tag.map(str::to_owned),
            digest,
        })
    }

    /// Host name and port of the registry: `docker.io`, `localhost:5000`.
    #[must_use]
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// Repository within the registry: `library/debian`.
    #[must_use]
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag, unless only a digest was given.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, if one was given.
    #[must_use]
    pub const fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// Registry and repository: `docker.io/library/debian`.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// The same repository by digest alone.
    #[must_use]
    pub fn with_digest(&self, digest: Digest) -> Self {
        Self {
            tag: None,
            digest: Some(digest),
            ..self.clone()
        }
    }

    /// The same repository with another tag and no digest.
    ///
    /// # Errors
    /// [`NameError::Tag`].
    pub fn with_tag(&self, tag: &str) -> Result<Self, NameError> {
        Self::new(&self.registry, &self.repository, Some(tag), None)
    }

    /// What a registry is asked for: the digest where there is one, which pins what the tag says.
    pub(crate) fn wanted(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            (None, None) => DEFAULT_TAG.to_owned(),
        }
    }
}

/// Reads a whole name as Docker does: `debian` is `docker.io/library/debian:latest`. Search lists
/// and aliases are [`crate::Settings::candidates`]'s.
impl FromStr for ImageName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.parse().map_err(NameError::Digest)?)),
            None => (text, None),
        };
        // A colon after the last slash starts a tag; before it, a registry's port.
        let last = rest.rfind('/').map_or(0, |slash| slash + 1);
        let (name, tag) = match rest[last..].split_once(':') {
            Some((base, tag)) => (&rest[..last + base.len()], Some(tag)),
            None => (rest, None),
        };
        let (registry, path) = split_registry(name).unwrap_or((DOCKER_HUB, name));
        let registry = match registry {
            "index.docker.io" | "registry-1.docker.io" => DOCKER_HUB,
            other => other,
        };
        if registry == DOCKER_HUB && !path.contains('/') {
            return Self::new(registry, &format!("{OFFICIAL}{path}"), tag, digest);
        }
        Self::new(registry, path, tag, digest)
    }
}

/// Canonical form: `docker.io/library/debian:12`.
impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

/// The registry that a name begins with: the part before the first slash if it cannot be a
/// namespace. `None` is a short name.
pub(crate) fn split_registry(name: &str) -> Option<(&str, &str)> {
    let (first, rest) = name.split_once('/')?;
    let is_registry = first == "localhost"
        || first.contains(['.', ':'])
        || first.chars().any(|c| c.is_ascii_uppercase());
    is_registry.then_some((first, rest))
}

/// What of a hostile text may be shown.
pub(crate) fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(80).collect()
}

/// A host name, IPv4 address or IPv6 address in brackets, with a port or without.
pub(crate) fn registry_is_valid(registry: &str) -> bool {
    let (host, port) = match registry.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (registry, None),
    };
    if port.is_some_and(|port| {
        port.len() > 5 || !port.bytes().all(|b| b.is_ascii_digit()) || port.parse::<u16>().is_err()
    }) {
        return false;
    }
    if let Some(v6) = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
        return v6.parse::<std::net::Ipv6Addr>().is_ok();
    }
    host.split('.').all(|label| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-')
    })
}

/// Lower-case letters and digits, separated by one of `.`, `_`, `__` or any number of `-`.
fn component_is_valid(component: &str) -> bool {
    let alphanumeric = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = component.as_bytes();
    bytes.first().is_some_and(alphanumeric)
        && bytes.last().is_some_and(alphanumeric)
        && component
            .split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
            .all(|separator| {
                matches!(separator, "" | "." | "_" | "__") || separator.bytes().all(|b| b == b'-')
            })
}

pub(crate) fn tag_is_valid(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let bytes = tag.as_bytes();
    bytes.first().is_some_and(|&b| word(b))
        && bytes.len() <= MAX_TAG_BYTES
        && bytes.iter().all(|&b| word(b) || b == b'.' || b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_docker_does() {
        for (typed, full) in [
            ("debian", "docker.io/library/debian:latest"),
            ("debian:12", "docker.io/library/debian:12"),
            ("a/b", "docker.io/a/b:latest"),
            ("index.docker.io/debian:12", "docker.io/library/debian:12"),
            ("localhost/x", "localhost/x:latest"),
            ("localhost:5000/x:y", "localhost:5000/x:y"),
            ("[::1]:5000/a/b", "[::1]:5000/a/b:latest"),
            ("Host/x", "Host/x:latest"),
        ] {
            assert_eq!(typed.parse::<ImageName>().unwrap().to_string(), full);
        }
        let pinned = format!("q.io/x:1@{}", Digest::of(b""));
        let name: ImageName = pinned.parse().unwrap();
        assert_eq!(name.to_string(), pinned);
        assert_eq!(name.wanted(), Digest::of(b"").to_string());
    }

    #[test]
    fn nothing_else_reaches_a_request() {
        for bad in [
            "",
            "a//b",
            "q.io/../x",
            "q.io/x:y/../z",
            "q.io/x?y",
            "q.io/x%2f",
            "q.io/x y",
            "q.io:99999/x",
            "[::g]/x",
            "q.io/x:",
            "q.io/x@sha256:12",
            "user@q.io/x",
            "-q.io/x",
            "q.io/X",
        ] {
            assert!(bad.parse::<ImageName>().is_err(), "{bad:?}");
        }
        let long = format!("q.io/{}", "a".repeat(255));
        assert_eq!(long.parse::<ImageName>(), Err(NameError::TooLong));
    }
}
