//! The microVM backend: from a bundle to a running guest.

mod disk;
pub(crate) mod ext4;

use crate::artifacts::{self, Artifact, ArtifactError};
use crate::bundle::Bundle;
use crate::monitor::control::VmUsage;
use crate::monitor::{Backend, Link};
use crate::plan::GuestSize;
use crate::timing::Timing;
use hullbox_protocol::{CONTROL_PORT, LayerDisk, WritableLayer};
use hullbox_vmm::{
    ConfigError, DISK_FILE_ALIGN, DiskConfig, Foundation, MemorySize, Outcome, SerialConfig,
    VcpuCount, Vm, VmConfig, VmError, VmHandle, VmShape, VsockConfig,
};
use rustix::event::{EventfdFlags, eventfd};
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

/// Every guest's context id: each VM has its own vsock, so they need not differ.
const GUEST_CID: u32 = 3;

/// Why a guest cannot be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GuestError {
    /// Kernel, initramfs or empty disk.
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
    /// A layer's file.
    #[error("cannot use the layer {}", path.display())]
    Layer {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The container's own disk.
    #[error("cannot make the container's disk {}", path.display())]
    Disk {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The socket that the guest dials.
    #[error("cannot listen on {}", path.display())]
    Listen {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Number of CPUs or size of memory.
    #[error("cannot configure the virtual machine")]
    Config(#[from] ConfigError),
    /// The VMM.
    #[error("cannot start the virtual machine")]
    Vmm(#[from] VmError),
    /// A descriptor or a thread.
    #[error("cannot watch over the virtual machine")]
    Watch(#[source] io::Error),
}

/// A guest that boots or runs.
#[derive(Debug)]
pub(crate) struct Guest {
    handle: VmHandle,
    /// Waits for the VM and then writes to `ended`.
    waiter: JoinHandle<Outcome>,
    ended: OwnedFd,
    listener: Option<UnixListener>,
}

impl Guest {
    /// Boots a guest for the bundle and fills in where the layers lie on its disk.
    pub(crate) fn start(
        bundle: &mut Bundle,
        data: &Path,
        ahead: Option<Foundation>,
        debug: bool,
        timing: Timing,
    ) -> Result<Self, GuestError> {
        let mut disks = Vec::new();
        let (layers, ranges) = layer_disk(&bundle.layers)?;
        bundle.setup.rootfs.layers = ranges;
        disks.extend(layers);
        if bundle.setup.rootfs.writable == WritableLayer::Disk {
            disks.push(writable_disk(bundle, data)?);
        }
        let uds_path = bundle.runtime_dir.join("vsock");
        let listener = listen(&uds_path)?;
        let size = GuestSize {
            vcpus: bundle.vcpus,
            memory_mib: bundle.memory_mib,
        };
        let mut config = VmConfig::of(shape(size, data)?);
        config.disks = disks;
        config.vsock = Some(VsockConfig {
            guest_cid: GUEST_CID,
            uds_path,
        });
        config.serial = match (&bundle.serial_log, debug) {
            (Some(path), _) => SerialConfig::file(path),
            (None, true) => SerialConfig::Stderr,
            (None, false) => SerialConfig::Off,
        };
        if config.serial == SerialConfig::Off {
            "quiet".clone_into(&mut config.cmdline);
        }
        timing.mark("vm files ready");
        let vm = match ahead {
            Some(foundation) => Vm::on(foundation, config)?,
            None => Vm::new(config)?,
        };
        timing.mark("vm built");
        let running = vm.start()?;
        timing.mark("vm started");
        let ended =
            eventfd(0, EventfdFlags::CLOEXEC).map_err(|error| GuestError::Watch(error.into()))?;
        let signal = ended.try_clone().map_err(GuestError::Watch)?;
        let handle = running.handle();
        let waiter = std::thread::Builder::new()
            .name("vm-wait".into())
            .spawn(move || {
                let outcome = running.wait();
                // An eventfd takes a first 1 without fail.
                let _ = rustix::io::write(&signal, &1u64.to_ne_bytes());
                outcome
            })
            .map_err(GuestError::Watch)?;
        Ok(Self {
            handle,
            waiter,
            ended,
            listener: Some(listener),
        })
    }
}

impl Backend for Guest {
    fn link(&mut self) -> io::Result<Link> {
        self.listener
            .take()
            .map(Link::Awaited)
            .ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected))
    }

    fn ended(&self) -> BorrowedFd<'_> {
        self.ended.as_fd()
    }

    fn kill(&mut self) {
        self.handle.stop();
    }

    fn usage(&self) -> Option<VmUsage> {
        let rollup = fs::read_to_string("/proc/self/smaps_rollup").unwrap_or_default();
        let bytes = |names: &[&str]| {
            let lines = rollup.lines().filter_map(|line| line.split_once(':'));
            let wanted = lines.filter(|(name, _)| names.contains(name));
            let kib = wanted.map(|(_, value)| value.trim().trim_end_matches(" kB").parse::<u64>());
            kib.flatten().sum::<u64>() * 1024
        };
        let events = self.handle.events();
        Some(VmUsage {
            events: events.map(|(name, count)| (name.to_owned(), count)).into(),
            host_private_bytes: bytes(&["Private_Clean", "Private_Dirty"]),
            host_resident_bytes: bytes(&["Rss"]),
        })
    }

    fn release(self: Box<Self>, orderly: bool) -> String {
        // A guest has nothing to finish: what must be on its disk was synced before it said so.
        self.handle.stop();
        if orderly {
            // Nobody asks how it ended, and nobody waits while its memory is given back.
            return String::new();
        }
        match self.waiter.join() {
            // Asked to stop while it ran: then its agent had gone silent.
            Ok(Outcome::Stopped) => "the guest's agent broke off".to_owned(),
            Ok(outcome) => format!("the virtual machine {outcome}"),
            Err(_) => "the virtual machine's thread panicked".to_owned(),
        }
    }
}

/// What of a guest can be made before it is known what runs in it.
///
/// # Errors
/// As [`Guest::start`], which meets the same again.
pub(crate) fn prepare(size: GuestSize, data: &Path) -> Result<Foundation, GuestError> {
    Ok(Foundation::new(shape(size, data)?)?)
}

fn shape(size: GuestSize, data: &Path) -> Result<VmShape, GuestError> {
    Ok(VmShape {
        vcpus: VcpuCount::new(size.vcpus)?,
        memory: MemorySize::from_mib(size.memory_mib)?,
        kernel: artifacts::path(Artifact::Kernel, data)?,
        initramfs: Some(artifacts::path(Artifact::Initramfs, data)?),
    })
}

/// All layers behind one disk, and the range of each.
fn layer_disk(layers: &[PathBuf]) -> Result<(Option<DiskConfig>, Vec<LayerDisk>), GuestError> {
    let mut offset_bytes = 0;
    let mut ranges = Vec::with_capacity(layers.len());
    for path in layers {
        let length_bytes = fs::metadata(path)
            .map_err(|source| GuestError::Layer {
                path: path.clone(),
                source,
            })?
            .len();
        ranges.push(LayerDisk {
            offset_bytes,
            length_bytes: length_bytes.next_multiple_of(512),
        });
        offset_bytes += length_bytes.next_multiple_of(DISK_FILE_ALIGN);
    }
    let disk = (!layers.is_empty()).then(|| DiskConfig {
        files: layers.to_vec(),
        read_only: true,
    });
    Ok((disk, ranges))
}

/// The container's own disk: kept from an earlier run, or a fresh clone of the empty one.
fn writable_disk(bundle: &Bundle, data: &Path) -> Result<DiskConfig, GuestError> {
    let path = bundle.dir.join("disk.ext4");
    let disk = |source| GuestError::Disk {
        path: path.clone(),
        source,
    };
    if !path.try_exists().map_err(disk)? {
        let empty = artifacts::path(Artifact::EmptyDisk, data)?;
        disk::make(&empty, &path, bundle.disk_bytes).map_err(disk)?;
    }
    Ok(DiskConfig {
        files: vec![path],
        read_only: false,
    })
}

/// Listens where the VMM connects when the guest dials [`CONTROL_PORT`].
fn listen(uds_path: &Path) -> Result<UnixListener, GuestError> {
    let mut path = uds_path.as_os_str().to_owned();
    path.push(format!("_{CONTROL_PORT}"));
    let path = PathBuf::from(path);
    // Left by an earlier run of the same container.
    for old in [uds_path, &path] {
        match fs::remove_file(old) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                let path = old.to_owned();
                return Err(GuestError::Listen { path, source });
            }
            _ => {}
        }
    }
    UnixListener::bind(&path).map_err(|source| GuestError::Listen { path, source })
}
