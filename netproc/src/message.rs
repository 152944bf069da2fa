//! What is said on a control connection: JSON, with four bytes of length, big-endian, before each
//! message. The first request brings the member's descriptor along.

use crate::counts::{Counts, Refusal};
use crate::shape::Shape;
use hullbox_backend::network::{MAX_PUBLISHED, Membership, OpenPort, UserNetwork};
use hullbox_protocol::Interface;
use rustix::io::{Errno, IoSlice, IoSliceMut};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Longest message, in bytes, without its length.
pub const MAX_MESSAGE: usize = 256 * 1024;
const LENGTH_BYTES: usize = 4;
/// What is read at a time, in bytes.
const CHUNK_BYTES: usize = 4096;
/// Most descriptors that the kernel takes with one call (`SCM_MAX_FD` is 253).
const MAX_AT_ONCE: usize = 253;
/// Most descriptors of a message: those of the most published ports, of both families, and two more.
const MAX_DESCRIPTORS: usize = 2 * MAX_PUBLISHED + 2;

/// How a member's frames are carried; see [`hullbox_backend::network::Member`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Carrier {
    /// A TAP device.
    Tap,
    /// A packet socket.
    Packets,
}

/// Where a member's frames come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Link {
    /// The descriptor that comes with the message.
    Inherited(Carrier),
    /// A stream, dialled at the vsock port that the answer names.
    Dial,
}

/// The first request: what to serve.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// What the member may do, and its ports.
    pub network: UserNetwork,
    /// Its place in a network that it shares with others; none is a network of its own.
    #[serde(default)]
    pub membership: Option<Membership>,
    /// Its resolver knows other networks' name servers, too.
    #[serde(default)]
    pub has_other_networks: bool,
    /// Its member's interface, and the gateway's addresses.
    pub interface: Interface,
    /// Its member's frames.
    pub member: Link,
}

/// What the process is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Serve this. The first request and no other.
    Start(Box<Start>),
    /// What has been counted?
    Counters,
    /// Take another policy, for flows that begin from now on; none is everywhere.
    Policy(Option<String>),
    /// The member has these names among the others from now on.
    Names(Vec<String>),
    /// Serve a network that members will join. The first request and no other; with the socket at which
    /// they arrive and the network's lock.
    Share(Shape),
}

/// A member that joins a network: the first message on a connection to the network's process, with the
/// member's control connection, what carries its frames, and its ports' sockets, in this order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Join {
    /// What its monitor asked for, without the ports. [`Link::Dial`] is a stream that was dialled.
    pub start: Start,
    /// Its ports, in the order of their sockets.
    pub ports: Vec<OpenPort>,
}

/// What it answers, in the order of the requests; and [`Self::Refused`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// It serves.
    Ready {
        /// Published ports that are open.
        ports: Vec<OpenPort>,
        /// The vsock port of the host at which it waits for its member's frames.
        dial_port: Option<u32>,
    },
    /// It serves when the member's frames can be had at this vsock port of the host.
    Dial(u32),
    /// It does not, or could not.
    Failed {
        /// Why, in one line.
        message: String,
    },
    /// What has been counted.
    Counters(Counts),
    /// It is done.
    Done,
    /// No answer: the member was refused something, for the first time. Of a member that is refused much a
    /// part is told.
    Refused(Refusal),
}

/// A message as it travels.
///
/// # Errors
/// It is longer than [`MAX_MESSAGE`].
pub fn encode(message: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; LENGTH_BYTES];
    serde_json::to_writer(&mut bytes, message)?;
    let length = bytes.len() - LENGTH_BYTES;
    let head = u32::try_from(length)
        .ok()
        .filter(|_| length <= MAX_MESSAGE)
        .ok_or(io::ErrorKind::FileTooLarge)?;
    bytes[..LENGTH_BYTES].copy_from_slice(&head.to_be_bytes());
    Ok(bytes)
}

/// Sends a message, and descriptors along with it.
///
/// # Errors
/// It is too long, or the connection takes no more: on one that does not block it is lost then.
pub fn send(
    to: BorrowedFd<'_>,
    message: &impl Serialize,
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let bytes = encode(message)?;
    let mut rest = bytes.as_slice();
    // More than go with one call go with the first bytes; a message is longer than that.
    let count = descriptors.chunks(MAX_AT_ONCE).count();
    for (index, some) in descriptors.chunks(MAX_AT_ONCE).enumerate() {
        let length = if index + 1 < count { 1 } else { rest.len() };
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_AT_ONCE))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        control.push(SendAncillaryMessage::ScmRights(some));
        let parts = [IoSlice::new(rest.get(..length).unwrap_or_default())];
        let sent =
            rustix::io::retry_on_intr(|| sendmsg(to, &parts, &mut control, SendFlags::NOSIGNAL))?;
        rest = rest.get(sent..).unwrap_or_default();
    }
    while !rest.is_empty() {
        let sent = rustix::io::retry_on_intr(|| rustix::net::send(to, rest, SendFlags::NOSIGNAL))?;
        rest = rest.get(sent..).unwrap_or_default();
    }
    Ok(())
}

/// Messages as they come in, a part at a time.
#[derive(Debug, Default)]
pub struct Incoming {
    bytes: Vec<u8>,
    descriptors: Vec<OwnedFd>,
}

impl Incoming {
    /// Reads once. False at the connection's end. On a connection that does not block, nothing to read
    /// is no error.
    ///
    /// # Errors
    /// The connection broke.
    pub fn fill(&mut self, from: impl AsFd) -> io::Result<bool> {
        let mut chunk = [0; CHUNK_BYTES];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_AT_ONCE))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut parts = [IoSliceMut::new(&mut chunk)];
        let received = match recvmsg(&from, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Err(Errno::AGAIN | Errno::INTR) => return Ok(true),
            other => other?,
        };
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                // Whatever else comes is closed.
                let room = MAX_DESCRIPTORS.saturating_sub(self.descriptors.len());
                self.descriptors.extend(descriptors.take(room));
            }
        }
        if received.flags.contains(ReturnFlags::CTRUNC) {
            return Err(io::Error::other("descriptors were lost"));
        }
        self.bytes
            .extend_from_slice(chunk.get(..received.bytes).unwrap_or_default());
        Ok(received.bytes > 0)
    }

    /// The next message, if all of it is here.
    ///
    /// # Errors
    /// It is too long, or none.
    pub fn next<T: DeserializeOwned>(&mut self) -> io::Result<Option<T>> {
        let Some((length, rest)) = self.bytes.split_first_chunk::<LENGTH_BYTES>() else {
            return Ok(None);
        };
        let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
        if length > MAX_MESSAGE {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let Some(body) = rest.get(..length) else {
            return Ok(None);
        };
        let message = serde_json::from_slice(body)?;
        self.bytes.drain(..LENGTH_BYTES + length);
        if self.bytes.is_empty() {
            // Nothing of a long one is kept.
            self.bytes = Vec::new();
        }
        Ok(Some(message))
    }

    /// Waits for the next message on a connection that blocks. None at the connection's end.
    ///
    /// # Errors
    /// The connection broke or is silent for too long, or what came is no message.
    pub fn wait<T: DeserializeOwned>(&mut self, from: impl AsFd) -> io::Result<Option<T>> {
        loop {
            if let Some(message) = self.next()? {
                return Ok(Some(message));
            }
            if !self.fill(&from)? {
                return Ok(None);
            }
        }
    }

    /// Bytes that are here and have not been taken.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The descriptors that came, in order.
    pub fn take_descriptors(&mut self) -> std::vec::IntoIter<OwnedFd> {
        std::mem::take(&mut self.descriptors).into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hullbox_backend::network::{PortProtocol, PublishedPort, Rate};
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    fn start() -> Request {
        Request::Start(Box::new(Start {
            network: UserNetwork {
                egress: Some("deny:10.0.0.0/8,all".to_owned()),
                host_gateway: true,
                dns: vec!["192.0.2.53".parse().unwrap()],
                ports: vec![PublishedPort {
                    protocol: PortProtocol::Tcp,
                    host_ip: None,
                    host_ports: (8000, 8010),
                    container_port: 80,
                }],
                shared: Vec::new(),
                rate: Rate {
                    inbound: Some(1 << 20),
                    outbound: None,
                },
            },
            membership: Some(Membership {
                id: "0123456789abcdef".repeat(4),
                internal: true,
                names: vec!["db".to_owned()],
            }),
            has_other_networks: true,
            interface: Interface {
                mac: [2, 1, 2, 3, 4, 5],
                mtu: 65520,
                ipv4: None,
                ipv6: None,
                gateway_mac: [2, 0x48, 0x55, 0x4c, 0x4c, 1],
                route_metric: Some(0),
            },
            member: Link::Inherited(Carrier::Packets),
        }))
    }

    #[test]
    fn a_message_is_the_same_wherever_it_is_cut() {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let mut bytes = encode(&start()).unwrap();
        bytes.extend(encode(&Request::Counters).unwrap());
        let mut incoming = Incoming::default();
        let mut seen = Vec::new();
        for byte in bytes {
            ours.write_all(&[byte]).unwrap();
            assert!(incoming.fill(&theirs).unwrap());
            seen.extend(incoming.next::<Request>().unwrap());
        }
        assert_eq!(seen, [start(), Request::Counters]);
        drop(ours);
        assert!(!incoming.fill(&theirs).unwrap());
        assert_eq!(incoming.wait::<Request>(&theirs).unwrap(), None);
    }

    #[test]
    fn a_descriptor_comes_along() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (mut near, far) = UnixStream::pair().unwrap();
        send(ours.as_fd(), &start(), &[far.as_fd()]).unwrap();
        drop(far);
        let mut incoming = Incoming::default();
        assert_eq!(incoming.wait(&theirs).unwrap(), Some(start()));
        let mut far = UnixStream::from(incoming.take_descriptors().next().unwrap());
        near.write_all(b"x").unwrap();
        let mut byte = [0];
        io::Read::read_exact(&mut far, &mut byte).unwrap();
        assert_eq!(&byte, b"x");
        assert!(incoming.take_descriptors().next().is_none());
    }

    #[test]
    fn the_most_descriptors_come_along_in_order() {
        hullbox_host::privileges::more_descriptors();
        let (ours, theirs) = UnixStream::pair().unwrap();
        let null = std::fs::File::open("/dev/null").unwrap();
        let zero = std::fs::File::open("/dev/zero").unwrap();
        let mut descriptors = vec![null.as_fd(); MAX_DESCRIPTORS];
        descriptors[MAX_DESCRIPTORS - 1] = zero.as_fd();
        let reader = std::thread::spawn(move || {
            let mut incoming = Incoming::default();
            assert_eq!(incoming.wait(&theirs).unwrap(), Some(Request::Counters));
            incoming.take_descriptors()
        });
        send(ours.as_fd(), &Request::Counters, &descriptors).unwrap();
        let received: Vec<_> = reader.join().unwrap().collect();
        assert_eq!(received.len(), MAX_DESCRIPTORS);
        let device = |fd: &OwnedFd| rustix::fs::fstat(fd).unwrap().st_rdev;
        let same = |at: usize| device(&received[at]) == device(&received[0]);
        assert!(same(1) && same(MAX_DESCRIPTORS - 2) && !same(MAX_DESCRIPTORS - 1));
    }

    /// A socket that nobody reads yet takes them as a whole: the monitor does not wait when it sends.
    fn is_taken_at_once(message: &impl Serialize) {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        send(ours.as_fd(), message, &[]).unwrap();
    }

    #[test]
    fn the_most_ports_that_may_be_published_fit_into_a_message() {
        let port = |host_ip: Option<&str>| PublishedPort {
            protocol: PortProtocol::Udp,
            host_ip: host_ip.map(|text| text.parse().unwrap()),
            host_ports: (u16::MAX, u16::MAX),
            container_port: u16::MAX,
        };
        let longest = "fd48:554c:4c42:ffff:ffff:ffff:ffff:ffff";
        let typed = vec![port(Some(longest)); MAX_PUBLISHED];
        // As a process that takes another's place is told them: one of each family.
        let both = [port(Some("0.0.0.0")), port(Some("::"))];
        let opened: Vec<_> = both.iter().cycle().take(2 * MAX_PUBLISHED).collect();
        for ports in [typed, opened.into_iter().cloned().collect()] {
            let Request::Start(mut start) = self::start() else {
                panic!("no start");
            };
            start.network.ports = ports.clone();
            is_taken_at_once(&Request::Start(start));
            let open = |port: PublishedPort| OpenPort {
                protocol: port.protocol,
                host_ip: port.host_ip.unwrap(),
                host_port: u16::MAX,
                container_port: u16::MAX,
            };
            let ports: Vec<_> = ports.into_iter().map(open).collect();
            let Request::Start(joined) = self::start() else {
                panic!("no start");
            };
            is_taken_at_once(&Join {
                start: *joined,
                ports: ports.clone(),
            });
            is_taken_at_once(&Answer::Ready {
                ports,
                dial_port: Some(u32::MAX),
            });
        }
    }

    #[test]
    fn what_is_too_long_or_no_message_is_an_error() {
        let read = |bytes: &[u8]| {
            let mut incoming = Incoming {
                bytes: bytes.to_vec(),
                descriptors: Vec::new(),
            };
            incoming.next::<Request>().map(|_| ())
        };
        assert!(read(&u32::MAX.to_be_bytes()).is_err());
        let longest = u32::try_from(MAX_MESSAGE).unwrap();
        assert!(read(&(longest + 1).to_be_bytes()).is_err());
        // As long as may be, and not there yet.
        assert!(read(&longest.to_be_bytes()).is_ok());
        assert!(read(b"\0\0\0\x02{}").is_err());
        assert!(read(b"\0\0\0\x01\xff").is_err());
        let long = Answer::Failed {
            message: "x".repeat(MAX_MESSAGE),
        };
        assert!(encode(&long).is_err());
    }
}
