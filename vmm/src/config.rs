//! What a caller asks for: plain data, checked before any of it is used.

use std::path::PathBuf;

/// Highest number of virtual CPUs a VM may have.
pub const MAX_VCPUS: u8 = 32;
/// Least guest memory that a Linux guest can be expected to boot in, in MiB.
pub const MIN_MEMORY_MIB: u32 = 32;
/// Most guest memory, in MiB (1 TiB).
pub const MAX_MEMORY_MIB: u32 = 1024 * 1024;
/// Most disks a VM may have.
pub const MAX_DISKS: usize = 8;
/// Most files behind one read-only disk.
pub const MAX_DISK_FILES: usize = 1024;
/// Least MTU of a network device, in bytes (virtio 1.2, section 5.1.4.1).
pub const MIN_MTU: u16 = 68;
/// Longest tag of a file system device, in bytes (virtio 1.2, section 5.11.4).
pub const MAX_TAG_BYTES: usize = 36;
/// Longest kernel command line, with everything the VMM adds to it.
pub const MAX_CMDLINE_BYTES: usize = 2047;

/// A value in a [`VmConfig`] that no VM can be built from.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// See [`MAX_VCPUS`].
    #[error("a VM has 1 to {MAX_VCPUS} virtual CPUs, not {0}")]
    Vcpus(u8),
    /// See [`MIN_MEMORY_MIB`] and [`MAX_MEMORY_MIB`].
    #[error("a VM has {MIN_MEMORY_MIB} to {MAX_MEMORY_MIB} MiB of memory, not {0}")]
    Memory(u32),
    /// See [`MAX_DISKS`].
    #[error("a VM has at most {MAX_DISKS} disks, not {0}")]
    Disks(usize),
    /// See [`MAX_DISK_FILES`].
    #[error("a disk has at most {MAX_DISK_FILES} files behind it, not {0}")]
    DiskFiles(usize),
    /// Only read-only disks can be composed of several files.
    #[error("a writable disk has exactly one file behind it, not {0}")]
    WritableDiskFiles(usize),
    /// CIDs 0 to 2 and the all-ones CIDs have meanings of their own.
    #[error("vsock context id {0} is reserved")]
    GuestCid(u64),
    /// A frame's receiver is one station, and not all that listen, or nobody.
    #[error("{0:02x?} is no address of a network device")]
    Mac([u8; 6]),
    /// See [`MIN_MTU`].
    #[error("a network device's MTU is at least {MIN_MTU} bytes, not {0}")]
    Mtu(u16),
    /// See [`MAX_TAG_BYTES`].
    #[error("{0:?} is no tag of a file system device")]
    Tag(String),
    /// The command line is too long or holds a byte the kernel cannot take.
    #[error("the kernel command line has a byte that is not printable ASCII")]
    CmdlineBytes,
    /// See [`MAX_CMDLINE_BYTES`].
    #[error("the kernel command line is {0} bytes long, at most {MAX_CMDLINE_BYTES} fit")]
    CmdlineLength(usize),
}

/// A number of virtual CPUs from 1 to [`MAX_VCPUS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VcpuCount(u8);

impl VcpuCount {
    /// # Errors
    /// [`ConfigError::Vcpus`] outside 1 to [`MAX_VCPUS`].
    pub const fn new(count: u8) -> Result<Self, ConfigError> {
        if count == 0 || count > MAX_VCPUS {
            return Err(ConfigError::Vcpus(count));
        }
        Ok(Self(count))
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u8 {
        self.0
    }
}

impl TryFrom<u8> for VcpuCount {
    type Error = ConfigError;

    fn try_from(count: u8) -> Result<Self, ConfigError> {
        Self::new(count)
    }
}

/// A size of guest memory from [`MIN_MEMORY_MIB`] to [`MAX_MEMORY_MIB`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemorySize(u32);

impl MemorySize {
    /// # Errors
    /// [`ConfigError::Memory`] outside the limits.
    pub const fn from_mib(mib: u32) -> Result<Self, ConfigError> {
        if mib < MIN_MEMORY_MIB || mib > MAX_MEMORY_MIB {
            return Err(ConfigError::Memory(mib));
        }
        Ok(Self(mib))
    }

    /// The size in MiB.
    #[must_use]
    pub const fn mib(self) -> u32 {
        self.0
    }

    /// The size in bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        (self.0 as u64) << 20
    }
}

/// A block device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskConfig {
    /// The files behind it; without any it has no length, as in a template. A read-only disk shows them one after the other, each padded with
    /// zeroes to a multiple of [`DISK_FILE_ALIGN`]; a writable disk has exactly one, whose length
    /// is a multiple of 512.
    pub files: Vec<PathBuf>,
    /// Open the files for reading only and refuse every write.
    pub read_only: bool,
}

/// Where each file of a composed disk starts: at a multiple of this many bytes.
pub const DISK_FILE_ALIGN: u64 = 4096;

/// A vsock device with a Unix socket for the host side.
///
/// A guest that connects to port `P` of CID 2 is connected to the Unix socket `<uds_path>_P`, if
/// someone listens there. Host programs reach a guest's port by connecting to `<uds_path>`,
/// writing `CONNECT <port>\n` and reading `OK <port>\n`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VsockConfig {
    /// The guest's context id, above 2.
    pub guest_cid: u32,
    /// The host's socket, created by the VMM and removed with the VM.
    pub uds_path: PathBuf,
}

/// A network device. What carries its frames is not part of the configuration: see
/// [`crate::Vm::connect_network`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NetConfig {
    /// The address that the guest's driver begins with.
    pub mac: [u8; 6],
    /// The longest packet, in bytes without the Ethernet header.
    pub mtu: u16,
}

/// A file system device. Who serves the files is not part of the configuration: see
/// [`crate::Vm::connect_files`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilesConfig {
    /// The name by which the guest mounts it: 1 to [`MAX_TAG_BYTES`] bytes without a zero.
    pub tag: String,
}

/// What becomes of the guest's first serial port.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum SerialConfig {
    /// There is none: every byte would cost an exit.
    #[default]
    Off,
    /// Output is appended to this file, up to `limit_bytes`; the rest is dropped.
    File {
        /// The file, created with mode 0600 if it is missing.
        path: PathBuf,
        /// Most bytes written to it in this VM's life.
        limit_bytes: u64,
    },
    /// Output goes to standard error.
    Stderr,
}

impl SerialConfig {
    /// A file with the usual limit of 16 MiB.
    #[must_use]
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self::File {
            path: path.into(),
            limit_bytes: 16 << 20,
        }
    }
}

/// What of a VM can be prepared before its devices are known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmShape {
    /// Virtual CPUs.
    pub vcpus: VcpuCount,
    /// Guest memory; the host commits a page when the guest first touches it.
    pub memory: MemorySize,
    /// The kernel, an uncompressed ELF file.
    pub kernel: PathBuf,
    /// The initial RAM filesystem.
    pub initramfs: Option<PathBuf>,
}

/// A whole VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmConfig {
    /// Processors, memory, and what is booted.
    pub shape: VmShape,
    /// Kernel parameters besides those the VMM adds (devices, console, reboot method).
    pub cmdline: String,
    /// Block devices, in the order of the guest's `/dev/vda`, `/dev/vdb`, …
    pub disks: Vec<DiskConfig>,
    /// A way to talk to the guest.
    pub vsock: Option<VsockConfig>,
    /// A network card.
    pub net: Option<NetConfig>,
    /// Files from outside.
    pub files: Option<FilesConfig>,
    /// A source of random numbers besides the boot seed that every guest gets.
    pub rng: bool,
    /// The serial port.
    pub serial: SerialConfig,
    /// This VM is only there to be saved once its guest has dialled. Its disks may be without
    /// files, and no device answers anything: see [`crate::RunningVm::dialled`].
    pub template: bool,
}

impl VmConfig {
    /// The least VM: no devices, no initramfs.
    #[must_use]
    pub fn new(vcpus: VcpuCount, memory: MemorySize, kernel: impl Into<PathBuf>) -> Self {
        Self::of(VmShape {
            vcpus,
            memory,
            kernel: kernel.into(),
            initramfs: None,
        })
    }

    /// The least VM of a shape: no devices.
    #[must_use]
    pub const fn of(shape: VmShape) -> Self {
        Self {
            shape,
            cmdline: String::new(),
            disks: Vec::new(),
            vsock: None,
            net: None,
            files: None,
            rng: false,
            serial: SerialConfig::Off,
            template: false,
        }
    }

    /// Check what the newtypes do not.
    ///
    /// # Errors
    /// The first value that no VM can be built from.
    pub fn check(&self) -> Result<(), ConfigError> {
        if self.disks.len() > MAX_DISKS {
            return Err(ConfigError::Disks(self.disks.len()));
        }
        for disk in &self.disks {
            match disk.files.len() {
                // A disk of no length.
                0 => {}
                count if count > MAX_DISK_FILES => {
                    return Err(ConfigError::DiskFiles(count));
                }
                count if !disk.read_only && count != 1 => {
                    return Err(ConfigError::WritableDiskFiles(count));
                }
                _ => {}
            }
        }
        if let Some(vsock) = &self.vsock
            && (vsock.guest_cid <= 2 || vsock.guest_cid == u32::MAX)
        {
            return Err(ConfigError::GuestCid(vsock.guest_cid.into()));
        }
        if let Some(net) = &self.net {
            if net.mac[0] & 1 != 0 || net.mac == [0; 6] {
                return Err(ConfigError::Mac(net.mac));
            }
            if net.mtu < MIN_MTU {
                return Err(ConfigError::Mtu(net.mtu));
            }
        }
        if let Some(files) = &self.files {
            let tag = &files.tag;
            if tag.is_empty() || tag.len() > MAX_TAG_BYTES || tag.contains('\0') {
                return Err(ConfigError::Tag(tag.clone()));
            }
        }
        if !self
            .cmdline
            .bytes()
            .all(|byte| (b' '..=b'~').contains(&byte))
        {
            return Err(ConfigError::CmdlineBytes);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> VmConfig {
        VmConfig::new(
            VcpuCount::new(1).unwrap(),
            MemorySize::from_mib(128).unwrap(),
            "/kernel",
        )
    }

    #[test]
    fn newtypes_hold_their_limits() {
        assert!(VcpuCount::new(0).is_err());
        assert!(VcpuCount::new(MAX_VCPUS + 1).is_err());
        assert_eq!(VcpuCount::new(16).unwrap().get(), 16);
        assert!(MemorySize::from_mib(0).is_err());
        assert!(MemorySize::from_mib(u32::MAX).is_err());
        assert_eq!(MemorySize::from_mib(4096).unwrap().bytes(), 4 << 30);
    }

    #[test]
    fn impossible_configurations_are_refused() {
        let refused = |change: fn(&mut VmConfig)| {
            let mut config = config();
            change(&mut config);
            config.check().unwrap_err()
        };
        assert!(config().check().is_ok());
        assert_eq!(
            refused(|c| c.cmdline = "a\nb".into()),
            ConfigError::CmdlineBytes
        );
        assert_eq!(
            refused(|c| c.vsock = Some(VsockConfig {
                guest_cid: 2,
                uds_path: "/x".into()
            })),
            ConfigError::GuestCid(2)
        );
        for mac in [[0; 6], [1, 0, 0, 0, 0, 0], [0xff; 6]] {
            let mut config = config();
            config.net = Some(NetConfig { mac, mtu: 1500 });
            assert_eq!(config.check(), Err(ConfigError::Mac(mac)));
        }
        assert_eq!(
            refused(|c| c.net = Some(NetConfig {
                mac: [2, 0, 0, 0, 0, 1],
                mtu: 67
            })),
            ConfigError::Mtu(67)
        );
        for tag in ["", "a\0", "a tag of thirty-seven bytes, one more"] {
            let mut config = config();
            config.files = Some(FilesConfig { tag: tag.into() });
            assert_eq!(config.check(), Err(ConfigError::Tag(tag.into())));
        }
        assert_eq!(
            refused(|c| c.disks.push(DiskConfig {
                files: vec!["/a".into(), "/b".into()],
                read_only: false
            })),
            ConfigError::WritableDiskFiles(2)
        );
        assert_eq!(
            refused(|c| c.disks.push(DiskConfig {
                files: vec!["/a".into(); MAX_DISK_FILES + 1],
                read_only: true
            })),
            ConfigError::DiskFiles(MAX_DISK_FILES + 1)
        );
    }
}
