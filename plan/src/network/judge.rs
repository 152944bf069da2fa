//! What a policy says of one target, and why: for whoever writes one.

use super::Egress;
use crate::units::ValueError;
use hullbox_net::policy::{self, Action, Policy, Protocol, Reason, Verdict, normal_name};
use std::net::{IpAddr, SocketAddr};

/// What is decided about a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement {
    /// Whether a container may connect there.
    pub is_allowed: bool,
    /// Which rule decides, or that none does.
    pub reason: String,
}

/// What somebody wants to connect to.
struct Target {
    protocol: Protocol,
    place: Place,
    port: u16,
}

enum Place {
    Address(IpAddr),
    Name(String),
}

/// Judges `HOST:PORT[/tcp|udp]` or `HOST/icmp`, where HOST is an address or a name. A name is judged as it is
/// asked for and told; nobody is asked for its addresses.
///
/// # Errors
/// The target makes no sense.
pub fn judge(egress: &Egress, target: &str) -> Result<Judgement, ValueError> {
    let Target {
        protocol,
        place,
        port,
    } = parse(target)?;
    let policy: Policy = egress
        .as_str()
        .parse()
        .map_err(|error| ValueError::new(format!("{error}")))?;
    Ok(match place {
        Place::Name(name) => {
            let verdict = policy.judge_unresolved(protocol, &name, port);
            in_words(egress, verdict, "no rule about names matches")
        }
        Place::Address(ip) => judge_address(egress, &policy, protocol, SocketAddr::new(ip, port)),
    })
}

fn judge_address(
    egress: &Egress,
    policy: &Policy,
    protocol: Protocol,
    address: SocketAddr,
) -> Judgement {
    let unmatched = match policy.has_names() {
        true => "no rule about addresses matches",
        false => "no rule matches",
    };
    let (verdict, needs_name) = match policy.judge(protocol, address, |_| false) {
        policy::Judgement::Decided(verdict) => (verdict, false),
        // What becomes of a name that no rule is about.
        policy::Judgement::ByName(_) => (policy.judge_named(address, "", false), true),
    };
    if verdict.reason == Reason::Reserved {
        return Judgement {
            is_allowed: false,
            reason: format!(
                "{} is in a private or special range, which no rule names",
                address.ip()
            ),
        };
    }
    let mut judgement = in_words(egress, verdict, unmatched);
    if needs_name && judgement.is_allowed {
        judgement.reason += ", for connections that tell a name which no rule denies";
    }
    judgement
}

fn in_words(egress: &Egress, verdict: Verdict, unmatched: &str) -> Judgement {
    let reason = match verdict.reason {
        Reason::Unrestricted => "there are no rules".to_owned(),
        Reason::Rule(index) => {
            let rule = egress.as_str().split(',').nth(index).unwrap_or_default();
            format!("by rule {}, {rule}", index + 1)
        }
        Reason::Reserved | Reason::Unpinned | Reason::Unmatched => unmatched.to_owned(),
    };
    Judgement {
        is_allowed: verdict.action == Action::Allow,
        reason,
    }
}

fn parse(target: &str) -> Result<Target, ValueError> {
    let wrong = || {
        ValueError::new(format!(
            "{target:?} is not HOST:PORT[/tcp|udp] or HOST/icmp, HOST being an address or a name"
        ))
    };
    let (text, protocol) = target.rsplit_once('/').unwrap_or((target, "tcp"));
    let protocol = match protocol {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        "icmp" => {
            let place = place(text).ok_or_else(wrong)?;
            return Ok(Target {
                protocol: Protocol::Icmp,
                place,
                port: 0,
            });
        }
        _ => return Err(wrong()),
    };
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok(Target {
            protocol,
            place: Place::Address(address.ip()),
            port: address.port(),
        });
    }
    let (name, port) = text.split_once(':').ok_or_else(wrong)?;
    Ok(Target {
        protocol,
        place: Place::Name(normal_name(name).ok_or_else(wrong)?),
        port: port.parse().map_err(|_| wrong())?,
    })
}

fn place(text: &str) -> Option<Place> {
    match text.parse() {
        Ok(address) => Some(Place::Address(address)),
        Err(_) => normal_name(text).map(Place::Name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_judged_by_the_first_rule_that_matches() {
        let egress: Egress =
            "deny:192.0.2.1,192.0.2.0/24:443,[2001:db8::/32]:53/udp,198.51.100.0/24/icmp"
                .parse()
                .unwrap();
        for (target, is_allowed, reason) in [
            ("192.0.2.1:443", false, "by rule 1, deny:192.0.2.1"),
            ("192.0.2.9:443", true, "by rule 2, 192.0.2.0/24:443"),
            ("192.0.2.9:443/udp", true, "by rule 2, 192.0.2.0/24:443"),
            ("192.0.2.9:80/tcp", false, "no rule matches"),
            (
                "[2001:db8::1]:53/udp",
                true,
                "by rule 3, [2001:db8::/32]:53/udp",
            ),
            ("198.51.100.7/icmp", true, "by rule 4, 198.51.100.0/24/icmp"),
            (
                "169.254.169.254:80",
                false,
                "169.254.169.254 is in a private or special range, which no rule names",
            ),
        ] {
            let judgement = judge(&egress, target).unwrap();
            assert_eq!(
                (judgement.is_allowed, &*judgement.reason),
                (is_allowed, reason),
                "{target}"
            );
        }
        for wrong in [
            "",
            "example..com:80",
            "example.com",
            "10.0.0.300:80",
            "192.0.2.1",
            "192.0.2.1:80/sctp",
            "::1:80",
        ] {
            assert!(judge(&egress, wrong).is_err(), "{wrong}");
        }
        let judge = |rules: &str, target: &str| {
            let judgement = judge(&rules.parse().unwrap(), target).unwrap();
            (judgement.is_allowed, judgement.reason)
        };
        for (rules, target, is_allowed, reason) in [
            ("none", "192.0.2.1:80", false, "no rule matches"),
            ("all", "192.0.2.1:80", true, "by rule 1, all"),
            ("a.b,*.c.d", "Www.C.d.:443", true, "by rule 2, *.c.d"),
            ("a.b,*.c.d", "c.d:443", false, "no rule about names matches"),
            ("a.b:22", "a.b:443", false, "no rule about names matches"),
            ("a.b:22", "a.b:22", true, "by rule 1, a.b:22"),
            ("a.b/icmp", "a.b/icmp", true, "by rule 1, a.b/icmp"),
            ("deny:a.b,all", "a.b:443", false, "by rule 1, deny:a.b"),
            (
                "a.b",
                "192.0.2.1:443",
                false,
                "no rule about addresses matches",
            ),
            ("deny:a.b,all", "192.0.2.1:22", true, "by rule 2, all"),
            (
                "deny:a.b,all",
                "192.0.2.1:443",
                true,
                "by rule 2, all, for connections that tell a name which no rule denies",
            ),
            (
                "deny:a.b,all",
                "192.0.2.1:443/udp",
                false,
                "by rule 1, deny:a.b",
            ),
        ] {
            let expected = (is_allowed, reason.to_owned());
            assert_eq!(judge(rules, target), expected, "{rules} {target}");
        }
    }
}
