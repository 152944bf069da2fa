//! How flows begin: a member's SYN, and a connection to a published port.

use super::emit;
use super::flow::{Flow, Key, State};
use super::{Tcp, token};
use crate::core::{Core, MemberId};
use crate::frame::tcp::{ACK, RST, SYN, TcpSegment};
use crate::frame::{ip::IpPacket, protocol};
use crate::icmp::error::{Unreachable, original, unreachable};
use crate::policy::Protocol;
use crate::publish::visible_peer;
use crate::route::Route;
use crate::table::Id;
use crate::timers::SECOND_NS;
use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair, sockopt};
use std::hash::BuildHasher;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};

/// How long the first SYN or SYN-ACK waits for an answer; each later one waits twice as long.
pub const SYN_NS: u64 = SECOND_NS;
/// How many other ports are tried for a peer whose port another peer has.
const MAX_PORT_TRIES: u16 = 64;

impl Tcp {
    /// A segment of a flow that is not there. If it opens a connection to the name server, returns
    /// the other end of its socket.
    pub(super) fn on_stranger(
        &mut self,
        core: &mut Core,
        key: Key,
        packet: &IpPacket<'_>,
        segment: &TcpSegment<'_>,
    ) -> Option<OwnedFd> {
        if segment.flags & (SYN | ACK | RST) != SYN {
            emit::reset_stranger(core, &key, segment);
            return None;
        }
        match core.route(key.member, Protocol::Tcp, key.remote) {
            Route::Host(target) if Self::has_room(core, key.member) => match connect(target) {
                Ok(socket) => {
                    self.open(core, key, State::Connecting, socket, segment);
                }
                Err(error) => refuse(core, &key, packet.whole, segment, error),
            },
            Route::NameServer if Self::has_room(core, key.member) => {
                return self.open_name_server(core, key, segment);
            }
            Route::Host(_) | Route::NameServer => {}
            Route::ByName(speech) if Self::has_room(core, key.member) => {
                self.open_gate(core, key, segment, speech);
            }
            Route::ByName(_) => {}
            Route::Unreachable => {
                unreachable(core, key.member, packet.whole, Unreachable::Host);
            }
            Route::Gateway | Route::Refused(_) => emit::reset_stranger(core, &key, segment),
        }
        None
    }

    fn open(
        &mut self,
        core: &mut Core,
        key: Key,
        state: State,
        socket: OwnedFd,
        segment: &TcpSegment<'_>,
    ) -> Option<Id> {
        let mut flow = Flow::new(key, state, socket, self.initial(core, &key));
        flow.learn(segment, emit::longest_segment(core, &key));
        self.add(core, flow)
    }

    /// A flow to the name server is one like any other; its socket is one of a pair.
    fn open_name_server(
        &mut self,
        core: &mut Core,
        key: Key,
        segment: &TcpSegment<'_>,
    ) -> Option<OwnedFd> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let pair = socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None);
        let Ok((ours, theirs)) = pair else {
            core.count(key.member, |counters| counters.limited += 1);
            return None;
        };
        let id = self.open(core, key, State::SynReceived, ours, segment)?;
        if let Some(flow) = self.flows.get_mut(id) {
            flow.is_local = true;
        }
        self.send_syn(core, id);
        Some(theirs)
    }

    /// The first sequence number: it cannot be guessed, and for the same ends it grows with time
    /// (RFC 6528).
    pub(super) fn initial(&self, core: &Core, key: &Key) -> u32 {
        let clock = (core.now_ns / 4096) as u32;
        (self.secret.hash_one(key) as u32).wrapping_add(clock)
    }

    /// The host's socket is connected, or cannot be.
    pub(super) fn on_connected(&mut self, core: &mut Core, id: Id, events: EventFlags) {
        let Some(flow) = self.flows.get_mut(id) else {
            return;
        };
        let Some(socket) = &flow.socket else {
            return;
        };
        if !events.intersects(EventFlags::OUT | EventFlags::ERR | EventFlags::HUP) {
            return;
        }
        match sockopt::socket_error(socket) {
            Ok(Ok(())) if events.contains(EventFlags::OUT) => {
                flow.state = State::SynReceived;
                self.send_syn(core, id);
            }
            Ok(Ok(())) => {}
            Ok(Err(Errno::HOSTUNREACH | Errno::NETUNREACH)) => {
                let syn = flow.expected.wrapping_sub(1);
                let key = flow.key;
                let packet = original(key.guest, key.remote, protocol::TCP, 12, syn);
                unreachable(core, key.member, &packet, Unreachable::Host);
                self.remove(core, id);
            }
            // Nobody answered; nobody answers the member either.
            Ok(Err(Errno::TIMEDOUT)) => self.remove(core, id),
            Ok(Err(_)) | Err(_) => self.abort(core, id),
        }
    }

    /// Sends SYN or SYN-ACK and waits for the answer.
    pub(super) fn send_syn(&mut self, core: &mut Core, id: Id) {
        if let Some(flow) = self.flows.get_mut(id) {
            // A lost one is sent again like an unanswered one.
            let _ = emit::syn(core, flow);
            let wait = SYN_NS << flow.retries.min(6);
            core.timers
                .set(&mut flow.deadline, token(id), core.now_ns + wait);
        }
    }

    /// A published port's connection.
    pub fn on_accepted(
        &mut self,
        core: &mut Core,
        (socket, peer): (OwnedFd, SocketAddr),
        (member, port): (MemberId, u16),
    ) {
        let Some((own, mut remote)) = visible_peer(core, member, peer) else {
            return;
        };
        prepare(&socket);
        if !Self::has_room(core, member) {
            let _ = sockopt::set_socket_linger(&socket, Some(std::time::Duration::ZERO));
            return;
        }
        let guest = SocketAddr::new(own, port);
        for _ in 0..MAX_PORT_TRIES {
            let key = Key {
                member,
                guest,
                remote,
            };
            match self.index.get(&key) {
                Some(&id)
                    if self
                        .flows
                        .get(id)
                        .is_some_and(|old| old.state != State::TimeWait) =>
                {
                    remote.set_port(remote.port().wrapping_add(1).max(1024));
                    continue;
                }
                Some(&id) => self.remove(core, id),
                None => {}
            }
            let flow = Flow::new(key, State::SynSent, socket, self.initial(core, &key));
            if let Some(id) = self.add(core, flow) {
                self.send_syn(core, id);
            }
            return;
        }
        core.count(member, |counters| counters.limited += 1);
        let _ = sockopt::set_socket_linger(&socket, Some(std::time::Duration::ZERO));
    }
}

/// Options that every host socket has. They cannot fail for a TCP socket.
fn prepare(socket: impl AsFd) {
    // The member's stack has decided already what goes into one segment.
    let _ = sockopt::set_tcp_nodelay(&socket, true);
    let _ = sockopt::set_socket_keepalive(&socket, true);
}

pub(super) fn connect(target: SocketAddr) -> Result<OwnedFd, Errno> {
    let family = match target {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    prepare(&socket);
    match rustix::net::connect(&socket, &target) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(socket),
        Err(error) => Err(error),
    }
}

/// Tells a member why the host did not even begin to connect.
fn refuse(core: &mut Core, key: &Key, packet: &[u8], segment: &TcpSegment<'_>, error: Errno) {
    let why = match error {
        Errno::HOSTUNREACH | Errno::NETUNREACH | Errno::ADDRNOTAVAIL => Unreachable::Host,
        Errno::ACCESS | Errno::PERM => Unreachable::Prohibited,
        Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM => {
            // The member tries again.
            core.count(key.member, |counters| counters.limited += 1);
            return;
        }
        _ => return emit::reset_stranger(core, key, segment),
    };
    unreachable(core, key.member, packet, why);
}
