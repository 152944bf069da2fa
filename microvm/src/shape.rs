//! What every guest of a size has in common: what it boots, and the devices that a template of it
//! is saved with.

use crate::network::CARD;
use hullbox_artifacts::{self as artifacts, Artifact, ArtifactError};
use hullbox_backend::bundle::GuestSize;
use hullbox_protocol::{AgentEnv, FILES_TAG};
use hullbox_vmm::{
    ConfigError, DiskConfig, FilesConfig, MemorySize, VcpuCount, VmConfig, VmShape, VsockConfig,
};
use std::path::{Path, PathBuf};

/// Every guest's context id: each VM has its own vsock, so they need not differ.
pub(crate) const GUEST_CID: u32 = 3;

/// Why it cannot be told what a guest boots.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ShapeError {
    /// Kernel or initramfs.
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
    /// Number of CPUs or size of memory.
    #[error("cannot configure the virtual machine")]
    Config(#[from] ConfigError),
}

/// What a guest of this size boots.
pub(crate) fn shape(size: GuestSize, data: &Path) -> Result<VmShape, ShapeError> {
    Ok(VmShape {
        vcpus: VcpuCount::new(size.vcpus)?,
        memory: MemorySize::from_mib(size.memory_mib)?,
        kernel: artifacts::path(Artifact::Kernel, data)?,
        initramfs: Some(artifacts::path(Artifact::Initramfs, data)?),
    })
}

/// Kernel parameters of a guest whose messages nobody reads.
pub(crate) const QUIET: &str = "quiet";

/// Kernel parameters of a template's guest.
pub(crate) fn template_cmdline() -> String {
    format!("{QUIET} {}=1", AgentEnv::TEMPLATE)
}

/// The VM that a template of this size is saved from: the devices that every guest has, with
/// nothing behind them.
pub(crate) fn template_config(size: GuestSize, data: &Path) -> Result<VmConfig, ShapeError> {
    let mut config = VmConfig::of(shape(size, data)?);
    config.cmdline = template_cmdline();
    config.disks = arranged(None, None, true);
    let volumes = (0..size.disks).map(|_| empty(false));
    config.disks.extend(volumes);
    config.vsock = Some(VsockConfig {
        guest_cid: GUEST_CID,
        uds_path: PathBuf::new(),
    });
    config.net = Some(CARD);
    config.files = Some(files());
    config.template = true;
    Ok(config)
}

/// A disk with nothing behind it.
const fn empty(read_only: bool) -> DiskConfig {
    DiskConfig {
        files: Vec::new(),
        read_only,
    }
}

/// The device for files from outside, which every guest has.
pub(crate) fn files() -> FilesConfig {
    FilesConfig {
        tag: FILES_TAG.to_owned(),
    }
}

/// A guest's disks: those that there are, or both, whether there is something behind them or not,
/// as templates have them.
pub(crate) fn arranged(
    layers: Option<DiskConfig>,
    writable: Option<DiskConfig>,
    both: bool,
) -> Vec<DiskConfig> {
    [(layers, true), (writable, false)]
        .into_iter()
        .filter_map(|(disk, read_only)| disk.or_else(|| both.then(|| empty(read_only))))
        .collect()
}
