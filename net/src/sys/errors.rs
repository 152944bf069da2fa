//! The error queue of a socket (`IP_RECVERR`, ip(7)).

use rustix::io::Errno;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, AsRawFd};

/// An error that an ICMP message or the host's own stack brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueuedError {
    /// The error's number.
    pub errno: Errno,
    /// ICMP's type and code, if such a message brought it.
    pub icmp: Option<(u8, u8)>,
    /// Who sent the message.
    pub offender: Option<IpAddr>,
    /// The path's MTU, if the error is `EMSGSIZE`, in bytes.
    pub mtu: u32,
}

/// Room for one control message with an error and its offender's address.
#[repr(C, align(8))]
struct Control([u8; 256]);

/// Takes the next error out of a socket's queue; `None` if there is none.
pub fn next_error(socket: impl AsFd) -> Option<QueuedError> {
    let mut control = Control([0; 256]);
    let mut payload = [0u8; 64];
    let mut part = libc::iovec {
        iov_base: payload.as_mut_ptr().cast(),
        iov_len: payload.len(),
    };
    // SAFETY: a msghdr of zeroes is a valid one without name, parts and control.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.0.as_mut_ptr().cast();
    message.msg_controllen = control.0.len();
    let flags = libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT;
    // SAFETY: all that `message` points at lives for the whole call, and the lengths are right.
    let received = unsafe { libc::recvmsg(socket.as_fd().as_raw_fd(), &raw mut message, flags) };
    if received < 0 {
        return None;
    }
    let length = message.msg_controllen.min(control.0.len());
    parse(control.0.get(..length)?)
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// Reads `cmsghdr`s (length, level, type) until one holds a `sock_extended_err`.
fn parse(mut control: &[u8]) -> Option<QueuedError> {
    const HEADER: usize = 16;
    loop {
        let length =
            usize::try_from(u64::from_ne_bytes(control.get(..8)?.try_into().ok()?)).ok()?;
        let level = word(control, 8)? as libc::c_int;
        let kind = word(control, 12)? as libc::c_int;
        let data = control.get(HEADER..length)?;
        let is_error = (level, kind) == (libc::IPPROTO_IP, libc::IP_RECVERR)
            || (level, kind) == (libc::IPPROTO_IPV6, libc::IPV6_RECVERR);
        if is_error {
            return error(data);
        }
        control = control.get(length.next_multiple_of(8)..)?;
    }
}

/// A `sock_extended_err` (`linux/errqueue.h`): errno, origin, type, code, pad, info, data; then
/// the offender's socket address.
fn error(data: &[u8]) -> Option<QueuedError> {
    let origin = *data.get(4)?;
    let message = (*data.get(5)?, *data.get(6)?);
    let from_icmp = origin == libc::SO_EE_ORIGIN_ICMP || origin == libc::SO_EE_ORIGIN_ICMP6;
    let family = u16::from_ne_bytes(data.get(16..18)?.try_into().ok()?);
    let offender = match libc::c_int::from(family) {
        libc::AF_INET => {
            let octets: [u8; 4] = data.get(20..24)?.try_into().ok()?;
            Some(IpAddr::V4(Ipv4Addr::from(octets)))
        }
        libc::AF_INET6 => {
            let octets: [u8; 16] = data.get(24..40)?.try_into().ok()?;
            Some(IpAddr::V6(Ipv6Addr::from(octets)))
        }
        _ => None,
    };
    Some(QueuedError {
        errno: Errno::from_raw_os_error(word(data, 0)? as i32),
        icmp: from_icmp.then_some(message),
        offender,
        mtu: word(data, 8)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;

    #[test]
    fn a_closed_port_is_told_with_its_icmp_message() {
        let closed = UdpSocket::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        super::super::set_receive_errors(&socket, true).unwrap();
        socket.connect(closed).unwrap();
        socket.send(b"x").unwrap();
        let error = next_error(&socket).unwrap();
        assert_eq!(error.icmp, Some((3, 3)));
        assert_eq!(error.errno, Errno::CONNREFUSED);
        assert_eq!(error.offender, Some([127, 0, 0, 1].into()));
        assert_eq!(next_error(&socket), None);
    }

    #[test]
    fn malformed_control_messages_are_none() {
        assert_eq!(parse(&[0; 4]), None);
        assert_eq!(parse(&[0xff; 64]), None);
        assert_eq!(parse(&[0; 64]), None);
    }
}
