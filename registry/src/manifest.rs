//! Manifests and indexes: OCI's and Docker's, kept byte for byte beside what they say.

use crate::names::shown;
use crate::platform::Platform;
use hullbox_model::digest::Digest;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Largest manifest or index that is read, in bytes: what other clients and registries allow.
pub const MAX_MANIFEST_BYTES: usize = 4 << 20;
/// Most layers of an image, and most entries of an index.
const MAX_ENTRIES: usize = 4096;

/// Media types of an image's manifest.
pub const MANIFEST_TYPES: [&str; 2] = [
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
];
/// Media types of an index.
pub const INDEX_TYPES: [&str; 2] = [
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
];

/// Why a document is not used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// Not the JSON of a manifest.
    #[error("the manifest is not valid JSON")]
    Json(#[source] serde_json::Error),
    /// Of the first schema, without digests of layers that can be verified.
    #[error(
        "the manifest is of Docker's schema 1, which is not supported: push the image again with a newer tool"
    )]
    SchemaOne,
    /// Another schema version.
    #[error("the manifest is of schema version {0}, and 2 is expected")]
    Schema(u64),
    /// It could be read as two things (CVE-2021-41190), or is not what it is said to be.
    #[error("the manifest contradicts itself: {0}")]
    Contradiction(&'static str),
    /// Something else than an image.
    #[error("it is not a container image but of type {0:?}")]
    NoImage(String),
    /// More entries than any image has.
    #[error("the manifest has {0} entries, and at most {MAX_ENTRIES} are read")]
    TooMany(usize),
}

/// What points to a blob or manifest (image-spec, "Content descriptors").
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// Its type.
    #[serde(default)]
    pub media_type: String,
    /// Its content's digest.
    pub digest: Digest,
    /// Its length.
    #[serde(rename = "size")]
    pub size_bytes: u64,
    /// What it is for; only in an index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// What else is said of it.
    #[serde(
        default,
        deserialize_with = "null_is_empty",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub annotations: BTreeMap<String, String>,
}

impl Descriptor {
    /// Whether it is a statement about another image (provenance, an SBOM) and no image itself.
    fn is_attestation(&self) -> bool {
        self.annotations.contains_key("vnd.docker.reference.type")
            || self
                .platform
                .as_ref()
                .is_some_and(|platform| platform.os == "unknown")
    }
}

fn null_is_empty<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, String>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// A manifest or index as it was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// Its bytes.
    pub raw: Vec<u8>,
    /// Its media type: its own word, or else what the registry says.
    pub media_type: String,
    /// The digest of the bytes.
    pub digest: Digest,
}

impl Fetched {
    /// What was made or read here, with its digest.
    #[must_use]
    pub fn new(raw: Vec<u8>, media_type: &str) -> Self {
        Self {
            digest: Digest::of(&raw),
            media_type: media_type.to_owned(),
            raw,
        }
    }

    /// What it says.
    ///
    /// # Errors
    /// [`ManifestError`] for what is no image or index.
    pub fn parse(&self) -> Result<Manifest, ManifestError> {
        Manifest::parse(&self.raw, Some(&self.media_type))
    }
}

/// What a document says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Manifest {
    /// An image of one platform.
    Image {
        /// Its configuration.
        config: Descriptor,
        /// Its layers, the lowest first.
        layers: Vec<Descriptor>,
    },
    /// Images of several platforms.
    Index(Vec<Descriptor>),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    schema_version: u64,
    media_type: Option<String>,
    artifact_type: Option<String>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    manifests: Option<Vec<Descriptor>>,
    #[serde(rename = "fsLayers")]
    fs_layers: Option<serde::de::IgnoredAny>,
}

impl Manifest {
    /// Reads a document that was called a `declared`.
    ///
    /// # Errors
    /// [`ManifestError`] for what is no image or index, or both.
    pub fn parse(bytes: &[u8], declared: Option<&str>) -> Result<Self, ManifestError> {
        let document: Document = serde_json::from_slice(bytes).map_err(ManifestError::Json)?;
        if document.fs_layers.is_some() || document.schema_version == 1 {
            return Err(ManifestError::SchemaOne);
        }
        if document.schema_version != 2 {
            return Err(ManifestError::Schema(document.schema_version));
        }
        // A declared type that is no manifest's is a registry that does not know better.
        let declared = declared.filter(|own| is_known_type(own));
        if let (Some(declared), Some(own)) = (declared, &document.media_type)
            && declared != own
        {
            return Err(ManifestError::Contradiction(
                "its media type is not the one that the registry gives",
            ));
        }
        let media_type = document.media_type.as_deref().or(declared);
        let is = |types: [&str; 2]| media_type.is_none_or(|own| types.contains(&own));
        match (document.config, document.layers, document.manifests) {
            (Some(_), _, Some(_)) | (_, Some(_), Some(_)) => Err(ManifestError::Contradiction(
                "it is both an image and an index",
            )),
            (Some(config), layers, None) if is(MANIFEST_TYPES) => {
                let layers = layers.unwrap_or_default();
                check_parts(&config, &layers, document.artifact_type)?;
                Ok(Self::Image { config, layers })
            }
            (None, None, Some(manifests)) if is(INDEX_TYPES) => {
                at_most(manifests.len())?;
                Ok(Self::Index(manifests))
            }
            (None, _, None) => Err(ManifestError::NoImage(shown(
                media_type.unwrap_or_default(),
            ))),
            _ => Err(ManifestError::Contradiction(
                "its content is not of its media type",
            )),
        }
    }
}

fn at_most(entries: usize) -> Result<(), ManifestError> {
    if entries > MAX_ENTRIES {
        return Err(ManifestError::TooMany(entries));
    }
    Ok(())
}

/// Only the configuration's type tells an image from an artifact that is kept as one.
fn check_parts(
    config: &Descriptor,
    layers: &[Descriptor],
    artifact_type: Option<String>,
) -> Result<(), ManifestError> {
    at_most(layers.len())?;
    let known = [
        "",
        "application/vnd.oci.image.config.v1+json",
        "application/vnd.docker.container.image.v1+json",
    ];
    if known.contains(&config.media_type.as_str()) {
        return Ok(());
    }
    let kind = artifact_type.unwrap_or_else(|| config.media_type.clone());
    Err(ManifestError::NoImage(shown(&kind)))
}

/// The entries of an index that may be for `platform`, the nearest first. An entry that names no
/// platform may be; it is looked into last. Attestations are passed over.
pub(crate) fn choices<'a>(entries: &'a [Descriptor], platform: &Platform) -> Vec<&'a Descriptor> {
    let mut choices: Vec<(u32, &Descriptor)> = entries
        .iter()
        .filter(|entry| !entry.is_attestation())
        .filter_map(|entry| match &entry.platform {
            Some(own) => Some((platform.distance(own)?, entry)),
            None => Some((u32::MAX, entry)),
        })
        .collect();
    choices.sort_by_key(|(distance, _)| *distance);
    choices.into_iter().map(|(_, entry)| entry).collect()
}

/// What an index is for, for an error: `linux/amd64, linux/arm64`.
pub(crate) fn offers(entries: &[Descriptor]) -> String {
    let names: Vec<String> = entries
        .iter()
        .filter(|entry| !entry.is_attestation())
        .filter_map(|entry| entry.platform.as_ref())
        .map(|platform| shown(&platform.to_string()))
        .take(20)
        .collect();
    names.join(", ")
}

/// Whether it is the type of an image's manifest or of an index.
pub(crate) fn is_known_type(media_type: &str) -> bool {
    MANIFEST_TYPES.contains(&media_type) || INDEX_TYPES.contains(&media_type)
}

/// The media type of a document: its own word, or else `declared`, or else what its content is.
pub(crate) fn media_type(bytes: &[u8], declared: &str) -> String {
    #[derive(Default, Deserialize)]
    #[serde(rename_all = "camelCase", default)]
    struct Types {
        media_type: Option<String>,
        manifests: Option<serde::de::IgnoredAny>,
    }
    let types: Types = serde_json::from_slice(bytes).unwrap_or_default();
    if let Some(own) = types.media_type {
        return own;
    }
    if is_known_type(declared) {
        return declared.to_owned();
    }
    // Docker's documents always say what they are.
    match types.manifests {
        Some(_) => INDEX_TYPES[0],
        None => MANIFEST_TYPES[0],
    }
    .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn descriptor(media_type: &str, digit: char) -> String {
        let digest = digit.to_string().repeat(64);
        format!(r#"{{"mediaType":"{media_type}","digest":"sha256:{digest}","size":5"#)
    }

    fn image(media_type: &str) -> String {
        let config = descriptor("application/vnd.oci.image.config.v1+json", '1');
        let layer = descriptor("application/vnd.oci.image.layer.v1.tar+gzip", '2');
        format!(
            r#"{{"schemaVersion":2,"mediaType":"{media_type}","config":{config}}},"layers":[{layer}}}]}}"#
        )
    }

    fn index(entries: &[&str]) -> Vec<Descriptor> {
        let text = format!(
            r#"{{"schemaVersion":2,"manifests":[{}]}}"#,
            entries.join(",")
        );
        match Manifest::parse(text.as_bytes(), None).unwrap() {
            Manifest::Index(entries) => entries,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn both_formats_are_read() {
        for kind in MANIFEST_TYPES {
            let text = image(kind);
            let Manifest::Image { config, layers } =
                Manifest::parse(text.as_bytes(), Some(kind)).unwrap()
            else {
                panic!("{text}");
            };
            assert_eq!((config.size_bytes, layers.len()), (5, 1));
            assert!(Manifest::parse(text.as_bytes(), Some("text/plain")).is_ok());
            assert_eq!(media_type(text.as_bytes(), "text/plain"), kind);
        }
        assert_eq!(media_type(b"{\"manifests\":[]}", ""), INDEX_TYPES[0]);
        assert_eq!(media_type(b"{}", MANIFEST_TYPES[1]), MANIFEST_TYPES[1]);
    }

    #[test]
    fn what_is_no_image_is_refused() {
        let both = image(MANIFEST_TYPES[0]).replace("\"config\"", "\"manifests\":[],\"config\"");
        let helm = image(MANIFEST_TYPES[0]).replace("oci.image.config", "cncf.helm.config");
        for (text, declared, word) in [
            ("{", None, "JSON"),
            ("[]", None, "JSON"),
            (r#"{"schemaVersion":1,"fsLayers":[]}"#, None, "schema 1"),
            (r#"{"schemaVersion":3}"#, None, "version 3"),
            (r#"{"schemaVersion":2}"#, None, "not a container image"),
            (&both, None, "both"),
            (&helm, None, "cncf.helm"),
            (
                &image(MANIFEST_TYPES[0]),
                Some(INDEX_TYPES[0]),
                "media type",
            ),
            (&image(INDEX_TYPES[0]), None, "content"),
            (&image(MANIFEST_TYPES[0]).replace(":5", ":-5"), None, "JSON"),
            (
                &image(MANIFEST_TYPES[0]).replace(":5", ":99999999999999999999"),
                None,
                "JSON",
            ),
        ] {
            let error = Manifest::parse(text.as_bytes(), declared).unwrap_err();
            assert!(error.to_string().contains(word), "{text}: {error}");
        }
    }

    #[test]
    fn the_platforms_manifest_is_chosen_and_attestations_are_passed_over() {
        let kind = MANIFEST_TYPES[0];
        let own = |digit, platform: &str| {
            format!(r#"{},"platform":{platform}}}"#, descriptor(kind, digit))
        };
        let attestation = format!(
            r#"{},"annotations":{{"vnd.docker.reference.type":"attestation-manifest"}}}}"#,
            descriptor(kind, '9')
        );
        let entries = index(&[
            &own('8', r#"{"os":"unknown","architecture":"unknown"}"#),
            &attestation,
            &own('1', r#"{"os":"linux","architecture":"arm","variant":"v5"}"#),
            &own('2', r#"{"os":"linux","architecture":"arm","variant":"v6"}"#),
            &own('3', r#"{"os":"linux","architecture":"amd64"}"#),
            &format!("{},\"annotations\":null}}", descriptor(INDEX_TYPES[0], '4')),
        ]);
        let chosen = |platform: &str| -> String {
            let all = choices(&entries, &platform.parse().unwrap());
            all.iter().map(|d| d.digest.hex()[..1].to_owned()).collect()
        };
        assert_eq!(chosen("linux/amd64"), "34");
        assert_eq!(chosen("linux/arm/v7"), "214");
        assert_eq!(chosen("linux/s390x"), "4");
        assert_eq!(offers(&entries), "linux/arm/v5, linux/arm/v6, linux/amd64");
    }

    #[test]
    fn a_damaged_manifest_is_no_danger() {
        let whole = image(MANIFEST_TYPES[0]);
        let mut random = fastrand::Rng::with_seed(1);
        for _ in 0..20_000 {
            let mut bytes = whole.clone().into_bytes();
            for _ in 0..random.usize(1..10) {
                let at = random.usize(0..bytes.len());
                match random.u8(0..9) {
                    0..4 => bytes[at] = random.u8(..),
                    4..8 => bytes.insert(at, *random.choice(b"{}[]\",:0").unwrap()),
                    _ => bytes.truncate(at.max(2)),
                }
            }
            let _ = Manifest::parse(&bytes, None);
            media_type(&bytes, "");
        }
    }
}
