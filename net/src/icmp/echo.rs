//! Echo requests: each identifier of a member's has a ping socket of the host, if the host allows
//! one (`net.ipv4.ping_group_range`). A reply is passed on only if one came.

use super::error::{Unreachable, unreachable};
use crate::core::{Core, MemberId, PAYLOAD_AT, Transport};
use crate::counters::{Cause, Target};
use crate::datagram;
use crate::frame::ip::IpPacket;
use crate::frame::{be16, protocol};
use crate::policy::Protocol;
use crate::route::Route;
use crate::table::{Id, Table};
use crate::timers::{Deadline, SECOND_NS};
use crate::token::{Kind, Token};
use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, ipproto};
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

const IDLE_NS: u64 = 30 * SECOND_NS;
const FLOWS: usize = 2;
/// Most replies of one flow in one turn of the loop.
const MAX_REPLIES: usize = 16;

/// ICMP's types of an echo request and of its reply.
const ECHO_V4: (u8, u8) = (8, 0);
/// ICMPv6's types of an echo request and of its reply.
const ECHO_V6: (u8, u8) = (128, 129);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    member: MemberId,
    source: IpAddr,
    destination: IpAddr,
    id: u16,
}

#[derive(Debug)]
struct Flow {
    key: Key,
    socket: OwnedFd,
    deadline: Deadline,
}

/// All echo flows.
#[derive(Debug, Default)]
pub struct Echo {
    flows: Table<Flow>,
    index: HashMap<Key, Id>,
}

fn types(address: IpAddr) -> (u8, u8) {
    if address.is_ipv4() { ECHO_V4 } else { ECHO_V6 }
}

fn token(id: Id) -> Token {
    Token {
        kind: Kind::Echo,
        id,
    }
}

impl Echo {
    /// Takes an ICMP message of a member's, whose checksum was verified.
    pub fn on_message(&mut self, core: &mut Core, member: MemberId, packet: &IpPacket<'_>) {
        let (request, reply) = types(packet.destination);
        let (Some(id), true) = (be16(packet.payload, 4), packet.payload.len() >= 8) else {
            core.count(member, |counters| counters.malformed += 1);
            return;
        };
        if packet.payload.first() != Some(&request) || packet.payload.get(1) != Some(&0) {
            core.count(member, |counters| counters.ignored += 1);
            return;
        }
        if core.config.is_gateway(packet.destination) {
            // The gateway is this network itself, and it is there.
            let addresses = (packet.destination, packet.source);
            send_reply(core, member, addresses, (reply, id), packet.payload);
            return;
        }
        let target = SocketAddr::new(packet.destination, 0);
        match core.route(member, Protocol::Icmp, target) {
            Route::Host(_) => {}
            Route::Refused(_) | Route::ByName(_) => {
                return unreachable(core, member, packet.whole, Unreachable::Prohibited);
            }
            Route::Gateway | Route::NameServer | Route::Unreachable => {
                return unreachable(core, member, packet.whole, Unreachable::Host);
            }
        }
        let key = Key {
            member,
            source: packet.source,
            destination: packet.destination,
            id,
        };
        let flow = match self.index.get(&key) {
            Some(&flow) => Some(flow),
            None => self.begin(core, key, packet),
        };
        let Some((flow, entry)) = flow.and_then(|id| Some((id, self.flows.get_mut(id)?))) else {
            return;
        };
        core.timers
            .set(&mut entry.deadline, token(flow), core.now_ns + IDLE_NS);
        // The kernel writes identifier and checksum. What it cannot send is lost like on any path.
        let sent = rustix::net::send(&entry.socket, packet.payload, SendFlags::DONTWAIT);
        if let Err(Errno::INVAL | Errno::NETUNREACH) = sent {
            let target = SocketAddr::new(key.destination, 0);
            let _ = datagram::send_from_elsewhere(&entry.socket, packet.payload, target);
        }
    }

    fn begin(&mut self, core: &mut Core, key: Key, packet: &IpPacket<'_>) -> Option<Id> {
        let limit = core.config.limits.echo_flows;
        let member = core.members.get_mut(key.member)?;
        if member.flows[FLOWS] >= limit {
            member.counters.limited += 1;
            return None;
        }
        let (family, protocol) = match key.destination {
            IpAddr::V4(_) => (AddressFamily::INET, ipproto::ICMP),
            IpAddr::V6(_) => (AddressFamily::INET6, ipproto::ICMPV6),
        };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let kind = SocketType::DGRAM;
        let socket = rustix::net::socket_with(family, kind, flags, Some(protocol));
        let connected = socket.and_then(|socket| {
            rustix::net::connect(&socket, &SocketAddr::new(key.destination, 0))?;
            Ok(socket)
        });
        let socket = match connected {
            Ok(socket) => socket,
            Err(error) => {
                let why = match error {
                    Errno::ACCESS | Errno::PERM => Unreachable::Prohibited,
                    _ => Unreachable::Host,
                };
                let target = SocketAddr::new(key.destination, 0);
                core.refuse(
                    key.member,
                    Target::Flow(Protocol::Icmp, target),
                    Cause::Host,
                );
                unreachable(core, key.member, packet.whole, why);
                return None;
            }
        };
        core.members.get_mut(key.member)?.flows[FLOWS] += 1;
        let id = self.flows.insert(|_| Flow {
            key,
            socket,
            deadline: Deadline::default(),
        });
        self.index.insert(key, id);
        core.counters.echo_flows += 1;
        let socket = &self.flows.get_mut(id)?.socket;
        if core.watch(socket, token(id), EventFlags::IN).is_err() {
            self.end(core, id);
            return None;
        }
        Some(id)
    }

    /// Passes replies on.
    pub fn on_event(&mut self, core: &mut Core, id: Id) {
        for _ in 0..MAX_REPLIES {
            let Some(flow) = self.flows.get_mut(id) else {
                return;
            };
            let Some(room) = core.frame.get_mut(PAYLOAD_AT..) else {
                return;
            };
            match rustix::net::recv(&flow.socket, room, RecvFlags::DONTWAIT) {
                Ok((_, length)) if length >= 8 => {
                    let key = flow.key;
                    let reply = types(key.destination).1;
                    let addresses = (key.destination, key.source);
                    finish_reply(core, key.member, addresses, (reply, key.id), length);
                }
                Ok(_) => {}
                Err(rustix::io::Errno::AGAIN) => return,
                // An error that an ICMP message brought; it is taken by this very call.
                Err(_) => {}
            }
        }
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
        let own = |(id, flow): (Id, &Flow)| (flow.key.member == member).then_some(id);
        let ids: Vec<Id> = self.flows.iter().filter_map(own).collect();
        for id in ids {
            self.end(core, id);
        }
    }

    fn end(&mut self, core: &mut Core, id: Id) {
        let Some(flow) = self.flows.remove(id) else {
            return;
        };
        self.index.remove(&flow.key);
        core.timers.forget(flow.deadline, token(id));
        core.counters.echo_flows -= 1;
        if let Some(member) = core.members.get_mut(flow.key.member) {
            member.flows[FLOWS] -= 1;
        }
    }
}

fn send_reply(
    core: &mut Core,
    to: MemberId,
    addresses: (IpAddr, IpAddr),
    kind_and_id: (u8, u16),
    request: &[u8],
) {
    let Some(room) = core.frame.get_mut(PAYLOAD_AT..PAYLOAD_AT + request.len()) else {
        return;
    };
    room.copy_from_slice(request);
    finish_reply(core, to, addresses, kind_and_id, request.len());
}

/// Sends the message in the frame that is being built as a reply.
fn finish_reply(
    core: &mut Core,
    to: MemberId,
    addresses: (IpAddr, IpAddr),
    (kind, id): (u8, u16),
    length: usize,
) {
    let Some(header) = core.frame.get_mut(PAYLOAD_AT..PAYLOAD_AT + 8) else {
        return;
    };
    header[0] = kind;
    header[2..4].fill(0);
    header[4..6].copy_from_slice(&id.to_be_bytes());
    let protocol = if addresses.0.is_ipv4() {
        protocol::ICMP
    } else {
        protocol::ICMPV6
    };
    let transport = Transport {
        protocol,
        at: PAYLOAD_AT,
        length,
        csum_offset: 2,
        header_bytes: 8,
        gso_bytes: 0,
    };
    datagram::send(core, to, addresses, transport);
}
