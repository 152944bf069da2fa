//! DNS messages (RFC 1035, section 4): one question out, addresses in. An answer is hostile: every
//! offset is checked, and nothing is followed but forward.

use std::net::IpAddr;

pub(super) const TYPE_A: u16 = 1;
pub(super) const TYPE_AAAA: u16 = 28;
const CLASS_IN: u16 = 1;
const HEADER_BYTES: usize = 12;
const MAX_LABEL_BYTES: usize = 63;
const MAX_NAME_BYTES: usize = 253;
const FLAG_RESPONSE: u8 = 0x80;
const FLAG_TRUNCATED: u8 = 0x02;
const FLAG_RECURSION: u8 = 0x01;
const CODE_UNKNOWN: u8 = 3;

/// What an answer says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reply {
    Addresses(Vec<IpAddr>),
    /// The rest comes over TCP.
    Truncated,
    /// The server cannot tell.
    Failure,
    /// Not an answer to the question.
    Foreign,
}

/// A question for a name's records of one type; none for a name that cannot be asked for.
pub(super) fn question(id: u16, name: &str, kind: u16) -> Option<Vec<u8>> {
    if name.is_empty() || name.len() > MAX_NAME_BYTES {
        return None;
    }
    let mut message = id.to_be_bytes().to_vec();
    message.extend([FLAG_RECURSION, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.') {
        let length = u8::try_from(label.len()).ok()?;
        if label.is_empty() || label.len() > MAX_LABEL_BYTES {
            return None;
        }
        message.push(length);
        message.extend_from_slice(label.as_bytes());
    }
    message.push(0);
    message.extend(kind.to_be_bytes());
    message.extend(CLASS_IN.to_be_bytes());
    Some(message)
}

/// Reads an answer to `question`, which asked for records of type `kind`.
pub(super) fn reply(question: &[u8], kind: u16, message: &[u8]) -> Reply {
    let (Some(asked), Some(repeated)) = (
        question.get(HEADER_BYTES..),
        message.get(HEADER_BYTES..question.len()),
    ) else {
        return Reply::Foreign;
    };
    // Servers may change the case of what they repeat.
    if message.get(..2) != question.get(..2)
        || message[2] & FLAG_RESPONSE == 0
        || !asked.eq_ignore_ascii_case(repeated)
    {
        return Reply::Foreign;
    }
    if message[2] & FLAG_TRUNCATED != 0 {
        return Reply::Truncated;
    }
    match message[3] & 0x0f {
        0 => {}
        CODE_UNKNOWN => return Reply::Addresses(Vec::new()),
        _ => return Reply::Failure,
    }
    let count = u16::from_be_bytes([message[6], message[7]]);
    Reply::Addresses(addresses(&message[question.len()..], count, kind))
}

/// The addresses of the answer section. Aliases among them are the server's to follow.
fn addresses(mut rest: &[u8], count: u16, kind: u16) -> Vec<IpAddr> {
    let mut found = Vec::new();
    for _ in 0..count {
        let Some((own_kind, data, after)) = record(rest) else {
            break;
        };
        rest = after;
        if own_kind != kind {
            continue;
        }
        if let Ok(v4) = <[u8; 4]>::try_from(data) {
            found.push(IpAddr::from(v4));
        } else if let Ok(v6) = <[u8; 16]>::try_from(data) {
            found.push(IpAddr::from(v6));
        }
    }
    found
}

/// One record: its type, its data, and what follows.
fn record(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let after_name = skip_name(bytes)?;
    let (head, rest) = after_name.split_at_checked(10)?;
    let kind = u16::from_be_bytes([head[0], head[1]]);
    let length = usize::from(u16::from_be_bytes([head[8], head[9]]));
    let (data, rest) = rest.split_at_checked(length)?;
    Some((kind, data, rest))
}

/// What follows a name. A pointer ends it; where it points to does not matter.
fn skip_name(mut bytes: &[u8]) -> Option<&[u8]> {
    loop {
        let (&length, rest) = bytes.split_first()?;
        match length {
            0 => return Some(rest),
            0xc0.. => return rest.get(1..),
            1..=63 => bytes = rest.get(usize::from(length)..)?,
            _ => return None,
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// The answer that a server gives a question: the addresses of the type that it asks for.
    pub(in super::super) fn answer(question: &[u8], addresses: &[IpAddr]) -> Vec<u8> {
        let kind = u16::from_be_bytes([question[question.len() - 4], question[question.len() - 3]]);
        let mut message = question.to_vec();
        message[2] |= FLAG_RESPONSE;
        let mut count = 0;
        for address in addresses {
            let (own, data) = match address {
                IpAddr::V4(v4) => (TYPE_A, v4.octets().to_vec()),
                IpAddr::V6(v6) => (TYPE_AAAA, v6.octets().to_vec()),
            };
            if own != kind {
                continue;
            }
            count += 1;
            message.extend([0xc0, 12]);
            message.extend(kind.to_be_bytes());
            message.extend([0, 1, 0, 0, 0, 60]);
            message.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
            message.extend(data);
        }
        message[7] = count;
        message
    }

    pub(in super::super) fn unknown(question: &[u8]) -> Vec<u8> {
        let mut message = question.to_vec();
        message[2] |= FLAG_RESPONSE;
        message[3] = CODE_UNKNOWN;
        message
    }

    #[test]
    fn addresses_of_the_type_asked_for_are_found() {
        let asked = question(7, "r.io", TYPE_A).unwrap();
        let addresses: [IpAddr; 3] = [
            "10.0.0.1".parse().unwrap(),
            "::1".parse().unwrap(),
            "10.0.0.2".parse().unwrap(),
        ];
        let full = answer(&asked, &addresses);
        assert_eq!(
            reply(&asked, TYPE_A, &full),
            Reply::Addresses(vec![addresses[0], addresses[2]])
        );
        assert_eq!(
            reply(&asked, TYPE_A, &unknown(&asked)),
            Reply::Addresses(vec![])
        );
        let mut other = full.clone();
        other[1] ^= 1;
        assert_eq!(reply(&asked, TYPE_A, &other), Reply::Foreign);
        assert_eq!(reply(&asked, TYPE_A, &asked), Reply::Foreign);
        let mut cut = full;
        cut[2] |= FLAG_TRUNCATED;
        assert_eq!(reply(&asked, TYPE_A, &cut), Reply::Truncated);
        for name in ["", "a..b", &"a".repeat(64), &"a.".repeat(127)] {
            assert_eq!(question(1, name, TYPE_A), None, "{name}");
        }
    }

    #[test]
    fn a_damaged_answer_is_no_danger() {
        let asked = question(7, "r.io", TYPE_AAAA).unwrap();
        let full = answer(&asked, &["2001:db8::1".parse().unwrap(); 3]);
        for end in 0..full.len() {
            reply(&asked, TYPE_AAAA, &full[..end]);
        }
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..20_000 {
            let mut damaged = full.clone();
            for _ in 0..random.usize(1..6) {
                let at = random.usize(2..damaged.len());
                damaged[at] = random.u8(..);
            }
            reply(&asked, TYPE_AAAA, &damaged);
        }
    }
}
