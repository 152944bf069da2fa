//! DNS messages (RFC 1035): as much as a forwarder has to know.

use crate::frame::be16;
use std::net::IpAddr;

const HEADER_BYTES: usize = 12;
/// Longest name, in bytes of its encoding.
const MAX_NAME_BYTES: usize = 255;
/// The longest query that is taken; longer ones have no use.
pub const MAX_QUERY_BYTES: usize = 1024;
/// Most addresses of one answer.
const MAX_ADDRESSES: u16 = 16;

/// The type of an IPv4 address.
pub const TYPE_A: u16 = 1;
/// The type of a name that an address has.
const TYPE_PTR: u16 = 12;
/// The type of an IPv6 address.
pub const TYPE_AAAA: u16 = 28;
const TYPE_ANY: u16 = 255;
const CLASS_IN: u16 = 1;

const FLAG_RESPONSE: u16 = 0x8000;
const FLAG_AUTHORITATIVE: u16 = 0x0400;
const FLAG_RECURSION_DESIRED: u16 = 0x0100;
const FLAG_RECURSION_AVAILABLE: u16 = 0x0080;
const MASK_OPCODE: u16 = 0x7800;
const MASK_CODE: u16 = 0x000f;

/// What a response says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// An answer, perhaps an empty one.
    NoError = 0,
    /// The query is malformed.
    FormatError = 1,
    /// Nobody could be asked.
    ServerFailure = 2,
    /// There is no such name.
    NameError = 3,
    /// The query's kind is not served.
    NotImplemented = 4,
    /// The query is not allowed.
    Refused = 5,
}

/// A query with one question.
#[derive(Debug, PartialEq, Eq)]
pub struct Query<'a> {
    /// The message.
    pub bytes: &'a [u8],
    /// The name, in lower case, without the last dot.
    pub name: String,
    /// The type that is asked for.
    pub kind: u16,
    class: u16,
    /// Where the question ends.
    end: usize,
}

/// Why a message is no query that is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Malformed {
    /// It is not answered: too short, or a response.
    Silent,
    /// It is answered with this.
    Answer(Code),
}

impl<'a> Query<'a> {
    /// Parses a query.
    ///
    /// # Errors
    /// What it is answered with, if it is one that is not served.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let flags = be16(bytes, 2).ok_or(Malformed::Silent)?;
        if bytes.len() < HEADER_BYTES || flags & FLAG_RESPONSE != 0 {
            return Err(Malformed::Silent);
        }
        if flags & MASK_OPCODE != 0 {
            return Err(Malformed::Answer(Code::NotImplemented));
        }
        let wrong = Malformed::Answer(Code::FormatError);
        if bytes.len() > MAX_QUERY_BYTES || be16(bytes, 4) != Some(1) {
            return Err(wrong);
        }
        let (name, at) = name(bytes, HEADER_BYTES).ok_or(wrong)?;
        let kind = be16(bytes, at).ok_or(wrong)?;
        let class = be16(bytes, at + 2).ok_or(wrong)?;
        Ok(Self {
            bytes,
            name,
            kind,
            class,
            end: at + 4,
        })
    }

    /// A response without records.
    #[must_use]
    pub fn respond(&self, code: Code) -> Vec<u8> {
        header(
            self.bytes,
            code,
            self.bytes.get(HEADER_BYTES..self.end).unwrap_or_default(),
        )
    }

    /// A response with those of the addresses that were asked for.
    #[must_use]
    pub fn answer(&self, addresses: &[IpAddr]) -> Vec<u8> {
        let mut response = self.respond(Code::NoError);
        let mut count = 0u16;
        for address in addresses {
            let (kind, data) = match address {
                IpAddr::V4(address) => (TYPE_A, address.octets().to_vec()),
                IpAddr::V6(address) => (TYPE_AAAA, address.octets().to_vec()),
            };
            if count < MAX_ADDRESSES && self.asks_for(kind) {
                put_record(&mut response, kind, &data);
                count += 1;
            }
        }
        put_answers(&mut response, count);
        response
    }

    /// A response with the name that an address has, if that was asked for.
    #[must_use]
    pub fn point(&self, name: &str) -> Vec<u8> {
        let mut response = self.respond(Code::NoError);
        if let Some(data) = encode(name).filter(|_| self.asks_for(TYPE_PTR)) {
            put_record(&mut response, TYPE_PTR, &data);
            put_answers(&mut response, 1);
        }
        response
    }

    fn asks_for(&self, kind: u16) -> bool {
        self.class == CLASS_IN && (self.kind == kind || self.kind == TYPE_ANY)
    }
}

/// A record of the question's name. Its time to live is none: members come and go.
fn put_record(response: &mut Vec<u8>, kind: u16, data: &[u8]) {
    response.extend([0xc0, HEADER_BYTES as u8]);
    response.extend(kind.to_be_bytes());
    response.extend(CLASS_IN.to_be_bytes());
    response.extend(0u32.to_be_bytes());
    response.extend((data.len() as u16).to_be_bytes());
    response.extend(data);
}

fn put_answers(response: &mut [u8], count: u16) {
    if let Some(field) = response.get_mut(6..8) {
        field.copy_from_slice(&count.to_be_bytes());
    }
}

/// A name as a message has it, if it is one.
fn encode(name: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    for label in name.split('.') {
        let length = u8::try_from(label.len()).ok();
        bytes.push(length.filter(|length| (1..64).contains(length))?);
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    (bytes.len() <= MAX_NAME_BYTES).then_some(bytes)
}

/// A response to a message that could not be parsed.
#[must_use]
pub fn refuse(bytes: &[u8], code: Code) -> Vec<u8> {
    header(bytes, code, &[])
}

fn header(query: &[u8], code: Code, question: &[u8]) -> Vec<u8> {
    let asked = be16(query, 2).unwrap_or(0) & (MASK_OPCODE | FLAG_RECURSION_DESIRED);
    let own = FLAG_RESPONSE | FLAG_AUTHORITATIVE | FLAG_RECURSION_AVAILABLE;
    let mut response = query.get(..2).unwrap_or(&[0, 0]).to_vec();
    response.extend((asked | own | code as u16).to_be_bytes());
    response.extend(u16::from(!question.is_empty()).to_be_bytes());
    response.extend([0; 6]);
    response.extend(question);
    response
}

/// Whether a message is the response to a query: same number, same question (RFC 5452).
#[must_use]
pub fn is_response(message: &[u8], query: &Query<'_>, id: u16) -> bool {
    let flags = be16(message, 2).unwrap_or(0);
    if be16(message, 0) != Some(id) || flags & FLAG_RESPONSE == 0 {
        return false;
    }
    match name(message, HEADER_BYTES) {
        Some((other, at)) if be16(message, 4) == Some(1) => {
            other == query.name
                && be16(message, at) == Some(query.kind)
                && be16(message, at + 2) == Some(query.class)
        }
        _ => false,
    }
}

/// Whether a response ends the search: an answer, or that there is no such name.
#[must_use]
pub fn is_final(message: &[u8]) -> bool {
    matches!(be16(message, 2).map(|flags| flags & MASK_CODE), Some(0 | 3))
}

/// A name that is not compressed, as a question's is, and where it ends. Labels with other
/// characters than a rule could name are refused: two readings of a name would be a way around.
fn name(bytes: &[u8], begin: usize) -> Option<(String, usize)> {
    let mut text = String::new();
    let mut at = begin;
    loop {
        let length = usize::from(*bytes.get(at)?);
        at += 1;
        if length == 0 {
            return Some((text, at));
        }
        let label = bytes.get(at..at + length).filter(|_| length < 64)?;
        at += length;
        if at - begin > MAX_NAME_BYTES {
            return None;
        }
        if !text.is_empty() {
            text.push('.');
        }
        for byte in label {
            if !byte.is_ascii_graphic() || matches!(byte, b'.' | b'*' | b'\\') {
                return None;
            }
            text.push(char::from(byte.to_ascii_lowercase()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(labels: &[&[u8]], kind: u16) -> Vec<u8> {
        let mut bytes = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in labels {
            bytes.push(label.len() as u8);
            bytes.extend_from_slice(label);
        }
        bytes.extend([0, (kind >> 8) as u8, kind as u8, 0, 1]);
        bytes
    }

    #[test]
    fn a_query_is_answered_with_the_addresses_of_its_type() {
        let bytes = query(&[b"Web", b"example"], TYPE_A);
        let parsed = Query::parse(&bytes).unwrap();
        assert_eq!(parsed.name, "web.example");
        let answer = parsed.answer(&["10.0.0.7".parse().unwrap(), "fd00::7".parse().unwrap()]);
        assert_eq!(
            answer[..12],
            [0x12, 0x34, 0x85, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]
        );
        assert_eq!(
            answer[answer.len() - 16..],
            [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4, 10, 0, 0, 7]
        );
        // Those of another type take nobody's place.
        let many: Vec<IpAddr> = (0..20u8)
            .flat_map(|n| [IpAddr::from([10, 0, 0, n]), "fd00::7".parse().unwrap()])
            .collect();
        assert_eq!(parsed.answer(&many)[6..8], [0, 16]);
        let bytes = query(&[b"web"], 16);
        let empty = Query::parse(&bytes)
            .unwrap()
            .answer(&["10.0.0.7".parse().unwrap()]);
        assert_eq!(empty[6..8], [0, 0]);
    }

    #[test]
    fn an_address_has_a_name() {
        let bytes = query(&[b"7", b"in-addr", b"arpa"], TYPE_PTR);
        let parsed = Query::parse(&bytes).unwrap();
        let answer = parsed.point("web.net");
        assert_eq!(answer[6..8], [0, 1]);
        assert_eq!(answer[answer.len() - 9..], *b"\x03web\x03net\0");
        for name in ["", "a..b", &"a".repeat(64), &["a"; 128].join(".")] {
            assert_eq!(parsed.point(name)[6..8], [0, 0], "{name}");
        }
        let bytes = query(&[b"web"], TYPE_A);
        assert_eq!(Query::parse(&bytes).unwrap().point("web")[6..8], [0, 0]);
    }

    #[test]
    fn names_with_two_readings_are_refused() {
        let wrong = Malformed::Answer(Code::FormatError);
        for labels in [
            &[&b"a.b"[..]][..],
            &[b"a\0b"],
            &[b"a b"],
            &["é".as_bytes()],
            &[b"*", b"b"],
        ] {
            assert_eq!(Query::parse(&query(labels, 1)), Err(wrong), "{labels:?}");
        }
        let long = [&[b'a'; 63][..]; 4];
        assert_eq!(Query::parse(&query(&long, 1)), Err(wrong));
        // Compression in a question, which could point at itself.
        let mut pointer = query(&[], 1);
        pointer.splice(12..13, [0xc0, 12]);
        assert_eq!(Query::parse(&pointer), Err(wrong));
    }

    #[test]
    fn no_prefix_of_a_query_panics_and_responses_are_not_answered() {
        let bytes = query(&[b"web", b"example"], 1);
        for cut in 0..bytes.len() {
            assert!(Query::parse(&bytes[..cut]).is_err());
        }
        let mut response = bytes.clone();
        response[2] |= 0x80;
        assert_eq!(Query::parse(&response), Err(Malformed::Silent));
        let mut two = bytes;
        two[5] = 2;
        assert_eq!(
            Query::parse(&two),
            Err(Malformed::Answer(Code::FormatError))
        );
    }

    #[test]
    fn a_response_is_one_to_the_same_question() {
        let bytes = query(&[b"web"], 1);
        let parsed = Query::parse(&bytes).unwrap();
        let mut response = parsed.answer(&[]);
        assert!(is_response(&response, &parsed, 0x1234) && is_final(&response));
        assert!(!is_response(&response, &parsed, 0x1235));
        assert!(!is_response(&bytes, &parsed, 0x1234));
        response[13] = b'x';
        assert!(!is_response(&response, &parsed, 0x1234));
        assert!(!is_final(&parsed.respond(Code::ServerFailure)));
    }
}
