//! Namespaces: the host's, in which the whole test runs, and a container's with a TAP device.

use anyhow::{Context, Result, bail, ensure};
use hullbox_backend::network::{Member, OpenPort, PortProtocol, PublishedPort, UserNetwork};
use hullbox_net::open_tap;
use hullbox_netproc::{Heard, Launcher, Process, Refusal, Seat};
use hullbox_protocol::{Addresses, Interface};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 1);
pub const GUEST: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
pub const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfd48, 0x554c, 0x4c42, 0, 0, 0, 0, 1);
const GUEST_V6: Ipv6Addr = Ipv6Addr::new(0xfd48, 0x554c, 0x4c42, 0, 0, 0, 0, 2);
const GATEWAY_MAC: [u8; 6] = [2, 0x48, 0x55, 0x4c, 0x4c, 1];
pub const GUEST_MAC: [u8; 6] = [2, 1, 2, 3, 4, 5];
/// An address that is the host's, and like any other to a policy.
pub const HOST: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
/// The container's port that leads somewhere.
pub const SERVICE: u16 = 7777;
/// How long anything may take.
pub const LIMIT: Duration = Duration::from_secs(30);

/// A network namespace, held by a child that ends with this value.
pub struct Namespace {
    holder: Child,
    file: File,
}

impl Namespace {
    fn new() -> Result<Self> {
        let mut holder = Command::new("unshare")
            .args([
                "-n",
                "sh",
                "-c",
                "ip link set lo up && echo ready; read end",
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let mut line = String::new();
        BufReader::new(holder.stdout.take().context("no output")?).read_line(&mut line)?;
        let file = File::open(format!("/proc/{}/ns/net", holder.id()))?;
        let namespace = Self { holder, file };
        ensure!(line == "ready\n", "unshare failed");
        Ok(namespace)
    }

    fn enter(&self) {
        let kind = Some(LinkNameSpaceType::Network);
        move_into_link_name_space(self.file.as_fd(), kind).unwrap();
    }

    /// Runs something in the namespace. Sockets that it makes stay there.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                self.enter();
                work()
            });
            inside.join().unwrap()
        })
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// Moves this thread into a namespace of its own. None where that cannot be; says so.
pub fn become_host() -> Option<Namespace> {
    let host = Namespace::new().ok();
    let possible = rustix::process::geteuid().is_root() && File::open("/dev/net/tun").is_ok();
    match host.filter(|_| possible) {
        Some(host) => {
            host.enter();
            ip(&format!("addr add {HOST}/32 dev lo")).unwrap();
            Some(host)
        }
        None => {
            println!("skipped: needs root, /dev/net/tun, iproute2 and network namespaces");
            None
        }
    }
}

/// Runs `ip` with these words.
fn ip(words: &str) -> Result<()> {
    let output = Command::new("ip").args(words.split(' ')).output()?;
    if !output.status.success() {
        bail!("ip {words}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

/// A container with a TAP device.
pub struct Container {
    namespace: Namespace,
    interface: Interface,
    member: Member,
}

impl Container {
    pub fn new() -> Result<Self> {
        Self::with(interface())
    }

    /// One with this interface.
    pub fn with(interface: Interface) -> Result<Self> {
        let namespace = Namespace::new()?;
        let tap = namespace.run(|| -> Result<OwnedFd> {
            let tap = open_tap("eth0")?;
            let [a, b, c, d, e, f] = interface.mac;
            let (v4, v6) = (interface.ipv4.context("no IPv4")?, interface.ipv6.context("no IPv6")?);
            for words in [
                format!("link set eth0 address {a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x} mtu 65520 up"),
                format!("addr add {}/24 dev eth0", v4.address),
                format!("addr add {}/64 dev eth0 nodad", v6.address),
                format!("route add default via {GATEWAY}"),
            ] {
                ip(&words)?;
            }
            Ok(tap)
        })?;
        Ok(Self {
            namespace,
            interface,
            member: Member::Tap(tap),
        })
    }

    /// Its address.
    pub fn address(&self) -> Ipv4Addr {
        self.interface.ipv4.unwrap().address
    }

    /// Takes a place in a network that others share.
    pub fn join(&self, launcher: &Launcher, seat: &Seat) -> Result<(Process, Vec<OpenPort>)> {
        let seat = Seat {
            interface: self.interface.clone(),
            ..seat.clone()
        };
        join(launcher, &seat, &self.member)
    }

    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.namespace.run(work)
    }

    pub fn start(
        &self,
        launcher: &Launcher,
        network: &UserNetwork,
    ) -> Result<(Process, Vec<OpenPort>)> {
        start(launcher, network, &self.member)
    }

    /// Serves one connection at [`SERVICE`] with whatever it is sent.
    pub fn echo(&self) -> Result<std::thread::JoinHandle<()>> {
        let listener = self.run(|| TcpListener::bind(("0.0.0.0", SERVICE)))?;
        Ok(echo_once(listener))
    }
}

/// A member whose frames this test sends and receives: its end, and the process's.
pub fn packets() -> (OwnedFd, Member) {
    let flags = SocketFlags::CLOEXEC;
    let (ours, theirs) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
    (ours, Member::Packets(theirs))
}

pub fn start(
    launcher: &Launcher,
    network: &UserNetwork,
    member: &Member,
) -> Result<(Process, Vec<OpenPort>)> {
    let seat = Seat::alone(network.clone(), interface());
    let mut process = launcher.start(&seat, member)?;
    let ports = process.wait_until_ready(LIMIT)?;
    Ok((process, ports))
}

pub fn join(launcher: &Launcher, seat: &Seat, member: &Member) -> Result<(Process, Vec<OpenPort>)> {
    let mut process = launcher.start(seat, member)?;
    let ports = process.wait_until_ready(LIMIT)?;
    Ok((process, ports))
}

/// The interface of one of several members.
pub fn interface_of(number: u8) -> Interface {
    let mut interface = interface();
    interface.mac[5] = number;
    if let Some(ipv4) = &mut interface.ipv4 {
        ipv4.address = Ipv4Addr::new(10, 0, 2, number);
    }
    if let Some(ipv6) = &mut interface.ipv6 {
        let mut segments = ipv6.address.segments();
        segments[7] = number.into();
        ipv6.address = segments.into();
    }
    interface
}

pub fn interface() -> Interface {
    Interface {
        mac: GUEST_MAC,
        mtu: 65520,
        ipv4: Some(Addresses {
            address: GUEST,
            prefix: 24,
            gateway: Some(GATEWAY),
        }),
        ipv6: Some(Addresses {
            address: GUEST_V6,
            prefix: 64,
            gateway: Some(GATEWAY_V6),
        }),
        gateway_mac: GATEWAY_MAC,
        route_metric: Some(0),
    }
}

/// A network with the host's loopback behind its gateway, and one published port.
pub fn network() -> UserNetwork {
    UserNetwork {
        host_gateway: true,
        ports: vec![port((0, 0))],
        ..UserNetwork::default()
    }
}

pub fn port(host_ports: (u16, u16)) -> PublishedPort {
    PublishedPort {
        protocol: PortProtocol::Tcp,
        host_ip: None,
        host_ports,
        container_port: SERVICE,
    }
}

/// What the process says next, which is to be that it refused something.
pub fn hear_refusal(process: &mut Process) -> Result<Refusal> {
    match hear(process)? {
        Heard::Refused(refusal) => Ok(refusal),
        other => bail!("it said {other:?}"),
    }
}

/// What the process says next.
pub fn hear(process: &mut Process) -> Result<Heard> {
    loop {
        if let Some(heard) = process.hear()? {
            return Ok(heard);
        }
        let mut fds = [PollFd::new(&*process, PollFlags::IN)];
        let limit = Timespec::try_from(LIMIT)?;
        ensure!(poll(&mut fds, Some(&limit))? == 1, "it says nothing");
    }
}

/// Accepts one connection and sends back what comes, until it ends.
pub fn echo_once(listener: TcpListener) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        std::io::copy(&mut stream.try_clone().unwrap(), &mut stream).unwrap();
    })
}

/// Sends so many bytes to a server that echoes, and checks what comes back.
pub fn exchange(mut stream: TcpStream, bytes: usize) -> Result<()> {
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    let pattern: Vec<u8> = (0..bytes).map(|n| (n % 251) as u8).collect();
    let sent = pattern.clone();
    let mut writer = stream.try_clone()?;
    let thread = std::thread::spawn(move || -> std::io::Result<()> {
        writer.write_all(&sent)?;
        writer.shutdown(std::net::Shutdown::Write)
    });
    let mut received = Vec::new();
    stream.read_to_end(&mut received)?;
    thread.join().unwrap()?;
    ensure!(
        received == pattern,
        "{} bytes came back of {bytes}",
        received.len()
    );
    Ok(())
}

/// A socket with a time limit can be interrupted without any signal handler, when its process was stopped
/// and goes on (signal(7)).
pub fn uninterrupted<T>(mut call: impl FnMut() -> std::io::Result<T>) -> std::io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}
