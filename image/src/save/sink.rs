//! Where the files of an archive or a layout go.

use super::error::SaveError;
use hullbox_tar::{Entry, ExactWriter, Kind, TarWriter};
use serde_json::Value;
use std::fs::OpenOptions;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

/// The annotation that names an image of a layout.
pub(super) const REF_NAME: &str = "org.opencontainers.image.ref.name";

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
    /// The index of the layout that is there.
    index: Option<Value>,
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
            index: None,
        })
    }

    /// The same, or the directory of a layout, which is added to.
    pub(super) fn new_or_layout(dir: &Path) -> Result<Self, SaveError> {
        let path = dir.join("index.json");
        if !dir.join("oci-layout").is_file() || !path.is_file() {
            return Self::new(dir);
        }
        let fail = |source| SaveError::File {
            path: path.clone(),
            source,
        };
        let text = std::fs::read(&path).map_err(fail)?;
        let index: Value =
            serde_json::from_slice(&text).map_err(|error| SaveError::Index(path.clone(), error))?;
        std::fs::create_dir_all(dir.join("blobs/sha256")).map_err(fail)?;
        Ok(Self {
            dir: dir.to_owned(),
            index: Some(index),
        })
    }

    /// A file of a layout that is there. It is whole when it has its name.
    fn add(
        &mut self,
        name: &str,
        bytes: u64,
        fill: &mut Fill<'_>,
        index: &Value,
    ) -> Result<(), SaveError> {
        let path = self.dir.join(name);
        if name == "oci-layout" || (name != "index.json" && has_len(&path, bytes)) {
            return Ok(());
        }
        let draft = self.dir.join(format!("{name}.{}.part", std::process::id()));
        let rename = |()| {
            std::fs::rename(&draft, &path).map_err(|source| SaveError::File {
                path: path.clone(),
                source,
            })
        };
        let written = if name == "index.json" {
            let mut new = Vec::new();
            fill(&mut new)?;
            let new =
                serde_json::from_slice(&new).map_err(|e| SaveError::Index(path.clone(), e))?;
            let text = merge(index, new).to_string().into_bytes();
            write(&draft, text.len() as u64, &mut |out| {
                out.write_all(&text).map_err(SaveError::Write)
            })
        } else {
            write(&draft, bytes, fill)
        };
        let done = written.and_then(rename);
        if done.is_err() {
            let _ = std::fs::remove_file(&draft);
        }
        done
    }
}

fn has_len(path: &Path, bytes: u64) -> bool {
    path.metadata()
        .is_ok_and(|metadata| metadata.is_file() && metadata.len() == bytes)
}

/// An index with the images of another. Of those with one name, the new one counts.
fn merge(old: &Value, mut new: Value) -> Value {
    let name = |descriptor: &Value| {
        descriptor["annotations"][REF_NAME]
            .as_str()
            .map(str::to_owned)
    };
    let mut index = old.clone();
    let added = match new["manifests"].take() {
        Value::Array(added) => added,
        _ => Vec::new(),
    };
    let mut all = match index["manifests"].take() {
        Value::Array(all) => all,
        _ => Vec::new(),
    };
    all.retain(|known| {
        added.iter().all(|new| match name(new) {
            Some(new) => name(known) != Some(new),
            None => known["digest"] != new["digest"] || name(known).is_some(),
        })
    });
    all.extend(added);
    index["manifests"] = Value::Array(all);
    index
}

impl Sink for DirSink {
    fn file(&mut self, name: &str, bytes: u64, fill: &mut Fill<'_>) -> Result<(), SaveError> {
        match self.index.take() {
            None => write(&self.dir.join(name), bytes, fill),
            Some(index) => {
                let added = self.add(name, bytes, fill, &index);
                self.index = Some(index);
                added
            }
        }
    }
}

/// Writes a fresh file of exactly this size.
fn write(path: &Path, bytes: u64, fill: &mut Fill<'_>) -> Result<(), SaveError> {
    let write = |fill: &mut Fill<'_>| -> Result<(), SaveError> {
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(path)
            .map_err(SaveError::Write)?;
        let mut out = ExactWriter::new(BufWriter::with_capacity(256 * 1024, file), bytes);
        fill(&mut out)?;
        let ended = out.finish().and_then(|mut out| out.flush());
        ended.map_err(SaveError::Write)
    };
    write(fill).map_err(|error| match error {
        SaveError::Write(source) => SaveError::File {
            path: path.to_owned(),
            source,
        },
        other => other,
    })
}
