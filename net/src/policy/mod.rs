//! Where members may connect to: rules, the first that matches decides.
//!
//! Private, link-local and metadata addresses are denied under rules unless one names such a
//! range itself: `all` and `0.0.0.0/0` do not. Addresses that embed an IPv4 address (mapped,
//! NAT64, 6to4) are judged as that address. What no rule matches is denied.

mod cidr;
mod text;

pub use cidr::Cidr;
pub(crate) use cidr::is_reserved;
pub use text::RuleError;

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;

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

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// What it does.
    pub action: Action,
    /// Which addresses; none is all.
    pub cidr: Option<Cidr>,
    /// Which ports; none is all.
    pub ports: Option<RangeInclusive<u16>>,
    /// Which protocol; none is all.
    pub protocol: Option<Protocol>,
}

/// Why something was decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// There are no rules at all.
    Unrestricted,
    /// The rule of this index.
    Rule(usize),
    /// The address is private, link-local or the like, and no rule names its range.
    Reserved,
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

    /// Whether there is a target that it allows.
    #[must_use]
    pub fn allows_any(&self) -> bool {
        let allows = |rule: &Rule| rule.action == Action::Allow;
        let rules = self.rules.as_ref();
        rules.is_none_or(|rules| rules.iter().any(allows))
    }

    /// Judges one target.
    #[must_use]
    pub fn decide(&self, protocol: Protocol, target: SocketAddr) -> Verdict {
        let Some(rules) = &self.rules else {
            return Verdict {
                action: Action::Allow,
                reason: Reason::Unrestricted,
            };
        };
        let address = cidr::embedded(target.ip());
        let reserved = is_reserved(address);
        let found = rules.iter().enumerate().find(|(_, rule)| {
            rule.matches(protocol, address, target.port())
                && (!reserved || rule.action == Action::Deny || rule.is_explicit())
        });
        match found {
            Some((index, rule)) => Verdict {
                action: rule.action,
                reason: Reason::Rule(index),
            },
            None => Verdict {
                action: Action::Deny,
                reason: if reserved {
                    Reason::Reserved
                } else {
                    Reason::Unmatched
                },
            },
        }
    }
}

impl Rule {
    fn matches(&self, protocol: Protocol, address: IpAddr, port: u16) -> bool {
        self.protocol.is_none_or(|own| own == protocol)
            && self.cidr.is_none_or(|cidr| cidr.contains(address))
            && match &self.ports {
                None => true,
                Some(ports) => protocol != Protocol::Icmp && ports.contains(&port),
            }
    }

    /// Whether the rule names a reserved range itself.
    fn is_explicit(&self) -> bool {
        self.cidr.is_some_and(cidr::is_within_reserved)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(policy: &str, protocol: Protocol, target: &str) -> Action {
        let policy: Policy = policy.parse().unwrap();
        policy.decide(protocol, target.parse().unwrap()).action
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
}
