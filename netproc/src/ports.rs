//! Opening published ports.

use hullbox_backend::network::{OpenPort, PortProtocol, PublishedPort};
use hullbox_net::{NetError, PortKind, open_port};
use rustix::io::Errno;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;

/// How often the kernel may choose a number that is taken in the other family.
const MAX_CHOICES: usize = 32;

/// A published port's socket and where it leads.
#[derive(Debug)]
pub struct OpenSocket {
    /// TCP or UDP.
    pub kind: PortKind,
    /// It listens.
    pub socket: OwnedFd,
    /// The container's port.
    pub container_port: u16,
}

/// A port cannot be published.
#[derive(Debug)]
pub struct PortError {
    protocol: PortProtocol,
    address: IpAddr,
    /// The first and the last that were tried.
    ports: (u16, u16),
    errno: Errno,
}

impl std::error::Error for PortError {}

impl fmt::Display for PortError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (first, last) = self.ports;
        write!(f, "cannot publish {}", SocketAddr::new(self.address, first))?;
        if last > first {
            write!(f, "-{last}")?;
        }
        match self.protocol {
            PortProtocol::Tcp => f.write_str("/tcp: ")?,
            PortProtocol::Udp => f.write_str("/udp: ")?,
        }
        match self.errno {
            // In Docker's words, which programs look for.
            Errno::ADDRINUSE if last > first => f.write_str("all ports are already allocated"),
            Errno::ADDRINUSE => f.write_str("port is already allocated"),
            Errno::ACCESS | Errno::PERM => f.write_str(
                "permission denied: the host keeps low ports for root \
                 (net.ipv4.ip_unprivileged_port_start)",
            ),
            Errno::ADDRNOTAVAIL => f.write_str("the host has no such address"),
            Errno::AFNOSUPPORT => f.write_str("the host has no addresses of this family"),
            errno => write!(f, "{}", std::io::Error::from(errno)),
        }
    }
}

/// Opens all of them, or none.
///
/// # Errors
/// The first that cannot be opened.
pub fn open_all(
    published: &[PublishedPort],
) -> Result<(Vec<OpenSocket>, Vec<OpenPort>), PortError> {
    let (mut sockets, mut open) = (Vec::new(), Vec::new());
    for port in published {
        for (socket, address) in open_one(port)? {
            sockets.push(OpenSocket {
                kind: kind(port.protocol),
                socket,
                container_port: port.container_port,
            });
            open.push(OpenPort {
                protocol: port.protocol,
                host_ip: address.ip(),
                host_port: address.port(),
                container_port: port.container_port,
            });
        }
    }
    Ok((sockets, open))
}

/// The same as the engine has it.
#[must_use]
pub const fn kind(protocol: PortProtocol) -> PortKind {
    match protocol {
        PortProtocol::Tcp => PortKind::Tcp,
        PortProtocol::Udp => PortKind::Udp,
    }
}

type Bound = Vec<(OwnedFd, SocketAddr)>;

/// Opens a port at all of its addresses, under one number.
fn open_one(port: &PublishedPort) -> Result<Bound, PortError> {
    let (first, last) = port.host_ports;
    if first == 0 {
        return open_chosen(port);
    }
    let mut taken = None;
    for number in first..=last.max(first) {
        match open_number(port, number) {
            Err(error) if error.errno == Errno::ADDRINUSE => {
                taken.get_or_insert(error);
            }
            other => return other,
        }
    }
    let error = taken.map(|error| PortError {
        ports: (first, last),
        ..error
    });
    error.map_or_else(|| Ok(Vec::new()), Err)
}

/// Has the kernel choose a number that is free at all of its addresses.
fn open_chosen(port: &PublishedPort) -> Result<Bound, PortError> {
    // Held until one is found, so that the kernel does not choose them again.
    let mut held = Vec::new();
    loop {
        let (address, socket) = match port.host_ip {
            Some(ip) => (ip, open(port, ip, 0)?),
            None => match open(port, Ipv4Addr::UNSPECIFIED.into(), 0) {
                // A host without IPv4.
                Err(error) if is_missing(error.errno) => {
                    let ip = Ipv6Addr::UNSPECIFIED.into();
                    let socket = open(port, ip, 0)?;
                    let address = local_address(port, ip, &socket)?;
                    return Ok(vec![(socket, address)]);
                }
                other => (Ipv4Addr::UNSPECIFIED.into(), other?),
            },
        };
        let address = local_address(port, address, &socket)?;
        let mut bound = vec![(socket, address)];
        if port.host_ip.is_some() {
            return Ok(bound);
        }
        let ip = Ipv6Addr::UNSPECIFIED.into();
        match open(port, ip, address.port()) {
            Ok(socket) => bound.push((socket, SocketAddr::new(ip, address.port()))),
            Err(error) if is_missing(error.errno) => {}
            Err(error) if error.errno == Errno::ADDRINUSE && held.len() < MAX_CHOICES => {
                held.append(&mut bound);
                continue;
            }
            Err(error) => return Err(error),
        }
        return Ok(bound);
    }
}

/// Opens a port at all of its addresses under this number.
fn open_number(port: &PublishedPort, number: u16) -> Result<Bound, PortError> {
    if let Some(ip) = port.host_ip {
        let socket = open(port, ip, number)?;
        return Ok(vec![(socket, SocketAddr::new(ip, number))]);
    }
    let mut bound = Bound::new();
    let mut missing = None;
    for ip in [
        IpAddr::from(Ipv4Addr::UNSPECIFIED),
        Ipv6Addr::UNSPECIFIED.into(),
    ] {
        match open(port, ip, number) {
            Ok(socket) => bound.push((socket, SocketAddr::new(ip, number))),
            Err(error) if is_missing(error.errno) => missing = Some(error),
            Err(error) => return Err(error),
        }
    }
    match missing {
        Some(error) if bound.is_empty() => Err(error),
        _ => Ok(bound),
    }
}

/// Whether the host has no addresses of that family at all.
fn is_missing(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL | Errno::PROTONOSUPPORT
    )
}

fn open(port: &PublishedPort, ip: IpAddr, number: u16) -> Result<OwnedFd, PortError> {
    let failed = |errno| PortError {
        protocol: port.protocol,
        address: ip,
        ports: (number, number),
        errno,
    };
    open_port(kind(port.protocol), SocketAddr::new(ip, number)).map_err(|error| match error {
        NetError::Publish { source, .. } | NetError::System(source) => failed(source),
        _ => failed(Errno::IO),
    })
}

fn local_address(
    port: &PublishedPort,
    ip: IpAddr,
    socket: &OwnedFd,
) -> Result<SocketAddr, PortError> {
    let address = rustix::net::getsockname(socket).and_then(SocketAddr::try_from);
    address.map_err(|errno| PortError {
        protocol: port.protocol,
        address: ip,
        ports: (0, 0),
        errno,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream, UdpSocket};

    fn port(protocol: PortProtocol, ip: Option<&str>, host_ports: (u16, u16)) -> PublishedPort {
        PublishedPort {
            protocol,
            host_ip: ip.map(|ip| ip.parse().unwrap()),
            host_ports,
            container_port: 80,
        }
    }

    fn has_ipv6() -> bool {
        TcpListener::bind("[::]:0").is_ok()
    }

    /// Numbers in a row that are free.
    fn free_range(count: u16) -> u16 {
        (20_000..60_000)
            .step_by(usize::from(count))
            .find(|&first| {
                let bind = |number| TcpListener::bind((Ipv4Addr::UNSPECIFIED, number));
                (first..first + count).all(|number| bind(number).is_ok())
            })
            .unwrap()
    }

    #[test]
    fn one_number_at_all_addresses_of_both_families() {
        for protocol in [PortProtocol::Tcp, PortProtocol::Udp] {
            let (sockets, open) = open_all(&[port(protocol, None, (0, 0))]).unwrap();
            let families = if has_ipv6() { 2 } else { 1 };
            assert_eq!((sockets.len(), open.len()), (families, families));
            assert!(open[0].host_ip.is_ipv4() && open[0].host_port > 0);
            for port in &open {
                assert_eq!(port.host_port, open[0].host_port);
                assert!(port.host_ip.is_unspecified());
                assert_eq!((port.protocol, port.container_port), (protocol, 80));
            }
        }
    }

    #[test]
    fn a_range_gives_the_first_number_that_is_free() {
        let first = free_range(3);
        let taken = TcpListener::bind(("127.0.0.1", first)).unwrap();
        let range = port(PortProtocol::Tcp, None, (first, first + 2));
        let (_sockets, open) = open_all(&[range.clone(), range.clone()]).unwrap();
        let mut numbers: Vec<u16> = open.iter().map(|port| port.host_port).collect();
        numbers.dedup();
        assert_eq!(numbers, [first + 1, first + 2]);
        let error = open_all(&[range]).unwrap_err().to_string();
        let expected = format!(
            "cannot publish 0.0.0.0:{first}-{}/tcp: all ports are already allocated",
            first + 2
        );
        assert_eq!(error, expected);
        drop(taken);
    }

    #[test]
    fn a_port_that_is_taken_is_named_and_leaves_nothing_open() {
        let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
        let number = taken.local_addr().unwrap().port();
        let free = free_range(1);
        let ports = [
            port(PortProtocol::Tcp, Some("127.0.0.1"), (free, free)),
            port(PortProtocol::Udp, Some("127.0.0.1"), (number, number)),
        ];
        let error = open_all(&ports).unwrap_err().to_string();
        let expected = format!("cannot publish 127.0.0.1:{number}/udp: port is already allocated");
        assert_eq!(error, expected);
        assert!(TcpStream::connect(("127.0.0.1", free)).is_err());
        // TCP and UDP have numbers of their own.
        let tcp = port(PortProtocol::Tcp, Some("127.0.0.1"), (number, number));
        assert!(open_all(&[tcp]).is_ok());
    }

    #[test]
    fn an_address_that_the_host_does_not_have_is_an_error_where_it_was_typed() {
        let error = open_all(&[port(PortProtocol::Tcp, Some("192.0.2.1"), (0, 0))]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot publish 192.0.2.1:0/tcp: the host has no such address"
        );
    }

    #[test]
    fn an_ipv6_address_stands_in_brackets() {
        let error = PortError {
            protocol: PortProtocol::Tcp,
            address: Ipv6Addr::LOCALHOST.into(),
            ports: (80, 80),
            errno: Errno::ACCESS,
        };
        assert!(
            error
                .to_string()
                .starts_with("cannot publish [::1]:80/tcp: permission denied")
        );
    }
}
