//! The virtual machine monitor: KVM, memory, virtual CPUs and virtio devices.
//!
//! ```no_run
//! use hullbox_vmm::{MemorySize, VcpuCount, Vm, VmConfig};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut config = VmConfig::new(VcpuCount::new(1)?, MemorySize::from_mib(128)?, "vmlinux");
//! config.shape.initramfs = Some("initramfs.cpio".into());
//! let running = Vm::new(config)?.start()?;
//! println!("the virtual machine {}", running.wait());
//! # Ok(())
//! # }
//! ```
//!
//! This crate does not know what a container is, nor what travels over vsock.
//!
//! # How a guest ends
//!
//! The VMM adds `panic=-1 reboot=k` to the kernel's command line. A kernel announces with a byte to
//! I/O port 0x5e0 (or to a pvpanic port, 0x505) that it powers off ([`Outcome::Shutdown`], 1) or
//! that it panicked ([`Outcome::Panic`], 3); an orderly `reboot(2)` is an [`Outcome::Reset`]. A
//! kernel that announces nothing can only restart: with its interrupts masked, as `reboot(2)`
//! leaves them, that is an [`Outcome::Reset`], otherwise an [`Outcome::Panic`].
//!
//! # Saving and restoring
//!
//! [`RunningVm::pause`] stops a VM between two instructions and two requests, [`RunningVm::save`]
//! writes it into a directory, [`Snapshot::open`] examines what is there, [`Foundation::restore`] lays
//! memory and virtual CPUs, and [`Vm::on`] attaches the devices: those that were saved, in their
//! order, with whatever files and sockets behind them. A VM that was made to be saved has
//! [`VmConfig::template`] and says when its guest has dialled ([`RunningVm::dialled`]).
#![deny(unsafe_code)]

mod arch;
mod boot;
mod config;
mod devices;
mod error;
#[expect(
    unsafe_code,
    reason = "maps guest memory and moves bytes between it and files"
)]
mod memory;
mod outcome;
pub mod probe;
mod snapshot;
mod stats;
mod thread;
#[expect(
    unsafe_code,
    reason = "shares a byte with KVM and signals a thread to leave the guest"
)]
mod vcpu;
mod virtio;
#[expect(unsafe_code, reason = "reads unions that KVM fills")]
mod vm;
pub mod vsock;
mod worker;

pub use boot::{BootError, LoadError};
pub use config::{
    ConfigError, DISK_FILE_ALIGN, DiskConfig, FilesConfig, MAX_CMDLINE_BYTES, MAX_DISK_FILES,
    MAX_DISKS, MAX_MEMORY_MIB, MAX_TAG_BYTES, MAX_VCPUS, MIN_MEMORY_MIB, MIN_MTU, MemorySize,
    NetConfig, SerialConfig, VcpuCount, VmConfig, VmShape, VsockConfig,
};
pub use error::VmError;
pub use memory::MemoryError;
pub use outcome::{InternalError, Outcome, VmStats};
pub use snapshot::{
    Origin, SealError, Snapshot, SnapshotError, SnapshotKey, Unsealed, host_identity,
};
pub use vm::{Foundation, RunningVm, SaveError, Step, Vm, VmHandle};
