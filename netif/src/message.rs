//! rtnetlink messages: `linux/netlink.h`, `linux/rtnetlink.h`, `linux/if_link.h`, `linux/if_addr.h`,
//! `linux/neighbour.h`. All of it is in the machine's byte order.

use crate::error::Step;

pub(crate) const RTM_NEWLINK: u16 = 16;
pub(crate) const RTM_DELLINK: u16 = 17;
pub(crate) const RTM_GETLINK: u16 = 18;
pub(crate) const RTM_SETLINK: u16 = 19;
pub(crate) const RTM_NEWADDR: u16 = 20;
pub(crate) const RTM_DELADDR: u16 = 21;
pub(crate) const RTM_GETADDR: u16 = 22;
pub(crate) const RTM_NEWROUTE: u16 = 24;
pub(crate) const RTM_NEWNEIGH: u16 = 28;

pub(crate) const NLM_F_REQUEST: u16 = 0x1;
pub(crate) const NLM_F_ACK: u16 = 0x4;
pub(crate) const NLM_F_REPLACE: u16 = 0x100;
pub(crate) const NLM_F_EXCL: u16 = 0x200;
pub(crate) const NLM_F_DUMP: u16 = 0x300;
pub(crate) const NLM_F_CREATE: u16 = 0x400;

pub(crate) const NLMSG_ERROR: u16 = 2;
pub(crate) const NLMSG_DONE: u16 = 3;

/// Length of a `struct nlmsghdr`, and where its flags are.
const HEADER_BYTES: usize = 16;
const FLAGS_AT: usize = 6;
/// Messages and attributes begin at multiples of it.
const ALIGNMENT: usize = 4;

/// Messages that go out in one datagram. The kernel takes each in turn, whether the one before
/// succeeded or not, and acknowledges the last.
#[derive(Debug)]
pub(crate) struct Batch {
    bytes: Vec<u8>,
    /// Where the last message begins.
    last: usize,
    steps: Vec<Step>,
    first_sequence: u32,
}

impl Batch {
    /// An empty one, whose messages are numbered from `first_sequence`.
    pub(crate) const fn new(first_sequence: u32) -> Self {
        Self {
            bytes: Vec::new(),
            last: 0,
            steps: Vec::new(),
            first_sequence,
        }
    }

    /// Adds a message with its fixed part; attributes follow.
    pub(crate) fn message(&mut self, step: Step, kind: u16, flags: u16, fixed: &[u8]) -> &mut Self {
        let sequence = self.next_sequence();
        self.last = self.bytes.len();
        self.steps.push(step);
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        let flags = flags | NLM_F_REQUEST;
        self.bytes.extend_from_slice(&flags.to_ne_bytes());
        self.bytes.extend_from_slice(&sequence.to_ne_bytes());
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(fixed);
        self.close()
    }

    /// Adds an attribute to the last message.
    pub(crate) fn attribute(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        append_attribute(&mut self.bytes, kind, value);
        self.close()
    }

    /// Pads the last message and notes its length.
    fn close(&mut self) -> &mut Self {
        pad(&mut self.bytes);
        let length = (self.bytes.len() - self.last) as u32;
        if let Some(field) = self.bytes.get_mut(self.last..self.last + 4) {
            field.copy_from_slice(&length.to_ne_bytes());
        }
        self
    }

    /// The datagram: the last message asks for an acknowledgement.
    pub(crate) fn finish(&mut self) -> &[u8] {
        let at = self.last + FLAGS_AT;
        if let Some(field) = self.bytes.get_mut(at..at + 2) {
            let flags = u16::from_ne_bytes([field[0], field[1]]) | NLM_F_ACK;
            field.copy_from_slice(&flags.to_ne_bytes());
        }
        &self.bytes
    }

    /// The number of the message that would come next.
    pub(crate) fn next_sequence(&self) -> u32 {
        self.first_sequence.wrapping_add(self.steps.len() as u32)
    }

    /// What the message of this number was for.
    pub(crate) fn step(&self, sequence: u32) -> Option<Step> {
        let index = sequence.wrapping_sub(self.first_sequence);
        self.steps.get(usize::try_from(index).ok()?).copied()
    }

    /// Whether a message of this number is the last.
    pub(crate) fn is_last(&self, sequence: u32) -> bool {
        sequence.wrapping_add(1) == self.next_sequence()
    }
}

fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
}

/// Appends a `struct rtattr` with its value.
pub(crate) fn append_attribute(bytes: &mut Vec<u8>, kind: u16, value: &[u8]) {
    pad(bytes);
    let length = (4 + value.len()) as u16;
    bytes.extend_from_slice(&length.to_ne_bytes());
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(value);
}

/// An attribute that holds one other.
pub(crate) fn nested(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    append_attribute(&mut bytes, kind, value);
    pad(&mut bytes);
    bytes
}

/// A message that was received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Received<'a> {
    pub(crate) kind: u16,
    pub(crate) sequence: u32,
    /// What follows the header.
    pub(crate) body: &'a [u8],
}

/// The messages of a datagram. Ends where one does not fit.
pub(crate) fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Received<'_>> {
    std::iter::from_fn(move || {
        let length = usize::try_from(u32_at(bytes, 0)?).ok()?;
        let body = bytes.get(HEADER_BYTES..length)?;
        let message = Received {
            kind: u16_at(bytes, 4)?,
            sequence: u32_at(bytes, 8)?,
            body,
        };
        let next = length.next_multiple_of(ALIGNMENT);
        bytes = bytes.get(next..).unwrap_or_default();
        Some(message)
    })
}

/// The attributes behind the first `fixed` bytes of a body. Ends where one does not fit.
pub(crate) fn attributes(body: &[u8], fixed: usize) -> impl Iterator<Item = (u16, &[u8])> {
    let mut bytes = body.get(fixed..).unwrap_or_default();
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(bytes, 0)?);
        let attribute = (u16_at(bytes, 2)?, bytes.get(4..length)?);
        let next = length.next_multiple_of(ALIGNMENT);
        bytes = bytes.get(next..).unwrap_or_default();
        Some(attribute)
    })
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let field = bytes.get(at..)?.first_chunk()?;
    Some(u16::from_ne_bytes(*field))
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let field = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_ne_bytes(*field))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_built_is_what_is_read() {
        let mut batch = Batch::new(7);
        batch
            .message(Step::Find, RTM_GETLINK, 0, &[1; 16])
            .attribute(3, b"eth0\0")
            .attribute(4, &[9; 4]);
        batch.message(Step::Enable, RTM_SETLINK, NLM_F_CREATE, &[2; 16]);
        let bytes = batch.finish().to_vec();
        let found: Vec<_> = messages(&bytes).collect();
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].kind, found[0].sequence), (RTM_GETLINK, 7));
        let list: Vec<_> = attributes(found[0].body, 16).collect();
        assert_eq!(list, [(3, &b"eth0\0"[..]), (4, &[9; 4][..])]);
        assert_eq!((found[1].kind, found[1].sequence), (RTM_SETLINK, 8));
        let flags = |at: usize| u16_at(&bytes, at + FLAGS_AT);
        assert_eq!(flags(0), Some(NLM_F_REQUEST));
        let second = bytes.len() - 32;
        assert_eq!(
            flags(second),
            Some(NLM_F_REQUEST | NLM_F_CREATE | NLM_F_ACK)
        );
        assert_eq!(batch.step(7), Some(Step::Find));
        assert_eq!(batch.step(9), None);
        assert!(batch.is_last(8) && !batch.is_last(7));
    }

    #[test]
    fn what_does_not_fit_ends_the_list() {
        let mut batch = Batch::new(0);
        batch
            .message(Step::Find, RTM_GETLINK, 0, &[0; 16])
            .attribute(1, &[5; 3]);
        let bytes = batch.finish().to_vec();
        for end in 0..bytes.len() {
            assert_eq!(messages(&bytes[..end]).count(), 0, "{end}");
        }
        for length in [0u16, 1, 3, 9, u16::MAX] {
            let mut body = length.to_ne_bytes().to_vec();
            body.extend([0, 1, 2, 3, 4, 5]);
            assert_eq!(attributes(&body, 0).count(), 0, "{length}");
        }
        // An empty attribute makes progress.
        assert_eq!(attributes(&[4, 0, 1, 0, 4, 0, 2, 0], 0).count(), 2);
        assert_eq!(attributes(&[4, 0, 1, 0], 9).count(), 0);
    }
}
