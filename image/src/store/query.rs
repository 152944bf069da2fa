//! Finding images, and what is known of them.

use super::commit::{FACTS, Facts, NewLayer};
use super::{Store, StoreError};
use crate::digest::{DiffId, Digest, ImageId};
use crate::health::{HealthCheck, HealthCheckError};
use crate::reference::{Reference, familiar_name};
use hullbox_model::container::GraphDriver;
use hullbox_model::image::{Inspect, Metadata, RootFs, Summary, read_config};
use hullbox_model::time::NEVER_S;
use oci_spec::image::ImageConfiguration;
use rusqlite::{OptionalExtension, params};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::PathBuf;

/// An image, ready to be run.
#[derive(Debug, Clone)]
pub struct Image {
    /// Its identity.
    pub id: ImageId,
    /// Its configuration: platform, default command, environment, user, …
    pub config: ImageConfiguration,
    /// Its `HEALTHCHECK`, which the specification does not have, or what is wrong with it.
    pub health: Option<Result<HealthCheck, HealthCheckError>>,
    /// Its layers as EROFS images, lowest first. An image may have none.
    pub layers: Vec<LayerFile>,
}

/// One layer as an EROFS image. The size is a multiple of 4096 bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerFile {
    /// Digest of the layer's tar.
    pub diff_id: DiffId,
    /// The file; it is never changed once it is there.
    pub path: PathBuf,
    /// Its size, in bytes.
    pub size_bytes: u64,
}

/// A line of `hullbox images`: one name of an image, or an image without one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageSummary {
    /// The image.
    pub id: ImageId,
    /// Repository as it is shown (`debian`), unless the image has no name.
    pub repository: Option<String>,
    /// Tag, unless the image has no name. One that was pulled by digest, or whose tag now means
    /// another image, has a repository alone.
    pub tag: Option<String>,
    /// The digest by which the repository knows it: of an index, where there was one.
    pub digest: Option<Digest>,
    /// When the configuration says it was made, in seconds since 1970.
    pub created: Option<i64>,
    /// Sum of the sizes of all files in all layers, in bytes, as Docker counts.
    pub size_bytes: u64,
}

/// What is wrong with a configuration in the store.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// Its bytes are not those that were stored.
    #[error("the stored configuration of image {0} was changed on disk")]
    Changed(ImageId),
    /// It is not a configuration.
    #[error("the image configuration is not valid")]
    Invalid(#[source] serde_json::Error),
}

/// Why a name does not lead to an image.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ResolveError {
    /// Nothing has this name or id.
    #[error("no such image: {0}")]
    NotFound(String),
    /// Several ids begin with it.
    #[error("image id {0:?} is ambiguous: several images begin with it")]
    Ambiguous(String),
    /// The image's configuration.
    #[error("image {0} cannot be used")]
    Config(String, #[source] ConfigError),
    /// The store.
    #[error("cannot look up image {0}")]
    Store(String, #[source] StoreError),
}

/// How a text led to an image.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub id: ImageId,
    /// The name it was found by; `None` when found by id.
    pub name: Option<Reference>,
}

impl Store {
    /// Finds an image by name (`debian`, `debian:12`, `debian@sha256:…`) or by id, whole or
    /// shortened, with or without `sha256:`. Names win over ids, as in Docker.
    ///
    /// # Errors
    /// [`ResolveError`].
    pub fn resolve(&self, text: &str) -> Result<Image, ResolveError> {
        // One view of the index, and one lock of it.
        let view = self
            .db
            .unchecked_transaction()
            .map_err(|error| ResolveError::Store(text.to_owned(), error.into()))?;
        let found = self.find(text)?;
        let raw = self
            .config_bytes(&found.id)
            .map_err(|error| error.into_resolve(text))?;
        let config = crate::config::parse(&raw)
            .map_err(|error| ResolveError::Config(text.to_owned(), ConfigError::Invalid(error)))?;
        let health = crate::config::health(&raw);
        let layers = self
            .layers_of(&found.id)
            .map_err(|error| ResolveError::Store(text.to_owned(), error))?;
        drop(view);
        Ok(Image {
            id: found.id,
            config,
            health,
            layers,
        })
    }

    /// Every name of every image, and images without one; newest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn list(&self) -> Result<Vec<ImageSummary>, StoreError> {
        let mut statement = self.db.prepare(
            "SELECT i.id, n.repository, n.tag, i.created,
                    (SELECT coalesce(sum(l.content_bytes), 0) FROM image_layers il
                     JOIN layers l ON l.key = il.layer WHERE il.image = i.id),
                    CASE WHEN n.tag IS NULL
                         THEN (SELECT d.digest FROM repo_digests d
                               WHERE d.image = i.id AND d.repository = n.repository AND d.shown
                               ORDER BY d.added DESC, d.rowid DESC LIMIT 1)
                         ELSE n.digest END
             FROM images i LEFT JOIN (
                 SELECT image, repository, tag, digest FROM names
                 UNION ALL
                 SELECT DISTINCT d.image, d.repository, NULL, NULL FROM repo_digests d
                 WHERE d.shown AND NOT EXISTS (
                     SELECT 1 FROM names o
                     WHERE o.image = d.image AND o.repository = d.repository)
             ) n ON n.image = i.id
             ORDER BY i.created DESC, n.repository, n.tag, i.id",
        )?;
        let rows = statement.query_map([], |row| {
            Ok(ImageSummary {
                id: image_id(row.get(0)?),
                repository: row
                    .get::<_, Option<String>>(1)?
                    .map(|name| familiar_name(&name).to_owned()),
                tag: row.get(2)?,
                created: row.get(3)?,
                size_bytes: u64::try_from(row.get::<_, i64>(4)?).unwrap_or(0),
                digest: row.get::<_, Option<[u8; 32]>>(5)?.map(Digest::from_bytes),
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// All that is known of an image.
    ///
    /// # Errors
    /// [`ResolveError`].
    pub fn inspect(&self, text: &str) -> Result<Inspect, ResolveError> {
        let found = self.find(text)?;
        let config = self.document(text, &found.id)?;
        self.inspect_found(&found.id, &config)
            .map_err(|error| ResolveError::Store(text.to_owned(), error))
    }

    /// What a listing tells of every image, newest first. Of one whose configuration cannot be read,
    /// its names are told.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn summaries(&self) -> Result<Vec<Summary>, StoreError> {
        let mut all = Vec::new();
        for line in self.list()? {
            let id = line.id.to_string();
            if all.iter().any(|known: &Summary| known.id == id) {
                continue;
            }
            let inspect = match self.inspect(&id) {
                Ok(inspect) => inspect,
                Err(_) => Inspect {
                    repo_tags: self
                        .names_of(&line.id)?
                        .iter()
                        .map(Reference::familiar)
                        .collect(),
                    ..Inspect::default()
                },
            };
            all.push(Summary {
                id,
                repo_tags: inspect.repo_tags,
                repo_digests: inspect.repo_digests,
                created: line.created.unwrap_or(NEVER_S),
                size: line.size_bytes,
                shared_size: -1,
                labels: inspect.config.labels,
                containers: -1,
                ..Summary::default()
            });
        }
        Ok(all)
    }

    /// An image's configuration as it stands, for errors that speak of `text`.
    pub(crate) fn document(&self, text: &str, id: &ImageId) -> Result<Value, ResolveError> {
        let raw = self.raw_config(text, id)?;
        serde_json::from_slice(&raw)
            .map_err(|error| ResolveError::Config(text.to_owned(), ConfigError::Invalid(error)))
    }

    /// The bytes whose digest is the image's id.
    pub(crate) fn raw_config(&self, text: &str, id: &ImageId) -> Result<Vec<u8>, ResolveError> {
        self.config_bytes(id)
            .map_err(|error| error.into_resolve(text))
    }

    fn inspect_found(&self, id: &ImageId, config: &Value) -> Result<Inspect, StoreError> {
        let names = self.names_of(id)?;
        let tags: Vec<_> = names.iter().map(Reference::familiar).collect();
        let (tagged, size): (i64, i64) = self.db.query_row(
            "SELECT tagged,
                    (SELECT coalesce(sum(l.content_bytes), 0) FROM image_layers il
                     JOIN layers l ON l.key = il.layer WHERE il.image = images.id)
             FROM images WHERE id = ?1",
            params![id.digest().as_bytes()],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )?;
        let digests = self.shown_digests(id)?;
        let layers: Vec<_> = self
            .layers_of(id)?
            .iter()
            .map(|layer| layer.diff_id.to_string())
            .collect();
        let text = |key: &str| {
            let text = config.get(key).and_then(Value::as_str);
            text.unwrap_or_default().to_owned()
        };
        let comment = config
            .get("history")
            .and_then(Value::as_array)
            .and_then(|history| history.last())
            .and_then(|last| last.get("comment"))
            .and_then(Value::as_str);
        let or = |text: String, default: &str| match &text[..] {
            "" => default.to_owned(),
            _ => text,
        };
        // Clients take it for a time.
        let mut created = text("created");
        if !hullbox_model::time::is_rfc3339(&created) {
            let seconds = crate::time::parse_rfc3339(&created);
            created = seconds.map_or_else(String::new, |at| crate::time::rfc3339(at, 0));
        }
        let size = u64::try_from(size).unwrap_or(0);
        Ok(Inspect {
            id: id.to_string(),
            repo_tags: tags,
            repo_digests: digests,
            comment: comment.unwrap_or_default().to_owned(),
            created,
            author: text("author"),
            config: read_config(config.get("config").unwrap_or(&Value::Null)),
            // As an image that does not say it is run.
            architecture: or(text("architecture"), "amd64"),
            variant: text("variant"),
            os: or(text("os"), "linux"),
            size,
            virtual_size: size,
            graph_driver: GraphDriver {
                name: "erofs".to_owned(),
                ..GraphDriver::default()
            },
            root_fs: RootFs {
                kind: "layers".to_owned(),
                layers,
            },
            metadata: Metadata {
                last_tag_time: crate::time::rfc3339(tagged, 0),
            },
            ..Inspect::default()
        })
    }

    /// `RepoDigests`: all that registries know it by, and for names that it was loaded under the digest
    /// of the manifest that it was loaded with. A name that was only given to it has none, as in Docker.
    fn shown_digests(&self, id: &ImageId) -> Result<Vec<String>, StoreError> {
        let mut shown: BTreeSet<(String, Digest)> = BTreeSet::new();
        shown.extend(self.repo_digests(id)?);
        shown.extend(self.name_digests(id)?);
        Ok(shown
            .iter()
            .map(|(repository, digest)| format!("{}@{digest}", familiar_name(repository)))
            .collect())
    }

    pub(crate) fn find(&self, text: &str) -> Result<Found, ResolveError> {
        let failed = |error: rusqlite::Error| ResolveError::Store(text.to_owned(), error.into());
        if let Ok(name) = Reference::parse(text)
            && let Some(id) = self.find_name(&name).map_err(failed)?
        {
            let name = Some(name);
            return Ok(Found { id, name });
        }
        let hex = text.strip_prefix("sha256:").unwrap_or(text);
        let Some((low, high)) = id_range(hex) else {
            return Err(ResolveError::NotFound(text.to_owned()));
        };
        let mut statement = self
            .db
            .prepare_cached("SELECT id FROM images WHERE id BETWEEN ?1 AND ?2 LIMIT 2")
            .map_err(failed)?;
        let ids: Vec<ImageId> = statement
            .query_map(params![low, high], |row| row.get(0).map(image_id))
            .and_then(Iterator::collect)
            .map_err(failed)?;
        match ids[..] {
            [] => Err(ResolveError::NotFound(text.to_owned())),
            [id] => Ok(Found { id, name: None }),
            _ => Err(ResolveError::Ambiguous(text.to_owned())),
        }
    }

    fn find_name(&self, name: &Reference) -> rusqlite::Result<Option<ImageId>> {
        let row = match (name.digest(), name.tag()) {
            (Some(digest), _) => self.db.query_row(
                "SELECT image FROM (
                     SELECT image, added, rowid AS at FROM repo_digests
                     WHERE repository = ?1 AND digest = ?2
                     UNION ALL
                     SELECT image, -1, 0 FROM names
                     WHERE repository = ?1 AND ?2 IN (digest, image))
                 ORDER BY added DESC, at DESC LIMIT 1",
                params![name.name(), digest.as_bytes()],
                |row| row.get(0),
            ),
            (None, tag) => self.db.query_row(
                "SELECT image FROM names WHERE repository = ?1 AND tag = ?2",
                params![name.name(), tag.unwrap_or("latest")],
                |row| row.get(0),
            ),
        };
        Ok(row.optional()?.map(image_id))
    }

    pub(crate) fn names_of(&self, id: &ImageId) -> Result<Vec<Reference>, StoreError> {
        let mut statement = self
            .db
            .prepare("SELECT repository || ':' || tag FROM names WHERE image = ?1 ORDER BY 1")?;
        let rows = statement.query_map(params![id.digest().as_bytes()], |row| {
            row.get::<_, String>(0)
        })?;
        rows.map(|name| {
            Reference::parse(&name?).map_err(|_| StoreError::Damaged("a name is not a reference"))
        })
        .collect()
    }

    fn layers_of(&self, id: &ImageId) -> Result<Vec<LayerFile>, StoreError> {
        let mut statement = self.db.prepare_cached(
            "SELECT l.key, l.diff_id, l.file_bytes FROM image_layers il
             JOIN layers l ON l.key = il.layer WHERE il.image = ?1 ORDER BY il.position",
        )?;
        let rows = statement.query_map(params![id.digest().as_bytes()], |row| {
            let key: String = row.get(0)?;
            Ok(LayerFile {
                diff_id: Digest::from_bytes(row.get(1)?).into(),
                path: self.layer_path(&key),
                size_bytes: u64::try_from(row.get::<_, i64>(2)?).unwrap_or(0),
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// An image's layers, lowest first, as an image made on top of it has them.
    pub(crate) fn stack_of(&self, id: &ImageId) -> Result<Vec<NewLayer>, StoreError> {
        let mut statement = self.db.prepare(&format!(
            "SELECT l.key, l.diff_id, l.dependent, {FACTS} FROM image_layers il
             JOIN layers l ON l.key = il.layer WHERE il.image = ?1 ORDER BY il.position"
        ))?;
        let rows = statement.query_map(params![id.digest().as_bytes()], |row| {
            Ok(NewLayer {
                key: row.get(0)?,
                diff_id: Digest::from_bytes(row.get(1)?).into(),
                dependent: row.get(2)?,
                staged: None,
                facts: Facts::read(row, 3)?,
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    pub(super) fn config_bytes(&self, id: &ImageId) -> Result<Vec<u8>, BlobError> {
        let path = self.blob_path(id.digest());
        let bytes = std::fs::read(&path)
            .map_err(StoreError::io("read", &path))
            .map_err(BlobError::Store)?;
        if Digest::of(&bytes) != *id.digest() {
            return Err(BlobError::Config(ConfigError::Changed(*id)));
        }
        Ok(bytes)
    }
}

pub(super) enum BlobError {
    Store(StoreError),
    Config(ConfigError),
}

impl BlobError {
    fn into_resolve(self, text: &str) -> ResolveError {
        match self {
            Self::Store(error) => ResolveError::Store(text.to_owned(), error),
            Self::Config(error) => ResolveError::Config(text.to_owned(), error),
        }
    }
}

pub(super) fn image_id(bytes: [u8; 32]) -> ImageId {
    Digest::from_bytes(bytes).into()
}

/// The lowest and highest digest that begin with these digits.
fn id_range(hex: &str) -> Option<([u8; 32], [u8; 32])> {
    let valid = (1..=64).contains(&hex.len())
        && hex
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    let bound = |fill: &str| {
        let padded = format!("{hex}{}", fill.repeat(64 - hex.len()));
        Digest::from_hex(&padded).map(|digest| *digest.as_bytes())
    };
    valid.then(|| Some((bound("0")?, bound("f")?))).flatten()
}
