//! What becomes of a query: it is answered here, or passed on.

use super::message::{Code, Query, TYPES_SERVICE};
use super::reverse;
use crate::core::{Core, MemberId};
use crate::counters::{Cause, Target};
use crate::policy::{Action, SECONDS, Verdict, embedded, is_reserved};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What becomes of a query.
#[derive(Debug, PartialEq, Eq)]
pub enum Decision {
    /// This is the response.
    Answer(Vec<u8>),
    /// The member's name servers are asked.
    PassOn,
}

/// Decides about a query of a member's, and counts a refusal.
pub fn decide(core: &mut Core, asker: MemberId, query: &Query<'_>) -> Decision {
    let name = query.name.as_str();
    if is_localhost(name) {
        let addresses = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        return Decision::Answer(query.answer(&addresses));
    }
    if let Some(addresses) = core.addresses_of(name, asker) {
        return Decision::Answer(query.answer(&addresses));
    }
    let member = core.members.get(asker);
    let has_others = member.is_some_and(|member| member.has_other_networks);
    let unknown = if has_others {
        Code::ServerFailure
    } else {
        Code::NameError
    };
    let address = reverse::address(name);
    if let Some(address) = address.filter(|&address| core.config.is_on_link(address)) {
        return Decision::Answer(match core.name_of(address) {
            Some(name) => query.point(name),
            None => query.respond(unknown),
        });
    }
    if core.config.internal {
        return match has_others {
            true => Decision::Answer(query.respond(unknown)),
            false => refuse(core, asker, query, Cause::Internal),
        };
    }
    let hosts = core.config.dns.as_ref().map(|config| &config.hosts);
    if let Some(addresses) = hosts.and_then(|hosts| hosts.get(name)).cloned() {
        let response = query.answer(&addresses);
        pin_host(core, asker, name, addresses);
        return Decision::Answer(response);
    }
    // Another network may have it, and whoever is asked behind this one would say that nobody has.
    let may_be_others = !name.contains('.') || address.is_some_and(is_reserved);
    if has_others && may_be_others {
        return Decision::Answer(query.respond(unknown));
    }
    let Some(verdict) = may_ask(core, asker, name) else {
        return Decision::Answer(query.respond(Code::Refused));
    };
    match verdict.action {
        Action::Deny => refuse(core, asker, query, Cause::Policy(verdict.reason)),
        // Whoever knows other addresses than those that were told cannot use them.
        Action::Allow if TYPES_SERVICE.contains(&query.kind) && is_by_name(core, asker) => {
            Decision::Answer(query.answer(&[]))
        }
        Action::Allow => Decision::PassOn,
    }
}

/// Names of the asker itself, which nobody else is asked about (RFC 6761, section 6.3).
fn is_localhost(name: &str) -> bool {
    name == "localhost" || name.ends_with(".localhost")
}

/// Who may connect nowhere has no use for a name, and its questions would be a way out.
fn may_ask(core: &Core, asker: MemberId, name: &str) -> Option<Verdict> {
    let member = core.members.get(asker)?;
    Some(member.policy.may_ask(name))
}

/// Whether a member's policy goes by names, and by the addresses that it was told for them.
pub fn is_by_name(core: &Core, asker: MemberId) -> bool {
    let member = core.members.get(asker);
    member.is_some_and(|member| member.policy.has_names())
}

/// A name of the host's own leads where the host says, as far as rules about names do.
fn pin_host(core: &mut Core, asker: MemberId, name: &str, addresses: Vec<IpAddr>) {
    let now_ns = core.now_ns;
    let verdict = may_ask(core, asker, name);
    let is_allowed = verdict.is_some_and(|verdict| verdict.action == Action::Allow);
    if !is_by_name(core, asker) || !is_allowed {
        return;
    }
    if let Some(member) = core.members.get_mut(asker) {
        let public = addresses
            .into_iter()
            .filter(|&address| !is_reserved(embedded(address)));
        let timed: Vec<_> = public.map(|address| (address, *SECONDS.end())).collect();
        member.pins.add(name, &timed, now_ns);
    }
}

fn refuse(core: &mut Core, asker: MemberId, query: &Query<'_>, cause: Cause) -> Decision {
    core.refuse(asker, Target::Name(query.name.clone()), cause);
    Decision::Answer(query.respond(Code::Refused))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::MemberConfig;
    use crate::dns::{DnsConfig, hosts};

    const A: u16 = 1;
    const PTR: u16 = 12;
    const AAAA: u16 = 28;

    fn core(internal: bool) -> Core {
        crate::testing::core(|config| {
            config.internal = internal;
            config.dns = Some(DnsConfig {
                hosts: hosts("192.0.2.7 printer\n"),
                ..DnsConfig::default()
            });
        })
    }

    fn add(core: &mut Core, number: u8, change: impl FnOnce(&mut MemberConfig)) -> MemberId {
        crate::testing::add(core, number, |member| {
            member.names = vec![format!("guest{number}")];
            change(member);
        })
    }

    fn bytes(name: &str, kind: u16) -> Vec<u8> {
        let mut bytes = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.split('.') {
            bytes.push(label.len() as u8);
            bytes.extend(label.as_bytes());
        }
        bytes.push(0);
        bytes.extend(kind.to_be_bytes());
        bytes.extend([0, 1]);
        bytes
    }

    /// What is decided: a code, how many answers, and the message's last bytes; or that it is passed on.
    fn ask(core: &mut Core, asker: MemberId, name: &str, kind: u16) -> String {
        let bytes = bytes(name, kind);
        match decide(core, asker, &Query::parse(&bytes).unwrap()) {
            Decision::PassOn => "passed on".to_owned(),
            Decision::Answer(response) => match (response[3] & 15, response[7]) {
                (0, 0) => "empty".to_owned(),
                (0, 1) if kind == A => {
                    let octets: [u8; 4] = *response.last_chunk().unwrap();
                    Ipv4Addr::from(octets).to_string()
                }
                (0, count) => format!("{count}"),
                (2, _) => "failure".to_owned(),
                (3, _) => "no name".to_owned(),
                (code, _) => format!("code {code}"),
            },
        }
    }

    #[test]
    fn what_is_known_here_is_answered_here() {
        let mut core = core(false);
        let asker = add(&mut core, 2, |_| {});
        add(&mut core, 3, |_| {});
        for (name, kind, expected) in [
            ("guest2", A, "10.9.0.2"),
            ("guest3", A, "10.9.0.3"),
            ("guest3", AAAA, "empty"),
            ("printer", A, "192.0.2.7"),
            ("localhost", A, "127.0.0.1"),
            ("localhost", AAAA, "1"),
            ("localhost", 15, "empty"),
            ("a.b.localhost", A, "127.0.0.1"),
            ("notlocalhost", A, "passed on"),
            ("localhost.example", A, "passed on"),
            ("3.0.9.10.in-addr.arpa", PTR, "1"),
            ("3.0.9.10.in-addr.arpa", A, "empty"),
            ("9.0.9.10.in-addr.arpa", PTR, "no name"),
            ("9.0.8.10.in-addr.arpa", PTR, "passed on"),
            ("guest9", A, "passed on"),
            ("www.example.com", A, "passed on"),
        ] {
            assert_eq!(ask(&mut core, asker, name, kind), expected, "{name} {kind}");
        }
        assert_eq!(core.totals().members.refused_names, 0);
    }

    #[test]
    fn a_member_of_other_networks_is_sent_to_their_name_servers() {
        let mut core = core(false);
        let asker = add(&mut core, 2, |member| member.has_other_networks = true);
        for (name, kind, expected) in [
            ("guest2", A, "10.9.0.2"),
            ("printer", A, "192.0.2.7"),
            ("guest9", A, "failure"),
            ("9.0.9.10.in-addr.arpa", PTR, "failure"),
            ("9.0.8.10.in-addr.arpa", PTR, "failure"),
            ("9.2.0.192.in-addr.arpa", PTR, "passed on"),
            ("www.example.com", A, "passed on"),
        ] {
            assert_eq!(ask(&mut core, asker, name, kind), expected, "{name} {kind}");
        }
    }

    #[test]
    fn an_internal_network_knows_its_members_alone() {
        let mut core = core(true);
        let asker = add(&mut core, 2, |_| {});
        let other = add(&mut core, 3, |member| member.has_other_networks = true);
        for (name, expected, of_other) in [
            ("guest3", "10.9.0.3", "10.9.0.3"),
            ("localhost", "127.0.0.1", "127.0.0.1"),
            ("printer", "code 5", "failure"),
            ("guest9", "code 5", "failure"),
            ("www.example.com", "code 5", "failure"),
        ] {
            assert_eq!(ask(&mut core, asker, name, A), expected, "{name}");
            assert_eq!(ask(&mut core, other, name, A), of_other, "{name}");
        }
        assert_eq!(core.totals().members.refused_names, 3);
    }

    #[test]
    fn whoever_may_connect_nowhere_has_nobody_asked() {
        let mut core = core(false);
        let closed = add(&mut core, 2, |member| {
            member.policy = "none".parse().unwrap();
        });
        let open = add(&mut core, 3, |_| {});
        assert_eq!(ask(&mut core, closed, "data.evil.example", A), "code 5");
        assert_eq!(ask(&mut core, closed, "printer", A), "192.0.2.7");
        assert_eq!(ask(&mut core, open, "data.evil.example", A), "passed on");
        let counters = &core.members.get(closed).unwrap().counters;
        let refused = &counters.refused_targets[0];
        assert_eq!(refused.target.to_string(), "name data.evil.example");
        assert_eq!((counters.refused_names, refused.count), (1, 1));
    }
}
