//! The host of an HTTP/1 request (RFC 9112).
//!
//! All of a request's head is read: a second `Host` may come last.

use super::{Found, Unnamed, name_of};

const END: &[u8] = b"\r\n\r\n";

/// Reads the beginning of what a client sends.
#[must_use]
pub fn read(bytes: &[u8]) -> Found {
    let end = bytes.windows(END.len()).position(|four| four == END);
    let head = match end {
        Some(end) => bytes.get(..end).unwrap_or_default(),
        None if could_be(bytes) => return Found::More,
        None => return Found::Nothing(Unnamed::NoHttp),
    };
    let Some((first, fields)) = lines(head) else {
        return Found::Nothing(Unnamed::NoHttp);
    };
    let mut hosts = Vec::new();
    for line in fields {
        match field(line) {
            Some((name, value)) if name.eq_ignore_ascii_case(b"host") => hosts.push(value),
            Some(_) => {}
            None => return Found::Nothing(Unnamed::NoHttp),
        }
    }
    let Some(authority) = target(first) else {
        return Found::Nothing(Unnamed::NoHttp);
    };
    let [host] = hosts.as_slice() else {
        return Found::Nothing(Unnamed::NoHost);
    };
    match host_name(host) {
        // A server goes by the target's host, if it has one.
        Some(name) if authority.is_none_or(|other| host_name(other).as_ref() == Some(&name)) => {
            Found::Name(name)
        }
        _ => Found::Nothing(Unnamed::NoHost),
    }
}

/// Whether bytes may be the beginning of a request.
fn could_be(bytes: &[u8]) -> bool {
    // A server might take other line ends for line ends.
    let ends_right = |pair: &[u8]| match pair {
        b"\r\n" => true,
        [b'\r', _] | [_, b'\n'] => false,
        _ => true,
    };
    let method = bytes.iter().position(|&byte| byte == b' ');
    let method = bytes.get(..method.unwrap_or(bytes.len().min(MAX_METHOD + 1)));
    method.is_some_and(|method| method.len() <= MAX_METHOD && method.iter().all(|&b| is_token(b)))
        && bytes.first() != Some(&b' ')
        && bytes.windows(2).all(ends_right)
        && bytes
            .iter()
            .all(|&byte| is_text(byte) || matches!(byte, b'\r' | b'\n'))
}

const MAX_METHOD: usize = 32;

/// The lines of a head: the first one, and those behind it.
fn lines(head: &[u8]) -> Option<(&[u8], Vec<&[u8]>)> {
    let mut lines = Vec::new();
    let mut rest = head;
    while let Some(end) = rest.windows(2).position(|pair| pair == b"\r\n") {
        lines.push(rest.get(..end)?);
        rest = rest.get(end + 2..)?;
    }
    lines.push(rest);
    let is_clean = lines
        .iter()
        .all(|line| line.iter().all(|&byte| is_text(byte)));
    let (first, fields) = lines.split_first().filter(|_| is_clean)?;
    Some((first, fields.to_vec()))
}

/// Whether a byte may be in a line: no control character but a tab.
fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// A field's name and value. None for a line that goes on from the one before, or has no name.
fn field(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = line.iter().position(|&byte| byte == b':')?;
    let (name, value) = line.split_at_checked(colon)?;
    let is_name = !name.is_empty() && name.iter().all(|&byte| is_token(byte));
    is_name.then(|| (name, value.get(1..).unwrap_or_default().trim_ascii()))
}

/// The host in a request line, if it has one. None if it is no line of HTTP/1.0 or HTTP/1.1, or asks for a
/// tunnel.
fn target(line: &[u8]) -> Option<Option<&[u8]>> {
    let mut words = line.split(|&byte| byte == b' ');
    let (method, target, version) = (words.next()?, words.next()?, words.next()?);
    let is_line = words.next().is_none()
        && (1..=MAX_METHOD).contains(&method.len())
        && method.iter().all(|&byte| is_token(byte))
        && method != b"CONNECT"
        && matches!(version, b"HTTP/1.0" | b"HTTP/1.1")
        && target.iter().all(u8::is_ascii_graphic);
    if !is_line {
        return None;
    }
    if target.starts_with(b"/") || target == b"*" {
        return Some(None);
    }
    let scheme = target.iter().position(|&byte| byte == b':')?;
    let (scheme, rest) = target.split_at_checked(scheme)?;
    let rest = rest.strip_prefix(b"://")?;
    let is_web = scheme.eq_ignore_ascii_case(b"http") || scheme.eq_ignore_ascii_case(b"https");
    let end = rest
        .iter()
        .position(|byte| matches!(byte, b'/' | b'?' | b'#' | b'\\'))
        .unwrap_or(rest.len());
    is_web.then(|| rest.get(..end))
}

/// The name in `NAME[:PORT]`.
fn host_name(text: &[u8]) -> Option<String> {
    let colon = text.iter().position(|&byte| byte == b':');
    let (name, port) = text.split_at_checked(colon.unwrap_or(text.len()))?;
    let port = port.get(1..).unwrap_or_default();
    name_of(name).filter(|_| port.len() <= 5 && port.iter().all(u8::is_ascii_digit))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Found {
        read(text.as_bytes())
    }

    fn name(text: &str) -> Found {
        Found::Name(text.to_owned())
    }

    #[test]
    fn a_host_is_found_wherever_the_request_is_cut() {
        let text =
            "POST /a?b=c HTTP/1.1\r\nAccept: */*\r\nHOST:  Www.Example.com:80\t\r\nX: \r\n\r\n";
        for cut in 0..text.len() {
            assert_eq!(of(&text[..cut]), Found::More, "{cut}");
        }
        assert_eq!(of(text), name("www.example.com"));
        assert_eq!(
            of(&format!("{text}Host: evil.example")),
            name("www.example.com")
        );
        for line in [
            "GET / HTTP/1.0",
            "OPTIONS * HTTP/1.1",
            "GET http://A.b:80/x HTTP/1.1",
        ] {
            assert_eq!(
                of(&format!("{line}\r\nHost: a.b.\r\n\r\n")),
                name("a.b"),
                "{line}"
            );
        }
    }

    #[test]
    fn a_request_without_one_host_is_refused() {
        for fields in [
            "Accept: */*",
            "Host: ",
            "Host: a.b\r\nHost: a.b",
            "Host: a.b\r\nhOST: c.d",
            "Host: a.b, c.d",
            "Host: a.b c.d",
            "Host: 198.51.100.2",
            "Host: [2001:db8::1]",
            "Host: user@a.b",
            "Host: a.b:http",
            "Host: a.b:80:81",
            "Host: a.b/c",
            "X-Host: a.b",
        ] {
            let found = of(&format!("GET / HTTP/1.1\r\n{fields}\r\n\r\n"));
            assert_eq!(found, Found::Nothing(Unnamed::NoHost), "{fields:?}");
        }
        assert_eq!(
            of("GET / HTTP/1.1\r\n\r\n"),
            Found::Nothing(Unnamed::NoHost)
        );
        for line in [
            "GET http://c.d/ HTTP/1.1",
            "GET http://c.d\\@a.b/ HTTP/1.1",
            "GET http://u@a.b/ HTTP/1.1",
        ] {
            let found = of(&format!("{line}\r\nHost: a.b\r\n\r\n"));
            assert_eq!(found, Found::Nothing(Unnamed::NoHost), "{line}");
        }
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_no_request() {
        for text in [
            // HTTP/0.9, HTTP/2, tunnels, other protocols.
            "GET /\r\n\r\n",
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            "CONNECT c.d:443 HTTP/1.1\r\nHost: a.b\r\n\r\n",
            "GET / HTTP/1.1 x\r\nHost: a.b\r\n\r\n",
            "GET  / HTTP/1.1\r\nHost: a.b\r\n\r\n",
            "GET\t/ HTTP/1.1\r\nHost: a.b\r\n\r\n",
            "GET a.b HTTP/1.1\r\nHost: a.b\r\n\r\n",
            "GET ftp://a.b/ HTTP/1.1\r\nHost: a.b\r\n\r\n",
            " / HTTP/1.1\r\nHost: a.b\r\n\r\n",
            &format!("{} / HTTP/1.1\r\nHost: a.b\r\n\r\n", "A".repeat(33)),
            "\r\nGET / HTTP/1.1\r\nHost: a.b\r\n\r\n",
            "\x16\x03\x01\x02\x00\x01\x00",
            // Lines that end or go on in ways that servers differ in.
            "GET / HTTP/1.1\nHost: c.d\nX:\r\nHost: a.b\r\n\r\n",
            "GET / HTTP/1.1\r\nX: y\nHost: c.d\r\nHost: a.b\r\n\r\n",
            "GET / HTTP/1.1\r\nX: y\rHost: c.d\r\nHost: a.b\r\n\r\n",
            "GET / HTTP/1.1\r\nX: y\r\n Host: c.d\r\nHost: a.b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost : c.d\r\nHost: a.b\r\n\r\n",
            "GET / HTTP/1.1\r\n Host: a.b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a.b\r\nno colon\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a.b\0.c\r\n\r\n",
        ] {
            assert_eq!(of(text), Found::Nothing(Unnamed::NoHttp), "{text:?}");
        }
        // It is told as soon as it is seen.
        for text in [
            "GET / HTTP/1.1\nH",
            "\0",
            "\r\n",
            &"A".repeat(33),
            "GET /\0",
        ] {
            assert_eq!(of(text), Found::Nothing(Unnamed::NoHttp), "{text:?}");
        }
    }
}
