//! `--cidfile`: a file with the new container's id, removed again if no container is created.

use crate::output::failure::Failure;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// A file that is created before its container, so that no two commands share one.
#[derive(Debug)]
pub(crate) struct CidFile {
    file: File,
    path: PathBuf,
    is_written: bool,
}

impl Drop for CidFile {
    fn drop(&mut self) {
        if !self.is_written {
            // One that cannot be removed is empty at least.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl CidFile {
    pub(crate) fn create(path: &Path) -> Result<Self, Failure> {
        let file = File::options()
            .write(true)
            .create_new(true)
            .mode(0o644)
            .open(path)
            .map_err(|error| {
                if error.kind() == io::ErrorKind::AlreadyExists {
                    Failure::new(format!("the container id file {} exists", path.display()))
                        .with_hint("make sure that the other container is gone, or remove the file")
                } else {
                    Failure::of(format!("cannot create {}", path.display()), &error)
                }
            })?;
        Ok(Self {
            file,
            path: path.to_owned(),
            is_written: false,
        })
    }

    pub(crate) const fn is_written(&self) -> bool {
        self.is_written
    }

    pub(crate) fn write(&mut self, id: &str) -> Result<(), Failure> {
        self.file.write_all(id.as_bytes()).map_err(|error| {
            Failure::of(format!("cannot write {}", self.path.display()), &error)
        })?;
        self.is_written = true;
        Ok(())
    }
}
