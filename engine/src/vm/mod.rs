//! The microVM backend: from a bundle to a running guest.

mod disk;
pub(crate) mod ext4;
mod tasks;

pub(crate) use disk::clone_sparse as copy_disk;

use crate::artifacts::{self, Artifact, ArtifactError};
use crate::bundle::Bundle;
use crate::monitor::control::VmUsage;
use crate::monitor::{Backend, Link};
use crate::paths::DISK_FILE;
use crate::plan::GuestSize;
use crate::snapshots::{self, About, SnapshotsError, Work};
use crate::templates;
use crate::timing::Timing;
use hullbox_protocol::{AgentEnv, CONTROL_PORT, ENTROPY_BYTES, LayerDisk, Setup, WritableLayer};
use hullbox_vmm::{
    ConfigError, DISK_FILE_ALIGN, DiskConfig, Foundation, MemorySize, Outcome, RunningVm,
    SerialConfig, VcpuCount, Vm, VmConfig, VmError, VmHandle, VmShape, VsockConfig,
};
use rustix::event::{EventfdFlags, eventfd};
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::{SystemTime, UNIX_EPOCH};
use tasks::Tasks;

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
    /// The snapshot that it was to go on from.
    #[error("cannot use the snapshot")]
    Snapshot(#[source] Box<SnapshotsError>),
    /// The host has no random numbers.
    #[error("cannot get random numbers from the host")]
    Random(#[source] io::Error),
}

/// A guest that boots or runs.
#[derive(Debug)]
pub(crate) struct Guest {
    handle: VmHandle,
    /// Waits for the VM and then writes to `ended`; meanwhile does what it is told with the VM.
    waiter: JoinHandle<Outcome>,
    tasks: Tasks,
    ended: OwnedFd,
    /// What a copy of it needs to know.
    saved: Saved,
    listener: Option<UnixListener>,
    warning: Option<String>,
}

/// What is saved with a guest.
#[derive(Debug)]
struct Saved {
    data: PathBuf,
    disk: Option<PathBuf>,
    both_disks: bool,
    /// Nobody reads its serial port.
    silent: bool,
}

/// What was prepared for a guest before it was known what runs in it.
#[derive(Debug, Default)]
pub(crate) struct Ahead {
    foundation: Option<Foundation>,
    /// It goes on from a snapshot, or from nowhere.
    revived: Option<Result<Revived, SnapshotsError>>,
    /// What the user should hear about it.
    warning: Option<String>,
}

/// A guest that goes on from a snapshot.
#[derive(Debug)]
struct Revived {
    dir: PathBuf,
    both_disks: bool,
    foundation: Foundation,
}

impl Ahead {
    /// There was a template, and it could not be used.
    pub(crate) const fn found_useless_template(&self) -> bool {
        self.warning.is_some()
    }

    /// There was no template, or none that can be used.
    pub(crate) fn found_no_template(&self) -> bool {
        !self
            .foundation
            .as_ref()
            .is_some_and(Foundation::is_restored)
    }
}

impl Guest {
    /// Starts a guest for the bundle and fills in where the layers lie on its disk, and what makes
    /// it differ from any other that began as the same copy.
    pub(crate) fn start(
        bundle: &mut Bundle,
        data: &Path,
        ahead: Ahead,
        debug: bool,
        timing: Timing,
    ) -> Result<Self, GuestError> {
        let (layers, ranges) = layer_disk(&bundle.layers)?;
        bundle.setup.rootfs.layers = ranges;
        let Ahead {
            foundation,
            revived,
            warning,
        } = ahead;
        let revived = revived
            .transpose()
            .map_err(|error| GuestError::Snapshot(Box::new(error)))?;
        let origin = revived.as_ref().map(|revived| revived.dir.as_path());
        let writable = match bundle.setup.rootfs.writable {
            WritableLayer::Disk => Some(writable_disk(bundle, data, origin)?),
            WritableLayer::Memory => None,
        };
        let mut saved = Saved {
            data: data.to_owned(),
            disk: writable.as_ref().map(|_| bundle.dir.join(DISK_FILE)),
            both_disks: false,
            silent: bundle.serial_log.is_none() && !debug,
        };
        bundle.setup.entropy = random::<ENTROPY_BYTES>()?.to_vec();
        let uds_path = bundle.runtime_dir.join("vsock");
        let listener = listen(&uds_path)?;
        let size = GuestSize {
            vcpus: bundle.vcpus,
            memory_mib: bundle.memory_mib,
        };
        let mut config = VmConfig::of(shape(size, data)?);
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
            QUIET.clone_into(&mut config.cmdline);
        }
        timing.mark("vm files ready");
        let disks = (layers, writable);
        let (running, warning) = match revived {
            Some(revived) => {
                saved.both_disks = revived.both_disks;
                config.disks = arranged(disks, revived.both_disks);
                let running = resume(&mut bundle.setup, revived.foundation, config, timing)?;
                (running, warning)
            }
            None => {
                let ahead = (foundation, warning);
                let launched = launch(&mut bundle.setup, config, disks, ahead, timing)?;
                saved.both_disks = launched.both_disks;
                (launched.running, launched.warning)
            }
        };
        timing.mark("vm started");
        let ended =
            eventfd(0, EventfdFlags::CLOEXEC).map_err(|error| GuestError::Watch(error.into()))?;
        let signal = ended.try_clone().map_err(GuestError::Watch)?;
        let handle = running.handle();
        let (tasks, inbox) = Tasks::new().map_err(GuestError::Watch)?;
        let waiter = std::thread::Builder::new()
            .name("vm-wait".into())
            .spawn(move || {
                let outcome = inbox.wait(running);
                // An eventfd takes a first 1 without fail.
                let _ = rustix::io::write(&signal, &1u64.to_ne_bytes());
                outcome
            })
            .map_err(GuestError::Watch)?;
        Ok(Self {
            handle,
            waiter,
            tasks,
            ended,
            saved,
            listener: Some(listener),
            warning,
        })
    }
}

/// The layers' disk and the writable one.
type Disks = (Option<DiskConfig>, Option<DiskConfig>);

/// A guest that was started.
struct Launched {
    running: RunningVm,
    /// What the user should hear.
    warning: Option<String>,
    /// It has both disks, whether there is something behind them or not.
    both_disks: bool,
}

/// Has the guest go on where its template was saved, or boots it; and what the user should hear.
fn launch(
    setup: &mut Setup,
    mut config: VmConfig,
    disks: Disks,
    (mut foundation, mut warning): (Option<Foundation>, Option<String>),
    timing: Timing,
) -> Result<Launched, GuestError> {
    // A template's guest says nothing on a serial port.
    let silent = config.serial == SerialConfig::Off;
    let restored = foundation.take_if(|foundation| foundation.is_restored());
    if let Some(foundation) = restored.filter(|_| silent) {
        let mut config = config.clone();
        config.disks = arranged(disks.clone(), true);
        match resume(setup, foundation, config, timing) {
            Ok(running) => {
                return Ok(Launched {
                    running,
                    warning,
                    both_disks: true,
                });
            }
            Err(error) => warning = Some(cold_because(&error)),
        }
    }
    config.disks = arranged(disks, false);
    let vm = match foundation {
        Some(foundation) => Vm::on(foundation, config)?,
        None => Vm::new(config)?,
    };
    timing.mark("vm built");
    Ok(Launched {
        running: vm.start()?,
        warning,
        both_disks: false,
    })
}

/// Has a restored guest go on, as one that differs from all others.
fn resume(
    setup: &mut Setup,
    foundation: Foundation,
    config: VmConfig,
    timing: Timing,
) -> Result<RunningVm, GuestError> {
    let boot_id = boot_id(random()?);
    let vm = Vm::on(foundation, config)?;
    timing.mark("vm built");
    let now = wall_clock_ns();
    let running = vm.start()?;
    setup.boot_id = boot_id;
    setup.resumed = true;
    setup.wall_clock_ns = now;
    Ok(running)
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

    fn warning(&mut self) -> Option<String> {
        self.warning.take()
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

    fn save(&mut self, dir: &Path, about: About) -> Result<(), String> {
        if !self.saved.silent {
            return Err("a guest whose serial port is read cannot be saved".to_owned());
        }
        let work = Work {
            dir: dir.to_owned(),
            data: self.saved.data.clone(),
            disk: self.saved.disk.clone(),
            about: About {
                both_disks: self.saved.both_disks,
                ..about
            },
        };
        match self.tasks.run(move |running| work.save(running)) {
            Some(saved) => saved.map_err(|error| crate::monitor::chain(&error)),
            None => Err("the virtual machine has ended".to_owned()),
        }
    }

    fn release(self: Box<Self>, orderly: bool) -> String {
        if orderly {
            self.handle.teach();
        }
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

/// What of a guest can be made before it is known what runs in it: one that begins at a template,
/// if it may and there is one, or what of one that boots does not depend on its disks.
pub(crate) fn prepare(size: GuestSize, data: &Path, policy: templates::Policy) -> Ahead {
    let mut ahead = Ahead::default();
    if policy == templates::Policy::Auto {
        match templates::restore(size, data) {
            Ok(foundation) => ahead.foundation = foundation,
            Err(error) => ahead.warning = Some(cold_because(&error)),
        }
    }
    if ahead.foundation.is_none() {
        // Whatever goes wrong here goes wrong once more, and is told, when the guest is to start.
        let foundation = shape(size, data).map(Foundation::new);
        ahead.foundation = foundation.ok().and_then(Result::ok);
    }
    ahead
}

/// The same of a guest that goes on from a snapshot.
pub(crate) fn revive(dir: &Path, data: &Path) -> Ahead {
    let revived = snapshots::restore(dir, data).map(|(about, foundation)| Revived {
        dir: dir.to_owned(),
        both_disks: about.both_disks,
        foundation,
    });
    Ahead {
        revived: Some(revived),
        ..Ahead::default()
    }
}

/// What the user hears when a template was no use.
fn cold_because(error: &dyn std::error::Error) -> String {
    format!(
        "the template cannot be used, so the guest boots: {}",
        crate::monitor::chain(error)
    )
}

/// Kernel parameters of a guest whose messages nobody reads.
const QUIET: &str = "quiet";

/// Kernel parameters of a template's guest.
pub(crate) fn template_cmdline() -> String {
    format!("{QUIET} {}=1", AgentEnv::TEMPLATE)
}

/// The VM that a template of this size is saved from: the devices that every guest has, with
/// nothing behind them.
pub(crate) fn template_config(size: GuestSize, data: &Path) -> Result<VmConfig, GuestError> {
    let mut config = VmConfig::of(shape(size, data)?);
    config.cmdline = template_cmdline();
    config.disks = arranged((None, None), true);
    config.vsock = Some(VsockConfig {
        guest_cid: GUEST_CID,
        uds_path: PathBuf::new(),
    });
    config.template = true;
    Ok(config)
}

/// A guest's disks: those that there are, or both, whether there is something behind them or not,
/// as templates have them.
fn arranged((layers, writable): Disks, both: bool) -> Vec<DiskConfig> {
    let empty = |read_only| DiskConfig {
        files: Vec::new(),
        read_only,
    };
    [(layers, true), (writable, false)]
        .into_iter()
        .filter_map(|(disk, read_only)| disk.or_else(|| both.then(|| empty(read_only))))
        .collect()
}

/// Nanoseconds since 1970.
pub(crate) fn wall_clock_ns() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|now| u64::try_from(now.as_nanos()).ok())
        .unwrap_or(0)
}

/// Random bytes of the host.
fn random<const LEN: usize>() -> Result<[u8; LEN], GuestError> {
    let mut bytes = [0; LEN];
    let mut filled = 0;
    while filled < LEN {
        let flags = rustix::rand::GetRandomFlags::empty();
        filled += rustix::rand::getrandom(&mut bytes[filled..], flags)
            .map_err(|errno| GuestError::Random(errno.into()))?;
    }
    Ok(bytes)
}

/// A random UUID (RFC 9562, section 5.4), as the kernel prints its boot's.
fn boot_id(mut bytes: [u8; 16]) -> String {
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let mut text = String::with_capacity(36);
    for (index, byte) in bytes.iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

pub(crate) fn shape(size: GuestSize, data: &Path) -> Result<VmShape, GuestError> {
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

/// The container's own disk: kept from an earlier run, or a fresh clone of a snapshot's or of the
/// empty one.
fn writable_disk(
    bundle: &Bundle,
    data: &Path,
    snapshot: Option<&Path>,
) -> Result<DiskConfig, GuestError> {
    let path = bundle.dir.join(DISK_FILE);
    let disk = |source| GuestError::Disk {
        path: path.clone(),
        source,
    };
    if let Some(snapshot) = snapshot {
        copy_disk(&snapshot.join(DISK_FILE), &path).map_err(disk)?;
    } else if !path.try_exists().map_err(disk)? {
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
