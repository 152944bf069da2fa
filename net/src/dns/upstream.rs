//! One query at one upstream: a socket of its own, over UDP or TCP.

use crate::frame::be16;
use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use rustix::rand::{GetRandomFlags, getrandom};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

const LENGTH_BYTES: usize = 2;
const MAX_MESSAGE_BYTES: usize = 65535;

/// What an upstream's socket gave.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// Nothing yet.
    None,
    /// The query is on its way now; an answer may come.
    Sent,
    /// A message, which may be another one than the answer.
    Message(Vec<u8>),
    /// It will not answer.
    Broken,
}

#[derive(Debug)]
enum Carrier {
    Datagram,
    /// What is still to be written, and what was read.
    Stream {
        output: Vec<u8>,
        input: Vec<u8>,
    },
}

/// A query that was sent to an upstream.
#[derive(Debug)]
pub struct Upstream {
    socket: OwnedFd,
    number: u16,
    carrier: Carrier,
}

impl Upstream {
    /// Sends a query under a random number of its own, from a port that the kernel chose at random.
    ///
    /// # Errors
    /// If there is no way to the upstream.
    pub fn ask(address: SocketAddr, query: &[u8], is_stream: bool) -> Result<Self, Errno> {
        let mut random = [0; 2];
        getrandom(&mut random, GetRandomFlags::empty())?;
        let mut message = query.to_vec();
        message
            .get_mut(..2)
            .ok_or(Errno::INVAL)?
            .copy_from_slice(&random);
        let family = match address {
            SocketAddr::V4(_) => AddressFamily::INET,
            SocketAddr::V6(_) => AddressFamily::INET6,
        };
        let kind = if is_stream {
            SocketType::STREAM
        } else {
            SocketType::DGRAM
        };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = rustix::net::socket_with(family, kind, flags, None)?;
        match rustix::net::connect(&socket, &address) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(error) => return Err(error),
        }
        let carrier = if is_stream {
            let mut output = (message.len() as u16).to_be_bytes().to_vec();
            output.extend(message);
            Carrier::Stream {
                output,
                input: Vec::new(),
            }
        } else {
            rustix::net::send(&socket, &message, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?;
            Carrier::Datagram
        };
        Ok(Self {
            socket,
            number: u16::from_be_bytes(random),
            carrier,
        })
    }

    /// The query's number.
    #[must_use]
    pub fn number(&self) -> u16 {
        self.number
    }

    /// The descriptor, for epoll.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// What is waited for.
    #[must_use]
    pub fn events(&self) -> EventFlags {
        match &self.carrier {
            Carrier::Stream { output, .. } if !output.is_empty() => EventFlags::OUT,
            _ => EventFlags::IN,
        }
    }

    /// Goes on after an event.
    pub fn receive(&mut self) -> Answer {
        match &mut self.carrier {
            Carrier::Datagram => {
                let mut message = vec![0; MAX_MESSAGE_BYTES];
                match rustix::net::recv(&self.socket, &mut message[..], RecvFlags::DONTWAIT) {
                    Ok((_, length)) => {
                        message.truncate(length);
                        Answer::Message(message)
                    }
                    Err(Errno::AGAIN | Errno::INTR) => Answer::None,
                    // Nobody listens there.
                    Err(_) => Answer::Broken,
                }
            }
            Carrier::Stream { output, .. } if !output.is_empty() => {
                let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
                match rustix::net::send(&self.socket, output, flags) {
                    Ok(length) => {
                        output.drain(..length);
                        Answer::Sent
                    }
                    Err(Errno::AGAIN | Errno::INTR) => Answer::None,
                    Err(_) => Answer::Broken,
                }
            }
            Carrier::Stream { input, .. } => read(&self.socket, input),
        }
    }
}

fn read(socket: &OwnedFd, input: &mut Vec<u8>) -> Answer {
    loop {
        if let Some(length) = be16(input, 0).map(usize::from)
            && let Some(message) = input.get(LENGTH_BYTES..LENGTH_BYTES + length)
        {
            let message = message.to_vec();
            input.drain(..LENGTH_BYTES + length);
            return Answer::Message(message);
        }
        let mut part = [0; 4096];
        match rustix::net::recv(socket, &mut part[..], RecvFlags::DONTWAIT) {
            Ok((_, 0)) => return Answer::Broken,
            Ok((_, length)) => input.extend(part.iter().take(length)),
            Err(Errno::AGAIN | Errno::INTR) => return Answer::None,
            Err(_) => return Answer::Broken,
        }
    }
}
