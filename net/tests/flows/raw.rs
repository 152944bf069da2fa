//! A member that the test plays itself, frame by frame.

use crate::bed::{GATEWAY_MAC, GATEWAY_V4, Plan};
use anyhow::{Context, Result, ensure};
use hullbox_net::frame::build::{self, TcpFields};
use hullbox_net::frame::ethernet::Ethernet;
use hullbox_net::frame::ip::IpPacket;
use hullbox_net::frame::tcp::TcpSegment;
use hullbox_net::frame::{checksum, protocol, vnet::VnetHeader};
use hullbox_net::{Control, LinkFd, Mac, MemberConfig, MemberId, Network, Offloads};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, socketpair, sockopt,
};
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::OwnedFd;
use std::thread::JoinHandle;
use std::time::Duration;

pub const MAC: Mac = Mac([2, 0x77, 0, 0, 0, 9]);
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 9);

/// A network in this process's own namespace, whose gateway leads to the host's loopback, and a
/// link to it. Needs no privilege.
pub struct Raw {
    pub control: Control,
    pub member: MemberId,
    link: Option<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

/// A segment that the network sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Got {
    pub sequence: u32,
    pub acknowledgement: u32,
    pub flags: u8,
    pub window: u16,
    pub payload: Vec<u8>,
}

impl Raw {
    pub fn new(offloads: Offloads) -> Result<Self> {
        let mut config = Plan::default().network;
        config.mtu = 1500;
        let (network, control) = Network::new(config)?;
        let thread = std::thread::spawn(move || network.run().unwrap());
        let kind = SocketType::SEQPACKET;
        let (ours, theirs) = socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)?;
        sockopt::set_socket_timeout(&ours, sockopt::Timeout::Recv, Some(Duration::from_secs(20)))?;
        let member = control.add_member(MemberConfig {
            ipv4: Some(ADDRESS),
            host_gateway: true,
            offloads,
            ..MemberConfig::new(MAC, LinkFd::Packets(theirs))
        })?;
        Ok(Self {
            control,
            member,
            link: Some(ours),
            thread: Some(thread),
        })
    }

    /// Sends a frame, virtio-net header included.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        let link = self.link.as_ref().context("no link")?;
        rustix::net::send(link, frame, SendFlags::NOSIGNAL)?;
        Ok(())
    }

    /// Sends an IP packet from the member's addresses.
    pub fn send_ip(&self, source: Ipv4Addr, to: Ipv4Addr, kind: u8, payload: &[u8]) -> Result<()> {
        self.send(&ip_frame(MAC, source, to, kind, payload))
    }

    pub fn send_tcp(&self, ports: (u16, u16), fields: Got) -> Result<()> {
        let segment = tcp_bytes(ports, &fields, &[]);
        self.send_ip(ADDRESS, GATEWAY_V4, protocol::TCP, &segment)
    }

    /// The next frame without its virtio-net header.
    pub fn receive(&self) -> Result<Vec<u8>> {
        let mut buffer = vec![0; 1 << 17];
        let link = self.link.as_ref().context("no link")?;
        let (_, length) = rustix::net::recv(link, &mut buffer[..], RecvFlags::empty())?;
        ensure!(length > 12, "the link is closed");
        Ok(buffer[12..length].to_vec())
    }

    /// The next frame if there is one by now.
    pub fn drain(&self) -> Result<()> {
        let link = self.link.as_ref().context("no link")?;
        let mut buffer = vec![0; 1 << 17];
        while rustix::net::recv(link, &mut buffer[..], RecvFlags::DONTWAIT).is_ok() {}
        Ok(())
    }

    /// The next TCP segment to a port of the member's.
    pub fn receive_tcp(&self, port: u16) -> Result<Got> {
        loop {
            let frame = self.receive()?;
            let (_, bytes) = Ethernet::parse(&frame).context("no frame")?;
            let Some(packet) = IpPacket::parse_v4(bytes).filter(|ip| ip.protocol == 6) else {
                continue;
            };
            let segment = TcpSegment::parse(packet.payload).context("no segment")?;
            if segment.destination_port == port {
                return Ok(Got {
                    sequence: segment.sequence,
                    acknowledgement: segment.acknowledgement,
                    flags: segment.flags,
                    window: segment.window,
                    payload: segment.payload.to_vec(),
                });
            }
        }
    }

    /// Closes the member's end.
    pub fn close(&mut self) {
        self.link = None;
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = self.control.stop();
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            if !std::thread::panicking() {
                ended.unwrap();
            }
        }
    }
}

/// A TCP segment with a valid checksum from the member to the gateway.
pub fn tcp_bytes((from, to): (u16, u16), got: &Got, options: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 20 + options.len()];
    let fields = TcpFields {
        source_port: from,
        destination_port: to,
        sequence: got.sequence,
        acknowledgement: got.acknowledgement,
        flags: got.flags,
        window: got.window,
    };
    build::put_tcp(&mut bytes, &fields, options);
    bytes.extend_from_slice(&got.payload);
    let check = checksum::transport(ADDRESS.into(), GATEWAY_V4.into(), protocol::TCP, &bytes);
    bytes[16..18].copy_from_slice(&check.to_be_bytes());
    bytes
}

/// A frame with an IPv4 packet.
pub fn ip_frame(mac: Mac, from: Ipv4Addr, to: Ipv4Addr, kind: u8, payload: &[u8]) -> Vec<u8> {
    let (from, to) = (IpAddr::from(from), IpAddr::from(to));
    let mut frame = VnetHeader::default().encode().to_vec();
    frame.extend([0; 34]);
    build::put_ethernet(&mut frame[12..26], GATEWAY_MAC, mac, 0x0800);
    build::put_ip(&mut frame[26..46], from, to, kind, payload.len());
    frame.extend_from_slice(payload);
    frame
}
