//! Network namespaces of a test's own: a guest whose link our network serves, the host on which
//! the network runs, and the world behind it.

use anyhow::{Context, Result, bail, ensure};
use hullbox_net::policy::Policy;
use hullbox_net::{
    Control, LinkFd, Mac, MemberConfig, MemberId, Network, NetworkConfig, Offloads, Subnet,
    open_tap,
};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::relay::{Relay, Weather};

pub const WORLD_V4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
pub const WORLD_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 2);
pub const HOST_V4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
pub const HOST_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1);
pub const GATEWAY_V4: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
pub const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 1);
pub const GATEWAY_MAC: Mac = Mac([2, 0x77, 0, 0, 0, 1]);

/// Whether this machine lets the tests make namespaces; says so if it does not.
pub fn is_possible() -> bool {
    let possible = rustix::process::geteuid().is_root()
        && File::open("/dev/net/tun").is_ok()
        && Namespace::new().is_ok();
    if !possible {
        eprintln!("skipped: needs root, /dev/net/tun, iproute2 and network namespaces");
    }
    possible
}

/// A network namespace. It is held by a child that ends with this value.
pub struct Namespace {
    holder: Child,
    file: File,
}

impl Namespace {
    pub fn new() -> Result<Self> {
        let mut holder = Command::new("unshare")
            .args(["-n", "sh", "-c", "echo ready; read end"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        BufReader::new(holder.stdout.take().context("no output")?).read_line(&mut line)?;
        ensure!(line == "ready\n", "unshare failed");
        let file = File::open(format!("/proc/{}/ns/net", holder.id()))?;
        let namespace = Self { holder, file };
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    /// Runs something in the namespace. Sockets that it makes stay there.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                let kind = Some(LinkNameSpaceType::Network);
                move_into_link_name_space(self.file.as_fd(), kind).unwrap();
                work()
            });
            inside.join().unwrap()
        })
    }

    /// Runs `ip` with these words.
    pub fn ip(&self, words: &str) -> Result<()> {
        let words: Vec<&str> = words.split(' ').collect();
        let output = self.run(|| Command::new("ip").args(&words).output())?;
        if !output.status.success() {
            bail!("ip {words:?}: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(())
    }

    /// Sets a parameter of the namespace below /proc/sys/net.
    pub fn set(&self, name: &str, value: &str) -> Result<()> {
        Ok(self.run(|| std::fs::write(format!("/proc/sys/net/{name}"), value))?)
    }

    pub fn tap(&self, name: &str) -> Result<OwnedFd> {
        Ok(self.run(|| open_tap(name))?)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        drop(self.holder.stdin.take());
        let _ = self.holder.wait();
    }
}

/// A call that is made again when it was interrupted. A socket's with a time limit can be, without any
/// signal handler, when the process was stopped and goes on (signal(7)).
pub fn uninterrupted<T>(mut call: impl FnMut() -> std::io::Result<T>) -> std::io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// How a guest is joined to the network.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Carrier {
    Tap,
    Packets,
    Stream,
}

/// What a test asks for.
pub struct Plan {
    pub network: NetworkConfig,
    /// Of each guest.
    pub policy: Policy,
    /// For each guest.
    pub host_gateway: bool,
    pub carrier: Carrier,
    pub offloads: Offloads,
    /// Between guest and network; needs another carrier than a TAP.
    pub link_weather: Weather,
    /// Between host and world.
    pub world_weather: Weather,
    pub world_mtu: u32,
}

impl Default for Plan {
    fn default() -> Self {
        let mut network = NetworkConfig::new(GATEWAY_MAC);
        network.ipv4 = Some(Subnet {
            gateway: GATEWAY_V4,
            prefix: 24,
        });
        network.ipv6 = Some(Subnet {
            gateway: GATEWAY_V6,
            prefix: 64,
        });
        Self {
            network,
            policy: Policy::unrestricted(),
            host_gateway: false,
            carrier: Carrier::Tap,
            offloads: Offloads::ALL,
            link_weather: Weather::default(),
            world_weather: Weather::default(),
            world_mtu: 1500,
        }
    }
}

/// A guest.
pub struct Guest {
    pub namespace: Namespace,
    pub member: MemberId,
    pub v4: Ipv4Addr,
    pub v6: Ipv6Addr,
    _relay: Option<Relay>,
}

/// Namespaces and a network that runs.
pub struct Bed {
    pub guests: Vec<Guest>,
    pub host: Namespace,
    pub world: Namespace,
    pub control: Control,
    pub policy: Policy,
    host_gateway: bool,
    mtu: u16,
    thread: Option<JoinHandle<()>>,
    _relay: Option<Relay>,
}

impl Bed {
    /// Host, world and network, with one guest.
    pub fn new(plan: Plan) -> Result<Self> {
        let host = Namespace::new()?;
        let world = Namespace::new()?;
        let relay = join_world(&host, &world, &plan)?;
        let mtu = plan.network.mtu;
        let (network, control) = Network::new(plan.network)?;
        let file = host.file.try_clone()?;
        let thread = std::thread::spawn(move || {
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            network.run().unwrap();
        });
        let mut bed = Self {
            guests: Vec::new(),
            host,
            world,
            control,
            policy: plan.policy,
            host_gateway: plan.host_gateway,
            mtu,
            thread: Some(thread),
            _relay: relay,
        };
        bed.add_guest(plan.carrier, plan.offloads, plan.link_weather)?;
        Ok(bed)
    }

    /// Adds a guest.
    pub fn add_guest(
        &mut self,
        carrier: Carrier,
        offloads: Offloads,
        weather: Weather,
    ) -> Result<()> {
        let number = self.guests.len() as u8 + 2;
        let namespace = Namespace::new()?;
        let tap = namespace.tap("eth0")?;
        hullbox_net::set_tap_offloads(&tap, offloads.tso)?;
        let mac = Mac([2, 0x77, 0, 0, 0, number]);
        let v4 = Ipv4Addr::new(10, 77, 0, number);
        let v6 = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, u16::from(number));
        for words in [
            format!("link set eth0 address {mac} mtu {}", self.mtu),
            "link set eth0 up".into(),
            format!("addr add {v4}/24 dev eth0"),
            format!("addr add {v6}/64 dev eth0 nodad"),
            format!("route add default via {GATEWAY_V4}"),
            format!("-6 route add default via {GATEWAY_V6}"),
        ] {
            namespace.ip(&words)?;
        }
        let (link, relay) = carry(carrier, tap, weather)?;
        let member = self.control.add_member(MemberConfig {
            ipv4: Some(v4),
            ipv6: Some(v6),
            names: vec![format!("guest{number}")],
            policy: self.policy.clone(),
            host_gateway: self.host_gateway,
            offloads,
            ..MemberConfig::new(mac, link)
        })?;
        self.guests.push(Guest {
            namespace,
            member,
            v4,
            v6,
            _relay: relay,
        });
        Ok(())
    }

    pub fn guest(&self) -> &Guest {
        &self.guests[0]
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        let _ = self.control.stop();
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            if !std::thread::panicking() {
                ended.unwrap();
            }
        }
    }
}

fn carry(carrier: Carrier, tap: OwnedFd, weather: Weather) -> Result<(LinkFd, Option<Relay>)> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    let pair = |kind| socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None);
    Ok(match carrier {
        Carrier::Tap => (LinkFd::Tap(tap), None),
        Carrier::Packets => {
            let (ours, theirs) = pair(SocketType::SEQPACKET)?;
            (
                LinkFd::Packets(theirs),
                Some(Relay::packets(tap, ours, weather)?),
            )
        }
        Carrier::Stream => {
            let (ours, theirs) = pair(SocketType::STREAM)?;
            (LinkFd::Stream(theirs), Some(Relay::stream(tap, ours)?))
        }
    })
}

/// A veth pair; or two TAP devices with weather between them.
fn join_world(host: &Namespace, world: &Namespace, plan: &Plan) -> Result<Option<Relay>> {
    let relay = if plan.world_weather == Weather::default() {
        let pid = world.holder.id();
        host.ip(&format!("link add up0 type veth peer name up0 netns {pid}"))?;
        None
    } else {
        let (ours, theirs) = (host.tap("up0")?, world.tap("up0")?);
        Some(Relay::packets(ours, theirs, plan.world_weather)?)
    };
    for (side, v4, v6) in [(host, HOST_V4, HOST_V6), (world, WORLD_V4, WORLD_V6)] {
        side.ip(&format!("link set up0 mtu {} up", plan.world_mtu))?;
        side.ip(&format!("addr add {v4}/24 dev up0"))?;
        side.ip(&format!("addr add {v6}/64 dev up0 nodad"))?;
    }
    Ok(relay)
}

/// The address of the world of one family.
pub fn world(is_v6: bool) -> IpAddr {
    if is_v6 {
        WORLD_V6.into()
    } else {
        WORLD_V4.into()
    }
}

/// Longest wait for anything: only a failure waits so long.
pub const PATIENCE: Duration = Duration::from_secs(60);
