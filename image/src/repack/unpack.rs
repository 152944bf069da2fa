//! From an archive to a layout.

use super::{BLOBS, CONFIG, Hashed, INDEX, MANIFEST, RepackError};
use super::{blob_path, document, read_failed, write_failed};
use crate::compress::{Compression, Stream};
use crate::digest::{DiffId, Digest};
use crate::limits::Limits;
use crate::load::{DockerImage, LoadError, bad_entry, image_config, normal};
use crate::push::{LayerCompression, Packer};
use crate::reference::Reference;
use crate::transport::Transport;
use hullbox_tar::{BLOCK, Kind, TarReader};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

/// Links behind one name.
const MAX_LINKS: usize = 16;
/// The annotation that names an entry of a layout's index.
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// Lays an archive out as an OCI layout in an empty directory. Of a docker-archive the one image that is
/// named, or the only one: its manifest is made here, and its layers are compressed if `compression` says
/// so. An OCI layout in a tar is what it is.
///
/// # Errors
/// [`RepackError`]. The directory is then of no use.
pub fn lay_out(
    from: &Transport,
    dir: &Path,
    compression: Option<LayerCompression>,
    limits: &Limits,
) -> Result<(), RepackError> {
    let blobs = dir.join(BLOBS);
    std::fs::create_dir_all(&blobs).map_err(write_failed(&blobs))?;
    let file = File::open(from.path()).map_err(read_failed(from.path()))?;
    let stream = Stream::new(file, false, limits.max_total_layer_bytes, limits);
    let stream = stream.map_err(|error| LoadError::from_read("the archive", error))?;
    let mut tar = TarReader::new(stream, limits.max_header_bytes);
    match from {
        Transport::DockerArchive(_, name) => {
            let files = Files::read(&mut tar, dir, limits)?;
            let image = files.choose(dir, name.as_ref(), limits)?;
            files.manifest(dir, &image, compression, limits)
        }
        Transport::Oci(..) | Transport::OciArchive(..) => {
            unpack_layout(&mut tar, dir, limits)?;
            find_tag(dir, from, limits)
        }
    }
}

/// The next file or link of an archive: its kind, its name and its link's target.
fn next<R: BufRead>(
    tar: &mut TarReader<R>,
    limits: &Limits,
) -> Result<Option<(Kind, String, String)>, RepackError> {
    let Some(entry) = tar.next_entry().map_err(LoadError::from_archive)? else {
        return Ok(None);
    };
    if tar.entries() > limits.max_archive_entries {
        return Err(RepackError::Load(LoadError::TooMany {
            what: "entries",
            limit: limits.max_archive_entries,
        }));
    }
    let text = String::from_utf8_lossy(&entry.path).into_owned();
    let name = normal(&text, "").ok_or_else(|| bad_entry(&text, "has a bad name"))?;
    if entry.sparse.is_some() {
        return Err(bad_entry(&name, "is sparse").into());
    }
    let parent = name.rsplit_once('/').map_or("", |(parent, _)| parent);
    let parent = if entry.kind == Kind::Symlink {
        parent
    } else {
        ""
    };
    let link = normal(&String::from_utf8_lossy(&entry.link), parent).unwrap_or_default();
    Ok(Some((entry.kind, name, link)))
}

/// Copies the data of the entry that a tar is at.
fn copy_data<R: BufRead>(
    tar: &mut TarReader<R>,
    out: &mut dyn Write,
    path: &Path,
) -> Result<Vec<u8>, RepackError> {
    let mut start = Vec::new();
    loop {
        let data = tar.fill_data().map_err(LoadError::from_archive)?;
        let len = data.len();
        if len == 0 {
            return Ok(start);
        }
        let wanted = BLOCK.saturating_sub(start.len()).min(len);
        start.extend_from_slice(&data[..wanted]);
        out.write_all(data).map_err(write_failed(path))?;
        tar.consume_data(len);
    }
}

fn create(path: &Path) -> Result<BufWriter<File>, RepackError> {
    let file = OpenOptions::new().write(true).create_new(true).open(path);
    let file = file.map_err(write_failed(path))?;
    Ok(BufWriter::with_capacity(128 * 1024, file))
}

fn unpack_layout<R: BufRead>(
    tar: &mut TarReader<R>,
    dir: &Path,
    limits: &Limits,
) -> Result<(), RepackError> {
    while let Some((kind, name, _)) = next(tar, limits)? {
        let is_blob = name
            .strip_prefix(BLOBS)
            .and_then(|rest| rest.strip_prefix('/'))
            .is_some_and(|hex| Digest::from_hex(hex).is_some());
        let is_wanted = is_blob || ["oci-layout", "index.json"].contains(&&name[..]);
        if kind != Kind::File || !is_wanted {
            continue;
        }
        let path = dir.join(&name);
        if path.exists() {
            return Err(bad_entry(&name, "appears twice").into());
        }
        let mut file = create(&path)?;
        copy_data(tar, &mut file, &path)?;
        file.flush().map_err(write_failed(&path))?;
    }
    Ok(())
}

/// Whether the image that is meant is in a layout.
fn find_tag(dir: &Path, from: &Transport, limits: &Limits) -> Result<(), RepackError> {
    let path = dir.join("index.json");
    if !path.is_file() {
        return Err(LoadError::Missing("index.json".to_owned()).into());
    }
    let bytes = document(&path, limits.max_json_bytes)?;
    let index: Value = serde_json::from_slice(&bytes)
        .map_err(|error| LoadError::Json("index.json".to_owned(), error))?;
    let entries = index["manifests"].as_array().map_or(&[][..], Vec::as_slice);
    match from {
        Transport::OciArchive(_, Some(tag)) => {
            let is_it = |entry: &Value| {
                entry["annotations"][REF_NAME] == tag[..] || entry["digest"] == tag[..]
            };
            if !entries.iter().any(is_it) {
                return Err(LoadError::NotInside(tag.clone()).into());
            }
            Ok(())
        }
        _ if entries.len() == 1 => Ok(()),
        _ => Err(RepackError::Which(entries.len())),
    }
}

/// A file of a docker-archive, which is in the layout under its digest.
#[derive(Clone)]
struct Part {
    digest: Digest,
    bytes: u64,
    compression: Compression,
}

/// A layer as a manifest has it.
struct Layer {
    part: Part,
    media_type: &'static str,
}

/// The files of a docker-archive.
#[derive(Default)]
struct Files {
    parts: HashMap<String, Part>,
    links: HashMap<String, String>,
}

impl Files {
    fn read<R: BufRead>(
        tar: &mut TarReader<R>,
        dir: &Path,
        limits: &Limits,
    ) -> Result<Self, RepackError> {
        let mut files = Self::default();
        while let Some((kind, name, link)) = next(tar, limits)? {
            let is_new = match kind {
                Kind::File => {
                    let part = take(dir, &mut |out, path| copy_data(tar, out, path))?;
                    files.parts.insert(name.clone(), part).is_none()
                        && !files.links.contains_key(&name)
                }
                Kind::HardLink | Kind::Symlink => {
                    files.links.insert(name.clone(), link).is_none()
                        && !files.parts.contains_key(&name)
                }
                Kind::Dir | Kind::Char | Kind::Block | Kind::Fifo => true,
            };
            // Two files of one name would let two readers see two images.
            if !is_new {
                return Err(bad_entry(&name, "appears twice").into());
            }
        }
        Ok(files)
    }

    fn find(&self, name: &str) -> Result<&Part, RepackError> {
        let missing = || RepackError::Load(LoadError::Missing(name.to_owned()));
        let mut at = normal(name, "").ok_or_else(missing)?;
        for _ in 0..MAX_LINKS {
            match self.links.get(&at) {
                Some(target) => at.clone_from(target),
                None => return self.parts.get(&at).ok_or_else(missing),
            }
        }
        Err(missing())
    }

    fn small(&self, dir: &Path, name: &str, limits: &Limits) -> Result<Vec<u8>, RepackError> {
        let part = self.find(name)?;
        document(&blob_path(dir, &part.digest), limits.max_json_bytes)
    }

    /// The image that is meant.
    fn choose(
        &self,
        dir: &Path,
        name: Option<&Reference>,
        limits: &Limits,
    ) -> Result<DockerImage, RepackError> {
        let bytes = self.small(dir, "manifest.json", limits)?;
        let mut images: Vec<DockerImage> = serde_json::from_slice(&bytes)
            .map_err(|error| LoadError::Json("manifest.json".to_owned(), error))?;
        let Some(name) = name else {
            let count = images.len();
            let only = images.pop().filter(|_| count == 1);
            return only.ok_or(RepackError::Which(count));
        };
        let is_it = |image: &DockerImage| {
            let tags = image.repo_tags.iter().flatten();
            tags.filter_map(|tag| Reference::parse(tag).ok())
                .any(|tag| tag == *name)
        };
        let found = images.into_iter().find(is_it);
        Ok(found.ok_or_else(|| LoadError::NotInside(name.familiar()))?)
    }

    /// Makes the image's manifest and the layout's index.
    fn manifest(
        &self,
        dir: &Path,
        image: &DockerImage,
        compression: Option<LayerCompression>,
        limits: &Limits,
    ) -> Result<(), RepackError> {
        let config = self.small(dir, &image.config, limits)?;
        let (_, diff_ids) = image_config(&image.config, &config, limits)?;
        let names = image.layers.as_deref().unwrap_or_default();
        if names.len() != diff_ids.len() {
            return Err(RepackError::Load(LoadError::Contradiction(
                image.config.clone(),
                "it has another number of layers than the manifest",
            )));
        }
        let mut layers = Vec::new();
        for (name, diff_id) in names.iter().zip(&diff_ids) {
            let part = self.find(name)?;
            let layer = layer(dir, name, part, diff_id, compression, limits)?;
            layers.push(json!({
                "mediaType": layer.media_type,
                "digest": layer.part.digest,
                "size": layer.part.bytes,
            }));
        }
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {
                "mediaType": CONFIG,
                "digest": Digest::of(&config),
                "size": config.len(),
            },
            "layers": layers,
        });
        let manifest = manifest.to_string().into_bytes();
        let digest = Digest::of(&manifest);
        let index = json!({
            "schemaVersion": 2,
            "mediaType": INDEX,
            "manifests": [{ "mediaType": MANIFEST, "digest": digest, "size": manifest.len() }],
        });
        for (path, bytes) in [
            (blob_path(dir, &digest), &manifest[..]),
            (dir.join("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#),
            (dir.join("index.json"), index.to_string().as_bytes()),
        ] {
            std::fs::write(&path, bytes).map_err(write_failed(&path))?;
        }
        Ok(())
    }
}

/// Writes a blob's bytes, and gives the first of them; the path is for errors.
type WriteBlob<'a> = dyn FnMut(&mut dyn Write, &Path) -> Result<Vec<u8>, RepackError> + 'a;

/// Writes a blob of a layout, which gets its digest for a name.
fn take(dir: &Path, write: &mut WriteBlob<'_>) -> Result<Part, RepackError> {
    let draft: PathBuf = dir.join("draft");
    let mut out = Hashed::new(create(&draft)?);
    let start = write(&mut out, &draft)?;
    out.flush().map_err(write_failed(&draft))?;
    let (digest, bytes) = out.finish();
    let path = blob_path(dir, &digest);
    std::fs::rename(&draft, &path).map_err(write_failed(&path))?;
    Ok(Part {
        digest,
        bytes,
        compression: Compression::of(&start),
    })
}

/// A layer in the form that it is to have. One that is no tar by its digest is refused; what a compressed
/// one makes is for whoever unpacks it to compare.
fn layer(
    dir: &Path,
    name: &str,
    part: &Part,
    diff_id: &DiffId,
    compression: Option<LayerCompression>,
    limits: &Limits,
) -> Result<Layer, RepackError> {
    let known = |media_type: LayerCompression| Layer {
        part: part.clone(),
        media_type: media_type.media_type(),
    };
    match part.compression {
        Compression::Gzip => return Ok(known(LayerCompression::default())),
        Compression::Zstd => return Ok(known(LayerCompression::Zstd(3))),
        Compression::None | Compression::Unsupported(_) => {}
    }
    if part.digest != *diff_id.digest() {
        return Err(RepackError::Load(LoadError::DiffId {
            name: name.to_owned(),
            expected: *diff_id.digest(),
            found: part.digest,
        }));
    }
    let Some(compression) = compression else {
        return Ok(known(LayerCompression::None));
    };
    let path = blob_path(dir, &part.digest);
    let mut plain = File::open(&path)
        .map_err(read_failed(&path))?
        .take(limits.max_layer_bytes);
    let packed = take(dir, &mut |out, draft| {
        let pack = || -> io::Result<()> {
            let mut packer = Packer::new(compression, out)?;
            io::copy(&mut plain, &mut packer)?;
            packer.finish().map(drop)
        };
        pack().map_err(write_failed(draft))?;
        Ok(Vec::new())
    })?;
    Ok(Layer {
        part: packed,
        media_type: compression.media_type(),
    })
}
