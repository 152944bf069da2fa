//! Configures the network interfaces of a container by rtnetlink(7), in the calling thread's network
//! namespace: the loopback, and `eth0`, `eth1` and so on as a [`hullbox_protocol::Interface`] says.
//!
//! The messages go out in as few datagrams as their order allows: each is a system call of a
//! container's start.
//!
//! A virtual machine has one network card. Interfaces beside the first are macvlan devices on it, each with
//! a MAC address of its own, by which whoever carries the card's frames knows their network.
//!
//! **Nothing is sent on the link because it came up**, as the first frame starts the process that
//! serves the network. There are no router solicitations and no duplicate address detection, and no
//! membership report for the solicited-node multicast group of an IPv6 address, because the kernel
//! does not join that group while the interface has `IFF_NOARP` (`addrconf_join_solict`). The join
//! happens on a work queue, which tells that it is done by announcing the address (RTM_NEWADDR), and it
//! would be made up for if `IFF_NOARP` were cleared on an interface that is up (`addrconf_dad_run`). So
//! the address is set while the interface is down:
//!
//! ```text
//! down, NOARP ─► address ─► announced ─► ARP ─► up ─► routes, neighbours
//! ```
//!
//! The price is that the interface hears no multicast neighbour solicitation for its address. It need
//! not: the network that it is a member of answers in its place.
#![forbid(unsafe_code)]

mod error;
mod message;
mod setup;
mod socket;

pub use error::{NetifError, Step};
pub use setup::{add_beside_first, configure, hand_over, loopback_up, reconfigure, remove};
