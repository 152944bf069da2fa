//! What a response of a name server says of addresses.

use super::message::{CLASS_IN, HEADER_BYTES, Query, TYPE_A, TYPE_AAAA};
use crate::frame::{be16, be32};
use std::net::IpAddr;

const TYPE_CNAME: u16 = 5;
/// Most names that stand for another one in a row.
const MAX_CHAIN: usize = 16;
/// Longest name as text.
const MAX_NAME: usize = 254;
const MASK_POINTER: u8 = 0xc0;

/// An address, and how long it may be kept, in seconds.
pub type Timed = (IpAddr, u32);

/// The addresses in a response.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Answers {
    /// Those of the name that was asked for.
    pub own: Vec<Timed>,
    /// All that are in the answer, whosever they are.
    pub all: Vec<IpAddr>,
}

struct Record {
    /// Empty if it is no name that a rule could have.
    owner: String,
    ttl_at: usize,
    seconds: u32,
    data: Data,
}

enum Data {
    Address(IpAddr),
    Alias(String),
    Other,
}

/// The addresses in a response to a query; none if it is malformed.
#[must_use]
pub fn addresses(message: &[u8], query: &Query<'_>) -> Option<Answers> {
    let records = records(message)?;
    let mut answers = Answers::default();
    for record in &records {
        if let Data::Address(address) = record.data {
            answers.all.push(address);
        }
    }
    let mut name = query.name.as_str();
    for _ in 0..MAX_CHAIN {
        let own = records.iter().filter(|record| record.owner == name);
        let mut next = None;
        for record in own {
            match &record.data {
                Data::Address(address) => answers.own.push((*address, record.seconds)),
                Data::Alias(alias) => next = Some(alias),
                Data::Other => {}
            }
        }
        match next {
            Some(alias) => name = alias,
            None => break,
        }
    }
    Some(answers)
}

/// Has nobody keep an answer for longer than so many seconds.
pub fn shorten(message: &mut [u8], most: u32) {
    let Some(records) = records(message) else {
        return;
    };
    for record in records.iter().filter(|record| record.seconds > most) {
        if let Some(field) = message.get_mut(record.ttl_at..record.ttl_at + 4) {
            field.copy_from_slice(&most.to_be_bytes());
        }
    }
}

/// The answer section of a message with one question.
fn records(message: &[u8]) -> Option<Vec<Record>> {
    let count = be16(message, 6)?;
    let (_, question) = name(message, HEADER_BYTES)?;
    let mut at = question + 4;
    let mut records = Vec::new();
    for _ in 0..count {
        let (owner, fields) = name(message, at)?;
        let kind = be16(message, fields)?;
        let class = be16(message, fields + 2)?;
        let ttl_at = fields + 4;
        // One with the highest bit set is zero (RFC 2181, section 8).
        let seconds = be32(message, ttl_at)?;
        let length = usize::from(be16(message, fields + 8)?);
        let begin = fields + 10;
        let data = message.get(begin..begin + length)?;
        at = begin + length;
        let data = match (class, kind) {
            (CLASS_IN, TYPE_A) => Data::Address(<[u8; 4]>::try_from(data).ok()?.into()),
            (CLASS_IN, TYPE_AAAA) => Data::Address(<[u8; 16]>::try_from(data).ok()?.into()),
            (CLASS_IN, TYPE_CNAME) => {
                let (alias, end) = name(message, begin)?;
                if end != at {
                    return None;
                }
                Data::Alias(alias)
            }
            _ => Data::Other,
        };
        records.push(Record {
            owner,
            ttl_at,
            seconds: if seconds >> 31 == 0 { seconds } else { 0 },
            data,
        });
    }
    Some(records)
}

/// A name that may be compressed, in lower case, and where it ends. It is empty if it has characters that
/// no rule could name.
fn name(message: &[u8], begin: usize) -> Option<(String, usize)> {
    let mut text = String::new();
    let mut is_plain = true;
    let mut end = None;
    let (mut at, mut earliest) = (begin, begin);
    loop {
        let length = *message.get(at)?;
        if length & MASK_POINTER == MASK_POINTER {
            end.get_or_insert(at + 2);
            let target = usize::from(be16(message, at)? & 0x3fff);
            // Only ever back: it ends.
            if target >= earliest {
                return None;
            }
            (at, earliest) = (target, target);
            continue;
        }
        at += 1;
        if length == 0 {
            let name = if is_plain { text } else { String::new() };
            return Some((name, end.unwrap_or(at)));
        }
        let label = message.get(at..at + usize::from(length))?;
        if length & MASK_POINTER != 0 || text.len() + label.len() > MAX_NAME {
            return None;
        }
        at += label.len();
        if !text.is_empty() {
            text.push('.');
        }
        for byte in label {
            is_plain &= byte.is_ascii_graphic() && !matches!(byte, b'.' | b'*' | b'\\');
            text.push(char::from(byte.to_ascii_lowercase()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(name: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        for label in name.split('.') {
            bytes.push(label.len() as u8);
            bytes.extend(label.as_bytes());
        }
        bytes.push(0);
        bytes
    }

    fn query(name: &str) -> Vec<u8> {
        let mut bytes = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        bytes.extend(labels(name));
        bytes.extend([0, 1, 0, 1]);
        bytes
    }

    fn record(owner: &[u8], kind: u16, seconds: u32, data: &[u8]) -> Vec<u8> {
        let mut bytes = owner.to_vec();
        bytes.extend(kind.to_be_bytes());
        bytes.extend([0, 1]);
        bytes.extend(seconds.to_be_bytes());
        bytes.extend((data.len() as u16).to_be_bytes());
        bytes.extend(data);
        bytes
    }

    fn response(name: &str, records: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = query(name);
        bytes[2] |= 0x80;
        bytes[7] = records.len() as u8;
        bytes.extend(records.concat());
        bytes
    }

    fn of(name: &str, records: &[Vec<u8>]) -> Option<Answers> {
        let query = query(name);
        addresses(&response(name, records), &Query::parse(&query).unwrap())
    }

    const POINTER: [u8; 2] = [0xc0, 12];
    const FIRST: [u8; 4] = [192, 0, 2, 1];
    const SECOND: [u8; 4] = [192, 0, 2, 2];

    #[test]
    fn aliases_are_followed_and_strangers_are_not() {
        let answers = of(
            "www.example.com",
            &[
                record(&labels("x.cdn.net"), TYPE_A, 30, &FIRST),
                record(&POINTER, TYPE_CNAME, 300, &labels("X.cdn.net")),
                record(&labels("other.net"), TYPE_A, 60, &SECOND),
                record(&labels("x.cdn.net"), TYPE_AAAA, u32::MAX, &[7; 16]),
                record(&POINTER, 16, 60, b"\x04text"),
            ],
        );
        let v6 = IpAddr::from([7u8; 16]);
        let expected = Answers {
            own: vec![(FIRST.into(), 30), (v6, 0)],
            all: vec![FIRST.into(), SECOND.into(), v6],
        };
        assert_eq!(answers, Some(expected));
    }

    #[test]
    fn aliases_in_a_circle_end() {
        let answers = of(
            "a.b",
            &[
                record(&POINTER, TYPE_CNAME, 60, &labels("c.d")),
                record(&labels("c.d"), TYPE_CNAME, 60, &POINTER),
            ],
        );
        assert_eq!(answers, Some(Answers::default()));
    }

    #[test]
    fn names_that_no_rule_has_own_nothing() {
        let answers = of("a.b", &[record(b"\x03a.b\0", TYPE_A, 60, &FIRST)]).unwrap();
        assert_eq!((answers.own.len(), answers.all.len()), (0, 1));
    }

    #[test]
    fn what_is_malformed_is_none() {
        for record in [
            record(&POINTER, TYPE_A, 60, &[1, 2, 3]),
            record(&POINTER, TYPE_AAAA, 60, &FIRST),
            record(&POINTER, TYPE_CNAME, 60, &[1, b'a', 0, 9]),
            // A pointer to itself, one forward, a label of another kind, a name without end.
            record(&[0xc0, 21], TYPE_A, 60, &FIRST),
            record(&[0xc0, 99], TYPE_A, 60, &FIRST),
            record(&[0x40, 0], TYPE_A, 60, &FIRST),
            vec![5, b'a'],
            vec![],
        ] {
            assert_eq!(of("a.b", std::slice::from_ref(&record)), None, "{record:?}");
        }
        let whole = response("a.b", &[record(&POINTER, TYPE_A, 60, &FIRST)]);
        let asked = query("a.b");
        let asked = Query::parse(&asked).unwrap();
        for cut in 0..whole.len() {
            assert_eq!(addresses(&whole[..cut], &asked), None, "{cut}");
        }
    }

    #[test]
    fn nobody_keeps_an_answer_for_too_long() {
        let mut message = response(
            "a.b",
            &[
                record(&POINTER, TYPE_A, 86400, &FIRST),
                record(&POINTER, TYPE_A, 30, &SECOND),
            ],
        );
        shorten(&mut message, 3600);
        let asked = query("a.b");
        let answers = addresses(&message, &Query::parse(&asked).unwrap()).unwrap();
        assert_eq!(answers.own, [(FIRST.into(), 3600), (SECOND.into(), 30)]);
    }
}
