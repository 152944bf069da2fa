//! UDP flows: one connected host socket for each pair of addresses, or the socket of a published
//! port with a peer's address.

use crate::core::{Core, MemberId, PAYLOAD_AT, Transport};
use crate::datagram;
use crate::frame::ip::IpPacket;
use crate::frame::{be16, build, protocol};
use crate::icmp::error::{Unreachable, original, relay, unreachable};
use crate::policy::Protocol;
use crate::publish::{Ports, visible_peer};
use crate::route::Route;
use crate::sys;
use crate::table::{Id, Table};
use crate::timers::{Deadline, SECOND_NS};
use crate::token::{Kind, Token};
use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::sockopt::{self, Ipv4PathMtuDiscovery};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};

/// How long a flow may be idle: as Linux's connection tracking has it.
const IDLE_NS: u64 = 30 * SECOND_NS;
/// The same for a flow that has gone both ways for `STREAM_AGE_NS`.
const STREAM_IDLE_NS: u64 = 120 * SECOND_NS;
const STREAM_AGE_NS: u64 = 2 * SECOND_NS;
/// The same for a name server's flow that was answered.
const ANSWERED_IDLE_NS: u64 = 2 * SECOND_NS;
const DNS_PORT: u16 = 53;
/// Most datagrams of one socket in one turn of the loop.
const MAX_DATAGRAMS: usize = 32;
/// How many other ports are tried for a peer whose port another peer has.
const MAX_PORT_TRIES: u16 = 64;
const HEADER_BYTES: usize = 8;
const FLOWS: usize = 1;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    member: MemberId,
    guest: SocketAddr,
    /// The other end as the member sees it.
    remote: SocketAddr,
}

#[derive(Debug)]
enum Socket {
    /// Connected to the other end.
    Own(OwnedFd),
    /// A published port's, with the peer's address.
    Port(Id, SocketAddr),
}

#[derive(Debug)]
struct Flow {
    key: Key,
    socket: Socket,
    began_ns: u64,
    answered: bool,
    dont_fragment: bool,
    last_bytes: usize,
    deadline: Deadline,
}

/// A datagram to the name server: its ends, and what it carries.
pub type ToNameServer<'a> = ((SocketAddr, SocketAddr), &'a [u8]);

/// All UDP flows.
#[derive(Debug, Default)]
pub struct Udp {
    flows: Table<Flow>,
    index: HashMap<Key, Id>,
    by_peer: HashMap<(Id, SocketAddr), Id>,
}

fn token(id: Id) -> Token {
    Token {
        kind: Kind::Udp,
        id,
    }
}

impl Flow {
    fn touch(&mut self, core: &mut Core, id: Id) {
        let idle = if self.answered && self.key.remote.port() == DNS_PORT {
            ANSWERED_IDLE_NS
        } else if self.answered && core.now_ns - self.began_ns > STREAM_AGE_NS {
            STREAM_IDLE_NS
        } else {
            IDLE_NS
        };
        core.timers
            .set(&mut self.deadline, token(id), core.now_ns + idle);
    }

    /// Passes on what came to the socket's error queue.
    fn relay_errors(&self, core: &mut Core) {
        let Socket::Own(socket) = &self.socket else {
            return;
        };
        for _ in 0..MAX_DATAGRAMS {
            let Some(error) = sys::next_error(socket) else {
                return;
            };
            let length = (self.last_bytes + HEADER_BYTES) as u32;
            let (from, to) = (self.key.guest, self.key.remote);
            let packet = original(from, to, protocol::UDP, self.last_bytes, length << 16);
            relay(core, self.key.member, &error, &packet);
        }
    }
}

impl Udp {
    /// Takes a datagram of a member's, whose checksum was verified. One to the network's own name
    /// server is given back.
    pub fn on_datagram<'a>(
        &mut self,
        core: &mut Core,
        ports: &mut Ports,
        member: MemberId,
        packet: &IpPacket<'a>,
    ) -> Option<ToNameServer<'a>> {
        let bytes = packet.payload;
        let (Some(source), Some(destination), Some(length)) =
            (be16(bytes, 0), be16(bytes, 2), be16(bytes, 4))
        else {
            core.count(member, |counters| counters.malformed += 1);
            return None;
        };
        let Some(payload) = bytes.get(HEADER_BYTES..usize::from(length)) else {
            core.count(member, |counters| counters.malformed += 1);
            return None;
        };
        let key = Key {
            member,
            guest: SocketAddr::new(packet.source, source),
            remote: SocketAddr::new(packet.destination, destination),
        };
        let id = match self.index.get(&key) {
            Some(&id) => Some(id),
            None => match core.route(key.member, Protocol::Udp, key.remote) {
                Route::NameServer => return Some(((key.guest, key.remote), payload)),
                route => self.begin(core, key, packet, route),
            },
        };
        self.send(core, ports, id?, packet, payload);
        None
    }

    fn begin(
        &mut self,
        core: &mut Core,
        key: Key,
        packet: &IpPacket<'_>,
        route: Route,
    ) -> Option<Id> {
        let target = match route {
            Route::Host(target) => target,
            other => {
                let why = match other {
                    Route::Gateway => Unreachable::Port,
                    Route::Refused(_) | Route::ByName(_) => Unreachable::Prohibited,
                    _ => Unreachable::Host,
                };
                unreachable(core, key.member, packet.whole, why);
                return None;
            }
        };
        if !self.has_room(core, key.member) {
            return None;
        }
        let socket = match connected(target) {
            Ok(socket) => socket,
            Err(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => {
                core.count(key.member, |counters| counters.limited += 1);
                return None;
            }
            Err(_) => {
                unreachable(core, key.member, packet.whole, Unreachable::Host);
                return None;
            }
        };
        let id = self.add(core, key, Socket::Own(socket));
        if let Some(Socket::Own(socket)) = self.flows.get_mut(id).map(|flow| &flow.socket)
            && core.watch(socket, token(id), EventFlags::IN).is_ok()
        {
            return Some(id);
        }
        self.end(core, id);
        None
    }

    fn has_room(&self, core: &mut Core, member: MemberId) -> bool {
        let limit = core.config.limits.udp_flows;
        core.has_room(member, FLOWS, limit)
    }

    fn add(&mut self, core: &mut Core, key: Key, socket: Socket) -> Id {
        let peer = match &socket {
            Socket::Port(port, peer) => Some((*port, *peer)),
            Socket::Own(_) => None,
        };
        let id = self.flows.insert(|_| Flow {
            key,
            socket,
            began_ns: core.now_ns,
            answered: false,
            dont_fragment: false,
            last_bytes: 0,
            deadline: Deadline::default(),
        });
        self.index.insert(key, id);
        if let Some(peer) = peer {
            self.by_peer.insert(peer, id);
        }
        core.counters.udp_flows += 1;
        if let Some(member) = core.members.get_mut(key.member) {
            member.flows[FLOWS] += 1;
        }
        id
    }

    fn send(
        &mut self,
        core: &mut Core,
        ports: &mut Ports,
        id: Id,
        packet: &IpPacket<'_>,
        payload: &[u8],
    ) {
        let Some(flow) = self.flows.get_mut(id) else {
            return;
        };
        flow.last_bytes = payload.len();
        let result = match &flow.socket {
            Socket::Own(socket) => {
                // A reassembled datagram (it has no bytes of its own to show) may be cut again.
                if flow.dont_fragment != packet.dont_fragment {
                    flow.dont_fragment = packet.dont_fragment;
                    set_dont_fragment(socket, flow.key.remote, packet.dont_fragment);
                }
                let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
                let sent = match rustix::net::send(socket, payload, flags) {
                    // The error of an earlier datagram, which is in the queue as well.
                    Err(Errno::CONNREFUSED | Errno::HOSTUNREACH | Errno::NETUNREACH) => {
                        flow.relay_errors(core);
                        rustix::net::send(socket, payload, flags)
                    }
                    other => other,
                };
                match sent {
                    // The loopback, to which the gateway leads, keeps its addresses.
                    Err(Errno::INVAL | Errno::NETUNREACH)
                        if !core.config.is_gateway(flow.key.remote.ip()) =>
                    {
                        datagram::send_from_elsewhere(socket, payload, flow.key.remote)
                    }
                    other => other,
                }
            }
            Socket::Port(port, peer) => {
                flow.answered = true;
                ports.send_to(*port, payload, *peer)
            }
        };
        flow.touch(core, id);
        match (result, &flow.socket) {
            (Err(Errno::MSGSIZE), Socket::Own(socket)) => {
                let mtu = match flow.key.remote {
                    SocketAddr::V4(_) => sockopt::ip_mtu(socket),
                    SocketAddr::V6(_) => sockopt::ipv6_mtu(socket),
                };
                // The queue has the same error, from the host's own stack.
                while sys::next_error(socket).is_some() {}
                if let Ok(mtu) = mtu {
                    let why = Unreachable::TooBig(mtu);
                    unreachable(core, flow.key.member, packet.whole, why);
                }
            }
            (Err(Errno::HOSTUNREACH | Errno::NETUNREACH), _) => {
                unreachable(core, flow.key.member, packet.whole, Unreachable::Host);
            }
            _ => {}
        }
    }

    /// Passes datagrams and errors of a flow's own socket on.
    pub fn on_event(&mut self, core: &mut Core, id: Id, events: EventFlags) {
        let Some(flow) = self.flows.get_mut(id) else {
            return;
        };
        if events.contains(EventFlags::ERR) {
            flow.relay_errors(core);
        }
        for _ in 0..MAX_DATAGRAMS {
            let Socket::Own(socket) = &flow.socket else {
                return;
            };
            if !core.may_send(flow.key.member) {
                core.rewatch(socket, token(id), EventFlags::empty());
                core.leave_unread(flow.key.member, token(id));
                return;
            }
            let Some(room) = core.frame.get_mut(PAYLOAD_AT..) else {
                return;
            };
            match rustix::net::recv(socket, room, RecvFlags::DONTWAIT) {
                Ok((_, length)) => {
                    flow.answered = true;
                    flow.touch(core, id);
                    deliver(core, flow.key, length);
                }
                Err(Errno::AGAIN) => return,
                Err(_) => flow.relay_errors(core),
            }
        }
    }

    /// Reads a flow's socket again, whose member may be sent more.
    pub fn watch_again(&self, core: &Core, id: Id) {
        if let Some(Socket::Own(socket)) = self.flows.get(id).map(|flow| &flow.socket) {
            core.rewatch(socket, token(id), EventFlags::IN);
        }
    }

    /// Passes datagrams that came to a published port on.
    pub fn on_port(&mut self, core: &mut Core, ports: &mut Ports, port: Id) {
        for _ in 0..MAX_DATAGRAMS {
            let member = ports.target(port).map(|(member, _)| member);
            if member.is_some_and(|member| !core.may_send(member)) {
                return ports.leave_unread(core, port);
            }
            let Some(room) = core.frame.get_mut(PAYLOAD_AT..) else {
                return;
            };
            let Some((length, peer)) = ports.receive(port, room) else {
                return;
            };
            let id = match self.by_peer.get(&(port, peer)) {
                Some(&id) => Some(id),
                None => self.begin_inbound(core, ports, port, peer),
            };
            let Some((id, flow)) = id.and_then(|id| Some((id, self.flows.get_mut(id)?))) else {
                continue;
            };
            flow.last_bytes = length;
            flow.touch(core, id);
            deliver(core, flow.key, length);
        }
    }

    fn begin_inbound(
        &mut self,
        core: &mut Core,
        ports: &Ports,
        port: Id,
        peer: SocketAddr,
    ) -> Option<Id> {
        let (member, target_port) = ports.target(port)?;
        let (guest, mut remote) = visible_peer(core, member, peer)?;
        let guest = SocketAddr::new(guest, target_port);
        if !self.has_room(core, member) {
            return None;
        }
        for _ in 0..MAX_PORT_TRIES {
            let key = Key {
                member,
                guest,
                remote,
            };
            if !self.index.contains_key(&key) {
                return Some(self.add(core, key, Socket::Port(port, peer)));
            }
            remote.set_port(remote.port().wrapping_add(1).max(1024));
        }
        core.count(member, |counters| counters.limited += 1);
        None
    }

    /// Ends a flow that was idle.
    pub fn on_timer(&mut self, core: &mut Core, id: Id) {
        let Some(flow) = self.flows.get_mut(id) else {
            return;
        };
        if core
            .timers
            .is_due(&mut flow.deadline, token(id), core.now_ns)
        {
            self.end(core, id);
        }
    }

    /// Ends all flows of a member.
    pub fn end_member(&mut self, core: &mut Core, member: MemberId) {
        self.end_those(core, |flow| flow.key.member == member);
    }

    /// Ends all flows of a published port.
    pub fn end_port(&mut self, core: &mut Core, port: Id) {
        self.end_those(
            core,
            |flow| matches!(flow.socket, Socket::Port(own, _) if own == port),
        );
    }

    fn end_those(&mut self, core: &mut Core, which: impl Fn(&Flow) -> bool) {
        let ids: Vec<Id> = self
            .flows
            .iter()
            .filter_map(|(id, flow)| which(flow).then_some(id))
            .collect();
        for id in ids {
            self.end(core, id);
        }
    }

    fn end(&mut self, core: &mut Core, id: Id) {
        let Some(flow) = self.flows.remove(id) else {
            return;
        };
        self.index.remove(&flow.key);
        if let Socket::Port(port, peer) = flow.socket {
            self.by_peer.remove(&(port, peer));
        }
        core.timers.forget(flow.deadline, token(id));
        core.counters.udp_flows -= 1;
        if let Some(member) = core.members.get_mut(flow.key.member) {
            member.flows[FLOWS] -= 1;
        }
    }
}

fn connected(target: SocketAddr) -> Result<OwnedFd, Errno> {
    let family = match target {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(family, SocketType::DGRAM, flags, None)?;
    sys::set_receive_errors(&socket, target.is_ipv4())?;
    rustix::net::connect(&socket, &target)?;
    Ok(socket)
}

fn set_dont_fragment(socket: impl AsFd, remote: SocketAddr, on: bool) {
    let discovery = if on {
        Ipv4PathMtuDiscovery::DO
    } else {
        Ipv4PathMtuDiscovery::WANT
    };
    // Neither fails for a socket of its family.
    let _ = match remote {
        SocketAddr::V4(_) => sockopt::set_ip_mtu_discover(socket, discovery),
        SocketAddr::V6(_) => sys::set_dont_fragment_v6(socket, on),
    };
}

/// Sends a payload that lies in the frame that is being built.
fn deliver(core: &mut Core, key: Key, length: usize) {
    let at = PAYLOAD_AT - HEADER_BYTES;
    if let Some(header) = core.frame.get_mut(at..PAYLOAD_AT) {
        build::put_udp(header, key.remote.port(), key.guest.port(), length);
    }
    let transport = Transport {
        protocol: protocol::UDP,
        at,
        length: length + HEADER_BYTES,
        csum_offset: 6,
        header_bytes: HEADER_BYTES,
        gso_bytes: 0,
    };
    datagram::send(
        core,
        key.member,
        (key.remote.ip(), key.guest.ip()),
        transport,
    );
}
