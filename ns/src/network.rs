//! The container's network, for now: a namespace of its own with the loopback interface.

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with,
};

// rtnetlink(7), `linux/netlink.h`, `linux/rtnetlink.h`.
const RTM_NEWLINK: u16 = 16;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLMSG_ERROR: u16 = 2;
const IFF_UP: u32 = 1;
/// The loopback interface is the first of every network namespace.
const LOOPBACK: u32 = 1;

/// Sets the loopback interface of this network namespace up; the kernel gives it its addresses.
pub(super) fn bring_up_loopback() -> Result<(), Errno> {
    let socket = socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        None,
    )?;
    // A `struct nlmsghdr` and a `struct ifinfomsg`.
    let mut message = Vec::with_capacity(32);
    message.extend_from_slice(&32u32.to_ne_bytes());
    message.extend_from_slice(&RTM_NEWLINK.to_ne_bytes());
    message.extend_from_slice(&(NLM_F_REQUEST | NLM_F_ACK).to_ne_bytes());
    message.extend_from_slice(&[0; 12]);
    message.extend_from_slice(&LOOPBACK.to_ne_bytes());
    message.extend_from_slice(&IFF_UP.to_ne_bytes());
    message.extend_from_slice(&IFF_UP.to_ne_bytes());
    send(&socket, &message, SendFlags::empty())?;
    let mut answer = [0u8; 128];
    let (length, _) = recv(&socket, &mut answer[..], RecvFlags::empty())?;
    // The answer is an NLMSG_ERROR whose error number, negative or zero, follows the header.
    match answer.get(..length) {
        Some(
            [
                _,
                _,
                _,
                _,
                k0,
                k1,
                _,
                _,
                _,
                _,
                _,
                _,
                _,
                _,
                _,
                _,
                e0,
                e1,
                e2,
                e3,
                ..,
            ],
        ) if u16::from_ne_bytes([*k0, *k1]) == NLMSG_ERROR => {
            match i32::from_ne_bytes([*e0, *e1, *e2, *e3]) {
                0 => Ok(()),
                error => Err(Errno::from_raw_os_error(error.saturating_neg())),
            }
        }
        _ => Err(Errno::PROTO),
    }
}
