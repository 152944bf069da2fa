//! A container's user-mode networks, as its monitor has them: who may need a process that serves one, and when.
//!
//! The monitor holds the descriptors that carry the container's frames and reads none of them. A
//! container that publishes ports gets its process before its workload starts; any other one with the
//! first frame that it sends, so that what never uses its network costs nothing. While there is a process
//! its connection alone is watched. One that died is started again by the same rule, with the ports that
//! it had, but not more often than once a second.
//!
//! In a network that others share the container is from the start, because they may speak first. Its
//! process is another's as well, or nobody's; what is started here joins it.

use hullbox_backend::bundle::Bundle;
use hullbox_backend::network::{Member, Membership, Network, OpenPort, PublishedPort, UserNetwork};
use hullbox_host::error::chain;
use hullbox_host::paths::networks_beside;
use hullbox_netproc::{Launcher, Process, ProcessError, Seat};
use hullbox_protocol::{Failure, FailureKind, Interface, MAX_INTERFACES};
use rustix::event::{PollFd, PollFlags};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How long a process may take until it serves. A helper machine is emulated, and so is its host busy.
const READY_LIMIT: Duration = Duration::from_secs(60);
/// Least time from one start of the process to the next; twice as long after each that failed.
const PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_mins(1);
/// A process that served for this long was a good one.
const GOOD_RUN: Duration = Duration::from_secs(10);

/// What is done for the networks of one run of a container.
#[derive(Debug, Default)]
pub(super) struct ContainerNetwork {
    /// What it may do in each of them; none where it has none in user mode.
    user: Option<UserNetwork>,
    /// How processes are started, and where networks have their sockets that containers share.
    launcher: Option<(Launcher, PathBuf)>,
    /// Its interfaces.
    places: Vec<Served>,
}

/// An interface and whoever carries its frames on.
#[derive(Debug)]
struct Served {
    /// The number in the interface's name.
    index: u8,
    launcher: Launcher,
    seat: Seat,
    member: Member,
    phase: Phase,
    begun: Option<Instant>,
    /// Starts in a row that came to nothing.
    failures: u32,
    /// Its clients heard that it cannot be served.
    has_warned: bool,
    /// The client that asked for it, if it is still there, until it serves.
    asked: Option<Option<u64>>,
}

#[derive(Debug)]
enum Phase {
    /// There is no process, nor will there be one before that time.
    Waiting(Option<Instant>),
    /// It has not answered, and has until then.
    Starting(Box<Process>, Instant),
    /// It serves.
    Serving(Box<Process>),
}

/// What came of a turn.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum News {
    /// The container's clients should hear this.
    Warning(String),
    /// The container is in a network that a client asked for.
    Connected(Option<u64>),
    /// It is not, for this reason; the interface of that number is of no use.
    Refused(Option<u64>, u8, String),
}

impl ContainerNetwork {
    /// That of a container whose frames these descriptors carry.
    pub(super) fn new(bundle: &Bundle, members: Vec<Member>) -> Self {
        let Network::User(user) = &bundle.network else {
            return Self::default();
        };
        let interfaces = bundle.setup.interfaces.as_slice();
        let mut network = Self {
            user: Some(user.clone()),
            launcher: Some((Launcher::default(), networks_beside(&bundle.runtime_dir))),
            places: Vec::new(),
        };
        let own = user.has_own(interfaces.len()).then_some(None);
        let memberships = own.into_iter().chain(user.shared.iter().map(Some));
        let all = (0..).zip(interfaces.iter().zip(memberships).zip(members));
        for (index, ((interface, membership), member)) in all {
            let seat = network.seat(user, interface, membership, interfaces.len() > 1);
            let launcher = network.launcher(membership);
            network
                .places
                .push(Served::new(index, launcher, seat, member));
        }
        network
    }

    /// That of a container with one interface.
    #[cfg(test)]
    pub(super) fn served_by(
        launcher: Launcher,
        networks: PathBuf,
        seat: Seat,
        member: Member,
    ) -> Self {
        let mut network = Self {
            user: Some(seat.network.clone()),
            launcher: Some((launcher, networks)),
            places: Vec::new(),
        };
        let launcher = network.launcher(seat.membership.as_ref());
        network.places.push(Served::new(0, launcher, seat, member));
        network
    }

    #[cfg(test)]
    pub(super) fn use_networks_in(&mut self, dir: &std::path::Path) {
        if let Some((_, networks)) = &mut self.launcher {
            dir.clone_into(networks);
        }
    }

    fn seat(
        &self,
        user: &UserNetwork,
        interface: &Interface,
        membership: Option<&Membership>,
        has_other_networks: bool,
    ) -> Seat {
        // Ports lead to the first interface.
        let ports = match self.places.is_empty() {
            true => user.ports.clone(),
            false => Vec::new(),
        };
        Seat {
            network: UserNetwork {
                ports,
                shared: Vec::new(),
                ..user.clone()
            },
            interface: interface.clone(),
            membership: membership.cloned(),
            has_other_networks,
        }
    }

    fn launcher(&self, membership: Option<&Membership>) -> Launcher {
        let known = self.launcher.clone();
        let (launcher, networks) = known.unwrap_or_default();
        match membership {
            Some(_) => launcher.joining(&networks),
            None => launcher,
        }
    }

    /// Opens the published ports, and joins networks that others share, before the workload starts. Later
    /// processes open the same ports.
    pub(super) fn open(&mut self) -> Result<Vec<OpenPort>, Failure> {
        let opened = self.open_all();
        opened.map_err(|error| {
            self.places.clear();
            Failure {
                kind: FailureKind::Setup,
                message: chain(&error),
            }
        })
    }

    fn open_all(&mut self) -> Result<Vec<OpenPort>, ProcessError> {
        let mut eager: Vec<&mut Served> = (self.places.iter_mut())
            .filter(|served| served.is_eager())
            .collect();
        let started = eager.iter_mut().map(|served| served.start());
        // All begin before any is waited for.
        let processes = started.collect::<Result<Vec<_>, _>>()?;
        let mut all = Vec::new();
        for (served, mut process) in eager.into_iter().zip(processes) {
            let ports = process.wait_until_ready(READY_LIMIT)?;
            served.seat.network.ports = ports.iter().map(the_same).collect();
            served.phase = Phase::Serving(process);
            all.extend(ports);
        }
        Ok(all)
    }

    /// Another guest has taken the place of the one whose frames were carried: by these descriptors from
    /// now on. The guest of before may have sent nothing that matters.
    pub(super) fn replace(&mut self, members: Vec<Member>) -> Result<(), Failure> {
        let mut members = members.into_iter();
        self.places.retain_mut(|served| {
            served.phase = Phase::Waiting(None);
            members
                .next()
                .map(|member| served.member = member)
                .is_some()
        });
        self.open().map(drop)
    }

    /// What to poll for, if anything, of each interface.
    pub(super) fn interests(&self) -> impl Iterator<Item = Option<PollFd<'_>>> {
        self.places.iter().map(|served| {
            let fd = match &served.phase {
                Phase::Waiting(Some(_)) => return None,
                Phase::Waiting(None) => served.member(),
                Phase::Starting(process, _) | Phase::Serving(process) => process.as_fd(),
            };
            Some(PollFd::from_borrowed_fd(fd, PollFlags::IN))
        })
    }

    /// When [`Self::turn`] has to be called although nothing happened.
    pub(super) fn due(&self) -> Option<Instant> {
        let dues = self.places.iter().filter_map(|served| match served.phase {
            Phase::Waiting(due) => due,
            Phase::Starting(_, deadline) => Some(deadline),
            Phase::Serving(_) => None,
        });
        dues.min()
    }

    /// Does what is due after these events of [`Self::interests`].
    pub(super) fn turn(&mut self, events: &[PollFlags]) -> Vec<News> {
        let mut news = Vec::new();
        let now = Instant::now();
        let mut events = events.iter();
        self.places.retain_mut(|served| {
            let events = events.next().copied().unwrap_or(PollFlags::empty());
            served.turn(events, now, &mut news)
        });
        news
    }

    /// The container's networks and interfaces, as they are kept for its next run.
    pub(super) fn kept(&self) -> Option<(UserNetwork, Vec<Interface>)> {
        let user = self.user.as_ref()?;
        let memberships = self
            .places
            .iter()
            .filter_map(|served| served.seat.membership.clone());
        let interfaces = self
            .places
            .iter()
            .map(|served| served.seat.interface.clone());
        let user = UserNetwork {
            shared: memberships.collect(),
            ..user.clone()
        };
        Some((user, interfaces.collect()))
    }

    /// The number of an interface for one more network.
    ///
    /// # Errors
    /// In one line: why it cannot be in there.
    pub(super) fn place_for(&self, membership: Option<&Membership>) -> Result<u8, String> {
        if self.user.is_none() {
            return Err("the container has no network that could be changed".to_owned());
        }
        if self
            .find(membership.map(|membership| membership.id.as_str()))
            .is_some()
        {
            return Err("the container is in this network already".to_owned());
        }
        let most = u8::try_from(MAX_INTERFACES).unwrap_or(u8::MAX);
        let is_free = |index: &u8| self.places.iter().all(|served| served.index != *index);
        let free = (0..most).find(is_free);
        free.ok_or_else(|| format!("a container is in {MAX_INTERFACES} networks at the most"))
    }

    /// The metric of one more default route, if there is to be one: another one's would replace that.
    pub(super) fn metric_for(&self, wanted: Option<u32>) -> Option<u32> {
        let is_taken = |metric: u32| {
            let mut places = self.places.iter();
            places.any(|served| served.seat.interface.route_metric == Some(metric))
        };
        let free = |wanted| (wanted..).find(|metric| !is_taken(*metric));
        wanted.and_then(free)
    }

    /// Whether it is in this network, by which interface; none is its own network.
    pub(super) fn find(&self, network: Option<&str>) -> Option<u8> {
        let is_it = |served: &&Served| {
            let membership = served.seat.membership.as_ref();
            membership.map(|membership| membership.id.as_str()) == network
        };
        self.places.iter().find(is_it).map(|served| served.index)
    }

    /// Joins one more network, for this client, by an interface that is there. Whether it has to wait for
    /// that.
    pub(super) fn connect(&mut self, client: Option<u64>, place: Place, member: Member) -> bool {
        let Place {
            index,
            membership,
            interface,
        } = place;
        let user = self.user.clone().unwrap_or_default();
        let has_others = !self.places.is_empty();
        let mut seat = self.seat(&user, &interface, membership.as_ref(), has_others);
        // They were opened where they lead to.
        seat.network.ports.clear();
        let mut served = Served::new(index, self.launcher(membership.as_ref()), seat, member);
        if membership.is_none() {
            // One of its own is served when it is used, and kept as the first.
            self.places.insert(0, served);
            return false;
        }
        served.asked = Some(client);
        // It begins with the next turn.
        served.phase = Phase::Waiting(Some(Instant::now()));
        self.places.push(served);
        true
    }

    /// Leaves the network that this interface is in.
    pub(super) fn disconnect(&mut self, index: u8) {
        self.places.retain(|served| served.index != index);
    }

    /// Has the processes end, if there are any. They have ended when this is dropped.
    pub(super) fn close(&self) {
        for served in &self.places {
            if let Phase::Starting(process, _) | Phase::Serving(process) = &served.phase {
                process.close();
            }
        }
    }

    #[cfg(test)]
    pub(super) fn is_serving(&self) -> bool {
        let mut phases = self.places.iter().map(|served| &served.phase);
        !self.places.is_empty() && phases.all(|phase| matches!(phase, Phase::Serving(_)))
    }

    #[cfg(test)]
    pub(super) fn pid(&self) -> Option<u32> {
        match &self.places.first()?.phase {
            Phase::Waiting(_) => None,
            Phase::Starting(process, _) | Phase::Serving(process) => Some(process.pid()),
        }
    }
}

/// An interface that the container gets while it runs.
#[derive(Debug)]
pub(super) struct Place {
    /// The number in the interface's name.
    pub(super) index: u8,
    /// None in a network of its own.
    pub(super) membership: Option<Membership>,
    pub(super) interface: Interface,
}

impl Served {
    const fn new(index: u8, launcher: Launcher, seat: Seat, member: Member) -> Self {
        Self {
            index,
            launcher,
            seat,
            member,
            phase: Phase::Waiting(None),
            begun: None,
            failures: 0,
            has_warned: false,
            asked: None,
        }
    }

    /// Whether it is served before it has sent anything: whoever connects to a published port sends the
    /// first frame, and so may another member.
    const fn is_eager(&self) -> bool {
        !self.seat.network.ports.is_empty() || self.seat.membership.is_some()
    }

    /// False when there is nothing to serve any more.
    fn turn(&mut self, events: PollFlags, now: Instant, news: &mut Vec<News>) -> bool {
        let result = match &mut self.phase {
            Phase::Waiting(Some(due)) if *due > now => return true,
            Phase::Waiting(Some(_)) => {
                self.phase = Phase::Waiting(None);
                match self.is_eager() {
                    true => self.begin(now),
                    false => return true,
                }
            }
            Phase::Waiting(None) => {
                if events.intersects(PollFlags::HUP | PollFlags::ERR) {
                    // The interface is gone, and with it the container, of which others tell.
                    return false;
                }
                match events.contains(PollFlags::IN) {
                    true => self.begin(now),
                    false => return true,
                }
            }
            Phase::Starting(_, deadline) if *deadline <= now => Err(ProcessError::Silent),
            Phase::Starting(..) | Phase::Serving(_) if events.is_empty() => return true,
            Phase::Starting(process, _) | Phase::Serving(process) => process.ready().map(|ready| {
                if ready.is_some() {
                    self.serve();
                    news.extend(self.asked.take().map(News::Connected));
                }
            }),
        };
        let Err(error) = result else {
            return true;
        };
        if let Some(client) = self.asked {
            news.push(News::Refused(client, self.index, chain(&error)));
            return false;
        }
        news.extend(self.failed(&error, now).map(News::Warning));
        true
    }

    fn member(&self) -> BorrowedFd<'_> {
        match &self.member {
            Member::Tap(fd) | Member::Packets(fd) => fd.as_fd(),
        }
    }

    fn start(&mut self) -> Result<Box<Process>, ProcessError> {
        self.begun = Some(Instant::now());
        self.launcher.start(&self.seat, &self.member).map(Box::new)
    }

    fn begin(&mut self, now: Instant) -> Result<(), ProcessError> {
        let process = self.start()?;
        self.phase = Phase::Starting(process, now + READY_LIMIT);
        Ok(())
    }

    fn serve(&mut self) {
        self.phase = match std::mem::replace(&mut self.phase, Phase::Waiting(None)) {
            Phase::Starting(process, _) => Phase::Serving(process),
            other => other,
        };
    }

    /// There is no process any more. Returns what clients should hear: why the first one could not serve.
    fn failed(&mut self, error: &ProcessError, now: Instant) -> Option<String> {
        if let Phase::Starting(process, _) | Phase::Serving(process) = &mut self.phase {
            // One that is of no use is not waited for.
            process.kill();
        }
        let has_served = matches!(self.phase, Phase::Serving(_));
        let begun = self.begun.unwrap_or(now);
        self.failures = match has_served && now.duration_since(begun) >= GOOD_RUN {
            true => 0,
            false => self.failures.saturating_add(1),
        };
        self.phase = Phase::Waiting(Some(begun + pause(self.failures)));
        let warns = !has_served && !std::mem::replace(&mut self.has_warned, true);
        warns.then(|| format!("the container has no network: {}", chain(error)))
    }
}

/// The least time between two starts, after so many in a row that came to nothing.
fn pause(failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    PAUSE.saturating_mul(1 << doublings).min(LONGEST_PAUSE)
}

/// A port to be opened as this one was.
fn the_same(port: &OpenPort) -> PublishedPort {
    PublishedPort {
        protocol: port.protocol,
        host_ip: Some(port.host_ip),
        host_ports: (port.host_port, port.host_port),
        container_port: port.container_port,
    }
}
