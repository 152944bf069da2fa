//! What a network counts, for each member and as a whole.

use crate::frame::VNET_BYTES;
use crate::gate::Unnamed;
use crate::policy::{Protocol, Reason};
use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;
use std::time::SystemTime;

/// Most refused targets of a member that are remembered one by one.
pub const MAX_REFUSED: usize = 64;

/// Counts since the network's start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counters {
    /// Of all members that there are and were; rules and targets are each member's own.
    pub members: MemberCounters,
    /// Bytes that were sent to members again.
    pub retransmitted_bytes: u64,
    /// TCP flows that have begun.
    pub tcp_begun: u64,
    /// TCP flows that there are.
    pub tcp_flows: u64,
    /// UDP flows that there are.
    pub udp_flows: u64,
    /// ICMP echo flows that there are.
    pub echo_flows: u64,
}

/// What was counted of one member since it was added.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemberCounters {
    /// Frames that it sent.
    pub frames_received: u64,
    /// Their bytes, Ethernet headers included.
    pub bytes_received: u64,
    /// Frames that it was sent.
    pub frames_sent: u64,
    /// Their bytes, Ethernet headers included.
    pub bytes_sent: u64,
    /// Frames that its link lost or had no room for, of those that are not sent again.
    pub frames_lost: u64,
    /// Frames of it that could not be parsed or had a wrong checksum.
    pub malformed: u64,
    /// Frames of it with a MAC or IP address that is not its own.
    pub spoofed: u64,
    /// Well-formed frames of it that this network has no use for.
    pub ignored: u64,
    /// Connections, datagrams and echo requests that its policy or the network refused.
    pub refused: u64,
    /// Datagrams among these.
    pub refused_datagrams: u64,
    /// Echo requests among these.
    pub refused_echoes: u64,
    /// Names that it asked for and that were refused.
    pub refused_names: u64,
    /// Flows that were not begun because of a limit.
    pub limited: u64,
    /// Frames of other members that came faster than its rate.
    pub rate_dropped: u64,
    /// How often its policy's rule of that index decided, since the policy was set.
    pub rules: Vec<u64>,
    /// The [`MAX_REFUSED`] different targets that were refused last, oldest first.
    pub refused_targets: VecDeque<Refused>,
}

/// What was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A connection, a datagram or an echo request.
    Flow(Protocol, SocketAddr),
    /// The address of a name.
    Name(String),
    /// A connection that told a name.
    Named(SocketAddr, String),
    /// A connection that had to tell a name.
    Unnamed(SocketAddr, Unnamed),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flow(Protocol::Tcp, to) => write!(f, "tcp {to}"),
            Self::Flow(Protocol::Udp, to) => write!(f, "udp {to}"),
            Self::Flow(Protocol::Icmp, to) => write!(f, "icmp {}", to.ip()),
            Self::Name(name) => write!(f, "name {name}"),
            Self::Named(to, name) => write!(f, "tcp {to} as {name}"),
            Self::Unnamed(to, why) => write!(f, "tcp {to} ({why})"),
        }
    }
}

/// Why something was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The member's policy.
    Policy(Reason),
    /// The network is an internal one.
    Internal,
    /// It was the gateway's, where there is nothing.
    Gateway,
    /// Nobody has such an address.
    Unreachable,
    /// The name's address is one of somebody's own network.
    Rebound,
    /// The connection did not tell a name that could be judged.
    Nameless,
    /// The host does not let this process do it.
    Host,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Policy(Reason::Rule(_)) => "a rule denies it",
            Self::Policy(Reason::Reserved) => "no rule names this private range",
            Self::Policy(Reason::Unpinned) => "the container was told no address for this name",
            Self::Policy(Reason::Unmatched | Reason::Unrestricted) => "no rule allows it",
            Self::Internal => "the network is internal",
            Self::Gateway => "there is nothing at the gateway",
            Self::Unreachable => "nobody has this address",
            Self::Rebound => "the name leads into a private range",
            Self::Nameless => "the connection told no name",
            Self::Host => "the host does not allow it",
        })
    }
}

/// A refused target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// What it was.
    pub target: Target,
    /// Why it was refused the first time.
    pub cause: Cause,
    /// How often it was refused since it was first.
    pub count: u64,
    /// When that was.
    pub first: SystemTime,
}

impl Refused {
    /// Whether somebody decided that, so that others should hear of it; else it is one of the things that
    /// fail in every network.
    pub(crate) const fn is_for_others(&self) -> bool {
        !matches!(self.cause, Cause::Unreachable | Cause::Host)
    }
}

impl MemberCounters {
    /// Counts a frame that its link took, of which the virtio-net header is no part.
    pub(crate) fn sent(&mut self, length: usize) {
        self.frames_sent += 1;
        self.bytes_sent += length.saturating_sub(VNET_BYTES) as u64;
    }

    /// Counts a decision that a rule made.
    pub(crate) fn decided(&mut self, reason: Reason) {
        if let Reason::Rule(index) = reason {
            if self.rules.len() <= index {
                self.rules.resize(index + 1, 0);
            }
            if let Some(count) = self.rules.get_mut(index) {
                *count += 1;
            }
        }
    }

    /// Counts a refused target. Returns it if it is not among those that were refused last.
    pub(crate) fn refuse(&mut self, target: Target, cause: Cause) -> Option<&Refused> {
        match target {
            Target::Flow(..) | Target::Named(..) | Target::Unnamed(..) => self.refused += 1,
            Target::Name(_) => self.refused_names += 1,
        }
        match target {
            Target::Flow(Protocol::Udp, _) => self.refused_datagrams += 1,
            Target::Flow(Protocol::Icmp, _) => self.refused_echoes += 1,
            _ => {}
        }
        let known = &mut self.refused_targets;
        if let Some(refused) = known.iter_mut().rev().find(|one| one.target == target) {
            refused.count += 1;
            return None;
        }
        if known.len() >= MAX_REFUSED {
            known.pop_front();
        }
        known.push_back(Refused {
            target,
            cause,
            count: 1,
            first: SystemTime::now(),
        });
        known.back()
    }

    /// Adds what was counted of another member, but for rules and targets.
    pub(crate) fn add(&mut self, other: &Self) {
        self.frames_received += other.frames_received;
        self.bytes_received += other.bytes_received;
        self.frames_sent += other.frames_sent;
        self.bytes_sent += other.bytes_sent;
        self.frames_lost += other.frames_lost;
        self.malformed += other.malformed;
        self.spoofed += other.spoofed;
        self.ignored += other.ignored;
        self.refused += other.refused;
        self.refused_datagrams += other.refused_datagrams;
        self.refused_echoes += other.refused_echoes;
        self.refused_names += other.refused_names;
        self.limited += other.limited;
        self.rate_dropped += other.rate_dropped;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NO_RULE: Cause = Cause::Policy(Reason::Unmatched);

    #[test]
    fn refused_targets_are_told_apart_and_bounded() {
        let mut counters = MemberCounters::default();
        let flow = |port| Target::Flow(Protocol::Tcp, ([10, 0, 0, 1], port).into());
        for _ in 0..3 {
            counters.refuse(flow(80), NO_RULE);
            counters.refuse(Target::Name("evil.example".to_owned()), NO_RULE);
        }
        let told = |counters: &MemberCounters| -> Vec<(String, u64)> {
            let targets = counters.refused_targets.iter();
            targets
                .map(|refused| (refused.target.to_string(), refused.count))
                .collect()
        };
        let expected = [("tcp 10.0.0.1:80", 3), ("name evil.example", 3)];
        assert_eq!(
            told(&counters),
            expected.map(|(text, count)| (text.to_owned(), count))
        );
        // A scan pushes the oldest out and takes no more room.
        for port in 1000..2000 {
            assert!(counters.refuse(flow(port), NO_RULE).is_some());
            assert!(counters.refuse(flow(port), NO_RULE).is_none());
        }
        assert_eq!((counters.refused, counters.refused_names), (2003, 3));
        assert_eq!(counters.refused_targets.len(), MAX_REFUSED);
        let last = told(&counters).pop().unwrap();
        assert_eq!(last, ("tcp 10.0.0.1:1999".to_owned(), 2));
        let echo = Target::Flow(Protocol::Icmp, ([10, 0, 0, 1], 0).into());
        assert_eq!(echo.to_string(), "icmp 10.0.0.1");
        counters.refuse(echo, Cause::Internal);
        counters.refuse(
            Target::Flow(Protocol::Udp, ([10, 0, 0, 1], 9).into()),
            NO_RULE,
        );
        let by_kind = (counters.refused_datagrams, counters.refused_echoes);
        assert_eq!((counters.refused, by_kind), (2005, (1, 1)));
        let mut all = counters.clone();
        all.add(&counters);
        assert_eq!((all.refused, all.refused_names), (4010, 6));
        let to = ([10, 0, 0, 1], 443).into();
        let named = Target::Named(to, "a.b".to_owned());
        assert_eq!(named.to_string(), "tcp 10.0.0.1:443 as a.b");
        let hidden = Target::Unnamed(to, Unnamed::Encrypted);
        assert_eq!(
            hidden.to_string(),
            "tcp 10.0.0.1:443 (encrypted server name)"
        );
    }
}
