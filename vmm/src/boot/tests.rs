use super::*;
use crate::memory::HugePages;
use std::io::Write;
use vm_memory::Bytes;

const CODE: &[u8] = &[0x90; 5000];

/// An ELF file with one segment at 16 MiB.
fn kernel(change: impl FnOnce(&mut Vec<u8>)) -> tempfile::NamedTempFile {
    let mut bytes = vec![0u8; 4096];
    bytes[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    bytes[18..20].copy_from_slice(&62u16.to_le_bytes());
    bytes[24..32].copy_from_slice(&0x100_0000u64.to_le_bytes());
    bytes[32..40].copy_from_slice(&64u64.to_le_bytes());
    bytes[54..56].copy_from_slice(&56u16.to_le_bytes());
    bytes[56..58].copy_from_slice(&1u16.to_le_bytes());
    let header = [
        1 | 5 << 32,
        4096,
        0xffff_ffff_8100_0000,
        0x100_0000,
        CODE.len() as u64,
        8192 + 100,
        4096,
    ];
    for (index, value) in header.iter().enumerate() {
        bytes[64 + index * 8..72 + index * 8].copy_from_slice(&u64::to_le_bytes(*value));
    }
    bytes.extend_from_slice(CODE);
    bytes.extend_from_slice(b"what follows in the file");
    change(&mut bytes);
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&bytes).unwrap();
    file
}

fn memory() -> GuestMemory {
    GuestMemory::new(&[(0, 64 << 20)], HugePages::Never).unwrap()
}

/// Load it and copy what is to be copied.
fn load(
    memory: &GuestMemory,
    path: &Path,
    placement: Placement,
) -> Result<LoadedKernel, LoadError> {
    let mut copies = Copies::default();
    let loaded = load_kernel(memory, path, placement, &mut copies)?;
    copies.carry(memory).map_err(|(error, _)| error)?;
    Ok(loaded)
}

#[test]
fn mapped_or_copied_a_kernel_is_the_same() {
    for placement in [Placement::Map, Placement::Copy] {
        let memory = memory();
        let loaded = load(&memory, kernel(|_| ()).path(), placement).unwrap();
        assert_eq!(loaded.entry.0, 0x100_0000);
        assert_eq!(loaded.end.0, 0x100_0000 + 8292);
        let mut bytes = vec![0u8; 8192];
        memory
            .ram()
            .read_slice(&mut bytes, GuestAddress(0x100_0000))
            .unwrap();
        assert_eq!(&bytes[..CODE.len()], CODE);
        assert!(bytes[CODE.len()..].iter().all(|byte| *byte == 0));
    }
}

#[test]
fn broken_kernels_are_refused() {
    let refused = |change: fn(&mut Vec<u8>)| {
        load(&memory(), kernel(change).path(), Placement::Map).unwrap_err()
    };
    assert!(matches!(refused(Vec::clear), LoadError::NotAKernel));
    assert!(matches!(refused(|b| b.truncate(63)), LoadError::NotAKernel));
    assert!(matches!(refused(|b| b[0] = 0), LoadError::NotAKernel));
    assert!(matches!(refused(|b| b[18] = 3), LoadError::NotAKernel));
    assert!(matches!(refused(|b| b[56] = 0), LoadError::NotAKernel));
    assert!(matches!(refused(|b| b[57] = 9), LoadError::NotAKernel));
    assert!(matches!(
        refused(|b| b.truncate(4200)),
        LoadError::Truncated
    ));
    assert!(matches!(
        refused(|b| b[39] = 0xff),
        LoadError::Truncated | LoadError::Read(_)
    ));
    // Offsets, addresses and lengths that wrap or lie elsewhere.
    assert!(matches!(refused(|b| b[79] = 0xff), LoadError::Truncated));
    assert!(matches!(refused(|b| b[95] = 0xff), LoadError::DoesNotFit));
    assert!(matches!(refused(|b| b[91] = 0), LoadError::DoesNotFit));
    assert!(matches!(refused(|b| b[103] = 0xff), LoadError::Truncated));
    assert!(matches!(refused(|b| b[111] = 0xff), LoadError::DoesNotFit));
    assert!(matches!(refused(|b| b[27] = 0), LoadError::DoesNotFit));
    assert!(matches!(
        load(&memory(), Path::new("/"), Placement::Map),
        Err(LoadError::Read(_))
    ));
}

#[test]
fn the_initramfs_lies_at_the_end_of_low_memory() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&[7; 5000]).unwrap();
    let memory = memory();
    let loaded = load(&memory, kernel(|_| ()).path(), Placement::Map).unwrap();
    for placement in [Placement::Map, Placement::Copy] {
        let mut copies = Copies::default();
        let (start, len) =
            load_initramfs(&memory, &loaded, file.path(), placement, &mut copies).unwrap();
        copies.carry(&memory).unwrap();
        assert_eq!((start.0, len), ((64 << 20) - 8192, 5000));
        assert_eq!(
            memory
                .ram()
                .read_obj::<u8>(GuestAddress(start.0 + 4999))
                .unwrap(),
            7
        );
    }
    let refused = |file: &tempfile::NamedTempFile| {
        let mut copies = Copies::default();
        load_initramfs(&memory, &loaded, file.path(), Placement::Map, &mut copies).is_err()
    };
    let huge = tempfile::NamedTempFile::new().unwrap();
    huge.as_file().set_len(63 << 20).unwrap();
    assert!(refused(&huge));
    huge.as_file().set_len(0).unwrap();
    assert!(refused(&huge));
}

#[test]
fn several_threads_copy_every_byte_once() {
    let bytes: Vec<u8> = (0..9 << 20)
        .map(|at: u32| (at >> 12) as u8 ^ at as u8)
        .collect();
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&bytes).unwrap();
    let memory = memory();
    let kernel = load(&memory, kernel(|_| ()).path(), Placement::Copy).unwrap();
    let mut copies = Copies::default();
    let (start, len) =
        load_initramfs(&memory, &kernel, file.path(), Placement::Copy, &mut copies).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| copies.carry(&memory).unwrap());
        }
    });
    let mut found = vec![0; usize::try_from(len).unwrap()];
    memory.ram().read_slice(&mut found, start).unwrap();
    assert!(found == bytes);
}
