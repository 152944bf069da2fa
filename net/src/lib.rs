//! A user-mode network: Ethernet frames with virtio-net headers on one side, sockets of the host
//! on the other. It knows frames, flows, names and policy, and neither containers nor virtual machines.
//!
//! A [`Network`] is served by one thread. Its members are links: TAP devices, packet sockets or
//! streams. What a member sends to the gateway is judged by a [`policy::Policy`] and leaves
//! through ordinary sockets; nothing needs a privilege once the links' descriptors are there.
//!
//! What a process that serves a network calls (the list for its seccomp filter), beside
//! memory (`brk`, `mmap`, `munmap`, `mremap`, `madvise`), `futex` and `exit_group`:
//! `getrandom`, `epoll_wait`, `epoll_ctl`, `timerfd_settime`, `clock_gettime`, `read`, `write`, `ioctl`
//! (FIONBIO), `socket` (AF_INET and AF_INET6; SOCK_STREAM, SOCK_DGRAM), `socketpair`, `connect`, `bind` and
//! `listen` unless published ports are opened elsewhere, `accept4`, `sendto`, `sendmsg`,
//! `recvfrom`, `recvmsg`, `shutdown`, `setsockopt`, `getsockopt`, `close`.
#![deny(unsafe_code)]

mod config;
mod control;
mod core;
mod counters;
mod datagram;
pub mod dns;
mod error;
pub mod frame;
pub mod gate;
mod icmp;
mod link;
mod names;
mod neighbor;
mod network;
mod notices;
mod pace;
pub mod policy;
#[cfg(any(test, feature = "probes"))]
#[doc(hidden)]
pub mod probes;
mod publish;
mod rate;
mod route;
mod switch;
#[expect(unsafe_code, reason = "system calls that rustix does not have")]
mod sys;
mod table;
mod tcp;
mod telling;
#[cfg(test)]
mod testing;
mod timers;
mod token;
mod udp;

pub use config::{Limits, LinkFd, MAX_MEMBERS, MemberConfig, NetworkConfig, Offloads, Subnet};
pub use control::{Control, PortId};
pub use core::MemberId;
pub use counters::{Cause, Counters, MAX_REFUSED, MemberCounters, Refused, Target};
pub use error::NetError;
pub use frame::ethernet::Mac;
pub use network::Network;
pub use notices::Notice;
pub use publish::{PortKind, open_port};
pub use rate::{MIN_RATE, Rates};
pub use sys::{keep_tap, open_tap, set_tap_carrier, set_tap_offloads};
pub use telling::Telling;
