//! How the process ends, and why it does not begin.

use crate::bed::{self, Container, LIMIT};
use anyhow::{Context, Result, ensure};
use hullbox_backend::network::UserNetwork;
use hullbox_netproc::{Launcher, ProcessError, Seat};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::fs;
use std::net::TcpListener;
use std::os::fd::AsFd;

/// Both families' addresses, which published ports listen at.
fn bind_all(port: u16) -> std::io::Result<()> {
    TcpListener::bind(("0.0.0.0", port)).and_then(|_| TcpListener::bind(("::1", port)).map(drop))
}

pub fn it_ends_with_its_control_connection_and_frees_its_ports() -> Result<()> {
    let container = Container::new()?;
    let (process, ports) = container.start(&Launcher::default(), &bed::network())?;
    let port = ports[0].host_port;
    ensure!(bind_all(port).is_err(), "the port is not open");
    let pid = process.pid();
    let status = process.end()?;
    ensure!(status.success(), "{status}");
    bind_all(port).context("the port is not free")?;
    ensure!(
        fs::metadata(format!("/proc/{pid}")).is_err(),
        "it is still there"
    );
    // The next one gets the same port.
    let network = UserNetwork {
        ports: vec![bed::port((port, port))],
        ..bed::network()
    };
    let (_process, ports) = container.start(&Launcher::default(), &network)?;
    ensure!(ports[0].host_port == port, "{ports:?}");
    Ok(())
}

/// What threads do at their end takes calls, too.
pub fn its_end_is_no_fault() -> Result<()> {
    let container = Container::new()?;
    for _ in 0..50 {
        let (process, _) = container.start(&Launcher::default(), &bed::network())?;
        let status = process.end()?;
        ensure!(status.success(), "{status}");
    }
    Ok(())
}

pub fn it_ends_with_its_member() -> Result<()> {
    let (ours, member) = bed::packets();
    let (mut process, _) = bed::start(&Launcher::default(), &bed::network(), &member)?;
    drop(member);
    ensure!(process.ready()?.is_none(), "it said something");
    drop(ours);
    let mut fds = [PollFd::from_borrowed_fd(process.as_fd(), PollFlags::IN)];
    let limit = Timespec::try_from(LIMIT)?;
    ensure!(poll(&mut fds, Some(&limit))? == 1, "it did not end");
    ensure!(matches!(process.ready(), Err(ProcessError::Ended)));
    Ok(())
}

pub fn a_taken_port_is_told_in_one_line() -> Result<()> {
    let taken = TcpListener::bind("0.0.0.0:0")?;
    let port = taken.local_addr()?.port();
    let network = UserNetwork {
        ports: vec![bed::port((port, port))],
        ..UserNetwork::default()
    };
    let (_ours, member) = bed::packets();
    let error = refusal(&network, &member)?;
    ensure!(
        error == format!("cannot publish 0.0.0.0:{port}/tcp: port is already allocated"),
        "{error}"
    );
    Ok(())
}

pub fn what_makes_no_sense_is_told() -> Result<()> {
    let (_ours, member) = bed::packets();
    let network = UserNetwork {
        egress: Some("everywhere".to_owned()),
        ..UserNetwork::default()
    };
    let error = refusal(&network, &member)?;
    ensure!(error.starts_with("egress: "), "{error}");
    // A member with the gateway's address.
    let mut interface = bed::interface();
    interface.mac = interface.gateway_mac;
    let seat = Seat::alone(UserNetwork::default(), interface);
    let mut process = Launcher::default().start(&seat, &member)?;
    let refused = process.wait_until_ready(LIMIT);
    ensure!(
        matches!(refused, Err(ProcessError::Refused(_))),
        "{refused:?}"
    );
    Ok(())
}

fn refusal(network: &UserNetwork, member: &hullbox_backend::network::Member) -> Result<String> {
    let seat = Seat::alone(network.clone(), bed::interface());
    let mut process = Launcher::default().start(&seat, member)?;
    match process.wait_until_ready(LIMIT) {
        Err(ProcessError::Refused(message)) => Ok(message),
        other => anyhow::bail!("{other:?}"),
    }
}
