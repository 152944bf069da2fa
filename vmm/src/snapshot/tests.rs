use super::*;
use crate::memory::HugePages;
use crate::virtio::testing::Junk;
use std::os::unix::fs::{FileExt, PermissionsExt};
use vm_memory::{Bytes, GuestAddress};

const KEY: SnapshotKey = SnapshotKey::new([1; 32]);
const ORIGIN: Origin = [2; 32];
const BESIDE: [&str; 2] = ["disk", "absent"];

fn memory() -> GuestMemory {
    let memory = GuestMemory::new(&[(0, 6 << 20), (1 << 32, 4 << 20)], HugePages::Never).unwrap();
    memory.ram().write_obj(7u64, GuestAddress(0x1000)).unwrap();
    let above = GuestAddress((1 << 32) + (3 << 20));
    memory.ram().write_obj(8u64, above).unwrap();
    memory
}

fn state(bus: &crate::devices::Bus) -> VmState {
    VmState {
        memory_mib: 64,
        vcpus: vec![VcpuState::example(), VcpuState::example()],
        machine: MachineState::example(),
        devices: bus.save(Vec::new(), true),
    }
}

fn saved() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let bus = crate::devices::Bus::without_devices();
    let mut disk = create(&dir.path().join("disk")).unwrap();
    disk.write_all(&[5; 5000]).unwrap();
    write(dir.path(), state(&bus), &memory(), &KEY, ORIGIN, &BESIDE).unwrap();
    dir
}

fn open(dir: &tempfile::TempDir) -> Result<Snapshot, SnapshotError> {
    Snapshot::open(dir.path(), &KEY, &ORIGIN, &BESIDE)
}

#[test]
fn what_was_written_is_read_and_is_private() {
    let dir = saved();
    let snapshot = open(&dir).unwrap();
    assert_eq!((snapshot.vcpus().get(), snapshot.memory().mib()), (2, 64));
    // Two pages of ten MiB, each in a huge page of its own.
    let blocks: Vec<_> = snapshot.extents.iter().map(|one| one.start >> 20).collect();
    assert_eq!(blocks, [0, 8]);
    let taken = snapshot.memory.metadata().unwrap().blocks() * 512;
    let filled = memory_file::holes_are_filled_by_reading(&snapshot.memory).unwrap();
    let most = if filled { 4 << 20 } else { 64 << 10 };
    assert!(taken <= most, "{taken} bytes");
    for name in [STATE, MEMORY] {
        let mode = std::fs::metadata(dir.path().join(name)).unwrap().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    let copy = GuestMemory::new(&[(0, 6 << 20), (1 << 32, 4 << 20)], HugePages::Never).unwrap();
    for extent in &snapshot.extents {
        copy.map_saved(&snapshot.memory, extent).unwrap();
    }
    let read = |at| copy.ram().read_obj::<u64>(GuestAddress(at)).unwrap();
    assert_eq!((read(0x1000), read((1 << 32) + (3 << 20))), (7, 8));
    assert_eq!((read(0x2000), read(1 << 32)), (0, 0));
    copy.ram().write_obj(9u64, GuestAddress(0x1000)).unwrap();
    assert!(open(&dir).is_ok(), "a guest wrote to its template");
    for (start, bytes) in [(8 << 20, 4 << 20), (u64::MAX - 4095, 4096)] {
        let outside = Extent { start, bytes };
        assert!(copy.map_saved(&snapshot.memory, &outside).is_err());
    }
}

#[test]
fn thousands_of_edits_of_the_state_are_refused() {
    let dir = saved();
    let path = dir.path().join(STATE);
    let whole = std::fs::read(&path).unwrap();
    let mut junk = Junk(0x5eed);
    let refused = |bytes: &[u8], what: &str| {
        std::fs::write(&path, bytes).unwrap();
        assert!(open(&dir).is_err(), "{what}");
    };
    for _ in 0..3000 {
        let bit = junk.below(whole.len() as u64 * 8) as usize;
        let mut edited = whole.clone();
        edited[bit / 8] ^= 1 << (bit % 8);
        refused(&edited, &format!("bit {bit}"));
    }
    for _ in 0..1000 {
        let len = junk.below(whole.len() as u64) as usize;
        refused(&whole[..len], &format!("length {len}"));
    }
    refused(&[&whole[..], &[0]].concat(), "a byte more");
    refused(&vec![0; seal::MAX_LEN + 10], "too long");
    std::fs::write(&path, &whole).unwrap();
    assert!(open(&dir).is_ok());
}

/// As if the key were in the wrong hands: nonsense is an error, never a panic.
#[test]
fn nonsense_with_a_good_seal_is_harmless() {
    let dir = saved();
    let path = dir.path().join(STATE);
    let whole = std::fs::read(&path).unwrap();
    let body = seal::unseal(&whole, &KEY).unwrap().to_vec();
    let mut junk = Junk(0xbad);
    let mut understood = 0;
    for _ in 0..3000 {
        let mut edited = body.clone();
        for _ in 0..=junk.below(4) {
            let at = junk.below(edited.len() as u64) as usize;
            edited[at] = junk.next() as u8;
        }
        edited.truncate(edited.len() - (junk.below(8) / 7) as usize);
        std::fs::write(&path, seal::seal(&edited, &KEY).unwrap()).unwrap();
        if let Ok(snapshot) = open(&dir) {
            understood += 1;
            let copy = memory();
            for extent in &snapshot.extents {
                // Wherever it points: in guest memory or nowhere.
                let _ = copy.map_saved(&snapshot.memory, extent);
            }
        }
    }
    // Registers may hold anything.
    assert!(understood > 0);
}

#[test]
fn other_memory_other_keys_and_other_eyes_are_refused() {
    let dir = saved();
    let path = dir.path().join(MEMORY);
    let refused = |wanted: fn(&SnapshotError) -> bool| {
        let error = open(&dir).unwrap_err();
        assert!(wanted(&error), "{error:?}");
    };
    let other = SnapshotKey::new([9; 32]);
    assert!(Snapshot::open(dir.path(), &other, &ORIGIN, &BESIDE).is_err());
    let error = Snapshot::open(dir.path(), &KEY, &[3; 32], &BESIDE).unwrap_err();
    assert!(matches!(error, SnapshotError::OtherOrigin));

    // Readable by others, until it is not.
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    refused(|error| matches!(error, SnapshotError::NotPrivate(_)));
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    assert!(open(&dir).is_ok());
}

#[test]
fn a_file_that_was_edited_is_refused() {
    let edits: [fn(&Path); 5] = [
        |path| {
            let file = OpenOptions::new().write(true).open(path).unwrap();
            file.write_all_at(&[77], 0x1000).unwrap();
        },
        |path| {
            let file = OpenOptions::new().write(true).open(path).unwrap();
            file.set_len(100).unwrap();
        },
        |path| {
            // A zero more at its end.
            let file = OpenOptions::new().write(true).open(path).unwrap();
            file.set_len(file.metadata().unwrap().len() + 1).unwrap();
        },
        |path| {
            let other = path.with_extension("other");
            std::fs::write(&other, vec![3; 5000]).unwrap();
            std::fs::set_permissions(&other, std::fs::Permissions::from_mode(0o600)).unwrap();
            std::fs::rename(other, path).unwrap();
        },
        |path| {
            // The time of modification can be put back; that of the change cannot.
            let file = OpenOptions::new().write(true).open(path).unwrap();
            let before = file.metadata().unwrap().modified().unwrap();
            file.write_all_at(&[9], 0x1000).unwrap();
            file.set_modified(before).unwrap();
        },
    ];
    for edit in edits {
        for name in [MEMORY, "disk"] {
            let dir = saved();
            assert!(open(&dir).is_ok());
            // Times are as fine as the kernel's tick.
            std::thread::sleep(std::time::Duration::from_millis(20));
            let path = dir.path().join(name);
            edit(&path);
            let error = open(&dir).unwrap_err();
            assert!(matches!(&error, SnapshotError::Changed(which) if *which == path));
        }
    }
    let dir = saved();
    drop(create(&dir.path().join("absent")).unwrap());
    assert!(matches!(open(&dir), Err(SnapshotError::Changed(_))));
    let dir = saved();
    std::fs::remove_file(dir.path().join("disk")).unwrap();
    assert!(matches!(open(&dir), Err(SnapshotError::File { .. })));
}

#[test]
fn a_copy_is_as_good_and_named_anew() {
    let dir = saved();
    let copy = tempfile::tempdir().unwrap();
    for name in [STATE, MEMORY, "disk"] {
        // All zeroes written, as some tools do.
        std::fs::copy(dir.path().join(name), copy.path().join(name)).unwrap();
    }
    let state = copy.path().join(STATE);
    let before = std::fs::read(&state).unwrap();
    let snapshot = open(&copy).unwrap();
    assert_eq!((snapshot.vcpus().get(), snapshot.memory().mib()), (2, 64));
    let after = std::fs::read(&state).unwrap();
    assert_ne!(before, after);
    // From now on it is told by its stamp.
    assert!(open(&copy).is_ok());
    assert_eq!(std::fs::read(&state).unwrap(), after);
    assert_eq!(std::fs::read_dir(copy.path()).unwrap().count(), 3);
    assert_eq!(std::fs::metadata(&state).unwrap().mode() & 0o777, 0o600);
    // And an edit of it is seen.
    let memory = OpenOptions::new()
        .write(true)
        .open(copy.path().join(MEMORY));
    memory.unwrap().write_all_at(&[1], 0x5000).unwrap();
    assert!(matches!(open(&copy), Err(SnapshotError::Changed(_))));
}
