//! The device's core against a driver played by hand, over real guest memory and real sockets.

use super::*;
use virtio_queue::desc::RawDescriptor;
use virtio_queue::desc::split::Descriptor;
use virtio_queue::mock::MockSplitQueue;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

const GUEST: u64 = 3;
const QUEUE_LEN: u16 = 64;
const RX_BASE: u64 = 0x10_0000;
const TX_BASE: u64 = 0x40_0000;
const SLOT: u64 = 0x1_1000;
const NEXT: u16 = 1;
const WRITE: u16 = 2;

/// A guest driver: it lays packets into memory and reads what comes back.
struct Driver<'a> {
    mem: &'a GuestMemoryMmap,
    rx_ring: MockSplitQueue<'a, GuestMemoryMmap>,
    tx_ring: MockSplitQueue<'a, GuestMemoryMmap>,
    rx: Queue,
    tx: Queue,
    rx_added: u16,
    tx_added: u16,
    rx_seen: u16,
    core: VsockCore,
    dir: tempfile::TempDir,
}

fn memory() -> GuestMemoryMmap {
    GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x100_0000)]).unwrap()
}

impl<'a> Driver<'a> {
    fn new(mem: &'a GuestMemoryMmap) -> Self {
        let rx_ring = MockSplitQueue::create(mem, GuestAddress(0x1000), QUEUE_LEN);
        let tx_ring = MockSplitQueue::create(mem, GuestAddress(0x8000), QUEUE_LEN);
        let dir = tempfile::tempdir().unwrap();
        Self {
            rx: rx_ring.create_queue().unwrap(),
            tx: tx_ring.create_queue().unwrap(),
            core: VsockCore::new(GUEST, &dir.path().join("v")).unwrap(),
            mem,
            rx_ring,
            tx_ring,
            rx_added: 0,
            tx_added: 0,
            rx_seen: 0,
            dir,
        }
    }

    fn listen(&self, port: u32) -> UnixListener {
        UnixListener::bind(self.dir.path().join(format!("v_{port}"))).unwrap()
    }

    /// Offers receive buffers of `len` bytes (header included).
    fn offer(&mut self, count: u16, len: u32) {
        for _ in 0..count {
            let slot = self.rx_added % QUEUE_LEN;
            let at = RX_BASE + u64::from(slot) * SLOT;
            let raw = RawDescriptor::from(Descriptor::new(at, len, WRITE, 0));
            self.rx_ring.desc_table().store(slot, raw).unwrap();
            self.rx_ring
                .avail()
                .ring()
                .ref_at(slot.into())
                .unwrap()
                .store(slot);
            self.rx_added += 1;
            self.rx_ring.avail().idx().store(self.rx_added);
        }
    }

    fn send_raw(&mut self, descriptors: &[(u64, u32, u16)]) {
        let slot = self.tx_added % (QUEUE_LEN / 4) * 4;
        for (i, (at, len, flags)) in (0u16..).zip(descriptors) {
            let raw = RawDescriptor::from(Descriptor::new(*at, *len, *flags, slot + i + 1));
            self.tx_ring.desc_table().store(slot + i, raw).unwrap();
        }
        let index = self.tx_added % QUEUE_LEN;
        self.tx_ring
            .avail()
            .ring()
            .ref_at(index.into())
            .unwrap()
            .store(slot);
        self.tx_added += 1;
        self.tx_ring.avail().idx().store(self.tx_added);
    }

    fn send(&mut self, header: Header, payload: &[u8]) {
        let at = TX_BASE + u64::from(self.tx_added % (QUEUE_LEN / 4)) * SLOT;
        let mut wire = Vec::new();
        header.write_to(&mut wire).unwrap();
        wire.extend_from_slice(payload);
        self.mem.write_slice(&wire, GuestAddress(at)).unwrap();
        let header_len = u32::try_from(HEADER_LEN).unwrap();
        if payload.is_empty() {
            self.send_raw(&[(at, header_len, 0)]);
        } else {
            let len = u32::try_from(payload.len()).unwrap();
            self.send_raw(&[(at, header_len, NEXT), (at + u64::from(header_len), len, 0)]);
        }
    }

    fn serve(&mut self) -> Served {
        self.core
            .service(self.mem, &mut self.rx, &mut self.tx)
            .unwrap()
    }

    /// Every packet that arrived since the last call.
    fn received(&mut self) -> Vec<(Header, Vec<u8>)> {
        let mut packets = Vec::new();
        while self.rx_seen != self.rx_ring.used().idx().load() {
            let index = usize::from(self.rx_seen % QUEUE_LEN);
            let element = self.rx_ring.used().ring().ref_at(index).unwrap().load();
            let at = RX_BASE + u64::from(element.id()) * SLOT;
            let mut wire = vec![0; usize::try_from(element.len()).unwrap()];
            self.mem.read_slice(&mut wire, GuestAddress(at)).unwrap();
            let mut rest = &wire[..];
            if let Ok(header) = Header::read_from(&mut rest) {
                packets.push((header, rest.to_vec()));
            }
            self.rx_seen += 1;
        }
        packets
    }

    /// Opens a connection to `port` and returns the host's end.
    fn connect(&mut self, port: u32) -> UnixStream {
        let listener = self.listen(port);
        self.send(packet(port, Op::Request, 0), &[]);
        self.serve();
        let ops: Vec<_> = self.received().iter().map(|(h, _)| h.op()).collect();
        assert_eq!(ops, [Some(Op::Response)]);
        listener.accept().unwrap().0
    }
}

const GUEST_PORT: u32 = 5000;

fn packet(host_port: u32, op: Op, len: usize) -> Header {
    let key = ConnectionKey {
        host_port,
        guest_port: GUEST_PORT,
    };
    let to_guest = Header::to_guest(GUEST, key, op);
    Header {
        src_cid: GUEST,
        dst_cid: HOST_CID,
        src_port: GUEST_PORT,
        dst_port: host_port,
        len: u32::try_from(len).unwrap(),
        buf_alloc: 64 * 1024,
        ..to_guest
    }
}

#[test]
fn bytes_and_half_closes_go_both_ways() {
    let mem = memory();
    let mut driver = Driver::new(&mem);
    driver.offer(16, 4096);
    let mut host = driver.connect(1024);

    driver.send(packet(1024, Op::Data, 5), b"hello");
    driver.serve();
    let mut buffer = [0; 5];
    host.read_exact(&mut buffer).unwrap();
    assert_eq!(&buffer, b"hello");

    host.write_all(b"world").unwrap();
    driver.serve();
    let packets = driver.received();
    assert_eq!(packets[0].0.op(), Some(Op::Data));
    assert_eq!(packets[0].1, b"world");
    assert_eq!(packets[0].0.fwd_cnt, 5);

    // The guest ends its half: the host reads the end and can still write.
    let mut end = packet(1024, Op::Shutdown, 0);
    end.flags = SHUTDOWN_SEND;
    driver.send(end, &[]);
    driver.serve();
    assert_eq!(host.read(&mut buffer).unwrap(), 0);
    host.write_all(b"still").unwrap();
    host.shutdown(std::net::Shutdown::Write).unwrap();
    driver.serve();
    driver.serve();
    let packets = driver.received();
    assert_eq!(packets[0].1, b"still");
    assert_eq!(packets[1].0.op(), Some(Op::Shutdown));
    assert_eq!(packets[1].0.flags & SHUTDOWN_SEND, SHUTDOWN_SEND);
}

#[test]
fn the_host_can_dial_the_guest() {
    let mem = memory();
    let mut driver = Driver::new(&mem);
    driver.offer(16, 4096);
    let mut host = UnixStream::connect(driver.dir.path().join("v")).unwrap();
    host.write_all(b"CONNECT 1025\nearly").unwrap();
    driver.serve(); // accepts
    driver.serve(); // hears
    let request = driver.received()[0].0;
    assert_eq!((request.op(), request.dst_port), (Some(Op::Request), 1025));
    let mut answer = packet(request.src_port, Op::Response, 0);
    answer.src_port = 1025;
    driver.send(answer, &[]);
    driver.serve();
    driver.serve();
    let mut line = [0; 64];
    let count = host.read(&mut line).unwrap();
    assert_eq!(
        line[..count],
        *format!("OK {}\n", request.src_port).as_bytes()
    );
    assert_eq!(driver.received()[0].1, b"early");
}

#[test]
fn ports_where_nobody_listens_are_reset() {
    let mem = memory();
    let mut driver = Driver::new(&mem);
    driver.offer(16, 4096);
    for port in [1, 77, u32::MAX] {
        driver.send(packet(port, Op::Request, 0), &[]);
    }
    driver.serve();
    let ops: Vec<_> = driver.received().iter().map(|(h, _)| h.op()).collect();
    assert_eq!(ops, [Some(Op::Reset); 3]);
    assert!(driver.core.connections.is_empty());
}

#[test]
fn a_guest_that_ignores_its_credit_is_cut_off() {
    let mem = memory();
    let mut driver = Driver::new(&mem);
    driver.offer(32, 4096);
    let host = driver.connect(1024); // reads nothing
    let chunk = vec![7; 32 * 1024];
    for _ in 0..200 {
        driver.send(packet(1024, Op::Data, chunk.len()), &chunk);
        driver.serve();
    }
    assert!(driver.core.connections.is_empty());
    assert!(
        driver
            .received()
            .iter()
            .any(|(h, _)| h.op() == Some(Op::Reset))
    );
    drop(host);
}

#[test]
fn the_guests_credit_bounds_what_it_gets() {
    let mem = memory();
    let mut driver = Driver::new(&mem);
    driver.offer(QUEUE_LEN, 4096);
    let mut host = driver.connect(1024);
    host.set_nonblocking(true).unwrap();
    while host.write(&[1; 4096]).is_ok() {}
    for _ in 0..8 {
        driver.serve();
    }
    let bytes: usize = driver
        .received()
        .iter()
        .map(|(_, payload)| payload.len())
        .sum();
    assert_eq!(bytes, 64 * 1024);
    // It consumes: as much again comes, and no more.
    driver.offer(16, 4096);
    let mut update = packet(1024, Op::CreditUpdate, 0);
    update.fwd_cnt = 64 * 1024;
    driver.send(update, &[]);
    for _ in 0..8 {
        driver.serve();
    }
    let bytes: usize = driver
        .received()
        .iter()
        .map(|(_, payload)| payload.len())
        .sum();
    assert_eq!(bytes, 64 * 1024);
}

#[test]
fn a_closed_host_delivers_its_last_bytes_first() {
    let mem = memory();
    let mut driver = Driver::new(&mem);
    driver.offer(QUEUE_LEN, 4096);
    let mut host = driver.connect(1024);
    host.write_all(&[9; 10_000]).unwrap();
    drop(host);
    for _ in 0..8 {
        driver.serve();
    }
    let packets = driver.received();
    let bytes: usize = packets.iter().map(|(_, payload)| payload.len()).sum();
    assert_eq!(bytes, 10_000);
    let last = packets.last().unwrap().0;
    assert_eq!(last.op(), Some(Op::Shutdown));
    assert_eq!(last.flags, SHUTDOWN_SEND | SHUTDOWN_RECEIVE);
    driver.send(packet(1024, Op::Reset, 0), &[]);
    driver.serve();
    assert!(driver.core.connections.is_empty());
}

#[test]
fn hostile_packets_cost_only_their_sender() {
    let mem = memory();
    let mut driver = Driver::new(&mem);
    driver.offer(QUEUE_LEN, 4096);
    let _host = driver.connect(1024);
    let good = packet(1024, Op::Data, 4);
    let lies = [
        Header {
            len: u32::MAX,
            ..good
        },
        Header {
            len: 65 * 1024,
            ..good
        },
        Header { len: 5000, ..good }, // longer than its chain
        Header {
            src_cid: 99,
            ..good
        },
        Header { dst_cid: 1, ..good },
    ];
    for lie in lies {
        driver.send(lie, b"abcd");
        driver.serve();
    }
    assert_eq!(driver.core.connections.len(), 1);
    // Another socket type, or an unknown operation, ends the connection it names.
    driver.send(Header { kind: 2, ..good }, b"abcd");
    driver.serve();
    assert!(driver.core.connections.is_empty());
    driver.send(Header { op: 999, ..good }, b"abcd");
    driver.serve();
    // Descriptors that point nowhere, wrap, or are too short for a header.
    driver.send_raw(&[(u64::MAX - 8, 64, 0)]);
    driver.send_raw(&[(0xfff_ffff_f000, 64, 0)]);
    driver.send_raw(&[(TX_BASE, 3, 0)]);
    driver.send_raw(&[(TX_BASE, 0, 0)]);
    driver.serve();
    assert_eq!(driver.tx_ring.used().idx().load(), driver.tx_added);
}

#[test]
fn answers_without_receive_buffers_hold_up_the_sender_alone() {
    let mem = memory();
    let mut driver = Driver::new(&mem);
    for _ in 0..10_000 {
        // A well-behaved queue, but nowhere to put the resets.
        if driver.tx_added - driver.tx_ring.used().idx().load() < QUEUE_LEN / 4 {
            driver.send(packet(9, Op::Data, 4), b"spam");
        }
        driver.serve();
    }
    assert_eq!(driver.core.answers.len(), MAX_ANSWERS);
    driver.offer(QUEUE_LEN, 4096);
    driver.serve();
    assert!(driver.received().len() >= usize::from(QUEUE_LEN) - 1);
}

#[test]
fn receive_buffers_without_room_are_given_back() {
    let mem = memory();
    let mut driver = Driver::new(&mem);
    driver.offer(4, 20);
    driver.offer(4, 4096);
    driver.send(packet(9, Op::Request, 0), &[]);
    driver.serve();
    let ops: Vec<_> = driver.received().iter().map(|(h, _)| h.op()).collect();
    assert_eq!(ops, [Some(Op::Reset)]);
}

#[test]
fn callers_who_talk_nonsense_are_hung_up_on() {
    let mem = memory();
    let mut driver = Driver::new(&mem);
    for words in [
        &b"HELLO 12\n"[..],
        b"CONNECT x\n",
        &[b'A'; 100],
        b"CONNECT 4294967296\n",
    ] {
        let mut caller = UnixStream::connect(driver.dir.path().join("v")).unwrap();
        caller.write_all(words).unwrap();
        driver.serve();
        driver.serve();
        // Closed with bytes unread is a reset, without is an end.
        assert_eq!(caller.read(&mut [0; 8]).unwrap_or(0), 0);
    }
    assert!(driver.core.connections.is_empty());
}
