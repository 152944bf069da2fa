//! Vectored system calls between files and guest memory.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use vm_memory::VolatileSlice;
use vm_memory::bitmap::BitmapSlice;

/// The kernel's limit on the pieces of one vectored call.
const IOV_MAX: usize = 1024;

/// Pieces of guest memory for one vectored system call.
#[derive(Debug)]
pub(crate) struct Iovecs<'a> {
    vecs: Vec<libc::iovec>,
    bytes: usize,
    memory: std::marker::PhantomData<VolatileSlice<'a, ()>>,
}

impl<'a> Iovecs<'a> {
    pub(crate) const fn new() -> Self {
        Self {
            vecs: Vec::new(),
            bytes: 0,
            memory: std::marker::PhantomData,
        }
    }

    /// Add a piece. Pieces beyond what one call takes, and empty ones, are left out.
    pub(crate) fn push<B: BitmapSlice>(&mut self, slice: &VolatileSlice<'a, B>) {
        if slice.is_empty() || self.vecs.len() == IOV_MAX {
            return;
        }
        self.bytes += slice.len();
        self.vecs.push(libc::iovec {
            iov_base: slice.ptr_guard_mut().as_ptr().cast(),
            iov_len: slice.len(),
        });
    }

    /// Add bytes of this process's own, such as a message's head: nobody else changes them meanwhile.
    pub(crate) fn push_own(&mut self, bytes: &'a mut [u8]) {
        if bytes.is_empty() || self.vecs.len() == IOV_MAX {
            return;
        }
        self.bytes += bytes.len();
        self.vecs.push(libc::iovec {
            iov_base: bytes.as_mut_ptr().cast(),
            iov_len: bytes.len(),
        });
    }

    /// Have no pieces.
    pub(crate) fn clear(&mut self) {
        self.vecs.clear();
        self.bytes = 0;
    }

    /// Whether one call takes no further piece.
    pub(crate) const fn is_full(&self) -> bool {
        self.vecs.len() == IOV_MAX
    }

    /// Bytes in all pieces.
    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    fn count(&self) -> libc::c_int {
        // At most IOV_MAX.
        self.vecs.len() as libc::c_int
    }
}

/// Repeat a system call that a signal interrupted.
fn retry(mut call: impl FnMut() -> libc::ssize_t) -> io::Result<usize> {
    loop {
        match usize::try_from(call()) {
            Ok(bytes) => return Ok(bytes),
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
}

/// Read from a file into guest memory; may be short.
pub(crate) fn pread(file: BorrowedFd<'_>, vecs: &Iovecs<'_>, offset: u64) -> io::Result<usize> {
    let offset = libc::off_t::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: every piece was made from a volatile slice that outlives `vecs`, and the kernel
    // writes within it.
    retry(|| unsafe { libc::preadv(file.as_raw_fd(), vecs.vecs.as_ptr(), vecs.count(), offset) })
}

/// The same without waiting (`RWF_NOWAIT`): EAGAIN where the page cache does not hold the first byte
/// or a lock is taken, EOPNOTSUPP where the filesystem cannot tell.
pub(crate) fn pread_now(file: BorrowedFd<'_>, vecs: &Iovecs<'_>, offset: u64) -> io::Result<usize> {
    let offset = libc::off_t::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
    let (fd, vecs, count) = (file.as_raw_fd(), vecs.vecs.as_ptr(), vecs.count());
    // SAFETY: as for `pread`.
    retry(|| unsafe { libc::preadv2(fd, vecs, count, offset, libc::RWF_NOWAIT) })
}

/// Write guest memory to a file without waiting; fails as [`pread_now`] does.
pub(crate) fn pwrite_now(
    file: BorrowedFd<'_>,
    vecs: &Iovecs<'_>,
    offset: u64,
) -> io::Result<usize> {
    let offset = libc::off_t::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
    let (fd, vecs, count) = (file.as_raw_fd(), vecs.vecs.as_ptr(), vecs.count());
    // SAFETY: as for `pwrite`.
    retry(|| unsafe { libc::pwritev2(fd, vecs, count, offset, libc::RWF_NOWAIT) })
}

/// Write guest memory to a file; may be short.
pub(crate) fn pwrite(file: BorrowedFd<'_>, vecs: &Iovecs<'_>, offset: u64) -> io::Result<usize> {
    let offset = libc::off_t::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: every piece was made from a volatile slice that outlives `vecs`, and the kernel
    // only reads it.
    retry(|| unsafe { libc::pwritev(file.as_raw_fd(), vecs.vecs.as_ptr(), vecs.count(), offset) })
}

impl Iovecs<'_> {
    fn message(&self) -> libc::msghdr {
        // SAFETY: all zeroes is a valid `msghdr`: no name, no pieces, no control data.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_iov = self.vecs.as_ptr().cast_mut();
        message.msg_iovlen = self.vecs.len();
        message
    }
}

/// Read from a socket into guest memory without waiting; may be short.
pub(crate) fn recv(socket: BorrowedFd<'_>, vecs: &Iovecs<'_>) -> io::Result<usize> {
    let mut message = vecs.message();
    // SAFETY: every piece was made from a volatile slice or an exclusive reference that outlives `vecs`,
    // and the kernel writes within it and to `message`.
    retry(|| unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_DONTWAIT) })
}

/// Write guest memory to a socket without waiting; may be short.
pub(crate) fn send(socket: BorrowedFd<'_>, vecs: &Iovecs<'_>) -> io::Result<usize> {
    let message = vecs.message();
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: every piece was made from a volatile slice or an exclusive reference that outlives `vecs`,
    // and the kernel only reads it and `message`.
    retry(|| unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, flags) })
}
