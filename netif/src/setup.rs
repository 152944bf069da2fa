//! What is asked of the kernel, in which order.

use crate::error::{NetifError, Step};
use crate::message::{
    Batch, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, RTM_DELADDR, RTM_DELLINK,
    RTM_GETADDR, RTM_GETLINK, RTM_NEWADDR, RTM_NEWLINK, RTM_NEWNEIGH, RTM_NEWROUTE, RTM_SETLINK,
    Received, attributes, nested, u32_at,
};
use crate::socket::Socket;
use hullbox_protocol::{Addresses, INTERFACE_NAME, Interface};
use rustix::io::Errno;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

const AF_UNSPEC: u8 = 0;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

// `linux/if.h`
const IFF_UP: u32 = 0x1;
const IFF_NOARP: u32 = 0x80;

// `linux/if_link.h`
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_LINKINFO: u16 = 18;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_AF_SPEC: u16 = 26;
const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
const IN6_ADDR_GEN_MODE_NONE: u8 = 1;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_MACVLAN_MODE: u16 = 1;
/// Interfaces beside each other do not reach each other.
const MACVLAN_MODE_PRIVATE: u32 = 1;

// `linux/if_addr.h`
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const IFA_F_NODAD: u8 = 0x02;

// `linux/rtnetlink.h`
const RT_TABLE_MAIN: u8 = 254;
const RTPROT_BOOT: u8 = 3;
const RT_SCOPE_UNIVERSE: u8 = 0;
const RTN_UNICAST: u8 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
/// The metric that the kernel gives a route of IPv6 that has none.
const IPV6_METRIC: u32 = 1024;

// `linux/neighbour.h`
const NUD_PERMANENT: u16 = 0x80;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;

/// The loopback interface is the first of every network namespace.
const LOOPBACK: u32 = 1;
/// Length of a `struct ifinfomsg`, and of a `struct ifaddrmsg`.
const LINK_BYTES: usize = 16;
const ADDRESS_BYTES: usize = 8;

/// How long the kernel may take to announce an IPv6 address. After that the interface comes up all
/// the same, and perhaps sends a membership report.
const PATIENCE: Duration = Duration::from_millis(200);

/// Brings up the loopback interface of the calling thread's network namespace; the kernel gives it its
/// addresses.
///
/// # Errors
/// [`NetifError::Step`] without CAP_NET_ADMIN in the namespace.
pub fn loopback_up() -> Result<(), NetifError> {
    let mut socket = Socket::open(false)?;
    let mut batch = socket.batch();
    set_flags(&mut batch, Step::Loopback, LOOPBACK, IFF_UP, IFF_UP);
    socket.exchange(batch, fail, ignore)
}

/// Configures an interface, which is down and has no addresses, and brings it up; the loopback
/// interface, too. Where the kernel has no IPv6, or is told to use none, that is left out.
///
/// # Errors
/// [`NetifError`].
pub fn configure(name: &str, interface: &Interface) -> Result<(), NetifError> {
    let mut socket = Socket::open(interface.ipv6.is_some())?;
    let mut batch = socket.batch();
    set_flags(&mut batch, Step::Loopback, LOOPBACK, IFF_UP, IFF_UP);
    let link = find(&mut socket, name, batch)?;
    bring_up(&mut socket, &link, interface)
}

/// Configures an interface anew, whatever it was like before: routes, neighbours and addresses that it
/// had are gone. Without a configuration it is left down.
///
/// # Errors
/// [`NetifError`].
pub fn reconfigure(name: &str, interface: Option<&Interface>) -> Result<(), NetifError> {
    let ipv6 = interface.is_some_and(|interface| interface.ipv6.is_some());
    let mut socket = Socket::open(ipv6)?;
    let batch = socket.batch();
    let link = find(&mut socket, name, batch)?;
    clear(&mut socket, link.index)?;
    match interface {
        Some(interface) => bring_up(&mut socket, &link, interface),
        None => Ok(()),
    }
}

/// Moves `eth0` to another network namespace, where it is down.
///
/// # Errors
/// [`NetifError`].
pub fn hand_over(namespace: BorrowedFd<'_>) -> Result<(), NetifError> {
    let mut socket = Socket::open(false)?;
    let batch = socket.batch();
    let link = find(&mut socket, INTERFACE_NAME, batch)?;
    let mut batch = socket.batch();
    let fixed = link_header(link.index, 0, 0);
    batch
        .message(Step::HandOver, RTM_SETLINK, 0, &fixed)
        .attribute(IFLA_NET_NS_FD, &namespace.as_raw_fd().to_ne_bytes());
    socket.exchange(batch, fail, ignore)
}

/// Makes an interface with an address of its own that shares `eth0`'s link (macvlan), and configures it.
/// `eth0` has to be up. Its MTU is at most `eth0`'s: the kernel refuses more.
///
/// # Errors
/// [`NetifError`]; then there is none.
pub fn add_beside_first(name: &str, interface: &Interface) -> Result<(), NetifError> {
    let mut socket = Socket::open(interface.ipv6.is_some())?;
    let batch = socket.batch();
    let card = find(&mut socket, INTERFACE_NAME, batch)?;
    let mut batch = socket.batch();
    let mode = nested(IFLA_MACVLAN_MODE, &MACVLAN_MODE_PRIVATE.to_ne_bytes());
    let info = [
        nested(IFLA_INFO_KIND, b"macvlan\0"),
        nested(IFLA_INFO_DATA, &mode),
    ]
    .concat();
    let flags = NLM_F_CREATE | NLM_F_EXCL;
    batch
        .message(Step::Add, RTM_NEWLINK, flags, &[0; LINK_BYTES])
        .attribute(IFLA_IFNAME, &[name.as_bytes(), b"\0"].concat())
        .attribute(IFLA_ADDRESS, &interface.mac)
        .attribute(IFLA_LINK, &card.index.to_ne_bytes())
        .attribute(IFLA_LINKINFO, &info);
    socket.exchange(batch, fail, ignore)?;
    let batch = socket.batch();
    let link = find(&mut socket, name, batch)?;
    let interface = Interface {
        mtu: u16::try_from(card.mtu).map_or(interface.mtu, |most| interface.mtu.min(most)),
        ..interface.clone()
    };
    let configured = bring_up(&mut socket, &link, &interface);
    if configured.is_err() {
        // The first error is the one to tell.
        let _ = delete(&mut socket, link.index);
    }
    configured
}

/// Removes an interface.
///
/// # Errors
/// [`NetifError`].
pub fn remove(name: &str) -> Result<(), NetifError> {
    let mut socket = Socket::open(false)?;
    let batch = socket.batch();
    let link = find(&mut socket, name, batch)?;
    delete(&mut socket, link.index)
}

fn delete(socket: &mut Socket, index: u32) -> Result<(), NetifError> {
    let mut batch = socket.batch();
    batch.message(Step::Remove, RTM_DELLINK, 0, &link_header(index, 0, 0));
    socket.exchange(batch, fail, ignore)
}

/// The interface, as the kernel describes it.
#[derive(Debug, Default)]
struct Link {
    index: u32,
    mac: [u8; 6],
    mtu: u32,
}

/// Sends what is in the batch, and looks for an interface.
fn find(socket: &mut Socket, name: &str, mut batch: Batch) -> Result<Link, NetifError> {
    batch
        .message(Step::Find, RTM_GETLINK, 0, &[0; LINK_BYTES])
        .attribute(IFLA_IFNAME, &[name.as_bytes(), b"\0"].concat());
    let mut found = None;
    let refused = |step, errno| match (step, errno) {
        (Step::Find, Errno::NODEV) => Err(NetifError::Missing(name.to_owned())),
        _ => fail(step, errno),
    };
    socket.exchange(batch, refused, |message| {
        if message.kind == RTM_NEWLINK {
            found = link_of(&message);
        }
    })?;
    found.ok_or(NetifError::Answer)
}

fn link_of(message: &Received<'_>) -> Option<Link> {
    let mut link = Link {
        index: u32_at(message.body, 4)?,
        ..Link::default()
    };
    for (kind, value) in attributes(message.body, LINK_BYTES) {
        match kind {
            IFLA_ADDRESS => link.mac = value.try_into().ok()?,
            IFLA_MTU => link.mtu = u32_at(value, 0)?,
            _ => {}
        }
    }
    Some(link)
}

/// Takes the interface down and removes what addresses it keeps.
fn clear(socket: &mut Socket, index: u32) -> Result<(), NetifError> {
    let mut batch = socket.batch();
    set_flags(&mut batch, Step::Disable, index, 0, IFF_UP);
    socket.exchange(batch, fail, ignore)?;

    let mut list = socket.batch();
    let every = [AF_UNSPEC, 0, 0, 0, 0, 0, 0, 0];
    list.message(Step::ListAddresses, RTM_GETADDR, NLM_F_DUMP, &every);
    let mut removal = socket.batch_after(&list);
    let mut any = false;
    socket.exchange(list, fail, |message| {
        let mine = u32_at(message.body, 4) == Some(index);
        let Some(fixed) = message.body.get(..ADDRESS_BYTES).filter(|_| mine) else {
            return;
        };
        if message.kind == RTM_NEWADDR {
            any = true;
            removal.message(Step::RemoveAddress, RTM_DELADDR, 0, fixed);
            for (kind, value) in attributes(message.body, ADDRESS_BYTES) {
                if matches!(kind, IFA_ADDRESS | IFA_LOCAL) {
                    removal.attribute(kind, value);
                }
            }
        }
    })?;
    if !any {
        return Ok(());
    }
    let refused = |step, errno| match errno {
        // A secondary address, which went with its primary one.
        Errno::ADDRNOTAVAIL => Ok(()),
        _ => fail(step, errno),
    };
    socket.exchange(removal, refused, ignore)
}

/// See the crate's documentation for the order.
fn bring_up(socket: &mut Socket, link: &Link, interface: &Interface) -> Result<(), NetifError> {
    let mut batch = socket.batch();
    prepare(&mut batch, link, interface);
    let mut ipv6 = interface.ipv6;
    if let Some(addresses) = ipv6 {
        add_ipv6_address(&mut batch, link.index, &addresses);
        let mut present = true;
        let mut announced = false;
        let is_announced =
            |message: &Received<'_>| is_announcement(message, link.index, addresses.address);
        let refused = |step, errno| match step {
            Step::Ipv6Address => {
                present = false;
                tolerate(step, errno)
            }
            _ => tolerate(step, errno),
        };
        socket.exchange(batch, refused, |message| {
            announced |= is_announced(&message)
        })?;
        if !present {
            ipv6 = None;
        } else if !announced {
            socket.wait(PATIENCE, |message| is_announced(&message))?;
        }
        batch = socket.batch();
        set_flags(&mut batch, Step::Arp, link.index, 0, IFF_NOARP);
    }
    if let Some(addresses) = &interface.ipv4 {
        add_ipv4_address(&mut batch, link.index, addresses);
    }
    set_flags(&mut batch, Step::Enable, link.index, IFF_UP, IFF_UP);
    let gateways = [
        (interface.ipv4.and_then(|a| a.gateway)).map(IpAddr::V4),
        ipv6.and_then(|a| a.gateway).map(IpAddr::V6),
    ];
    for gateway in gateways.into_iter().flatten() {
        if let Some(metric) = interface.route_metric {
            add_default_route(&mut batch, link.index, gateway, metric);
        }
        add_neighbor(&mut batch, link.index, gateway, interface.gateway_mac);
    }
    socket.exchange(batch, tolerate, ignore)
}

/// MAC address and MTU if they are others, and nothing that IPv6 does by itself.
fn prepare(batch: &mut Batch, link: &Link, interface: &Interface) {
    let noarp = if interface.ipv6.is_some() {
        IFF_NOARP
    } else {
        0
    };
    let fixed = link_header(link.index, noarp, noarp);
    let message = batch.message(Step::Prepare, RTM_SETLINK, 0, &fixed);
    if link.mac != interface.mac {
        message.attribute(IFLA_ADDRESS, &interface.mac);
    }
    let mtu = u32::from(interface.mtu);
    if link.mtu != mtu {
        message.attribute(IFLA_MTU, &mtu.to_ne_bytes());
    }
    let mode = nested(IFLA_INET6_ADDR_GEN_MODE, &[IN6_ADDR_GEN_MODE_NONE]);
    batch
        .message(
            Step::NoGeneratedAddress,
            RTM_SETLINK,
            0,
            &link_header(link.index, 0, 0),
        )
        .attribute(IFLA_AF_SPEC, &nested(u16::from(AF_INET6), &mode));
}

fn add_ipv4_address(batch: &mut Batch, index: u32, addresses: &Addresses<Ipv4Addr>) {
    let fixed = address_header(AF_INET, addresses.prefix, index);
    let address = addresses.address.octets();
    let message = batch
        .message(Step::Ipv4Address, RTM_NEWADDR, NLM_F_CREATE, &fixed)
        .attribute(IFA_LOCAL, &address)
        .attribute(IFA_ADDRESS, &address);
    // Networks of one or two addresses have none to spare (RFC 3021).
    if addresses.prefix < 31 {
        let hosts = u32::MAX.checked_shr(addresses.prefix.into()).unwrap_or(0);
        let broadcast = u32::from(addresses.address) | hosts;
        message.attribute(IFA_BROADCAST, &broadcast.to_be_bytes());
    }
}

fn add_ipv6_address(batch: &mut Batch, index: u32, addresses: &Addresses<Ipv6Addr>) {
    let fixed = address_header(AF_INET6, addresses.prefix, index);
    let address = addresses.address.octets();
    batch
        .message(Step::Ipv6Address, RTM_NEWADDR, NLM_F_CREATE, &fixed)
        .attribute(IFA_LOCAL, &address)
        .attribute(IFA_ADDRESS, &address);
}

fn family(address: IpAddr) -> (u8, Vec<u8>) {
    match address {
        IpAddr::V4(address) => (AF_INET, address.octets().to_vec()),
        IpAddr::V6(address) => (AF_INET6, address.octets().to_vec()),
    }
}

/// A default route.
fn add_default_route(batch: &mut Batch, index: u32, gateway: IpAddr, metric: u32) {
    let (family, octets) = family(gateway);
    let (step, usual) = match gateway {
        IpAddr::V4(_) => (Step::Ipv4Route, 0),
        IpAddr::V6(_) => (Step::Ipv6Route, IPV6_METRIC),
    };
    // A `struct rtmsg`.
    let route = [
        family,
        0,
        0,
        0,
        RT_TABLE_MAIN,
        RTPROT_BOOT,
        RT_SCOPE_UNIVERSE,
        RTN_UNICAST,
        0,
        0,
        0,
        0,
    ];
    let message = batch
        .message(step, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, &route)
        .attribute(RTA_GATEWAY, &octets)
        .attribute(RTA_OIF, &index.to_ne_bytes());
    if metric > 0 {
        let metric = usual.saturating_add(metric);
        message.attribute(RTA_PRIORITY, &metric.to_ne_bytes());
    }
}

/// Where the gateway is, so that nobody asks for it.
fn add_neighbor(batch: &mut Batch, index: u32, gateway: IpAddr, mac: [u8; 6]) {
    let (family, octets) = family(gateway);
    let step = match gateway {
        IpAddr::V4(_) => Step::Ipv4Neighbor,
        IpAddr::V6(_) => Step::Ipv6Neighbor,
    };
    // A `struct ndmsg`.
    let mut neighbor = vec![family, 0, 0, 0];
    neighbor.extend(index.to_ne_bytes());
    neighbor.extend(NUD_PERMANENT.to_ne_bytes());
    neighbor.extend([0, 0]);
    batch
        .message(step, RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, &neighbor)
        .attribute(NDA_DST, &octets)
        .attribute(NDA_LLADDR, &mac);
}

/// Sets those flags of an interface that are in `mask`.
fn set_flags(batch: &mut Batch, step: Step, index: u32, flags: u32, mask: u32) {
    batch.message(step, RTM_SETLINK, 0, &link_header(index, flags, mask));
}

/// A `struct ifinfomsg`.
fn link_header(index: u32, flags: u32, mask: u32) -> [u8; LINK_BYTES] {
    let mut header = [0; LINK_BYTES];
    for (at, value) in [(4, index), (8, flags), (12, mask)] {
        if let Some(field) = header.get_mut(at..at + 4) {
            field.copy_from_slice(&value.to_ne_bytes());
        }
    }
    header
}

/// A `struct ifaddrmsg`. IPv4 has no duplicate address detection, and ignores the flag.
fn address_header(family: u8, prefix: u8, index: u32) -> [u8; ADDRESS_BYTES] {
    let [a, b, c, d] = index.to_ne_bytes();
    [family, prefix, IFA_F_NODAD, RT_SCOPE_UNIVERSE, a, b, c, d]
}

/// Whether the kernel says of this address that it is done with it.
fn is_announcement(message: &Received<'_>, index: u32, address: Ipv6Addr) -> bool {
    message.kind == RTM_NEWADDR
        && u32_at(message.body, 4) == Some(index)
        && attributes(message.body, ADDRESS_BYTES)
            .any(|(kind, value)| kind == IFA_ADDRESS && value == address.octets())
}

fn fail(step: Step, source: Errno) -> Result<(), NetifError> {
    Err(NetifError::Step { step, source })
}

/// Does without IPv6 where there is none: the kernel has none, or is told to use none
/// (`ipv6.disable`, `net.ipv6.conf.*.disable_ipv6`).
fn tolerate(step: Step, errno: Errno) -> Result<(), NetifError> {
    let lacks = matches!(errno, Errno::AFNOSUPPORT | Errno::OPNOTSUPP | Errno::ACCESS);
    match step.is_ipv6() && lacks {
        true => Ok(()),
        false => fail(step, errno),
    }
}

fn ignore(_: Received<'_>) {}
