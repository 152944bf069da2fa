//! The process between a FUSE mount and a stream of messages.
//!
//! Requests are read of `/dev/fuse` and go out on the stream, replies come in on it and are written to the
//! device, whole messages at a time, as the device wants it. It ends with the mount or with the stream; with
//! the stream ends the mount, so that nobody waits for ever.

use crate::jail;
use crate::wire::{Header, MAX_MESSAGE, OUT_HEADER};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread;

/// The option that makes the process a relay. Standard output is the device.
pub const RELAY_OPTION: &str = "--relay";

/// Passes messages on until either side ends.
///
/// # Errors
/// Before it begins: there is no thread, or it cannot be confined.
pub fn run(stream: OwnedFd, device: OwnedFd) -> io::Result<()> {
    jail::confine_relay()?;
    let ends = Arc::new((stream, device));
    let both = ends.clone();
    thread::Builder::new().spawn(move || {
        let _ = replies(&both.0, &both.1);
        std::process::exit(0);
    })?;
    let _ = requests(&ends.0, &ends.1);
    std::process::exit(0);
}

fn requests(stream: &OwnedFd, device: &OwnedFd) -> Result<(), Errno> {
    let mut message = vec![0; MAX_MESSAGE];
    loop {
        let len = match rustix::io::read(device, &mut message) {
            Ok(0) => return Ok(()),
            Ok(len) => len,
            // One that was taken back while it was read.
            Err(Errno::NOENT | Errno::INTR | Errno::AGAIN) => continue,
            Err(errno) => return Err(errno),
        };
        let mut rest = message.get(..len).unwrap_or_default();
        while !rest.is_empty() {
            match send(stream, rest, SendFlags::NOSIGNAL) {
                Ok(sent) => rest = rest.get(sent..).unwrap_or_default(),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        }
    }
}

fn replies(stream: &OwnedFd, device: &OwnedFd) -> Result<(), Errno> {
    let mut message = vec![0; MAX_MESSAGE];
    // Several may come at once, and the last one in part.
    let mut filled = 0;
    loop {
        let Some(len) = Header::length(&message[..filled]) else {
            filled += receive(stream, &mut message[filled..])?;
            continue;
        };
        if !(OUT_HEADER..=MAX_MESSAGE).contains(&len) {
            return Err(Errno::PROTO);
        }
        if filled < len {
            filled += receive(stream, &mut message[filled..])?;
            continue;
        }
        match rustix::io::write(device, &message[..len]) {
            // Nobody waits for it any more.
            Ok(_) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno),
        }
        message.copy_within(len..filled, 0);
        filled -= len;
    }
}

fn receive(stream: &OwnedFd, room: &mut [u8]) -> Result<usize, Errno> {
    loop {
        match recv(stream, &mut *room, RecvFlags::empty()) {
            Ok((_, 0)) => return Err(Errno::PIPE),
            Ok((_, len)) => return Ok(len),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}
