//! The name server that a network's gateway is: names of members and of the host are answered
//! here, forbidden names are refused here, and only the rest is asked of the host's resolvers.
//!
//! - `message`: DNS messages.
//! - `files`: `resolv.conf` and `hosts`.
//! - `reverse`: names that stand for addresses.
//! - `decide`: what becomes of a query.
//! - `answers`: the addresses in a response.
//! - `admit`: whether a member may have a response.
//! - `server`: queries of members, and what becomes of them.
//! - `upstream`: one query at one of the host's resolvers.

mod admit;
mod answers;
#[cfg(any(test, feature = "probes"))]
pub(crate) mod check;
mod decide;
mod files;
mod message;
mod reverse;
mod server;
mod upstream;

pub use files::{hosts, name_servers};
pub(crate) use server::Dns;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

/// What a network's name server knows.
#[derive(Debug, Clone, Default)]
pub struct DnsConfig {
    /// Whom to ask, in order, for members that have no name servers of their own.
    pub upstreams: Vec<SocketAddr>,
    /// Names with addresses, in lower case.
    pub hosts: HashMap<String, Vec<IpAddr>>,
}
