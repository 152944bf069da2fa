//! Where asynchronous and blocking halves of a transfer meet.

use bytes::{Buf, Bytes};
use hullbox_registry::BlobStream;
use std::io::{self, Read};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

/// What goes from the network to whoever converts.
#[derive(Debug)]
pub(super) enum Piece {
    Bytes(Bytes),
    /// All of it has come.
    End,
    /// No more will come.
    Broken,
}

/// The pieces as a reader.
#[derive(Debug)]
pub(super) struct Pieces {
    queue: mpsc::Receiver<Piece>,
    piece: Bytes,
    ended: bool,
}

impl Pieces {
    pub(super) const fn new(queue: mpsc::Receiver<Piece>) -> Self {
        Self {
            queue,
            piece: Bytes::new(),
            ended: false,
        }
    }
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() && !self.ended {
            match self.queue.blocking_recv() {
                Some(Piece::Bytes(bytes)) => self.piece = bytes,
                Some(Piece::End) => self.ended = true,
                // An end without a word is a transfer that was given up.
                Some(Piece::Broken) | None => {
                    let why = "the download broke off";
                    return Err(io::Error::new(io::ErrorKind::ConnectionAborted, why));
                }
            }
        }
        let len = buffer.len().min(self.piece.len());
        self.piece.copy_to_slice(&mut buffer[..len]);
        Ok(len)
    }
}

/// A blob of a registry as a reader, for a thread that may block.
pub(super) struct Streamed {
    runtime: Handle,
    stream: BlobStream,
    piece: Bytes,
}

impl Streamed {
    pub(super) const fn new(runtime: Handle, stream: BlobStream) -> Self {
        Self {
            runtime,
            stream,
            piece: Bytes::new(),
        }
    }
}

impl Read for Streamed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            let next = self.runtime.block_on(self.stream.next());
            match next.map_err(io::Error::other)? {
                Some(bytes) => self.piece = bytes,
                None => return Ok(0),
            }
        }
        let len = buffer.len().min(self.piece.len());
        self.piece.copy_to_slice(&mut buffer[..len]);
        Ok(len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pieces: Vec<Piece>) -> io::Result<Vec<u8>> {
        let (sender, queue) = mpsc::channel(8);
        for piece in pieces {
            sender.try_send(piece).unwrap();
        }
        drop(sender);
        let mut bytes = Vec::new();
        Pieces::new(queue).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    #[test]
    fn only_a_stream_that_ends_is_whole() {
        let bytes = |text: &'static str| Piece::Bytes(Bytes::from_static(text.as_bytes()));
        let whole = read(vec![bytes("ab"), bytes(""), bytes("c"), Piece::End]);
        assert_eq!(whole.unwrap(), b"abc");
        assert!(read(vec![bytes("ab")]).is_err());
        assert!(read(vec![bytes("ab"), Piece::Broken]).is_err());
    }
}
