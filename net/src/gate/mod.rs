//! The names that connections to web ports begin with: the server name of a TLS client's first message, and
//! the `Host` of an HTTP request.
//!
//! What could be read in two ways is refused: a server that reads the other way would be reached under a
//! name that was not judged.

pub mod host;
pub mod sni;

use crate::policy::normal_name;
use std::fmt;

/// Most bytes that a name may need.
pub const MAX_BYTES: usize = 16 * 1024;

/// The ports whose connections tell a name, and what they speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speech {
    /// HTTP, on port 80.
    Http,
    /// TLS, on port 443.
    Tls,
}

/// What the first bytes of a connection tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// Nothing yet.
    More,
    /// This name, in lower case and without a last dot.
    Name(String),
    /// No name.
    Nothing(Unnamed),
}

/// Why a connection tells no name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unnamed {
    /// What came is no TLS, or one that could be read in two ways.
    NoTls,
    /// TLS without a server name, or with something in its place.
    NoServerName,
    /// TLS whose true server name is encrypted (ECH).
    Encrypted,
    /// What came is no HTTP/1, or one that could be read in two ways.
    NoHttp,
    /// HTTP without a `Host`, or with several.
    NoHost,
    /// The name did not come within [`MAX_BYTES`].
    TooLong,
    /// The name did not come in time, or the member ended before.
    Late,
}

impl fmt::Display for Unnamed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoTls => "no TLS",
            Self::NoServerName => "no server name",
            Self::Encrypted => "encrypted server name",
            Self::NoHttp => "no HTTP/1",
            Self::NoHost => "no Host",
            Self::TooLong => "name too far behind",
            Self::Late => "no name in time",
        })
    }
}

impl Speech {
    /// What is spoken on a port, if it tells a name.
    #[must_use]
    pub const fn of_port(port: u16) -> Option<Self> {
        match port {
            80 => Some(Self::Http),
            443 => Some(Self::Tls),
            _ => None,
        }
    }

    /// Reads the first bytes of a connection.
    #[must_use]
    pub fn read(self, bytes: &[u8]) -> Found {
        match self {
            Self::Http => host::read(bytes),
            Self::Tls => sni::read(bytes),
        }
    }
}

/// A name as rules have it, if it is one.
fn name_of(bytes: &[u8]) -> Option<String> {
    normal_name(std::str::from_utf8(bytes).ok()?)
}
