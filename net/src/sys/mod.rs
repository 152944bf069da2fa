//! System calls that neither the standard library nor rustix offers, in safe wrappers. The
//! crate's only `unsafe` code.

mod errors;
mod tap;

pub use errors::{QueuedError, next_error};
pub use tap::{keep_tap, open_tap, set_tap_carrier, set_tap_offloads};

use rustix::io::Errno;
use std::os::fd::{AsFd, AsRawFd};

const SO_MEMINFO: libc::c_int = 55;
/// Words of `SO_MEMINFO` up to the one that is read last (`linux/sock_diag.h`).
const MEMINFO_WORDS: usize = 9;
const MEMINFO_WMEM_ALLOC: usize = 2;
const MEMINFO_SNDBUF: usize = 3;
const MEMINFO_WMEM_QUEUED: usize = 5;

fn last_error() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

/// Takes `length` bytes that have arrived out of a TCP socket without copying them anywhere.
/// Returns how many there were.
///
/// # Errors
/// As `recv(2)`.
pub fn discard(socket: impl AsFd, length: usize) -> Result<usize, Errno> {
    let flags = libc::MSG_TRUNC | libc::MSG_DONTWAIT;
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: with MSG_TRUNC a TCP socket writes nothing to the buffer (tcp(7)), so that it may
    // be null; callers have TCP sockets only, and for another kind the kernel answers EFAULT.
    let taken = unsafe { libc::recv(fd, std::ptr::null_mut(), length, flags) };
    usize::try_from(taken).map_err(|_| last_error())
}

fn set_int(socket: impl AsFd, (level, name): (i32, i32), value: libc::c_int) -> Result<(), Errno> {
    // SAFETY: every option that comes here has an int for a value, which lives for the whole call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(last_error())
    }
}

/// Sets where in the received bytes the next `MSG_PEEK` begins. TCP can since Linux 6.9, over
/// IPv6 since 6.11.
///
/// # Errors
/// `EOPNOTSUPP` where the kernel cannot.
pub fn set_peek_offset(socket: impl AsFd, offset: usize) -> Result<(), Errno> {
    let value = libc::c_int::try_from(offset).map_err(|_| Errno::INVAL)?;
    set_int(socket, (libc::SOL_SOCKET, libc::SO_PEEK_OFF), value)
}

/// Whether the host's own stack may cut an IPv6 datagram that is too long for its path.
///
/// # Errors
/// As `setsockopt(2)`.
pub fn set_dont_fragment_v6(socket: impl AsFd, on: bool) -> Result<(), Errno> {
    set_int(socket, (libc::IPPROTO_IPV6, libc::IPV6_DONTFRAG), on.into())
}

/// Asks for the errors that ICMP messages bring (`IP_RECVERR`).
///
/// # Errors
/// As `setsockopt(2)`.
pub fn set_receive_errors(socket: impl AsFd, is_v4: bool) -> Result<(), Errno> {
    let option = if is_v4 {
        (libc::IPPROTO_IP, libc::IP_RECVERR)
    } else {
        (libc::IPPROTO_IPV6, libc::IPV6_RECVERR)
    };
    set_int(socket, option, 1)
}

/// The memory of a socket's send buffer that is free, in bytes of the kernel's own accounting,
/// and the buffer's size.
///
/// # Errors
/// As `getsockopt(2)`.
pub fn send_buffer(socket: impl AsFd) -> Result<(usize, usize), Errno> {
    let mut words = [0u32; MEMINFO_WORDS];
    let mut length = size_of_val(&words) as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes to `words`, and the length to `length`;
    // both live for the whole call.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            SO_MEMINFO,
            words.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if result != 0 {
        return Err(last_error());
    }
    // A TCP socket counts what is queued; any other one what is allocated.
    let used = words[MEMINFO_WMEM_QUEUED].max(words[MEMINFO_WMEM_ALLOC]) as usize;
    let size = words[MEMINFO_SNDBUF] as usize;
    Ok((size.saturating_sub(used), size))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (client, listener.accept().unwrap().0)
    }

    #[test]
    fn discarding_takes_what_has_arrived() {
        let (mut client, server) = pair();
        client.write_all(b"hello world").unwrap();
        let mut seen = [0; 6];
        assert_eq!(server.peek(&mut seen).unwrap(), 6);
        assert_eq!(discard(&server, 6), Ok(6));
        assert_eq!(server.peek(&mut seen).unwrap(), 5);
        assert_eq!(discard(&server, 60), Ok(5));
        assert_eq!(discard(&server, 1), Err(Errno::AGAIN));
    }

    #[test]
    fn the_send_buffer_shrinks_by_what_is_queued() {
        let (mut client, _server) = pair();
        let (free, size) = send_buffer(&client).unwrap();
        assert!(free <= size && size > 0);
        client.set_nonblocking(true).unwrap();
        while client.write(&[0; 4096]).is_ok() {}
        assert!(send_buffer(&client).unwrap().0 < 64 * 1024);
    }
}
