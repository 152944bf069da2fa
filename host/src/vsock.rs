//! Reaching the host from inside a machine.

use nix::errno::Errno;
use nix::sys::socket::VsockAddr;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

/// Connects to a vsock port of the host, which may take its time: it starts a process for it.
///
/// # Errors
/// There is no vsock, or nobody answers in time.
pub fn dial_host(port: u32, limit: Duration) -> io::Result<OwnedFd> {
    let address = VsockAddr::new(libc::VMADDR_CID_HOST, port);
    let deadline = Instant::now() + limit;
    loop {
        let flags = SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::VSOCK, SocketType::STREAM, flags, None)?;
        match nix::sys::socket::connect(socket.as_raw_fd(), &address) {
            Ok(()) => return Ok(socket),
            // The kernel's own patience is two seconds.
            Err(Errno::ETIMEDOUT | Errno::EINTR) if Instant::now() < deadline => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}
