//! The device's core against a driver played by hand, over real guest memory and real sockets.

use super::*;
use crate::memory::GuestRam;
use crate::virtio::testing::{DATA, Junk, NEXT, Ring, WRITE, ram};
use packet::{SHUTDOWN_RECEIVE, SHUTDOWN_SEND};
use std::io::{Read, Write};
use vm_memory::{Bytes, GuestAddress};

const GUEST: u64 = 3;
const QUEUE_LEN: u16 = 64;
const RX_BASE: u64 = DATA;
const TX_BASE: u64 = DATA + 0x60_0000;
const SLOT: u64 = 0x1_1000;

/// A guest driver: it lays packets into memory and reads what comes back.
struct Driver {
    ram: GuestRam,
    rx_ring: Ring,
    tx_ring: Ring,
    rx: Queue,
    tx: Queue,
    rx_added: u16,
    tx_added: u16,
    core: VsockCore,
    dir: tempfile::TempDir,
}

impl Driver {
    fn new() -> Self {
        let ram = ram();
        let rx_ring = Ring::new(&ram, 0, QUEUE_LEN);
        let tx_ring = Ring::new(&ram, 1, QUEUE_LEN);
        let dir = tempfile::tempdir().unwrap();
        Self {
            rx: rx_ring.queue(),
            tx: tx_ring.queue(),
            core: VsockCore::new(GUEST, &dir.path().join("v")).unwrap(),
            ram,
            rx_ring,
            tx_ring,
            rx_added: 0,
            tx_added: 0,
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
            self.rx_ring.descriptor(slot, (at, len, WRITE, 0));
            self.rx_ring.offer(slot);
            self.rx_added += 1;
        }
    }

    fn send_raw(&mut self, descriptors: &[(u64, u32, u16)]) {
        let slot = self.tx_added % (QUEUE_LEN / 4) * 4;
        for (i, (at, len, flags)) in (0u16..).zip(descriptors) {
            self.tx_ring
                .descriptor(slot + i, (*at, *len, *flags, slot + i + 1));
        }
        self.tx_ring.offer(slot);
        self.tx_added += 1;
    }

    fn send(&mut self, header: Header, payload: &[u8]) {
        let at = TX_BASE + u64::from(self.tx_added % (QUEUE_LEN / 4)) * SLOT;
        let mut wire = header.bytes().to_vec();
        wire.extend_from_slice(payload);
        self.ram.write_slice(&wire, GuestAddress(at)).unwrap();
        let header_len = HEADER_LEN as u32;
        if payload.is_empty() {
            self.send_raw(&[(at, header_len, 0)]);
        } else {
            let len = payload.len() as u32;
            self.send_raw(&[(at, header_len, NEXT), (at + u64::from(header_len), len, 0)]);
        }
    }

    fn serve(&mut self) -> Served {
        self.core
            .service(&self.ram, &mut self.rx, &mut self.tx)
            .unwrap()
    }

    /// Serves as long as anything may come of it; answers how many bytes of data arrived.
    fn serve_and_count(&mut self) -> usize {
        for _ in 0..8 {
            self.serve();
        }
        let packets = self.received();
        packets.iter().map(|(_, payload)| payload.len()).sum()
    }

    /// Every packet that arrived since the last call.
    fn received(&mut self) -> Vec<(Header, Vec<u8>)> {
        let mut packets = Vec::new();
        while let Some((head, len)) = self.rx_ring.take() {
            let at = RX_BASE + u64::from(head) * SLOT;
            let mut wire = vec![0; len as usize];
            self.ram.read_slice(&mut wire, GuestAddress(at)).unwrap();
            if let Some((header, rest)) = wire.split_first_chunk() {
                packets.push((Header::parse(header), rest.to_vec()));
            }
        }
        packets
    }

    /// Opens a connection to `port` and returns the host's end.
    fn connect(&mut self, port: u32) -> UnixStream {
        let listener = self.listen(port);
        self.send(packet(port, Op::Request, 0), &[]);
        self.serve();
        let ops: Vec<_> = self.received().iter().map(|(h, _)| op(h)).collect();
        assert_eq!(ops, [Some(Op::Response)]);
        listener.accept().unwrap().0
    }
}

const GUEST_PORT: u32 = 5000;

const fn op(header: &Header) -> Option<Op> {
    Op::from_u16(header.op)
}

fn packet(host_port: u32, op: Op, len: usize) -> Header {
    Header {
        src_cid: GUEST,
        dst_cid: HOST_CID,
        src_port: GUEST_PORT,
        dst_port: host_port,
        len: len as u32,
        kind: TYPE_STREAM,
        op: op as u16,
        flags: 0,
        buf_alloc: 64 * 1024,
        fwd_cnt: 0,
    }
}

#[test]
fn bytes_and_half_closes_go_both_ways() {
    let mut driver = Driver::new();
    driver.offer(16, 4096);
    let mut host = driver.connect(1024);

    driver.send(packet(1024, Op::Rw, 5), b"hello");
    driver.serve();
    let mut buffer = [0; 5];
    host.read_exact(&mut buffer).unwrap();
    assert_eq!(&buffer, b"hello");

    host.write_all(b"world").unwrap();
    driver.serve();
    let packets = driver.received();
    assert_eq!(op(&packets[0].0), Some(Op::Rw));
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
    assert_eq!(op(&packets[1].0), Some(Op::Shutdown));
    assert_eq!(packets[1].0.flags & SHUTDOWN_SEND, SHUTDOWN_SEND);
}

#[test]
fn the_host_can_dial_the_guest() {
    let mut driver = Driver::new();
    driver.offer(16, 4096);
    let mut host = UnixStream::connect(driver.dir.path().join("v")).unwrap();
    host.write_all(b"CONNECT 1025\nearly").unwrap();
    driver.serve(); // accepts
    driver.serve(); // hears
    let request = driver.received()[0].0;
    assert_eq!((op(&request), request.dst_port), (Some(Op::Request), 1025));
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
    let mut driver = Driver::new();
    driver.offer(16, 4096);
    for port in [1, 77, u32::MAX] {
        driver.send(packet(port, Op::Request, 0), &[]);
    }
    driver.serve();
    let ops: Vec<_> = driver.received().iter().map(|(h, _)| op(h)).collect();
    assert_eq!(ops, [Some(Op::Rst); 3]);
    assert!(driver.core.connections.is_empty());
}

#[test]
fn a_guest_that_ignores_its_credit_is_cut_off() {
    let mut driver = Driver::new();
    driver.offer(32, 4096);
    let host = driver.connect(1024); // reads nothing
    let chunk = vec![7; 32 * 1024];
    for _ in 0..200 {
        driver.send(packet(1024, Op::Rw, chunk.len()), &chunk);
        driver.serve();
    }
    assert!(driver.core.connections.is_empty());
    assert!(
        driver
            .received()
            .iter()
            .any(|(h, _)| op(h) == Some(Op::Rst))
    );
    drop(host);
}

#[test]
fn the_guests_credit_bounds_what_it_gets() {
    let mut driver = Driver::new();
    driver.offer(QUEUE_LEN, 4096);
    let mut host = driver.connect(1024);
    host.set_nonblocking(true).unwrap();
    while host.write(&[1; 4096]).is_ok() {}
    assert_eq!(driver.serve_and_count(), 64 * 1024);
    // It consumes: as much again comes, and no more.
    driver.offer(16, 4096);
    let mut update = packet(1024, Op::CreditUpdate, 0);
    update.fwd_cnt = 64 * 1024;
    driver.send(update, &[]);
    assert_eq!(driver.serve_and_count(), 64 * 1024);
}

#[test]
fn a_closed_host_delivers_its_last_bytes_first() {
    let mut driver = Driver::new();
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
    assert_eq!(op(&last), Some(Op::Shutdown));
    assert_eq!(last.flags, SHUTDOWN_SEND | SHUTDOWN_RECEIVE);
    driver.send(packet(1024, Op::Rst, 0), &[]);
    driver.serve();
    assert!(driver.core.connections.is_empty());
}

#[test]
fn hostile_packets_cost_only_their_sender() {
    let mut driver = Driver::new();
    driver.offer(QUEUE_LEN, 4096);
    let _bystander = driver.connect(77);
    let good = packet(1024, Op::Rw, 4);
    for lie in [
        Header {
            len: u32::MAX,
            ..good
        },
        Header {
            len: 65 * 1024,
            ..good
        },
        // Longer than its chain.
        Header { len: 5000, ..good },
        Header { kind: 2, ..good },
        Header { op: 999, ..good },
        Header { op: 0, ..good },
        packet(1024, Op::Response, 0),
        packet(1024, Op::Request, 0),
    ] {
        let host = driver.connect(1024);
        driver.send(lie, b"abcd");
        driver.serve();
        assert_eq!(driver.core.connections.len(), 1, "{lie:?}");
        assert_eq!(op(&driver.received()[0].0), Some(Op::Rst));
        driver.offer(2, 4096);
        drop(host);
        std::fs::remove_file(driver.dir.path().join("v_1024")).unwrap();
    }
    // From or to nobody: there is no stream they could belong to.
    for lie in [
        Header {
            src_cid: 99,
            dst_port: 77,
            ..good
        },
        Header {
            dst_cid: 1,
            dst_port: 77,
            ..good
        },
    ] {
        driver.send(lie, b"abcd");
        driver.serve();
        assert!(driver.received().is_empty());
    }
    // Descriptors that point nowhere, wrap, or are too short for a header.
    driver.send_raw(&[(u64::MAX - 8, 64, 0)]);
    driver.send_raw(&[(0xfff_ffff_f000, 64, 0)]);
    driver.send_raw(&[(TX_BASE, 3, 0)]);
    driver.send_raw(&[(TX_BASE, 0, 0)]);
    driver.serve();
    assert_eq!(driver.tx_ring.used_index(), driver.tx_added);
    assert_eq!(driver.core.connections.len(), 1);
}

#[test]
fn what_a_guest_sent_before_its_end_arrives() {
    for last in [Op::Rst, Op::Shutdown] {
        let mut driver = Driver::new();
        driver.offer(QUEUE_LEN, 4096);
        let mut host = driver.connect(1024);
        // More than the socket takes, less than we promised to keep.
        let chunk = vec![7; 60 * 1024];
        let mut sent = 0;
        while driver.core.buffered() < 100_000 {
            driver.send(packet(1024, Op::Rw, chunk.len()), &chunk);
            driver.serve();
            sent += chunk.len();
        }
        let end = Header {
            flags: SHUTDOWN_BOTH,
            ..packet(1024, last, 0)
        };
        driver.send(end, &[]);
        driver.serve();
        let mut buffer = vec![0; 1 << 20];
        let mut got = 0;
        loop {
            match host.read(&mut buffer).unwrap() {
                0 => break,
                count => got += count,
            }
            driver.serve();
        }
        assert_eq!(got, sent);
        assert!(driver.core.connections.is_empty());
        let resets = driver
            .received()
            .iter()
            .filter(|(h, _)| op(h) == Some(Op::Rst))
            .count();
        assert_eq!(resets, usize::from(last == Op::Shutdown));
    }
}

#[test]
fn connect_storms_stop_at_the_limit() {
    let mut driver = Driver::new();
    driver.offer(QUEUE_LEN, 4096);
    let listener = driver.listen(1024);
    listener.set_nonblocking(true).unwrap();
    let mut hosts = Vec::new();
    for port in 0..3000u32 {
        let header = Header {
            src_port: port,
            ..packet(1024, Op::Request, 0)
        };
        driver.send(header, &[]);
        driver.serve();
        let answers = driver.received().len() as u16;
        driver.offer(answers, 4096);
        hosts.extend(listener.accept().ok());
        assert!(driver.core.connections.len() <= MAX_CONNECTIONS);
    }
    assert_eq!(hosts.len(), MAX_CONNECTIONS);
}

#[test]
fn junk_packets_and_chains_of_any_form_are_survived() {
    let mut driver = Driver::new();
    let listener = driver.listen(1024);
    listener.set_nonblocking(true).unwrap();
    let mut hosts = Vec::new();
    let mut junk = Junk(0xfeed_beef_1234_5678);
    for _ in 0..20_000 {
        let header = Header {
            src_port: junk.below(3) as u32,
            dst_port: [1024, 77][junk.below(2) as usize],
            kind: 1 + u16::from(junk.below(16) == 0),
            op: junk.below(9) as u16,
            flags: junk.below(5) as u32,
            len: [0, 4, 100, 70_000][junk.below(4) as usize],
            buf_alloc: [0, 1, 4096, u32::MAX][junk.below(4) as usize],
            fwd_cnt: junk.next() as u32,
            ..packet(0, Op::Rw, 0)
        };
        driver.send(header, &[0x55; 100]);
        if junk.below(3) == 0 {
            let (at, len) = (TX_BASE + junk.below(1 << 24), junk.next() as u32);
            driver.send_raw(&[(at, len, junk.next() as u16)]);
        }
        driver.serve();
        let room = QUEUE_LEN - 1 - (driver.rx_added - driver.rx_ring.used_index());
        driver.received();
        driver.offer(
            junk.below(u64::from(room) + 1) as u16,
            20 + junk.below(5000) as u32,
        );
        hosts.extend(listener.accept().ok());
        if hosts.len() > 2 {
            let mut host: UnixStream = hosts.swap_remove(junk.below(3) as usize).0;
            let _ = host.write(&[1; 10_000]);
        }
        assert!(driver.core.buffered() <= 1 << 20);
        assert!(driver.core.resets.len() <= MAX_RESETS);
    }
}

#[test]
fn an_index_that_leaps_breaks_the_queue() {
    let mut driver = Driver::new();
    driver.tx_ring.leap(QUEUE_LEN + 1);
    assert_eq!(
        driver
            .core
            .service(&driver.ram, &mut driver.rx, &mut driver.tx),
        Err(QueueBroken)
    );
}

#[test]
fn resets_without_receive_buffers_are_bounded() {
    let mut driver = Driver::new();
    for _ in 0..10_000 {
        driver.send(packet(9, Op::Rw, 4), b"spam");
        driver.serve();
    }
    assert_eq!(driver.core.resets.len(), MAX_RESETS);
    driver.offer(QUEUE_LEN, 4096);
    driver.serve();
    assert_eq!(driver.received().len(), usize::from(QUEUE_LEN));
}

#[test]
fn the_guest_is_told_of_packets_that_were_taken_together() {
    let mut driver = Driver::new();
    let told = |driver: &mut Driver, packets: usize| -> Vec<bool> {
        (0..packets)
            .map(|_| {
                driver.send(packet(9, Op::Rst, 0), &[]);
                let served = driver.serve();
                assert!(!served.rx);
                served.tx
            })
            .collect()
    };
    let mut expected = vec![false; 15];
    expected.push(true);
    assert_eq!(told(&mut driver, 16), expected);
    assert_eq!(told(&mut driver, 16), expected);
    // With what it hears anyway.
    assert_eq!(told(&mut driver, 3), [false; 3]);
    driver.offer(1, 4096);
    driver.send(packet(9, Op::Request, 0), &[]);
    let served = driver.serve();
    assert!(served.rx && served.tx);
    driver.offer(1, 4096);
    assert!(!driver.serve().tx);
    // No more than so much of its memory waits.
    let data = vec![0; 60 << 10];
    let taken: Vec<bool> = (0..5)
        .map(|_| {
            driver.send(packet(9, Op::Rst, data.len() as _), &data);
            driver.serve().tx
        })
        .collect();
    assert_eq!(taken, [false, false, false, false, true]);
}

#[test]
fn receive_buffers_without_room_are_given_back() {
    let mut driver = Driver::new();
    driver.offer(4, 20);
    driver.offer(4, 4096);
    driver.send(packet(9, Op::Request, 0), &[]);
    driver.serve();
    let ops: Vec<_> = driver.received().iter().map(|(h, _)| op(h)).collect();
    assert_eq!(ops, [Some(Op::Rst)]);
}

/// A stream's data waits, and the guest offers buffers that take a header and no data.
#[test]
fn receive_buffers_without_room_for_data_are_given_back_once() {
    let mut driver = Driver::new();
    driver.offer(1, 4096);
    let mut host = driver.connect(1024);
    host.write_all(b"hello").unwrap();
    let before = driver.rx_ring.used_index();
    driver.offer(1, HEADER_LEN as u32);
    assert!(!driver.serve().more);
    assert_eq!(driver.rx_ring.used_index(), before + 1);
    assert!(driver.received().is_empty());
    // All that the queue holds, and then one that has room.
    driver.offer(QUEUE_LEN - 1, HEADER_LEN as u32);
    driver.offer(1, HEADER_LEN as u32 + 2);
    assert!(!driver.serve().more);
    let data: Vec<_> = driver
        .received()
        .into_iter()
        .map(|(_, data)| data)
        .collect();
    assert_eq!(data, [b"he".to_vec()]);
    // What needs no room for data is told all the same, whoever waits before it.
    driver.send(packet(9, Op::Request, 0), &[]);
    driver.offer(1, HEADER_LEN as u32);
    driver.serve();
    let ops: Vec<_> = driver.received().iter().map(|(h, _)| op(h)).collect();
    assert_eq!(ops, [Some(Op::Rst)]);
    driver.offer(1, 4096);
    driver.serve();
    assert_eq!(driver.received()[0].1, b"llo");
}

#[test]
fn callers_who_talk_nonsense_are_hung_up_on() {
    let mut driver = Driver::new();
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
