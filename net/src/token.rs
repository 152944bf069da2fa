//! What epoll and timers name, in 64 bits.

use crate::table::Id;

/// The kind of thing that is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A member's link.
    Link = 1,
    /// A TCP flow.
    Tcp = 2,
    /// A UDP flow.
    Udp = 3,
    /// An ICMP echo flow.
    Echo = 4,
    /// A published port.
    Port = 5,
    /// The command queue.
    Control = 6,
    /// The timer.
    Timer = 7,
    /// A DNS query that was passed on.
    Query = 8,
    /// A member's connection to the name server.
    Stream = 9,
    /// What a member is sent, where its rate bounds it.
    Rate = 10,
}

/// A name: kind and entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Token {
    /// The kind.
    pub kind: Kind,
    /// The entry.
    pub id: Id,
}

impl Token {
    /// The name of the only one of its kind.
    #[must_use]
    pub fn only(kind: Kind) -> Self {
        Self {
            kind,
            id: Id {
                index: 0,
                generation: 0,
            },
        }
    }

    /// As epoll keeps it.
    #[must_use]
    pub fn to_u64(self) -> u64 {
        (self.kind as u64) << 56 | u64::from(self.id.generation) << 32 | u64::from(self.id.index)
    }

    /// From what epoll kept.
    #[must_use]
    pub fn from_u64(bits: u64) -> Option<Self> {
        let kind = match bits >> 56 {
            1 => Kind::Link,
            2 => Kind::Tcp,
            3 => Kind::Udp,
            4 => Kind::Echo,
            5 => Kind::Port,
            6 => Kind::Control,
            7 => Kind::Timer,
            8 => Kind::Query,
            9 => Kind::Stream,
            10 => Kind::Rate,
            _ => return None,
        };
        Some(Self {
            kind,
            id: Id {
                index: bits as u32,
                generation: (bits >> 32) as u32 & 0xff_ffff,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_survives_epoll() {
        let token = Token {
            kind: Kind::Udp,
            id: Id {
                index: u32::MAX,
                generation: 0xab_cdef,
            },
        };
        assert_eq!(Token::from_u64(token.to_u64()), Some(token));
        assert_eq!(Token::from_u64(0), None);
    }
}
