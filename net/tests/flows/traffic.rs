//! Bytes that can be told from any others, and how they are sent and checked.

use anyhow::{Result, ensure};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

/// A generator of bytes without a period that matters.
pub struct Bytes(u64);

impl Bytes {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn fill(&mut self, buffer: &mut [u8]) {
        for chunk in buffer.chunks_mut(8) {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            chunk.copy_from_slice(&self.0.to_le_bytes()[..chunk.len()]);
        }
    }
}

const CHUNK: usize = 1 << 16;

/// Sends so many bytes and ends the direction.
pub fn send(mut stream: &TcpStream, seed: u64, length: usize) -> Result<()> {
    let mut bytes = Bytes::new(seed);
    let mut buffer = vec![0; CHUNK];
    let mut left = length;
    while left > 0 {
        let part = &mut buffer[..left.min(CHUNK)];
        bytes.fill(part);
        stream.write_all(part)?;
        left -= part.len();
    }
    stream.shutdown(Shutdown::Write)?;
    Ok(())
}

/// Receives so many bytes, compares each, and expects the end behind them.
pub fn receive(mut stream: &TcpStream, seed: u64, length: usize) -> Result<()> {
    let mut bytes = Bytes::new(seed);
    let (mut expected, mut got) = (vec![0; CHUNK], vec![0; CHUNK]);
    let mut left = length;
    while left > 0 {
        let size = left.min(CHUNK);
        stream.read_exact(&mut got[..size])?;
        bytes.fill(&mut expected[..size]);
        ensure!(
            got[..size] == expected[..size],
            "other bytes {left} before the end"
        );
        left -= size;
    }
    ensure!(stream.read(&mut got)? == 0, "bytes behind the end");
    Ok(())
}

/// Sends and receives at the same time, both ways.
pub fn exchange(a: &TcpStream, b: &TcpStream, length: usize) -> Result<()> {
    std::thread::scope(|scope| {
        let parts = [
            scope.spawn(|| send(a, 1, length)),
            scope.spawn(|| receive(b, 1, length)),
            scope.spawn(|| send(b, 2, length)),
            scope.spawn(|| receive(a, 2, length)),
        ];
        parts.into_iter().try_for_each(|part| part.join().unwrap())
    })
}
