use super::*;
use crate::memory::{GuestRam, RegisterPages};
use crate::virtio::registers::{STATUS, status};
use crate::virtio::testing::{
    DATA, INDIRECT, Junk, NEXT, Pulses, RAM_END, Ring, WRITE, counted_activation, ram,
};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, socketpair};
use std::os::fd::OwnedFd;
use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent};

mod card;
mod thread;

/// Where frames from the guest lie; the buffers for those to it come after.
const FRAME: u64 = DATA;
const TABLE: u64 = DATA + 0x10_0000;
const BUFFERS: u64 = DATA + 0x20_0000;
/// A buffer of Linux's, before it knows that frames are long.
const ROOM: u32 = 1536;

struct Rig {
    ram: GuestRam,
    to_guest: Ring,
    from_guest: Ring,
    net: Net,
    peer: OwnedFd,
    registers: Arc<RegisterPages>,
    pulses: Arc<Pulses>,
    counters: Arc<Counters>,
}

fn pair() -> (OwnedFd, OwnedFd) {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap()
}

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const OTHER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// One socket.
fn cables(socket: OwnedFd) -> Arc<Cables> {
    let cables = Cables::default();
    cables.plug(MAC, socket).unwrap();
    Arc::new(cables)
}

fn rig() -> Rig {
    rig_with(u64::MAX)
}

/// A device whose driver accepted these features.
fn rig_with(features: u64) -> Rig {
    let ram = ram();
    let (to_guest, from_guest) = (Ring::new(&ram, 0, 128), Ring::new(&ram, 1, 128));
    let (mut activation, registers, pulses) = counted_activation(&ram, &[&to_guest, &from_guest]);
    activation.features = features;
    for queue in &mut activation.queues {
        queue.set_event_idx(true);
    }
    let (ours, peer) = pair();
    let counters = Arc::new(Counters::default());
    let mut net = Net::new(cables(ours), Arc::clone(&counters));
    net.activate(activation);
    Rig {
        ram,
        to_guest,
        from_guest,
        net,
        peer,
        registers,
        pulses,
        counters,
    }
}

/// A message that shows where each of its bytes belongs.
fn message(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| (at * 7 + at / 251) as u8).collect()
}

/// The same as the guest gets it, in so many buffers.
fn as_received(mut message: Vec<u8>, buffers: u16) -> Vec<u8> {
    message[NUM_BUFFERS..HEADER].copy_from_slice(&buffers.to_le_bytes());
    message
}

impl Rig {
    fn needs_reset(&self) -> bool {
        self.registers.load(STATUS) & status::NEEDS_RESET != 0
    }

    /// Have the guest send a message in one piece.
    fn offer_frame(&mut self, head: u16, message: &[u8]) {
        // Short ones beside each other: they may have to wait.
        let place = match message.len() {
            // Behind the longest one.
            0..=0x1000 => FRAME + 0x4_0000 + u64::from(head) * 0x1000,
            _ => FRAME,
        };
        self.ram.write_slice(message, GuestAddress(place)).unwrap();
        let length = message.len() as u32;
        self.from_guest.descriptor(head, (place, length, 0, 0));
        self.from_guest.offer(head);
    }

    /// Add receive buffers of this size, from this number on.
    fn offer_buffers(&mut self, first: u16, count: u16, room: u32) {
        for head in first..first + count {
            let at = BUFFERS + u64::from(head) * 0x1000;
            self.to_guest.descriptor(head, (at, room, WRITE, 0));
            self.to_guest.offer(head);
        }
    }

    /// What the guest takes next: a whole message, and the buffers it came in.
    fn take_frame(&mut self) -> Option<(Vec<u8>, u16)> {
        let mut bytes = Vec::new();
        let mut left = 1;
        let mut count = 0;
        while left > 0 {
            let (head, length) = self.to_guest.take()?;
            let begin = bytes.len();
            bytes.resize(begin + length as usize, 0);
            let at = GuestAddress(BUFFERS + u64::from(head) * 0x1000);
            self.ram.read_slice(&mut bytes[begin..], at).unwrap();
            if count == 0 {
                let field = bytes[NUM_BUFFERS..HEADER].try_into().unwrap();
                left = u16::from_le_bytes(field);
            }
            left -= 1;
            count += 1;
        }
        Some((bytes, count))
    }

    fn send(&self, message: &[u8]) {
        rustix::net::send(&self.peer, message, SendFlags::NOSIGNAL).unwrap();
    }

    fn recv(&self) -> Result<Vec<u8>, Errno> {
        let mut buffer = vec![0; MAX_MESSAGE + 1];
        let (length, _) = rustix::net::recv(&self.peer, &mut buffer[..], RecvFlags::empty())?;
        buffer.truncate(length);
        Ok(buffer)
    }

    fn dropped(&self) -> u64 {
        self.counters.dropped_frames.get()
    }
}

#[test]
fn the_driver_sees_address_and_mtu() {
    let identity = identity(&NetConfig {
        mac: [2, 1, 2, 3, 4, 5],
        mtu: 65520,
    });
    assert_eq!(identity.config[..6], [2, 1, 2, 3, 4, 5]);
    // With a link.
    assert_eq!(identity.config[6..8], [1, 0]);
    assert_ne!(identity.features & F_STATUS, 0);
    assert_eq!(identity.config[10..], 65520u16.to_le_bytes());
    assert_eq!(identity.queue_sizes.len(), 2);
    // Neither a control queue nor several pairs (bits 17 to 23) were offered.
    assert_eq!(identity.features & 0xfe_0000, 0);
}

#[test]
fn a_frame_from_the_guest_is_one_message() {
    let mut rig = rig();
    let message = message(MAX_MESSAGE);
    rig.ram.write_slice(&message, GuestAddress(FRAME)).unwrap();
    // The header by itself, then what is left in pieces, all of it in a table as Linux has it.
    let pieces = [(0, 12), (12, 1), (13, 30_000), (30_013, 35_548)];
    for (index, (at, length)) in (0u16..).zip(pieces) {
        let next = if index < 3 { NEXT } else { 0 };
        let piece = (FRAME + at, length, next, index + 1);
        rig.from_guest.descriptor_at(TABLE, index, piece);
    }
    rig.from_guest.descriptor(5, (TABLE, 64, INDIRECT, 0));
    rig.from_guest.offer(5);
    rig.offer_frame(6, &message[..MIN_MESSAGE]);
    assert!(!rig.net.notify());
    assert_eq!(rig.recv().unwrap(), message);
    assert_eq!(rig.recv().unwrap(), message[..MIN_MESSAGE]);
    assert_eq!(rig.recv(), Err(Errno::AGAIN));
    assert_eq!(rig.from_guest.take(), Some((5, 0)));
    assert_eq!(rig.from_guest.take(), Some((6, 0)));
    // One interrupt for both, and the next frame is to be told.
    assert_eq!(rig.pulses.take(), 1);
    assert_eq!(rig.from_guest.avail_event(), 2);
    assert_eq!(rig.dropped(), 0);
}

#[test]
fn a_long_frame_to_the_guest_fills_several_buffers() {
    let mut rig = rig();
    rig.offer_buffers(0, 100, ROOM);
    let (long, short) = (message(MAX_MESSAGE), message(60));
    rig.send(&long);
    rig.send(&short);
    rig.net.ready();
    assert_eq!(rig.take_frame(), Some((as_received(long, 43), 43)));
    assert_eq!(rig.take_frame(), Some((as_received(short, 1), 1)));
    assert_eq!(rig.to_guest.take(), None);
    assert_eq!(rig.pulses.take(), 1);
    // With nothing to give, nobody is interrupted.
    rig.net.ready();
    assert_eq!(rig.pulses.take(), 0);
}

#[test]
fn a_frame_waits_for_its_buffers() {
    let mut rig = rig();
    let long = message(MAX_MESSAGE);
    rig.send(&long);
    rig.send(&message(60));
    rig.offer_buffers(0, 10, ROOM);
    assert_eq!(rig.net.interest(), EventSet::IN);
    rig.net.ready();
    // The socket is left alone, and the driver is to notify of the next buffer.
    assert_eq!(rig.net.interest(), EventSet::empty());
    assert_eq!(rig.to_guest.avail_event(), 10);
    assert_eq!(rig.to_guest.take(), None);
    rig.net.ready();
    assert_eq!(rig.net.queues().unwrap()[RECEIVE].next_avail, 0);
    rig.offer_buffers(10, 32, ROOM);
    rig.net.notify();
    assert_eq!(rig.to_guest.avail_event(), 42);
    assert_eq!(rig.net.interest(), EventSet::empty());
    // With the last one all of it is there; what is behind it has to wait.
    rig.offer_buffers(42, 1, ROOM);
    rig.net.notify();
    assert_eq!(rig.take_frame(), Some((as_received(long, 43), 43)));
    assert_eq!(rig.take_frame(), None);
    assert_eq!(rig.net.interest(), EventSet::empty());
    rig.offer_buffers(43, 2, ROOM);
    rig.net.notify();
    assert_eq!(rig.take_frame(), Some((as_received(message(60), 1), 1)));
    assert_eq!(rig.net.interest(), EventSet::IN);
    assert_eq!(rig.dropped(), 0);
}

#[test]
fn a_frame_that_no_buffers_could_take_is_dropped() {
    // Of a driver without mergeable buffers, one is all there is.
    let mut rig = rig_with(0);
    rig.offer_buffers(0, 3, ROOM);
    rig.send(&message(1537));
    rig.send(&message(1536));
    rig.net.ready();
    assert_eq!(rig.take_frame(), Some((as_received(message(1536), 1), 1)));
    assert_eq!((rig.to_guest.take(), rig.dropped()), (None, 1));
    assert_eq!(rig.net.interest(), EventSet::IN);
    // Of one with them, as many as its queue has.
    let mut rig = rig_with(u64::MAX);
    rig.offer_buffers(0, 128, 16);
    rig.send(&message(128 * 16 + 1));
    rig.send(&message(127 * 16));
    rig.net.ready();
    let shorter = as_received(message(127 * 16), 127);
    assert_eq!(rig.take_frame(), Some((shorter, 127)));
    assert_eq!(rig.dropped(), 1);
}

#[test]
fn messages_that_are_no_frames_do_not_reach_the_guest() {
    let mut rig = rig();
    rig.offer_buffers(0, 100, ROOM);
    for bytes in [1, MIN_MESSAGE - 1, MAX_MESSAGE + 1, 80_000] {
        rig.send(&message(bytes));
        rig.net.ready();
    }
    assert_eq!((rig.to_guest.take(), rig.dropped()), (None, 4));
    rig.send(&message(MIN_MESSAGE));
    rig.net.ready();
    assert_eq!(rig.take_frame().unwrap().0.len(), MIN_MESSAGE);
}

#[test]
fn a_pass_leaves_the_rest_to_the_next() {
    let mut rig = rig();
    for _ in 0..MAX_PASS_FRAMES + 1 {
        rig.offer_frame(0, &message(60));
    }
    assert!(rig.net.notify());
    assert_eq!(usize::from(rig.from_guest.used_index()), MAX_PASS_FRAMES);
    assert!(!rig.net.notify());
    rig.offer_buffers(0, 100, ROOM);
    for _ in 0..MAX_PASS_FRAMES + 1 {
        rig.send(&message(60));
    }
    rig.net.ready();
    assert_eq!(usize::from(rig.to_guest.used_index()), MAX_PASS_FRAMES);
    assert_eq!(rig.net.interest(), EventSet::IN);
    rig.net.ready();
    assert_eq!(usize::from(rig.to_guest.used_index()), MAX_PASS_FRAMES + 1);
}

#[test]
fn the_guests_frames_wait_while_the_socket_takes_none() {
    let mut rig = rig();
    let mut sent = 0;
    while rig.net.transmitting == Flow::Open {
        rig.offer_frame(sent % 128, &message(1000 + usize::from(sent)));
        rig.net.notify();
        sent += 1;
    }
    assert_eq!(rig.net.interest(), EventSet::IN | EventSet::OUT);
    let passed = rig.from_guest.used_index();
    assert_eq!(passed, sent - 1);
    // The guest may notify as often as it likes.
    assert!(!rig.net.notify());
    assert_eq!(rig.from_guest.used_index(), passed);
    // What waits is the guest's, and shown when the device is saved.
    assert_eq!(rig.net.queues().unwrap()[TRANSMIT].next_avail, passed);
    for count in 0..passed {
        assert_eq!(rig.recv().unwrap(), message(1000 + usize::from(count)));
    }
    rig.net.ready();
    assert_eq!(rig.net.interest(), EventSet::IN);
    assert_eq!(rig.recv().unwrap(), message(1000 + usize::from(passed)));
    assert_eq!(rig.recv(), Err(Errno::AGAIN));
    assert_eq!((rig.from_guest.used_index(), rig.dropped()), (sent, 0));
}

#[test]
fn without_anybody_at_the_other_end_frames_are_dropped() {
    let mut rig = rig();
    rig.offer_buffers(0, 10, ROOM);
    rig.send(&message(60));
    let (_, other) = pair();
    drop(std::mem::replace(&mut rig.peer, other));
    // What came before the end still arrives.
    rig.net.ready();
    assert_eq!(rig.take_frame(), Some((as_received(message(60), 1), 1)));
    assert_eq!(rig.net.interest(), EventSet::empty());
    for head in 0..3 {
        rig.offer_frame(head, &message(100));
    }
    assert!(!rig.net.notify());
    assert_eq!(rig.from_guest.used_index(), 3);
    // One was tried.
    assert_eq!(rig.dropped(), 1);
    // A driver that starts anew finds the same.
    rig.net.reset();
    assert_eq!(rig.net.interest(), EventSet::empty());
    let (activation, ..) = counted_activation(&rig.ram, &[&rig.to_guest, &rig.from_guest]);
    rig.net.activate(activation);
    assert_eq!(rig.net.interest(), EventSet::empty());
}

#[test]
fn frames_that_wait_for_a_peer_that_goes_are_dropped() {
    let mut rig = rig();
    while rig.net.transmitting == Flow::Open {
        rig.offer_frame(0, &message(10_000));
        rig.net.notify();
    }
    let waiting = rig.from_guest.used_index() + 1;
    let (_, other) = pair();
    drop(std::mem::replace(&mut rig.peer, other));
    rig.net.ready();
    // The socket may have two things to say: that what it held is lost, and that it is at its end.
    rig.net.notify();
    rig.offer_frame(0, &message(100));
    rig.net.notify();
    assert_eq!(rig.from_guest.used_index(), waiting + 1);
    assert_eq!(rig.net.interest(), EventSet::empty());
}

#[test]
fn a_device_without_a_socket_drops_what_it_is_given() {
    let mut rig = rig();
    rig.net = Net::new(Arc::default(), Arc::clone(&rig.counters));
    let (activation, ..) = counted_activation(&rig.ram, &[&rig.to_guest, &rig.from_guest]);
    rig.net.activate(activation);
    assert_eq!(rig.net.poll_fd(), None);
    rig.offer_buffers(0, 10, ROOM);
    for head in 0..10 {
        rig.offer_frame(head, &message(100));
    }
    assert!(!rig.net.notify());
    assert!(!rig.net.ready());
    for head in 0..10 {
        assert_eq!(rig.from_guest.take(), Some((head, 0)));
    }
    assert_eq!((rig.to_guest.take(), rig.dropped()), (None, 0));
}

#[test]
fn chains_that_are_no_frames_are_dropped() {
    let mut rig = rig();
    rig.ram
        .write_slice(&message(100_000), GuestAddress(FRAME))
        .unwrap();
    let ring = &mut rig.from_guest;
    let short = MIN_MESSAGE as u32 - 1;
    ring.descriptor(0, (FRAME, short, 0, 0));
    ring.descriptor(1, (FRAME, MAX_MESSAGE as u32 + 1, 0, 0));
    ring.descriptor(2, (RAM_END - 50, 100, 0, 0));
    ring.descriptor(3, (u64::MAX - 10, 100, 0, 0));
    // Nothing to read, a loop, and something to write before something to read.
    ring.descriptor(4, (FRAME, 100, WRITE, 0));
    ring.descriptor(5, (FRAME, 1000, NEXT, 5));
    ring.descriptor(6, (FRAME, 100, NEXT | WRITE, 7));
    ring.descriptor(7, (FRAME, 100, 0, 0));
    ring.descriptor(8, (FRAME, u32::MAX, NEXT, 9));
    ring.descriptor(9, (FRAME, u32::MAX, 0, 0));
    let heads = [0, 1, 2, 3, 4, 5, 6, 8];
    for head in heads {
        ring.offer(head);
    }
    while rig.net.notify() {}
    for head in heads {
        assert_eq!(rig.from_guest.take(), Some((head.into(), 0)));
    }
    assert_eq!(rig.recv(), Err(Errno::AGAIN));
    assert_eq!(rig.dropped(), heads.len() as u64);
    // A place to write after a frame is nothing to the device.
    rig.from_guest.descriptor(0, (FRAME, 100, NEXT, 4));
    rig.from_guest.offer(0);
    rig.net.notify();
    assert_eq!(rig.recv().unwrap(), message(100));
    assert!(!rig.needs_reset());
}

#[test]
fn buffers_that_are_none_go_back_empty() {
    let mut rig = rig();
    let ring = &mut rig.to_guest;
    ring.descriptor(120, (BUFFERS, 11, WRITE, 0));
    ring.descriptor(121, (BUFFERS, 4096, 0, 0));
    ring.descriptor(122, (u64::MAX, 4096, WRITE, 0));
    ring.descriptor(123, (BUFFERS, 0, WRITE | NEXT, 123));
    let heads = [120, 121, 122, 123];
    for head in heads {
        ring.offer(head);
    }
    rig.send(&message(2000));
    rig.net.ready();
    for head in heads {
        assert_eq!(rig.to_guest.take(), Some((head.into(), 0)));
    }
    assert_eq!(rig.to_guest.take(), None);
    // After the first of a frame's they are counted, and hold nothing.
    rig.offer_buffers(0, 1, ROOM);
    rig.to_guest.offer(122);
    rig.offer_buffers(1, 1, ROOM);
    rig.net.notify();
    assert_eq!(rig.to_guest.take(), Some((0, ROOM)));
    assert_eq!(rig.to_guest.take(), Some((122, 0)));
    assert_eq!(rig.to_guest.take(), Some((1, 2000 - ROOM)));
    assert_eq!(rig.to_guest.get::<u16>(BUFFERS + NUM_BUFFERS as u64), 3);
    assert!(!rig.needs_reset());
}

#[test]
fn a_broken_queue_stops_the_device_until_it_is_reset() {
    let broken: [fn(&mut Ring); 2] = [|ring| ring.offer(300), |ring| ring.leap(257)];
    for breaks in broken {
        for receive in [true, false] {
            let mut rig = rig();
            rig.send(&message(100));
            if receive {
                breaks(&mut rig.to_guest);
                rig.net.ready();
            } else {
                breaks(&mut rig.from_guest);
                rig.net.notify();
            }
            assert!(rig.needs_reset());
            assert_eq!(rig.net.interest(), EventSet::empty());
            assert!(rig.net.queues().is_none());
            assert!(!rig.net.notify() && !rig.net.ready());
            // Another driver has a device that works.
            rig.net.reset();
            let rings = [2, 3].map(|index| Ring::new(&rig.ram, index, 128));
            let (activation, ..) = counted_activation(&rig.ram, &[&rings[0], &rings[1]]);
            rig.net.activate(activation);
            [rig.to_guest, rig.from_guest] = rings;
            rig.offer_buffers(0, 1, ROOM);
            rig.net.ready();
            assert_eq!(rig.take_frame(), Some((as_received(message(100), 1), 1)));
        }
    }
}

#[test]
fn queues_that_a_driver_left_out_are_not_used() {
    let mut rig = rig();
    let rings = [&rig.to_guest, &rig.from_guest];
    let (mut activation, ..) = counted_activation(&rig.ram, &rings);
    for queue in &mut activation.queues {
        queue.set_ready(false);
    }
    rig.net.activate(activation);
    rig.send(&message(100));
    rig.offer_frame(0, &message(100));
    assert_eq!(rig.net.interest(), EventSet::empty());
    assert!(!rig.net.notify() && !rig.net.ready());
    assert_eq!(rig.recv(), Err(Errno::AGAIN));
    let (mut empty, ..) = counted_activation(&rig.ram, &[]);
    empty.queues.clear();
    rig.net.activate(empty);
    assert!(!rig.net.notify() && !rig.net.ready());
}

#[test]
fn another_device_goes_on_where_one_was_saved() {
    let mut rig = rig();
    // Frames wait in both directions: for the socket, and for buffers.
    let mut sent = 0;
    while rig.net.transmitting == Flow::Open {
        rig.offer_frame(0, &message(5000));
        rig.net.notify();
        sent += 1;
    }
    rig.send(&message(4000));
    rig.offer_buffers(0, 1, ROOM);
    rig.net.ready();
    let saved = rig.net.queues().unwrap();
    rig.net.reset();
    assert!(rig.net.queues().is_none());
    let rings = [&rig.to_guest, &rig.from_guest];
    let (mut activation, ..) = counted_activation(&rig.ram, &rings);
    for (queue, saved) in activation.queues.iter_mut().zip(&saved) {
        queue.set_next_avail(saved.next_avail);
        queue.set_next_used(saved.next_used);
    }
    let (ours, peer) = pair();
    rig.net = Net::new(cables(ours), Arc::clone(&rig.counters));
    rig.peer = peer;
    rig.net.activate(activation);
    rig.net.notify();
    // The guest's frame is on its way; what was in the old socket is lost.
    assert_eq!(rig.recv().unwrap(), message(5000));
    assert_eq!(rig.recv(), Err(Errno::AGAIN));
    assert_eq!(rig.from_guest.used_index(), sent);
    rig.send(&message(1000));
    rig.net.ready();
    assert_eq!(rig.take_frame(), Some((as_received(message(1000), 1), 1)));
}

#[test]
fn junk_rings_end_in_bounded_time() {
    let mut junk = Junk(0x0e7f_0e7f_cafe_0001);
    for round in 0..300 {
        let mut rig = rig_with(if round % 2 == 0 { u64::MAX } else { 0 });
        for ring in [&mut rig.to_guest, &mut rig.from_guest] {
            for index in 0..ring.size {
                let at = match junk.below(4) {
                    0 => junk.next(),
                    1 => ring.base + junk.below(0x1_0000),
                    _ => DATA + junk.below(0x10_0000),
                };
                let length = [100, 1, 1536, junk.next() as u32][junk.below(4) as usize];
                let next = junk.below(u64::from(ring.size) + 2) as u16;
                ring.descriptor(index, (at, length, junk.below(8) as u16, next));
            }
            for _ in 0..junk.below(u64::from(ring.size)) {
                ring.offer(junk.below(u64::from(ring.size) + 1) as u16);
            }
            ring.set_used_event(junk.next() as u16);
            ring.set_avail_event(junk.next() as u16);
        }
        for _ in 0..4 {
            let length = 1 + junk.below(70_000) as usize;
            // It may be full.
            let flags = SendFlags::NOSIGNAL;
            let _ = rustix::net::send(&rig.peer, &message(length), flags);
            rig.net.ready();
            rig.net.notify();
            while let Ok(passed) = rig.recv() {
                assert!((MIN_MESSAGE..=MAX_MESSAGE).contains(&passed.len()));
            }
        }
    }
}

/// A frame with this address of its sender.
fn from(mac: [u8; 6], bytes: usize) -> Vec<u8> {
    let mut frame = message(bytes);
    frame[HEADER + 6..HEADER + 12].copy_from_slice(&mac);
    frame
}

/// As the device's thread does when the descriptor that it waits for is ready.
fn is_ready(rig: &Rig) -> bool {
    let thread = Epoll::new().unwrap();
    let event = EpollEvent::new(rig.net.interest(), 0);
    let source = rig.net.poll_fd().unwrap();
    thread.ctl(ControlOperation::Add, source, event).unwrap();
    thread.wait(0, &mut [EpollEvent::default()]).unwrap() > 0
}

#[test]
fn frames_find_their_socket_by_the_address_of_their_sender() {
    let mut rig = rig();
    let (ours, other) = pair();
    let cables = rig.net.sockets.cables();
    cables.plug(OTHER_MAC, ours).unwrap();
    rig.net.notify();
    rig.offer_frame(0, &from(MAC, 100));
    rig.offer_frame(1, &from(OTHER_MAC, 200));
    // That of nobody goes to the first.
    rig.offer_frame(2, &from([2, 0, 0, 0, 0, 9], 300));
    rig.net.notify();
    assert_eq!(rig.recv().unwrap(), from(MAC, 100));
    assert_eq!(rig.recv().unwrap(), from([2, 0, 0, 0, 0, 9], 300));
    let mut buffer = [0; 2048];
    let (length, _) = rustix::net::recv(&other, &mut buffer, RecvFlags::empty()).unwrap();
    assert_eq!(buffer[..length], from(OTHER_MAC, 200));
    // Both lead to the guest.
    assert!(!is_ready(&rig));
    rig.offer_buffers(0, 2, ROOM);
    rig.net.notify();
    rig.send(&message(60));
    rustix::net::send(&other, &message(70), SendFlags::empty()).unwrap();
    assert!(is_ready(&rig));
    rig.net.ready();
    let mut lengths = [rig.take_frame(), rig.take_frame()].map(|frame| frame.unwrap().0.len());
    lengths.sort_unstable();
    assert_eq!(lengths, [60, 70]);
    // Without buffers nothing is watched, and nobody spins.
    rig.send(&message(60));
    rig.net.ready();
    assert!(!is_ready(&rig));
    rig.offer_buffers(2, 1, ROOM);
    rig.net.notify();
    assert_eq!(rig.take_frame().unwrap().0.len(), 60);
    // The first is plugged out: what it had is the other's.
    cables.unplug(MAC).unwrap();
    rig.net.notify();
    rig.offer_frame(3, &from(MAC, 80));
    rig.net.notify();
    let (length, _) = rustix::net::recv(&other, &mut buffer, RecvFlags::empty()).unwrap();
    assert_eq!(buffer[..length], from(MAC, 80));
    assert_eq!(rig.recv(), Err(Errno::AGAIN));
}

#[test]
fn a_full_socket_holds_the_guest_until_it_takes_more_or_is_gone() {
    for is_emptied in [true, false] {
        let mut rig = rig();
        let (ours, other) = pair();
        let cables = rig.net.sockets.cables();
        cables.plug(OTHER_MAC, ours).unwrap();
        rig.net.notify();
        let mut sent = 0;
        while rig.net.transmitting == Flow::Open {
            rig.offer_frame(sent % 100, &from(OTHER_MAC, 1000));
            rig.net.notify();
            sent += 1;
        }
        rig.offer_frame(120, &from(MAC, 77));
        assert!(!rig.net.notify());
        assert!(!is_ready(&rig));
        assert_eq!(rig.recv(), Err(Errno::AGAIN));
        if is_emptied {
            let mut buffer = [0; 2048];
            while rustix::net::recv(&other, &mut buffer, RecvFlags::DONTWAIT).is_ok() {}
            assert!(is_ready(&rig));
            rig.net.ready();
        } else {
            cables.unplug(OTHER_MAC).unwrap();
            rig.net.notify();
            // The one that waited is nobody's now.
            assert_eq!(rig.recv().unwrap(), from(OTHER_MAC, 1000));
        }
        assert_eq!(rig.recv().unwrap(), from(MAC, 77));
        assert_eq!(rig.net.transmitting, Flow::Open);
    }
}
