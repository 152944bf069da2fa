//! Why a network ends or a command fails.

use std::net::SocketAddr;

/// An error of a network.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetError {
    /// A system call that must succeed did not.
    #[error("a system call of the network failed")]
    System(#[from] rustix::io::Errno),
    /// A published port cannot be opened.
    #[error("port {address} cannot be published")]
    Publish {
        /// The address on the host.
        address: SocketAddr,
        /// Why.
        #[source]
        source: rustix::io::Errno,
    },
    /// Two members have one MAC address or one IP address, or one is the gateway's or outside the subnet.
    #[error("a member's address is taken, or outside the network's range")]
    Address,
    /// A member is not there.
    #[error("the network has no such member")]
    NoMember,
    /// More members than a network takes.
    #[error("a network takes {} members", crate::config::MAX_MEMBERS)]
    TooManyMembers,
    /// The network is an internal one.
    #[error("an internal network publishes no ports")]
    Internal,
    /// The network has ended.
    #[error("the network has ended")]
    Ended,
}
