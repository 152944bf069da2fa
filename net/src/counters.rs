//! What a network counts.

use crate::policy::{Protocol, Reason};
use std::collections::HashMap;
use std::net::SocketAddr;

/// Most refused targets that are remembered one by one.
const MAX_REFUSED: usize = 256;

/// Counts since the network's start.
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
    /// Connections, datagrams and echo requests that the policy or the network refused.
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
    /// How often the policy's rule of that index decided.
    pub rules: Vec<u64>,
    /// Refused targets, and how often; the first 256 of them.
    pub refused_targets: HashMap<(Protocol, SocketAddr), u64>,
}

impl Counters {
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
    pub(crate) fn refuse(&mut self, protocol: Protocol, target: SocketAddr) {
        self.refused += 1;
        let key = (protocol, target);
        if self.refused_targets.len() < MAX_REFUSED || self.refused_targets.contains_key(&key) {
            *self.refused_targets.entry(key).or_default() += 1;
        }
    }
}
