//! What a network counts, for each member and as a whole.

use crate::frame::VNET_BYTES;
use crate::policy::{Protocol, Reason};
use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;
use std::time::SystemTime;

/// Most refused targets of a member that are remembered one by one.
pub const MAX_REFUSED: usize = 64;

/// Counts since the network's start, of all members that there are and were.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counters {
    /// Frames that members sent.
    pub frames_received: u64,
    /// Frames that members were sent.
    pub frames_sent: u64,
    /// Frames that a link lost or had no room for, of those that are not sent again.
    pub frames_lost: u64,
    /// Frames that could not be parsed or had a wrong checksum.
    pub malformed: u64,
    /// Frames with a MAC or IP address that is not their sender's.
    pub spoofed: u64,
    /// Well-formed frames that this network has no use for.
    pub ignored: u64,
    /// Connections, datagrams and echo requests that a policy or the network refused.
    pub refused: u64,
    /// Names that were asked for and refused.
    pub refused_names: u64,
    /// Flows that were not begun because of a limit.
    pub limited: u64,
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

impl Counters {
    /// Adds what was counted of one member.
    pub(crate) fn add(&mut self, member: &MemberCounters) {
        self.frames_received += member.frames_received;
        self.frames_sent += member.frames_sent;
        self.frames_lost += member.frames_lost;
        self.malformed += member.malformed;
        self.spoofed += member.spoofed;
        self.ignored += member.ignored;
        self.refused += member.refused;
        self.refused_names += member.refused_names;
        self.limited += member.limited;
    }
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
    /// Names that it asked for and that were refused.
    pub refused_names: u64,
    /// Flows that were not begun because of a limit.
    pub limited: u64,
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
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flow(Protocol::Tcp, to) => write!(f, "tcp {to}"),
            Self::Flow(Protocol::Udp, to) => write!(f, "udp {to}"),
            Self::Flow(Protocol::Icmp, to) => write!(f, "icmp {}", to.ip()),
            Self::Name(name) => write!(f, "name {name}"),
        }
    }
}

/// A refused target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// What it was.
    pub target: Target,
    /// How often it was refused since it was first.
    pub count: u64,
    /// When that was.
    pub first: SystemTime,
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

    /// Counts a refused target.
    pub(crate) fn refuse(&mut self, target: Target) {
        match target {
            Target::Flow(..) => self.refused += 1,
            Target::Name(_) => self.refused_names += 1,
        }
        let known = &mut self.refused_targets;
        if let Some(refused) = known.iter_mut().rev().find(|one| one.target == target) {
            refused.count += 1;
            return;
        }
        if known.len() >= MAX_REFUSED {
            known.pop_front();
        }
        known.push_back(Refused {
            target,
            count: 1,
            first: SystemTime::now(),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refused_targets_are_told_apart_and_bounded() {
        let mut counters = MemberCounters::default();
        let flow = |port| Target::Flow(Protocol::Tcp, ([10, 0, 0, 1], port).into());
        for _ in 0..3 {
            counters.refuse(flow(80));
            counters.refuse(Target::Name("evil.example".to_owned()));
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
            counters.refuse(flow(port));
        }
        assert_eq!((counters.refused, counters.refused_names), (1003, 3));
        assert_eq!(counters.refused_targets.len(), MAX_REFUSED);
        let last = told(&counters).pop().unwrap();
        assert_eq!(last, ("tcp 10.0.0.1:1999".to_owned(), 1));
        let echo = Target::Flow(Protocol::Icmp, ([10, 0, 0, 1], 0).into());
        assert_eq!(echo.to_string(), "icmp 10.0.0.1");
    }
}
