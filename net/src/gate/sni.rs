//! The server name of a TLS client's first message (RFC 8446, section 4.1.2; RFC 6066, section 3).

use super::{Found, MAX_BYTES, Unnamed, name_of};

const RECORD_BYTES: usize = 5;
const HANDSHAKE: u8 = 22;
/// Most bytes of a record's fragment.
const MAX_FRAGMENT: usize = 1 << 14;
const CLIENT_HELLO: u8 = 1;
const MESSAGE_HEADER_BYTES: usize = 4;

const SERVER_NAME: u16 = 0;
const HOST_NAME: u8 = 0;
/// `encrypted_client_hello`.
const ECH: u16 = 0xfe0d;
/// Its predecessor `encrypted_server_name`.
const ESNI: u16 = 0xffce;

/// Reads the beginning of what a client sends.
#[must_use]
pub fn read(bytes: &[u8]) -> Found {
    let message = match message(bytes) {
        Ok(Some(message)) => message,
        Ok(None) => return Found::More,
        Err(why) => return Found::Nothing(why),
    };
    match server_name(&message) {
        Ok(name) => Found::Name(name),
        Err(why) => Found::Nothing(why),
    }
}

/// The body of the first message, put together from its records; none while some of it is missing.
fn message(mut bytes: &[u8]) -> Result<Option<Vec<u8>>, Unnamed> {
    let mut message: Vec<u8> = Vec::new();
    loop {
        if let Some((header, body)) = message.split_first_chunk::<MESSAGE_HEADER_BYTES>() {
            let [_, length @ ..] = *header;
            let [high, middle, low] = length.map(usize::from);
            let length = high << 16 | middle << 8 | low;
            if length > MAX_BYTES {
                return Err(Unnamed::TooLong);
            }
            if body.len() >= length {
                // Nothing may follow in its last record: a client has nothing more to say yet.
                return match body.len() == length {
                    true => Ok(Some(body.to_vec())),
                    false => Err(Unnamed::NoTls),
                };
            }
        }
        let Some((header, rest)) = bytes.split_first_chunk::<RECORD_BYTES>() else {
            return match bytes {
                [] | [HANDSHAKE] | [HANDSHAKE, 3, ..] => Ok(None),
                _ => Err(Unnamed::NoTls),
            };
        };
        let [kind, major, _, high, low] = *header;
        let length = usize::from(u16::from_be_bytes([high, low]));
        if kind != HANDSHAKE || major != 3 || !(1..=MAX_FRAGMENT).contains(&length) {
            return Err(Unnamed::NoTls);
        }
        let whole = rest.split_at_checked(length);
        message.extend(whole.map_or(rest, |(fragment, _)| fragment));
        // What is here may be wrong already, or say that it is too long.
        check_beginning(&message)?;
        bytes = match whole {
            Some((_, rest)) => rest,
            None => return Ok(None),
        };
    }
}

fn check_beginning(message: &[u8]) -> Result<(), Unnamed> {
    match *message {
        [kind, ..] if kind != CLIENT_HELLO => Err(Unnamed::NoTls),
        [_, high, middle, ..] if usize::from(high) << 16 | usize::from(middle) << 8 > MAX_BYTES => {
            Err(Unnamed::TooLong)
        }
        _ => Ok(()),
    }
}

/// A part of a message that is being read.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn word(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes(self.take(2)?.try_into().ok()?))
    }

    /// What has its length in a byte before it.
    fn short(&mut self) -> Option<Reader<'a>> {
        let length = self.byte()?;
        self.take(length.into()).map(Reader)
    }

    /// What has its length in two bytes before it.
    fn long(&mut self) -> Option<Reader<'a>> {
        let length = self.word()?;
        self.take(length.into()).map(Reader)
    }
}

fn server_name(message: &[u8]) -> Result<String, Unnamed> {
    let mut extensions = extensions(message).ok_or(Unnamed::NoTls)?;
    let mut seen = Vec::new();
    let mut name = None;
    while !extensions.0.is_empty() {
        let kind = extensions.word().ok_or(Unnamed::NoTls)?;
        let body = extensions.long().ok_or(Unnamed::NoTls)?;
        if seen.contains(&kind) {
            return Err(Unnamed::NoTls);
        }
        seen.push(kind);
        match kind {
            ECH | ESNI => return Err(Unnamed::Encrypted),
            SERVER_NAME => name = host_name(body),
            _ => {}
        }
    }
    name.ok_or(Unnamed::NoServerName)
}

fn extensions(message: &[u8]) -> Option<Reader<'_>> {
    let mut reader = Reader(message);
    // Version and random.
    reader.take(2 + 32)?;
    let session = reader.short()?;
    let ciphers = reader.long()?;
    let compressions = reader.short()?;
    let is_sound = session.0.len() <= 32
        && !ciphers.0.is_empty()
        && ciphers.0.len().is_multiple_of(2)
        && !compressions.0.is_empty();
    if !is_sound {
        return None;
    }
    if reader.0.is_empty() {
        // Older than extensions.
        return Some(reader);
    }
    let extensions = reader.long()?;
    reader.0.is_empty().then_some(extensions)
}

/// The one name of a list.
fn host_name(mut body: Reader<'_>) -> Option<String> {
    let mut list = body.long()?;
    let kind = list.byte()?;
    let name = list.long()?;
    let is_alone = kind == HOST_NAME && list.0.is_empty() && body.0.is_empty();
    name_of(name.0).filter(|_| is_alone)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn long(bytes: &[u8]) -> Vec<u8> {
        let mut all = (bytes.len() as u16).to_be_bytes().to_vec();
        all.extend(bytes);
        all
    }

    fn extension(kind: u16, body: &[u8]) -> Vec<u8> {
        let mut all = kind.to_be_bytes().to_vec();
        all.extend(long(body));
        all
    }

    fn named(name: &str) -> Vec<u8> {
        let mut entry = vec![HOST_NAME];
        entry.extend(long(name.as_bytes()));
        extension(SERVER_NAME, &long(&entry))
    }

    /// A client's message, with its header, that has these extensions.
    fn hello(extensions: &[Vec<u8>]) -> Vec<u8> {
        let mut body = vec![3, 3];
        body.extend([7; 32]);
        body.extend([4, 1, 2, 3, 4]);
        body.extend(long(&[0x13, 1, 0x13, 2]));
        body.extend([1, 0]);
        body.extend(long(&extensions.concat()));
        let mut message = vec![CLIENT_HELLO, 0];
        message.extend(long(&body));
        message
    }

    /// A message in records of so many bytes.
    fn records(message: &[u8], most: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        for part in message.chunks(most) {
            bytes.extend([HANDSHAKE, 3, 1]);
            bytes.extend(long(part));
        }
        bytes
    }

    fn padding() -> Vec<u8> {
        extension(21, &[0; 60])
    }

    fn of(extensions: &[Vec<u8>]) -> Found {
        read(&records(&hello(extensions), 4000))
    }

    #[test]
    fn a_name_is_found_wherever_the_message_is_cut() {
        let message = hello(&[
            padding(),
            named("Www.Example.com"),
            extension(43, &[2, 3, 4]),
        ]);
        for most in [1, 3, 5, 100, 4000] {
            let bytes = records(&message, most);
            for cut in 0..bytes.len() {
                assert_eq!(read(&bytes[..cut]), Found::More, "{most} {cut}");
            }
            let name = Found::Name("www.example.com".to_owned());
            assert_eq!(read(&bytes), name, "{most}");
            // What comes behind it is not the client's first message.
            assert_eq!(read(&[bytes, vec![20, 3, 3, 0, 1, 1]].concat()), name);
        }
    }

    #[test]
    fn a_hidden_or_missing_name_is_none() {
        let nothing = |why| Found::Nothing(why);
        let name = || named("example.com");
        let ech = |kind| extension(ECH, &[kind, 0, 1, 0, 1]);
        assert_eq!(of(&[]), nothing(Unnamed::NoServerName));
        assert_eq!(of(&[padding()]), nothing(Unnamed::NoServerName));
        assert_eq!(of(&[name(), ech(0)]), nothing(Unnamed::Encrypted));
        assert_eq!(of(&[ech(1), name()]), nothing(Unnamed::Encrypted));
        let esni = extension(ESNI, &[0; 40]);
        assert_eq!(of(&[esni, name()]), nothing(Unnamed::Encrypted));
        assert_eq!(of(&[name(), name()]), nothing(Unnamed::NoTls));
        for text in [
            "",
            "198.51.100.2",
            "2001:db8::1",
            "a b",
            "a..b",
            "é.com",
            "a\0b",
            "*.x.y",
        ] {
            let found = of(&[named(text)]);
            assert_eq!(found, nothing(Unnamed::NoServerName), "{text:?}");
        }
        for body in [
            // Two names, a name of another kind, bytes behind the list.
            [0, 8, 0, 0, 1, b'a', 0, 0, 1, b'b'].as_slice(),
            &[0, 4, 1, 0, 1, b'a'],
            &[0, 4, 0, 0, 1, b'a', 0],
            &[0, 5, 0, 0, 1, b'a'],
            &[0, 0],
            &[],
        ] {
            let found = of(&[extension(SERVER_NAME, body)]);
            assert_eq!(found, nothing(Unnamed::NoServerName), "{body:?}");
        }
    }

    #[test]
    fn what_is_no_tls_is_told_at_its_first_wrong_byte() {
        for bytes in [
            b"GET / HTTP/1.1\r\n".as_slice(),
            b"SSH-2.0-x\r\n",
            // The first message of SSL 2.
            &[0x80, 46, 1, 3, 1],
            &[HANDSHAKE, 2],
            &[HANDSHAKE, 3, 1, 0, 0],
            &[HANDSHAKE, 3, 1, 0x40, 1],
            &[21, 3, 1, 0, 2],
            // A server's message.
            &[HANDSHAKE, 3, 1, 0, 9, 2],
            &[HANDSHAKE, 3, 1, 0, 1, 2],
        ] {
            assert_eq!(read(bytes), Found::Nothing(Unnamed::NoTls), "{bytes:?}");
        }
        let long = [HANDSHAKE, 3, 1, 0x40, 0, CLIENT_HELLO, 0, 0x41];
        assert_eq!(read(&long), Found::Nothing(Unnamed::TooLong));
        let mut two = hello(&[named("example.com")]);
        two.extend(hello(&[named("example.org")]));
        let found = read(&records(&two, 4000));
        assert_eq!(found, Found::Nothing(Unnamed::NoTls));
    }

    #[test]
    fn no_change_of_a_byte_panics_or_makes_another_name_than_it_wrote() {
        let message = hello(&[named("example.com"), padding()]);
        let bytes = records(&message, 200);
        for at in 0..bytes.len() {
            for value in [0, 1, 0x7f, 0x80, 0xff, bytes[at] ^ 1] {
                let mut changed = bytes.clone();
                changed[at] = value;
                if let Found::Name(name) = read(&changed) {
                    let differs = name.bytes().zip("example.com".bytes());
                    assert!(name.len() == 11 && differs.filter(|(a, b)| a != b).count() <= 1);
                }
            }
        }
    }
}
