//! Layouts and unpacked archives as directories of the operator's.

use super::error::LoadError;
use super::parts::{Blobs, PlannedImage};
use super::plan::{self, Choice};
use super::session::{Progress, Session, Watched};
use crate::limits::Limits;
use rustix::fs::{Mode, OFlags, ResolveFlags};
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};

/// Reads the images of a directory.
pub(super) fn read(
    session: &mut Session<'_>,
    dir: &File,
    choice: Choice<'_>,
    progress: &mut dyn FnMut(Progress),
) -> Result<Vec<PlannedImage>, LoadError> {
    let watched = session.watch(io::empty(), None, progress);
    let mut directory = Directory {
        limits: session.limits(),
        session,
        dir,
        layers: HashMap::new(),
        small_bytes: 0,
        watched: Some(watched),
    };
    plan::plan(&mut directory, choice)
}

struct Directory<'s, 'a, 'p> {
    session: &'s mut Session<'a>,
    limits: &'a Limits,
    dir: &'s File,
    layers: HashMap<String, usize>,
    small_bytes: u64,
    /// What reports progress, between two files.
    watched: Option<Watched<'p, io::Empty>>,
}

impl Directory<'_, '_, '_> {
    /// Opens a regular file of the directory. Names come from hostile documents, so links may
    /// not lead out of it, and a pipe in the place of a file is not waited for.
    fn open(&self, name: &str) -> Result<Option<File>, LoadError> {
        let fail = |error: io::Error| LoadError::Read(name.to_owned(), error);
        let opened = rustix::fs::openat2(
            self.dir,
            name,
            OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY,
            Mode::empty(),
            ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS,
        );
        let file = match opened {
            Ok(fd) => File::from(fd),
            Err(rustix::io::Errno::NOENT) => return Ok(None),
            Err(error) => return Err(fail(error.into())),
        };
        if !file.metadata().map_err(fail)?.is_file() {
            return Err(LoadError::Unexpected {
                name: name.to_owned(),
                expected: "a regular file",
            });
        }
        Ok(Some(file))
    }
}

impl Blobs for Directory<'_, '_, '_> {
    fn small(&mut self, name: &str) -> Result<Option<Vec<u8>>, LoadError> {
        let Some(file) = self.open(name)? else {
            return Ok(None);
        };
        let limit = self.limits.max_json_bytes;
        let mut bytes = Vec::new();
        file.take(limit + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| LoadError::Read(name.to_owned(), error))?;
        if bytes.len() as u64 > limit {
            return Err(LoadError::TooMany {
                what: "bytes in one manifest or configuration",
                limit,
            });
        }
        self.small_bytes += bytes.len() as u64;
        if self.small_bytes > self.limits.max_total_json_bytes {
            return Err(LoadError::TooMany {
                what: "bytes of manifests and configurations",
                limit: self.limits.max_total_json_bytes,
            });
        }
        Ok(Some(bytes))
    }

    fn layer(&mut self, name: &str) -> Result<usize, LoadError> {
        if let Some(&index) = self.layers.get(name) {
            return Ok(index);
        }
        let file = self
            .open(name)?
            .ok_or_else(|| LoadError::Missing(name.to_owned()))?;
        let Some(watched) = self.watched.take() else {
            return Err(LoadError::Missing(name.to_owned()));
        };
        let mut watched = watched.replace(file);
        let index = self.session.add_layer(name, &mut watched);
        self.watched = Some(watched.replace(io::empty()));
        let index = index?;
        self.layers.insert(name.to_owned(), index);
        Ok(index)
    }

    fn limits(&self) -> &Limits {
        self.limits
    }
}
