//! Saving: images as archives and layouts, with the very layers they were loaded with.
//!
//! Every layer's tar is made again from its filesystem image and its recipe while it is written
//! out, and its digest compared with the DiffID at its end. The manifest comes after all layers,
//! so what was broken off by an error is no archive that anything would load.

mod docker;
mod error;
mod layer;
mod layout;
mod selected;
mod sink;

pub use error::SaveError;
pub use layer::RegenerateError;
pub(crate) use layer::layer_tar;

use crate::digest::ImageId;
use crate::reference::Reference;
use crate::store::{Store, StoreError};
use rusqlite::params;
use selected::SelectedImage;
use sink::{ArchiveSink, DirSink};
use std::io::Write;
use std::path::Path;

/// The form of an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ArchiveFormat {
    /// What `docker save` has written since 1.10 and everything reads.
    #[default]
    Docker,
    /// An OCI image layout in a tar.
    Oci,
}

impl Store {
    /// Writes images to `out` as one archive. A name without a tag means all tags of its
    /// repository, an id the image without its names, as in Docker.
    ///
    /// # Errors
    /// [`SaveError`]. What was written until then is not a whole archive.
    pub fn save(
        &self,
        images: &[String],
        format: ArchiveFormat,
        out: &mut dyn Write,
    ) -> Result<(), SaveError> {
        self.save_as(images, format, None, out)
    }

    /// The same, with the one image under another name: of a docker-archive, a reference.
    pub(crate) fn save_as(
        &self,
        images: &[String],
        format: ArchiveFormat,
        label: Option<&str>,
        out: &mut dyn Write,
    ) -> Result<(), SaveError> {
        // While it is held, no file of theirs goes.
        let _staging = self.stage()?;
        let mut chosen = self.choose(images)?;
        relabel(&mut chosen, label)?;
        let mut sink = ArchiveSink::new(out);
        match format {
            ArchiveFormat::Docker => docker::write(self, &chosen, &mut sink)?,
            ArchiveFormat::Oci => layout::write(self, &chosen, &mut sink)?,
        }
        sink.finish()
    }

    /// Writes images as an OCI image layout into a directory, which is made if need be and has
    /// to be empty.
    ///
    /// # Errors
    /// [`SaveError`].
    pub fn save_layout(&self, images: &[String], dir: &Path) -> Result<(), SaveError> {
        let _staging = self.stage()?;
        let chosen = self.choose(images)?;
        let mut sink = DirSink::new(dir)?;
        layout::write(self, &chosen, &mut sink)
    }

    /// Adds images to the layout in a directory, or makes one there, with the one image under
    /// another name.
    pub(crate) fn save_into_layout(
        &self,
        images: &[String],
        dir: &Path,
        label: Option<&str>,
    ) -> Result<(), SaveError> {
        let _staging = self.stage()?;
        let mut chosen = self.choose(images)?;
        relabel(&mut chosen, label)?;
        let mut sink = DirSink::new_or_layout(dir)?;
        layout::write(self, &chosen, &mut sink)
    }

    /// The images that these texts mean, each once, in order.
    fn choose(&self, texts: &[String]) -> Result<Vec<SelectedImage>, SaveError> {
        let mut chosen: Vec<SelectedImage> = Vec::new();
        for text in texts {
            for (id, name) in self.meant(text)? {
                let position = match chosen.iter().position(|other| other.id == id) {
                    Some(position) => position,
                    None => {
                        chosen.push(SelectedImage {
                            id,
                            names: Vec::new(),
                            label: None,
                            config: self.raw_config(text, &id)?,
                            layers: self.stack_of(&id)?,
                        });
                        chosen.len() - 1
                    }
                };
                let names = &mut chosen[position].names;
                names.extend(name.filter(|name| !names.contains(name)));
            }
        }
        Ok(chosen)
    }

    fn meant(&self, text: &str) -> Result<Vec<(ImageId, Option<Reference>)>, SaveError> {
        let has_tag =
            text.rsplit('/').next().is_some_and(|l| l.contains(':')) || text.contains('@');
        if !has_tag && let Ok(name) = Reference::parse(text) {
            let all = self.tags_of(&name)?;
            if !all.is_empty() {
                return Ok(all);
            }
        }
        let found = self.find(text)?;
        // A digest is no name that an archive could give back.
        let name = found.name.filter(|name| name.digest().is_none());
        Ok(vec![(found.id, name)])
    }

    fn tags_of(&self, name: &Reference) -> Result<Vec<(ImageId, Option<Reference>)>, StoreError> {
        let mut statement = self
            .db()
            .prepare("SELECT image, tag FROM names WHERE repository = ?1 ORDER BY tag")?;
        let rows = statement.query_map(params![name.name()], |row| {
            let id = crate::Digest::from_bytes(row.get(0)?).into();
            Ok((id, row.get::<_, String>(1)?))
        })?;
        let mut tags = Vec::new();
        for row in rows {
            let (id, tag) = row?;
            let name = name
                .with_tag(&tag)
                .map_err(|_| StoreError::Damaged("a name is not a reference"))?;
            tags.push((id, Some(name)));
        }
        Ok(tags)
    }
}

/// Calls the one image that is saved something else.
fn relabel(chosen: &mut [SelectedImage], label: Option<&str>) -> Result<(), SaveError> {
    let Some(label) = label else {
        return Ok(());
    };
    let [image] = chosen else {
        return Err(SaveError::OneName(label.to_owned()));
    };
    image.names = Reference::parse(label).into_iter().collect();
    image.label = Some(label.to_owned());
    Ok(())
}
