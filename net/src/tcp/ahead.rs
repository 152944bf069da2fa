//! What a member sent and the host's socket has not been given: data behind a gap, and data for which
//! the socket had no room.
//!
//! It is kept (RFC 9293, section 3.10.7.4), so that only what was lost has to be sent again, and the member
//! is told what is here (RFC 2018).

use super::sequence::distance;
use std::collections::VecDeque;

/// Most that all flows of a network keep, in bytes.
pub const MAX_BYTES: usize = 16 << 20;
/// Most that one flow keeps, in bytes: a window.
const MAX_FLOW_BYTES: usize = 4 << 20;
/// Most parts that one flow keeps.
const MAX_PARTS: usize = 1024;
/// Small segments are gathered in parts of so many bytes.
const MAX_PART_BYTES: usize = 64 * 1024;
/// What a part costs beside its bytes.
const PART_BYTES: usize = 64;
/// Blocks that a member is told at a time.
const MAX_BLOCKS: usize = 3;

#[derive(Debug)]
struct Part {
    begin: u32,
    bytes: Vec<u8>,
}

impl Part {
    fn end(&self) -> u32 {
        self.begin.wrapping_add(self.bytes.len() as u32)
    }

    fn cost(&self) -> usize {
        self.bytes.capacity() + PART_BYTES
    }
}

/// Data of one flow, in order and without overlap.
#[derive(Debug, Default)]
pub struct Ahead {
    parts: VecDeque<Part>,
    cost: usize,
    /// A number in the part that came last.
    newest: u32,
}

impl Ahead {
    /// The memory that it takes, in bytes.
    #[must_use]
    pub const fn cost(&self) -> usize {
        self.cost
    }

    /// Forgets all of it.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Keeps data, of which `room` bytes may be kept. Data that is here already stays as it is, and
    /// what lies behind such data is left to be sent again. Whether all that was new is kept.
    pub fn keep(&mut self, sequence: u32, bytes: &[u8], room: usize) -> bool {
        let at = self
            .parts
            .partition_point(|part| distance(part.begin, sequence) <= 0);
        let mut begin = sequence;
        let mut fresh = bytes;
        let before = at.checked_sub(1);
        if let Some(before) = before.and_then(|at| self.parts.get(at))
            && let Ok(known) = usize::try_from(distance(before.end(), sequence))
        {
            begin = before.end();
            fresh = bytes.get(known..).unwrap_or_default();
        }
        if let Some(behind) = self.parts.get(at) {
            let length = usize::try_from(distance(behind.begin, begin)).unwrap_or(0);
            fresh = fresh.get(..length).unwrap_or(fresh);
        }
        self.newest = sequence;
        if fresh.is_empty() {
            return true;
        }
        let most = room.min(MAX_FLOW_BYTES.saturating_sub(self.cost));
        if fresh.len() + PART_BYTES > most {
            return false;
        }
        if let Some(part) = before.and_then(|at| self.parts.get_mut(at))
            && part.end() == begin
            && part.bytes.len() + fresh.len() <= MAX_PART_BYTES
        {
            self.cost -= part.cost();
            part.bytes.extend_from_slice(fresh);
            self.cost += part.cost();
            return true;
        }
        if self.parts.len() >= MAX_PARTS {
            return false;
        }
        let part = Part {
            begin,
            bytes: fresh.to_vec(),
        };
        self.cost += part.cost();
        self.parts.insert(at, part);
        true
    }

    /// What is here from this number on, as far as it lies in one part. What lies before it is forgotten.
    pub fn from(&mut self, expected: u32) -> Option<&[u8]> {
        loop {
            let front = self.parts.front()?;
            let known = usize::try_from(distance(expected, front.begin)).ok()?;
            if known < front.bytes.len() {
                return self.parts.front()?.bytes.get(known..);
            }
            self.cost -= front.cost();
            self.parts.pop_front();
        }
    }

    /// The blocks behind the gap at this number that a member is to be told: the one that it added to last
    /// is the first (RFC 2018, section 4).
    #[must_use]
    pub fn blocks(&self, expected: u32) -> Vec<(u32, u32)> {
        let mut blocks: Vec<(u32, u32)> = Vec::new();
        for part in &self.parts {
            match blocks.last_mut() {
                Some((_, end)) if *end == part.begin => *end = part.end(),
                _ => blocks.push((part.begin, part.end())),
            }
        }
        // What begins there waits for the socket, and is acknowledged when that has taken it.
        blocks.retain(|(begin, _)| distance(*begin, expected) > 0);
        blocks.reverse();
        let is_newest = |(begin, end): &(u32, u32)| {
            distance(self.newest, *begin) >= 0 && distance(self.newest, *end) < 0
        };
        if let Some(at) = blocks.iter().position(is_newest)
            && let Some(newest) = blocks.get_mut(..=at)
        {
            newest.rotate_right(1);
        }
        blocks.truncate(MAX_BLOCKS);
        blocks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEGIN: u32 = u32::MAX - 100;

    fn number(offset: u32) -> u32 {
        BEGIN.wrapping_add(offset)
    }

    /// Each byte is its offset.
    fn bytes(range: std::ops::Range<u32>) -> Vec<u8> {
        range.map(|n| n as u8).collect()
    }

    fn keep(ahead: &mut Ahead, range: std::ops::Range<u32>) -> bool {
        ahead.keep(number(range.start), &bytes(range.clone()), MAX_BYTES)
    }

    fn all_from(ahead: &mut Ahead, mut at: u32) -> Vec<u8> {
        let mut got = Vec::new();
        while let Some(bytes) = ahead.from(number(at)) {
            got.extend_from_slice(bytes);
            at += bytes.len() as u32;
        }
        got
    }

    #[test]
    fn what_came_in_any_order_is_there_once_and_in_order() {
        let ranges = [150..200, 50..80, 60..120, 40..60, 110..160, 50..200];
        for first in 0..ranges.len() {
            let mut ahead = Ahead::default();
            for at in 0..ranges.len() {
                keep(&mut ahead, ranges[(first + at) % ranges.len()].clone());
            }
            // What lay behind something that was known may have to come again.
            keep(&mut ahead, 40..200);
            keep(&mut ahead, 80..200);
            keep(&mut ahead, 120..200);
            assert_eq!(ahead.from(number(39)), None, "{first}");
            assert_eq!(all_from(&mut ahead, 40), bytes(40..200), "{first}");
            assert_eq!(ahead.cost(), 0);
        }
    }

    #[test]
    fn the_newest_block_is_told_first_and_none_that_only_waits() {
        let mut ahead = Ahead::default();
        for range in [20..30, 60..70, 80..90, 40..50, 62..70] {
            keep(&mut ahead, range);
        }
        let told = |ahead: &Ahead, at| -> Vec<_> {
            let blocks = ahead.blocks(number(at)).into_iter();
            blocks
                .map(|(begin, end)| (begin.wrapping_sub(BEGIN), end.wrapping_sub(BEGIN)))
                .collect()
        };
        assert_eq!(told(&ahead, 10), [(60, 70), (80, 90), (40, 50)]);
        keep(&mut ahead, 70..80);
        assert_eq!(told(&ahead, 10), [(60, 90), (40, 50), (20, 30)]);
        assert_eq!(told(&ahead, 20), [(60, 90), (40, 50)]);
        assert!(Ahead::default().blocks(number(0)).is_empty());
    }

    #[test]
    fn there_are_bounds() {
        let mut ahead = Ahead::default();
        assert!(!ahead.keep(number(10), &[0; 1000], 1000));
        assert!(ahead.keep(number(10), &[0; 1000], 2000));
        // Every other byte: parts without end.
        let mut kept = 0;
        for n in 0..4096u32 {
            kept += u32::from(ahead.keep(number(2000 + 2 * n), &[1], MAX_BYTES));
        }
        assert_eq!(kept as usize, MAX_PARTS - 1);
        let mut ahead = Ahead::default();
        let mut at = 0;
        while ahead.keep(number(at), &[0; 65000], MAX_BYTES) {
            at += 70_000;
        }
        assert!(ahead.cost() <= MAX_FLOW_BYTES && at > 3 << 20);
        ahead.clear();
        assert_eq!(ahead.cost(), 0);
    }
}
