//! Policies as text: `none`, `all`, or rules with commas between them.
//!
//! A rule is `[allow:|deny:]WHERE[:PORT[-PORT]][/tcp|/udp|/icmp]`; WHERE is `all`, an address, a range, a
//! host name, or `*.NAME`, or `*`; IPv6 stands in brackets.

use super::{Action, Cidr, Place, Policy, Protocol, QUIC_PORT, Rule};
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::str::FromStr;

/// A rule that means nothing.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum RuleError {
    /// What stands in the place of a protocol.
    #[error("'{0}' is no protocol: tcp, udp and icmp are")]
    Protocol(String),
    /// What stands in the place of ports.
    #[error("'{0}' is no port and no range of ports")]
    Port(String),
    /// What stands in the place of an address or a name.
    #[error("'{0}' is no address, no range of addresses and no name such as example.com")]
    Place(String),
    /// ICMP has no ports.
    #[error("ICMP has no ports")]
    IcmpPort,
    /// QUIC tells no name that could be judged.
    #[error("UDP port 443 cannot be allowed by name: its connections hide theirs")]
    Quic,
}

impl FromStr for Policy {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        if text == "none" {
            return Ok(Self::from_rules(Vec::new()));
        }
        let rules: Result<Vec<Rule>, RuleError> = text.split(',').map(str::parse).collect();
        Ok(Self::from_rules(rules?))
    }
}

impl FromStr for Rule {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        let (action, rest) = match text.split_once(':') {
            Some(("allow", rest)) => (Action::Allow, rest),
            Some(("deny", rest)) => (Action::Deny, rest),
            _ => (Action::Allow, text),
        };
        let (rest, protocol) = protocol(rest)?;
        let (place, ports) = place_and_ports(rest)?;
        if ports.is_some() && protocol == Some(Protocol::Icmp) {
            return Err(RuleError::IcmpPort);
        }
        let is_quic = protocol == Some(Protocol::Udp) && ports == Some(QUIC_PORT..=QUIC_PORT);
        let place = self::place(place)?;
        if is_quic && action == Action::Allow && matches!(place, Place::Name(_)) {
            return Err(RuleError::Quic);
        }
        Ok(Self {
            action,
            place,
            ports,
            protocol,
        })
    }
}

/// Cuts a protocol off the end; a number behind a slash is a prefix and belongs to the address.
fn protocol(text: &str) -> Result<(&str, Option<Protocol>), RuleError> {
    let Some((rest, last)) = text.rsplit_once('/') else {
        return Ok((text, None));
    };
    match last {
        "tcp" => Ok((rest, Some(Protocol::Tcp))),
        "udp" => Ok((rest, Some(Protocol::Udp))),
        "icmp" => Ok((rest, Some(Protocol::Icmp))),
        _ if last.starts_with(|first: char| first.is_ascii_digit()) => Ok((text, None)),
        _ => Err(RuleError::Protocol(last.to_owned())),
    }
}

type Ports = Option<RangeInclusive<u16>>;

fn place_and_ports(text: &str) -> Result<(&str, Ports), RuleError> {
    if let Some(rest) = text.strip_prefix('[') {
        let (place, after) = rest
            .split_once(']')
            .filter(|(place, _)| place.contains(':'))
            .ok_or_else(|| RuleError::Place(text.to_owned()))?;
        return match after.strip_prefix(':') {
            Some(list) => Ok((place, Some(ports(list)?))),
            None if after.is_empty() => Ok((place, None)),
            None => Err(RuleError::Place(text.to_owned())),
        };
    }
    match text.split_once(':') {
        Some((place, list)) => Ok((place, Some(ports(list)?))),
        None => Ok((text, None)),
    }
}

fn ports(text: &str) -> Result<RangeInclusive<u16>, RuleError> {
    let wrong = || RuleError::Port(text.to_owned());
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let first: u16 = first.parse().map_err(|_| wrong())?;
    let last: u16 = last.parse().map_err(|_| wrong())?;
    if first == 0 || first > last {
        return Err(wrong());
    }
    Ok(first..=last)
}

fn place(text: &str) -> Result<Place, RuleError> {
    match text {
        "all" => Ok(Place::All),
        _ if text.contains(['/', ':']) || text.parse::<IpAddr>().is_ok() => {
            range(text).map(Place::Range)
        }
        _ => text.parse().map(Place::Name),
    }
}

fn range(text: &str) -> Result<Cidr, RuleError> {
    let wrong = || RuleError::Place(text.to_owned());
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().map_err(|_| wrong())?;
    let longest = if address.is_ipv4() { 32 } else { 128 };
    let prefix: u8 = match prefix {
        Some(prefix) => prefix.parse().map_err(|_| wrong())?,
        None => longest,
    };
    if prefix > longest {
        return Err(wrong());
    }
    Ok(Cidr::containing(address, prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(address: [u8; 4], prefix: u8) -> Place {
        Place::Range(Cidr::containing(address.into(), prefix))
    }

    #[test]
    fn rules_as_they_are_typed() {
        let rule: Rule = "deny:10.1.0.0/16:80-90/tcp".parse().unwrap();
        assert_eq!(rule.action, Action::Deny);
        assert_eq!(rule.place, range([10, 1, 0, 0], 16));
        assert_eq!(rule.ports, Some(80..=90));
        assert_eq!(rule.protocol, Some(Protocol::Tcp));
        let rule: Rule = "[2001:db8::/32]:443".parse().unwrap();
        assert_eq!(rule.ports, Some(443..=443));
        let rule: Rule = "all:53/udp".parse().unwrap();
        assert_eq!(
            (rule.place, rule.protocol),
            (Place::All, Some(Protocol::Udp))
        );
        let rule: Rule = "192.0.2.1".parse().unwrap();
        assert_eq!(rule.place, range([192, 0, 2, 1], 32));
        let rule: Rule = "deny:*.Example.com.:8080-8090/tcp".parse().unwrap();
        assert_eq!(rule.place, Place::Name("*.example.com".parse().unwrap()));
        assert_eq!(rule.ports, Some(8080..=8090));
        let rule: Rule = "*".parse().unwrap();
        assert_eq!(rule.place, Place::Name("*".parse().unwrap()));
        assert!("deny:a.b:443/udp".parse::<Rule>().is_ok());
    }

    #[test]
    fn what_means_nothing_is_named() {
        let wrong = |text: &str| text.parse::<Policy>().unwrap_err();
        assert_eq!(wrong("10.0.0.0/8/sctp"), RuleError::Protocol("sctp".into()));
        assert_eq!(wrong("10.0.0.0/8:0"), RuleError::Port("0".into()));
        assert_eq!(wrong("10.0.0.0/8:9-8"), RuleError::Port("9-8".into()));
        assert_eq!(wrong("10.0.0.0/33"), RuleError::Place("10.0.0.0/33".into()));
        assert_eq!(wrong("all:5/icmp"), RuleError::IcmpPort);
        assert_eq!(wrong("a.b:443/udp"), RuleError::Quic);
        for text in [
            "",
            ",",
            "[::1",
            "[::1]x",
            "host",
            "al",
            "10.0.0.0/8,",
            "10.0.0.300",
            "a.b/24",
            "[a.b]",
            "*x.y",
            "a..b",
            "*.",
            "é.com",
        ] {
            assert!(matches!(wrong(text), RuleError::Place(_)), "{text}");
        }
    }
}
