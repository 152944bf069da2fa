//! ICMP and ICMPv6: errors to members, and echo requests of members over the host's ping sockets.

pub mod echo;
pub mod error;
