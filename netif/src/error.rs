//! Why an interface cannot be configured.

use rustix::io::Errno;
use std::fmt;

/// Why an interface cannot be configured.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetifError {
    /// There is no rtnetlink socket to be had, or it does not carry messages.
    #[error("cannot speak to the kernel's network configuration")]
    Socket(#[source] Errno),
    /// The network namespace has no such interface.
    #[error("there is no network interface {0}")]
    Missing(String),
    /// The kernel refused a step.
    #[error("cannot {step}")]
    Step {
        /// Which one.
        step: Step,
        /// Why.
        #[source]
        source: Errno,
    },
    /// The kernel's answer is none.
    #[error("unexpected answer of the kernel's network configuration")]
    Answer,
}

/// What the kernel is asked to do, in the order in which it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Step {
    /// Bring up the loopback interface.
    Loopback,
    /// Make one beside the network card.
    Add,
    /// Find the interface.
    Find,
    /// Take it down, so that its MAC address can be set.
    Disable,
    /// List its addresses.
    ListAddresses,
    /// Remove an address that it had.
    RemoveAddress,
    /// Give it to another network namespace.
    HandOver,
    /// Remove it.
    Remove,
    /// Set its MAC address and its MTU.
    Prepare,
    /// Keep the kernel from making up IPv6 addresses.
    NoGeneratedAddress,
    /// Set its IPv6 address.
    Ipv6Address,
    /// Set its IPv4 address.
    Ipv4Address,
    /// Have it resolve link-layer addresses.
    Arp,
    /// Bring it up.
    Enable,
    /// Set the default route of IPv4.
    Ipv4Route,
    /// Set the default route of IPv6.
    Ipv6Route,
    /// Set the gateway's MAC address for IPv4.
    Ipv4Neighbor,
    /// Set the gateway's MAC address for IPv6.
    Ipv6Neighbor,
}

impl Step {
    /// Whether IPv6 is all that it is about.
    pub(crate) const fn is_ipv6(self) -> bool {
        matches!(
            self,
            Self::NoGeneratedAddress | Self::Ipv6Address | Self::Ipv6Route | Self::Ipv6Neighbor
        )
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Loopback => "bring up the loopback interface",
            Self::Add => "make a network interface beside the first (macvlan)",
            Self::Find => "look for the network interface",
            Self::Disable => "take down the network interface",
            Self::ListAddresses => "list the interface's addresses",
            Self::RemoveAddress => "remove an address of the interface",
            Self::HandOver => "move the network interface",
            Self::Remove => "remove the network interface",
            Self::Prepare => "set the interface's MAC address and MTU",
            Self::NoGeneratedAddress => "turn off generated IPv6 addresses",
            Self::Ipv6Address => "set the IPv6 address",
            Self::Ipv4Address => "set the IPv4 address",
            Self::Arp => "turn on ARP",
            Self::Enable => "bring up the network interface",
            Self::Ipv4Route => "set the IPv4 default route",
            Self::Ipv6Route => "set the IPv6 default route",
            Self::Ipv4Neighbor => "set the IPv4 gateway's MAC address",
            Self::Ipv6Neighbor => "set the IPv6 gateway's MAC address",
        })
    }
}
