//! What all kinds of flows share: members, epoll, timers, counters, the frame that is being built.

use crate::config::{MAX_MEMBERS, MemberConfig, NetworkConfig, Offloads};
use crate::counters::{Cause, Counters, MemberCounters, Refused, Target};
use crate::error::NetError;
use crate::frame::ethernet::Mac;
use crate::frame::fragment::Reassembly;
use crate::frame::segment::without_offloads;
use crate::frame::{ETHERNET_BYTES, MAX_FRAME_BYTES, VNET_BYTES, build, checksum, protocol, vnet};
use crate::link::{Link, Sent};
use crate::notices::{Notice, Notices};
use crate::pace::Pace;
use crate::policy::{Pins, Policy};
use crate::table::{Id, Table};
use crate::telling::Telling;
use crate::timers::{Timers, now_ns};
use crate::token::{Kind, Token};
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

/// Where a transport's payload begins in the frame that is being built: behind the largest headers.
pub const PAYLOAD_AT: usize = 128;

/// Names a member.
pub type MemberId = Id;

/// A member as the network knows it.
#[derive(Debug)]
pub struct Member {
    /// Its MAC address.
    pub mac: Mac,
    /// Its addresses.
    pub ipv4: Option<Ipv4Addr>,
    /// Its addresses.
    pub ipv6: Option<Ipv6Addr>,
    /// Its names, in lower case.
    pub names: Vec<String>,
    /// Where it may connect to.
    pub policy: Policy,
    /// The addresses that it was told for names, where its policy is about names.
    pub pins: Pins,
    /// The gateway leads it to the host's loopback.
    pub host_gateway: bool,
    /// Whom its questions are passed on to, in place of the network's.
    pub upstreams: Option<Vec<SocketAddr>>,
    /// Its resolver knows other networks' name servers.
    pub has_other_networks: bool,
    /// What it takes.
    pub offloads: Offloads,
    /// Its link.
    pub link: Link,
    /// What it is sent and what it sends, as fast as its rates allow.
    pub pace: Pace,
    /// A frame waits for the link to take more.
    pub waits: bool,
    /// Its incomplete datagrams.
    pub reassembly: Reassembly,
    /// Its flows: TCP, UDP, echo, DNS, and of TCP those that are held at a gate.
    pub flows: [usize; 5],
    /// What was counted of it.
    pub counters: MemberCounters,
    /// Of what was refused, what others hear of.
    pub telling: Telling<Target>,
}

impl Member {
    /// Whether an address is the member's own.
    #[must_use]
    pub fn owns(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => self.ipv4 == Some(address),
            IpAddr::V6(address) => self.ipv6 == Some(address),
        }
    }
}

/// The shared state.
#[derive(Debug)]
pub struct Core {
    /// What the network was told.
    pub config: NetworkConfig,
    /// Everything that is waited for.
    pub epoll: OwnedFd,
    /// Who is on the network.
    pub members: Table<Member>,
    /// Members by address.
    pub by_address: HashMap<IpAddr, MemberId>,
    /// Members by name: several may have one name.
    pub by_name: HashMap<String, Vec<MemberId>>,
    /// Members by MAC address.
    pub by_mac: HashMap<Mac, MemberId>,
    /// Deadlines.
    pub timers: Timers,
    /// Counts that are no member's, and those of members that have gone.
    pub counters: Counters,
    /// What others should hear.
    pub notices: Arc<Notices>,
    /// The monotonic clock at the beginning of this turn of the loop, in nanoseconds.
    pub now_ns: u64,
    /// The identification of the fragments that were made last.
    pub fragment_id: u32,
    /// Where bytes go that were peeked at before, on kernels that cannot skip them.
    pub skipped: Vec<u8>,
    /// What TCP flows keep that their sockets were not given, in bytes.
    pub ahead_bytes: usize,
    /// The frame that is being built; a payload begins at `PAYLOAD_AT`.
    pub frame: Box<[u8]>,
}

impl Core {
    /// # Errors
    /// If the kernel gives no epoll or no timer.
    pub fn new(config: NetworkConfig) -> Result<Self, NetError> {
        let core = Self {
            epoll: epoll::create(CreateFlags::CLOEXEC)?,
            members: Table::default(),
            by_address: HashMap::new(),
            by_name: HashMap::new(),
            by_mac: HashMap::new(),
            timers: Timers::new()?,
            counters: Counters::default(),
            notices: Arc::new(Notices::new()?),
            now_ns: now_ns(),
            fragment_id: 0,
            skipped: Vec::new(),
            ahead_bytes: 0,
            frame: vec![0; PAYLOAD_AT + MAX_FRAME_BYTES].into_boxed_slice(),
            config,
        };
        core.watch(core.timers.fd(), Token::only(Kind::Timer), EventFlags::IN)?;
        Ok(core)
    }

    /// Waits for a descriptor's events.
    ///
    /// # Errors
    /// As `epoll_ctl(2)`.
    pub fn watch(&self, fd: impl AsFd, token: Token, events: EventFlags) -> Result<(), NetError> {
        let data = EventData::new_u64(token.to_u64());
        Ok(epoll::add(&self.epoll, fd, data, events)?)
    }

    /// Waits for other events of a descriptor, and learns of those that are there already.
    pub fn rewatch(&self, fd: impl AsFd, token: Token, events: EventFlags) {
        // Fails only for want of memory of a descriptor that is watched.
        let _ = epoll::modify(&self.epoll, fd, EventData::new_u64(token.to_u64()), events);
    }

    /// Adds a member.
    ///
    /// # Errors
    /// If an address is taken or out of range, or the link's descriptor cannot be watched.
    pub fn add_member(&mut self, config: MemberConfig) -> Result<MemberId, NetError> {
        if self.members.len() >= MAX_MEMBERS {
            return Err(NetError::TooManyMembers);
        }
        let addresses: Vec<IpAddr> = config
            .ipv4
            .map(IpAddr::from)
            .into_iter()
            .chain(config.ipv6.map(IpAddr::from))
            .collect();
        let is_wrong = |address: &IpAddr| {
            !self.config.is_on_link(*address)
                || self.config.is_gateway(*address)
                || self.by_address.contains_key(address)
        };
        let mac_is_wrong = config.mac.is_multicast()
            || config.mac == self.config.gateway_mac
            || self.by_mac.contains_key(&config.mac);
        if mac_is_wrong || addresses.iter().any(is_wrong) {
            return Err(NetError::Address);
        }
        let link = Link::new(config.link)?;
        let id = self.members.insert(|_| Member {
            mac: config.mac,
            ipv4: config.ipv4,
            ipv6: config.ipv6,
            names: Vec::new(),
            policy: config.policy,
            pins: Pins::default(),
            host_gateway: config.host_gateway,
            upstreams: config.upstreams,
            has_other_networks: config.has_other_networks,
            offloads: config.offloads,
            link,
            pace: Pace::new(config.rates, self.now_ns),
            waits: false,
            reassembly: Reassembly::default(),
            flows: [0; 5],
            counters: MemberCounters::default(),
            telling: Telling::default(),
        });
        let watched = match self.members.get_mut(id) {
            Some(member) => epoll::add(
                &self.epoll,
                member.link.fd(),
                EventData::new_u64(link_token(id).to_u64()),
                EventFlags::IN,
            ),
            None => Ok(()),
        };
        if let Err(error) = watched {
            self.members.remove(id);
            return Err(error.into());
        }
        self.by_mac.insert(config.mac, id);
        self.set_names(id, config.names);
        self.by_address
            .extend(addresses.into_iter().map(|address| (address, id)));
        Ok(id)
    }

    /// Removes a member. Its flows have to be ended by the caller.
    pub fn remove_member(&mut self, id: MemberId) -> bool {
        self.set_names(id, Vec::new());
        let Some(member) = self.members.remove(id) else {
            return false;
        };
        self.counters.members.add(&member.counters);
        for (deadline, token) in member.pace.deadlines(id) {
            self.timers.forget(deadline, token);
        }
        self.by_mac.remove(&member.mac);
        self.by_address.retain(|_, owner| *owner != id);
        true
    }

    /// Counts something of a member that is there.
    pub fn count(&mut self, member: MemberId, count: impl FnOnce(&mut MemberCounters)) {
        if let Some(member) = self.members.get_mut(member) {
            count(&mut member.counters);
        }
    }

    /// Counts a refusal, and has others hear of it.
    pub fn refuse(&mut self, id: MemberId, target: Target, cause: Cause) {
        let now_ns = self.now_ns;
        let Some(member) = self.members.get_mut(id) else {
            return;
        };
        let refused = member.counters.refuse(target, cause);
        let Some(refused) = refused.filter(|refused| refused.is_for_others()) else {
            return;
        };
        if let Some(untold) = member.telling.tells(&refused.target, now_ns) {
            self.notices.give(Notice {
                member: id,
                refused: Refused::clone(refused),
                untold,
            });
        }
    }

    /// What was counted of all members, those that have gone as well.
    #[must_use]
    pub fn totals(&self) -> Counters {
        let mut totals = self.counters.clone();
        for (_, member) in self.members.iter() {
            totals.members.add(&member.counters);
        }
        totals
    }

    /// Whether a member may have one more flow of a kind, of which `limit` are allowed.
    pub fn has_room(&mut self, member: MemberId, kind: usize, limit: usize) -> bool {
        let Some(member) = self.members.get_mut(member) else {
            return false;
        };
        let has = member.flows.get(kind).is_some_and(|&count| count < limit);
        member.counters.limited += u64::from(!has);
        has
    }

    /// How many flows of a kind a member has.
    #[must_use]
    pub fn flows_of(&self, member: MemberId, kind: usize) -> usize {
        let member = self.members.get(member);
        let count = member.and_then(|member| member.flows.get(kind));
        count.copied().unwrap_or(0)
    }

    /// Whether a member's link took nothing the last time, and no event has told that it does again.
    #[must_use]
    pub fn is_link_full(&self, member: MemberId) -> bool {
        let member = self.members.get(member);
        member.is_some_and(|member| member.waits)
    }

    /// One more of a member's flows of a kind.
    pub fn take(&mut self, member: MemberId, kind: usize) {
        let member = self.members.get_mut(member);
        if let Some(count) = member.and_then(|member| member.flows.get_mut(kind)) {
            *count += 1;
        }
    }

    /// One less.
    pub fn release(&mut self, member: MemberId, kind: usize) {
        let member = self.members.get_mut(member);
        if let Some(count) = member.and_then(|member| member.flows.get_mut(kind)) {
            *count -= 1;
        }
    }

    /// Puts IP, Ethernet and virtio-net headers before a transport's bytes in the frame that is
    /// being built, completes its checksum as the member takes it, and sends it.
    ///
    /// The transport's header and payload are `transport_bytes` long from `transport_at`; its
    /// checksum field is zero and at `csum_offset`. `gso_bytes` is the payload of one segment, or 0.
    pub fn send_transport(
        &mut self,
        to: MemberId,
        (source, destination): (IpAddr, IpAddr),
        transport: Transport,
    ) -> Sent {
        let Transport {
            protocol,
            at,
            length,
            csum_offset,
            header_bytes,
            gso_bytes,
        } = transport;
        let Some(member) = self.members.get_mut(to) else {
            return Sent::Lost;
        };
        let ip_at = at - build::ip_header_bytes(source);
        let ethernet_at = ip_at - ETHERNET_BYTES;
        let begin = ethernet_at - VNET_BYTES;
        let Some(frame) = self.frame.get_mut(begin..at + length) else {
            return Sent::Lost;
        };
        let (headers, bytes) = frame.split_at_mut(at - begin);
        let (vnet_header, headers) = headers.split_at_mut(VNET_BYTES);
        let (ethernet, ip) = headers.split_at_mut(ETHERNET_BYTES);
        build::put_ip(ip, source, destination, protocol, length);
        let kind = build::ethertype(source);
        build::put_ethernet(ethernet, member.mac, self.config.gateway_mac, kind);
        let pseudo = match protocol {
            protocol::ICMP => 0,
            _ => checksum::pseudo_header(source, destination, protocol, length),
        };
        let mut header = vnet::VnetHeader::default();
        let check = if member.offloads.checksum && protocol == protocol::TCP {
            header = build::partial_checksum(at - ethernet_at, csum_offset);
            checksum::fold(pseudo)
        } else {
            !checksum::fold(pseudo + checksum::sum(bytes))
        };
        // A UDP checksum of zero would say that there is none (RFC 768).
        let check = if check == 0 && protocol == protocol::UDP {
            u16::MAX
        } else {
            check
        };
        if let Some(field) = bytes.get_mut(csum_offset..csum_offset + 2) {
            field.copy_from_slice(&check.to_be_bytes());
        }
        if gso_bytes != 0 {
            header.gso_type = if source.is_ipv4() {
                vnet::GSO_TCPV4
            } else {
                vnet::GSO_TCPV6
            };
            header.gso_bytes = gso_bytes;
            header.header_bytes = (at + header_bytes - ethernet_at) as u16;
        }
        vnet_header.copy_from_slice(&header.encode());
        let sent = member.link.send(frame);
        let length = frame.len();
        self.account(to, sent, length)
    }

    /// Sends the bytes that lie in the frame that is being built, from the virtio-net header on.
    pub fn send_built(&mut self, to: MemberId, length: usize) -> Sent {
        let Some(member) = self.members.get_mut(to) else {
            return Sent::Lost;
        };
        let sent = match self.frame.get(..length) {
            Some(frame) => member.link.send(frame),
            None => Sent::Lost,
        };
        self.account(to, sent, length)
    }

    /// Sends another member's frame on, without offloads if the receiver takes none.
    pub fn forward(&mut self, to: MemberId, frame: &[u8]) {
        let Some(member) = self.members.get_mut(to) else {
            return;
        };
        if !member.pace.tolerates(self.now_ns) {
            member.counters.rate_dropped += 1;
            return;
        }
        let (link, counters, pace) = (&mut member.link, &mut member.counters, &mut member.pace);
        let mut send = |part: &[u8]| match link.send(part) {
            Sent::Done => {
                counters.sent(part.len());
                pace.sent(part.len());
            }
            Sent::Blocked | Sent::Lost => counters.frames_lost += 1,
        };
        if member.offloads == Offloads::ALL {
            send(frame);
        } else if without_offloads(frame, send).is_none() {
            self.counters.members.malformed += 1;
        }
        if member.link.is_cut() {
            wait_writable(&self.epoll, to, member);
        }
    }

    fn account(&mut self, to: MemberId, sent: Sent, length: usize) -> Sent {
        let Some(member) = self.members.get_mut(to) else {
            return sent;
        };
        match sent {
            Sent::Done => {
                member.counters.sent(length);
                member.pace.sent(length);
            }
            Sent::Lost => member.counters.frames_lost += 1,
            Sent::Blocked => {}
        }
        if sent == Sent::Blocked || member.link.is_cut() {
            wait_writable(&self.epoll, to, member);
        }
        sent
    }
}

/// A transport's bytes in the frame that is being built.
#[derive(Debug, Clone, Copy)]
pub struct Transport {
    /// Which transport.
    pub protocol: u8,
    /// Where its header begins.
    pub at: usize,
    /// Length of header and payload, in bytes.
    pub length: usize,
    /// Where its checksum field is, from `at` on.
    pub csum_offset: usize,
    /// Length of its header, in bytes.
    pub header_bytes: usize,
    /// Payload of a segment, in bytes, if there are several.
    pub gso_bytes: u16,
}

/// Waits for a link to take frames again.
fn wait_writable(epoll: &OwnedFd, id: MemberId, member: &mut Member) {
    member.waits = true;
    watch_link(epoll, id, member);
}

/// Waits for what a link is to be waited for.
pub fn watch_link(epoll: &OwnedFd, id: MemberId, member: &Member) {
    let mut events = EventFlags::empty();
    events.set(EventFlags::IN, !member.pace.is_paused());
    events.set(EventFlags::OUT, member.waits);
    let data = EventData::new_u64(link_token(id).to_u64());
    // Fails for no descriptor that is watched.
    let _ = epoll::modify(epoll, member.link.fd(), data, events);
}

/// The name of a member's link.
#[must_use]
pub fn link_token(id: MemberId) -> Token {
    Token {
        kind: Kind::Link,
        id,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::LinkFd;
    use std::os::unix::net::UnixStream;

    fn core() -> Core {
        crate::testing::core(|_| {})
    }

    fn member(mac: u8, ipv4: [u8; 4]) -> MemberConfig {
        let (_, link) = UnixStream::pair().unwrap();
        MemberConfig {
            ipv4: Some(ipv4.into()),
            ..MemberConfig::new(Mac([2, 0, 0, 0, 0, mac]), LinkFd::Stream(link.into()))
        }
    }

    #[test]
    fn addresses_are_given_once_and_within_the_subnet() {
        let mut core = core();
        let first = core.add_member(member(2, [10, 9, 0, 2])).unwrap();
        for (mac, address) in [
            (3, [10, 9, 0, 2]),
            (2, [10, 9, 0, 3]),
            (1, [10, 9, 0, 3]),
            (3, [10, 9, 0, 1]),
            (3, [10, 9, 1, 3]),
        ] {
            let result = core.add_member(member(mac, address));
            assert!(
                matches!(result, Err(NetError::Address)),
                "{mac} {address:?}"
            );
        }
        assert!(core.remove_member(first));
        core.add_member(member(2, [10, 9, 0, 2])).unwrap();
    }
}
