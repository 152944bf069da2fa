//! What a network's process tells of a container: counts, when it is asked, and what was refused.

use hullbox_net::policy::Reason;
use hullbox_net::{Cause, Counters, MAX_REFUSED, MemberCounters, Notice, Refused};
use serde::{Deserialize, Serialize};
use std::time::UNIX_EPOCH;

/// Longest text of a refusal that whoever hears it takes, in characters: a name has 255 at the most.
const MAX_TEXT: usize = 400;

/// Counts of a member since it joined, and of its network's flows; see [`MemberCounters`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Frames that the container sent.
    pub frames_received: u64,
    /// Frames that the container was sent.
    pub frames_sent: u64,
    /// Frames that the link lost or had no room for.
    pub frames_lost: u64,
    /// Frames that could not be parsed.
    pub malformed: u64,
    /// Frames with another sender's address.
    pub spoofed: u64,
    /// Connections, datagrams and echo requests that the policy or the network refused.
    pub refused: u64,
    /// Datagrams among these.
    #[serde(default)]
    pub refused_datagrams: u64,
    /// Echo requests among these.
    #[serde(default)]
    pub refused_echoes: u64,
    /// Names that were asked for and refused.
    pub refused_names: u64,
    /// Flows that were not begun because of a limit.
    pub limited: u64,
    /// TCP connections that have begun in the network.
    pub tcp_begun: u64,
    /// Flows that there are in the network: TCP, UDP and ICMP echo.
    pub flows: u64,
    /// The targets that were refused last, the oldest first: [`MAX_REFUSED`] at the most.
    #[serde(default)]
    pub targets: Vec<Refusal>,
}

/// A target that a container was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// What: `tcp 192.0.2.1:80`, `name example.com` and the like.
    pub target: String,
    /// Why, in words.
    pub reason: String,
    /// The rule that decided, as it was typed, if one did.
    pub rule: Option<String>,
    /// How often.
    pub count: u64,
    /// When that was first, in nanoseconds since 1970.
    pub first_ns: i64,
    /// How many other targets were refused before, of which nothing was told because they were too many.
    #[serde(default)]
    pub untold: u64,
}

impl Counts {
    /// Of a member under these rules, with the flows of its network.
    pub(crate) fn of(member: &MemberCounters, network: &Counters, rules: Option<&str>) -> Self {
        let targets = member.refused_targets.iter();
        Self {
            frames_received: member.frames_received,
            frames_sent: member.frames_sent,
            frames_lost: member.frames_lost,
            malformed: member.malformed,
            spoofed: member.spoofed,
            refused: member.refused,
            refused_datagrams: member.refused_datagrams,
            refused_echoes: member.refused_echoes,
            refused_names: member.refused_names,
            limited: member.limited,
            tcp_begun: network.tcp_begun,
            flows: network.tcp_flows + network.udp_flows + network.echo_flows,
            targets: targets.map(|refused| Refusal::of(refused, rules)).collect(),
        }
    }

    /// Adds what another process has counted of the same container, later.
    pub fn add(&mut self, other: &Self) {
        // They come out of another process, which may be anybody's by now.
        let add = |all: &mut u64, more: u64| *all = all.saturating_add(more);
        add(&mut self.frames_received, other.frames_received);
        add(&mut self.frames_sent, other.frames_sent);
        add(&mut self.frames_lost, other.frames_lost);
        add(&mut self.malformed, other.malformed);
        add(&mut self.spoofed, other.spoofed);
        add(&mut self.refused, other.refused);
        add(&mut self.refused_datagrams, other.refused_datagrams);
        add(&mut self.refused_echoes, other.refused_echoes);
        add(&mut self.refused_names, other.refused_names);
        add(&mut self.limited, other.limited);
        add(&mut self.tcp_begun, other.tcp_begun);
        add(&mut self.flows, other.flows);
        for refusal in &other.targets {
            self.remember(refusal);
        }
    }

    /// Takes note of what was refused since these were counted.
    pub fn note(&mut self, refusal: &Refusal) {
        let kind = refusal.target.split(' ').next().unwrap_or_default();
        let count = match kind {
            "name" => &mut self.refused_names,
            "udp" => &mut self.refused_datagrams,
            "icmp" => &mut self.refused_echoes,
            _ => &mut self.refused,
        };
        *count = count.saturating_add(1);
        if matches!(kind, "udp" | "icmp") {
            self.refused = self.refused.saturating_add(1);
        }
        self.remember(refusal);
    }

    fn remember(&mut self, refusal: &Refusal) {
        let mut known = self.targets.iter_mut();
        if let Some(known) = known.find(|known| known.target == refusal.target) {
            known.count = known.count.saturating_add(refusal.count);
            return;
        }
        if self.targets.len() >= MAX_REFUSED {
            self.targets.remove(0);
        }
        self.targets.push(refusal.clone());
    }

    /// The same as it may be shown to people: who sent it parses hostile frames.
    pub(crate) fn heard(mut self) -> Self {
        self.targets.truncate(MAX_REFUSED);
        self.targets = self.targets.into_iter().map(Refusal::heard).collect();
        self
    }
}

impl Refusal {
    fn of(refused: &Refused, rules: Option<&str>) -> Self {
        let since = refused.first.duration_since(UNIX_EPOCH).unwrap_or_default();
        let rule = match refused.cause {
            Cause::Policy(Reason::Rule(index)) => rules.and_then(|text| text.split(',').nth(index)),
            _ => None,
        };
        Self {
            target: refused.target.to_string(),
            reason: refused.cause.to_string(),
            rule: rule.map(str::to_owned),
            count: refused.count,
            first_ns: i64::try_from(since.as_nanos()).unwrap_or(i64::MAX),
            untold: 0,
        }
    }

    /// What a member under these rules is told at once.
    pub(crate) fn noticed(notice: &Notice, rules: Option<&str>) -> Self {
        Self {
            untold: notice.untold,
            ..Self::of(&notice.refused, rules)
        }
    }

    /// See [`Counts::heard`].
    pub(crate) fn heard(self) -> Self {
        Self {
            target: plain(&self.target),
            reason: plain(&self.reason),
            rule: self.rule.as_deref().map(plain),
            ..self
        }
    }
}

fn plain(text: &str) -> String {
    let plain = |char: char| if char.is_control() { '?' } else { char };
    text.chars().take(MAX_TEXT).map(plain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(target: &str) -> Refusal {
        Refusal {
            target: target.to_owned(),
            reason: "r".to_owned(),
            rule: Some("\u{1b}[2J".to_owned()),
            count: 1,
            first_ns: 7,
            untold: 0,
        }
    }

    #[test]
    fn what_several_processes_have_counted_is_one() {
        let mut first = Counts::default();
        for target in [
            "tcp 192.0.2.1:80",
            "udp 192.0.2.1:9",
            "icmp 192.0.2.1",
            "name a.b",
        ] {
            first.note(&refusal(target));
        }
        let of_kinds = |counts: &Counts| {
            let refused = (
                counts.refused,
                counts.refused_datagrams,
                counts.refused_echoes,
            );
            (refused, counts.refused_names)
        };
        assert_eq!(of_kinds(&first), ((3, 1, 1), 1));
        let mut all = first.clone();
        all.add(&first);
        assert_eq!(of_kinds(&all), ((6, 2, 2), 2));
        assert_eq!(all.targets.len(), 4);
        assert!(all.targets.iter().all(|refusal| refusal.count == 2));
        for port in 0..1000 {
            all.note(&refusal(&format!("tcp 192.0.2.1:{port}")));
        }
        assert_eq!(all.targets.len(), MAX_REFUSED);
        assert_eq!(all.targets[MAX_REFUSED - 1].target, "tcp 192.0.2.1:999");
    }

    #[test]
    fn what_is_heard_can_be_shown() {
        let heard = refusal(&format!("name a\nb{}", "x".repeat(1000))).heard();
        assert!(heard.target.starts_with("name a?bxx") && heard.target.len() == MAX_TEXT);
        assert_eq!(heard.rule.as_deref(), Some("?[2J"));
        let counts = Counts {
            targets: vec![refusal("t"); 1000],
            ..Counts::default()
        };
        let heard = counts.heard();
        assert_eq!(heard.targets.len(), MAX_REFUSED);
        assert_eq!(heard.targets[0].rule.as_deref(), Some("?[2J"));
    }
}
