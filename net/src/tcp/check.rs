//! What is true of a flow's numbers, whatever a member says.

use super::ahead::Ahead;
use super::flow::{Flow, Key, State};
use super::sequence::{after, distance};
use crate::table::Id;

/// Most bytes of one segment here.
const MAX_SEGMENT: usize = 300;
/// What is kept of one flow here, in bytes.
const ROOM: usize = 4096;

/// Bytes as what a member says of a flow, four for each thing: what was kept comes out as it went in and
/// within its bound, and only what was sent is acknowledged.
pub fn numbers(data: &[u8]) {
    let first = u32::MAX - 500;
    let mut ahead = Ahead::default();
    let mut expected = first;
    let mut flow = flow(first);
    for step in data.chunks_exact(4) {
        let &[what, high, low, length] = step else {
            return;
        };
        let offset = u32::from(u16::from_be_bytes([high, low]) % 2048);
        match what % 4 {
            0 => {
                let begin = expected.wrapping_add(offset).wrapping_sub(256);
                let bytes: Vec<u8> = (0..u32::from(length)).map(|n| byte(begin, n)).collect();
                ahead.keep(begin, &bytes, ROOM.saturating_sub(ahead.cost()));
                assert!(ahead.cost() <= ROOM + MAX_SEGMENT);
            }
            1 => {
                if let Some(bytes) = ahead.from(expected) {
                    let right = |(n, &own): (usize, &u8)| own == byte(expected, n as u32);
                    assert!(bytes.iter().enumerate().all(right) && !bytes.is_empty());
                    expected = expected.wrapping_add(bytes.len() as u32);
                }
            }
            2 => acknowledge(&mut flow, offset, length),
            _ => send(&mut flow, offset),
        }
        for (begin, end) in ahead.blocks(expected) {
            assert!(after(end, begin) && after(begin, expected));
        }
    }
}

/// The byte that has a number.
fn byte(begin: u32, offset: u32) -> u8 {
    (begin.wrapping_add(offset) % 251) as u8
}

fn send(flow: &mut Flow, bytes: u32) {
    if bytes.is_multiple_of(64) {
        flow.rewind();
    } else {
        flow.next = flow.next.wrapping_add(bytes % 512);
        if after(flow.next, flow.highest) {
            flow.highest = flow.next;
        }
    }
}

fn acknowledge(flow: &mut Flow, offset: u32, sign: u8) {
    let base = flow.unacknowledged;
    let number = match sign % 2 {
        0 => base.wrapping_add(offset),
        _ => base.wrapping_sub(offset),
    };
    let discarded = flow.to_discard;
    let gained = flow.acknowledge(number);
    let distance = distance(number, base);
    match gained {
        Some(true) => assert_eq!(flow.to_discard - discarded, distance as usize),
        Some(false) => assert!(distance <= 0 && flow.unacknowledged == base),
        None => assert!(after(number, flow.highest) && flow.unacknowledged == base),
    }
    assert!(!after(flow.unacknowledged, flow.next) && !after(flow.next, flow.highest));
}

fn flow(first: u32) -> Flow {
    let key = Key {
        member: Id {
            index: 0,
            generation: 1,
        },
        guest: ([10, 0, 0, 2], 1000).into(),
        remote: ([10, 0, 0, 3], 80).into(),
    };
    let mut flow = Flow::new(key, State::Established, None, first);
    flow.unacknowledged = flow.next;
    flow
}
