//! The device on its thread, with all that a driver and a peer do at the same time.

use super::*;
use crate::worker::{DeviceLink, Worker, WorkerThread};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(600);
/// Every pass of the thread through what there was to do is far shorter.
const REST_LIMIT: Duration = Duration::from_secs(20);

/// A device, and how often its socket was found to be ready.
#[derive(Debug)]
struct Counted {
    net: Net,
    calls: Arc<AtomicU64>,
}

impl Backend for Counted {
    fn activate(&mut self, activation: Activation) {
        self.net.activate(activation);
    }

    fn notify(&mut self) -> bool {
        self.net.notify()
    }

    fn ready(&mut self) -> bool {
        self.calls.fetch_add(1, Ordering::SeqCst);
        self.net.ready()
    }

    fn poll_fd(&self) -> Option<RawFd> {
        self.net.poll_fd()
    }

    fn interest(&self) -> EventSet {
        self.net.interest()
    }

    fn queues(&self) -> Option<Vec<SavedQueue>> {
        self.net.queues()
    }

    fn reset(&mut self) {
        self.net.reset();
    }
}

/// Another device of the same thread, which counts the turns that it is given.
#[derive(Debug)]
struct Turns(Arc<AtomicU64>);

impl Backend for Turns {
    fn activate(&mut self, _: Activation) {}

    fn notify(&mut self) -> bool {
        self.0.fetch_add(1, Ordering::SeqCst);
        false
    }

    fn queues(&self) -> Option<Vec<SavedQueue>> {
        None
    }

    fn reset(&mut self) {}
}

/// A device on a thread: what is in the rig in its place is not used.
struct Served {
    rig: Rig,
    link: DeviceLink,
    calls: Arc<AtomicU64>,
    other: DeviceLink,
    turns: Arc<AtomicU64>,
    thread: WorkerThread,
}

impl Served {
    fn new() -> Self {
        let mut rig = rig();
        let (ours, peer) = pair();
        let calls = Arc::new(AtomicU64::new(0));
        let counted = Counted {
            net: Net::new(cables(ours), Arc::clone(&rig.counters)),
            calls: Arc::clone(&calls),
        };
        rig.peer = peer;
        let mut worker = Worker::new().unwrap();
        let link = worker.add(Box::new(counted)).unwrap();
        let turns = Arc::new(AtomicU64::new(0));
        let other = worker.add(Box::new(Turns(Arc::clone(&turns)))).unwrap();
        let counters = Arc::new(Counters::default());
        let thread = worker
            .start("test", counters, |error| panic!("{error}"))
            .unwrap();
        let served = Self {
            rig,
            link,
            calls,
            other,
            turns,
            thread,
        };
        let (activation, ..) = counted_activation(&served.rig.ram, &[]);
        served.other.activate(activation);
        served.activate();
        served
    }

    fn activate(&self) {
        let rings = [&self.rig.to_guest, &self.rig.from_guest];
        let (mut activation, ..) = counted_activation(&self.rig.ram, &rings);
        for (queue, ring) in activation.queues.iter_mut().zip(rings) {
            queue.set_event_idx(true);
            queue.set_next_avail(ring.used_index());
            queue.set_next_used(ring.used_index());
        }
        self.link.activate(activation);
    }

    /// Wait until the thread has done all that there is to do, and see that it then rests: what is
    /// ready has its turn whenever another device has one.
    fn rests(&self) {
        let begin = Instant::now();
        loop {
            let before = self.calls.load(Ordering::SeqCst);
            for _ in 0..20 {
                let turn = self.turns.load(Ordering::SeqCst);
                self.other.notify();
                self.wait_until(|_| self.turns.load(Ordering::SeqCst) > turn);
            }
            if self.calls.load(Ordering::SeqCst) == before {
                return;
            }
            assert!(begin.elapsed() < REST_LIMIT, "it does not rest");
        }
    }

    fn wait_for(&self, flags: PollFlags) {
        let limit = Timespec {
            tv_sec: 600,
            tv_nsec: 0,
        };
        let mut fds = [PollFd::new(&self.rig.peer, flags)];
        assert_eq!(poll(&mut fds, Some(&limit)).unwrap(), 1);
    }

    fn wait_until(&self, done: impl Fn(&Rig) -> bool) {
        let begin = Instant::now();
        while !done(&self.rig) {
            assert!(begin.elapsed() < LIMIT);
            std::thread::yield_now();
        }
    }
}

#[test]
fn it_rests_while_it_has_no_driver_no_buffers_or_no_peer() {
    let mut served = Served::new();
    served.rig.send(&message(100));
    // There are no buffers.
    served.rests();
    served.rig.offer_buffers(0, 1, ROOM);
    served.link.notify();
    served.wait_until(|rig| rig.to_guest.used_index() == 1);
    // There is no driver.
    served.link.reset();
    served.rig.send(&message(200));
    served.rests();
    served.activate();
    served.rig.offer_buffers(1, 1, ROOM);
    served.link.notify();
    served.wait_until(|rig| rig.to_guest.used_index() == 2);
    // There is nobody at the other end.
    let (_, other) = pair();
    drop(std::mem::replace(&mut served.rig.peer, other));
    served.rests();
    served.link.reset();
    served.rests();
    assert_eq!(served.rig.dropped(), 0);
}

#[test]
fn both_directions_wait_and_lose_nothing() {
    let mut served = Served::new();
    const FRAMES: u16 = 400;
    const LENGTH: usize = 30_000;
    // The guest's frames: no more at a time than the ring holds, and nobody reads yet.
    let mut sent = 0;
    while sent < 100 {
        served.rig.offer_frame(sent % 128, &message(LENGTH));
        sent += 1;
    }
    served.link.notify();
    served.rests();
    let taken = served.rig.from_guest.used_index();
    assert!(taken < 100, "the socket takes {taken} frames");
    // Frames to the guest meanwhile: each fills 20 buffers, and they come back as they are taken.
    served.rig.offer_buffers(0, 120, ROOM);
    served.link.notify();
    let (mut received, mut got, mut fed) = (0, 0, 0);
    let begin = Instant::now();
    while received < FRAMES || got < FRAMES {
        assert!(begin.elapsed() < LIMIT);
        if fed < FRAMES {
            match rustix::net::send(&served.rig.peer, &message(LENGTH), SendFlags::NOSIGNAL) {
                Ok(_) => fed += 1,
                Err(error) => assert_eq!(error, Errno::AGAIN),
            }
        }
        while let Some((bytes, count)) = served.rig.take_frame() {
            assert_eq!(bytes, as_received(message(LENGTH), count));
            let first = received * 20 % 120;
            served.rig.offer_buffers(first, count, ROOM);
            served.link.notify();
            received += 1;
        }
        if let Ok(bytes) = served.rig.recv() {
            assert_eq!(bytes, message(LENGTH));
            got += 1;
        }
        let waiting = sent - served.rig.from_guest.used_index();
        if sent < FRAMES && waiting < 100 {
            served.rig.offer_frame(sent % 128, &message(LENGTH));
            sent += 1;
            served.link.notify();
        }
    }
    served.rests();
    assert_eq!((received, got, served.rig.dropped()), (FRAMES, FRAMES, 0));
}

#[test]
fn the_buffers_of_a_frame_come_together() {
    let mut served = Served::new();
    served.rig.offer_buffers(0, 86, ROOM);
    let ring = Ring::new(&served.rig.ram, 0, 128);
    let over = Arc::new(AtomicBool::new(false));
    let ends = Arc::clone(&over);
    // A driver that looks all the time.
    let driver = std::thread::spawn(move || {
        while !ends.load(Ordering::SeqCst) {
            let used = ring.used_index();
            assert_eq!(used % 43, 0, "part of a frame");
        }
    });
    let mut expected = 0u16;
    for round in 0..300 {
        served.rig.send(&message(MAX_MESSAGE));
        expected += 43;
        served.wait_until(|rig| rig.to_guest.used_index() == expected || driver.is_finished());
        let (bytes, count) = served.rig.take_frame().unwrap();
        assert_eq!((bytes.len(), count), (MAX_MESSAGE, 43));
        served.rig.offer_buffers(round % 2 * 43, 43, ROOM);
        served.link.notify();
    }
    over.store(true, Ordering::SeqCst);
    driver.join().unwrap();
}

#[test]
fn a_paused_device_touches_nothing_and_goes_on() {
    let mut served = Served::new();
    served.rig.offer_buffers(0, 10, ROOM);
    served.link.notify();
    served.rests();
    let queues = served.thread.pause(Instant::now() + LIMIT).unwrap();
    let queues = queues[0].clone().unwrap();
    assert_eq!(
        (queues[RECEIVE].next_avail, queues[TRANSMIT].next_avail),
        (0, 0)
    );
    served.rig.send(&message(100));
    served.rig.offer_frame(0, &message(200));
    served.link.notify();
    // A second request for the same is answered by a thread that has not moved.
    let again = served.thread.pause(Instant::now() + LIMIT).unwrap();
    assert_eq!(again[0].as_ref(), Some(&queues));
    assert_eq!(served.rig.recv(), Err(Errno::AGAIN));
    served.thread.resume();
    served.wait_for(PollFlags::IN);
    assert_eq!(served.rig.recv().unwrap(), message(200));
    served.wait_until(|rig| rig.to_guest.used_index() == 1);
    assert_eq!(
        served.rig.take_frame().unwrap().0,
        as_received(message(100), 1)
    );
}
