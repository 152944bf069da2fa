//! Copies from and to archives: each is laid out as an OCI layout beside, and what is copied is that.

use super::copy::{self, Copied, Place, Which};
use super::error::TransferError;
use super::{Watch, blocking};
use hullbox_image::{LayerCompression, Limits, RepackError, Transport};
use hullbox_registry::Client;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// Where large files of a short life belong (file-hierarchy(7)): `/tmp` may be memory.
const LARGE_TEMPORARY: &str = "/var/tmp";

fn failed(archive: &Transport) -> impl FnOnce(RepackError) -> TransferError {
    let archive = archive.to_string();
    move |source| TransferError::Archive {
        archive,
        source: Box::new(source),
    }
}

/// A directory of our own, which goes with its value.
fn directory(beside: &Path) -> Result<TempDir, TransferError> {
    let made = tempfile::Builder::new()
        .prefix(".hullbox-copy-")
        .tempdir_in(beside);
    Ok(made?)
}

fn layout(dir: &TempDir, tag: Option<&str>) -> Place {
    Place::Layout {
        dir: dir.path().to_owned(),
        tag: tag.map(str::to_owned),
    }
}

/// Copies from and to places of any kind.
pub(super) async fn copy(
    client: &Client,
    source: &Place,
    destination: &Place,
    which: &Which,
    watch: &Watch,
) -> Result<Copied, TransferError> {
    let laid_out = match source {
        Place::Archive(from) => {
            // Registries are sent compressed layers, as by others.
            let compression = match destination {
                Place::Registry(_) => Some(LayerCompression::default()),
                Place::Layout { .. } | Place::Archive(_) => None,
            };
            Some(lay_out(from.clone(), compression).await?)
        }
        Place::Registry(_) | Place::Layout { .. } => None,
    };
    let shown = laid_out.as_ref().map(|_| source);
    let from = laid_out.as_ref().map(|(_, place)| place).unwrap_or(source);
    let Place::Archive(to) = destination else {
        return copy::copy(client, from, destination, which, shown, watch).await;
    };
    let parent = match to.path().parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let dir = directory(parent)?;
    let tag = match to {
        Transport::OciArchive(_, tag) => tag.as_deref(),
        _ => None,
    };
    let packed = layout(&dir, tag);
    let copied = copy::copy(client, from, &packed, which, shown, watch).await?;
    let to = to.clone();
    blocking(move || hullbox_image::pack(dir.path(), &to, &Limits::default()).map_err(failed(&to)))
        .await??;
    Ok(copied)
}

/// Lays an archive out, and gives the layout with the image that is meant.
async fn lay_out(
    from: Transport,
    compression: Option<LayerCompression>,
) -> Result<(TempDir, Place), TransferError> {
    let temporary = std::env::var_os("TMPDIR").filter(|dir| !dir.is_empty());
    let temporary = temporary.map_or_else(|| PathBuf::from(LARGE_TEMPORARY), PathBuf::from);
    let dir = directory(&temporary)?;
    let tag = match &from {
        Transport::OciArchive(_, tag) => tag.clone(),
        _ => None,
    };
    let place = layout(&dir, tag.as_deref());
    let dir = blocking(move || {
        let done = hullbox_image::lay_out(&from, dir.path(), compression, &Limits::default());
        done.map(|()| dir).map_err(failed(&from))
    });
    Ok((dir.await??, place))
}
