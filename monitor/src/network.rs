//! A container's user-mode networks, as its monitor has them: who may need a process that serves one, and when.
//!
//! The monitor holds the descriptors that carry the container's frames and reads none of them. A
//! container that publishes ports gets its process before its workload starts; any other one with the
//! first frame that it sends, so that what never uses its network costs nothing. While there is a process
//! its connection alone is watched. One that died is started again by the same rule, with the ports that
//! it had, but not more often than once a second.
//!
//! While the process that a container needs is gone, the container's interface has no link.
//!
//! In a network that others share the container is from the start, because they may speak first. Its
//! process is another's as well, or nobody's; what is started here joins it.

mod report;
mod served;

use hullbox_backend::bundle::Bundle;
use hullbox_backend::network::{Member, Membership, Network, OpenPort, PublishedPort, UserNetwork};
use hullbox_host::error::chain;
use hullbox_host::paths::networks_beside;
use hullbox_model::container::Refused;
use hullbox_netproc::{Launcher, Process, ProcessError, Refusal, Seat, Telling};
use hullbox_protocol::{Failure, FailureKind, Interface, MAX_INTERFACES, NameFiles, Setup};
use rustix::event::{PollFd, PollFlags};
use served::{Phase, READY_LIMIT, Served};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How long processes may take to answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);
/// The same when the container has ended, and others wait for that.
const LAST_LIMIT: Duration = Duration::from_millis(500);

/// What is done for the networks of one run of a container.
#[derive(Debug, Default)]
pub(super) struct ContainerNetwork {
    /// What it may do in each of them; none where it has none in user mode.
    user: Option<UserNetwork>,
    /// How processes are started, and where networks have their sockets that containers share.
    launcher: Option<(Launcher, PathBuf)>,
    /// Its interfaces.
    places: Vec<Served>,
    /// What it knows of its networks' names.
    names: NameFiles,
    /// Those that it had.
    leaving: Vec<Leaving>,
    /// Clients that wait for answers of the processes, and until when.
    asking: Vec<(u64, Question)>,
    answers_due: Option<Instant>,
    /// Which refusals become events. The processes bound themselves, as long as they are what they should be.
    telling: Telling<String>,
    /// Since when that counts time.
    since: Option<Instant>,
}

/// A process that is to end, or to have one member less.
#[derive(Debug)]
struct Leaving {
    process: Box<Process>,
    /// When it is not waited for any more.
    due: Instant,
    /// The client that asked for it, and the interface's number.
    client: u64,
    index: u8,
}

/// What a client wants to know, or to have done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Question {
    /// What the container was refused.
    Refused,
    /// Have its names in its networks changed.
    Names,
}

/// What came of a turn.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum News {
    /// The container's clients should hear this.
    Warning(String),
    /// The container is in a network that a client asked for, and knows these names.
    Connected(Option<u64>, Box<NameFiles>),
    /// It is not, for this reason; the interface of that number is of no use.
    Refused(Option<u64>, u8, String),
    /// It has left a network, as that client asked for; so can the interface of that number.
    Left(u64, u8),
    /// The container should see a link at the interface of that number, or none.
    Link(u8, bool),
    /// The container was refused something, in the network of this id or its own.
    Denied(Option<String>, Refusal),
    /// The processes have answered, or are not waited for any more.
    Answered(Vec<(u64, Question)>),
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
            names: names_of(&bundle.setup),
            ..Self::default()
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
            ..Self::default()
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
            members
                .next()
                .map(|member| served.replace(member))
                .is_some()
        });
        self.open().map(drop)
    }

    /// What to poll for, if anything, of each interface and each that is going.
    pub(super) fn interests(&self) -> impl Iterator<Item = Option<PollFd<'_>>> {
        let places = self.places.iter().map(|served| {
            let fd = match &served.phase {
                Phase::Waiting(Some(_)) => return None,
                Phase::Waiting(None) => served.member(),
                Phase::Starting(process, _) | Phase::Serving(process) => process.as_fd(),
            };
            Some(PollFd::from_borrowed_fd(fd, PollFlags::IN))
        });
        let leaving = self.leaving.iter();
        places.chain(leaving.map(|one| Some(PollFd::new(&*one.process, PollFlags::IN))))
    }

    /// When [`Self::turn`] has to be called although nothing happened.
    pub(super) fn due(&self) -> Option<Instant> {
        let dues = self.places.iter().filter_map(|served| match served.phase {
            Phase::Waiting(due) => due,
            Phase::Starting(_, deadline) => Some(deadline),
            Phase::Serving(_) => None,
        });
        let leaving = self.leaving.iter().map(|one| one.due);
        let answers = match self.has_answers() {
            true => Some(Instant::now()),
            false => self.answers_due,
        };
        dues.chain(leaving).chain(answers).min()
    }

    /// Does what is due after these events of [`Self::interests`].
    pub(super) fn turn(&mut self, events: &[PollFlags]) -> Vec<News> {
        let mut news = Vec::new();
        let now = Instant::now();
        let mut events = events.iter();
        let mut next = || events.next().copied().unwrap_or(PollFlags::empty());
        self.places
            .retain_mut(|served| served.turn(next(), now, &mut news));
        self.leaving.retain_mut(|one| {
            let stays = one.turn(next(), now);
            if !stays {
                news.push(News::Left(one.client, one.index));
            }
            stays
        });
        self.bound(&mut news, now);
        if self.has_answers() || self.answers_due.is_some_and(|due| due <= now) {
            self.answers_due = None;
            news.push(News::Answered(std::mem::take(&mut self.asking)));
        }
        news
    }

    /// Whether clients wait for nothing more.
    fn has_answers(&self) -> bool {
        !self.asking.is_empty() && !self.places.iter().any(Served::owes)
    }

    /// Leaves of the refusals among the news those that become events.
    fn bound(&mut self, news: &mut Vec<News>, now: Instant) {
        let since = *self.since.get_or_insert(now);
        let now_ns = u64::try_from(now.duration_since(since).as_nanos()).unwrap_or(u64::MAX);
        news.retain_mut(|one| {
            let News::Denied(network, refusal) = one else {
                return true;
            };
            let network = network.as_deref().unwrap_or_default();
            let what = format!("{} {network}", refusal.target);
            let untold = self.telling.tells(&what, now_ns);
            refusal.untold = refusal.untold.saturating_add(untold.unwrap_or(0));
            untold.is_some()
        });
    }

    /// Asks the processes what they have counted, for a client; [`News::Answered`] follows.
    pub(super) fn ask_for_counts(&mut self, client: u64) {
        self.places.iter_mut().for_each(Served::ask_for_counts);
        self.ask(client, Question::Refused);
    }

    /// Gives the container other names in networks, by their ids; [`News::Answered`] follows.
    pub(super) fn rename(&mut self, client: u64, names: &[(String, Vec<String>)]) {
        for served in &mut self.places {
            let its = |(id, _): &&(String, Vec<String>)| served.network() == Some(id);
            if let Some((_, names)) = names.iter().find(its) {
                served.rename(names);
            }
        }
        self.ask(client, Question::Names);
    }

    fn ask(&mut self, client: u64, question: Question) {
        self.asking.push((client, question));
        let due = || Instant::now() + ANSWER_LIMIT;
        self.answers_due.get_or_insert_with(due);
    }

    /// What the container was refused, as far as it was heard of.
    pub(super) fn refused(&self) -> Refused {
        report::of(&self.places)
    }

    /// The same when the container has ended: nothing more will be heard of.
    pub(super) fn refused_in_all(&mut self) -> Refused {
        for served in &mut self.places {
            served.take_counts(LAST_LIMIT);
        }
        self.refused()
    }

    /// The container's networks and interfaces, as they are kept for its next run.
    pub(super) fn kept(&self) -> Option<Networks> {
        let user = self.user.as_ref()?;
        let memberships = self
            .places
            .iter()
            .filter_map(|served| served.seat.membership.clone());
        let interfaces = self
            .places
            .iter()
            .map(|served| served.seat.interface.clone());
        Some(Networks {
            user: UserNetwork {
                shared: memberships.collect(),
                ..user.clone()
            },
            interfaces: interfaces.collect(),
            names: self.names.clone(),
        })
    }

    /// What the container knows of its networks' names.
    pub(super) fn names(&self) -> Box<NameFiles> {
        Box::new(self.names.clone())
    }

    /// It knows other ones now.
    pub(super) fn know(&mut self, names: NameFiles) {
        self.names = names;
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
        let places = self.places.iter().map(|served| served.index);
        let taken: Vec<u8> = places
            .chain(self.leaving.iter().map(|one| one.index))
            .collect();
        let is_free = |index: &u8| !taken.contains(index);
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
        let mut places = self.places.iter();
        places
            .find(|served| served.network() == network)
            .map(|served| served.index)
    }

    /// Joins one more network, for this client, by an interface that is there. Whether it has to wait for
    /// that.
    pub(super) fn connect(&mut self, client: Option<u64>, place: Place, member: Member) -> bool {
        let Place {
            index,
            membership,
            interface,
            names,
        } = place;
        let user = self.user.clone().unwrap_or_default();
        let has_others = !self.places.is_empty();
        let mut seat = self.seat(&user, &interface, membership.as_ref(), has_others);
        // They were opened where they lead to.
        seat.network.ports.clear();
        let mut served = Served::new(index, self.launcher(membership.as_ref()), seat, member);
        if membership.is_none() {
            self.know(*names);
            // One of its own is served when it is used, and kept as the first.
            self.places.insert(0, served);
            return false;
        }
        served.asked = Some((client, names));
        // It begins with the next turn.
        served.phase = Phase::Waiting(Some(Instant::now()));
        self.places.push(served);
        true
    }

    /// Leaves the network that this interface is in, for a client; [`News::Left`] follows.
    pub(super) fn disconnect(&mut self, index: u8, client: u64, names: NameFiles) -> Option<News> {
        self.know(names);
        let at = self
            .places
            .iter()
            .position(|served| served.index == index)?;
        match self.places.remove(at).phase {
            Phase::Waiting(_) => Some(News::Left(client, index)),
            Phase::Starting(process, _) | Phase::Serving(process) => {
                process.close();
                self.leaving.push(Leaving {
                    due: Instant::now() + process.end_limit(),
                    process,
                    client,
                    index,
                });
                None
            }
        }
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
    /// What the container knows of its networks' names then.
    pub(super) names: Box<NameFiles>,
}

/// A container's networks as they are kept for its next run.
#[derive(Debug, Clone)]
pub(super) struct Networks {
    /// What it may do there, and which they are.
    pub(super) user: UserNetwork,
    interfaces: Vec<Interface>,
    names: NameFiles,
}

impl Networks {
    /// Those of a container that is started like this, if it has any in user mode.
    pub(super) fn of(network: &Network, setup: &Setup) -> Option<Self> {
        let Network::User(user) = network else {
            return None;
        };
        Some(Self {
            user: user.clone(),
            interfaces: setup.interfaces.clone(),
            names: names_of(setup),
        })
    }

    /// With other names of the container's among the members, by the networks' ids.
    pub(super) fn renamed(mut self, names: &[(String, Vec<String>)]) -> Self {
        for membership in &mut self.user.shared {
            if let Some((_, names)) = names.iter().find(|(id, _)| *id == membership.id) {
                membership.names.clone_from(names);
            }
        }
        self
    }

    /// Has a run begin with them.
    pub(super) fn set_up(&self, setup: &mut Setup) {
        setup.interfaces.clone_from(&self.interfaces);
        setup.etc_hosts.clone_from(&self.names.hosts);
        setup.etc_resolv_conf.clone_from(&self.names.resolv_conf);
    }
}

fn names_of(setup: &Setup) -> NameFiles {
    NameFiles {
        hosts: setup.etc_hosts.clone(),
        resolv_conf: setup.etc_resolv_conf.clone(),
    }
}

impl Leaving {
    /// False when it is over.
    fn turn(&mut self, events: PollFlags, now: Instant) -> bool {
        if self.due <= now {
            self.process.kill();
            return false;
        }
        if events.is_empty() {
            return true;
        }
        loop {
            match self.process.hear() {
                // What it was asked, or had to say.
                Ok(Some(_)) => {}
                Ok(None) => return true,
                Err(_) => return false,
            }
        }
    }
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
