//! A new image from one in the store and one layer more: what `commit` makes of a container.
//!
//! The layer comes from inside a guest, so it is as hostile as any and converted like any. Unlike
//! a layer that is loaded, nothing says beforehand what it must be; so its tar has to have its
//! end, lest a stream that broke off became an image.

use crate::changes::{self, ChangeError};
use crate::digest::{DiffId, Digest, ImageId};
use crate::health::HealthCheck;
use crate::load::{Finisher, LayerPart, LoadError, Progress, Session, image_config};
use crate::reference::Reference;
use crate::store::{NewImage, NewLayer, ResolveError, Staging, Store, StoreError, Travel};
use crate::time::rfc3339;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::io::Read;

/// What errors call the layer.
const LAYER: &str = "the container's changes";

/// What a new image is beyond its layer.
#[derive(Debug, Clone, Default)]
pub struct DeriveOptions {
    /// Name of the new image.
    pub name: Option<Reference>,
    /// The container's configuration, where it differs from its image's.
    pub config: ConfigPatch,
    /// Dockerfile instructions (`CMD ["/bin/sh"]`, `ENV A=b`, …), one each, applied last.
    pub changes: Vec<String>,
    /// Who made it.
    pub author: String,
    /// Commit message.
    pub message: String,
    /// The command that made the changes, as the image's history tells it.
    pub created_by: String,
    /// When the image is made, in seconds since 1970.
    pub created: i64,
}

/// Fields of a configuration that replace those of the parent image; `None` keeps the parent's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[allow(
    missing_docs,
    reason = "they are the fields of the image specification"
)]
pub struct ConfigPatch {
    pub user: Option<String>,
    pub working_dir: Option<String>,
    pub stop_signal: Option<String>,
    pub env: Option<Vec<String>>,
    pub cmd: Option<Vec<String>>,
    pub entrypoint: Option<Vec<String>>,
    pub labels: Option<BTreeMap<String, String>>,
    /// `80/tcp`.
    pub exposed_ports: Option<Vec<String>>,
    pub volumes: Option<Vec<String>>,
    pub health: Option<HealthCheck>,
}

impl ConfigPatch {
    fn apply(&self, config: &mut Map<String, Value>) {
        let set = |members: &[String]| -> Value {
            let members = members.iter().map(|member| (member.clone(), json!({})));
            Value::Object(members.collect())
        };
        let fields = [
            ("User", self.user.as_ref().map(|v| json!(v))),
            ("WorkingDir", self.working_dir.as_ref().map(|v| json!(v))),
            ("StopSignal", self.stop_signal.as_ref().map(|v| json!(v))),
            ("Env", self.env.as_ref().map(|v| json!(v))),
            ("Cmd", self.cmd.as_ref().map(|v| json!(v))),
            ("Entrypoint", self.entrypoint.as_ref().map(|v| json!(v))),
            ("Labels", self.labels.as_ref().map(|v| json!(v))),
            ("ExposedPorts", self.exposed_ports.as_deref().map(set)),
            ("Volumes", self.volumes.as_deref().map(set)),
            (
                "Healthcheck",
                self.health.as_ref().map(HealthCheck::to_value),
            ),
        ];
        for (key, value) in fields {
            match value {
                None => {}
                // What is empty is left out, as Docker writes it.
                Some(value) if is_empty(&value) => {
                    config.remove(key);
                }
                Some(value) => {
                    config.insert(key.to_owned(), value);
                }
            }
        }
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    }
}

/// Why no image was made. The store is as it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeriveError {
    /// The image to build on.
    #[error(transparent)]
    Parent(#[from] ResolveError),
    /// An instruction that cannot be followed.
    #[error("bad change {0:?}")]
    Change(String, #[source] ChangeError),
    /// The stream broke off.
    #[error("the container's changes are cut off: their tar has no end")]
    CutOff,
    /// One layer too many.
    #[error("the image would have more than {0} layers")]
    TooManyLayers(usize),
    /// The layer.
    #[error("cannot make an image of the container's changes")]
    Layer(#[from] LoadError),
    /// The store.
    #[error("the image store failed")]
    Store(#[from] StoreError),
}

impl Store {
    /// Makes a new image of `parent` and the layer in `layer`: an OCI layer's tar, whiteouts and
    /// all, plain or compressed. The parent's layers are shared. A tar without entries adds no
    /// layer but a line to the history, as in Docker.
    ///
    /// The parent may be removed meanwhile; its layers stay for the new image.
    ///
    /// # Errors
    /// [`DeriveError`]; the store is then as it was.
    pub fn derive(
        &mut self,
        parent: &ImageId,
        layer: &mut dyn Read,
        options: &DeriveOptions,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<ImageId, DeriveError> {
        let derived = self.prepare(parent, layer, options, progress)?;
        Ok(self.keep(derived)?)
    }

    /// Does of [`Self::derive`] all but the last: the store does not have the image yet, and no
    /// name has moved, until [`Self::keep`].
    ///
    /// # Errors
    /// [`DeriveError`].
    pub fn prepare(
        &self,
        parent: &ImageId,
        layer: &mut dyn Read,
        options: &DeriveOptions,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Derived, DeriveError> {
        // First of all the staging area: while it exists, no file of the parent goes.
        let mut session = Session::new(self)?;
        let short = parent.short();
        let found = self.find(&parent.hex())?;
        let document = self.document(&short, &found.id)?;
        let base = self.stack_of(&found.id)?;
        let config = new_config(&document, options)?;
        let watched = session.watch(layer, None, progress);
        let index = session.add_layer(LAYER, watched)?;
        if !session.layers[index].ended {
            return Err(DeriveError::CutOff);
        }
        let layers = if session.layers[index].entries == 0 {
            base
        } else {
            stack(&mut session, &base, index)?
        };
        let is_empty = session.layers[index].entries == 0;
        let new = NewDocument {
            parent: &document,
            config,
            layers: &layers,
            is_empty,
        };
        let config = new.write(options).to_string().into_bytes();
        check_size(&config, &session)?;
        image_config("configuration", &config, session.limits())?;
        let image = NewImage {
            id: Digest::of(&config).into(),
            config,
            manifest: None,
            created: Some(options.created),
            layers,
            names: options.name.iter().cloned().collect(),
            travel: Travel::default(),
        };
        let staging = session.into_staging()?;
        Ok(Derived { staging, image })
    }

    /// Takes a derived image in, under its name.
    ///
    /// # Errors
    /// [`StoreError`]; the store is then as it was.
    pub fn keep(&mut self, derived: Derived) -> Result<ImageId, StoreError> {
        let id = derived.image.id;
        self.commit(derived.staging, &[derived.image])?;
        Ok(id)
    }
}

/// An image that is ready, and gone if it is not kept.
#[derive(Debug)]
pub struct Derived {
    staging: Staging,
    image: NewImage,
}

fn stack(
    session: &mut Session<'_>,
    base: &[NewLayer],
    index: usize,
) -> Result<Vec<NewLayer>, DeriveError> {
    let max_layers = session.limits().max_layers;
    if base.len() >= max_layers {
        return Err(DeriveError::TooManyLayers(max_layers));
    }
    session.layers[index].finish_once();
    let diff_id: DiffId = session.layers[index].digests.plain.into();
    let part = LayerPart {
        name: LAYER.to_owned(),
        index,
        raw: None,
        media_type: None,
    };
    Ok(Finisher::default().stack(session, base, &[part], &[diff_id])?)
}

/// What could not be loaded again is not made.
fn check_size(config: &[u8], session: &Session<'_>) -> Result<(), LoadError> {
    let limit = session.limits().max_json_bytes;
    if config.len() as u64 > limit {
        return Err(LoadError::TooMany {
            what: "bytes in one manifest or configuration",
            limit,
        });
    }
    Ok(())
}

/// The parent's configuration with the container's and the operator's changes.
fn new_config(parent: &Value, options: &DeriveOptions) -> Result<Value, DeriveError> {
    let mut config = parent
        .get("config")
        .and_then(Value::as_object)
        .cloned()
        .unwrap_or_default();
    options.config.apply(&mut config);
    changes::apply_to(config, &options.changes)
        .map_err(|(instruction, error)| DeriveError::Change(instruction, error))
}

struct NewDocument<'a> {
    parent: &'a Value,
    config: Value,
    layers: &'a [NewLayer],
    is_empty: bool,
}

impl NewDocument<'_> {
    /// The new image's configuration. What a parent says of how it was itself made (`container`,
    /// `docker_version`, …) is not handed down.
    fn write(self, options: &DeriveOptions) -> Value {
        let mut new = Map::new();
        for key in ["architecture", "variant", "os", "os.version", "os.features"] {
            if let Some(value) = self.parent.get(key).filter(|value| !value.is_null()) {
                new.insert(key.to_owned(), value.clone());
            }
        }
        // Docker's own answer where a configuration is silent.
        for (key, value) in [("architecture", "amd64"), ("os", "linux")] {
            new.entry(key).or_insert_with(|| value.into());
        }
        let created = rfc3339(options.created, 0);
        let mut line = Map::new();
        for (key, text) in [
            ("created", &created),
            ("author", &options.author),
            ("created_by", &options.created_by),
            ("comment", &options.message),
        ] {
            if !text.is_empty() {
                line.insert(key.to_owned(), json!(text));
            }
        }
        if self.is_empty {
            line.insert("empty_layer".to_owned(), json!(true));
        }
        let mut history = self
            .parent
            .get("history")
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default();
        history.push(Value::Object(line));
        if !options.author.is_empty() {
            new.insert("author".to_owned(), json!(options.author));
        }
        let diff_ids: Vec<_> = self.layers.iter().map(|layer| layer.diff_id).collect();
        new.insert("created".to_owned(), json!(created));
        new.insert("config".to_owned(), self.config);
        new.insert("history".to_owned(), json!(history));
        new.insert(
            "rootfs".to_owned(),
            json!({ "type": "layers", "diff_ids": diff_ids }),
        );
        Value::Object(new)
    }
}
