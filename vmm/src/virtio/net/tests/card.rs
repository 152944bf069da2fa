//! What a virtual CPU does, and what it leaves to the device's thread.

use super::*;
use crate::virtio::Immediate;

/// The device of a rig as virtual CPUs have it; the rig's own is another.
fn shared(rig: &mut Rig) -> (Card, Arc<dyn Immediate>) {
    let spare = Net::new(Arc::default(), Arc::clone(&rig.counters));
    let card = Card::new(std::mem::replace(&mut rig.net, spare));
    let immediate = card.immediate().unwrap();
    (card, immediate)
}

#[test]
fn short_frames_are_sent_by_who_notifies() {
    let mut rig = rig();
    let (_card, vcpu) = shared(&mut rig);
    rig.offer_frame(1, &message(100));
    rig.offer_frame(2, &message(200));
    assert!(vcpu.serve());
    assert_eq!(rig.recv().unwrap(), message(100));
    assert_eq!(rig.recv().unwrap(), message(200));
    assert_eq!(rig.from_guest.take(), Some((1, 0)));
    assert_eq!(rig.from_guest.take(), Some((2, 0)));
    // The next one is to be told.
    assert_eq!(rig.from_guest.avail_event(), 2);
    // Nothing is left to do.
    assert!(vcpu.serve());
    assert_eq!(rig.recv(), Err(Errno::AGAIN));
}

#[test]
fn long_frames_and_many_are_left_to_the_thread() {
    let mut rig = rig();
    let (mut card, vcpu) = shared(&mut rig);
    rig.offer_frame(0, &message(100));
    rig.offer_frame(1, &message(MAX_MESSAGE));
    assert!(!vcpu.serve());
    assert_eq!(rig.recv().unwrap(), message(100));
    assert_eq!(rig.recv(), Err(Errno::AGAIN));
    assert!(!card.notify());
    assert_eq!(rig.recv().unwrap(), message(MAX_MESSAGE));

    for head in 2..40 {
        rig.offer_frame(head, &message(60));
    }
    assert!(!vcpu.serve());
    let sent = || (0..).take_while(|_| rig.recv().is_ok()).count();
    assert_eq!(sent(), 16);
    assert!(!card.notify());
    assert_eq!(sent(), 22);
}

#[test]
fn a_frame_that_the_socket_does_not_take_is_left_to_the_thread() {
    let mut rig = rig();
    let (mut card, vcpu) = shared(&mut rig);
    let mut sent = 0u16;
    loop {
        rig.offer_frame(sent % 128, &message(4000));
        sent += 1;
        if !vcpu.serve() {
            break;
        }
    }
    // It waits for the socket.
    assert!(card.interest().contains(EventSet::OUT));
    let mut received = 0;
    while received < sent {
        match rig.recv() {
            Ok(bytes) => {
                assert_eq!(bytes, message(4000));
                received += 1;
            }
            Err(_) => assert!(!card.ready()),
        }
    }
    assert!(!card.interest().contains(EventSet::OUT));
}

#[test]
fn the_thread_alone_sees_other_sockets_and_new_buffers() {
    let mut rig = rig();
    let cables = rig.net.sockets.cables();
    let (mut card, vcpu) = shared(&mut rig);
    // A frame waits for buffers.
    rig.send(&message(60));
    assert!(!card.ready());
    rig.offer_buffers(0, 4, ROOM);
    assert!(!vcpu.serve());
    assert!(!card.notify());
    assert!(rig.take_frame().is_some());
    assert!(vcpu.serve());

    let (ours, peer) = pair();
    cables.plug(MAC, ours).unwrap();
    rig.offer_frame(1, &message(100));
    assert!(!vcpu.serve());
    assert!(!card.notify());
    rig.peer = peer;
    assert_eq!(rig.recv().unwrap(), message(100));
    assert!(vcpu.serve());
}

#[test]
fn a_queue_that_makes_no_sense_ends_the_device() {
    let mut rig = rig();
    let (card, vcpu) = shared(&mut rig);
    // More buffers than there are in it.
    rig.from_guest.start_at(1000);
    assert!(!vcpu.serve() || rig.needs_reset());
    assert!(rig.needs_reset());
    assert!(card.queues().is_none());
}

#[test]
fn only_one_serves_at_a_time() {
    let mut rig = rig();
    let (card, vcpu) = shared(&mut rig);
    rig.offer_frame(1, &message(100));
    let held = card.net();
    assert!(!vcpu.serve());
    drop(held);
    assert!(vcpu.serve());
    assert_eq!(rig.recv().unwrap(), message(100));
}
