//! The configuration file: the user's, else the system's. What it says about a thing is that thing's
//! own to understand; the environment over it, too.

use crate::{images, machine, templates};
use serde::Deserialize;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// It cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is not what it should be.
    #[error("{} is not a valid configuration", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<toml::de::Error>,
    },
}

/// All that it can say to this program; other tables are others' business.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct File {
    pub(crate) images: images::Section,
    pub(crate) machine: machine::Section,
    pub(crate) templates: templates::Section,
}

/// A variable of the environment, unless it is empty.
pub(crate) fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// This process's file, read once. One that is not there says nothing.
pub(crate) fn file() -> Result<&'static File, FileError> {
    static FILE: OnceLock<File> = OnceLock::new();
    match FILE.get() {
        Some(file) => Ok(file),
        None => {
            let file = load(&variable)?;
            Ok(FILE.get_or_init(|| file))
        }
    }
}

/// The file that the environment leads to.
pub(crate) fn load(env: &dyn Fn(&str) -> Option<OsString>) -> Result<File, FileError> {
    let user = env("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .or_else(|| env("HOME").map(|home| PathBuf::from(home).join(".config")))
        .map(|dir| dir.join("hullbox/config.toml"));
    let system = PathBuf::from("/etc/hullbox/config.toml");
    for path in user.into_iter().chain([system]) {
        if let Some(file) = read(&path)? {
            return Ok(file);
        }
    }
    Ok(File::default())
}

fn read(path: &Path) -> Result<Option<File>, FileError> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => {
            return Err(FileError::Read {
                path: path.to_owned(),
                source,
            });
        }
    };
    toml::from_str(&text)
        .map(Some)
        .map_err(|source| FileError::Parse {
            path: path.to_owned(),
            source: Box::new(source),
        })
}

/// What a file with this text says.
#[cfg(test)]
pub(crate) fn of_text(text: &str) -> Result<File, FileError> {
    let dir = tempfile::tempdir().map_err(|source| FileError::Read {
        path: PathBuf::new(),
        source,
    })?;
    let path = dir.path().join("hullbox/config.toml");
    fs::create_dir_all(dir.path().join("hullbox"))
        .and_then(|()| fs::write(&path, text))
        .map_err(|source| FileError::Read { path, source })?;
    load(&|name| (name == "XDG_CONFIG_HOME").then(|| dir.path().into()))
}
