//! From a layout to an archive.

use super::{BLOBS, RepackError, blob_path, document, read_failed, write_failed};
use crate::compress::{Plain, Stream};
use crate::digest::{DiffId, Digest};
use crate::limits::Limits;
use crate::load::{Descriptor, LoadError, Manifest, image_config};
use crate::reference::Reference;
use crate::save::SaveError;
use crate::transport::{Transport, replace};
use hullbox_tar::{Entry, Kind, TarWriter};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::Path;

type Tar<'a> = TarWriter<BufWriter<&'a mut File>>;

/// Packs the layout in a directory, which holds one image or index, into an archive. It takes the place of
/// a file that was there when it is complete. For a docker-archive layers are decompressed, and compared
/// with the image's configuration.
///
/// # Errors
/// [`RepackError`].
pub fn pack(dir: &Path, to: &Transport, limits: &Limits) -> Result<(), RepackError> {
    match to {
        Transport::DockerArchive(file, name) => {
            let image = Image::read(dir, limits)?;
            archive(file, &mut |tar| {
                image.write(dir, name.as_ref(), tar, limits)
            })
        }
        Transport::Oci(file, _) | Transport::OciArchive(file, _) => {
            archive(file, &mut |tar| layout(dir, tar))
        }
    }
}

fn archive(
    path: &Path,
    write: &mut dyn FnMut(&mut Tar<'_>) -> Result<(), RepackError>,
) -> Result<(), RepackError> {
    // What goes wrong in between is not an error of saving alone.
    let mut failed = None;
    let replaced = replace(path, &mut |file| {
        let mut tar = TarWriter::new(BufWriter::with_capacity(256 * 1024, file));
        if let Err(error) = write(&mut tar) {
            failed = Some(error);
            return Err(SaveError::Write(io::ErrorKind::Other.into()));
        }
        let mut out = tar.finish().map_err(SaveError::Write)?;
        out.flush().map_err(SaveError::Write)
    });
    match failed {
        Some(error) => Err(error),
        None => Ok(replaced?),
    }
}

fn entry(tar: &mut Tar<'_>, name: &str, bytes: u64) -> Result<(), RepackError> {
    let entry = Entry {
        path: name.as_bytes().to_vec(),
        mode: 0o644,
        size: bytes,
        ..Entry::of(Kind::File)
    };
    Ok(tar.entry(&entry).map_err(SaveError::Write)?)
}

fn small(tar: &mut Tar<'_>, name: &str, bytes: &[u8]) -> Result<(), RepackError> {
    entry(tar, name, bytes.len() as u64)?;
    Ok(tar.write_all(bytes).map_err(SaveError::Write)?)
}

fn whole(tar: &mut Tar<'_>, name: &str, path: &Path) -> Result<(), RepackError> {
    let file = File::open(path).map_err(read_failed(path))?;
    let bytes = file.metadata().map_err(read_failed(path))?.len();
    entry(tar, name, bytes)?;
    io::copy(&mut file.take(bytes), tar).map_err(SaveError::Write)?;
    Ok(())
}

fn layout(dir: &Path, tar: &mut Tar<'_>) -> Result<(), RepackError> {
    whole(tar, "oci-layout", &dir.join("oci-layout"))?;
    let blobs = dir.join(BLOBS);
    let mut names = BTreeSet::new();
    for found in std::fs::read_dir(&blobs).map_err(read_failed(&blobs))? {
        let found = found.map_err(read_failed(&blobs))?;
        names.extend(found.file_name().into_string());
    }
    for name in names {
        whole(tar, &format!("{BLOBS}/{name}"), &blobs.join(&name))?;
    }
    // Last: without it there is no layout.
    whole(tar, "index.json", &dir.join("index.json"))
}

/// The image of a layout.
struct Image {
    config: Vec<u8>,
    layers: Vec<Descriptor>,
    diff_ids: Vec<DiffId>,
}

impl Image {
    fn read(dir: &Path, limits: &Limits) -> Result<Self, RepackError> {
        let json = |name: &str, bytes: &[u8]| {
            serde_json::from_slice(bytes).map_err(|error| LoadError::Json(name.to_owned(), error))
        };
        let bytes = document(&dir.join("index.json"), limits.max_json_bytes)?;
        let index: Value = json("index.json", &bytes)?;
        let digest = index["manifests"][0]["digest"].as_str().unwrap_or_default();
        let digest: Digest = digest
            .parse()
            .map_err(|_| LoadError::Missing("the manifest".to_owned()))?;
        let bytes = verified(dir, &digest, limits)?;
        let Manifest::Image { config, layers } = Manifest::parse("manifest", &bytes, None)? else {
            return Err(RepackError::Index);
        };
        let config = verified(dir, &config.digest, limits)?;
        let (_, diff_ids) = image_config("config", &config, limits)?;
        if diff_ids.len() != layers.len() {
            return Err(RepackError::Load(LoadError::Contradiction(
                "config".to_owned(),
                "it has another number of layers than the manifest",
            )));
        }
        Ok(Self {
            config,
            layers,
            diff_ids,
        })
    }

    /// As `docker save` writes it: `HEX.tar` a layer, `HEX.json` the configuration, and manifest.json.
    fn write(
        &self,
        dir: &Path,
        name: Option<&Reference>,
        tar: &mut Tar<'_>,
        limits: &Limits,
    ) -> Result<(), RepackError> {
        let mut written = BTreeSet::new();
        let mut names = Vec::new();
        for (layer, diff_id) in self.layers.iter().zip(&self.diff_ids) {
            let name = format!("{}.tar", diff_id.hex());
            if written.insert(*diff_id) {
                let plain = plain(dir, layer, diff_id, limits)?;
                whole(tar, &name, &plain)?;
                std::fs::remove_file(&plain).map_err(write_failed(&plain))?;
            }
            names.push(name);
        }
        let config = format!("{}.json", Digest::of(&self.config).hex());
        small(tar, &config, &self.config)?;
        let tags = name.map(|name| vec![name.familiar()]);
        let manifest = json!([{ "Config": config, "RepoTags": tags, "Layers": names }]);
        small(tar, "manifest.json", manifest.to_string().as_bytes())
    }
}

/// A small blob of a layout, which is what its name says.
fn verified(dir: &Path, digest: &Digest, limits: &Limits) -> Result<Vec<u8>, RepackError> {
    let bytes = document(&blob_path(dir, digest), limits.max_json_bytes)?;
    let found = Digest::of(&bytes);
    if found != *digest {
        return Err(RepackError::Load(LoadError::Digest {
            name: digest.to_string(),
            expected: *digest,
            found,
        }));
    }
    Ok(bytes)
}

/// The tar that a layer makes, in a file: an archive says how long it is before its bytes come.
fn plain(
    dir: &Path,
    layer: &Descriptor,
    diff_id: &DiffId,
    limits: &Limits,
) -> Result<std::path::PathBuf, RepackError> {
    let name = layer.digest.to_string();
    let path = blob_path(dir, &layer.digest);
    let file = File::open(&path).map_err(read_failed(&path))?;
    let failed = |error| RepackError::Load(LoadError::from_read(&name, error));
    let mut stream = Stream::new(file, true, limits.max_layer_bytes, limits).map_err(failed)?;
    let draft = dir.join("plain");
    let mut out = File::create(&draft).map_err(write_failed(&draft))?;
    io::copy(&mut stream, &mut out).map_err(failed)?;
    let found = stream.into_digests().map_err(failed)?;
    let found = found.map_or(layer.digest, |digests| digests.plain);
    if found != *diff_id.digest() {
        return Err(RepackError::Load(LoadError::DiffId {
            name,
            expected: *diff_id.digest(),
            found,
        }));
    }
    Ok(draft)
}
