//! The rtnetlink socket.

use crate::error::{NetifError, Step};
use crate::message::{Batch, NLMSG_DONE, NLMSG_ERROR, Received, messages, u32_at};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, send, socket_with,
};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// `RTMGRP_IPV6_IFADDR`: IPv6 addresses that come and go.
const IPV6_ADDRESSES: u32 = 0x100;
/// Longer than any datagram of the kernel's (`NLMSG_GOODSIZE` is at most a page or 8 KiB; dumps
/// have up to 32 KiB if the buffer has).
const BUFFER_BYTES: usize = 32 * 1024;

/// See the module.
#[derive(Debug)]
pub(crate) struct Socket {
    fd: OwnedFd,
    buffer: Vec<u8>,
    next_sequence: u32,
}

impl Socket {
    /// Opens one, which also hears of IPv6 addresses if asked.
    pub(crate) fn open(hears_of_addresses: bool) -> Result<Self, NetifError> {
        let flags = SocketFlags::CLOEXEC;
        // Protocol 0 is NETLINK_ROUTE.
        let fd = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)
            .map_err(NetifError::Socket)?;
        if hears_of_addresses {
            let groups = SocketAddrNetlink::new(0, IPV6_ADDRESSES);
            bind(&fd, &groups).map_err(NetifError::Socket)?;
        }
        Ok(Self {
            fd,
            buffer: vec![0; BUFFER_BYTES],
            next_sequence: 1,
        })
    }

    /// An empty batch.
    pub(crate) fn batch(&self) -> Batch {
        Batch::new(self.next_sequence)
    }

    /// An empty batch, to be sent after another.
    pub(crate) fn batch_after(&self, other: &Batch) -> Batch {
        Batch::new(other.next_sequence())
    }

    /// Sends messages and reads the answers to all of them. What is neither acknowledgement nor error
    /// is given to `other`. A step that the kernel refused is given to `refused`, whose error ends
    /// it.
    pub(crate) fn exchange(
        &mut self,
        mut batch: Batch,
        mut refused: impl FnMut(Step, Errno) -> Result<(), NetifError>,
        mut other: impl FnMut(Received<'_>),
    ) -> Result<(), NetifError> {
        self.next_sequence = batch.next_sequence();
        send(&self.fd, batch.finish(), SendFlags::empty()).map_err(NetifError::Socket)?;
        loop {
            // The kernel answers before `send` returns.
            let length = self.receive()?.ok_or(NetifError::Answer)?;
            let datagram = self.buffer.get(..length).unwrap_or_default();
            for message in messages(datagram) {
                let step = batch.step(message.sequence);
                let Some(step) = step.filter(|_| is_answer(message.kind)) else {
                    other(message);
                    continue;
                };
                // A `struct nlmsgerr` begins with a negative error number; so does the end of a dump.
                let code = u32_at(message.body, 0).ok_or(NetifError::Answer)?;
                match code.cast_signed() {
                    0 => {}
                    code => refused(step, Errno::from_raw_os_error(code.saturating_neg()))?,
                }
                if batch.is_last(message.sequence) {
                    return Ok(());
                }
            }
        }
    }

    /// Waits until `done` finds its message, for as long as `patience` at the most.
    pub(crate) fn wait(
        &mut self,
        patience: Duration,
        mut done: impl FnMut(Received<'_>) -> bool,
    ) -> Result<(), NetifError> {
        let due = Instant::now() + patience;
        loop {
            while let Some(length) = self.receive()? {
                let datagram = self.buffer.get(..length).unwrap_or_default();
                if messages(datagram).any(&mut done) {
                    return Ok(());
                }
            }
            let left = due.saturating_duration_since(Instant::now());
            let left = Timespec {
                tv_sec: 0,
                tv_nsec: i64::from(left.subsec_nanos()),
            };
            let mut fds = [PollFd::new(&self.fd, PollFlags::IN)];
            match poll(&mut fds, Some(&left)) {
                Ok(0) => return Ok(()),
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(NetifError::Socket(errno)),
            }
        }
    }

    /// Reads a datagram, if there is one.
    fn receive(&mut self) -> Result<Option<usize>, NetifError> {
        loop {
            match recv(&self.fd, &mut self.buffer[..], RecvFlags::DONTWAIT) {
                Ok((length, _)) => return Ok(Some(length)),
                Err(Errno::AGAIN) => return Ok(None),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(NetifError::Socket(errno)),
            }
        }
    }
}

const fn is_answer(kind: u16) -> bool {
    matches!(kind, NLMSG_ERROR | NLMSG_DONE)
}
