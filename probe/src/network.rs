//! Connections, answers and transfers, as a client of the server that `hullbox bench` runs beside its
//! containers (`bench/src/server.rs`, which says what it is asked).

use crate::figures::{Figures, nanos};
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

/// In place of an address: that of the gateway.
const GATEWAY: &str = "gateway";
/// Flows at once, where there is more than one.
const FLOWS: usize = 8;
/// Most connections that one thread makes: each takes one of the host's ports for a while.
const MAX_CONNECTIONS: u64 = 200;
/// Bytes of a question, and of its answer.
const QUESTION_BYTES: usize = 64;
const BLOCK_BYTES: usize = 128 << 10;
/// Nothing takes longer where anything arrives.
const LIMIT: Duration = Duration::from_secs(20);

/// Each kind of work for so many milliseconds, with one flow and with eight.
pub(crate) fn network(address: &str, port: &str, millis: u64) -> io::Result<Figures> {
    let server = server(address, port)?;
    let time = Duration::from_millis(millis);
    // What serves the network may start with the first frame.
    drop(connect(server)?);
    let mut figures = Figures::new();
    for (flows, names) in [
        (
            1,
            [
                ("connects", "connects_ns"),
                ("requests", "requests_ns"),
                ("out_bytes", "out_ns"),
                ("in_bytes", "in_ns"),
            ],
        ),
        (
            FLOWS,
            [
                ("connects_8", "connects_8_ns"),
                ("requests_8", "requests_8_ns"),
                ("out_8_bytes", "out_8_ns"),
                ("in_8_bytes", "in_8_ns"),
            ],
        ),
    ] {
        let connected =
            || -> io::Result<Vec<TcpStream>> { (0..flows).map(|_| connect(server)).collect() };
        let done = [
            together(vec![(); flows], |()| connections(server, time))?,
            together(connected()?, |flow| requests(flow, time))?,
            together(connected()?, |flow| sent(flow, time))?,
            together(connected()?, |flow| received(flow, time))?,
        ];
        for ((count, took), (count_name, took_name)) in done.into_iter().zip(names) {
            figures.push((count_name, count));
            figures.push((took_name, took));
        }
    }
    Ok(figures)
}

fn server(address: &str, port: &str) -> io::Result<SocketAddr> {
    let odd = |what: &str| io::Error::other(format!("{what:?} is no server's"));
    let ip = match address {
        GATEWAY => IpAddr::V4(gateway().ok_or_else(|| odd(address))?),
        address => address.parse().map_err(|_| odd(address))?,
    };
    Ok(SocketAddr::new(ip, port.parse().map_err(|_| odd(port))?))
}

/// That of the default route.
fn gateway() -> Option<Ipv4Addr> {
    let routes = std::fs::read_to_string("/proc/net/route").ok()?;
    routes.lines().find_map(parse_route)
}

fn parse_route(line: &str) -> Option<Ipv4Addr> {
    let mut words = line.split_whitespace().skip(1);
    let (target, gateway) = (words.next()?, words.next()?);
    // In the byte order of the machine, which shows the address from its end.
    let address = u32::from_str_radix(gateway, 16).ok()?;
    (target == "00000000").then(|| Ipv4Addr::from(address.to_le_bytes()))
}

fn connect(server: SocketAddr) -> io::Result<TcpStream> {
    let flow = TcpStream::connect_timeout(&server, LIMIT)?;
    flow.set_read_timeout(Some(LIMIT))?;
    flow.set_write_timeout(Some(LIMIT))?;
    flow.set_nodelay(true)?;
    Ok(flow)
}

/// Has each of them done in a thread of its own, all at once: the sum of what they did, and how long that
/// took in all.
fn together<T: Send>(
    flows: Vec<T>,
    work: impl Fn(T) -> io::Result<u64> + Sync,
) -> io::Result<(u64, u64)> {
    let start = Instant::now();
    let work = &work;
    let sum: io::Result<u64> = thread::scope(|scope| {
        let threads: Vec<_> = flows
            .into_iter()
            .map(|flow| scope.spawn(move || work(flow)))
            .collect();
        let failed = |_| io::Error::other("a thread failed");
        threads
            .into_iter()
            .map(|thread| thread.join().map_err(failed)?)
            .sum()
    });
    Ok((sum?, nanos(start.elapsed())))
}

fn connections(server: SocketAddr, time: Duration) -> io::Result<u64> {
    let start = Instant::now();
    let mut count = 0;
    while count == 0 || (count < MAX_CONNECTIONS && start.elapsed() < time) {
        drop(TcpStream::connect_timeout(&server, LIMIT)?);
        count += 1;
    }
    Ok(count)
}

/// What the server is to do, and for how long.
fn ask(flow: &mut TcpStream, what: u8, time: Duration) -> io::Result<()> {
    let millis = u32::try_from(time.as_millis()).unwrap_or(u32::MAX);
    let [a, b, c, d] = millis.to_le_bytes();
    flow.write_all(&[what, a, b, c, d])
}

fn requests(mut flow: TcpStream, time: Duration) -> io::Result<u64> {
    ask(&mut flow, b'e', time)?;
    let mut answer = [0; QUESTION_BYTES];
    let start = Instant::now();
    let mut count = 0u64;
    while count == 0 || start.elapsed() < time {
        let question = [count.to_le_bytes()[0]; QUESTION_BYTES];
        flow.write_all(&question)?;
        flow.read_exact(&mut answer)?;
        if answer != question {
            return Err(io::Error::other("another answer than the right one"));
        }
        count += 1;
    }
    Ok(count)
}

/// Bytes that the server says have arrived.
fn sent(mut flow: TcpStream, time: Duration) -> io::Result<u64> {
    ask(&mut flow, b's', time)?;
    let block = vec![0x5au8; BLOCK_BYTES];
    let start = Instant::now();
    let mut bytes = 0;
    while bytes == 0 || start.elapsed() < time {
        flow.write_all(&block)?;
        bytes += block.len() as u64;
    }
    flow.shutdown(std::net::Shutdown::Write)?;
    let mut arrived = [0; 8];
    flow.read_exact(&mut arrived)?;
    match u64::from_le_bytes(arrived) == bytes {
        true => Ok(bytes),
        false => Err(io::Error::other("not all that was sent has arrived")),
    }
}

fn received(mut flow: TcpStream, time: Duration) -> io::Result<u64> {
    ask(&mut flow, b'r', time)?;
    let mut block = vec![0u8; BLOCK_BYTES];
    let mut bytes = 0;
    loop {
        match flow.read(&mut block)? {
            0 => return Ok(bytes),
            got => bytes += got as u64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gateway_is_that_of_the_default_route() {
        let routes = "Iface\tDestination\tGateway \tFlags\n\
                      eth0\t0002000A\t00000000\t0001\neth0\t00000000\t0102000A\t0003\n";
        let found: Vec<_> = routes.lines().filter_map(parse_route).collect();
        assert_eq!(found, [Ipv4Addr::new(10, 0, 2, 1)]);
        assert!(server("nowhere", "80").is_err() && server("::1", "x").is_err());
        assert_eq!(server("::1", "80").unwrap().port(), 80);
    }
}
