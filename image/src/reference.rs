//! Image references as Docker reads and writes them: `debian:12` means
//! `docker.io/library/debian:12`, and is shown as `debian:12` again.
//!
//! Not `oci_spec::distribution::Reference` (0.10.0): that takes letters and digits of any script in
//! tags, names that look like image ids and registries of more than 255 bytes with their
//! repository, takes `Foo/x` for a repository of Docker Hub, and has no IPv6 (`[::1]:80/x`). The
//! tests below have these cases.

use crate::digest::{Digest, DigestError};
use std::fmt;
use std::str::FromStr;

/// The registry a name without one belongs to.
const DEFAULT_REGISTRY: &str = "docker.io";
/// The namespace of its official images.
const OFFICIAL: &str = "library/";
/// The tag that is meant when none is given.
const DEFAULT_TAG: &str = "latest";
/// Longest repository name including the registry, in bytes (distribution's limit).
const MAX_NAME_LEN: usize = 255;
/// Longest tag, in bytes.
const MAX_TAG_LEN: usize = 128;

/// Why a text is not a reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReferenceError {
    /// Nothing in it.
    #[error("invalid reference format: it is empty")]
    Empty,
    /// 64 hexadecimal digits would be mistaken for an image id.
    #[error("invalid repository name: 64 hexadecimal digits look like an image id")]
    LooksLikeId,
    /// Upper case in the repository.
    #[error("invalid reference format: repository name ({0}) must be lowercase")]
    Uppercase(String),
    /// A bad repository.
    #[error("invalid reference format: bad repository name {0:?}")]
    Repository(String),
    /// A bad registry.
    #[error("invalid reference format: bad registry name {0:?}")]
    Registry(String),
    /// A bad tag.
    #[error("invalid reference format: bad tag {0:?}")]
    Tag(String),
    /// Too long a name.
    #[error("invalid reference format: repository name must not be more than {MAX_NAME_LEN} bytes")]
    TooLong,
    /// A bad digest.
    #[error("invalid reference format")]
    Digest(#[source] DigestError),
}

/// A name of an image, normalised.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// Parses what a user or an archive says. Neither tag nor digest means the tag `latest`.
    ///
    /// # Errors
    /// [`ReferenceError`], in words that can be shown.
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        if text.is_empty() {
            return Err(ReferenceError::Empty);
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => {
                let digest = digest.parse().map_err(ReferenceError::Digest)?;
                (rest, Some(digest))
            }
            None => (text, None),
        };
        // A colon after the last slash starts a tag; before it, a registry's port.
        let name_start = rest.rfind('/').map_or(0, |slash| slash + 1);
        let (name, tag) = match rest[name_start..].split_once(':') {
            Some((last, tag)) => (&rest[..name_start + last.len()], Some(tag)),
            None => (rest, None),
        };
        if digest.is_none() && Digest::from_hex(name).is_some() {
            return Err(ReferenceError::LooksLikeId);
        }
        let (registry, repository) = split_registry(name);
        check_registry(&registry)?;
        check_repository(&repository)?;
        if registry.len() + 1 + repository.len() > MAX_NAME_LEN {
            return Err(ReferenceError::TooLong);
        }
        if let Some(tag) = tag {
            check_tag(tag)?;
        }
        let tag = match (tag, &digest) {
            (None, None) => Some(DEFAULT_TAG),
            (tag, _) => tag,
        };
        Ok(Self {
            registry,
            repository,
            tag: tag.map(str::to_owned),
            digest,
        })
    }

    /// Host name (and port) of the registry: `docker.io`.
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

    /// Registry and repository as Docker shows them: `debian`.
    #[must_use]
    pub fn familiar_name(&self) -> String {
        familiar_name(&self.name()).to_owned()
    }

    /// The whole reference as Docker shows it: `debian:12`.
    #[must_use]
    pub fn familiar(&self) -> String {
        self.with_name(&self.familiar_name())
    }

    /// The same repository with another tag.
    ///
    /// # Errors
    /// [`ReferenceError::Tag`].
    pub fn with_tag(&self, tag: &str) -> Result<Self, ReferenceError> {
        check_tag(tag)?;
        Ok(Self {
            tag: Some(tag.to_owned()),
            digest: None,
            ..self.clone()
        })
    }

    fn with_name(&self, name: &str) -> String {
        let mut text = name.to_owned();
        if let Some(tag) = &self.tag {
            text = text + ":" + tag;
        }
        if let Some(digest) = &self.digest {
            text = format!("{text}@{digest}");
        }
        text
    }
}

/// Canonical form: `docker.io/library/debian:12`.
impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.with_name(&self.name()))
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        Self::parse(text)
    }
}

impl serde::Serialize for Reference {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Reference {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// `docker.io/library/debian` → `debian`; `docker.io/a/b` → `a/b`; others unchanged.
pub(crate) fn familiar_name(canonical: &str) -> &str {
    let Some(path) = canonical
        .strip_prefix(DEFAULT_REGISTRY)
        .and_then(|rest| rest.strip_prefix('/'))
    else {
        return canonical;
    };
    match path.strip_prefix(OFFICIAL) {
        Some(official) if !official.contains('/') => official,
        _ => path,
    }
}

/// The part before the first slash is a registry only if it cannot be a Docker Hub namespace.
fn split_registry(name: &str) -> (String, String) {
    let (registry, path) = match name.split_once('/') {
        Some((first, rest))
            if first == "localhost"
                || first.contains(['.', ':'])
                || first.chars().any(|c| c.is_ascii_uppercase()) =>
        {
            (first, rest)
        }
        _ => (DEFAULT_REGISTRY, name),
    };
    let registry = match registry {
        "index.docker.io" => DEFAULT_REGISTRY,
        other => other,
    };
    if registry == DEFAULT_REGISTRY && !path.contains('/') {
        return (registry.to_owned(), format!("{OFFICIAL}{path}"));
    }
    (registry.to_owned(), path.to_owned())
}

/// What of a hostile text may be shown.
fn shown(text: &str) -> String {
    text.chars().take(80).collect()
}

fn check_registry(registry: &str) -> Result<(), ReferenceError> {
    let bad = || ReferenceError::Registry(shown(registry));
    let (host, port) = match registry.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (registry, None),
    };
    if let Some(port) = port
        && (port.is_empty() || port.len() > 5 || !port.bytes().all(|b| b.is_ascii_digit()))
    {
        return Err(bad());
    }
    if let Some(v6) = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
        let valid = !v6.is_empty() && v6.bytes().all(|b| b.is_ascii_hexdigit() || b == b':');
        return if valid { Ok(()) } else { Err(bad()) };
    }
    let label_is_valid = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    if host.split('.').all(label_is_valid) {
        Ok(())
    } else {
        Err(bad())
    }
}

fn check_repository(repository: &str) -> Result<(), ReferenceError> {
    if repository.split('/').all(component_is_valid) {
        return Ok(());
    }
    let lower = repository.to_ascii_lowercase();
    if lower.split('/').all(component_is_valid) {
        return Err(ReferenceError::Uppercase(shown(repository)));
    }
    Err(ReferenceError::Repository(shown(repository)))
}

/// Lower-case letters and digits, separated by one of `.`, `_`, `__` or any number of `-`.
fn component_is_valid(component: &str) -> bool {
    let alphanumeric = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = component.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else {
        return false;
    };
    alphanumeric(first)
        && alphanumeric(last)
        && component
            .split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
            .all(|separator| {
                matches!(separator, "" | "." | "_" | "__") || separator.bytes().all(|b| b == b'-')
            })
}

fn check_tag(tag: &str) -> Result<(), ReferenceError> {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let bytes = tag.as_bytes();
    let valid = bytes.first().is_some_and(|&b| word(b))
        && bytes.len() <= MAX_TAG_LEN
        && bytes.iter().all(|&b| word(b) || b == b'.' || b == b'-');
    if valid {
        Ok(())
    } else {
        Err(ReferenceError::Tag(shown(tag)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_normalised_and_shown_as_docker_does() {
        for (text, canonical, familiar) in [
            ("debian", "docker.io/library/debian:latest", "debian:latest"),
            ("debian:12", "docker.io/library/debian:12", "debian:12"),
            ("a/b", "docker.io/a/b:latest", "a/b:latest"),
            (
                "index.docker.io/library/x",
                "docker.io/library/x:latest",
                "x:latest",
            ),
            ("localhost/x", "localhost/x:latest", "localhost/x:latest"),
            (
                "localhost:5000/x:1",
                "localhost:5000/x:1",
                "localhost:5000/x:1",
            ),
            (
                "quay.io/a/b/c_d__e-f---g.h:T.-_",
                "quay.io/a/b/c_d__e-f---g.h:T.-_",
                "quay.io/a/b/c_d__e-f---g.h:T.-_",
            ),
            ("[::1]:80/x", "[::1]:80/x:latest", "[::1]:80/x:latest"),
            ("Foo/x", "Foo/x:latest", "Foo/x:latest"),
            (
                "docker.io/library/a/b",
                "docker.io/library/a/b:latest",
                "library/a/b:latest",
            ),
        ] {
            let reference = Reference::parse(text).unwrap();
            assert_eq!(reference.to_string(), canonical);
            assert_eq!(reference.familiar(), familiar);
            assert_eq!(Reference::parse(canonical).unwrap(), reference);
            assert_eq!(Reference::parse(familiar).unwrap(), reference, "{familiar}");
        }
    }

    #[test]
    fn digests_replace_the_default_tag() {
        let digest = Digest::of(b"");
        let reference = Reference::parse(&format!("debian@{digest}")).unwrap();
        assert_eq!((reference.tag(), reference.digest()), (None, Some(&digest)));
        let both = Reference::parse(&format!("debian:12@{digest}")).unwrap();
        assert_eq!(both.familiar(), format!("debian:12@{digest}"));
        assert!(matches!(
            Reference::parse("debian@sha256:12"),
            Err(ReferenceError::Digest(_))
        ));
    }

    #[test]
    fn bad_references_say_what_is_bad() {
        use ReferenceError as E;
        let cases = [
            ("", E::Empty),
            ("Debian", E::Uppercase("library/Debian".into())),
            ("a//b", E::Repository("a//b".into())),
            ("a/", E::Repository("a/".into())),
            ("/a", E::Repository("/a".into())),
            ("a___b", E::Repository("library/a___b".into())),
            ("a..b", E::Repository("library/a..b".into())),
            ("../../etc", E::Registry("..".into())),
            ("x.y:port/a", E::Registry("x.y:port".into())),
            ("-x.y/a", E::Registry("-x.y".into())),
            ("a:", E::Tag(String::new())),
            ("a:-x", E::Tag("-x".into())),
            ("a:b c", E::Tag("b c".into())),
            ("a b", E::Repository("library/a b".into())),
            ("é", E::Repository("library/é".into())),
            ("a:é", E::Tag("é".into())),
            ("a:t\u{661}", E::Tag("t\u{661}".into())),
            ("a\n", E::Repository("library/a\n".into())),
        ];
        for (text, error) in cases {
            assert_eq!(Reference::parse(text), Err(error), "{text:?}");
        }
        assert_eq!(Reference::parse(&"a".repeat(64)), Err(E::LooksLikeId));
        assert_eq!(Reference::parse(&"a".repeat(300)), Err(E::TooLong));
        let repository = "a".repeat(250);
        let with_registry = format!("registry.example/{repository}");
        assert_eq!(Reference::parse(&with_registry), Err(E::TooLong));
        assert!(matches!(
            Reference::parse(&format!("a:{}", "b".repeat(129))),
            Err(E::Tag(_))
        ));
    }
}
