//! Images in files and directories, named as containers' tools name them: `oci:DIR[:TAG]`,
//! `oci-archive:FILE[:TAG]`, `docker-archive:FILE[:NAME]`.

use crate::load::{ArchiveKind, LoadError, LoadOptions, Loaded, Progress, Source};
use crate::reference::{Reference, ReferenceError};
use crate::save::{ArchiveFormat, SaveError};
use crate::store::Store;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// A place for images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transport {
    /// An OCI layout in a directory, and the tag of one image in it.
    Oci(PathBuf, Option<String>),
    /// An OCI layout in a tar, and the tag of one image in it.
    OciArchive(PathBuf, Option<String>),
    /// What `docker save` writes, and the name of one image in it.
    DockerArchive(PathBuf, Option<Reference>),
}

/// Why a text that begins like one is no place for images.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TransportError {
    /// Nothing behind the colon.
    #[error("{0:?} names no file")]
    NoPath(String),
    /// The name behind the file.
    #[error("the name {0:?} is not valid")]
    Name(String, #[source] ReferenceError),
}

impl Transport {
    /// Reads a text. `None` where it does not begin with the name of a transport.
    ///
    /// # Errors
    /// [`TransportError`].
    pub fn parse(text: &str) -> Option<Result<Self, TransportError>> {
        let (kind, rest) = text.split_once(':')?;
        if !["oci", "oci-archive", "docker-archive"].contains(&kind) {
            return None;
        }
        let (path, name) = match rest.split_once(':') {
            Some((path, name)) => (path, Some(name)),
            None => (rest, None),
        };
        if path.is_empty() || name.is_some_and(str::is_empty) {
            return Some(Err(TransportError::NoPath(text.to_owned())));
        }
        let path = PathBuf::from(path);
        let tag = name.map(str::to_owned);
        Some(Ok(match kind {
            "oci" => Self::Oci(path, tag),
            "oci-archive" => Self::OciArchive(path, tag),
            _ => match name.map(Reference::parse).transpose() {
                Ok(name) => Self::DockerArchive(path, name),
                Err(error) => {
                    let name = name.unwrap_or_default().to_owned();
                    return Some(Err(TransportError::Name(name, error)));
                }
            },
        }))
    }

    /// The file or directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        match self {
            Self::Oci(path, _) | Self::OciArchive(path, _) | Self::DockerArchive(path, _) => path,
        }
    }

    fn kind(&self) -> ArchiveKind {
        match self {
            Self::Oci(..) | Self::OciArchive(..) => ArchiveKind::Oci,
            Self::DockerArchive(..) => ArchiveKind::Docker,
        }
    }

    /// The one image that is meant, as the source names it.
    fn only(&self) -> Option<String> {
        match self {
            Self::Oci(_, tag) | Self::OciArchive(_, tag) => tag.clone(),
            Self::DockerArchive(_, name) => name.as_ref().map(ToString::to_string),
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self {
            Self::Oci(..) => "oci",
            Self::OciArchive(..) => "oci-archive",
            Self::DockerArchive(..) => "docker-archive",
        };
        write!(f, "{kind}:{}", self.path().display())?;
        match self.only() {
            Some(name) => write!(f, ":{name}"),
            None => Ok(()),
        }
    }
}

impl Store {
    /// Loads the images, or the one image, of a place.
    ///
    /// # Errors
    /// [`LoadError`].
    pub fn load_from(
        &mut self,
        from: &Transport,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Vec<Loaded>, LoadError> {
        let options = LoadOptions {
            kind: Some(from.kind()),
            only: from.only(),
            ..LoadOptions::default()
        };
        let is_dir = from.path().is_dir();
        let fits = match from {
            Transport::Oci(..) => is_dir || !from.path().exists(),
            Transport::OciArchive(..) | Transport::DockerArchive(..) => !is_dir,
        };
        if !fits {
            let expected = if is_dir { "a file" } else { "a directory" };
            return Err(LoadError::Unexpected {
                name: from.path().display().to_string(),
                expected,
            });
        }
        self.load(Source::Path(from.path()), &options, progress)
    }

    /// Saves images to a place. An archive takes the place of a file that was there when it is
    /// complete; a layout is added to one that is there. With a tag or a name there can be one
    /// image alone.
    ///
    /// # Errors
    /// [`SaveError`].
    pub fn save_to(&self, images: &[String], to: &Transport) -> Result<(), SaveError> {
        let label = to.only();
        let label = label.as_deref();
        match to {
            Transport::Oci(dir, _) => self.save_into_layout(images, dir, label),
            Transport::OciArchive(file, _) => replace(file, &mut |out| {
                self.save_as(images, ArchiveFormat::Oci, label, out)
            }),
            Transport::DockerArchive(file, _) => replace(file, &mut |out| {
                self.save_as(images, ArchiveFormat::Docker, label, out)
            }),
        }
    }
}

/// Writes a file beside the one that it replaces. What is not complete is removed.
pub(crate) fn replace(
    path: &Path,
    write: &mut dyn FnMut(&mut File) -> Result<(), SaveError>,
) -> Result<(), SaveError> {
    let fail = |source: io::Error| SaveError::File {
        path: path.to_owned(),
        source,
    };
    let name = path
        .file_name()
        .ok_or_else(|| fail(io::ErrorKind::InvalidFilename.into()))?;
    let mut draft = name.as_bytes().to_vec();
    draft.extend_from_slice(format!(".{}.part", std::process::id()).as_bytes());
    let draft = path.with_file_name(std::ffi::OsStr::from_bytes(&draft));
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&draft)
        .map_err(fail)?;
    let written = write(&mut file)
        .and_then(|()| file.sync_data().map_err(fail))
        .and_then(|()| std::fs::rename(&draft, path).map_err(fail));
    if written.is_err() {
        let _ = std::fs::remove_file(&draft);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_places() {
        let parse = |text: &str| Transport::parse(text).unwrap().unwrap();
        let path = |text: &str| PathBuf::from(text);
        assert_eq!(parse("oci:a/b"), Transport::Oci(path("a/b"), None));
        assert_eq!(
            parse("oci:/a:1.0"),
            Transport::Oci(path("/a"), Some("1.0".to_owned()))
        );
        assert_eq!(
            parse("oci-archive:x.tar:quay.io/a:1"),
            Transport::OciArchive(path("x.tar"), Some("quay.io/a:1".to_owned()))
        );
        let name = Reference::parse("debian:12").unwrap();
        assert_eq!(
            parse("docker-archive:x.tar:debian:12"),
            Transport::DockerArchive(path("x.tar"), Some(name))
        );
        for none in ["debian", "debian:12", "docker://x", "./oci:x", "ocix:y"] {
            assert!(Transport::parse(none).is_none(), "{none}");
        }
        for bad in ["oci:", "oci::x", "oci:x:", "docker-archive:x:Bad Name"] {
            assert!(Transport::parse(bad).unwrap().is_err(), "{bad}");
        }
        for text in [
            "oci:a:1",
            "oci-archive:b",
            "docker-archive:c:docker.io/library/d:1",
        ] {
            assert_eq!(parse(text).to_string(), text);
        }
    }
}
