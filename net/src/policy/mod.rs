//! Where a member may connect to: rules, the first that matches decides.
//!
//! Private, link-local and metadata addresses are denied under rules unless one names such a
//! range itself: `all` and `0.0.0.0/0` do not. Addresses that embed an IPv4 address (mapped,
//! NAT64, 6to4) are judged as that address. What no rule matches is denied.
//!
//! A rule with a name lets the member ask for the name, and connect to the addresses that it was told for
//! it ([`Pins`]): on ports 80 and 443 if the connection itself tells such a name (`gate`), and to other
//! ports only where the rule names them. Whether a name decides is not known before it was told, so there
//! are two judgements: [`Policy::judge`] for an address and [`Policy::judge_named`] with the name.

mod cidr;
mod names;
mod pins;
mod text;

pub use cidr::Cidr;
pub(crate) use cidr::{embedded, is_reserved};
pub use names::{NamePattern, normal_name};
pub use pins::{Pins, SECONDS};
pub use text::RuleError;

use crate::gate::Speech;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;

/// HTTP/3's port: its connections begin encrypted.
const QUIC_PORT: u16 = 443;

/// What is asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// A TCP connection.
    Tcp,
    /// A UDP datagram.
    Udp,
    /// An ICMP echo request; its port is 0, and no rule with ports matches it.
    Icmp,
}

/// What a rule does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// It may.
    Allow,
    /// It may not.
    Deny,
}

/// What a rule is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// Every address.
    All,
    /// A range of addresses.
    Range(Cidr),
    /// Names.
    Name(NamePattern),
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// What it does.
    pub action: Action,
    /// What it is about.
    pub place: Place,
    /// Which ports; none is all, and of names 80 and 443.
    pub ports: Option<RangeInclusive<u16>>,
    /// Which protocol; none is all, and of names TCP and UDP.
    pub protocol: Option<Protocol>,
}

/// Why something was decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// There are no rules at all, or none that is about names where one was asked for.
    Unrestricted,
    /// The rule of this index.
    Rule(usize),
    /// The address is private, link-local or the like, and no rule names its range.
    Reserved,
    /// A rule allows the name, and the member was told no address for it.
    Unpinned,
    /// No rule matched.
    Unmatched,
}

/// A decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// What was decided.
    pub action: Action,
    /// Why.
    pub reason: Reason,
}

/// What is known when a connection begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judgement {
    /// All.
    Decided(Verdict),
    /// It depends on the name that the connection will tell.
    ByName(Speech),
}

const UNRESTRICTED: Verdict = Verdict {
    action: Action::Allow,
    reason: Reason::Unrestricted,
};

const fn denied(reason: Reason) -> Verdict {
    Verdict {
        action: Action::Deny,
        reason,
    }
}

/// The rules of a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// `None`: everything is allowed.
    rules: Option<Vec<Rule>>,
}

impl Policy {
    /// Everything is allowed, as without a policy.
    #[must_use]
    pub fn unrestricted() -> Self {
        Self { rules: None }
    }

    /// Rules, of which the first that matches decides.
    #[must_use]
    pub fn from_rules(rules: Vec<Rule>) -> Self {
        Self { rules: Some(rules) }
    }

    fn rules(&self) -> impl Iterator<Item = (usize, &Rule)> {
        self.rules.iter().flatten().enumerate()
    }

    /// Whether there is a target that it allows.
    #[must_use]
    pub fn allows_any(&self) -> bool {
        let mut rules = self.rules();
        self.rules.is_none() || rules.any(|(_, rule)| rule.action == Action::Allow)
    }

    /// Whether a rule is about names.
    #[must_use]
    pub fn has_names(&self) -> bool {
        self.rules().any(|(_, rule)| rule.pattern().is_some())
    }

    /// Whether the rule that decided is about names.
    #[must_use]
    pub fn is_by_name(&self, reason: Reason) -> bool {
        self.rules()
            .any(|(index, rule)| reason == Reason::Rule(index) && rule.pattern().is_some())
    }

    /// Whether a rule that names a range of private, link-local or the like allows some of an address.
    #[must_use]
    pub fn names_range_of(&self, address: IpAddr) -> bool {
        let address = embedded(address);
        self.rules().any(|(_, rule)| {
            rule.action == Action::Allow && rule.is_explicit() && rule.has(address)
        })
    }

    /// Judges a target, of which it is known which names' address it is.
    #[must_use]
    pub fn judge(
        &self,
        protocol: Protocol,
        target: SocketAddr,
        is_of: impl Fn(&NamePattern) -> bool,
    ) -> Judgement {
        if self.rules.is_none() {
            return Judgement::Decided(UNRESTRICTED);
        }
        let address = embedded(target.ip());
        let reserved = is_reserved(address);
        let speech = Speech::of_port(target.port()).filter(|_| protocol == Protocol::Tcp);
        let (mut may_allow, mut may_deny) = (false, false);
        let mut verdict = denied(match reserved {
            true => Reason::Reserved,
            false => Reason::Unmatched,
        });
        for (index, rule) in self.rules() {
            let decides = match (rule.pattern(), rule.action) {
                (None, _) => rule.matches(protocol, address, target.port()),
                (Some(_), _) if !rule.covers(protocol, target.port()) => false,
                (Some(pattern), Action::Allow) => !reserved && is_of(pattern),
                // Whose it is would be told by the name alone.
                (Some(pattern), Action::Deny) => {
                    speech.is_some() || rule.is_against_quic(protocol, target) || is_of(pattern)
                }
            };
            match (rule.pattern(), rule.action) {
                _ if !decides => {}
                (Some(_), Action::Allow) if speech.is_some() => may_allow = true,
                (Some(_), Action::Deny) if speech.is_some() => may_deny = true,
                _ => {
                    verdict = rule.verdict(index);
                    break;
                }
            }
        }
        let depends = match verdict.action {
            Action::Allow => may_deny,
            Action::Deny => may_allow,
        };
        match speech.filter(|_| depends) {
            Some(speech) => Judgement::ByName(speech),
            None => Judgement::Decided(verdict),
        }
    }

    /// Judges a connection to port 80 or 443 that tells a name, in lower case; `is_pinned`: the member was
    /// told an address for it.
    #[must_use]
    pub fn judge_named(&self, target: SocketAddr, name: &str, is_pinned: bool) -> Verdict {
        let address = embedded(target.ip());
        let tcp = Protocol::Tcp;
        for (index, rule) in self.rules() {
            match rule.pattern() {
                Some(pattern) if rule.covers(tcp, target.port()) && pattern.matches(name) => {
                    return match rule.action {
                        Action::Allow if !is_pinned => denied(Reason::Unpinned),
                        _ => rule.verdict(index),
                    };
                }
                None if rule.matches(tcp, address, target.port()) => return rule.verdict(index),
                _ => {}
            }
        }
        match self.rules {
            None => UNRESTRICTED,
            Some(_) => denied(Reason::Unmatched),
        }
    }

    /// Judges a target by its name, whatever addresses it will turn out to have.
    #[must_use]
    pub fn judge_unresolved(&self, protocol: Protocol, name: &str, port: u16) -> Verdict {
        let asked = self.may_ask(name);
        if asked.action == Action::Deny || self.rules.is_none() {
            return asked;
        }
        let found = self.rules().find(|(_, rule)| match &rule.place {
            Place::Name(pattern) => rule.covers(protocol, port) && pattern.matches(name),
            Place::All => rule.serves(protocol, port),
            Place::Range(_) => false,
        });
        found.map_or(denied(Reason::Unmatched), |(index, rule)| {
            rule.verdict(index)
        })
    }

    /// Whether a name, in lower case, may be asked for. Under rules none of which is about names, all
    /// may, as long as one allows anything.
    #[must_use]
    pub fn may_ask(&self, name: &str) -> Verdict {
        if !self.has_names() {
            return match self.allows_any() {
                true => UNRESTRICTED,
                false => denied(Reason::Unmatched),
            };
        }
        let found = self.rules().find(|(_, rule)| match &rule.place {
            Place::Name(pattern) => rule.concerns_asking() && pattern.matches(name),
            Place::All => rule.concerns_asking(),
            Place::Range(_) => false,
        });
        found.map_or(denied(Reason::Unmatched), |(index, rule)| {
            rule.verdict(index)
        })
    }
}

impl Rule {
    fn pattern(&self) -> Option<&NamePattern> {
        match &self.place {
            Place::Name(pattern) => Some(pattern),
            Place::All | Place::Range(_) => None,
        }
    }

    fn verdict(&self, index: usize) -> Verdict {
        Verdict {
            action: self.action,
            reason: Reason::Rule(index),
        }
    }

    fn has(&self, address: IpAddr) -> bool {
        match self.place {
            Place::All => true,
            Place::Range(range) => range.contains(address),
            Place::Name(_) => false,
        }
    }

    /// Whether a rule about addresses decides.
    fn matches(&self, protocol: Protocol, address: IpAddr, port: u16) -> bool {
        self.has(address)
            && self.serves(protocol, port)
            && (self.action == Action::Deny || self.is_explicit() || !is_reserved(address))
    }

    fn serves(&self, protocol: Protocol, port: u16) -> bool {
        self.protocol.is_none_or(|own| own == protocol)
            && match &self.ports {
                None => true,
                Some(ports) => protocol != Protocol::Icmp && ports.contains(&port),
            }
    }

    /// Whether a rule about names is about such a target of theirs.
    fn covers(&self, protocol: Protocol, port: u16) -> bool {
        let names_port = self.ports.is_some();
        self.serves(protocol, port)
            && match protocol {
                Protocol::Tcp => names_port || Speech::of_port(port).is_some(),
                Protocol::Udp if port == QUIC_PORT => self.action == Action::Deny,
                Protocol::Udp => names_port,
                Protocol::Icmp => self.protocol == Some(Protocol::Icmp),
            }
    }

    /// Whether it denies names on a port where nobody tells one.
    fn is_against_quic(&self, protocol: Protocol, target: SocketAddr) -> bool {
        self.action == Action::Deny && protocol == Protocol::Udp && target.port() == QUIC_PORT
    }

    /// Whether a name is decided about when it is asked for: what a rule denies in part may be asked.
    fn concerns_asking(&self) -> bool {
        self.action == Action::Allow || (self.ports.is_none() && self.protocol.is_none())
    }

    /// Whether the rule names a reserved range itself.
    fn is_explicit(&self) -> bool {
        matches!(self.place, Place::Range(range) if cidr::is_within_reserved(range))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(policy: &str, protocol: Protocol, target: &str) -> Action {
        match judge_of(policy, protocol, target, "") {
            Judgement::Decided(verdict) => verdict.action,
            other => panic!("{other:?}"),
        }
    }

    /// The judgement of an address that was told for a name.
    fn judge_of(policy: &str, protocol: Protocol, target: &str, name: &str) -> Judgement {
        let policy: Policy = policy.parse().unwrap();
        let is_of = |pattern: &NamePattern| !name.is_empty() && pattern.matches(name);
        policy.judge(protocol, target.parse().unwrap(), is_of)
    }

    #[test]
    fn the_first_rule_that_matches_decides() {
        let rules = "deny:192.0.3.0/24:443,192.0.3.0/24,8.8.0.0/16:53/udp";
        for (protocol, target, action) in [
            (Protocol::Tcp, "192.0.3.7:443", Action::Deny),
            (Protocol::Tcp, "192.0.3.7:80", Action::Allow),
            (Protocol::Icmp, "192.0.3.7:0", Action::Allow),
            (Protocol::Udp, "8.8.8.8:53", Action::Allow),
            (Protocol::Tcp, "8.8.8.8:53", Action::Deny),
            (Protocol::Icmp, "8.8.8.8:0", Action::Deny),
            (Protocol::Tcp, "8.9.8.8:53", Action::Deny),
        ] {
            assert_eq!(
                judge(rules, protocol, target),
                action,
                "{protocol:?} {target}"
            );
        }
    }

    #[test]
    fn rules_that_only_deny_allow_nothing() {
        for (rules, allows) in [
            ("none", false),
            ("deny:10.0.0.0/8,deny:all", false),
            ("deny:all,192.0.2.1:443", true),
            ("all", true),
        ] {
            let policy: Policy = rules.parse().unwrap();
            assert_eq!(policy.allows_any(), allows, "{rules}");
        }
        assert!(Policy::unrestricted().allows_any());
    }

    #[test]
    fn reserved_ranges_need_a_rule_that_names_them() {
        for target in [
            "10.1.2.3:80",
            "172.31.0.1:80",
            "192.168.1.1:80",
            "100.64.0.1:80",
            "169.254.169.254:80",
            "127.0.0.1:80",
            "[fe80::1]:80",
            "[fd00:ec2::254]:80",
            "[::1]:80",
            "[::ffff:10.1.2.3]:80",
            "[64:ff9b::a01:203]:80",
            "[2002:a01:203::1]:80",
        ] {
            assert_eq!(
                judge("all", Protocol::Tcp, target),
                Action::Deny,
                "{target}"
            );
            assert_eq!(
                judge("0.0.0.0/0,[::/0]", Protocol::Tcp, target),
                Action::Deny,
                "{target}"
            );
        }
        assert_eq!(
            judge("10.0.0.0/8", Protocol::Tcp, "10.1.2.3:80"),
            Action::Allow
        );
        assert_eq!(
            judge("10.0.0.0/8", Protocol::Tcp, "[::ffff:10.1.2.3]:80"),
            Action::Allow
        );
        assert_eq!(judge("all", Protocol::Tcp, "1.1.1.1:80"), Action::Allow);
        assert_eq!(judge("none", Protocol::Tcp, "1.1.1.1:80"), Action::Deny);
    }

    const NAMES: &str =
        "deny:secret.example.com,*.example.com,db.example.org:5432,ping.example.org/icmp";

    #[test]
    fn names_may_be_asked_for_as_rules_say() {
        for (rules, name, allowed) in [
            (NAMES, "www.example.com", true),
            (NAMES, "secret.example.com", false),
            (NAMES, "example.com", false),
            (NAMES, "db.example.org", true),
            (NAMES, "evil.net", false),
            // A rule about every address is about every name.
            ("deny:evil.net,all", "evil.net", false),
            ("deny:evil.net,all", "www.example.com", true),
            ("example.com,deny:all,all", "evil.net", false),
            ("deny:evil.net:22,all", "evil.net", true),
            ("example.com,192.0.2.0/24", "evil.net", false),
            // Without names in rules all may be asked for, if anything is allowed.
            ("192.0.2.0/24", "evil.net", true),
            ("deny:192.0.2.0/24", "evil.net", false),
            ("none", "evil.net", false),
        ] {
            let policy: Policy = rules.parse().unwrap();
            let action = policy.may_ask(name).action;
            assert_eq!(action == Action::Allow, allowed, "{rules} {name}");
        }
    }

    #[test]
    fn a_names_address_is_open_on_the_rules_ports() {
        let tls = Judgement::ByName(Speech::Tls);
        let by = |index, action| {
            let reason = Reason::Rule(index);
            Judgement::Decided(Verdict { action, reason })
        };
        let unmatched = Judgement::Decided(denied(Reason::Unmatched));
        let (tcp, udp, icmp) = (Protocol::Tcp, Protocol::Udp, Protocol::Icmp);
        let allow = |index| by(index, Action::Allow);
        let deny = |index| by(index, Action::Deny);
        for (rules, protocol, port, name, expected) in [
            (NAMES, tcp, 443, "www.example.com", tls),
            (
                NAMES,
                tcp,
                80,
                "www.example.com",
                Judgement::ByName(Speech::Http),
            ),
            (NAMES, tcp, 8443, "www.example.com", unmatched),
            (NAMES, udp, 443, "www.example.com", deny(0)),
            (NAMES, udp, 53, "www.example.com", unmatched),
            (NAMES, icmp, 0, "www.example.com", unmatched),
            (NAMES, tcp, 443, "", unmatched),
            (NAMES, tcp, 5432, "db.example.org", allow(2)),
            (NAMES, udp, 5432, "db.example.org", allow(2)),
            (NAMES, tcp, 443, "db.example.org", unmatched),
            (NAMES, icmp, 0, "ping.example.org", allow(3)),
            (NAMES, tcp, 80, "ping.example.org", unmatched),
            // What an address decides either way needs no name.
            ("a.b,all", tcp, 443, "a.b", allow(1)),
            ("all,deny:a.b", tcp, 443, "", allow(0)),
            ("deny:a.b,all", tcp, 443, "", tls),
            ("deny:a.b,all", tcp, 22, "", allow(1)),
            ("deny:a.b,all", udp, 443, "", deny(0)),
            ("deny:a.b,all", udp, 444, "", allow(1)),
            ("deny:a.b:80,all", udp, 443, "", allow(1)),
            ("deny:all,a.b", tcp, 443, "a.b", deny(0)),
            ("a.b:1-1000", udp, 443, "a.b", unmatched),
            ("a.b:1-1000", tcp, 443, "a.b", tls),
            ("deny:a.b:22,a.b:22-23", tcp, 22, "a.b", deny(0)),
            ("deny:a.b:22,a.b:22-23", tcp, 23, "a.b", allow(1)),
        ] {
            let target = format!("192.0.2.1:{port}");
            let judged = judge_of(rules, protocol, &target, name);
            assert_eq!(judged, expected, "{rules} {protocol:?} {port} {name}");
        }
        // A private address is nobody's.
        let judged = judge_of("a.b", tcp, "10.0.0.1:443", "a.b");
        assert_eq!(judged, Judgement::Decided(denied(Reason::Reserved)));
    }

    #[test]
    fn a_name_that_a_connection_tells_decides() {
        let (unmatched, unpinned) = (Reason::Unmatched, Reason::Unpinned);
        for (rules, target, name, is_pinned, expected) in [
            (
                NAMES,
                "192.0.2.1:443",
                "www.example.com",
                true,
                Reason::Rule(1),
            ),
            (NAMES, "192.0.2.1:443", "www.example.com", false, unpinned),
            (
                NAMES,
                "192.0.2.1:443",
                "secret.example.com",
                true,
                Reason::Rule(0),
            ),
            (NAMES, "192.0.2.1:443", "evil.net", true, unmatched),
            (NAMES, "192.0.2.1:443", "db.example.org", true, unmatched),
            (
                "deny:a.b,all",
                "192.0.2.1:443",
                "a.b",
                false,
                Reason::Rule(0),
            ),
            (
                "deny:a.b,all",
                "192.0.2.1:443",
                "c.d",
                false,
                Reason::Rule(1),
            ),
            ("deny:a.b,all", "10.0.0.1:443", "c.d", false, unmatched),
            (
                "a.b,192.0.2.0/24",
                "192.0.2.1:443",
                "c.d",
                false,
                Reason::Rule(1),
            ),
        ] {
            let policy: Policy = rules.parse().unwrap();
            let verdict = policy.judge_named(target.parse().unwrap(), name, is_pinned);
            assert_eq!(verdict.reason, expected, "{rules} {target} {name}");
            let by_name = matches!(expected, Reason::Rule(0 | 1)) && name != "c.d";
            assert_eq!(policy.is_by_name(verdict.reason), by_name, "{name}");
        }
    }

    #[test]
    fn a_name_is_judged_before_it_has_addresses() {
        for (rules, protocol, name, port, allowed) in [
            (NAMES, Protocol::Tcp, "www.example.com", 443, true),
            (NAMES, Protocol::Udp, "www.example.com", 443, false),
            (NAMES, Protocol::Tcp, "www.example.com", 22, false),
            (NAMES, Protocol::Tcp, "secret.example.com", 443, false),
            (NAMES, Protocol::Icmp, "ping.example.org", 0, true),
            ("deny:a.b,a.b:22", Protocol::Tcp, "a.b", 22, false),
            ("a.b,all:22", Protocol::Tcp, "c.d", 22, true),
            ("a.b,all:22", Protocol::Tcp, "c.d", 443, false),
            ("all:443", Protocol::Tcp, "c.d", 443, true),
            ("192.0.2.0/24", Protocol::Tcp, "c.d", 443, false),
        ] {
            let policy: Policy = rules.parse().unwrap();
            let action = policy.judge_unresolved(protocol, name, port).action;
            assert_eq!(action == Action::Allow, allowed, "{rules} {name} {port}");
        }
    }

    #[test]
    fn only_a_rule_that_names_it_opens_a_private_range() {
        let policy: Policy = "git.corp.example,10.1.0.0/16:443,all".parse().unwrap();
        for (address, named) in [
            ("10.1.2.3", true),
            ("::ffff:10.1.2.3", true),
            ("10.2.0.1", false),
            ("192.0.2.1", false),
        ] {
            let named_here = policy.names_range_of(address.parse().unwrap());
            assert_eq!(named_here, named, "{address}");
        }
    }
}
