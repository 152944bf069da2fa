//! Where a guest may connect to.

use crate::bed::{Bed, GATEWAY_V4, PATIENCE, Plan, WORLD_V4, is_possible, uninterrupted};
use anyhow::{Result, ensure};
use hullbox_net::policy::Policy;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};

#[test]
fn what_the_policy_refuses_never_leaves() -> Result<()> {
    if !is_possible() {
        return Ok(());
    }
    let plan = Plan {
        policy: "deny:198.51.100.0/24:81,198.51.100.0/24/tcp".parse()?,
        ..Plan::default()
    };
    let bed = Bed::new(plan)?;
    let guest = &bed.guest().namespace;
    let listeners: Result<Vec<_>, _> = bed.world.run(|| {
        [80, 81]
            .into_iter()
            .map(|port| TcpListener::bind((WORLD_V4, port)))
            .collect()
    });
    let listeners: Vec<TcpListener> = listeners?;
    let connect = |port: u16| {
        let address = SocketAddr::from((WORLD_V4, port));
        guest.run(|| TcpStream::connect_timeout(&address, PATIENCE))
    };
    connect(80)?;
    listeners[0].accept()?;
    for _ in 0..3 {
        ensure!(connect(81).unwrap_err().kind() == ErrorKind::ConnectionRefused);
    }
    // UDP is in no rule; the guest is told that it is prohibited.
    let server = bed.world.run(|| UdpSocket::bind((WORLD_V4, 80)))?;
    let client = guest.run(|| UdpSocket::bind("0.0.0.0:0"))?;
    client.set_read_timeout(Some(PATIENCE))?;
    client.connect((WORLD_V4, 80))?;
    client.send(b"x")?;
    let error = uninterrupted(|| client.recv(&mut [0])).unwrap_err();
    ensure!(
        error.raw_os_error() == Some(rustix::io::Errno::HOSTUNREACH.raw_os_error()),
        "{error}"
    );
    let counters = bed.control.counters(bed.guest().member)?;
    ensure!(counters.rules == [3, 1], "{:?}", counters.rules);
    let targets: Vec<_> = counters
        .refused_targets
        .iter()
        .map(|refused| (refused.target.to_string(), refused.count))
        .collect();
    let expected = [
        (format!("tcp {WORLD_V4}:81"), 3),
        (format!("udp {WORLD_V4}:80"), 1),
    ];
    ensure!(targets == expected, "{targets:?}");
    ensure!(counters.refused == 4);
    // Nothing came: the sockets have nothing to give.
    listeners[1].set_nonblocking(true)?;
    server.set_nonblocking(true)?;
    ensure!(listeners[1].accept().unwrap_err().kind() == ErrorKind::WouldBlock);
    ensure!(uninterrupted(|| server.recv(&mut [0])).unwrap_err().kind() == ErrorKind::WouldBlock);
    bed.control
        .set_policy(bed.guest().member, Policy::unrestricted())?;
    connect(81)?;
    Ok(())
}

#[test]
fn the_hosts_loopback_is_closed_unless_it_is_asked_for() -> Result<()> {
    if !is_possible() {
        return Ok(());
    }
    for host_gateway in [false, true] {
        let plan = Plan {
            host_gateway,
            ..Plan::default()
        };
        let bed = Bed::new(plan)?;
        let listener = bed.host.run(|| TcpListener::bind("127.0.0.1:8000"))?;
        let guest = &bed.guest().namespace;
        // Loopback addresses that are sent through the link after all.
        guest.set("ipv4/conf/all/route_localnet", "1")?;
        guest.ip("route del local 127.0.0.0/8 dev lo table local")?;
        guest.ip(&format!("route add 127.0.0.0/8 via {GATEWAY_V4} dev eth0"))?;
        let connect = |address: [u8; 4]| {
            let address = SocketAddr::from((address, 8000));
            guest.run(|| TcpStream::connect_timeout(&address, PATIENCE))
        };
        if host_gateway {
            connect(GATEWAY_V4.octets())?;
            listener.accept()?;
        } else {
            let error = connect(GATEWAY_V4.octets()).unwrap_err();
            ensure!(error.kind() == ErrorKind::ConnectionRefused, "{error}");
        }
        ensure!(connect([127, 0, 0, 1]).is_err());
        listener.set_nonblocking(true)?;
        ensure!(listener.accept().unwrap_err().kind() == ErrorKind::WouldBlock);
    }
    Ok(())
}
