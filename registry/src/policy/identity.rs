//! Whose image a signature is for: the name that it was made for against the name that was asked
//! for (containers-policy.json(5), `signedIdentity`).

use crate::names::ImageName;
use serde::Deserialize;

/// Which name a signature must have.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(
    tag = "type",
    rename_all = "camelCase",
    rename_all_fields = "camelCase"
)]
pub(crate) enum Identity {
    /// The same name and tag; the same repository for an image by digest.
    #[default]
    MatchRepoDigestOrExact,
    MatchExact,
    MatchRepository,
    ExactReference {
        docker_reference: String,
    },
    ExactRepository {
        docker_repository: String,
    },
    #[serde(rename = "remapIdentity")]
    Remap {
        prefix: String,
        signed_prefix: String,
    },
}

impl Identity {
    /// Whether an image asked for as `name` may be what was signed as `signed`.
    pub(super) fn accepts(&self, name: &ImageName, signed: &str) -> bool {
        let Ok(signed_name) = signed.parse::<ImageName>() else {
            return false;
        };
        // What has neither tag nor digest is read as `latest` and means no version here.
        let says_version = signed.contains('@')
            || signed
                .rsplit('/')
                .next()
                .is_some_and(|last| last.contains(':'));
        let is_exact = |wanted: &ImageName| says_version && same_version(wanted, &signed_name);
        let repository_is = |wanted: &str| signed_name.name() == wanted;
        match self {
            Self::MatchRepoDigestOrExact => or_repository(name, name, &signed_name, says_version),
            Self::MatchExact => name.digest().is_none() && is_exact(name),
            Self::MatchRepository => repository_is(&name.name()),
            Self::ExactReference { docker_reference } => docker_reference
                .parse::<ImageName>()
                .is_ok_and(|wanted| is_exact(&wanted)),
            Self::ExactRepository { docker_repository } => docker_repository
                .parse::<ImageName>()
                .is_ok_and(|wanted| repository_is(&wanted.name())),
            Self::Remap {
                prefix,
                signed_prefix,
            } => remapped(name, prefix, signed_prefix)
                .is_some_and(|wanted| or_repository(name, &wanted, &signed_name, says_version)),
        }
    }
}

/// By digest the repository is enough, since the digest is compared elsewhere.
fn or_repository(
    asked: &ImageName,
    wanted: &ImageName,
    signed: &ImageName,
    says_version: bool,
) -> bool {
    if asked.digest().is_some() {
        wanted.name() == signed.name()
    } else {
        says_version && same_version(wanted, signed)
    }
}

fn same_version(wanted: &ImageName, signed: &ImageName) -> bool {
    wanted.name() == signed.name()
        && wanted.tag() == signed.tag()
        && wanted.digest() == signed.digest()
}

/// The name with one prefix in place of another; a name without the prefix stays.
fn remapped(name: &ImageName, prefix: &str, signed_prefix: &str) -> Option<ImageName> {
    let repository = name.name();
    let rest = match repository.strip_prefix(prefix) {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => rest,
        _ => return Some(name.clone()),
    };
    let whole = format!("{signed_prefix}{rest}");
    let (registry, path) = whole.split_once('/')?;
    ImageName::new(registry, path, name.tag(), name.digest().copied()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepts(json: &str, name: &str, signed: &str) -> bool {
        let identity: Identity = serde_json::from_str(json).unwrap();
        identity.accepts(&name.parse().unwrap(), signed)
    }

    #[test]
    fn the_default_compares_the_tag() {
        let json = r#"{"type": "matchRepoDigestOrExact"}"#;
        assert!(accepts(json, "q.io/x:1", "q.io/x:1"));
        assert!(!accepts(json, "q.io/x:1", "q.io/x:2"));
        assert!(!accepts(json, "q.io/x:latest", "q.io/x"));
        let pinned = format!("q.io/x@{}", crate::Digest::of(b""));
        assert!(accepts(json, &pinned, "q.io/x:2"));
        assert!(!accepts(json, &pinned, "q.io/y:2"));
        assert!(!accepts(r#"{"type": "matchExact"}"#, &pinned, "q.io/x:2"));
    }

    #[test]
    fn others_compare_what_they_say() {
        let json = r#"{"type": "matchRepository"}"#;
        assert!(accepts(json, "debian:12", "index.docker.io/library/debian"));
        assert!(accepts(json, "q.io/x:1", "q.io/x:2"));
        assert!(!accepts(json, "q.io/x:1", "q.io/xx:1"));
        assert!(!accepts(json, "q.io/x:1", "not a name"));
        let json = r#"{"type": "exactReference", "dockerReference": "q.io/y:3"}"#;
        assert!(accepts(json, "q.io/x:1", "q.io/y:3"));
        assert!(!accepts(json, "q.io/x:1", "q.io/x:1"));
        let json = r#"{"type": "exactRepository", "dockerRepository": "q.io/y"}"#;
        assert!(accepts(json, "q.io/x:1", "q.io/y:9"));
        let json = r#"{"type": "remapIdentity", "prefix": "m.io/q", "signedPrefix": "q.io"}"#;
        assert!(accepts(json, "m.io/q/x:1", "q.io/x:1"));
        assert!(!accepts(json, "m.io/qq/x:1", "q.io/x:1"));
        assert!(accepts(json, "z.io/x:1", "z.io/x:1"));
        assert!(serde_json::from_str::<Identity>(r#"{"type": "other"}"#).is_err());
    }
}
