//! What is true of any bytes that a parser reads: for fuzz targets, and for a test that changes bytes at
//! random.

pub use crate::dns::check::messages as dns;
pub use crate::tcp::check::numbers;

use crate::frame::tcp::{FIN, SYN, TcpSegment};
use crate::gate::{Found, Speech};
use crate::policy::normal_name;

/// Any bytes as the beginning of a connection: a name is one that a rule could have, and what was told by
/// fewer bytes is not taken back.
pub fn names(data: &[u8]) {
    for speech in [Speech::Http, Speech::Tls] {
        let whole = speech.read(data);
        if let Found::Name(name) = &whole {
            assert_eq!(normal_name(name).as_ref(), Some(name));
        }
        for cut in [data.len() / 3, data.len() / 2, data.len().saturating_sub(1)] {
            match speech.read(data.get(..cut).unwrap_or_default()) {
                Found::More => {}
                Found::Nothing(_) => assert!(matches!(whole, Found::Nothing(_)), "{whole:?}"),
                name => assert_eq!(name, whole),
            }
        }
    }
}

/// Any bytes as a TCP segment.
pub fn segment(data: &[u8]) {
    if let Some(segment) = TcpSegment::parse(data) {
        assert!(segment.payload.len() + 20 <= data.len());
        assert!(segment.window_scale.is_none_or(|shift| shift <= 14));
        let ends = usize::from(segment.has(SYN)) + usize::from(segment.has(FIN));
        assert_eq!(
            segment.sequence_bytes() as usize,
            segment.payload.len() + ends
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Enough to find what a fuzzer finds in its first seconds; one that runs for longer finds more.
    const CHANGES: usize = 100_000;

    /// Numbers without a period that matters, the same in each run.
    struct Random(u64);

    impl Random {
        fn next(&mut self) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 >> 11) as usize
        }
    }

    /// Changes a few bytes, cuts, doubles or mixes.
    fn change(random: &mut Random, seeds: &[Vec<u8>]) -> Vec<u8> {
        let mut data = seeds[random.next() % seeds.len()].clone();
        for _ in 0..=random.next() % 4 {
            if data.is_empty() {
                data.push(random.next() as u8);
            }
            let at = random.next() % data.len();
            match random.next() % 8 {
                0..=2 => data[at] = random.next() as u8,
                3 => data[at] = [0, 1, 0x7f, 0x80, 0xc0, 0xff][random.next() % 6],
                4 => data[at] ^= 1 << (random.next() % 8),
                5 => data.truncate(at),
                6 => data.insert(at, random.next() as u8),
                _ => {
                    let other = &seeds[random.next() % seeds.len()];
                    let begin = random.next() % (other.len() + 1);
                    data.truncate(at);
                    data.extend(&other[begin..]);
                }
            }
        }
        data
    }

    fn survives(check: impl Fn(&[u8]), seeds: &[&[u8]], changes: usize) {
        let seeds: Vec<Vec<u8>> = seeds.iter().map(|seed| seed.to_vec()).collect();
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        for seed in &seeds {
            check(seed);
        }
        for _ in 0..changes {
            check(&change(&mut random, &seeds));
        }
    }

    #[test]
    fn dns_messages_survive_any_change() {
        let question = b"\0\x07\x01\0\0\x01\0\0\0\0\0\0\x03www\x07example\x03com\0\0\x01\0\x01";
        let with_option = [
            &b"\0\x07\x01\0\0\x01\0\0\0\0\0\x01\x03www\x07example\x03com\0\0\x01\0\x01"[..],
            b"\0\0\x29\x04\xd0\0\0\x80\0\0\x04\0\x0a\0\0",
        ]
        .concat();
        let answer = [
            &b"\0\x07\x81\x80\0\x01\0\x03\0\0\0\0\x03www\x07example\x03com\0\0\x01\0\x01"[..],
            b"\xc0\x0c\0\x05\0\x01\0\0\0\x3c\0\x06\x03cdn\xc0\x10",
            b"\x03cdn\xc0\x10\0\x01\0\x01\0\0\0\x3c\0\x04\xc0\0\x02\x01",
            b"\xc0\x2d\0\x1c\0\x01\xff\0\0\x3c\0\x10\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01",
        ]
        .concat();
        survives(dns, &[question, &with_option, &answer], CHANGES);
    }

    #[test]
    fn names_of_connections_survive_any_change() {
        let hello = [
            &b"\x16\x03\x01\0\x50\x01\0\0\x4c\x03\x03"[..],
            &[7; 32],
            b"\0\0\x02\x13\x01\x01\0\0\x21\0\0\0\x10\0\x0e\0\0\x0bexample.com",
            b"\0\x2b\0\x03\x02\x03\x04\xfe\x0e\0\x02\0\0",
        ]
        .concat();
        let request = b"GET /a HTTP/1.1\r\nAccept: */*\r\nHost: www.example.com:80\r\n\r\nbody";
        let proxy = b"GET http://www.example.com/ HTTP/1.0\r\nHost: www.example.com\r\n\r\n";
        let name = |data: &[u8], speech: Speech| matches!(speech.read(data), Found::Name(_));
        assert!(name(&hello, Speech::Tls) && name(request, Speech::Http));
        survives(names, &[&hello, request, proxy], CHANGES);
    }

    #[test]
    fn segments_and_numbers_survive_any_change() {
        let syn = b"\x0f\xa0\x01\xbb\0\0\0\x07\0\0\0\0\xa0\x02\xff\xff\0\0\0\0\
                    \x02\x04\x05\xb4\x04\x02\x08\x0a\0\0\0\0\0\0\0\0\x01\x03\x03\x07data";
        survives(segment, &[syn], CHANGES);
        let operations: Vec<u8> = (0..120u8).map(|n| n.wrapping_mul(37)).collect();
        // Each is many segments.
        survives(numbers, &[&operations, &[0; 60], &[0xff; 60]], CHANGES / 5);
    }
}
