//! vsock.

use super::{Result, check};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

/// The host's address.
const HOST: u32 = libc::VMADDR_CID_HOST;

/// What the kernel keeps of what the host sends: enough that the host need not wait for us at each
/// frame.
const BUFFER_BYTES: u64 = 1024 * 1024;
/// `SO_VM_SOCKETS_BUFFER_MAX_SIZE` and `SO_VM_SOCKETS_BUFFER_SIZE` of linux/vm_sockets.h; the bound
/// comes before the value.
const BUFFER_OPTIONS: [libc::c_int; 2] = [2, 0];

fn vsock(flags: SocketFlags) -> Result<OwnedFd> {
    let flags = flags | SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::VSOCK, SocketType::STREAM, flags, None)?;
    let bytes = BUFFER_BYTES;
    for option in BUFFER_OPTIONS {
        // SAFETY: the value is valid and its length is its own.
        let result = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::AF_VSOCK,
                option,
                (&raw const bytes).cast(),
                u32::try_from(size_of_val(&bytes)).unwrap_or(0),
            )
        };
        // Without it all is as well, and slower.
        let _ = check(result);
    }
    Ok(socket)
}

fn address(cid: u32, port: u32) -> libc::sockaddr_vm {
    // SAFETY: all-zero is a valid value of this plain structure.
    let mut address: libc::sockaddr_vm = unsafe { std::mem::zeroed() };
    address.svm_family = u16::try_from(libc::AF_VSOCK).unwrap_or(0);
    address.svm_cid = cid;
    address.svm_port = port;
    address
}

/// The size of a vsock address, as the system calls want it.
fn address_len() -> libc::socklen_t {
    u32::try_from(size_of::<libc::sockaddr_vm>()).unwrap_or(0)
}

/// Begins to connect to a port of the host. The socket is writable when it is decided.
pub fn vsock_connect(port: u32) -> Result<OwnedFd> {
    let socket = vsock(SocketFlags::NONBLOCK)?;
    be_patient(&socket);
    let host = address(HOST, port);
    // SAFETY: the address is valid and its length is its own.
    let result =
        unsafe { libc::connect(socket.as_raw_fd(), (&raw const host).cast(), address_len()) };
    match check(result) {
        Ok(_) | Err(Errno::INPROGRESS) => Ok(socket),
        Err(errno) => Err(errno),
    }
}

/// `SO_VM_SOCKETS_CONNECT_TIMEOUT_OLD` of linux/vm_sockets.h.
const CONNECT_TIMEOUT: libc::c_int = 6;
/// How long the kernel waits for the host's answer. Its own 2 s are short for a host on which a
/// hundred guests begin at once.
const CONNECT_SECONDS: libc::time_t = 60;

/// Failing that, the kernel's patience has to do.
fn be_patient(socket: &OwnedFd) {
    let time = libc::timeval {
        tv_sec: CONNECT_SECONDS,
        tv_usec: 0,
    };
    let length = u32::try_from(size_of::<libc::timeval>()).unwrap_or(0);
    // SAFETY: the option takes a `timeval`, which is valid and whose length is its own.
    let _ = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::AF_VSOCK,
            CONNECT_TIMEOUT,
            (&raw const time).cast(),
            length,
        )
    };
}

/// Listens on a port of this guest.
pub fn vsock_listen(port: u32) -> Result<OwnedFd> {
    let socket = vsock(SocketFlags::NONBLOCK)?;
    let any = address(libc::VMADDR_CID_ANY, port);
    // SAFETY: the address is valid and its length is its own.
    check(unsafe { libc::bind(socket.as_raw_fd(), (&raw const any).cast(), address_len()) })?;
    rustix::net::listen(&socket, 128)?;
    Ok(socket)
}

/// Takes a connection, if one waits. Only the host's own are taken.
pub fn vsock_accept(listener: BorrowedFd<'_>) -> Result<OwnedFd> {
    let mut peer = address(0, 0);
    let mut len = address_len();
    // SAFETY: the address buffer is valid and `len` says how long it is.
    let fd = check(unsafe {
        libc::accept4(
            listener.as_raw_fd(),
            (&raw mut peer).cast(),
            &raw mut len,
            libc::SOCK_CLOEXEC,
        )
    })?;
    // SAFETY: the descriptor is new and ours.
    let socket = unsafe { <OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(fd) };
    if peer.svm_cid != HOST {
        return Err(Errno::PERM);
    }
    Ok(socket)
}
