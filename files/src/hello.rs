//! What is said on a connection before the first FUSE message: one line each way.

use crate::export::{Export, MAX_EXPORTS};
use serde::{Deserialize, Serialize};
use std::io::{self, Read, Write};

/// Longest line, in bytes: [`MAX_EXPORTS`] of the longest paths.
const MAX_LINE: usize = 2 << 20;

/// What is asked of a server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// What is served, in the order of its numbers.
    pub exports: Vec<Export>,
}

/// What it answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// FUSE messages may follow.
    Ready,
    /// Nothing is served, and why, in one line.
    Failed(String),
}

/// Writes one line.
///
/// # Errors
/// The connection takes nothing.
pub fn say(mut to: impl Write, what: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(what)?;
    line.push(b'\n');
    to.write_all(&line)
}

/// Reads one line. The peer sends nothing behind it before it has an answer.
///
/// # Errors
/// The connection ends, or what comes is no such line.
pub fn hear<T: for<'a> Deserialize<'a>>(mut from: impl Read) -> io::Result<T> {
    let mut line = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let len = from.read(&mut piece)?;
        if len == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        line.extend_from_slice(&piece[..len]);
        if line.ends_with(b"\n") {
            return Ok(serde_json::from_slice(&line)?);
        }
        if line.len() > MAX_LINE {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
}

impl Hello {
    /// Whether it asks for something that can be.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        let clean = |export: &Export| {
            export.source.is_absolute()
                && !export.source.as_os_str().as_encoded_bytes().contains(&0)
        };
        self.exports.len() <= MAX_EXPORTS && self.exports.iter().all(clean)
    }
}
