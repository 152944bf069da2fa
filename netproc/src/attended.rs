//! A member as the thread knows it that answers on control connections.

use crate::counts::{Counts, Refusal};
use crate::message::{Answer, Carrier, Incoming, Link, Request, Start, send};
use crate::names;
use crate::ports::OpenSocket;
use hullbox_net::policy::Policy;
use hullbox_net::{Control, LinkFd, Mac, MemberConfig, MemberId, NetError, Notice, Rates};
use rustix::event::{PollFd, PollFlags};
use std::os::fd::{AsFd, OwnedFd};

/// See the module.
pub struct Attended {
    control: OwnedFd,
    incoming: Incoming,
    /// The member's other end is gone when this says so.
    watched: Option<OwnedFd>,
    id: MemberId,
    /// Its rules, as they were typed.
    egress: Option<String>,
}

/// What a member is added with.
pub struct Newcomer {
    /// Its control connection.
    pub control: OwnedFd,
    /// What has come there and is not answered yet.
    pub incoming: Incoming,
    /// What its monitor asked for.
    pub start: Start,
    /// Its frames.
    pub link: LinkFd,
    /// The same, to see the end of it, where it says anything ([`is_watched`]).
    pub watched: Option<OwnedFd>,
    /// Sockets that lead to its ports.
    pub sockets: Vec<OpenSocket>,
}

/// A member that cannot be in a network.
pub struct Refused {
    control: OwnedFd,
    /// Why, in one line.
    pub message: String,
}

impl Refused {
    /// Tells its monitor.
    pub fn tell(self) {
        let Self { control, message } = self;
        // It may be gone.
        let _ = send(control.as_fd(), &Answer::Failed { message }, &[]);
    }
}

impl Attended {
    /// Adds a member to a network.
    ///
    /// # Errors
    /// Why it cannot be in there. Nothing of it is, then.
    pub fn add(newcomer: Newcomer, network: &Control) -> Result<Self, Refused> {
        let Newcomer {
            control,
            incoming,
            start,
            link,
            watched,
            sockets,
        } = newcomer;
        match furnish(&start, link, sockets, network) {
            Ok(id) => Ok(Self {
                control,
                incoming,
                watched,
                id,
                egress: start.network.egress,
            }),
            Err(message) => Err(Refused { control, message }),
        }
    }

    /// What to wait for.
    pub fn interests(&self) -> [Option<PollFd<'_>>; 2] {
        let watched = self.watched.as_ref();
        [
            Some(PollFd::new(&self.control, PollFlags::IN)),
            watched.map(|fd| PollFd::new(fd, PollFlags::RDHUP)),
        ]
    }

    /// Answers what was asked, after these events of [`Self::interests`]. False when all is over for this
    /// member.
    pub fn attend(&mut self, events: [PollFlags; 2], network: &Control) -> bool {
        let [spoke, gone] = events.map(|events| !events.is_empty());
        if gone || (spoke && !self.incoming.fill(&self.control).unwrap_or(false)) {
            return false;
        }
        loop {
            match self.incoming.next::<Request>() {
                Ok(None) => return true,
                Ok(Some(request)) => {
                    let answer = self.obey(request, network);
                    if !self.say(&answer) {
                        return false;
                    }
                }
                Err(_) => return false,
            }
        }
    }

    fn obey(&mut self, request: Request, network: &Control) -> Answer {
        let done = |result: Result<(), NetError>| match result {
            Ok(()) => Answer::Done,
            Err(error) => Answer::Failed {
                message: error.to_string(),
            },
        };
        match request {
            Request::Start(_) | Request::Share(_) => Answer::Failed {
                message: "a network is served already".to_owned(),
            },
            Request::Counters => match network.counters(self.id).and_then(|member| {
                let totals = network.totals()?;
                Ok(Counts::of(&member, &totals, self.egress.as_deref()))
            }) {
                Ok(counts) => Answer::Counters(counts),
                Err(error) => done(Err(error)),
            },
            Request::Policy(egress) => match policy(egress.as_deref()) {
                Ok(policy) => {
                    self.egress = egress;
                    done(network.set_policy(self.id, policy))
                }
                Err(message) => Answer::Failed { message },
            },
            Request::Names(names) => done(network.set_names(self.id, names)),
        }
    }

    /// Tells the member's monitor what it was refused, if that is this member's. A monitor that does not
    /// read hears the rest when it asks.
    pub fn tell(&self, notice: &Notice) {
        if notice.member == self.id {
            let refusal = Refusal::noticed(notice, self.egress.as_deref());
            // It goes as a whole or not at all: it is short.
            let _ = send(self.control.as_fd(), &Answer::Refused(refusal), &[]);
        }
    }

    /// Says something to the member's monitor. Whether that could be done.
    pub fn say(&self, answer: &Answer) -> bool {
        send(self.control.as_fd(), answer, &[]).is_ok()
    }

    /// Takes it off the network: its ports are closed when this returns. Its control connection ends with
    /// what is returned.
    pub fn remove(self, network: &Control) -> OwnedFd {
        // It may have ended with its frames.
        let _ = network.remove_member(self.id);
        self.control
    }
}

/// Whether a link says that its other end is gone. A TAP device does not when its namespace is gone: whoever
/// holds it keeps that.
pub const fn is_watched(link: Link) -> bool {
    !matches!(link, Link::Inherited(Carrier::Tap))
}

/// The way of a member's frames.
pub fn link_of(link: Link, descriptor: OwnedFd) -> LinkFd {
    match link {
        Link::Inherited(Carrier::Tap) => LinkFd::Tap(descriptor),
        Link::Inherited(Carrier::Packets) => LinkFd::Packets(descriptor),
        Link::Dial => LinkFd::Stream(descriptor),
    }
}

/// Reads a policy.
///
/// # Errors
/// In words: what is wrong with it.
pub fn policy(egress: Option<&str>) -> Result<Policy, String> {
    egress.map_or_else(
        || Ok(Policy::unrestricted()),
        |text| text.parse().map_err(|error| format!("egress: {error}")),
    )
}

fn furnish(
    start: &Start,
    link: LinkFd,
    sockets: Vec<OpenSocket>,
    network: &Control,
) -> Result<MemberId, String> {
    let told = |error: NetError| hullbox_host::error::chain(&error);
    let id = network
        .add_member(member_config(start, link)?)
        .map_err(told)?;
    for port in sockets {
        let target = (id, port.container_port);
        if let Err(error) = network.publish((port.kind, port.socket), target) {
            // The first error is the one to tell.
            let _ = network.remove_member(id);
            return Err(told(error));
        }
    }
    Ok(id)
}

fn member_config(start: &Start, link: LinkFd) -> Result<MemberConfig, String> {
    let (network, interface) = (&start.network, &start.interface);
    let membership = start.membership.as_ref();
    // Those of a network of its own are the network's.
    let typed = membership.map(|_| names::servers(&network.dns));
    Ok(MemberConfig {
        ipv4: interface.ipv4.map(|addresses| addresses.address),
        ipv6: interface.ipv6.map(|addresses| addresses.address),
        names: membership.map_or_else(Vec::new, |membership| membership.names.clone()),
        policy: policy(network.egress.as_deref())?,
        host_gateway: network.host_gateway,
        upstreams: typed.filter(|typed| !typed.is_empty()),
        has_other_networks: start.has_other_networks,
        rates: Rates {
            inbound: network.rate.inbound,
            outbound: network.rate.outbound,
        },
        ..MemberConfig::new(Mac(interface.mac), link)
    })
}
