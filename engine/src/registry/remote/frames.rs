//! Frames between a command on the host and the process that has the image store in the helper machine.
//!
//! A frame is its kind (one byte), a channel and a length (both four bytes, little endian), and as many
//! bytes. Questions open a channel; answers and the bytes of blobs travel in it.

use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::{self, Read, Write};

/// Longest JSON: a manifest of 4 MiB as base64, and room.
const MAX_WORDS: u32 = 16 << 20;
/// Longest piece of a blob.
pub(super) const MAX_DATA: u32 = 256 << 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A question, or an answer, as JSON.
    Words,
    /// A piece of a blob.
    Data,
    /// The blob's end; with a text: it broke off.
    End,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) kind: Kind,
    pub(super) channel: u32,
    pub(super) payload: Vec<u8>,
}

impl Frame {
    /// Reads the next frame; `None` at the end.
    pub(super) fn read(from: &mut impl Read) -> io::Result<Option<Self>> {
        let mut head = [0; 9];
        // Nothing at all is the end; half a head is an error.
        if from.read(&mut head[..1])? == 0 {
            return Ok(None);
        }
        from.read_exact(&mut head[1..])?;
        let [kind, a, b, c, d, rest @ ..] = head;
        let (channel, len) = (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes(rest));
        let (kind, limit) = match kind {
            0 => (Kind::Words, MAX_WORDS),
            1 => (Kind::Data, MAX_DATA),
            2 => (Kind::End, 64 << 10),
            _ => return Err(io::ErrorKind::InvalidData.into()),
        };
        if len > limit {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut payload = Vec::new();
        // Memory grows with what comes, not with what is announced.
        from.take(u64::from(len)).read_to_end(&mut payload)?;
        if payload.len() != len as usize {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(Some(Self {
            kind,
            channel,
            payload,
        }))
    }

    pub(super) fn write(
        to: &mut impl Write,
        kind: Kind,
        channel: u32,
        payload: &[u8],
    ) -> io::Result<()> {
        let len = u32::try_from(payload.len())
            .map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        let number = match kind {
            Kind::Words => 0,
            Kind::Data => 1,
            Kind::End => 2,
        };
        let mut head = [0; 9];
        head[0] = number;
        head[1..5].copy_from_slice(&channel.to_le_bytes());
        head[5..].copy_from_slice(&len.to_le_bytes());
        to.write_all(&head)?;
        to.write_all(payload)?;
        to.flush()
    }

    pub(super) fn write_words(
        to: &mut impl Write,
        channel: u32,
        words: &impl Serialize,
    ) -> io::Result<()> {
        let payload = serde_json::to_vec(words)?;
        Self::write(to, Kind::Words, channel, &payload)
    }

    /// What an answer or a question says.
    pub(super) fn words<T: DeserializeOwned>(&self) -> io::Result<T> {
        Ok(serde_json::from_slice(&self.payload)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_travel_and_what_is_none_is_refused() {
        let mut bytes = Vec::new();
        Frame::write(&mut bytes, Kind::Data, 7, b"abc").unwrap();
        Frame::write_words(&mut bytes, 8, &"x").unwrap();
        let mut from = &bytes[..];
        let frame = Frame::read(&mut from).unwrap().unwrap();
        assert_eq!(
            (frame.kind, frame.channel, &frame.payload[..]),
            (Kind::Data, 7, &b"abc"[..])
        );
        let frame = Frame::read(&mut from).unwrap().unwrap();
        assert_eq!(frame.words::<String>().unwrap(), "x");
        assert_eq!(Frame::read(&mut from).unwrap(), None);
        for bad in [
            &[9, 0, 0, 0, 0, 0, 0, 0, 0][..],
            &[1, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff],
            &[1, 0, 0],
            &[1, 0, 0, 0, 0, 2, 0, 0, 0, 1],
        ] {
            assert!(Frame::read(&mut &bad[..]).is_err(), "{bad:?}");
        }
    }
}
