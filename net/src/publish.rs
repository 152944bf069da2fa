//! Published ports: sockets of the host that lead to a member's port.

use crate::core::{Core, MemberId};
use crate::error::NetError;
use crate::table::{Id, Table};
use crate::token::{Kind, Token};
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrAny, SocketFlags, SocketType, sockopt,
};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

/// Connections that wait to be accepted; the kernel takes no more than `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// Which kind of port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PortKind {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

#[derive(Debug)]
struct Port {
    kind: PortKind,
    socket: OwnedFd,
    member: MemberId,
    target_port: u16,
}

/// All published ports of a network.
#[derive(Debug, Default)]
pub struct Ports {
    ports: Table<Port>,
    /// Ports that are not listened to because there was no descriptor for a connection.
    resting: Vec<Id>,
}

fn token(id: Id) -> Token {
    Token {
        kind: Kind::Port,
        id,
    }
}

/// Opens a socket for a published port. IPv6 sockets take no IPv4.
///
/// # Errors
/// `NetError::Publish` with the address, if it is taken or not allowed.
pub fn open_port(kind: PortKind, address: SocketAddr) -> Result<OwnedFd, NetError> {
    let open = || {
        let family = match address {
            SocketAddr::V4(_) => AddressFamily::INET,
            SocketAddr::V6(_) => AddressFamily::INET6,
        };
        let socket_type = match kind {
            PortKind::Tcp => SocketType::STREAM,
            PortKind::Udp => SocketType::DGRAM,
        };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = rustix::net::socket_with(family, socket_type, flags, None)?;
        if address.is_ipv6() {
            sockopt::set_ipv6_v6only(&socket, true)?;
        }
        if kind == PortKind::Tcp {
            // Connections of an earlier container in TIME_WAIT are no hindrance.
            sockopt::set_socket_reuseaddr(&socket, true)?;
        }
        rustix::net::bind(&socket, &address)?;
        if kind == PortKind::Tcp {
            rustix::net::listen(&socket, BACKLOG)?;
        }
        Ok(socket)
    };
    open().map_err(|source| NetError::Publish { address, source })
}

impl Ports {
    /// Leads a socket to a member's port.
    ///
    /// # Errors
    /// If the socket cannot be watched.
    pub fn add(
        &mut self,
        core: &Core,
        (kind, socket): (PortKind, OwnedFd),
        member: MemberId,
        target_port: u16,
    ) -> Result<Id, NetError> {
        rustix::io::ioctl_fionbio(&socket, true)?;
        let id = self.ports.insert(|_| Port {
            kind,
            socket,
            member,
            target_port,
        });
        let watched = match self.ports.get_mut(id) {
            Some(port) => core.watch(&port.socket, token(id), EventFlags::IN),
            None => Ok(()),
        };
        if watched.is_err() {
            self.ports.remove(id);
        }
        watched.map(|()| id)
    }

    /// Closes a port.
    pub fn remove(&mut self, id: Id) -> bool {
        self.ports.remove(id).is_some()
    }

    /// The ports of a member.
    #[must_use]
    pub fn of_member(&self, member: MemberId) -> Vec<Id> {
        let own = |(id, port): (Id, &Port)| (port.member == member).then_some(id);
        self.ports.iter().filter_map(own).collect()
    }

    /// A port's kind.
    pub fn kind(&mut self, id: Id) -> Option<PortKind> {
        self.ports.get_mut(id).map(|port| port.kind)
    }

    /// Where a port leads.
    #[must_use]
    pub fn target(&self, id: Id) -> Option<(MemberId, u16)> {
        let port = self.ports.get(id)?;
        Some((port.member, port.target_port))
    }

    /// Accepts a connection. Where there is no descriptor for one, the port rests until `wake`.
    pub fn accept(&mut self, core: &Core, id: Id) -> Option<(OwnedFd, SocketAddr)> {
        let port = self.ports.get_mut(id)?;
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        match rustix::net::acceptfrom_with(&port.socket, flags) {
            Ok((socket, peer)) => Some((socket, address(peer)?)),
            Err(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => {
                core.rewatch(&port.socket, token(id), EventFlags::empty());
                self.resting.push(id);
                None
            }
            Err(_) => None,
        }
    }

    /// Listens again to the ports that rest.
    pub fn wake(&mut self, core: &Core) {
        for id in std::mem::take(&mut self.resting) {
            if let Some(port) = self.ports.get_mut(id) {
                let data = EventData::new_u64(token(id).to_u64());
                let _ = epoll::modify(&core.epoll, &port.socket, data, EventFlags::IN);
            }
        }
    }

    /// Reads a port no more until its member may be sent more.
    pub fn leave_unread(&self, core: &mut Core, id: Id) {
        if let Some(port) = self.ports.get(id) {
            core.rewatch(&port.socket, token(id), EventFlags::empty());
            core.leave_unread(port.member, token(id));
        }
    }

    /// Reads it again.
    pub fn watch_again(&self, core: &Core, id: Id) {
        if let Some(port) = self.ports.get(id) {
            core.rewatch(&port.socket, token(id), EventFlags::IN);
        }
    }

    /// Receives a datagram of a port.
    pub fn receive(&mut self, id: Id, room: &mut [u8]) -> Option<(usize, SocketAddr)> {
        let port = self.ports.get_mut(id)?;
        let received = rustix::net::recvfrom(&port.socket, room, RecvFlags::DONTWAIT);
        let (_, length, peer) = received.ok()?;
        Some((length, address(peer)?))
    }

    /// Sends a datagram from a port.
    ///
    /// # Errors
    /// As `sendto(2)`.
    pub fn send_to(&mut self, id: Id, payload: &[u8], peer: SocketAddr) -> Result<usize, Errno> {
        let port = self.ports.get_mut(id).ok_or(Errno::BADF)?;
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        rustix::net::sendto(&port.socket, payload, flags, &peer)
    }
}

fn address(peer: Option<SocketAddrAny>) -> Option<SocketAddr> {
    SocketAddr::try_from(peer?).ok()
}

/// How a member sees a peer of a published port: by the peer's address if the member can answer
/// to it, otherwise as the gateway. Returns the member's own address of the same family too.
pub fn visible_peer(
    core: &mut Core,
    member: MemberId,
    peer: SocketAddr,
) -> Option<(IpAddr, SocketAddr)> {
    let address = peer.ip().to_canonical();
    let entry = core.members.get_mut(member)?;
    let (v4, v6) = (entry.ipv4.map(IpAddr::from), entry.ipv6.map(IpAddr::from));
    let (same, other) = if address.is_ipv4() {
        (v4, v6)
    } else {
        (v6, v4)
    };
    let link_local = matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
    let is_other_host = !(address.is_loopback()
        || address.is_unspecified()
        || link_local
        || core.config.is_on_link(address));
    if let Some(own) = same.filter(|_| is_other_host) {
        return Some((own, SocketAddr::new(address, peer.port())));
    }
    let own = same.or(other)?;
    Some((own, SocketAddr::new(core.config.gateway(own)?, peer.port())))
}
