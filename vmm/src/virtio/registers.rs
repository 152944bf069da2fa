//! The registers of the MMIO transport, by their offsets, and what stands in them (virtio 1.2, section
//! 4.2.2).

pub(crate) const MAGIC: usize = 0x00;
pub(crate) const VERSION: usize = 0x04;
pub(crate) const DEVICE_ID: usize = 0x08;
pub(crate) const VENDOR_ID: usize = 0x0c;
pub(crate) const DEVICE_FEATURES: usize = 0x10;
pub(crate) const DEVICE_FEATURES_SEL: usize = 0x14;
pub(crate) const DRIVER_FEATURES: usize = 0x20;
pub(crate) const DRIVER_FEATURES_SEL: usize = 0x24;
pub(crate) const QUEUE_SEL: usize = 0x30;
pub(crate) const QUEUE_NUM_MAX: usize = 0x34;
pub(crate) const QUEUE_NUM: usize = 0x38;
pub(crate) const QUEUE_READY: usize = 0x44;
/// Written by the driver when it added buffers; goes to the device, past the transport.
pub(crate) const QUEUE_NOTIFY: usize = 0x50;
pub(crate) const INTERRUPT_STATUS: usize = 0x60;
/// Written by the driver when it took an interrupt; wired to nothing.
pub(crate) const INTERRUPT_ACK: usize = 0x64;
pub(crate) const STATUS: usize = 0x70;
pub(crate) const QUEUE_DESC: usize = 0x80;
pub(crate) const QUEUE_DRIVER: usize = 0x90;
pub(crate) const QUEUE_DEVICE: usize = 0xa0;
pub(crate) const SHM_LEN: usize = 0xb0;
pub(crate) const SHM_BASE: usize = 0xb8;
pub(crate) const CONFIG_GENERATION: usize = 0xfc;
pub(crate) const CONFIG: usize = 0x100;

pub(crate) const MAGIC_VALUE: u32 = u32::from_le_bytes(*b"virt");
pub(crate) const VENDOR: u32 = u32::from_le_bytes(*b"HLBX");

pub(crate) const INTERRUPT_USED: u32 = 1;
pub(crate) const INTERRUPT_CONFIG: u32 = 2;

/// Device status bits (virtio 1.2, section 2.1).
pub(crate) mod status {
    pub(crate) const ACKNOWLEDGE: u32 = 1;
    pub(crate) const DRIVER: u32 = 2;
    pub(crate) const DRIVER_OK: u32 = 4;
    pub(crate) const FEATURES_OK: u32 = 8;
    pub(crate) const NEEDS_RESET: u32 = 0x40;
    pub(crate) const FAILED: u32 = 0x80;
}
