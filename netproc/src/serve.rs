//! The process: from its first request to the end of its control connection.

use crate::message::{Answer, Carrier, Incoming, Link, Request, Start, send};
use crate::ports::{self, OpenSocket};
use crate::{RELAY_OPTION, jail, names, relay};
use hullbox_backend::network::OpenPort;
use hullbox_host::privileges::more_descriptors;
use hullbox_net::policy::Policy;
use hullbox_net::{
    Control, LinkFd, Mac, MemberConfig, MemberId, NetError, Network, NetworkConfig, Rates, Subnet,
};
use hullbox_protocol::{NETWORK_FRAME_PORTS, NETWORK_VSOCK_OPTION};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

/// How long the member's stream may take to be dialled. The helper machine is emulated.
const DIAL_LIMIT: Duration = Duration::from_secs(60);
/// The stack of the thread that answers on the control connection, in bytes.
const STACK_BYTES: usize = 128 * 1024;

/// The process's entry: what follows [`crate::ENTRY`] on the command line. Standard input is the control
/// connection.
#[must_use]
pub fn main(arguments: &[OsString]) -> ExitCode {
    let ended = match arguments {
        [] => run(&Place::Here),
        [option, path] if option == NETWORK_VSOCK_OPTION => run(&Place::Outside(path.into())),
        [option] if option == RELAY_OPTION => run(&Place::Machine(relay::Host::Vsock)),
        [option, path] if option == RELAY_OPTION => {
            run(&Place::Machine(relay::Host::Unix(path.into())))
        }
        _ => Err(io::ErrorKind::InvalidInput.into()),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Where the process runs.
enum Place {
    /// Beside its monitor.
    Here,
    /// On the host, for a monitor in the helper machine; with the path that stands for its vsock.
    Outside(PathBuf),
    /// In the helper machine, where the host is reached so.
    Machine(relay::Host),
}

fn run(place: &Place) -> io::Result<()> {
    let control = jail::detach()?;
    let mut incoming = Incoming::default();
    let Some(Request::Start(start)) = incoming.wait(&control)? else {
        return Ok(());
    };
    let descriptor = incoming.take_descriptor();
    let served = match place {
        Place::Machine(host) => relay::run(&control, host, *start, descriptor),
        Place::Here => serve(&control, incoming, &start, Source::Given(descriptor)),
        Place::Outside(vsock) => serve(&control, incoming, &start, Source::Dialled(vsock)),
    };
    if let Err(message) = served {
        // Whoever asked may be gone.
        let _ = send(control.as_fd(), &Answer::Failed { message }, None);
    }
    Ok(())
}

/// Where the member's frames are to come from.
enum Source<'a> {
    Given(Option<OwnedFd>),
    Dialled(&'a Path),
}

/// In words for whoever started the process: a failure before it is ready.
type Served = Result<(), String>;

fn words(what: &str) -> impl Fn(io::Error) -> String {
    move |error| format!("{what}: {error}")
}

fn serve(control: &OwnedFd, incoming: Incoming, start: &Start, source: Source<'_>) -> Served {
    more_descriptors();
    let config = network_config(start);
    let policy = policy(start.network.egress.as_deref())?;
    let (sockets, open) =
        ports::open_all(&start.network.ports).map_err(|error| error.to_string())?;
    let (link, answer) = match (start.member, source) {
        (Link::Inherited(carrier), Source::Given(Some(descriptor))) => {
            let answer = Answer::Ready {
                ports: open,
                dial_port: None,
            };
            (link_of(carrier, descriptor), Some(answer))
        }
        (Link::Dial, Source::Dialled(vsock)) => match dialled(control, vsock, open)? {
            Some(stream) => (LinkFd::Stream(stream), None),
            None => return Ok(()),
        },
        _ => return Err("the network's member is missing".to_owned()),
    };
    let watched = match &link {
        // It says nothing when its namespace is gone: whoever holds it keeps that.
        LinkFd::Tap(_) => None,
        LinkFd::Packets(fd) | LinkFd::Stream(fd) => {
            Some(fd.try_clone().map_err(words("cannot watch the member"))?)
        }
    };
    let failed = |error: NetError| hullbox_host::error::chain(&error);
    let member = member_config(start, policy, link);
    let (network, commands) = Network::new(config).map_err(failed)?;
    let attendant = Attendant {
        control: control
            .try_clone()
            .map_err(words("cannot keep the control connection"))?,
        incoming,
        watched,
        commands,
    };
    jail::give_up().map_err(words("cannot give up privileges"))?;
    let (locked_in, other) = channel();
    thread::Builder::new()
        .name("control".to_owned())
        .stack_size(STACK_BYTES)
        .spawn(move || attendant.run(member, sockets, answer, &locked_in))
        .map_err(words("cannot start a thread"))?;
    match other.recv() {
        Ok(Ok(())) => {}
        Ok(Err(error)) => return Err(words("cannot filter system calls")(error)),
        Err(_) => return Err("the control thread has ended".to_owned()),
    }
    // The member is added by the other thread, and that is answered by this one: no frame is read before.
    jail::lock_in().map_err(words("cannot filter system calls"))?;
    network.run().map_err(failed)
}

const fn link_of(carrier: Carrier, descriptor: OwnedFd) -> LinkFd {
    match carrier {
        Carrier::Tap => LinkFd::Tap(descriptor),
        Carrier::Packets => LinkFd::Packets(descriptor),
    }
}

fn network_config(start: &Start) -> NetworkConfig {
    let (network, interface) = (&start.network, &start.interface);
    let mut config = NetworkConfig::new(Mac(interface.gateway_mac));
    config.ipv4 = interface.ipv4.and_then(|addresses| {
        let prefix = addresses.prefix;
        addresses.gateway.map(|gateway| Subnet { gateway, prefix })
    });
    config.ipv6 = interface.ipv6.and_then(|addresses| {
        let prefix = addresses.prefix;
        addresses.gateway.map(|gateway| Subnet { gateway, prefix })
    });
    config.mtu = interface.mtu;
    config.dns = Some(names::config(&network.dns));
    config
}

fn policy(egress: Option<&str>) -> Result<Policy, String> {
    egress.map_or_else(
        || Ok(Policy::unrestricted()),
        |text| text.parse().map_err(|error| format!("egress: {error}")),
    )
}

fn member_config(start: &Start, policy: Policy, link: LinkFd) -> MemberConfig {
    let (network, interface) = (&start.network, &start.interface);
    MemberConfig {
        ipv4: interface.ipv4.map(|addresses| addresses.address),
        ipv6: interface.ipv6.map(|addresses| addresses.address),
        policy,
        host_gateway: network.host_gateway,
        rates: Rates {
            inbound: network.rate.inbound,
            outbound: network.rate.outbound,
        },
        ..MemberConfig::new(Mac(interface.mac), link)
    }
}

/// A socket that is removed with this value.
struct Door {
    listener: UnixListener,
    path: PathBuf,
    port: u32,
}

impl Drop for Door {
    fn drop(&mut self) {
        // Whoever cleans up the machine's files may have been here.
        let _ = fs::remove_file(&self.path);
    }
}

impl Door {
    /// Listens at a vsock port that nobody knows.
    fn open(vsock: &Path) -> io::Result<Self> {
        loop {
            let mut random = [0; 4];
            rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())?;
            let (first, last) = (*NETWORK_FRAME_PORTS.start(), *NETWORK_FRAME_PORTS.end());
            let port = first + u32::from_ne_bytes(random) % (last - first + 1);
            let path = socket_of(vsock, port);
            match UnixListener::bind(&path) {
                Ok(listener) => {
                    return Ok(Self {
                        listener,
                        path,
                        port,
                    });
                }
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// Where the guest's connection to a port of the host arrives, given the path that stands for its vsock.
pub fn socket_of(vsock: &Path, port: u32) -> PathBuf {
    let mut path = vsock.as_os_str().to_owned();
    path.push(format!("_{port}"));
    path.into()
}

/// Says where to dial, and takes one connection there. None if the control connection ends before.
fn dialled(
    control: &OwnedFd,
    vsock: &Path,
    ports: Vec<OpenPort>,
) -> Result<Option<OwnedFd>, String> {
    let failed = words("cannot listen for the container's frames");
    let door = Door::open(vsock).map_err(&failed)?;
    let answer = Answer::Ready {
        ports,
        dial_port: Some(door.port),
    };
    send(control.as_fd(), &answer, None).map_err(&failed)?;
    let deadline = Instant::now() + DIAL_LIMIT;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).unwrap_or_default();
        let mut fds = [
            PollFd::new(&door.listener, PollFlags::IN),
            PollFd::new(control, PollFlags::RDHUP),
        ];
        match poll(&mut fds, Some(&timeout)) {
            Ok(0) => return Ok(None),
            Ok(_) if !fds[1].revents().is_empty() => return Ok(None),
            Ok(_) => {
                let (stream, _) = door.listener.accept().map_err(&failed)?;
                return Ok(Some(stream.into()));
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(failed(errno.into())),
        }
    }
}

/// The thread that answers on the control connection, and ends the network with it or with the member.
struct Attendant {
    control: OwnedFd,
    incoming: Incoming,
    /// The member's other end is gone when this says so.
    watched: Option<OwnedFd>,
    commands: Control,
}

impl Attendant {
    fn run(
        mut self,
        member: MemberConfig,
        sockets: Vec<OpenSocket>,
        answer: Option<Answer>,
        locked_in: &Sender<io::Result<()>>,
    ) {
        // The network's thread waits for it.
        if locked_in.send(jail::lock_in()).is_err() {
            return;
        }
        match self.furnish(member, sockets) {
            Ok(member) => {
                let ready = answer.is_none_or(|answer| self.say(&answer));
                while ready && self.attend(member) {}
            }
            Err(error) => {
                let message = hullbox_host::error::chain(&error);
                self.say(&Answer::Failed { message });
            }
        }
        // It may have ended by itself.
        let _ = self.commands.stop();
        // The process ends with the other thread; this one's own end takes calls that nothing else does.
        loop {
            thread::park();
        }
    }

    fn furnish(
        &self,
        member: MemberConfig,
        sockets: Vec<OpenSocket>,
    ) -> Result<MemberId, NetError> {
        let member = self.commands.add_member(member)?;
        for port in sockets {
            let target = (member, port.container_port);
            self.commands.publish((port.kind, port.socket), target)?;
        }
        Ok(member)
    }

    /// Waits for a request and answers it. False when all is over.
    fn attend(&mut self, member: MemberId) -> bool {
        loop {
            match self.incoming.next::<Request>() {
                Ok(None) => break,
                Ok(Some(request)) => {
                    let answer = self.obey(request, member);
                    if !self.say(&answer) {
                        return false;
                    }
                }
                Err(_) => return false,
            }
        }
        let mut fds = vec![PollFd::new(&self.control, PollFlags::IN)];
        if let Some(watched) = &self.watched {
            fds.push(PollFd::new(watched, PollFlags::RDHUP));
        }
        match poll(&mut fds, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return false,
        }
        let happened = |at: usize| fds.get(at).is_some_and(|fd| !fd.revents().is_empty());
        if happened(1) {
            return false;
        }
        let spoke = happened(0);
        drop(fds);
        !spoke || self.incoming.fill(&self.control).unwrap_or(false)
    }

    fn obey(&self, request: Request, member: MemberId) -> Answer {
        let done = |result: Result<(), NetError>| match result {
            Ok(()) => Answer::Done,
            Err(error) => Answer::Failed {
                message: error.to_string(),
            },
        };
        match request {
            Request::Start(_) => Answer::Failed {
                message: "a network is served already".to_owned(),
            },
            Request::Counters => match self.commands.totals() {
                Ok(counters) => Answer::Counters(counters.into()),
                Err(error) => done(Err(error)),
            },
            Request::Policy(egress) => match policy(egress.as_deref()) {
                Ok(policy) => done(self.commands.set_policy(member, policy)),
                Err(message) => Answer::Failed { message },
            },
        }
    }

    /// Whether it could be said.
    fn say(&self, answer: &Answer) -> bool {
        send(self.control.as_fd(), answer, None).is_ok()
    }
}
