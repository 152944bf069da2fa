//! OCI image layouts as directories, blob by blob (image-spec, "Image Layout").

use super::ends::Blob;
use hullbox_registry::{Descriptor, Digest, Fetched};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// The annotation that names an entry of the index.
const NAME: &str = "org.opencontainers.image.ref.name";
/// Largest index or manifest, in bytes.
const MAX_DOCUMENT: u64 = 4 << 20;

/// Why a layout is not used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LayoutError {
    /// A file of it.
    #[error("cannot use {}", .path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A document that is not what it should be.
    #[error("{} is not valid", .path.display())]
    Invalid {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// Nothing has this tag.
    #[error("{} has no image {tag:?}", .path.display())]
    NoTag {
        /// The layout.
        path: PathBuf,
        /// The tag.
        tag: String,
    },
    /// No tag was given, and there is not one image alone.
    #[error("{} has {count} images: name one, as in oci:DIR:TAG", .path.display())]
    Which {
        /// The layout.
        path: PathBuf,
        /// How many.
        count: usize,
    },
    /// A blob with other bytes than its name says.
    #[error("{}: the bytes of {digest} are others", .path.display())]
    Damaged {
        /// The layout.
        path: PathBuf,
        /// The blob.
        digest: Digest,
    },
    /// A document larger than any is.
    #[error("{} has more than {MAX_DOCUMENT} bytes", .0.display())]
    TooLarge(PathBuf),
}

fn failed(path: &Path) -> impl Fn(io::Error) -> LayoutError {
    move |source| LayoutError::Io {
        path: path.to_owned(),
        source,
    }
}

/// `index.json`; what is not known of it is kept.
#[derive(Debug, Serialize, Deserialize)]
struct Index {
    #[serde(rename = "schemaVersion")]
    schema_version: u64,
    #[serde(default)]
    manifests: Vec<Value>,
    #[serde(flatten)]
    more: Map<String, Value>,
}

/// A layout.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    dir: PathBuf,
}

impl Layout {
    /// One that is there.
    pub(super) const fn at(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// One that is made where there is none.
    pub(super) fn create(dir: PathBuf) -> Result<Self, LayoutError> {
        let blobs = dir.join("blobs/sha256");
        fs::create_dir_all(&blobs).map_err(failed(&blobs))?;
        let layout = Self { dir };
        let marker = layout.dir.join("oci-layout");
        if !marker.exists() {
            layout.replace(&marker, br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        }
        Ok(layout)
    }

    fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.dir.join("blobs/sha256").join(digest.hex())
    }

    /// Writes a file whole or not at all.
    fn replace(&self, path: &Path, bytes: &[u8]) -> Result<(), LayoutError> {
        let draft = self.dir.join(format!(".{}.part", std::process::id()));
        let written = fs::write(&draft, bytes).and_then(|()| fs::rename(&draft, path));
        if written.is_err() {
            // The first error is the one to report.
            let _ = fs::remove_file(&draft);
        }
        written.map_err(failed(path))
    }

    fn index(&self) -> Result<Index, LayoutError> {
        let path = self.dir.join("index.json");
        let bytes = read_bounded(&path)?;
        serde_json::from_slice(&bytes).map_err(|source| LayoutError::Invalid { path, source })
    }

    /// The manifest or index that a tag names; without a tag the only one.
    pub(super) fn manifest(&self, tag: Option<&str>) -> Result<Fetched, LayoutError> {
        let index = self.index()?;
        let named = |entry: &&Value| match tag {
            Some(tag) => entry["annotations"][NAME] == tag || entry["digest"] == tag,
            None => true,
        };
        let found: Vec<&Value> = index.manifests.iter().filter(named).collect();
        let path = self.dir.clone();
        let entry = match (&found[..], tag) {
            ([entry, ..], Some(_)) | ([entry], None) => *entry,
            ([], Some(tag)) => {
                let tag = tag.to_owned();
                return Err(LayoutError::NoTag { path, tag });
            }
            (all, None) => {
                let count = all.len();
                return Err(LayoutError::Which { path, count });
            }
        };
        let path = self.dir.join("index.json");
        let entry: Descriptor = serde_json::from_value(entry.clone())
            .map_err(|source| LayoutError::Invalid { path, source })?;
        self.document(&entry)
    }

    /// A manifest or index that another document names.
    pub(super) fn document(&self, entry: &Descriptor) -> Result<Fetched, LayoutError> {
        let raw = read_bounded(&self.blob_path(&entry.digest))?;
        let fetched = Fetched::new(raw, &entry.media_type);
        self.check(&entry.digest, fetched.digest)?;
        Ok(fetched)
    }

    fn check(&self, expected: &Digest, found: Digest) -> Result<(), LayoutError> {
        if *expected != found {
            return Err(LayoutError::Damaged {
                path: self.dir.clone(),
                digest: *expected,
            });
        }
        Ok(())
    }

    /// A blob from an offset on. Its bytes are for the reader to compare.
    pub(super) fn open(&self, digest: &Digest, from_bytes: u64) -> io::Result<File> {
        let mut file = File::open(self.blob_path(digest))?;
        file.seek(SeekFrom::Start(from_bytes))?;
        Ok(file)
    }

    /// Whether it has a blob of this digest and length.
    pub(super) fn has(&self, blob: &Blob, digest: &Digest) -> bool {
        let metadata = fs::metadata(self.blob_path(digest));
        metadata.is_ok_and(|metadata| metadata.is_file() && metadata.len() == blob.size_bytes)
    }

    /// Takes a blob, which appears when it is whole. Whoever reads it compares its bytes with the digest
    /// before the end.
    pub(super) fn take(&self, digest: &Digest, blob: &mut dyn Read) -> Result<(), LayoutError> {
        let path = self.blob_path(digest);
        let draft = path.with_extension(format!("{}.part", std::process::id()));
        let take = || {
            let mut file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .open(&draft)?;
            io::copy(blob, &mut file)?;
            file.flush()?;
            fs::rename(&draft, &path)
        };
        let taken: io::Result<()> = { take }();
        if taken.is_err() {
            // The first error is the one to report.
            let _ = fs::remove_file(&draft);
        }
        taken.map_err(failed(&path))
    }

    /// Gives another layout a blob.
    pub(super) fn give(&self, digest: &Digest, to: &Self) -> Result<(), LayoutError> {
        let file = self
            .open(digest, 0)
            .map_err(failed(&self.blob_path(digest)))?;
        let mut checked = Checked {
            file,
            hasher: Sha256::new(),
            expected: *digest,
        };
        to.take(digest, &mut checked)
    }

    /// Takes a document.
    pub(super) fn take_document(&self, document: &Fetched) -> Result<(), LayoutError> {
        self.replace(&self.blob_path(&document.digest), &document.raw)
    }

    /// Names a document in the index, and takes the name from what had it.
    pub(super) fn name(&self, document: &Fetched, tag: Option<&str>) -> Result<(), LayoutError> {
        let path = self.dir.join("index.json");
        let mut index = match path.exists() {
            true => self.index()?,
            false => Index {
                schema_version: 2,
                manifests: Vec::new(),
                more: Map::new(),
            },
        };
        let digest = document.digest.to_string();
        index.manifests.retain(|entry| match tag {
            Some(tag) => entry["annotations"][NAME] != tag,
            None => entry["digest"] != digest[..] || !entry["annotations"][NAME].is_null(),
        });
        let mut entry = serde_json::json!({
            "mediaType": document.media_type,
            "digest": digest,
            "size": document.raw.len(),
        });
        if let Some(tag) = tag {
            entry["annotations"] = serde_json::json!({ NAME: tag });
        }
        index.manifests.push(entry);
        let text = serde_json::to_vec(&index).map_err(|source| LayoutError::Invalid {
            path: path.clone(),
            source,
        })?;
        self.replace(&path, &text)
    }
}

/// A file whose end is an error if its bytes are others than expected.
struct Checked {
    file: File,
    hasher: Sha256,
    expected: Digest,
}

impl Read for Checked {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = self.file.read(buffer)?;
        self.hasher.update(&buffer[..len]);
        if len == 0 && !buffer.is_empty() {
            let found = Digest::from_bytes(self.hasher.clone().finalize().into());
            if found != self.expected {
                let why = format!("its bytes are not those of {}", self.expected);
                return Err(io::Error::new(io::ErrorKind::InvalidData, why));
            }
        }
        Ok(len)
    }
}

fn read_bounded(path: &Path) -> Result<Vec<u8>, LayoutError> {
    let file = File::open(path).map_err(failed(path))?;
    let mut bytes = Vec::new();
    file.take(MAX_DOCUMENT + 1)
        .read_to_end(&mut bytes)
        .map_err(failed(path))?;
    if bytes.len() as u64 > MAX_DOCUMENT {
        return Err(LayoutError::TooLarge(path.to_owned()));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TYPE: &str = "application/vnd.oci.image.manifest.v1+json";

    #[test]
    fn documents_are_named_and_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::create(dir.path().join("l")).unwrap();
        let first = Fetched::new(b"{\"a\":1}".to_vec(), TYPE);
        let second = Fetched::new(b"{\"a\":2}".to_vec(), TYPE);
        for (document, tag) in [
            (&first, Some("1")),
            (&second, Some("2")),
            (&second, Some("1")),
        ] {
            layout.take_document(document).unwrap();
            layout.name(document, tag).unwrap();
        }
        assert_eq!(layout.manifest(Some("1")).unwrap(), second);
        assert_eq!(layout.manifest(Some("2")).unwrap(), second);
        assert!(matches!(
            layout.manifest(Some("3")),
            Err(LayoutError::NoTag { .. })
        ));
        assert!(matches!(
            layout.manifest(None),
            Err(LayoutError::Which { count: 2, .. })
        ));
        // Made again, it keeps what it has.
        let layout = Layout::create(dir.path().join("l")).unwrap();
        assert_eq!(layout.index().unwrap().manifests.len(), 2);
    }

    #[test]
    fn a_blob_appears_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::create(dir.path().to_owned()).unwrap();
        let digest = Digest::of(b"abc");
        let blob = Blob {
            media_type: String::new(),
            digest: digest.to_string(),
            size_bytes: 3,
        };
        let mut broken = (&b"ab"[..]).chain(Failing);
        assert!(layout.take(&digest, &mut broken).is_err());
        assert!(!layout.has(&blob, &digest));
        assert_eq!(
            fs::read_dir(dir.path().join("blobs/sha256"))
                .unwrap()
                .count(),
            0
        );
        layout.take(&digest, &mut &b"abc"[..]).unwrap();
        assert!(layout.has(&blob, &digest));
        let mut text = String::new();
        let mut tail = layout.open(&digest, 1).unwrap();
        tail.read_to_string(&mut text).unwrap();
        assert_eq!(text, "bc");
    }

    struct Failing;

    impl Read for Failing {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::ErrorKind::ConnectionReset.into())
        }
    }

    #[test]
    fn damaged_documents_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::create(dir.path().to_owned()).unwrap();
        let document = Fetched::new(b"{}".to_vec(), TYPE);
        layout.take_document(&document).unwrap();
        layout.name(&document, Some("a")).unwrap();
        fs::write(layout.blob_path(&document.digest), "{ }").unwrap();
        assert!(matches!(
            layout.manifest(Some("a")),
            Err(LayoutError::Damaged { .. })
        ));
        fs::write(dir.path().join("index.json"), "[").unwrap();
        assert!(matches!(
            layout.manifest(Some("a")),
            Err(LayoutError::Invalid { .. })
        ));
    }
}
