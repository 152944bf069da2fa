//! What a policy says of one target, and why: for whoever writes one.

use super::Egress;
use crate::units::ValueError;
use hullbox_net::policy::{Action, Policy, Protocol, Reason};
use std::net::{IpAddr, SocketAddr};

/// What is decided about a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement {
    /// Whether a container may connect there.
    pub is_allowed: bool,
    /// Which rule decides, or that none does.
    pub reason: String,
}

/// Judges `ADDRESS:PORT[/tcp|udp]` or `ADDRESS/icmp`.
///
/// # Errors
/// The target makes no sense.
pub fn judge(egress: &Egress, target: &str) -> Result<Judgement, ValueError> {
    let (protocol, address) = parse(target)?;
    let policy: Policy = egress
        .as_str()
        .parse()
        .map_err(|error| ValueError::new(format!("{error}")))?;
    let verdict = policy.decide(protocol, address);
    let reason = match verdict.reason {
        Reason::Unrestricted => "there are no rules".to_owned(),
        Reason::Rule(index) => {
            let rule = egress.as_str().split(',').nth(index).unwrap_or_default();
            format!("by rule {}, {rule}", index + 1)
        }
        Reason::Reserved => format!(
            "{} is in a private or special range, which no rule names",
            address.ip()
        ),
        Reason::Unmatched => "no rule matches".to_owned(),
    };
    Ok(Judgement {
        is_allowed: verdict.action == Action::Allow,
        reason,
    })
}

fn parse(target: &str) -> Result<(Protocol, SocketAddr), ValueError> {
    let wrong = || {
        ValueError::new(format!(
            "{target:?} is not ADDRESS:PORT[/tcp|udp] or ADDRESS/icmp"
        ))
    };
    let (place, protocol) = target.rsplit_once('/').unwrap_or((target, "tcp"));
    let protocol = match protocol {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        "icmp" => {
            let ip: IpAddr = place.parse().map_err(|_| wrong())?;
            return Ok((Protocol::Icmp, SocketAddr::new(ip, 0)));
        }
        _ => return Err(wrong()),
    };
    Ok((protocol, place.parse().map_err(|_| wrong())?))
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
            "example.com:80",
            "192.0.2.1",
            "192.0.2.1:80/sctp",
            "::1:80",
        ] {
            assert!(judge(&egress, wrong).is_err(), "{wrong}");
        }
        let none = judge(&"none".parse().unwrap(), "192.0.2.1:80").unwrap();
        assert!(!none.is_allowed);
        let all = judge(&"all".parse().unwrap(), "192.0.2.1:80").unwrap();
        assert!(all.is_allowed);
    }
}
