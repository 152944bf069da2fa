//! The JSON documents of both formats, as far as they concern us.

use super::error::LoadError;
use super::parts;
use crate::digest::Digest;
use serde::Deserialize;
use std::collections::HashMap;

/// One image of a docker-archive's manifest.json.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct DockerImage {
    pub config: String,
    pub repo_tags: Option<Vec<String>>,
    pub layers: Option<Vec<String>>,
}

/// An OCI descriptor. A size that is negative or no number is an error of its own accord.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    pub media_type: Option<String>,
    pub digest: Digest,
    pub size: u64,
    pub platform: Option<Platform>,
    pub annotations: Option<HashMap<String, String>>,
}

impl Descriptor {
    pub(super) fn annotation(&self, key: &str) -> Option<&str> {
        self.annotations.as_ref()?.get(key).map(String::as_str)
    }

    /// Whether it may be for us: it says nothing of a platform, or says ours.
    pub(super) fn may_run(&self) -> bool {
        self.platform
            .as_ref()
            .is_none_or(|p| p.os == "linux" && p.architecture == "amd64")
    }

    /// Compares a small blob with it. `name` is for errors.
    pub(crate) fn verify(&self, name: &str, bytes: &[u8]) -> Result<(), LoadError> {
        parts::check_size(name, self.size, bytes.len() as u64)?;
        parts::check_digest(name, &self.digest, &Digest::of(bytes))
    }

    pub(super) fn path(&self) -> String {
        format!("blobs/sha256/{}", self.digest.hex())
    }
}

/// A descriptor's platform.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Platform {
    pub architecture: String,
    pub os: String,
}

/// A manifest or an index, before it is known which.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    schema_version: u64,
    media_type: Option<String>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    manifests: Option<Vec<Descriptor>>,
}

/// What a document is.
#[derive(Debug)]
pub(crate) enum Manifest {
    Image {
        config: Descriptor,
        layers: Vec<Descriptor>,
    },
    Index(Vec<Descriptor>),
}

const INDEX_TYPES: [&str; 2] = [
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
];
const MANIFEST_TYPES: [&str; 2] = [
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
];
const CONFIG_TYPES: [&str; 2] = [
    "application/vnd.oci.image.config.v1+json",
    "application/vnd.docker.container.image.v1+json",
];
const LAYER_PREFIXES: [&str; 3] = [
    "application/vnd.oci.image.layer.v1.tar",
    "application/vnd.oci.image.layer.nondistributable.v1.tar",
    "application/vnd.docker.image.rootfs.",
];

impl Manifest {
    /// Reads a document that a descriptor of type `declared` led to. One that could be read as
    /// two things is refused (CVE-2021-41190), and so is one that is not what it was declared.
    pub(crate) fn parse(
        name: &str,
        bytes: &[u8],
        declared: Option<&str>,
    ) -> Result<Self, LoadError> {
        let contradiction = |what| LoadError::Contradiction(name.to_owned(), what);
        let document: Document = serde_json::from_slice(bytes)
            .map_err(|error| LoadError::Json(name.to_owned(), error))?;
        if document.schema_version != 2 {
            return Err(LoadError::Unexpected {
                name: name.to_owned(),
                expected: "of schema version 2",
            });
        }
        if let (Some(declared), Some(own)) = (declared, &document.media_type)
            && declared != own
        {
            return Err(contradiction(
                "its media type is not the one declared for it",
            ));
        }
        let media_type = document.media_type.as_deref().or(declared);
        let is = |types: [&str; 2]| media_type.is_none_or(|own| types.contains(&own));
        match (document.config, document.layers, document.manifests) {
            (Some(config), layers, None) if is(MANIFEST_TYPES) => {
                let layers = layers.unwrap_or_default();
                check_parts(name, &config, &layers)?;
                Ok(Self::Image { config, layers })
            }
            (None, None, Some(manifests)) if is(INDEX_TYPES) => Ok(Self::Index(manifests)),
            (Some(_), _, Some(_)) | (_, Some(_), Some(_)) => {
                Err(contradiction("it is both a manifest and an index"))
            }
            (Some(_), _, None) | (None, None, Some(_)) => {
                Err(contradiction("its content is not of its media type"))
            }
            (None, _, None) => Err(LoadError::Unexpected {
                name: name.to_owned(),
                expected: "an image's manifest",
            }),
        }
    }
}

/// Roles must fit. The compression a layer's type names is not compared with its content: tools
/// get it wrong, and the DiffID covers what comes out.
fn check_parts(name: &str, config: &Descriptor, layers: &[Descriptor]) -> Result<(), LoadError> {
    let is_config = |own: &str| CONFIG_TYPES.contains(&own);
    if !config.media_type.as_deref().is_none_or(is_config) {
        return Err(LoadError::Unexpected {
            name: name.to_owned(),
            expected: "the manifest of a container image: its configuration is of another type",
        });
    }
    let is_layer = |layer: &Descriptor| {
        layer
            .media_type
            .as_deref()
            .is_none_or(|own| LAYER_PREFIXES.iter().any(|prefix| own.starts_with(prefix)))
    };
    if !layers.iter().all(is_layer) {
        return Err(LoadError::Contradiction(
            name.to_owned(),
            "a layer has a media type that is not a layer's",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn parse(text: &str, declared: Option<&str>) -> Result<Manifest, LoadError> {
        Manifest::parse("x", text.replace("DIGEST", DIGEST).as_bytes(), declared)
    }

    #[test]
    fn documents_are_one_thing() {
        let part = r#"{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"DIGEST","size":1}"#;
        let image = format!(r#"{{"schemaVersion":2,"config":{part},"layers":[]}}"#);
        let index = format!(r#"{{"schemaVersion":2,"manifests":[{part}]}}"#);
        let both = format!(r#"{{"schemaVersion":2,"config":{part},"layers":[],"manifests":[]}}"#);
        assert!(matches!(parse(&image, None), Ok(Manifest::Image { .. })));
        assert!(matches!(
            parse(&image, Some(MANIFEST_TYPES[0])),
            Ok(Manifest::Image { .. })
        ));
        assert!(matches!(
            parse(&index, Some(INDEX_TYPES[1])),
            Ok(Manifest::Index(_))
        ));
        for (text, declared) in [
            (&both, None),
            (&image, Some(INDEX_TYPES[0])),
            (&index, Some(MANIFEST_TYPES[0])),
            (&image, Some("text/plain")),
        ] {
            assert!(matches!(
                parse(text, declared),
                Err(LoadError::Contradiction(..))
            ));
        }
    }

    #[test]
    fn numbers_and_digests_are_checked() {
        for bad in [
            r#"{"schemaVersion":1,"manifests":[]}"#,
            r#"{"schemaVersion":2}"#,
            r#"{"schemaVersion":2,"manifests":[{"digest":"DIGEST","size":-1}]}"#,
            r#"{"schemaVersion":2,"manifests":[{"digest":"DIGEST","size":99999999999999999999}]}"#,
            r#"{"schemaVersion":2,"manifests":[{"digest":"DIGEST","size":1.5}]}"#,
            r#"{"schemaVersion":2,"manifests":[{"digest":"sha256:..","size":1}]}"#,
            r#"{"schemaVersion":2,"manifests":[{"digest":"sha512:ab","size":1}]}"#,
            r#"{"schemaVersion":2,"manifests":[],"manifests":[]}"#,
            r#"{"schemaVersion":2,"manifests":[]} trailing"#,
            "[[[[",
            "",
        ] {
            assert!(parse(bad, None).is_err(), "{bad}");
        }
        let deep = "[".repeat(1_000_000);
        assert!(matches!(parse(&deep, None), Err(LoadError::Json(..))));
    }
}
