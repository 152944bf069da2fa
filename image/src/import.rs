//! Importing the tarball of a root filesystem as an image of one layer.

use crate::changes::{self, ChangeError};
use crate::digest::{DiffId, Digest, ImageId};
use crate::load::{Finisher, LayerPart, LoadError, Progress, Session, Source, image_config, open};
use crate::reference::Reference;
use crate::store::{NewImage, Staging, Store, StoreError, Travel};
use crate::time::rfc3339;
use serde_json::{Value, json};
use std::io::Read;

/// What `import` may be told.
#[derive(Debug, Clone, Default)]
pub struct ImportOptions {
    /// Name of the new image.
    pub name: Option<Reference>,
    /// Dockerfile instructions (`CMD ["/bin/sh"]`, `ENV A=b`, …), one each.
    pub changes: Vec<String>,
    /// Commit message; by default it names the source.
    pub message: Option<String>,
    /// When the image is made, in seconds since 1970.
    pub created: i64,
}

/// Why nothing was imported. The store is as it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// An instruction that cannot be followed.
    #[error("bad change {0:?}")]
    Change(String, #[source] ChangeError),
    /// The tarball.
    #[error("cannot import the root filesystem")]
    Load(#[from] LoadError),
    /// The store.
    #[error("the image store failed")]
    Store(#[from] StoreError),
}

impl Store {
    /// Imports a root filesystem's tar (plain, gzip or zstd) as an image.
    ///
    /// # Errors
    /// [`ImportError`].
    pub fn import(
        &mut self,
        source: Source<'_>,
        options: &ImportOptions,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<ImageId, ImportError> {
        let config = changes::apply(&options.changes)
            .map_err(|(instruction, error)| ImportError::Change(instruction, error))?;
        let name = match &source {
            Source::Path(path) => path.display().to_string(),
            Source::Stream(_) => "-".to_owned(),
        };
        let message = options
            .message
            .clone()
            .unwrap_or_else(|| format!("Imported from {name}"));
        let template = Template {
            name,
            config,
            message,
            options,
        };
        let (staging, image) = match source {
            Source::Stream(stream) => template.stage(self, stream, None, progress),
            Source::Path(path) => {
                let file = open(path)?;
                let size = file.metadata().ok().map(|metadata| metadata.len());
                template.stage(self, file, size, progress)
            }
        }?;
        let id = image.id;
        self.commit(staging, &[image])?;
        Ok(id)
    }
}

/// An image but for its layer.
struct Template<'a> {
    /// Of the source, for errors.
    name: String,
    config: Value,
    message: String,
    options: &'a ImportOptions,
}

impl Template<'_> {
    fn stage(
        self,
        store: &Store,
        source: impl Read,
        size: Option<u64>,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<(Staging, NewImage), ImportError> {
        let mut session = Session::new(store)?;
        let watched = session.watch(source, size, progress);
        let index = session.add_layer(&self.name, watched)?;
        session.layers[index].finish_once();
        let diff_id: DiffId = session.layers[index].digests.plain.into();
        let created = rfc3339(self.options.created, 0);
        let document = json!({
            "created": created,
            "architecture": "amd64",
            "os": "linux",
            "config": self.config,
            "rootfs": { "type": "layers", "diff_ids": [diff_id] },
            "history": [{ "created": created, "comment": self.message }],
        });
        let config = document.to_string().into_bytes();
        image_config("configuration", &config, session.limits())?;
        let part = LayerPart {
            name: self.name,
            index,
            raw: None,
            media_type: None,
        };
        let layers = Finisher::default().stack(&mut session, &[], &[part], &[diff_id])?;
        let image = NewImage {
            id: Digest::of(&config).into(),
            config,
            manifest: None,
            created: Some(self.options.created),
            layers,
            names: self.options.name.iter().cloned().collect(),
            travel: Travel::default(),
        };
        Ok((session.into_staging()?, image))
    }
}
