//! Bytes on their way through a relay.

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use std::os::fd::AsFd;

/// What reading or writing gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moved {
    /// As much as could be.
    Some,
    /// The other end is gone.
    Ended,
}

/// A buffer of a fixed size between a reader and a writer.
#[derive(Debug)]
pub struct Channel {
    bytes: Box<[u8]>,
    begin: usize,
    end: usize,
}

impl Channel {
    /// An empty one that holds so many bytes. Pages that were never used take no memory.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self {
            bytes: vec![0; capacity].into_boxed_slice(),
            begin: 0,
            end: 0,
        }
    }

    /// What has come and not gone yet.
    #[must_use]
    pub fn pending(&self) -> &[u8] {
        self.bytes.get(self.begin..self.end).unwrap_or_default()
    }

    /// So many bytes have gone.
    pub fn consume(&mut self, count: usize) {
        self.begin = (self.begin + count).min(self.end);
        if self.begin == self.end {
            (self.begin, self.end) = (0, 0);
        }
    }

    /// How many bytes more it holds.
    #[must_use]
    pub fn free(&self) -> usize {
        self.bytes.len() - (self.end - self.begin)
    }

    /// All the room there is, in one piece.
    pub fn room(&mut self) -> &mut [u8] {
        self.bytes.copy_within(self.begin..self.end, 0);
        (self.begin, self.end) = (0, self.end - self.begin);
        self.bytes.get_mut(self.end..).unwrap_or_default()
    }

    /// So many bytes came into the beginning of the room.
    pub fn filled(&mut self, count: usize) {
        self.end = (self.end + count).min(self.bytes.len());
    }

    /// Reads what a stream has, as far as there is room.
    pub fn read_from(&mut self, stream: impl AsFd) -> Moved {
        if self.free() == 0 {
            return Moved::Some;
        }
        match recv(stream, self.room(), RecvFlags::DONTWAIT) {
            Ok((_, 0)) => Moved::Ended,
            Ok((_, count)) => {
                self.filled(count);
                Moved::Some
            }
            Err(Errno::AGAIN | Errno::INTR) => Moved::Some,
            Err(_) => Moved::Ended,
        }
    }

    /// Writes what a stream takes.
    pub fn write_to(&mut self, stream: impl AsFd) -> Moved {
        while !self.pending().is_empty() {
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            match send(&stream, self.pending(), flags) {
                Ok(count) => self.consume(count),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(_) => return Moved::Ended,
            }
        }
        Moved::Some
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    #[test]
    fn bytes_come_out_as_they_went_in_however_little_room_there_is() {
        let (near, input) = UnixStream::pair().unwrap();
        let (output, far) = UnixStream::pair().unwrap();
        let sent: Vec<u8> = (0..100_000u32).map(|n| (n % 251) as u8).collect();
        let expected = sent.clone();
        let writer = std::thread::spawn(move || {
            let mut near = near;
            std::io::Write::write_all(&mut near, &sent).unwrap();
        });
        let reader = std::thread::spawn(move || {
            let mut far = far;
            let mut all = Vec::new();
            std::io::Read::read_to_end(&mut far, &mut all).unwrap();
            all
        });
        let mut channel = Channel::new(1000);
        loop {
            let mut byte = [0];
            // Waits for the next byte or the end.
            if recv(&input, &mut byte, RecvFlags::PEEK).unwrap().1 == 0 {
                break;
            }
            assert_eq!(channel.read_from(&input), Moved::Some);
            // In pieces, so that the buffer wraps at odd places.
            while channel.pending().len() > 3 {
                let piece = channel.pending().len().min(7);
                let bytes = channel.pending()[..piece].to_vec();
                std::io::Write::write_all(&mut (&output), &bytes).unwrap();
                channel.consume(piece);
            }
        }
        assert_eq!(channel.read_from(&input), Moved::Ended);
        assert_eq!(channel.write_to(&output), Moved::Some);
        assert_eq!(channel.free(), 1000);
        drop(output);
        writer.join().unwrap();
        assert_eq!(reader.join().unwrap(), expected);
    }
}
