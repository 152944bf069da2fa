use super::*;
use crate::memory::{GuestRam, RegisterPages};
use crate::virtio::Backend;
use crate::virtio::registers::{STATUS, status};
use crate::virtio::testing::{DATA, INDIRECT, Junk, NEXT, RAM_END, Ring, WRITE, activation, ram};
use std::io::Write;
use std::sync::Arc;
use vm_memory::{Bytes, GuestAddress};

const HEADER: u64 = DATA;
const STATUS_AT: u64 = DATA + 0x100;
const BUFFER: u64 = DATA + 0x1000;

struct Rig {
    ram: GuestRam,
    ring: Ring,
    block: Block,
    registers: Arc<RegisterPages>,
}

fn file_of(bytes: &[u8]) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    file
}

fn open(files: &[&tempfile::NamedTempFile], read_only: bool) -> Disk {
    Disk::open(&DiskConfig {
        files: files.iter().map(|file| file.path().to_owned()).collect(),
        read_only,
    })
    .unwrap()
}

fn rig(disk: Disk) -> Rig {
    let ram = ram();
    let ring = Ring::new(&ram, 0, 128);
    let (activation, registers) = activation(&ram, &[&ring]);
    let mut block = Block::new(disk);
    block.activate(activation);
    Rig {
        ram,
        ring,
        block,
        registers,
    }
}

impl Rig {
    fn header(&self, kind: u32, sector: u64) {
        self.ring.put(kind, HEADER);
        self.ring.put(0u32, HEADER + 4);
        self.ring.put(sector, HEADER + 8);
        self.ring.put(0xffu8, STATUS_AT);
    }

    /// A request with one piece of data; returns its status byte and used length.
    fn request(&mut self, kind: u32, sector: u64, data: (u64, u32, u16)) -> (u8, u32) {
        self.header(kind, sector);
        self.ring.descriptor(0, (HEADER, 16, NEXT, 1));
        self.ring.descriptor(1, (data.0, data.1, data.2 | NEXT, 2));
        self.ring.descriptor(2, (STATUS_AT, 1, WRITE, 0));
        self.ring.offer(0);
        self.block.notify();
        let (head, len) = self.ring.take().unwrap();
        assert_eq!(head, 0);
        (self.ring.get(STATUS_AT), len)
    }

    fn read(&mut self, sector: u64, bytes: u32) -> (u8, Vec<u8>) {
        let (status, _) = self.request(TYPE_IN, sector, (BUFFER, bytes, WRITE));
        let mut data = vec![0; bytes as usize];
        self.ram
            .read_slice(&mut data, GuestAddress(BUFFER))
            .unwrap();
        (status, data)
    }

    fn needs_reset(&self) -> bool {
        self.registers.load(STATUS) & status::NEEDS_RESET != 0
    }
}

const OK: u8 = Status::Ok as u8;
const IOERR: u8 = Status::IoError as u8;
const UNSUPP: u8 = Status::Unsupported as u8;

#[test]
fn files_follow_one_another_at_aligned_offsets() {
    let (a, b, c) = (file_of(&[1; 5000]), file_of(&[]), file_of(&[3; 4096]));
    let mut rig = rig(open(&[&a, &b, &c], true));
    assert_eq!(rig.block.shared.disk.bytes, 3 * 4096);
    let (status, data) = rig.read(0, 3 * 4096);
    assert_eq!(status, OK);
    assert!(data[..5000].iter().all(|byte| *byte == 1));
    assert!(data[5000..8192].iter().all(|byte| *byte == 0));
    assert!(data[8192..].iter().all(|byte| *byte == 3));
    // Across the border, from the middle of the padding.
    let (status, data) = rig.read(15, 1024);
    assert_eq!(status, OK);
    assert_eq!((data[511], data[512]), (0, 3));
}

#[test]
fn nothing_writes_to_a_read_only_disk() {
    let file = file_of(&[7; 8192]);
    let mut rig = rig(open(&[&file], true));
    rig.ring.put(0u64, BUFFER);
    for kind in [TYPE_OUT, TYPE_DISCARD, TYPE_WRITE_ZEROES] {
        assert_ne!(rig.request(kind, 0, (BUFFER, 512, 0)).0, OK);
        rig.ring.put(8u32, BUFFER + 8);
        assert_ne!(rig.request(kind, 0, (BUFFER, 16, 0)).0, OK);
    }
    assert_eq!(std::fs::read(file.path()).unwrap(), [7; 8192]);
    assert_ne!(rig.block.shared.disk.identity().features & F_RO, 0);
}

#[test]
fn writes_discards_and_zeroes_reach_the_file() {
    let file = file_of(&[7; 65536]);
    let mut rig = rig(open(&[&file], false));
    rig.ram
        .write_slice(&[9; 1024], GuestAddress(BUFFER))
        .unwrap();
    assert_eq!(rig.request(TYPE_OUT, 2, (BUFFER, 1024, 0)), (OK, 1));
    assert_eq!(rig.request(TYPE_FLUSH, 0, (BUFFER, 0, 0)), (OK, 1));
    for (kind, sector, flags) in [
        (TYPE_DISCARD, 16u64, 0u32),
        (TYPE_WRITE_ZEROES, 32, 0),
        (TYPE_WRITE_ZEROES, 48, RANGE_UNMAP),
    ] {
        rig.ring.put(sector, BUFFER);
        rig.ring.put(8u32, BUFFER + 8);
        rig.ring.put(flags, BUFFER + 12);
        assert_eq!(rig.request(kind, 0, (BUFFER, 16, 0)).0, OK);
    }
    let bytes = std::fs::read(file.path()).unwrap();
    assert_eq!(bytes.len(), 65536);
    assert!(bytes[1024..2048].iter().all(|byte| *byte == 9));
    assert_eq!((bytes[1023], bytes[2048]), (7, 7));
    for sector in [16, 32, 48] {
        let at = sector * 512;
        assert!(bytes[at..at + 4096].iter().all(|byte| *byte == 0));
        assert_eq!((bytes[at - 1], bytes[at + 4096]), (7, 7));
    }
}

#[test]
fn requests_past_the_end_or_unaligned_fail() {
    let file = file_of(&[7; 8192]);
    for read_only in [true, false] {
        let mut rig = rig(open(&[&file], read_only));
        for (sector, bytes) in [
            (16, 512),
            (15, 1024),
            (u64::MAX, 512),
            (u64::MAX / 512, 512),
            (u64::MAX / 512 + 1, 512),
            (0, 511),
            (0, 1),
            (0, 8193),
            (0, 16384),
        ] {
            let what = format!("{sector} {bytes}");
            assert_eq!(rig.read(sector, bytes).0, IOERR, "{what}");
            let written = rig.request(TYPE_OUT, sector, (BUFFER, bytes, 0));
            assert_eq!(written, (IOERR, 1), "{what}");
        }
        // Nothing at all is nothing wrong.
        assert_eq!(rig.request(TYPE_IN, 0, (BUFFER, 0, WRITE)), (OK, 1));
    }
    assert_eq!(std::fs::read(file.path()).unwrap(), [7; 8192]);
}

#[test]
fn ranges_are_checked() {
    let file = file_of(&[7; 8192]);
    let mut rig = rig(open(&[&file], false));
    for (sector, sectors, flags, status) in [
        (16u64, 1u32, 0u32, IOERR),
        (u64::MAX, 1, 0, IOERR),
        (0, u32::MAX, 0, IOERR),
        (0, 17, 0, IOERR),
        (0, 1, 2, UNSUPP),
        (0, 1, RANGE_UNMAP, UNSUPP),
        (0, 0, 0, OK),
    ] {
        rig.ring.put(sector, BUFFER);
        rig.ring.put(sectors, BUFFER + 8);
        rig.ring.put(flags, BUFFER + 12);
        assert_eq!(rig.request(TYPE_DISCARD, 0, (BUFFER, 16, 0)).0, status);
    }
    for bytes in [0, 15, 17, 16 * 17] {
        assert_eq!(rig.request(TYPE_DISCARD, 0, (BUFFER, bytes, 0)).0, IOERR);
    }
    assert_eq!(std::fs::read(file.path()).unwrap(), [7; 8192]);
}

#[test]
fn identity_and_unknown_requests() {
    let file = file_of(&[7; 8192]);
    let mut rig = rig(open(&[&file], true));
    assert_eq!(rig.request(TYPE_GET_ID, 0, (BUFFER, 20, WRITE)), (OK, 21));
    assert_eq!(rig.ring.get::<[u8; 12]>(BUFFER), *b"hullbox-disk");
    assert_eq!(rig.request(TYPE_GET_ID, 0, (BUFFER, 19, WRITE)).0, IOERR);
    assert_eq!(rig.request(2, 0, (BUFFER, 512, WRITE)).0, UNSUPP);
    assert_eq!(rig.request(u32::MAX, 0, (BUFFER, 512, 0)).0, UNSUPP);
}

#[test]
fn chains_that_break_the_rules_cost_one_request() {
    let file = file_of(&[7; 8192]);
    let mut rig = rig(open(&[&file], true));
    rig.header(TYPE_IN, 0);
    let loops = (HEADER, 16, NEXT, 0);
    let table = DATA + 0x8000;
    // Each starts at descriptor 0; the device answers with nothing written.
    let chains: &[&[(u64, u32, u16, u16)]] = &[
        &[loops],
        &[(HEADER, 16, NEXT, 9999)],
        &[(HEADER, 16, 0, 0)],
        &[(u64::MAX - 4, 16, NEXT, 1), (STATUS_AT, 1, WRITE, 0)],
        &[(HEADER, 16, NEXT, 1), (RAM_END - 8, 512, WRITE | NEXT, 2)],
        &[(HEADER, 16, NEXT, 1), (BUFFER, u32::MAX, WRITE | NEXT, 0)],
        &[(STATUS_AT, 1, WRITE | NEXT, 1), (HEADER, 16, 0, 0)],
        &[(table, 15, INDIRECT, 0)],
        &[(table, 0, INDIRECT, 0)],
        &[(table, 0xffff_fff0, INDIRECT, 0)],
        &[(RAM_END, 64, INDIRECT, 0)],
        &[(table, 64, INDIRECT | NEXT, 1)],
    ];
    // The indirect table holds another one, and then a loop.
    rig.ring.descriptor_at(table, 0, (table, 64, INDIRECT, 0));
    for chain in chains {
        for (index, descriptor) in chain.iter().enumerate() {
            rig.ring.descriptor(index as u16, *descriptor);
        }
        rig.ring.offer(0);
        rig.block.notify();
        let (head, written) = rig.ring.take().unwrap();
        assert_eq!(head, 0);
        assert!(written <= 1, "{chain:?}");
        assert!(!rig.needs_reset());
    }
    assert_eq!(rig.read(0, 512).0, OK);
}

#[test]
fn an_oversized_indirect_table_is_read_no_further_than_sensible() {
    let file = file_of(&[7; 8192]);
    let mut rig = rig(open(&[&file], true));
    let table = DATA + 0x10_0000;
    for index in 0..65_535u16 {
        let entry = (BUFFER, 1, WRITE | NEXT, index.wrapping_add(1));
        rig.ring.descriptor_at(table, index, entry);
    }
    rig.ring.descriptor(0, (table, 65_535 * 16, INDIRECT, 0));
    let begin = std::time::Instant::now();
    for _ in 0..128 {
        rig.ring.offer(0);
    }
    rig.block.notify();
    assert!(begin.elapsed() < std::time::Duration::from_secs(2));
    assert_eq!(rig.ring.used_index(), 128);
}

#[test]
fn an_index_that_leaps_stops_the_device() {
    let file = file_of(&[7; 8192]);
    let mut rig = rig(open(&[&file], true));
    rig.ring.leap(200);
    assert!(!rig.block.notify());
    assert!(rig.needs_reset());
    // And nothing more happens before a reset.
    rig.ring.leap(1);
    assert!(!rig.block.notify());
    assert_eq!(rig.ring.used_index(), 0);
}

#[test]
fn a_head_out_of_range_stops_the_device() {
    let file = file_of(&[7; 8192]);
    let mut rig = rig(open(&[&file], true));
    rig.ring.offer(128);
    rig.block.notify();
    assert!(rig.needs_reset());
}

#[test]
fn junk_rings_end_in_bounded_time() {
    let file = file_of(&[7; 8192]);
    let mut junk = Junk(0x0bad_cafe_dead_beef);
    for _ in 0..200 {
        let mut rig = rig(open(&[&file], true));
        for index in 0..128 {
            let at = match junk.below(4) {
                0 => junk.next(),
                1 => rig.ring.base + junk.below(0x1_0000),
                _ => DATA + junk.below(0x1000),
            };
            let len = [16, 1, 512, junk.next() as u32][junk.below(4) as usize];
            let next = junk.below(130) as u16;
            rig.ring
                .descriptor(index, (at, len, junk.below(8) as u16, next));
        }
        for _ in 0..junk.below(128) {
            let head = junk.below(129) as u16;
            rig.ring.offer(head);
        }
        for _ in 0..4 {
            rig.block.notify();
        }
    }
    assert_eq!(std::fs::read(file.path()).unwrap(), [7; 8192]);
}

#[test]
fn files_that_are_no_disks_are_refused() {
    let refused = |path: &Path, read_only| {
        Disk::open(&DiskConfig {
            files: vec![path.to_owned()],
            read_only,
        })
        .unwrap_err()
        .1
    };
    refused(Path::new("/"), true);
    refused(Path::new("/dev/zero"), true);
    refused(Path::new("/nonexistent"), true);
    let odd = file_of(&[1; 513]);
    assert_eq!(
        refused(odd.path(), false).kind(),
        io::ErrorKind::InvalidInput
    );
    let dir = tempfile::tempdir().unwrap();
    let fifo = dir.path().join("fifo");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &fifo,
        rustix::fs::FileType::Fifo,
        0o600.into(),
        0,
    )
    .unwrap();
    // And does not wait for a writer.
    refused(&fifo, true);
}

#[test]
fn a_file_that_shrank_is_an_error_not_a_hang() {
    let file = file_of(&[7; 8192]);
    let mut rig = rig(open(&[&file], true));
    file.as_file().set_len(100).unwrap();
    assert_eq!(rig.read(0, 4096).0, IOERR);
}

/// Lays out a request with this many pieces of `SIZE_MAX` bytes, which may all be the same memory.
fn long_request(rig: &Rig, kind: u32, pieces: u16) {
    rig.header(kind, 0);
    let flags = if kind == TYPE_IN { WRITE | NEXT } else { NEXT };
    let table = DATA + 0x10_0000;
    rig.ring.descriptor_at(table, 0, (HEADER, 16, NEXT, 1));
    for index in 1..=pieces {
        let piece = (BUFFER, SIZE_MAX, flags, index + 1);
        rig.ring.descriptor_at(table, index, piece);
    }
    let status = (STATUS_AT, 1, WRITE, 0);
    rig.ring.descriptor_at(table, pieces + 1, status);
    let len = (u32::from(pieces) + 2) * 16;
    rig.ring.descriptor(0, (table, len, INDIRECT, 0));
}

fn sparse(bytes: u64) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(bytes).unwrap();
    file
}

#[test]
fn a_request_is_as_long_as_the_driver_was_told_and_no_longer() {
    let file = sparse(1 << 30);
    let mut rig = rig(open(&[&file], false));
    let config = rig.block.shared.disk.identity().config;
    assert_eq!((le_u32(&config, 8), le_u32(&config, 12)), (SIZE_MAX, 126));
    for kind in [TYPE_IN, TYPE_OUT] {
        for (pieces, status) in [(126, OK), (127, IOERR), (290, IOERR)] {
            long_request(&rig, kind, pieces);
            rig.ring.offer(0);
            rig.block.notify();
            assert!(rig.ring.take().is_some());
            assert_eq!(rig.ring.get::<u8>(STATUS_AT), status, "{kind} {pieces}");
        }
    }
}

#[test]
fn a_pass_ends_after_its_bytes_and_the_next_goes_on() {
    let file = sparse(1 << 30);
    let mut rig = rig(open(&[&file], false));
    long_request(&rig, TYPE_IN, 126);
    for _ in 0..4 {
        rig.ring.offer(0);
    }
    for served in 1..=4 {
        assert!(rig.block.notify());
        assert_eq!(rig.ring.used_index(), served);
    }
    assert!(!rig.block.notify());
    // One that waits for the disk is a pass of its own.
    rig.header(TYPE_FLUSH, 0);
    rig.ring.descriptor(0, (HEADER, 16, NEXT, 1));
    rig.ring.descriptor(1, (STATUS_AT, 1, WRITE, 0));
    for _ in 0..2 {
        rig.ring.offer(0);
    }
    for served in 5..=6 {
        assert!(rig.block.notify());
        assert_eq!(rig.ring.used_index(), served);
    }
    assert!(!rig.block.notify());
}

#[test]
fn a_disk_whose_vm_ends_begins_nothing() {
    let file = file_of(&[7; 8192]);
    let mut rig = rig(open(&[&file], true));
    let stopping = Stopping::default();
    rig.block.watch(stopping.clone());
    assert_eq!(rig.read(0, 512).0, OK);
    stopping.set();
    assert_eq!(rig.block.shared.disk.go_on(), Err(Status::IoError));
    rig.ring.offer(0);
    rig.block.notify();
    assert_eq!(rig.ring.take(), None);
}

#[test]
fn a_table_of_descriptors_without_bytes_is_read_no_further_than_sensible() {
    let file = file_of(&[7; 8192]);
    let mut rig = rig(open(&[&file], true));
    let table = DATA + 0x10_0000;
    for index in 0..65_535u16 {
        let entry = (BUFFER, 0, NEXT, index.wrapping_add(1));
        rig.ring.descriptor_at(table, index, entry);
    }
    rig.header(TYPE_IN, 0);
    rig.ring.descriptor_at(table, 0, (HEADER, 16, NEXT, 1));
    rig.ring
        .descriptor_at(table, 65_534, (STATUS_AT, 1, WRITE, 0));
    rig.ring.descriptor(0, (table, 65_535 * 16, INDIRECT, 0));
    rig.ring.offer(0);
    rig.block.notify();
    // Refused before its end: the status was not reached.
    assert_eq!(rig.ring.take(), Some((0, 0)));
    assert_eq!(rig.ring.get::<u8>(STATUS_AT), 0xff);
}

/// What a driver may do with the event indexes, and what a virtual CPU serves itself.
mod immediate {
    use super::*;
    use crate::virtio::testing::{Pulses, counted_activation};
    use crate::virtio::{Immediate, SavedQueue};
    use virtio_queue::QueueT;

    struct Driver {
        rig: Rig,
        pulses: Arc<Pulses>,
        thread: Arc<dyn Immediate>,
    }

    /// A driver that has negotiated event indexes or not.
    fn driver(disk: Disk, event_idx: bool) -> Driver {
        let ram = ram();
        let ring = Ring::new(&ram, 0, 128);
        let (mut activation, registers, pulses) = counted_activation(&ram, &[&ring]);
        for queue in &mut activation.queues {
            queue.set_event_idx(event_idx);
        }
        let mut block = Block::new(disk);
        let thread = block.immediate().unwrap();
        block.activate(activation);
        let rig = Rig {
            ram,
            ring,
            block,
            registers,
        };
        Driver {
            rig,
            pulses,
            thread,
        }
    }

    impl Driver {
        /// Offer a request with one piece of data.
        fn offer(&mut self, kind: u32, sector: u64, data: (u64, u32, u16)) {
            self.rig.header(kind, sector);
            let ring = &mut self.rig.ring;
            ring.descriptor(0, (HEADER, 16, NEXT, 1));
            ring.descriptor(1, (data.0, data.1, data.2 | NEXT, 2));
            ring.descriptor(2, (STATUS_AT, 1, WRITE, 0));
            ring.offer(0);
        }

        fn read(&mut self, bytes: u32) {
            self.offer(TYPE_IN, 0, (BUFFER, bytes, WRITE));
        }

        /// Have the device go on with a queue as it was saved.
        fn restart(&mut self, saved: SavedQueue) {
            let (mut activation, _, pulses) = counted_activation(&self.rig.ram, &[&self.rig.ring]);
            for queue in &mut activation.queues {
                queue.set_event_idx(true);
                queue.set_next_avail(saved.next_avail);
                queue.set_next_used(saved.next_used);
            }
            self.pulses = pulses;
            self.rig.block.reset();
            self.rig.block.activate(activation);
        }

        fn status(&self) -> u8 {
            self.rig.ring.get(STATUS_AT)
        }
    }

    #[test]
    fn a_virtual_cpu_reads_what_is_cached_and_interrupts_itself() {
        let file = file_of(&[7; 8192]);
        let mut driver = driver(open(&[&file], false), true);
        driver.read(4096);
        assert!(driver.thread.serve());
        assert_eq!(driver.rig.ring.take(), Some((0, 4097)));
        assert_eq!(driver.status(), OK);
        assert_eq!(driver.rig.ring.get::<[u8; 32]>(BUFFER + 4064), [7; 32]);
        assert_eq!(driver.pulses.take(), 1);
        // The next notification was asked for.
        assert_eq!(driver.rig.ring.avail_event(), 1);
        // Nothing is left for the device's thread, and it does not interrupt.
        assert!(!driver.rig.block.notify());
        assert_eq!(driver.pulses.take(), 0);
    }

    #[test]
    fn small_writes_are_a_virtual_cpus_and_long_ones_the_threads() {
        let file = file_of(&[7; 1 << 20]);
        let mut driver = driver(open(&[&file], false), true);
        driver
            .rig
            .ram
            .write_slice(&[9; 4096], GuestAddress(BUFFER))
            .unwrap();
        driver.offer(TYPE_OUT, 8, (BUFFER, 4096, 0));
        assert!(driver.thread.serve());
        assert_eq!(driver.rig.ring.take(), Some((0, 1)));
        assert_eq!(driver.status(), OK);
        driver.offer(TYPE_OUT, 128, (BUFFER, MAX_WRITE_NOW as u32 + 512, 0));
        assert!(!driver.thread.serve());
        assert_eq!(driver.rig.ring.take(), None);
        driver.rig.block.notify();
        assert_eq!(driver.rig.ring.take(), Some((0, 1)));
        assert_eq!(driver.status(), OK);
        let bytes = std::fs::read(file.path()).unwrap();
        assert!(bytes[4096..8192].iter().all(|byte| *byte == 9));
        assert_eq!(bytes[65536..65540], [9; 4]);
    }

    /// What is refused by the device's thread is by virtual CPUs, and what waits is left.
    #[test]
    fn what_waits_or_is_too_long_is_left_and_what_is_wrong_is_refused() {
        let file = file_of(&[7; 4 << 20]);
        let mut driver = driver(open(&[&file], false), true);
        let long = MAX_READ_NOW as u32 + 512;
        for (kind, sector, data) in [
            (TYPE_FLUSH, 0, (BUFFER, 0, 0)),
            (TYPE_DISCARD, 0, (BUFFER, 16, 0)),
            (TYPE_WRITE_ZEROES, 0, (BUFFER, 16, 0)),
            (TYPE_IN, 0, (BUFFER, long, WRITE)),
        ] {
            driver.offer(kind, sector, data);
            assert!(!driver.thread.serve(), "{kind}");
            assert!(!driver.thread.serve(), "{kind}");
            assert_eq!(driver.rig.ring.take(), None);
            driver.rig.block.notify();
            assert!(driver.rig.ring.take().is_some());
        }
        for (kind, sector, data, status) in [
            (TYPE_IN, u64::MAX, (BUFFER, 512, WRITE), IOERR),
            (TYPE_IN, 8192, (BUFFER, 512, WRITE), IOERR),
            (TYPE_IN, 0, (BUFFER, 511, WRITE), IOERR),
            (TYPE_OUT, 8191, (BUFFER, 1024, 0), IOERR),
            (99, 0, (BUFFER, 512, WRITE), UNSUPP),
        ] {
            driver.offer(kind, sector, data);
            assert!(driver.thread.serve(), "{kind}");
            assert!(driver.rig.ring.take().is_some());
            assert_eq!(driver.status(), status, "{kind} {sector}");
        }
        assert!(!driver.rig.needs_reset());
    }

    #[test]
    fn a_read_only_disk_is_written_by_nobody() {
        let file = file_of(&[7; 8192]);
        let mut driver = driver(open(&[&file], true), true);
        driver.offer(TYPE_OUT, 0, (BUFFER, 512, 0));
        if !driver.thread.serve() {
            driver.rig.block.notify();
        }
        assert!(driver.rig.ring.take().is_some());
        assert_eq!(driver.status(), IOERR);
        assert_eq!(std::fs::read(file.path()).unwrap(), [7; 8192]);
    }

    #[test]
    fn interrupts_come_where_the_driver_asks_for_them_across_the_wrap() {
        let file = file_of(&[7; 8192]);
        let mut driver = driver(open(&[&file], true), true);
        // A restored queue goes on anywhere.
        let mut saved = driver.rig.block.queues().unwrap()[0];
        let first = u16::MAX - 500;
        driver.rig.ring.start_at(first);
        (saved.next_avail, saved.next_used) = (first, first);
        driver.restart(saved);
        for done in 0..1000u16 {
            let index = first.wrapping_add(done);
            // Every hundredth is wanted.
            if done % 100 == 0 {
                driver.rig.ring.set_used_event(index);
            }
            driver.read(512);
            if done % 3 == 0 || !driver.thread.serve() {
                driver.rig.block.notify();
            }
            assert!(driver.rig.ring.take().is_some());
            let pulses = driver.pulses.take();
            assert_eq!(pulses, u64::from(done % 100 == 0), "{done}");
            assert_eq!(driver.rig.ring.avail_event(), index.wrapping_add(1));
        }
    }

    #[test]
    fn bogus_event_indexes_cost_interrupts_and_nothing_else() {
        let file = file_of(&[7; 8192]);
        let mut junk = Junk(0x5eed_0e7e);
        for event_idx in [true, false] {
            let mut driver = driver(open(&[&file], true), event_idx);
            for _ in 0..500 {
                driver.rig.ring.set_used_event(junk.next() as u16);
                // The device's own words in the ring are the guest's to overwrite, too.
                driver.rig.ring.set_avail_event(junk.next() as u16);
                let requests = 1 + junk.below(40);
                for _ in 0..requests {
                    driver.read(512);
                }
                if !driver.thread.serve() {
                    while driver.rig.block.notify() {}
                }
                for _ in 0..requests {
                    assert_eq!(driver.rig.ring.take(), Some((0, 513)));
                }
                assert_eq!(driver.rig.ring.take(), None);
                assert!(driver.pulses.take() <= requests);
                assert!(!driver.rig.needs_reset());
            }
        }
    }

    #[test]
    fn a_virtual_cpu_does_so_much_and_leaves_the_rest() {
        let file = file_of(&[7; 2 << 20]);
        let mut driver = driver(open(&[&file], true), true);
        for (bytes, served) in [(512, 32), (256 << 10, 4)] {
            for _ in 0..100 {
                driver.read(bytes);
            }
            let before = driver.rig.ring.used_index();
            assert!(!driver.thread.serve());
            assert_eq!(driver.rig.ring.used_index() - before, served);
            while driver.rig.block.notify() {}
            assert_eq!(driver.rig.ring.used_index() - before, 100);
        }
        // As much as it does, and nothing more: then nothing is left.
        driver.read(MAX_READ_NOW as u32);
        assert!(driver.thread.serve());
        for _ in 0..32 {
            driver.read(512);
        }
        assert!(driver.thread.serve());
    }

    #[test]
    fn chains_that_break_the_rules_cost_one_request_there_too() {
        let file = file_of(&[7; 8192]);
        let mut driver = driver(open(&[&file], true), true);
        let table = DATA + 0x10_0000;
        for index in 0..65_535u16 {
            let entry = (BUFFER, 1, WRITE | NEXT, index.wrapping_add(1));
            driver.rig.ring.descriptor_at(table, index, entry);
        }
        driver.rig.header(TYPE_IN, 0);
        for chain in [
            (HEADER, 16, NEXT, 0),
            (HEADER, 16, NEXT, 9999),
            (table, 65_535 * 16, INDIRECT, 0),
            (table, 0, INDIRECT, 0),
            (RAM_END, 64, INDIRECT, 0),
            (u64::MAX - 4, 16, 0, 0),
        ] {
            driver.rig.ring.descriptor(0, chain);
            driver.rig.ring.offer(0);
            assert!(driver.thread.serve(), "{chain:?}");
            let (head, written) = driver.rig.ring.take().unwrap();
            assert_eq!(head, 0);
            assert!(written <= 1, "{chain:?}");
            assert!(!driver.rig.needs_reset());
        }
        // One request of many pieces, as long as one may be, in a table.
        long_request(&driver.rig, TYPE_IN, 126);
        driver.rig.ring.offer(0);
        assert!(!driver.thread.serve());
        assert_eq!(driver.rig.ring.take(), None);
    }

    #[test]
    fn an_index_that_leaps_stops_both() {
        let file = file_of(&[7; 8192]);
        let mut driver = driver(open(&[&file], true), true);
        driver.rig.ring.leap(200);
        assert!(driver.thread.serve());
        assert!(driver.rig.needs_reset());
        driver.rig.ring.leap(1);
        assert!(driver.thread.serve());
        assert!(!driver.rig.block.notify());
        assert_eq!(driver.rig.ring.used_index(), 0);
        // Nobody serves a device that was reset.
        driver.rig.block.reset();
        assert!(driver.thread.serve());
        assert!(driver.rig.block.queues().is_none());
    }

    /// A thread and virtual CPUs at the same queue: every request is answered once, and the last
    /// ones are not forgotten.
    #[test]
    fn virtual_cpus_and_the_thread_share_a_queue() {
        let file = file_of(&[7; 1 << 20]);
        let Driver {
            mut rig,
            pulses,
            thread,
        } = driver(open(&[&file], false), true);
        // Whatever is used is to be told.
        let (told, hear) = std::sync::mpsc::channel::<()>();
        std::thread::scope(|scope| {
            let cpu = Arc::clone(&thread);
            let block = &mut rig.block;
            let worker = scope.spawn(move || {
                while hear.recv().is_ok() {
                    while block.notify() {}
                }
            });
            let ring = &mut rig.ring;
            let mut answered = 0u32;
            for round in 0..400u32 {
                // A read by one piece, a read too long for a virtual CPU, and a flush.
                let kinds = [
                    (TYPE_IN, 512),
                    (TYPE_IN, (1 << 20) / 512 * 512),
                    (TYPE_FLUSH, 0),
                ];
                for (index, (kind, bytes)) in kinds.iter().enumerate() {
                    let at = HEADER + 0x200 * index as u64;
                    ring.put(*kind, at);
                    ring.put(0u64, at + 8);
                    let first = index as u16 * 3;
                    ring.descriptor(first, (at, 16, NEXT, first + 1));
                    let flags = WRITE | NEXT;
                    ring.descriptor(first + 1, (BUFFER, *bytes, flags, first + 2));
                    ring.descriptor(first + 2, (at + 0x100, 1, WRITE, 0));
                }
                let heads = [0, 3, 6];
                let count = 1 + round % 3;
                ring.set_used_event(ring.used_index().wrapping_add(count as u16 - 1));
                for head in heads.iter().take(count as usize) {
                    ring.offer(*head);
                }
                if !cpu.serve() {
                    told.send(()).unwrap();
                }
                let mut seen = Vec::new();
                while seen.len() < count as usize {
                    match ring.take() {
                        Some((head, _)) => seen.push(head),
                        None => std::thread::yield_now(),
                    }
                }
                seen.sort_unstable();
                assert_eq!(seen, [0, 3, 6][..count as usize]);
                answered += count;
            }
            assert_eq!(u32::from(ring.used_index()), answered);
            drop(told);
            worker.join().unwrap();
        });
        assert_eq!(pulses.take(), 400);
    }
}
