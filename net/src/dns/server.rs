//! Queries of members, over UDP and TCP, and what becomes of them.
//!
//! A query that is passed on has a socket and a random number of its own. Upstreams are asked in
//! order; one that did not answer is asked last for a while, so that it costs one time-out.

use super::decide::{Decision, decide};
use super::message::{Code, Malformed, Query, is_final, is_response, refuse};
use super::upstream::{Answer, Upstream};
use crate::core::{Core, MemberId, PAYLOAD_AT, Transport};
use crate::datagram;
use crate::frame::{build, protocol};
use crate::table::{Id, Table};
use crate::timers::{Deadline, SECOND_NS};
use crate::token::{Kind, Token};
use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

/// How long an upstream has for its answer: two of them fit into a client's usual five seconds.
const ANSWER_NS: u64 = 1_500_000_000;
/// How long one that did not answer is asked last.
const REST_NS: u64 = 30 * SECOND_NS;
/// How long a member's connection may be idle.
const STREAM_IDLE_NS: u64 = 30 * SECOND_NS;
/// Most queries of one member that are being passed on, and connections of it.
const MAX_OF_MEMBER: usize = 128;
const UDP_HEADER_BYTES: usize = 8;
const FLOWS: usize = 3;
const READ_BYTES: usize = 2048;

#[derive(Debug, Clone, Copy)]
enum Client {
    Datagram {
        member: MemberId,
        guest: SocketAddr,
        server: SocketAddr,
    },
    Stream(MemberId, Id),
}

impl Client {
    fn member(self) -> MemberId {
        match self {
            Self::Datagram { member, .. } | Self::Stream(member, _) => member,
        }
    }
}

/// A query that was passed on.
#[derive(Debug)]
struct Pending {
    client: Client,
    /// As the client sent it.
    query: Vec<u8>,
    /// Upstreams that are still to be asked, the next one last.
    left: Vec<SocketAddr>,
    asked: SocketAddr,
    upstream: Upstream,
    deadline: Deadline,
}

/// A member's connection.
#[derive(Debug)]
struct Stream {
    member: MemberId,
    socket: OwnedFd,
    input: Vec<u8>,
    output: Vec<u8>,
    /// A query of it is being passed on; the next one is not read before.
    is_waiting: bool,
    has_ended: bool,
    deadline: Deadline,
}

/// The name server.
#[derive(Debug, Default)]
pub struct Dns {
    pending: Table<Pending>,
    streams: Table<Stream>,
    /// Connections that were answered and have to be served.
    ready: Vec<Id>,
    /// Upstreams that did not answer, and until when they are asked last.
    resting: Vec<(SocketAddr, u64)>,
}

fn token(kind: Kind, id: Id) -> Token {
    Token { kind, id }
}

impl Dns {
    /// A datagram of a member's to the gateway's port 53.
    pub fn on_datagram(
        &mut self,
        core: &mut Core,
        member: MemberId,
        (guest, server): (SocketAddr, SocketAddr),
        message: &[u8],
    ) {
        let client = Client::Datagram {
            member,
            guest,
            server,
        };
        self.on_query(core, client, message);
    }

    fn on_query(&mut self, core: &mut Core, client: Client, message: &[u8]) {
        let query = match Query::parse(message) {
            Ok(query) => query,
            Err(Malformed::Silent) => {
                core.count(client.member(), |counters| counters.malformed += 1);
                return self.close_client(core, client);
            }
            Err(Malformed::Answer(code)) => {
                core.count(client.member(), |counters| counters.malformed += 1);
                return self.reply(core, client, &refuse(message, code));
            }
        };
        match decide(core, client.member(), &query) {
            Decision::Answer(response) => self.reply(core, client, &response),
            Decision::PassOn => self.pass_on(core, client, &query),
        }
    }

    /// Upstreams of a member's, the first one last; those that rest are asked after all others.
    fn in_order(&mut self, core: &Core, member: MemberId) -> Vec<SocketAddr> {
        self.resting.retain(|&(_, until_ns)| until_ns > core.now_ns);
        let own = core.members.get(member);
        let own = own.and_then(|member| member.upstreams.as_deref());
        let all = core.config.dns.as_ref();
        let upstreams = own
            .or_else(|| all.map(|config| config.upstreams.as_slice()))
            .unwrap_or_default();
        let rests = |address: &SocketAddr| self.resting.iter().any(|(other, _)| other == address);
        let (mut order, awake): (Vec<_>, Vec<_>) =
            upstreams.iter().rev().partition(|one| rests(one));
        order.extend(awake);
        order
    }

    fn pass_on(&mut self, core: &mut Core, client: Client, query: &Query<'_>) {
        if !has_room(core, client.member()) {
            return self.reply(core, client, &query.respond(Code::ServerFailure));
        }
        let mut left = self.in_order(core, client.member());
        let is_stream = matches!(client, Client::Stream(..));
        while let Some(asked) = left.pop() {
            let Ok(upstream) = Upstream::ask(asked, query.bytes, is_stream) else {
                continue;
            };
            count(core, client.member());
            let id = self.pending.insert(|_| Pending {
                client,
                query: query.bytes.to_vec(),
                left,
                asked,
                upstream,
                deadline: Deadline::default(),
            });
            self.wait(core, id);
            return;
        }
        self.reply(core, client, &query.respond(Code::ServerFailure));
    }

    /// Waits for the answer of the upstream that was asked.
    fn wait(&mut self, core: &mut Core, id: Id) {
        let name = token(Kind::Query, id);
        let Some(pending) = self.pending.get_mut(id) else {
            return;
        };
        core.timers
            .set(&mut pending.deadline, name, core.now_ns + ANSWER_NS);
        if core
            .watch(pending.upstream.fd(), name, pending.upstream.events())
            .is_err()
        {
            self.next_upstream(core, id);
        }
    }

    /// An upstream's socket has something.
    pub fn on_event(&mut self, core: &mut Core, id: Id) {
        self.on_upstream(core, id);
        self.serve_ready(core);
    }

    fn serve_ready(&mut self, core: &mut Core) {
        while let Some(id) = self.ready.pop() {
            self.on_stream(core, id);
        }
    }

    fn on_upstream(&mut self, core: &mut Core, id: Id) {
        let Some(pending) = self.pending.get_mut(id) else {
            return;
        };
        loop {
            match pending.upstream.receive() {
                Answer::None => return,
                Answer::Broken => return self.next_upstream(core, id),
                Answer::Sent => {
                    core.rewatch(
                        pending.upstream.fd(),
                        token(Kind::Query, id),
                        pending.upstream.events(),
                    );
                    return;
                }
                Answer::Message(mut message) => {
                    let Ok(query) = Query::parse(&pending.query) else {
                        return;
                    };
                    if !is_response(&message, &query, pending.upstream.number()) {
                        // Not the answer; it may still come.
                        continue;
                    }
                    if !is_final(&message) && !pending.left.is_empty() {
                        return self.next_upstream(core, id);
                    }
                    if let (Some(to), Some(from)) = (message.get_mut(..2), query.bytes.get(..2)) {
                        to.copy_from_slice(from);
                    }
                    return self.end_query(core, id, &message);
                }
            }
        }
    }

    fn next_upstream(&mut self, core: &mut Core, id: Id) {
        let Some(pending) = self.pending.get_mut(id) else {
            return;
        };
        let is_stream = matches!(pending.client, Client::Stream(..));
        while let Some(asked) = pending.left.pop() {
            if let Ok(upstream) = Upstream::ask(asked, &pending.query, is_stream) {
                pending.asked = asked;
                pending.upstream = upstream;
                return self.wait(core, id);
            }
        }
        let response = match Query::parse(&pending.query) {
            Ok(query) => query.respond(Code::ServerFailure),
            Err(_) => refuse(&pending.query, Code::ServerFailure),
        };
        self.end_query(core, id, &response);
    }

    fn end_query(&mut self, core: &mut Core, id: Id, response: &[u8]) {
        let Some(pending) = self.pending.remove(id) else {
            return;
        };
        core.timers.forget(pending.deadline, token(Kind::Query, id));
        if let Some(member) = core.members.get_mut(pending.client.member()) {
            member.flows[FLOWS] -= 1;
        }
        self.reply(core, pending.client, response);
    }

    fn reply(&mut self, core: &mut Core, client: Client, response: &[u8]) {
        match client {
            Client::Datagram {
                member,
                guest,
                server,
            } => send_datagram(core, member, (server, guest), response),
            Client::Stream(_, id) => {
                if let Some(stream) = self.streams.get_mut(id) {
                    stream.output.extend((response.len() as u16).to_be_bytes());
                    stream.output.extend(response);
                    stream.is_waiting = false;
                    self.ready.push(id);
                }
            }
        }
    }

    fn close_client(&mut self, core: &mut Core, client: Client) {
        if let Client::Stream(_, id) = client {
            self.end_stream(core, id);
        }
    }

    /// A deadline may be over.
    pub fn on_timer(&mut self, core: &mut Core, name: Token) {
        if name.kind == Kind::Stream {
            let is_over = self
                .streams
                .get_mut(name.id)
                .is_some_and(|stream| core.timers.is_due(&mut stream.deadline, name, core.now_ns));
            if is_over {
                self.end_stream(core, name.id);
            }
            return;
        }
        let Some(pending) = self.pending.get_mut(name.id) else {
            return;
        };
        if core.timers.is_due(&mut pending.deadline, name, core.now_ns) {
            let asked = pending.asked;
            self.resting.retain(|&(address, _)| address != asked);
            self.resting.push((asked, core.now_ns + REST_NS));
            self.next_upstream(core, name.id);
            self.serve_ready(core);
        }
    }

    /// A member's connection to port 53; the socket is this end of it.
    pub fn on_connection(&mut self, core: &mut Core, member: MemberId, socket: OwnedFd) {
        if !has_room(core, member) {
            return;
        }
        count(core, member);
        let id = self.streams.insert(|_| Stream {
            member,
            socket,
            input: Vec::new(),
            output: Vec::new(),
            is_waiting: false,
            has_ended: false,
            deadline: Deadline::default(),
        });
        let watched = self.streams.get(id).is_some_and(|stream| {
            let events = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
            core.watch(&stream.socket, token(Kind::Stream, id), events)
                .is_ok()
        });
        if watched {
            self.on_stream(core, id);
        } else {
            self.end_stream(core, id);
        }
    }

    /// Reads queries, writes answers, ends what has ended.
    pub fn on_stream(&mut self, core: &mut Core, id: Id) {
        loop {
            let Some(stream) = self.streams.get_mut(id) else {
                return;
            };
            let name = token(Kind::Stream, id);
            core.timers
                .set(&mut stream.deadline, name, core.now_ns + STREAM_IDLE_NS);
            if stream.write().is_err() {
                return self.end_stream(core, id);
            }
            // Who does not read its answers is not read from.
            if stream.is_waiting || !stream.output.is_empty() {
                return;
            }
            match stream.next_message() {
                Ok(Some(message)) => {
                    stream.is_waiting = true;
                    let member = stream.member;
                    self.on_query(core, Client::Stream(member, id), &message);
                    // If it was answered at once, the loop serves the connection.
                    self.ready.retain(|&other| other != id);
                }
                Ok(None) if stream.has_ended => return self.end_stream(core, id),
                Ok(None) => {
                    if !stream.read() {
                        return;
                    }
                }
                Err(()) => return self.end_stream(core, id),
            }
        }
    }

    fn end_stream(&mut self, core: &mut Core, id: Id) {
        if let Some(stream) = self.streams.remove(id) {
            core.timers.forget(stream.deadline, token(Kind::Stream, id));
            if let Some(member) = core.members.get_mut(stream.member) {
                member.flows[FLOWS] -= 1;
            }
        }
    }

    /// Ends everything of a member.
    pub fn end_member(&mut self, core: &mut Core, member: MemberId) {
        let streams: Vec<Id> = self
            .streams
            .iter()
            .filter_map(|(id, stream)| (stream.member == member).then_some(id))
            .collect();
        for id in streams {
            self.end_stream(core, id);
        }
        let queries: Vec<Id> = self
            .pending
            .iter()
            .filter_map(|(id, query)| (query.client.member() == member).then_some(id))
            .collect();
        for id in queries {
            if let Some(query) = self.pending.remove(id) {
                core.timers.forget(query.deadline, token(Kind::Query, id));
            }
        }
    }
}

impl Stream {
    fn write(&mut self) -> Result<(), Errno> {
        while !self.output.is_empty() {
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            match rustix::net::send(&self.socket, &self.output, flags) {
                Ok(length) => drop(self.output.drain(..length)),
                Err(Errno::AGAIN) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads some; `false` if there is nothing at the moment.
    fn read(&mut self) -> bool {
        let mut bytes = [0; READ_BYTES];
        match rustix::net::recv(&self.socket, &mut bytes[..], RecvFlags::DONTWAIT) {
            Ok((_, length)) if length > 0 => {
                self.input.extend(bytes.iter().take(length));
                true
            }
            Err(Errno::AGAIN | Errno::INTR) => false,
            Ok(_) | Err(_) => {
                self.has_ended = true;
                true
            }
        }
    }

    fn next_message(&mut self) -> Result<Option<Vec<u8>>, ()> {
        let Some((length, rest)) = self.input.split_first_chunk::<2>() else {
            return Ok(None);
        };
        let length = usize::from(u16::from_be_bytes(*length));
        if length > super::message::MAX_QUERY_BYTES {
            return Err(());
        }
        if rest.len() < length {
            return Ok(None);
        }
        let message = self.input.drain(..2 + length).skip(2).collect();
        Ok(Some(message))
    }
}

fn send_datagram(
    core: &mut Core,
    member: MemberId,
    (from, to): (SocketAddr, SocketAddr),
    message: &[u8],
) {
    let at = PAYLOAD_AT - UDP_HEADER_BYTES;
    let length = message.len();
    let Some(bytes) = core.frame.get_mut(at..PAYLOAD_AT + length) else {
        return;
    };
    let (header, payload) = bytes.split_at_mut(UDP_HEADER_BYTES);
    build::put_udp(header, from.port(), to.port(), length);
    payload.copy_from_slice(message);
    let transport = Transport {
        protocol: protocol::UDP,
        at,
        length: length + UDP_HEADER_BYTES,
        csum_offset: 6,
        header_bytes: UDP_HEADER_BYTES,
        gso_bytes: 0,
    };
    datagram::send(core, member, (from.ip(), to.ip()), transport);
}

fn has_room(core: &mut Core, member: MemberId) -> bool {
    core.has_room(member, FLOWS, MAX_OF_MEMBER)
}

fn count(core: &mut Core, member: MemberId) {
    if let Some(member) = core.members.get_mut(member) {
        member.flows[FLOWS] += 1;
    }
}
