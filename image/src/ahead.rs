//! A stream that is decompressed by a thread of its own, a little ahead of whoever reads it: what
//! one large layer takes is shared between two CPUs.

use crate::compress::{Digests, Plain, Stream, read_buffered};
use crate::digest::Digest;
use crate::limits::Limits;
use sha2::{Digest as _, Sha256};
use std::io::{self, BufRead, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// Blocks that are decompressed and not read yet; each has as many bytes as a [`Stream`] yields.
const BLOCKS_AHEAD: usize = 4;

/// What the thread says.
enum Message {
    /// The first one: whether the bytes that come differ from those of the source.
    Begins {
        differ: bool,
    },
    Block(Vec<u8>),
    /// The last one, but for the digest of bytes that differ.
    Ends(Digests),
    Failed(io::Error),
}

/// The reading end.
pub(crate) struct Ahead {
    messages: Receiver<Message>,
    /// Blocks that were read, to be filled again.
    spare: SyncSender<Vec<u8>>,
    block: Vec<u8>,
    at: usize,
    hasher: Option<Sha256>,
    digests: Option<Digests>,
}

/// Decompresses at most `max_bytes` of `source` while `work` reads them.
///
/// # Errors
/// There is no thread to be had.
pub(crate) fn with<T>(
    source: impl Read + Send,
    max_bytes: u64,
    limits: &Limits,
    work: impl FnOnce(Ahead) -> T,
) -> io::Result<T> {
    let (send, messages) = sync_channel(BLOCKS_AHEAD);
    let (spare, spares) = sync_channel(BLOCKS_AHEAD);
    let ahead = Ahead {
        messages,
        spare,
        block: Vec::new(),
        at: 0,
        hasher: None,
        digests: None,
    };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("inflate-layer".to_owned())
            .spawn_scoped(scope, move || {
                if let Err(error) = decompress(source, max_bytes, limits, &send, &spares) {
                    // Nobody may be there to hear it.
                    let _ = send.send(Message::Failed(error));
                }
            })?;
        let done = work(ahead);
        // It ended early only if its reader has noticed.
        let _ = thread.join();
        Ok(done)
    })
}

fn decompress(
    source: impl Read,
    max_bytes: u64,
    limits: &Limits,
    messages: &SyncSender<Message>,
    spares: &Receiver<Vec<u8>>,
) -> io::Result<()> {
    let gone = |_| io::Error::other("nobody reads on");
    let mut stream = Stream::new(source, true, max_bytes, limits)?;
    let differ = stream.leave_plain_hash();
    messages.send(Message::Begins { differ }).map_err(gone)?;
    loop {
        let bytes = stream.fill_buf()?;
        if bytes.is_empty() {
            break;
        }
        let mut block = spares.try_recv().unwrap_or_default();
        block.clear();
        block.extend_from_slice(bytes);
        let len = bytes.len();
        stream.consume(len);
        messages.send(Message::Block(block)).map_err(gone)?;
    }
    let digests = stream.into_digests()?;
    let digests = digests.ok_or_else(|| io::Error::other("the stream was not hashed"))?;
    messages.send(Message::Ends(digests)).map_err(gone)
}

impl BufRead for Ahead {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.at == self.block.len() && self.digests.is_none() {
            let lost = |_| io::Error::other("the thread that decompresses ended early");
            match self.messages.recv().map_err(lost)? {
                Message::Begins { differ } => self.hasher = differ.then(Sha256::new),
                Message::Block(block) => {
                    if let Some(hasher) = &mut self.hasher {
                        hasher.update(&block);
                    }
                    let old = std::mem::replace(&mut self.block, block);
                    let _ = self.spare.try_send(old);
                    self.at = 0;
                }
                Message::Ends(digests) => self.digests = Some(digests),
                Message::Failed(error) => return Err(error),
            }
        }
        Ok(&self.block[self.at..])
    }

    fn consume(&mut self, len: usize) {
        self.at = (self.at + len).min(self.block.len());
    }
}

impl Read for Ahead {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        read_buffered(self, buffer)
    }
}

impl Plain for Ahead {
    fn into_digests(mut self) -> io::Result<Option<Digests>> {
        while !self.fill_buf()?.is_empty() {
            self.at = self.block.len();
        }
        let plain = self.hasher.map(Digest::from_hasher);
        Ok(self.digests.map(|digests| Digests {
            plain: plain.unwrap_or(digests.plain),
            ..digests
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_comes_out_as_without_a_thread() {
        let limits = Limits::default();
        let plain: Vec<u8> = (0..1_000_000u32).flat_map(u32::to_le_bytes).collect();
        let packed = zstd::encode_all(&plain[..], 1).unwrap();
        for source in [&plain, &packed] {
            let direct = Stream::new(&source[..], true, u64::MAX, &limits).unwrap();
            let expected = direct.into_digests().unwrap();
            let (read, digests) = with(&source[..], u64::MAX, &limits, |mut ahead| {
                let mut read = vec![0; 3_000_001];
                ahead.read_exact(&mut read).unwrap();
                (read, ahead.into_digests().unwrap())
            })
            .unwrap();
            assert_eq!(digests, expected);
            assert_eq!(read, plain[..3_000_001]);
        }
    }

    #[test]
    fn errors_come_through_and_a_reader_may_stop() {
        let limits = Limits::default();
        let plain = vec![7; 10 << 20];
        let packed = zstd::encode_all(&plain[..], 1).unwrap();
        let cut = &packed[..packed.len() - 3];
        let failed = with(cut, u64::MAX, &limits, |ahead| {
            ahead.into_digests().is_err()
        });
        assert!(failed.unwrap());
        let small = with(&plain[..], 1000, &limits, |ahead| {
            ahead.into_digests().unwrap_err().to_string()
        });
        assert!(small.unwrap().contains("1000 bytes"));
        let first = with(&plain[..], u64::MAX, &limits, |mut ahead| {
            ahead.fill_buf().unwrap()[0]
        });
        assert_eq!(first.unwrap(), 7);
    }
}
