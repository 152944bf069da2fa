//! The zero page and everything it points to (Documentation/x86/boot.rst of the kernel).

use super::{layout, mptable};
use crate::boot::BootError;
use crate::memory::GuestRam;
use linux_loader::loader::bootparam::{SETUP_RNG_SEED, boot_e820_entry, boot_params};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryRegion};

const BOOT_FLAG: u16 = 0xaa55;
const HEADER_MAGIC: u32 = 0x5372_6448;
/// Boot protocol 2.15, which has everything used here.
const PROTOCOL: u16 = 0x020f;
const LOADER_UNDEFINED: u8 = 0xff;
const LOADED_HIGH: u8 = 1;
const E820_RAM: u32 = 1;
const E820_RESERVED: u32 = 2;
const SEED_LEN: usize = 32;
/// `struct setup_data`: next pointer, type, length.
const SETUP_DATA_HEADER: usize = 16;

/// What the kernel must be told.
#[derive(Debug)]
pub(crate) struct BootInfo<'a> {
    /// Kernel parameters, without the final zero.
    pub(crate) cmdline: &'a str,
    /// Address and length of the initramfs.
    pub(crate) initramfs: Option<(GuestAddress, u64)>,
    /// Number of virtual CPUs.
    pub(crate) vcpus: u8,
}

/// Write the zero page, the command line, the RNG seed, the MP table, and page tables and GDT for
/// the first instructions.
pub(crate) fn write_boot(ram: &GuestRam, info: &BootInfo<'_>) -> Result<(), BootError> {
    let write =
        |bytes: &[u8], at: GuestAddress| ram.write_slice(bytes, at).map_err(|_| BootError::Tables);
    write(info.cmdline.as_bytes(), layout::CMDLINE)?;
    write(&seed()?, layout::SETUP_DATA)?;
    mptable::write(ram, info.vcpus)?;
    super::vcpu::write_tables(ram)?;

    let mut params = boot_params::default();
    params.hdr.boot_flag = BOOT_FLAG;
    params.hdr.header = HEADER_MAGIC;
    params.hdr.version = PROTOCOL;
    params.hdr.type_of_loader = LOADER_UNDEFINED;
    params.hdr.loadflags = LOADED_HIGH;
    params.hdr.kernel_alignment = 0x20_0000;
    params.hdr.cmd_line_ptr = low_address(layout::CMDLINE)?;
    params.hdr.cmdline_size = u32::try_from(info.cmdline.len()).map_err(|_| BootError::Tables)?;
    params.hdr.setup_data = layout::SETUP_DATA.0;
    if let Some((start, bytes)) = info.initramfs {
        params.hdr.ramdisk_image = low_address(start)?;
        params.hdr.ramdisk_size = u32::try_from(bytes).map_err(|_| BootError::Tables)?;
    }
    for (index, entry) in e820(ram).into_iter().enumerate() {
        let place = params.e820_table.get_mut(index).ok_or(BootError::Tables)?;
        *place = entry;
        params.e820_entries = u8::try_from(index + 1).map_err(|_| BootError::Tables)?;
    }
    ram.write_obj(params, layout::ZERO_PAGE)
        .map_err(|_| BootError::Tables)
}

fn low_address(address: GuestAddress) -> Result<u32, BootError> {
    u32::try_from(address.0).map_err(|_| BootError::Tables)
}

/// Random bytes from the host as `setup_data`, so that the guest's CRNG is ready at once.
fn seed() -> Result<Vec<u8>, BootError> {
    let mut random = [0u8; SEED_LEN];
    let mut filled = 0;
    while filled < SEED_LEN {
        filled +=
            rustix::rand::getrandom(&mut random[filled..], rustix::rand::GetRandomFlags::empty())
                .map_err(|error| BootError::Seed(error.into()))?;
    }
    let mut data = Vec::with_capacity(SETUP_DATA_HEADER + SEED_LEN);
    data.extend_from_slice(&0u64.to_le_bytes());
    data.extend_from_slice(&SETUP_RNG_SEED.to_le_bytes());
    data.extend_from_slice(&(SEED_LEN as u32).to_le_bytes());
    data.extend_from_slice(&random);
    Ok(data)
}

/// The memory map.
fn e820(ram: &GuestRam) -> Vec<boot_e820_entry> {
    let entry = |addr, end, r#type| boot_e820_entry {
        addr,
        size: end - addr,
        r#type,
    };
    let mut map = vec![
        entry(0, layout::LOW_RAM_END, E820_RAM),
        entry(layout::LOW_RAM_END, layout::HIGH_RAM, E820_RESERVED),
    ];
    for region in ram.iter() {
        let start = region.start_addr().0.max(layout::HIGH_RAM);
        let end = region.start_addr().0 + region.len();
        if end > start {
            map.push(entry(start, end, E820_RAM));
        }
    }
    map
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{GuestMemory, HugePages};

    #[test]
    fn the_zero_page_says_what_it_should() {
        let ranges = layout::ram_ranges(4 << 30);
        let memory = GuestMemory::new(&ranges, HugePages::Never).unwrap();
        let info = BootInfo {
            cmdline: "quiet",
            initramfs: Some((GuestAddress(0x800_0000), 1000)),
            vcpus: 2,
        };
        write_boot(memory.ram(), &info).unwrap();
        let at = |offset: u64| GuestAddress(layout::ZERO_PAGE.0 + offset);
        let ram = memory.ram();
        assert_eq!(ram.read_obj::<u8>(at(0x1e8)).unwrap(), 4);
        assert_eq!(ram.read_obj::<u32>(at(0x202)).unwrap(), HEADER_MAGIC);
        assert_eq!(ram.read_obj::<u32>(at(0x218)).unwrap(), 0x800_0000);
        assert_eq!(ram.read_obj::<u32>(at(0x21c)).unwrap(), 1000);
        assert_eq!(ram.read_obj::<u32>(at(0x228)).unwrap(), 0x2_0000);
        assert_eq!(ram.read_obj::<u64>(at(0x250)).unwrap(), 0x8000);
        // The last entry of the memory map is what lies above 4 GiB.
        let last = 0x2d0 + 3 * 20;
        assert_eq!(ram.read_obj::<u64>(at(last)).unwrap(), 1 << 32);
        assert_eq!(ram.read_obj::<u64>(at(last + 8)).unwrap(), 1 << 30);
        let mut seed = [0u8; 32];
        ram.read_slice(&mut seed, GuestAddress(0x8010)).unwrap();
        assert_ne!(seed, [0; 32]);
    }
}
