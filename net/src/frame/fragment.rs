//! Fragments of IP datagrams: reassembly of what a guest sends, within bounds, and fragments of
//! what is too long for a guest's link.

use super::MAX_IP_BYTES;
use super::ip::IpPacket;
use std::net::IpAddr;

/// Most datagrams of one member that are incomplete at a time.
pub const MAX_DATAGRAMS: usize = 16;
/// Most fragments of one datagram.
const MAX_FRAGMENTS: usize = 128;
/// How long a datagram may stay incomplete, in nanoseconds (RFC 1122 asks for 60 to 120 s, which
/// is more than a neighbour on a link needs).
const LIFETIME_NS: u64 = 15_000_000_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Key {
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    id: u32,
}

#[derive(Debug)]
struct Datagram {
    key: Key,
    began_ns: u64,
    bytes: Vec<u8>,
    /// What has come, as (begin, end), sorted.
    parts: Vec<(usize, usize)>,
    total: Option<usize>,
}

/// The incomplete datagrams of one member: at most 16 of 64 KiB. The oldest makes room.
#[derive(Debug, Default)]
pub struct Reassembly {
    datagrams: Vec<Datagram>,
}

/// What became of a fragment.
#[derive(Debug, PartialEq, Eq)]
pub enum Reassembled {
    /// Others are missing.
    Incomplete,
    /// The datagram's transport bytes.
    Complete(Vec<u8>),
    /// The fragment is malformed or overlaps another one, and its datagram was dropped (RFC 5722).
    Refused,
}

impl Reassembly {
    /// Takes a fragment.
    pub fn push(&mut self, packet: &IpPacket<'_>, now_ns: u64) -> Reassembled {
        let Some(info) = packet.fragment else {
            return Reassembled::Refused;
        };
        self.datagrams
            .retain(|datagram| now_ns.saturating_sub(datagram.began_ns) < LIFETIME_NS);
        let key = Key {
            source: packet.source,
            destination: packet.destination,
            protocol: packet.protocol,
            id: info.id,
        };
        let index = match self
            .datagrams
            .iter()
            .position(|datagram| datagram.key == key)
        {
            Some(index) => index,
            None => self.begin(key, now_ns),
        };
        let end = info.offset + packet.payload.len();
        let misaligned = info.more && !packet.payload.len().is_multiple_of(8);
        let Some(datagram) = self.datagrams.get_mut(index) else {
            return Reassembled::Refused;
        };
        if packet.payload.is_empty()
            || misaligned
            || end > MAX_IP_BYTES
            || !datagram.add(info.offset, packet.payload, info.more)
        {
            self.datagrams.swap_remove(index);
            return Reassembled::Refused;
        }
        if datagram.is_complete() {
            return Reassembled::Complete(self.datagrams.swap_remove(index).bytes);
        }
        Reassembled::Incomplete
    }

    fn begin(&mut self, key: Key, now_ns: u64) -> usize {
        if self.datagrams.len() >= MAX_DATAGRAMS {
            let oldest = self
                .datagrams
                .iter()
                .enumerate()
                .min_by_key(|(_, datagram)| datagram.began_ns)
                .map_or(0, |(index, _)| index);
            self.datagrams.swap_remove(oldest);
        }
        self.datagrams.push(Datagram {
            key,
            began_ns: now_ns,
            bytes: Vec::new(),
            parts: Vec::new(),
            total: None,
        });
        self.datagrams.len() - 1
    }
}

impl Datagram {
    /// Puts a part in its place; `false` if it contradicts what has come.
    fn add(&mut self, begin: usize, payload: &[u8], more: bool) -> bool {
        let end = begin + payload.len();
        if self.parts.len() >= MAX_FRAGMENTS {
            return false;
        }
        let place = self.parts.partition_point(|&(other, _)| other < begin);
        let before = place.checked_sub(1).and_then(|at| self.parts.get(at));
        if before.is_some_and(|&(_, other)| other > begin)
            || self.parts.get(place).is_some_and(|&(other, _)| other < end)
            || self.total.is_some_and(|total| end > total || !more)
            || (!more && self.bytes.len() > end)
        {
            return false;
        }
        if !more {
            self.total = Some(end);
        }
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        if let Some(room) = self.bytes.get_mut(begin..end) {
            room.copy_from_slice(payload);
        }
        self.parts.insert(place, (begin, end));
        true
    }

    fn is_complete(&self) -> bool {
        let Some(total) = self.total else {
            return false;
        };
        let mut reached = 0;
        for &(begin, end) in &self.parts {
            if begin != reached {
                return false;
            }
            reached = end;
        }
        reached == total
    }
}

/// Cuts the transport bytes of a datagram for a link: (offset, part, whether others follow).
pub fn cut(transport: &[u8], room_bytes: usize) -> impl Iterator<Item = (usize, &[u8], bool)> {
    let size = (room_bytes & !7).max(8);
    transport
        .chunks(size)
        .enumerate()
        .map(move |(index, part)| {
            let offset = index * size;
            (offset, part, offset + part.len() < transport.len())
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::ip::FragmentInfo;

    fn fragment(id: u32, offset: usize, payload: &[u8], more: bool) -> IpPacket<'_> {
        IpPacket {
            source: [10, 0, 0, 2].into(),
            destination: [10, 0, 0, 1].into(),
            protocol: 17,
            fragment: Some(FragmentInfo { id, offset, more }),
            dont_fragment: false,
            hop_limit: 64,
            payload,
            whole: payload,
        }
    }

    #[test]
    fn any_order_gives_the_datagram() {
        let whole: Vec<u8> = (0..100).collect();
        let parts: Vec<_> = cut(&whole, 35).collect();
        assert_eq!(parts.len(), 4);
        for turn in 0..4 {
            let mut reassembly = Reassembly::default();
            let mut last = Reassembled::Incomplete;
            for step in 0..4 {
                assert_eq!(last, Reassembled::Incomplete);
                let (offset, part, more) = parts[(turn + step) % 4];
                last = reassembly.push(&fragment(1, offset, part, more), 0);
            }
            assert_eq!(last, Reassembled::Complete(whole.clone()));
            assert!(reassembly.datagrams.is_empty());
        }
    }

    #[test]
    fn overlaps_and_second_ends_drop_the_datagram() {
        let mut reassembly = Reassembly::default();
        reassembly.push(&fragment(1, 0, &[0; 16], true), 0);
        assert_eq!(
            reassembly.push(&fragment(1, 8, &[0; 16], true), 0),
            Reassembled::Refused
        );
        reassembly.push(&fragment(2, 16, &[0; 5], false), 0);
        assert_eq!(
            reassembly.push(&fragment(2, 32, &[0; 5], false), 0),
            Reassembled::Refused
        );
        reassembly.push(&fragment(3, 32, &[0; 8], true), 0);
        assert_eq!(
            reassembly.push(&fragment(3, 16, &[0; 5], false), 0),
            Reassembled::Refused
        );
        assert!(reassembly.datagrams.is_empty());
    }

    #[test]
    fn a_length_beyond_64_kib_is_refused() {
        let mut reassembly = Reassembly::default();
        let part = fragment(1, 65528, &[0; 16], false);
        assert_eq!(reassembly.push(&part, 0), Reassembled::Refused);
    }

    #[test]
    fn memory_is_bounded_in_number_and_time() {
        let mut reassembly = Reassembly::default();
        for id in 0..1000 {
            reassembly.push(&fragment(id, 65512, &[0; 16], true), u64::from(id));
        }
        assert_eq!(reassembly.datagrams.len(), MAX_DATAGRAMS);
        reassembly.push(&fragment(5000, 0, &[0; 8], true), LIFETIME_NS + 2000);
        assert_eq!(reassembly.datagrams.len(), 1);
        for offset in (0..MAX_FRAGMENTS * 8).step_by(8) {
            reassembly.push(&fragment(6000, offset, &[0; 8], true), LIFETIME_NS + 2000);
        }
        let last = fragment(6000, MAX_FRAGMENTS * 8, &[0; 8], true);
        assert_eq!(
            reassembly.push(&last, LIFETIME_NS + 2000),
            Reassembled::Refused
        );
    }
}
