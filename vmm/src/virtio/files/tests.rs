use super::*;
use crate::memory::{GuestRam, RegisterPages};
use crate::virtio::registers::{STATUS, status};
use crate::virtio::testing::{
    DATA, INDIRECT, Junk, NEXT, Pulses, RAM_END, Ring, WRITE, counted_activation, ram,
};
use crate::virtio::{Backend, Immediate};
use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::epoll::EventSet;

const SIZE: u16 = 16;
/// Where a request with this head lies, and what of it is for its reply.
const SLOT: u64 = 0x1_0000;
const REPLY_AT: u64 = 0x8000;

fn slot(head: u16) -> u64 {
    DATA + u64::from(head) * SLOT
}

/// A guest with a device, and who serves its files.
struct Scene {
    ram: GuestRam,
    hiprio: Ring,
    requests: Ring,
    files: Files,
    shared: Arc<Shared>,
    server: UnixStream,
    pulses: Arc<Pulses>,
    registers: Arc<RegisterPages>,
}

impl Scene {
    fn new() -> Self {
        let scene = Self::unattached();
        let (ours, theirs) = UnixStream::pair().unwrap();
        theirs.set_nonblocking(true).unwrap();
        assert!(scene.shared.connect(ours.into()));
        Self {
            server: theirs,
            ..scene
        }
    }

    fn unattached() -> Self {
        let ram = ram();
        let (hiprio, requests) = (Ring::new(&ram, 0, SIZE), Ring::new(&ram, 1, SIZE));
        let (activation, registers, pulses) = counted_activation(&ram, &[&hiprio, &requests]);
        let shared = Arc::<Shared>::default();
        let mut files = Files::new(Arc::clone(&shared));
        files.activate(activation);
        Self {
            ram,
            hiprio,
            requests,
            files,
            shared,
            server: UnixStream::pair().unwrap().0,
            pulses,
            registers,
        }
    }

    /// Put a request of so many bytes, and a place for so many, into the queue.
    fn ask(&mut self, head: u16, unique: u64, bytes: u32, reply: u32) {
        self.put(head, unique, bytes);
        let at = slot(head);
        // Descriptors in pairs, so that there are half as many chains as in the ring.
        let first = head * 2;
        match reply {
            0 => self.requests.descriptor(first, (at, bytes, 0, 0)),
            _ => {
                self.requests
                    .descriptor(first, (at, bytes, NEXT, first + 1));
                self.requests
                    .descriptor(first + 1, (at + REPLY_AT, reply, WRITE, 0));
            }
        }
        self.requests.offer(first);
    }

    fn put(&self, head: u16, unique: u64, bytes: u32) {
        let at = slot(head);
        let body = vec![head as u8 ^ unique as u8; bytes as usize];
        self.ram.write_slice(&body, GuestAddress(at)).unwrap();
        self.requests.put(bytes, at);
        self.requests.put(26u32, at + 4);
        self.requests.put(unique, at + 8);
    }

    /// What has come, as the server reads it.
    fn received(&mut self) -> Vec<(u64, Vec<u8>)> {
        let mut bytes = Vec::new();
        match self.server.read_to_end(&mut bytes) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            other => drop(other.unwrap()),
        }
        let mut messages = Vec::new();
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let length = u32::from_le_bytes(rest[..4].try_into().unwrap()) as usize;
            let unique = u64::from_le_bytes(rest[8..16].try_into().unwrap());
            messages.push((unique, rest[..length].to_vec()));
            rest = &rest[length..];
        }
        messages
    }

    fn reply(&mut self, unique: u64, error: i32, body: &[u8]) {
        self.server
            .write_all(&message(unique, error, body))
            .unwrap();
    }

    /// The next chain that came back: its head, the length, and what is in its place for a reply.
    fn answer(&mut self) -> Option<(u16, Vec<u8>)> {
        let (first, length) = self.requests.take()?;
        let head = (first / 2) as u16;
        let mut bytes = vec![0; length as usize];
        let at = GuestAddress(slot(head) + REPLY_AT);
        self.ram.read_slice(&mut bytes, at).unwrap();
        Some((head, bytes))
    }

    fn needs_reset(&self) -> bool {
        self.registers.load(STATUS) & status::NEEDS_RESET != 0
    }

    /// Whether the other end hears that it is over.
    fn is_over(&mut self) -> bool {
        let mut bytes = [0; 1 << 16];
        loop {
            match self.server.read(&mut bytes) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) => return error.kind() != ErrorKind::WouldBlock,
            }
        }
    }
}

fn message(unique: u64, error: i32, body: &[u8]) -> Vec<u8> {
    let length = (OUT_HEADER + body.len()) as u32;
    let mut bytes = length.to_le_bytes().to_vec();
    bytes.extend_from_slice(&error.to_le_bytes());
    bytes.extend_from_slice(&unique.to_le_bytes());
    bytes.extend_from_slice(body);
    bytes
}

fn io_error(unique: u64) -> Vec<u8> {
    message(unique, IO_ERROR, &[])
}

#[test]
fn a_driver_sees_the_tag_and_one_request_queue() {
    let identity = identity(&FilesConfig {
        tag: "files".into(),
    });
    assert_eq!((identity.kind, identity.queue_sizes.len()), (26, 2));
    assert_eq!(&identity.config[..6], b"files\0");
    assert_eq!(identity.config[36..], [1, 0, 0, 0]);
    // 1 MiB of pages and four more descriptors.
    assert!(usize::from(identity.queue_sizes[1]) >= 256 + 4);
}

#[test]
fn requests_go_out_as_they_are_and_replies_come_back_in_any_order() {
    let mut scene = Scene::new();
    for head in 0..4 {
        scene.ask(head, 100 + u64::from(head), 60, 64);
    }
    assert!(!scene.files.notify());
    let received = scene.received();
    let uniques: Vec<_> = received.iter().map(|(unique, _)| *unique).collect();
    assert_eq!(uniques, [100, 101, 102, 103]);
    assert_eq!(received[2].1[40..], [2 ^ 102; 20]);
    assert_eq!(scene.pulses.take(), 0);
    assert_eq!(scene.answer(), None);
    for unique in [102, 100, 103] {
        scene.reply(unique, 0, &[unique as u8; 48]);
    }
    assert!(!scene.files.ready());
    // One interrupt for the three.
    assert_eq!(scene.pulses.take(), 1);
    for unique in [102u64, 100, 103] {
        let wanted = message(unique, 0, &[unique as u8; 48]);
        assert_eq!(scene.answer(), Some(((unique - 100) as u16, wanted)));
    }
    assert_eq!(scene.answer(), None);
    // The last one alone, an error and nothing else.
    scene.reply(101, -2, &[]);
    scene.files.ready();
    assert_eq!(scene.answer(), Some((1, message(101, -2, &[]))));
    assert_eq!(scene.pulses.take(), 1);
    // Nothing there: nothing happens.
    assert!(!scene.files.ready());
    assert_eq!(scene.pulses.take(), 0);
}

#[test]
fn what_gets_no_reply_goes_back_at_once_and_the_urgent_goes_first() {
    let mut scene = Scene::new();
    scene.ask(0, 7, 40, 16);
    scene.put(1, 8, 48);
    scene.hiprio.descriptor(3, (slot(1), 48, 0, 0));
    scene.hiprio.offer(3);
    assert!(!scene.files.notify());
    assert_eq!(scene.hiprio.take(), Some((3, 0)));
    assert_eq!(scene.pulses.take(), 1);
    let uniques: Vec<_> = scene.received().iter().map(|(unique, _)| *unique).collect();
    assert_eq!(uniques, [8, 7]);
    assert_eq!(scene.answer(), None);
}

#[test]
fn replies_that_dribble_are_put_together() {
    let mut scene = Scene::new();
    for head in 0..3 {
        scene.ask(head, u64::from(head) + 1, 40, 100);
    }
    scene.files.notify();
    let mut bytes = Vec::new();
    for unique in [3, 1, 2] {
        bytes.extend(message(unique, 0, &[unique as u8; 70]));
    }
    for byte in bytes {
        scene.server.write_all(&[byte]).unwrap();
        scene.files.ready();
    }
    for unique in [3u64, 1, 2] {
        let wanted = message(unique, 0, &[unique as u8; 70]);
        assert_eq!(scene.answer(), Some((unique as u16 - 1, wanted)));
    }
}

#[test]
fn without_a_server_every_request_fails() {
    let mut scene = Scene::unattached();
    scene.ask(0, 5, 40, 16);
    scene.ask(1, 6, 40, 0);
    assert!(!scene.files.notify());
    assert_eq!(scene.answer(), Some((0, io_error(5))));
    assert_eq!(scene.requests.take(), Some((2, 0)));
    assert_eq!(scene.pulses.take(), 1);
    assert_eq!(scene.files.poll_fd(), None);
    assert!(!scene.shared.serve());
}

#[test]
fn when_the_server_ends_all_requests_fail_waiting_and_later() {
    let mut scene = Scene::new();
    scene.ask(0, 1, 40, 64);
    scene.ask(1, 2, 40, 64);
    scene.files.notify();
    assert_eq!(scene.files.interest(), EventSet::IN);
    // One was on its way.
    let half = message(2, 0, &[9; 32]);
    scene.server.write_all(&half[..30]).unwrap();
    scene.files.ready();
    scene.server = UnixStream::pair().unwrap().0;
    assert!(!scene.files.ready());
    let mut answers = [scene.answer().unwrap(), scene.answer().unwrap()];
    answers.sort();
    assert_eq!(answers, [(0, io_error(1)), (1, io_error(2))]);
    assert_eq!(scene.pulses.take(), 1);
    assert_eq!(scene.files.interest(), EventSet::empty());
    scene.ask(2, 3, 40, 16);
    scene.files.notify();
    assert_eq!(scene.answer(), Some((2, io_error(3))));
    assert!(!scene.needs_reset());
}

#[test]
fn an_end_that_shows_as_a_request_goes_out_fails_all_that_are_there() {
    let mut scene = Scene::new();
    scene.server = UnixStream::pair().unwrap().0;
    for head in 0..3 {
        scene.ask(head, u64::from(head), 40, 16);
    }
    assert!(!scene.files.notify());
    for head in 0..3 {
        assert_eq!(scene.answer(), Some((head, io_error(head.into()))));
    }
}

#[test]
fn a_reply_that_lies_ends_the_connection() {
    let short = {
        let mut bytes = message(1, 0, &[]);
        bytes[0] = 15;
        bytes
    };
    let long = {
        let mut bytes = message(1, 0, &[]);
        bytes[..4].copy_from_slice(&u32::MAX.to_le_bytes());
        bytes
    };
    let lies: [(&str, Vec<u8>); 5] = [
        ("to nobody", message(9, 0, &[0; 8])),
        ("longer than its place", message(1, 0, &[0; 49])),
        ("shorter than a header", short),
        ("longer than anything", long),
        ("twice", [message(1, 0, &[]), message(1, 0, &[])].concat()),
    ];
    for others in [0, 1] {
        for (what, lie) in &lies {
            let mut scene = Scene::new();
            scene.ask(0, 1, 40, 64);
            for head in 1..=others {
                scene.ask(head, 1 + u64::from(head), 40, 64);
            }
            scene.files.notify();
            scene.server.write_all(lie).unwrap();
            scene.files.ready();
            scene.files.ready();
            let (head, answer) = scene.answer().unwrap();
            if *what == "twice" && (head, others) == (0, 1) {
                assert_eq!(answer, message(1, 0, &[]));
                assert_eq!(scene.answer(), Some((1, io_error(2))), "{what}");
            } else if *what == "twice" {
                // Its second half came with the first: neither is believed.
                assert_eq!(answer, io_error(1));
            } else {
                assert_eq!(answer[4..8], IO_ERROR.to_le_bytes(), "{what}");
            }
            assert!(scene.is_over(), "{what}");
            assert!(!scene.needs_reset(), "{what}");
            scene.ask(4, 44, 40, 16);
            scene.files.notify();
            let mut last = None;
            while let Some(answer) = scene.answer() {
                last = Some(answer);
            }
            assert_eq!(last, Some((4, io_error(44))), "{what}");
        }
    }
}

#[test]
fn what_nobody_asked_for_ends_the_connection_too() {
    let mut scene = Scene::new();
    scene.reply(0, 1, &[1; 4]);
    scene.files.ready();
    assert!(scene.is_over());
}

#[test]
fn requests_that_lie_are_refused_and_go_nowhere() {
    let mut scene = Scene::new();
    // One that says it is longer, and one shorter; a header that is cut off; a reply without room for its
    // header; a number that is in use.
    scene.ask(0, 1, 60, 16);
    scene.requests.put(61u32, slot(0));
    scene.ask(1, 2, 60, 16);
    scene.requests.put(59u32, slot(1));
    scene.ask(2, 3, 39, 16);
    scene.ask(3, 4, 40, 15);
    scene.ask(4, 5, 40, 16);
    scene.ask(5, 5, 40, 16);
    scene.files.notify();
    let uniques: Vec<_> = scene.received().iter().map(|(unique, _)| *unique).collect();
    assert_eq!(uniques, [5]);
    for (head, answer) in [
        (0, io_error(1)),
        (1, io_error(2)),
        (2, vec![]),
        (3, vec![]),
        (5, io_error(5)),
    ] {
        assert_eq!(scene.answer(), Some((head, answer)));
    }
    scene.reply(5, 0, &[]);
    scene.files.ready();
    assert_eq!(scene.answer(), Some((4, message(5, 0, &[]))));
}

/// Offer a request of so many bytes, with a MiB for each before it.
fn offer_long(scene: &mut Scene, head: u16, unique: u64, bytes: u32) {
    let at = DATA + (u64::from(head) << 19);
    scene.requests.put(bytes, at);
    scene.requests.put(unique, at + 8);
    scene.requests.descriptor(head, (at, bytes, NEXT, head + 1));
    scene
        .requests
        .descriptor(head + 1, (RAM_END - 4096, 64, WRITE, 0));
    scene.requests.offer(head);
}

#[test]
fn the_longest_request_goes_out_and_a_longer_one_does_not() {
    let mut scene = Scene::new();
    let longest = MAX_MESSAGE as u32;
    offer_long(&mut scene, 0, 7, longest);
    scene.files.notify();
    let mut total = 0;
    while total < MAX_MESSAGE {
        let mut bytes = [0; 1 << 16];
        match scene.server.read(&mut bytes) {
            Ok(0) => panic!("the end"),
            Ok(count) => total += count,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                assert!(scene.files.interest().contains(EventSet::OUT));
                scene.files.ready();
            }
        }
    }
    assert_eq!(total, MAX_MESSAGE);
    scene.files.ready();
    assert_eq!(scene.files.interest(), EventSet::IN);
    assert_eq!(scene.requests.take(), None);
    offer_long(&mut scene, 2, 8, longest + 1);
    offer_long(&mut scene, 4, 8, 11 << 20);
    scene.files.notify();
    assert_eq!(scene.requests.take(), Some((2, 16)));
    assert_eq!(scene.requests.take(), Some((4, 16)));
}

#[test]
fn while_the_socket_takes_nothing_the_queue_is_not_read() {
    let mut scene = Scene::new();
    let mut offered = 0;
    // More than a socket holds.
    for head in 0..7 {
        offer_long(&mut scene, head * 2, u64::from(head), 1 << 20);
        offered += 1;
    }
    assert!(!scene.files.notify());
    assert!(scene.files.interest().contains(EventSet::OUT));
    let position = scene.files.queues().unwrap()[1].next_avail;
    assert!(position < offered, "{position}");
    assert!(!scene.files.notify());
    assert_eq!(
        scene.files.queues().unwrap()[1].next_avail,
        position,
        "nothing moves"
    );
    // Not even for a virtual CPU.
    assert!(!scene.shared.serve());
    let mut bytes = vec![0; 1 << 20];
    let mut total = 0;
    while total < usize::from(offered) << 20 {
        match scene.server.read(&mut bytes) {
            Ok(count) => total += count,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                assert!(scene.files.interest().contains(EventSet::OUT));
                scene.files.ready();
            }
        }
    }
    assert!(!scene.files.ready());
    assert_eq!(scene.files.interest(), EventSet::IN);
    assert_eq!(scene.files.queues().unwrap()[1].next_avail, offered);
}

#[test]
fn a_virtual_cpu_passes_on_what_is_short() {
    let mut scene = Scene::new();
    scene.ask(0, 1, 40, 64);
    assert!(scene.shared.serve());
    assert_eq!(scene.received().len(), 1);
    assert!(scene.shared.serve());
    // What is long is for the device's thread.
    offer_long(&mut scene, 2, 2, 1 << 20);
    assert!(!scene.shared.serve());
    assert_eq!(scene.received(), []);
    scene.files.notify();
    assert!(!scene.received_bytes().is_empty());
    // So is what the thread has to hear of.
    let mut scene = Scene::new();
    scene.server = UnixStream::pair().unwrap().0;
    scene.ask(0, 1, 40, 64);
    assert!(!scene.shared.serve());
    assert_eq!(scene.answer(), Some((0, io_error(1))));
    assert_eq!(scene.files.interest(), EventSet::empty());
}

impl Scene {
    fn received_bytes(&mut self) -> Vec<u8> {
        let mut bytes = vec![0; 1 << 16];
        let count = self.server.read(&mut bytes).unwrap_or(0);
        bytes.truncate(count);
        bytes
    }
}

#[test]
fn a_reset_ends_a_connection_that_was_used_and_no_other() {
    let mut scene = Scene::new();
    scene.files.reset();
    let (activation, _, _) = counted_activation(&scene.ram, &[&scene.hiprio, &scene.requests]);
    scene.files.activate(activation);
    scene.ask(0, 1, 40, 16);
    scene.files.notify();
    assert_eq!(scene.received().len(), 1);
    scene.files.reset();
    assert!(scene.is_over());
    assert_eq!(scene.files.interest(), EventSet::empty());
    assert!(scene.files.queues().is_none());
    scene.requests = Ring::new(&scene.ram, 2, SIZE);
    let (activation, _, _) = counted_activation(&scene.ram, &[&scene.hiprio, &scene.requests]);
    scene.files.activate(activation);
    scene.ask(0, 1, 40, 16);
    scene.files.notify();
    assert_eq!(scene.answer(), Some((0, io_error(1))));
}

#[test]
fn a_queue_that_makes_no_sense_stops_the_device() {
    let mut scene = Scene::new();
    scene.ask(0, 1, 40, 16);
    scene.files.notify();
    scene.requests.leap(99);
    assert!(!scene.files.notify());
    assert!(scene.needs_reset());
    assert!(scene.is_over());
    assert!(!scene.files.notify());
    // So do more requests under way than there is room for: a head that is offered again and again.
    let mut scene = Scene::new();
    for unique in 0..40 {
        scene.ask(0, unique, 40, 16);
        scene.files.notify();
    }
    assert!(scene.needs_reset());
}

/// Requests of all lengths, replies in any order and in pieces of any length: each comes back once, whole.
#[test]
fn nothing_is_lost_or_mixed_up() {
    let mut junk = Junk(0x5eed_f11e);
    let mut scene = Scene::new();
    let mut free: Vec<u16> = (0..SIZE / 2).collect();
    // Under way to the server; replies that it has not begun, and the rest of the one that it has.
    let mut asked: HashMap<u64, u16> = HashMap::new();
    let mut waiting: VecDeque<Vec<u8>> = VecDeque::new();
    let mut begun: Vec<u8> = Vec::new();
    let mut expected: HashMap<u16, Vec<u8>> = HashMap::new();
    let (mut next, mut done) = (1u64, 0);
    while done < 3000 {
        match junk.below(4) {
            0 => {
                if let Some(head) = free.pop() {
                    scene.ask(head, next, 40 + junk.below(5000) as u32, 0x7000);
                    asked.insert(next, head);
                    next += 1;
                }
                if junk.below(2) == 0 || !scene.shared.serve() {
                    scene.files.notify();
                }
            }
            1 => {
                for (unique, _) in scene.received() {
                    let head = asked.remove(&unique).unwrap();
                    let body = vec![unique as u8; junk.below(0x6000) as usize];
                    let reply = message(unique, 0, &body);
                    match junk.below(2) {
                        0 => waiting.push_back(reply.clone()),
                        _ => waiting.push_front(reply.clone()),
                    }
                    expected.insert(head, reply);
                }
            }
            2 => {
                // Several at once, so that the device meets one behind the other.
                while begun.len() < 9000
                    && let Some(reply) = waiting.pop_front()
                {
                    begun.extend(reply);
                }
                let count = (junk.below(12_000) as usize).min(begun.len());
                if let Ok(sent) = scene.server.write(&begun[..count]) {
                    begun.drain(..sent);
                }
                scene.files.ready();
            }
            _ => {
                scene.files.ready();
                while let Some((head, answer)) = scene.answer() {
                    assert_eq!(Some(answer), expected.remove(&head));
                    free.push(head);
                    done += 1;
                }
            }
        }
        assert!(!scene.needs_reset());
    }
}

/// Whatever a driver and a server do, the device neither panics nor spins, and a driver that is told of a
/// reset hears nothing more.
#[test]
fn junk_of_both_sides_is_survived() {
    let mut junk = Junk(0x0bad_f00d);
    for _ in 0..200 {
        let mut scene = Scene::new();
        for _ in 0..100 {
            for _ in 0..junk.below(8) {
                let index = junk.below(SIZE.into()) as u16;
                let flags = (junk.next() as u16) & (NEXT | WRITE | INDIRECT);
                let address = match junk.below(4) {
                    0 => junk.next(),
                    1 => RAM_END - junk.below(64),
                    _ => DATA + junk.below(0x1000),
                };
                let length = match junk.below(3) {
                    0 => junk.next() as u32,
                    _ => junk.below(200) as u32,
                };
                let next = junk.below(SIZE.into()) as u16;
                let ring = match junk.below(3) {
                    0 => &mut scene.hiprio,
                    _ => &mut scene.requests,
                };
                ring.descriptor(index, (address, length, flags, next));
                // Mostly what makes sense to begin with.
                ring.put(length, DATA + junk.below(0x1000));
                ring.offer(index);
            }
            match junk.below(4) {
                0 => drop(scene.shared.serve()),
                _ => drop(scene.files.notify()),
            }
            let mut bytes = message(junk.below(4), 0, &[0; 20]);
            for _ in 0..junk.below(3) {
                let at = junk.below(bytes.len() as u64) as usize;
                bytes[at] = junk.next() as u8;
            }
            if junk.below(8) == 0 {
                let _ = scene.server.write(&bytes);
            }
            scene.files.ready();
            drop(scene.received_bytes());
            if scene.needs_reset() {
                break;
            }
        }
    }
}
