//! Rates of members.

use crate::bed::{Bed, Carrier, PATIENCE, Plan, WORLD_V4, is_possible, uninterrupted};
use crate::relay::Weather;
use crate::tcp::connection;
use crate::traffic::exchange;
use anyhow::{Result, ensure};
use hullbox_net::{Offloads, Rates};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

const RATE: u64 = 1 << 20;
const TOTAL: usize = 2 << 20;
/// What a bucket holds, and what headers and the last segment may add.
const SLACK: u64 = RATE / 10 + 128 * 1024;

/// A network with a guest of these rates.
fn bed(rates: Rates, carrier: Carrier) -> Result<Bed> {
    Bed::new(Plan {
        rates,
        carrier,
        ..Plan::default()
    })
}

const BOTH: Rates = Rates {
    inbound: Some(RATE),
    outbound: Some(RATE),
};

/// How long these bytes take from one end to the other.
fn time(mut from: &TcpStream, mut to: &TcpStream) -> Result<Duration> {
    let begin = Instant::now();
    std::thread::scope(|scope| {
        let writer = scope.spawn(move || from.write_all(&vec![7; TOTAL]));
        let mut data = vec![0; TOTAL];
        to.read_exact(&mut data)?;
        writer.join().unwrap()?;
        anyhow::Ok(())
    })?;
    Ok(begin.elapsed())
}

fn is_slow(took: Duration, bytes: u64) -> bool {
    took.as_secs_f64() >= bytes.saturating_sub(SLACK) as f64 / RATE as f64
}

#[test]
fn a_connection_is_as_fast_as_its_members_rate_each_way() -> Result<()> {
    if !is_possible() {
        return Ok(());
    }
    for carrier in [Carrier::Tap, Carrier::Packets, Carrier::Stream] {
        let bed = bed(BOTH, carrier)?;
        let (client, server) = connection(&bed, false)?;
        for (from, to) in [(&client, &server), (&server, &client)] {
            let took = time(from, to)?;
            ensure!(is_slow(took, TOTAL as u64), "{carrier:?}: {took:?}");
            // As fast as is allowed, and not by repeating: a busy machine has its part in this.
            ensure!(took < Duration::from_secs(15), "{carrier:?}: {took:?}");
        }
        let counters = bed.control.counters(bed.guest().member)?;
        let most = TOTAL as u64 * 5 / 4;
        ensure!(
            counters.bytes_sent < most && counters.bytes_received < most,
            "{counters:?}"
        );
        exchange(&client, &server, 50_000)?;
    }
    Ok(())
}

#[test]
fn one_direction_and_another_member_are_as_fast_as_can_be() -> Result<()> {
    if !is_possible() {
        return Ok(());
    }
    let rates = Rates {
        inbound: None,
        outbound: Some(RATE / 4),
    };
    let mut bed = bed(rates, Carrier::Tap)?;
    bed.rates = Rates::default();
    bed.add_guest(Carrier::Tap, Offloads::ALL, Weather::default())?;
    let (client, server) = connection(&bed, false)?;
    let took = time(&server, &client)?;
    ensure!(took < Duration::from_secs(4), "{took:?}");
    // While the first waits for its turn.
    let listener = bed.world.run(|| TcpListener::bind((WORLD_V4, 0)))?;
    let target = listener.local_addr()?;
    let other = bed.guests[1]
        .namespace
        .run(|| TcpStream::connect_timeout(&target, PATIENCE))?;
    let accepted = listener.accept()?.0;
    let begin = Instant::now();
    let writer = std::thread::spawn(move || {
        let mut client = client;
        client.write_all(&[7; 600_000])
    });
    let took = time(&other, &accepted)?;
    ensure!(took < Duration::from_secs(2), "{took:?}");
    let mut data = vec![0; 600_000];
    (&server).read_exact(&mut data)?;
    let took = begin.elapsed();
    ensure!(took > Duration::from_millis(1500), "{took:?}");
    writer.join().unwrap()?;
    Ok(())
}

#[test]
fn connections_share_their_members_rate() -> Result<()> {
    if !is_possible() {
        return Ok(());
    }
    let bed = bed(BOTH, Carrier::Tap)?;
    let pairs: Result<Vec<_>> = (0..4).map(|_| connection(&bed, false)).collect();
    let pairs = pairs?;
    let begin = Instant::now();
    let counts: Vec<usize> = std::thread::scope(|scope| {
        let readers: Vec<_> = pairs
            .iter()
            .map(|(client, server)| {
                server
                    .set_write_timeout(Some(Duration::from_secs(10)))
                    .unwrap();
                scope.spawn(move || {
                    // Fails when the time is up and the reader has gone.
                    let _ = (&*server).write_all(&vec![7; 8 << 20]);
                });
                scope.spawn(move || {
                    let mut count = 0;
                    let mut data = vec![0; 1 << 16];
                    while begin.elapsed() < Duration::from_secs(4) {
                        count += (&*client).read(&mut data).unwrap();
                    }
                    client.shutdown(std::net::Shutdown::Both).unwrap();
                    count
                })
            })
            .collect();
        readers.into_iter().map(|one| one.join().unwrap()).collect()
    });
    let took = begin.elapsed();
    let all: usize = counts.iter().sum();
    ensure!(is_slow(took, all as u64), "{took:?}: {counts:?}");
    // Nobody is left out.
    ensure!(counts.iter().all(|&count| count > all / 16), "{counts:?}");
    Ok(())
}

#[test]
fn datagrams_have_a_rate_too() -> Result<()> {
    if !is_possible() {
        return Ok(());
    }
    let bed = bed(BOTH, Carrier::Tap)?;
    let server = bed.world.run(|| UdpSocket::bind((WORLD_V4, 7000)))?;
    server.set_read_timeout(Some(Duration::from_millis(500)))?;
    let client = bed.guest().namespace.run(|| UdpSocket::bind("0.0.0.0:0"))?;
    client.connect(SocketAddr::from((WORLD_V4, 7000)))?;
    client.set_read_timeout(Some(Duration::from_millis(500)))?;
    client.send(b"hello")?;
    let peer = uninterrupted(|| server.recv_from(&mut [0; 10]))?.1;
    server.connect(peer)?;
    for (from, to) in [(&client, &server), (&server, &client)] {
        let begin = Instant::now();
        let (bytes, took) = std::thread::scope(|scope| {
            scope.spawn(|| {
                while begin.elapsed() < Duration::from_secs(2) {
                    // Where there is no room it is lost, or sent later.
                    let _ = from.send(&[7; 1000]);
                    std::thread::sleep(Duration::from_micros(100));
                }
            });
            let (mut bytes, mut took) = (0, Duration::ZERO);
            while let Ok(length) = uninterrupted(|| to.recv(&mut [0; 2000])) {
                bytes += length as u64;
                took = begin.elapsed();
            }
            (bytes, took)
        });
        ensure!(is_slow(took, bytes), "{bytes} in {took:?}");
        ensure!(bytes > RATE / 2, "{bytes} in {took:?}");
    }
    // What was on its way is over, and small things pass at once.
    client.send(b"again")?;
    ensure!(uninterrupted(|| server.recv(&mut [0; 10]))? == 5);
    Ok(())
}
