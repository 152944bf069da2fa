//! Networks that containers share.

use crate::bed::{self, Container, GATEWAY, LIMIT, SERVICE};
use anyhow::{Context, Result, bail, ensure};
use hullbox_backend::network::{Member, Membership, UserNetwork};
use hullbox_netproc::{ENTRY, Heard, Launcher, Process, ProcessError, Seat, tidy};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{RecvFlags, SendFlags};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use std::fs;
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

pub const ID: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

/// A directory for networks, which has to be empty at the end.
pub struct Networks(pub PathBuf);

impl Networks {
    pub fn new(name: &str) -> Self {
        let name = format!("hullbox-{name}-{}", std::process::id());
        Self(std::env::temp_dir().join(name))
    }

    pub fn launcher(&self) -> Launcher {
        Launcher::of("/proc/self/exe", vec![ENTRY.into()]).joining(&self.0)
    }

    /// The process that serves the network.
    pub fn process(&self) -> Result<Pid> {
        let text = fs::read_to_string(self.0.join(format!("{ID}.lock")))?;
        Pid::from_raw(text.trim().parse()?).context("no process")
    }

    /// Nothing is left of it.
    pub fn is_gone(&self, process: Pid) -> Result<()> {
        let deadline = Instant::now() + LIMIT;
        // Somebody else's child has to be collected by that.
        while test_kill_process(process).is_ok() && !is_dead(process) {
            ensure!(Instant::now() < deadline, "the process is there");
            std::thread::sleep(Duration::from_millis(5));
        }
        let left: Vec<_> = fs::read_dir(&self.0)?.collect();
        ensure!(left.is_empty(), "{left:?}");
        fs::remove_dir(&self.0)?;
        Ok(())
    }
}

fn is_dead(process: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", process.as_raw_nonzero()));
    stat.map_or(true, |stat| stat.contains(") Z "))
}

pub fn seat(number: u8, names: &[&str]) -> Seat {
    Seat {
        membership: Some(Membership {
            id: ID.to_owned(),
            internal: false,
            names: names.iter().map(|name| (*name).to_owned()).collect(),
        }),
        ..Seat::alone(UserNetwork::default(), bed::interface_of(number))
    }
}

/// Asks the gateway for the address of a name (RFC 1035).
fn resolve(socket: &UdpSocket, name: &str) -> Result<Option<IpAddr>> {
    let mut query = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0".to_vec();
    query.push(u8::try_from(name.len())?);
    query.extend(name.as_bytes());
    query.extend(b"\0\0\x01\0\x01");
    socket.send_to(&query, (GATEWAY, 53))?;
    let mut answer = [0; 512];
    let length = bed::uninterrupted(|| socket.recv(&mut answer))?;
    let answer = answer.get(..length).context("cut")?;
    ensure!(answer[..2] == query[..2], "an answer to something else");
    let address: Option<[u8; 4]> = answer.last_chunk().copied();
    Ok((answer[7] == 1).then_some(Ipv4Addr::from(address.context("short")?).into()))
}

fn resolver(container: &Container) -> Result<UdpSocket> {
    let socket = container.run(|| UdpSocket::bind("0.0.0.0:0"))?;
    socket.set_read_timeout(Some(Duration::from_secs(5)))?;
    Ok(socket)
}

pub fn reaches(from: &Container, to: &Container) -> Result<()> {
    let echo = to.echo()?;
    let address = (to.address(), SERVICE).into();
    let stream = from.run(|| TcpStream::connect_timeout(&address, LIMIT))?;
    bed::exchange(stream, 4 << 20)?;
    echo.join().unwrap();
    Ok(())
}

pub fn members_reach_each_other_and_leave_nothing() -> Result<()> {
    let networks = Networks::new("members");
    let launcher = networks.launcher();
    let (a, b) = (
        Container::with(bed::interface_of(2))?,
        Container::with(bed::interface_of(3))?,
    );
    let (mut first, _) = a.join(&launcher, &seat(2, &["a"]))?;
    let (second, _) = b.join(&launcher, &seat(3, &["b", "server"]))?;
    let process = networks.process()?;
    reaches(&a, &b)?;
    reaches(&b, &a)?;
    let socket = resolver(&a)?;
    ensure!(resolve(&socket, "server")? == Some(b.address().into()));
    ensure!(resolve(&socket, "a")? == Some(a.address().into()));
    // One whose frames are messages.
    let (ours, member) = bed::packets();
    let (mut third, _) = bed::join(&launcher, &seat(4, &["vm"]), &member)?;
    ensure!(resolve(&socket, "vm")? == Some(Ipv4Addr::new(10, 0, 2, 4).into()));
    socket.send_to(b"hello vm", (Ipv4Addr::new(10, 0, 2, 4), 9))?;
    let frame = hear(&ours)?;
    ensure!(frame.ends_with(b"hello vm"), "{frame:?}");
    // From the sender itself, with its own address.
    ensure!(
        frame[12 + 6..12 + 12] == bed::interface_of(2).mac,
        "{frame:?}"
    );
    // By another name.
    third.rename(vec!["guest".to_owned()])?;
    ensure!(matches!(bed::hear(&mut third)?, Heard::Done));
    ensure!(resolve(&socket, "vm")?.is_none());
    ensure!(resolve(&socket, "guest")? == Some(Ipv4Addr::new(10, 0, 2, 4).into()));
    // Those who leave are gone for the others, and the others stay.
    drop(third);
    ensure!(resolve(&socket, "guest")?.is_none());
    drop(second);
    ensure!(resolve(&socket, "server")?.is_none());
    let counts = first.counters(LIMIT)?;
    ensure!(counts.frames_received > 0, "{counts:?}");
    ensure!(networks.process()? == process);
    drop(first);
    networks.is_gone(process)
}

fn hear(socket: &OwnedFd) -> Result<Vec<u8>> {
    let mut fds = [PollFd::new(socket, PollFlags::IN)];
    ensure!(
        poll(&mut fds, Some(&Timespec::try_from(LIMIT)?))? == 1,
        "no frame"
    );
    let mut frame = vec![0; 70_000];
    let (length, _) = rustix::net::recv(socket, &mut frame[..], RecvFlags::empty())?;
    frame.truncate(length);
    Ok(frame)
}

pub fn names_are_answered_while_members_come_and_go() -> Result<()> {
    const ROUNDS: usize = 150;
    let networks = Networks::new("names");
    let launcher = networks.launcher();
    let a = Container::with(bed::interface_of(2))?;
    let (first, _) = a.join(&launcher, &seat(2, &["a"]))?;
    let (_ours, member) = bed::packets();
    let (second, _) = bed::join(&launcher, &seat(3, &["b"]), &member)?;
    let process = networks.process()?;
    let socket = resolver(&a)?;
    let done = AtomicBool::new(false);
    let asked = std::thread::scope(|scope| -> Result<usize> {
        let asking = scope.spawn(|| -> Result<usize> {
            let mut asked = 0;
            while !done.load(Ordering::Relaxed) {
                let found = resolve(&socket, "b").with_context(|| format!("question {asked}"))?;
                ensure!(
                    found == Some(Ipv4Addr::new(10, 0, 2, 3).into()),
                    "{found:?}"
                );
                asked += 1;
            }
            Ok(asked)
        });
        let churn = || -> Result<()> {
            for round in 0..ROUNDS {
                let (_ours, member) = bed::packets();
                let number = 10 + u8::try_from(round % 100)?;
                drop(bed::join(
                    &launcher,
                    &seat(number, &["guest", "b2"]),
                    &member,
                )?);
            }
            Ok(())
        };
        let churned = churn();
        done.store(true, Ordering::Relaxed);
        let asked = asking.join().unwrap()?;
        churned.map(|()| asked)
    })?;
    println!("{asked} questions, {ROUNDS} members came and went");
    ensure!(asked > ROUNDS, "{asked} questions were asked");
    drop((first, second));
    networks.is_gone(process)
}

pub fn a_killed_process_is_followed_by_another_that_all_join() -> Result<()> {
    let networks = Networks::new("killed");
    let launcher = networks.launcher();
    let (a, b) = (
        Container::with(bed::interface_of(2))?,
        Container::with(bed::interface_of(3))?,
    );
    let mut seat_b = seat(3, &["b"]);
    seat_b.network.ports = vec![bed::port((0, 0))];
    let (mut first, _) = a.join(&launcher, &seat(2, &["a"]))?;
    let (mut second, ports) = b.join(&launcher, &seat_b)?;
    let port = ports[0].host_port;
    let killed = networks.process()?;
    kill_process(killed, Signal::KILL)?;
    for process in [&mut first, &mut second] {
        let ended = process.counters(LIMIT);
        ensure!(matches!(ended, Err(ProcessError::Ended)), "{ended:?}");
        process.kill();
    }
    seat_b.network.ports = vec![bed::port((port, port))];
    drop((first, second));
    let (first, second) = std::thread::scope(|scope| {
        let one = scope.spawn(|| a.join(&launcher, &seat(2, &["a"])));
        let two = scope.spawn(|| b.join(&launcher, &seat_b));
        (one.join().unwrap(), two.join().unwrap())
    });
    let (first, (second, ports)) = (first?, second?);
    ensure!(ports[0].host_port == port, "{ports:?}");
    reaches(&a, &b)?;
    ensure!(resolve(&resolver(&a)?, "b")? == Some(b.address().into()));
    let process = networks.process()?;
    ensure!(process != killed);
    // Who leaves gives its ports back, whoever stays.
    drop(second);
    TcpListener::bind(("0.0.0.0", port)).context("the port is not free")?;
    drop(first);
    networks.is_gone(process)
}

pub fn many_that_join_at_once_are_in_one_network() -> Result<()> {
    const MEMBERS: u8 = 20;
    let networks = Networks::new("many");
    let launcher = networks.launcher();
    for round in 0..5 {
        let begun = Instant::now();
        let joined: Vec<(OwnedFd, Process, Member)> = std::thread::scope(|scope| {
            let all: Vec<_> = (0..MEMBERS)
                .map(|number| {
                    let launcher = &launcher;
                    scope.spawn(move || -> Result<_> {
                        let (ours, member) = bed::packets();
                        let seat = seat(10 + number, &[&format!("m{number}")]);
                        let (process, _) = bed::join(launcher, &seat, &member)?;
                        Ok((ours, process, member))
                    })
                })
                .collect();
            all.into_iter()
                .map(|one| one.join().unwrap())
                .collect::<Result<_>>()
        })?;
        println!("{MEMBERS} joined in {:?}", begun.elapsed());
        let process = networks.process()?;
        // Each hears what another one sends to all: nobody is in a network of its own.
        let (sender, ..) = &joined[usize::from(round)];
        let mut frame = vec![0; 12];
        frame.extend([0xff; 6]);
        frame.extend(bed::interface_of(10 + round).mac);
        frame.extend(b"\x08\0\x45\0\0\x1d\0\0\0\0\x40\x11\0\0");
        frame.extend([10, 0, 2, 10 + round, 255, 255, 255, 255]);
        frame.extend(b"\0\x09\0\x09\0\x09\0\0!");
        let sum = checksum(&frame[26..46]);
        frame[36..38].copy_from_slice(&sum.to_be_bytes());
        rustix::net::send(sender, &frame, SendFlags::empty())?;
        for (at, (ours, ..)) in joined.iter().enumerate() {
            if at != usize::from(round) {
                let heard = hear(ours)?;
                ensure!(heard.ends_with(b"!"), "{heard:?}");
            }
        }
        // All leave at once, too.
        std::thread::scope(|scope| {
            for (_, process, _) in joined {
                scope.spawn(move || drop(process));
            }
        });
        // Whoever is the last leaves nothing; with others about, one may have left it to them.
        tidy(&networks.0, ID)?;
        networks.is_gone(process)?;
    }
    Ok(())
}

/// Of an IPv4 header (RFC 1071).
fn checksum(header: &[u8]) -> u16 {
    let words = header
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let sum: u32 = words.sum();
    !u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap_or(0)
}

pub fn who_does_not_fit_is_told() -> Result<()> {
    let networks = Networks::new("fit");
    let launcher = networks.launcher();
    let (_ours, member) = bed::packets();
    let (first, _) = bed::join(&launcher, &seat(2, &["a"]), &member)?;
    let process = networks.process()?;
    let refusal = |seat: &Seat| -> Result<String> {
        let (_ours, member) = bed::packets();
        match launcher.start(seat, &member)?.wait_until_ready(LIMIT) {
            Err(ProcessError::Refused(message)) => Ok(message),
            other => bail!("{other:?}"),
        }
    };
    let mut other = seat(3, &[]);
    other.interface.mtu = 1500;
    ensure!(refusal(&other)? == "the network is in use with another configuration");
    // An address that is taken.
    let taken = refusal(&seat(2, &[]))?;
    ensure!(taken.contains("address"), "{taken}");
    let mut wrong = seat(3, &[]);
    wrong.network.egress = Some("everywhere".to_owned());
    ensure!(refusal(&wrong)?.starts_with("egress: "));
    let mut nameless = seat(3, &[]);
    if let Some(membership) = &mut nameless.membership {
        membership.id = "../x".to_owned();
    }
    ensure!(refusal(&nameless)?.contains("this is no network's id"));
    // The one that is there has not noticed.
    ensure!(networks.process()? == process);
    drop(first);
    networks.is_gone(process)
}
