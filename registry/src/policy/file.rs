//! `policy.json`: which requirements hold for an image.

use super::identity::Identity;
use super::key::Key;
use super::requirement::Requirement;
use crate::error::PolicyError;
use crate::names::ImageName;
use crate::settings::error::SettingsError;
use crate::settings::places::Places;
use base64::Engine as _;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The transport of images in registries.
const TRANSPORT: &str = "docker";

/// What the file says. Without a file everything is accepted.
#[derive(Debug, Default)]
pub(crate) struct Policy {
    default: Option<Vec<Requirement>>,
    /// For images in registries: scope to requirements.
    scopes: BTreeMap<String, Vec<Requirement>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    default: Vec<Entry>,
    #[serde(default)]
    transports: BTreeMap<String, BTreeMap<String, Vec<Entry>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    #[serde(rename = "type")]
    kind: String,
    key_path: Option<PathBuf>,
    key_paths: Option<Vec<PathBuf>>,
    key_data: Option<String>,
    key_datas: Option<Vec<String>>,
    signed_identity: Option<serde_json::Value>,
    #[serde(flatten)]
    others: BTreeMap<String, serde_json::Value>,
}

impl Policy {
    /// Reads the user's file, or else the host's.
    pub(crate) fn load(places: &Places) -> Result<Self, SettingsError> {
        let user = places.user_containers().map(|dir| dir.join("policy.json"));
        let host = places.etc.join("containers/policy.json");
        for path in user.into_iter().chain([host]) {
            match std::fs::read(&path) {
                Ok(bytes) => return Self::parse(&path, &bytes),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(source) => return Err(SettingsError::Io { path, source }),
            }
        }
        Ok(Self::default())
    }

    fn parse(path: &Path, bytes: &[u8]) -> Result<Self, SettingsError> {
        let bad = |why: String| SettingsError::Content {
            path: path.to_owned(),
            why,
        };
        let document: Document =
            serde_json::from_slice(bytes).map_err(|error| bad(error.to_string()))?;
        let read = |entries: Vec<Entry>| -> Result<Vec<Requirement>, SettingsError> {
            if entries.is_empty() {
                return Err(bad("a list of requirements is empty".to_owned()));
            }
            entries
                .into_iter()
                .map(|entry| entry.requirement().map_err(&bad))
                .collect()
        };
        let mut transports = document.transports;
        let scopes = transports.remove(TRANSPORT).unwrap_or_default();
        Ok(Self {
            default: Some(read(document.default)?),
            scopes: scopes
                .into_iter()
                .map(|(scope, entries)| Ok((scope, read(entries)?)))
                .collect::<Result<_, SettingsError>>()?,
        })
    }

    /// What an image must fulfil: of the scope that says most of its name.
    pub(crate) fn requirements(&self, name: &ImageName) -> &[Requirement] {
        let mut scope = name.to_string();
        if name.digest().is_some() && name.tag().is_some() {
            scope = name.name();
        }
        loop {
            if let Some(found) = self.scopes.get(&scope) {
                return found;
            }
            let Some(end) = parent(&scope, name) else {
                break;
            };
            scope.truncate(end);
        }
        // `*.q.io` is for the hosts of a domain.
        let host = name.registry().split(':').next().unwrap_or_default();
        let mut domain = host;
        while let Some((_, rest)) = domain.split_once('.') {
            if let Some(found) = self.scopes.get(&format!("*.{rest}")) {
                return found;
            }
            domain = rest;
        }
        let rest = self.scopes.get("").or(self.default.as_ref());
        rest.map_or(&[], Vec::as_slice)
    }
}

/// Where the next wider scope ends: without tag or digest, then a component of the path less.
fn parent(scope: &str, name: &ImageName) -> Option<usize> {
    let repository = name.name();
    if scope.len() > repository.len() {
        return Some(repository.len());
    }
    scope.rfind('/')
}

impl Entry {
    fn requirement(self) -> Result<Requirement, String> {
        match self.kind.as_str() {
            "insecureAcceptAnything" => Ok(Requirement::Accept),
            "reject" => Ok(Requirement::Reject),
            "sigstoreSigned" => self.signed(),
            other => Ok(Requirement::Unknown(other.to_owned())),
        }
    }

    fn signed(self) -> Result<Requirement, String> {
        // Fulcio, Rekor and PKI: demands that are not checked must not be passed over.
        if let Some(other) = self.others.keys().next() {
            return Ok(Requirement::Unknown(format!("sigstoreSigned with {other}")));
        }
        let identity = match self.signed_identity {
            None => Identity::default(),
            Some(value) => {
                serde_json::from_value(value).map_err(|error| format!("signedIdentity: {error}"))?
            }
        };
        let paths = self
            .key_path
            .into_iter()
            .chain(self.key_paths.into_iter().flatten());
        let datas = self
            .key_data
            .into_iter()
            .chain(self.key_datas.into_iter().flatten());
        let mut keys = Vec::new();
        let shown = |error: PolicyError| crate::error::chain(&error);
        for path in paths {
            keys.push(Key::read(&path).map_err(shown)?);
        }
        for data in datas {
            let pem = base64::engine::general_purpose::STANDARD
                .decode(data)
                .map_err(|error| format!("keyData: {error}"))?;
            keys.push(Key::parse("keyData".as_ref(), &pem).map_err(shown)?);
        }
        if keys.is_empty() {
            return Err("sigstoreSigned names no key".to_owned());
        }
        Ok(Requirement::Signed { keys, identity })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(policy: &Policy, name: &str) -> String {
        let all = policy.requirements(&name.parse().unwrap());
        all.iter().map(|own| format!("{own:?}")).collect()
    }

    #[test]
    fn the_nearest_scope_counts() {
        let policy = Policy::parse(
            "p".as_ref(),
            br#"{"default": [{"type": "reject"}], "transports": {
                "docker-daemon": {"": [{"type": "insecureAcceptAnything"}]},
                "docker": {
                    "docker.io": [{"type": "insecureAcceptAnything"}],
                    "docker.io/library/debian:12": [{"type": "signedBy", "keyType": "GPGKeys"}],
                    "q.io/team": [{"type": "insecureAcceptAnything"}],
                    "*.w.io": [{"type": "insecureAcceptAnything"}]
            }}}"#,
        )
        .unwrap();
        assert_eq!(kind(&policy, "debian:11"), "Accept");
        assert_eq!(kind(&policy, "debian:12"), "Unknown(\"signedBy\")");
        assert_eq!(kind(&policy, "q.io/team/x:1"), "Accept");
        assert_eq!(kind(&policy, "q.io/teams/x:1"), "Reject");
        assert_eq!(kind(&policy, "a.b.w.io:5000/x"), "Accept");
        assert_eq!(kind(&policy, "w.io/x"), "Reject");
        assert_eq!(kind(&Policy::default(), "debian"), "");
    }

    #[test]
    fn what_is_not_understood_is_an_error_or_refuses() {
        for text in [
            "",
            "{}",
            r#"{"default": []}"#,
            r#"{"default": [{"type": "reject"}], "more": 1}"#,
            r#"{"default": [{"type": "sigstoreSigned"}]}"#,
            r#"{"default": [{"type": "sigstoreSigned", "keyPath": "/nowhere/k"}]}"#,
            r#"{"default": [{"type": "sigstoreSigned", "keyData": "eA=="}]}"#,
        ] {
            assert!(
                Policy::parse("p".as_ref(), text.as_bytes()).is_err(),
                "{text}"
            );
        }
        let text = r#"{"default": [{"type": "sigstoreSigned", "fulcio": {}}]}"#;
        let policy = Policy::parse("p".as_ref(), text.as_bytes()).unwrap();
        assert_eq!(
            kind(&policy, "x"),
            "Unknown(\"sigstoreSigned with fulcio\")"
        );
    }
}
