//! Several members of one network.

use crate::bed::{Bed, Carrier, GATEWAY_V4, PATIENCE, Plan, WORLD_V4, is_possible};
use crate::relay::Weather;
use crate::traffic::exchange;
use anyhow::{Result, ensure};
use hullbox_net::dns::DnsConfig;
use hullbox_net::{NetError, Offloads, PortKind, open_port};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};

fn meet(bed: &Bed, from: usize, to: usize, address: IpAddr) -> Result<(TcpStream, TcpStream)> {
    let listener = bed.guests[to]
        .namespace
        .run(|| TcpListener::bind((address, 0)))?;
    let target: SocketAddr = listener.local_addr()?;
    let connect = || TcpStream::connect_timeout(&target, PATIENCE);
    let client = bed.guests[from].namespace.run(connect)?;
    let server = listener.accept()?.0;
    for stream in [&client, &server] {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
    }
    Ok((client, server))
}

#[test]
fn a_link_that_goes_down_and_up_goes_on() -> Result<()> {
    if !is_possible() {
        return Ok(());
    }
    let bed = Bed::new(Plan::default())?;
    let (client, server) = crate::tcp::connection(&bed, false)?;
    let guest = &bed.guest().namespace;
    guest.ip("link set eth0 down")?;
    guest.ip("link set eth0 up")?;
    guest.ip("route add default via 10.77.0.1")?;
    exchange(&client, &server, 1_000_000)
}

#[test]
fn members_reach_each_other_whatever_they_take() -> Result<()> {
    if !is_possible() {
        return Ok(());
    }
    let mut plan = Plan::default();
    plan.network.mtu = 9000;
    let mut bed = Bed::new(plan)?;
    bed.add_guest(Carrier::Tap, Offloads::NONE, Weather::default())?;
    bed.add_guest(Carrier::Stream, Offloads::ALL, Weather::default())?;
    for (from, to) in [(0, 1), (1, 0), (0, 2), (2, 1)] {
        for address in [IpAddr::from(bed.guests[to].v4), bed.guests[to].v6.into()] {
            let (client, server) = meet(&bed, from, to, address)?;
            exchange(&client, &server, 5_000_000)?;
        }
    }
    // Nothing of it went through a flow.
    ensure!(bed.control.totals()?.tcp_begun == 0);
    // Through the gateway too: a route that knows no link.
    let (from, to) = (&bed.guests[0], &bed.guests[1]);
    from.namespace
        .ip(&format!("route add {}/32 via 10.77.0.1", to.v4))?;
    let (client, server) = {
        to.namespace
            .ip(&format!("route add {}/32 via 10.77.0.1", from.v4))?;
        meet(&bed, 0, 1, to.v4.into())?
    };
    exchange(&client, &server, 1_000_000)
}

#[test]
fn each_member_has_a_policy_of_its_own() -> Result<()> {
    if !is_possible() {
        return Ok(());
    }
    let mut bed = Bed::new(Plan::default())?;
    bed.policy = "none".parse()?;
    bed.add_guest(Carrier::Tap, Offloads::ALL, Weather::default())?;
    let listener = bed.world.run(|| TcpListener::bind((WORLD_V4, 80)))?;
    let connect = |guest: usize| {
        let target = SocketAddr::from((WORLD_V4, 80));
        let connect = || TcpStream::connect_timeout(&target, PATIENCE);
        bed.guests[guest].namespace.run(connect)
    };
    connect(0)?;
    listener.accept()?;
    ensure!(connect(1).is_err());
    let counters = |guest: usize| bed.control.counters(bed.guests[guest].member);
    ensure!((counters(0)?.refused, counters(1)?.refused) == (0, 1));
    ensure!(counters(0)?.bytes_received > 0 && counters(0)?.frames_sent > 0);
    ensure!(bed.control.totals()?.members.refused == 1);
    // They reach each other all the same.
    let (client, server) = meet(&bed, 1, 0, bed.guests[0].v4.into())?;
    exchange(&client, &server, 100_000)?;
    // What was counted of a member that has gone is not forgotten.
    let gone = bed.guests[1].member;
    bed.control.remove_member(gone)?;
    ensure!(bed.control.totals()?.members.refused == 1);
    let errors = [
        bed.control.counters(gone).map(|_| ()),
        bed.control.set_names(gone, Vec::new()),
        bed.control.set_policy(gone, "all".parse()?),
    ];
    ensure!(
        errors
            .into_iter()
            .all(|result| matches!(result, Err(NetError::NoMember)))
    );
    Ok(())
}

#[test]
fn an_internal_network_leads_to_its_members_alone() -> Result<()> {
    if !is_possible() {
        return Ok(());
    }
    let mut plan = Plan {
        host_gateway: true,
        ..Plan::default()
    };
    plan.network.internal = true;
    plan.network.dns = Some(DnsConfig::default());
    let mut bed = Bed::new(plan)?;
    bed.add_guest(Carrier::Tap, Offloads::ALL, Weather::default())?;
    let outside = bed.world.run(|| TcpListener::bind((WORLD_V4, 80)))?;
    let loopback = bed.host.run(|| TcpListener::bind("127.0.0.1:80"))?;
    let guest = &bed.guest().namespace;
    for address in [
        IpAddr::from(WORLD_V4),
        GATEWAY_V4.into(),
        "10.77.0.77".parse()?,
    ] {
        let target = SocketAddr::new(address, 80);
        ensure!(
            guest
                .run(|| TcpStream::connect_timeout(&target, PATIENCE))
                .is_err(),
            "{target}"
        );
    }
    for listener in [outside, loopback] {
        listener.set_nonblocking(true)?;
        ensure!(listener.accept().is_err());
    }
    // For the last one nobody answered the question for its MAC address.
    ensure!(bed.control.counters(bed.guest().member)?.refused == 2);
    let (client, server) = meet(&bed, 0, 1, bed.guests[1].v4.into())?;
    exchange(&client, &server, 100_000)?;
    let socket = bed
        .host
        .run(|| open_port(PortKind::Tcp, SocketAddr::from(([127, 0, 0, 1], 0))))?;
    let published = bed
        .control
        .publish((PortKind::Tcp, socket), (bed.guest().member, 80));
    ensure!(matches!(published, Err(NetError::Internal)));
    Ok(())
}
