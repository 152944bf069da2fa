//! How programs of the host and the guest find each other: Unix sockets.

use super::packet::ConnectionKey;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use std::collections::HashMap;
use std::ffi::OsString;
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

/// Epoll token of the listener.
pub(super) const LISTENER_TOKEN: u64 = u64::MAX;
/// No connection has this host port (`VMADDR_PORT_ANY`), so tokens with it name waiting callers.
pub(super) const CALLER_PORT: u32 = u32::MAX;
/// Most callers that may be in the middle of saying which port they want.
const MAX_CALLERS: usize = 64;
/// Longest line `CONNECT <port>\n`.
const MAX_LINE: usize = 32;

/// The socket that programs of the host dial, and those who have not said yet what they want.
#[derive(Debug)]
pub(super) struct HostSide {
    path: PathBuf,
    listener: UnixListener,
    callers: HashMap<u32, Caller>,
    next_caller: u32,
}

#[derive(Debug)]
struct Caller {
    stream: UnixStream,
    line: Vec<u8>,
}

impl HostSide {
    /// Listens at `path`, for the owner alone.
    pub(super) fn listen(path: &Path, epoll: &Epoll) -> io::Result<Self> {
        let listener = UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        Self::take_over(listener, path, epoll)
    }

    /// Serves a listener that is bound to `path`, and removes that in the end.
    pub(super) fn take_over(
        listener: UnixListener,
        path: &Path,
        epoll: &Epoll,
    ) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let event = EpollEvent::new(EventSet::IN, LISTENER_TOKEN);
        epoll.ctl(ControlOperation::Add, listener.as_raw_fd(), event)?;
        Ok(Self {
            path: path.to_owned(),
            listener,
            callers: HashMap::new(),
            next_caller: 0,
        })
    }

    /// Connects a guest to whoever listens for its port, without ever waiting.
    pub(super) fn dial(&self, port: u32) -> io::Result<UnixStream> {
        let mut path = OsString::from(&self.path);
        path.push(format!("_{port}"));
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket =
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        rustix::net::connect(&socket, &SocketAddrUnix::new(Path::new(&path))?)?;
        Ok(socket.into())
    }

    /// Accepts one caller; one too many is hung up on.
    pub(super) fn accept(&mut self, epoll: &Epoll) -> io::Result<()> {
        let (stream, _) = self.listener.accept()?;
        if self.callers.len() >= MAX_CALLERS {
            return Ok(());
        }
        stream.set_nonblocking(true)?;
        self.next_caller = self.next_caller.wrapping_add(1);
        let key = ConnectionKey {
            host_port: CALLER_PORT,
            guest_port: self.next_caller % u32::MAX, // u32::MAX would be the listener's token
        };
        let event = EpollEvent::new(EventSet::IN, key.token());
        epoll.ctl(ControlOperation::Add, stream.as_raw_fd(), event)?;
        let line = Vec::new();
        self.callers.insert(key.guest_port, Caller { stream, line });
        Ok(())
    }

    /// Reads on in a caller's line. When it is whole: the port, and the caller's socket.
    pub(super) fn hear(&mut self, id: u32, epoll: &Epoll) -> Option<(u32, UnixStream)> {
        let caller = self.callers.get_mut(&id)?;
        let whole = loop {
            // Byte by byte: what follows the line belongs to the connection.
            let mut byte = [0u8];
            match (&caller.stream).read(&mut byte) {
                Ok(1) if byte == *b"\n" => break true,
                Ok(1) if caller.line.len() < MAX_LINE => caller.line.extend(byte),
                Err(error) if super::connection::is_transient(&error) => return None,
                _ => break false,
            }
        };
        let caller = self.callers.remove(&id)?;
        let event = EpollEvent::default();
        epoll
            .ctl(ControlOperation::Delete, caller.stream.as_raw_fd(), event)
            .ok()?;
        let line = whole.then_some(caller.line)?;
        let port = std::str::from_utf8(&line).ok()?.strip_prefix("CONNECT ")?;
        Some((port.trim().parse().ok()?, caller.stream))
    }

    /// Hangs up on everyone who has not said what they want.
    pub(super) fn hang_up(&mut self) {
        self.callers.clear();
    }
}

impl Drop for HostSide {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}
