//! Many connections.

use crate::bed::{Bed, PATIENCE, Plan, WORLD_V4, is_possible};
use anyhow::{Result, ensure};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

/// Open descriptors of this process.
fn descriptors() -> Result<usize> {
    Ok(std::fs::read_dir("/proc/self/fd")?.count())
}

/// Other tests of this program open descriptors at the same time; so this one runs in a process
/// of its own.
#[test]
fn ten_thousand_connections_leave_no_descriptor() -> Result<()> {
    if !is_possible() {
        return Ok(());
    }
    const ALONE: &str = "HULLBOX_NET_TEST_ALONE";
    if std::env::var_os(ALONE).is_none() {
        let status = std::process::Command::new(std::env::current_exe()?)
            .args([
                "--exact",
                "many::ten_thousand_connections_leave_no_descriptor",
            ])
            .env(ALONE, "1")
            .status()?;
        ensure!(status.success(), "{status}");
        return Ok(());
    }
    let bed = Bed::new(Plan::default())?;
    let listener = bed.world.run(|| TcpListener::bind((WORLD_V4, 80)))?;
    let before = descriptors()?;
    let address = SocketAddr::from((WORLD_V4, 80));
    std::thread::scope(|scope| -> Result<()> {
        let server = scope.spawn(|| -> Result<()> {
            for _ in 0..10_000 {
                let mut stream = listener.accept()?.0;
                let mut byte = [0];
                stream.read_exact(&mut byte)?;
                stream.write_all(&byte)?;
            }
            Ok(())
        });
        bed.guest().namespace.run(|| -> Result<()> {
            for number in 0..10_000u32 {
                let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.write_all(&[number as u8])?;
                let mut answer = Vec::new();
                stream.read_to_end(&mut answer)?;
                ensure!(answer == [number as u8], "{number}");
            }
            Ok(())
        })?;
        server.join().unwrap()
    })?;
    // A flow's socket is closed when its last segment has been acknowledged. One more connection
    // that the network has served to its end comes behind all of those.
    ensure!(bed.control.totals()?.tcp_begun == 10_000);
    let after = descriptors()?;
    ensure!(
        after <= before + 4,
        "{before} descriptors before, {after} after"
    );
    Ok(())
}

/// Many flows that are open at the same time are all served.
#[test]
fn two_thousand_flows_at_a_time() -> Result<()> {
    if !is_possible() {
        return Ok(());
    }
    let bed = Bed::new(Plan::default())?;
    let listener = bed.world.run(|| TcpListener::bind((WORLD_V4, 80)))?;
    let address = SocketAddr::from((WORLD_V4, 80));
    let mut pairs = Vec::new();
    for _ in 0..2000 {
        let connect = || TcpStream::connect_timeout(&address, PATIENCE);
        let client = bed.guest().namespace.run(connect)?;
        client.set_read_timeout(Some(PATIENCE))?;
        pairs.push((client, listener.accept()?.0));
    }
    ensure!(bed.control.totals()?.tcp_flows == 2000);
    for (number, (_, server)) in pairs.iter_mut().enumerate() {
        server.write_all(&(number as u64).to_le_bytes())?;
    }
    for (number, (client, _)) in pairs.iter_mut().enumerate() {
        let mut bytes = [0; 8];
        client.read_exact(&mut bytes)?;
        ensure!(u64::from_le_bytes(bytes) == number as u64);
    }
    Ok(())
}
