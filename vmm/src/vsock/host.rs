//! The host's side: a Unix socket on which host programs ask for ports of the guest, and Unix
//! sockets on which they wait for the guest.

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use std::collections::HashMap;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

/// The longest first line is `CONNECT 4294967295\n`.
const MAX_LINE: usize = 32;
/// Most host programs that have connected and not said what they want.
const MAX_VISITORS: usize = 64;
/// Event data of the listener; visitors count up from here, and connections have higher bits.
pub(super) const LISTENER: u64 = 0;

/// What happened on the host's side.
#[derive(Debug)]
pub(super) enum HostEvent {
    /// A host program wants this port of the guest.
    Wants(UnixStream, u32),
    /// Something is new on the socket with this event data.
    Socket {
        data: u64,
        readable: bool,
        writable: bool,
        hung_up: bool,
    },
}

/// See the module.
#[derive(Debug)]
pub(super) struct Host {
    path: PathBuf,
    listener: UnixListener,
    epoll: Epoll,
    visitors: HashMap<u64, UnixStream>,
    next_visitor: u32,
}

impl Host {
    /// Listen at `path`.
    pub(super) fn new(path: &Path) -> io::Result<Self> {
        match std::fs::symlink_metadata(path) {
            // Left behind by a process that was killed.
            Ok(metadata) if metadata.file_type().is_socket() => std::fs::remove_file(path)?,
            _ => {}
        }
        let listener = UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        Self::on_listener(listener, path)
    }

    /// Serve a listener that is bound to `path`, which is removed in the end.
    pub(super) fn on_listener(listener: UnixListener, path: &Path) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let host = Self {
            path: path.to_owned(),
            listener,
            epoll: Epoll::new()?,
            visitors: HashMap::new(),
            next_visitor: 1,
        };
        host.watch(&host.listener, LISTENER)?;
        Ok(host)
    }

    /// Readable when [`Host::events`] has something to tell.
    pub(super) fn epoll_fd(&self) -> RawFd {
        self.epoll.as_raw_fd()
    }

    /// Hear of a socket's edges. Closing the socket ends it.
    pub(super) fn watch(&self, socket: &impl AsRawFd, data: u64) -> io::Result<()> {
        let edges =
            EventSet::IN | EventSet::OUT | EventSet::READ_HANG_UP | EventSet::EDGE_TRIGGERED;
        self.epoll.ctl(
            ControlOperation::Add,
            socket.as_raw_fd(),
            EpollEvent::new(edges, data),
        )
    }

    /// Hear of a socket under another number from now on, of what it is now at once.
    pub(super) fn rewatch(&self, socket: &impl AsRawFd, data: u64) -> io::Result<()> {
        let edges =
            EventSet::IN | EventSet::OUT | EventSet::READ_HANG_UP | EventSet::EDGE_TRIGGERED;
        self.epoll.ctl(
            ControlOperation::Modify,
            socket.as_raw_fd(),
            EpollEvent::new(edges, data),
        )
    }

    /// Connect to the host program that waits for the guest at this port.
    pub(super) fn connect(&self, port: u32) -> io::Result<UnixStream> {
        let mut path = OsString::from(&self.path);
        path.push(format!("_{port}"));
        let address = rustix::net::SocketAddrUnix::new(path)?;
        // A full backlog must not make the device wait: then the guest is refused.
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket =
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        rustix::net::connect(&socket, &address)?;
        Ok(UnixStream::from(socket))
    }

    /// What is new. Bounded: what does not fit is told the next time.
    pub(super) fn events(&mut self, new: &mut Vec<HostEvent>) {
        let mut events = [EpollEvent::default(); 64];
        let count = match self.epoll.wait(0, &mut events) {
            Ok(count) => count,
            Err(_) => return,
        };
        for event in &events[..count] {
            let set = event.event_set();
            match event.data() {
                LISTENER => self.accept(),
                data if data <= u64::from(u32::MAX) => new.extend(self.listen_to(data)),
                data => new.push(HostEvent::Socket {
                    data,
                    readable: set.intersects(EventSet::IN | EventSet::READ_HANG_UP),
                    writable: set.contains(EventSet::OUT),
                    hung_up: set.intersects(EventSet::HANG_UP | EventSet::ERROR),
                }),
            }
        }
    }

    /// Take host programs in, until none is waiting or there are too many.
    fn accept(&mut self) {
        while let Ok((stream, _)) = self.listener.accept() {
            if self.visitors.len() >= MAX_VISITORS {
                // The longest silence ends; its place is needed.
                let oldest = self.visitors.keys().min().copied();
                if let Some(oldest) = oldest {
                    self.visitors.remove(&oldest);
                }
            }
            let data = u64::from(self.next_visitor);
            self.next_visitor = self.next_visitor.checked_add(1).unwrap_or(1);
            if self.watch(&stream, data).is_ok() {
                self.visitors.insert(data, stream);
            }
        }
    }

    /// A visitor may have said what it wants.
    fn listen_to(&mut self, data: u64) -> Option<HostEvent> {
        let stream = self.visitors.get(&data)?;
        match read_request(stream.as_fd()) {
            Ok(None) => None,
            Ok(Some(port)) => {
                let stream = self.visitors.remove(&data)?;
                Some(HostEvent::Wants(stream, port))
            }
            Err(_) => {
                self.visitors.remove(&data);
                None
            }
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // Someone else may have removed it.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Read the first line of a host program, and not a byte more. `None`: it is not complete.
fn read_request(stream: std::os::fd::BorrowedFd<'_>) -> io::Result<Option<u32>> {
    let mut line = [0u8; MAX_LINE];
    let peek = RecvFlags::PEEK | RecvFlags::DONTWAIT;
    let (length, _) = match rustix::net::recv(stream, &mut line, peek) {
        Ok(length) => length,
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let Some(end) = line[..length].iter().position(|byte| *byte == b'\n') else {
        if length == MAX_LINE || length == 0 {
            return Err(io::ErrorKind::InvalidData.into());
        }
        return Ok(None);
    };
    rustix::net::recv(stream, &mut line[..=end], RecvFlags::DONTWAIT)?;
    parse_request(&line[..end])
        .map(Some)
        .ok_or_else(|| io::ErrorKind::InvalidData.into())
}

fn parse_request(line: &[u8]) -> Option<u32> {
    let line = std::str::from_utf8(line).ok()?;
    line.strip_prefix("CONNECT ")?.trim_end().parse().ok()
}

/// Tell a host program that the guest answered.
pub(super) fn welcome(stream: &UnixStream, port: u32) -> io::Result<()> {
    let line = format!("OK {port}\n");
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    match rustix::net::send(stream, line.as_bytes(), flags)? {
        sent if sent == line.len() => Ok(()),
        _ => Err(io::ErrorKind::WriteZero.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_well_formed_requests_are_taken() {
        assert_eq!(parse_request(b"CONNECT 1024"), Some(1024));
        assert_eq!(parse_request(b"CONNECT 1024\r"), Some(1024));
        assert_eq!(parse_request(b"CONNECT 4294967296"), None);
        assert_eq!(parse_request(b"CONNECT"), None);
        assert_eq!(parse_request(b"connect 1"), None);
        assert_eq!(parse_request(b"CONNECT \xff"), None);
    }

    #[test]
    fn what_follows_the_first_line_is_left_alone() {
        use std::io::{Read, Write};
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        ours.write_all(b"CONN").unwrap();
        assert!(read_request(theirs.as_fd()).unwrap().is_none());
        ours.write_all(b"ECT 7\nhello").unwrap();
        assert_eq!(read_request(theirs.as_fd()).unwrap(), Some(7));
        let mut rest = [0u8; 5];
        (&theirs).read_exact(&mut rest).unwrap();
        assert_eq!(&rest, b"hello");
        ours.write_all(&[b'x'; 40]).unwrap();
        assert!(read_request(theirs.as_fd()).is_err());
    }
}
