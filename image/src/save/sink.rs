//! Where the files of an archive or a layout go.

use super::error::SaveError;
use hullbox_tar::{Entry, ExactWriter, Kind, TarWriter};
use std::fs::OpenOptions;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

/// Writes one file's bytes.
pub(super) type Fill<'a> = dyn FnMut(&mut dyn Write) -> Result<(), SaveError> + 'a;

/// Takes files one after the other.
pub(super) trait Sink {
    /// A file of this size, which `fill` writes.
    fn file(&mut self, name: &str, bytes: u64, fill: &mut Fill<'_>) -> Result<(), SaveError>;

    /// A small file.
    fn bytes(&mut self, name: &str, bytes: &[u8]) -> Result<(), SaveError> {
        self.file(name, bytes.len() as u64, &mut |out| {
            out.write_all(bytes).map_err(SaveError::Write)
        })
    }
}

/// A tar.
pub(super) struct ArchiveSink<'a> {
    tar: TarWriter<BufWriter<&'a mut dyn Write>>,
}

impl<'a> ArchiveSink<'a> {
    pub(super) fn new(out: &'a mut dyn Write) -> Self {
        Self {
            tar: TarWriter::new(BufWriter::with_capacity(256 * 1024, out)),
        }
    }

    pub(super) fn finish(self) -> Result<(), SaveError> {
        let mut out = self.tar.finish().map_err(SaveError::Write)?;
        out.flush().map_err(SaveError::Write)
    }
}

impl Sink for ArchiveSink<'_> {
    fn file(&mut self, name: &str, bytes: u64, fill: &mut Fill<'_>) -> Result<(), SaveError> {
        let entry = Entry {
            path: name.as_bytes().to_vec(),
            mode: 0o644,
            size: bytes,
            ..Entry::of(Kind::File)
        };
        self.tar.entry(&entry).map_err(SaveError::Write)?;
        fill(&mut self.tar)
    }
}

/// A directory.
pub(super) struct DirSink {
    dir: PathBuf,
}

impl DirSink {
    pub(super) fn new(dir: &Path) -> Result<Self, SaveError> {
        let fail = |source| SaveError::File {
            path: dir.to_owned(),
            source,
        };
        std::fs::create_dir_all(dir.join("blobs/sha256")).map_err(fail)?;
        let mut others = std::fs::read_dir(dir)
            .map_err(fail)?
            .chain(std::fs::read_dir(dir.join("blobs/sha256")).map_err(fail)?)
            .filter(|entry| !entry.as_ref().is_ok_and(|e| e.file_name() == "blobs"));
        if others.next().is_some() {
            return Err(SaveError::NotEmpty(dir.to_owned()));
        }
        Ok(Self {
            dir: dir.to_owned(),
        })
    }
}

impl Sink for DirSink {
    fn file(&mut self, name: &str, bytes: u64, fill: &mut Fill<'_>) -> Result<(), SaveError> {
        let path = self.dir.join(name);
        let write = |fill: &mut Fill<'_>| -> Result<(), SaveError> {
            let file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .open(&path)
                .map_err(SaveError::Write)?;
            let mut out = ExactWriter::new(BufWriter::with_capacity(256 * 1024, file), bytes);
            fill(&mut out)?;
            let ended = out.finish().and_then(|mut out| out.flush());
            ended.map_err(SaveError::Write)
        };
        write(fill).map_err(|error| match error {
            SaveError::Write(source) => SaveError::File {
                path: path.clone(),
                source,
            },
            other => other,
        })
    }
}
