//! Several members of one network.

use crate::bed::{Bed, Carrier, PATIENCE, Plan, is_possible};
use crate::relay::Weather;
use crate::traffic::exchange;
use anyhow::{Result, ensure};
use hullbox_net::Offloads;
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
    ensure!(bed.control.counters()?.tcp_begun == 0);
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
