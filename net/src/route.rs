//! Where a packet to the gateway's MAC address leads.

use crate::core::{Core, MemberId};
use crate::counters::{Cause, Target};
use crate::gate::Speech;
use crate::policy::{Action, Judgement, Protocol};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The port of name servers.
const DNS_PORT: u16 = 53;

/// Where it leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// To this address, from the host.
    Host(SocketAddr),
    /// Where the name leads that a TCP connection will tell.
    ByName(Speech),
    /// To the gateway itself, and there is nothing.
    Gateway,
    /// To the gateway's name server.
    NameServer,
    /// Nowhere: an address of the subnet that nobody has, or one that no host has.
    Unreachable,
    /// The member's policy refuses it, or the network is an internal one.
    Refused(Cause),
}

impl Core {
    /// Where a packet leads that a member sends to the gateway's MAC address, and counts refusals.
    pub fn route(&mut self, from: MemberId, kind: Protocol, target: SocketAddr) -> Route {
        let address = target.ip();
        let route = if self.config.is_gateway(address) {
            self.route_to_gateway(from, kind, target)
        } else if self.config.is_on_link(address) || is_never_remote(address) {
            Route::Unreachable
        } else if self.config.internal {
            Route::Refused(Cause::Internal)
        } else {
            self.judge(from, kind, target)
        };
        let cause = match route {
            Route::Host(_) | Route::ByName(_) | Route::NameServer => return route,
            Route::Gateway => Cause::Gateway,
            Route::Unreachable => Cause::Unreachable,
            Route::Refused(cause) => cause,
        };
        self.refuse(from, Target::Flow(kind, target), cause);
        route
    }

    fn route_to_gateway(&self, from: MemberId, kind: Protocol, target: SocketAddr) -> Route {
        if self.config.dns.is_some() && kind != Protocol::Icmp && target.port() == DNS_PORT {
            return Route::NameServer;
        }
        let is_led = self
            .members
            .get(from)
            .is_some_and(|member| member.host_gateway);
        match target.ip() {
            _ if !is_led || self.config.internal => Route::Gateway,
            IpAddr::V4(_) => Route::Host((Ipv4Addr::LOCALHOST, target.port()).into()),
            IpAddr::V6(_) => Route::Host((Ipv6Addr::LOCALHOST, target.port()).into()),
        }
    }

    fn judge(&mut self, from: MemberId, kind: Protocol, target: SocketAddr) -> Route {
        let Some(member) = self.members.get_mut(from) else {
            return Route::Unreachable;
        };
        let (pins, now_ns) = (&member.pins, self.now_ns);
        let is_of = |pattern: &_| pins.has(target.ip(), pattern, now_ns);
        let verdict = match member.policy.judge(kind, target, is_of) {
            Judgement::Decided(verdict) => verdict,
            Judgement::ByName(speech) => return Route::ByName(speech),
        };
        member.counters.decided(verdict.reason);
        match verdict.action {
            Action::Allow => Route::Host(target),
            Action::Deny => Route::Refused(Cause::Policy(verdict.reason)),
        }
    }

    /// Where a connection leads that told a name, best first: if a rule about names allows it, to the
    /// addresses that the member was told for that name. Nowhere if it is refused, which is counted.
    pub fn judge_named(
        &mut self,
        from: MemberId,
        target: SocketAddr,
        name: &str,
    ) -> Vec<SocketAddr> {
        let now_ns = self.now_ns;
        let Some(member) = self.members.get_mut(from) else {
            return Vec::new();
        };
        let mut own: Vec<IpAddr> = member.pins.of_name(name, now_ns).collect();
        let verdict = member.policy.judge_named(target, name, !own.is_empty());
        member.counters.decided(verdict.reason);
        if verdict.action == Action::Deny {
            let target = Target::Named(target, name.to_owned());
            self.refuse(from, target, Cause::Policy(verdict.reason));
            return Vec::new();
        }
        if !member.policy.is_by_name(verdict.reason) {
            return vec![target];
        }
        let wanted = target.ip();
        own.sort_by_key(|ip| (*ip != wanted, ip.is_ipv4() != wanted.is_ipv4()));
        own.into_iter()
            .map(|ip| SocketAddr::new(ip, target.port()))
            .collect()
    }
}

/// Whether an address is that of no other host: unspecified, loopback, multicast, broadcast,
/// link-local IPv6 (it means another link here), or an IPv4 address in IPv6's clothes.
fn is_never_remote(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            address.octets()[0] == 0
                || address.is_loopback()
                || address.is_multicast()
                || address.octets()[0] >= 240
        }
        IpAddr::V6(address) => {
            address.is_loopback()
                || address.is_unspecified()
                || address.is_multicast()
                || address.is_unicast_link_local()
                || address.to_ipv4().is_some()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Reason;
    use crate::testing::add;

    const GATEWAY: &str = "10.9.0.1:80";
    const REMOTE: &str = "192.0.2.1:80";

    fn core(internal: bool) -> Core {
        crate::testing::core(|config| config.internal = internal)
    }

    fn route(core: &mut Core, from: MemberId, target: &str) -> Route {
        core.route(from, Protocol::Tcp, target.parse().unwrap())
    }

    fn host(target: &str) -> Route {
        Route::Host(target.parse().unwrap())
    }

    #[test]
    fn neither_loopback_nor_the_subnet_leads_to_the_host() {
        let mut core = core(false);
        let member = add(&mut core, 2, |_| {});
        assert_eq!(route(&mut core, member, GATEWAY), Route::Gateway);
        for target in [
            "10.9.0.7:80",
            "127.0.0.1:80",
            "127.1.2.3:80",
            "0.0.0.0:80",
            "255.255.255.255:80",
            "224.0.0.1:80",
            "[::1]:80",
            "[::]:80",
            "[::ffff:127.0.0.1]:80",
            "[::ffff:192.0.2.1]:80",
            "[fe80::1]:80",
            "[ff02::1]:80",
        ] {
            let led = route(&mut core, member, target);
            assert_eq!(led, Route::Unreachable, "{target}");
        }
        assert_eq!(route(&mut core, member, REMOTE), host(REMOTE));
        assert_eq!(core.totals().members.refused, 13);
    }

    #[test]
    fn each_member_has_its_own_policy_and_way_to_the_host() {
        let mut core = core(false);
        let open = add(&mut core, 2, |member| member.host_gateway = true);
        let closed = add(&mut core, 3, |member| {
            member.policy = "deny:192.0.2.0/24,all".parse().unwrap();
        });
        assert_eq!(route(&mut core, open, GATEWAY), host("127.0.0.1:80"));
        assert_eq!(route(&mut core, open, REMOTE), host(REMOTE));
        assert_eq!(route(&mut core, closed, GATEWAY), Route::Gateway);
        let rule = Cause::Policy(Reason::Rule(0));
        assert_eq!(route(&mut core, closed, REMOTE), Route::Refused(rule));
        assert_eq!(core.members.get(open).unwrap().counters.refused, 0);
        let counters = &core.members.get(closed).unwrap().counters;
        let refused: Vec<String> = counters
            .refused_targets
            .iter()
            .map(|refused| refused.target.to_string())
            .collect();
        assert_eq!(refused, ["tcp 10.9.0.1:80", "tcp 192.0.2.1:80"]);
        assert_eq!(counters.rules, [1]);
        let told = |core: &Core| -> Vec<(MemberId, String, Cause)> {
            let notices = core.notices.take().into_iter();
            notices
                .map(|one| {
                    (
                        one.member,
                        one.refused.target.to_string(),
                        one.refused.cause,
                    )
                })
                .collect()
        };
        let gateway = (closed, "tcp 10.9.0.1:80".to_owned(), Cause::Gateway);
        let remote = (closed, "tcp 192.0.2.1:80".to_owned(), rule);
        assert_eq!(told(&core), [gateway, remote]);
        // Neither what was told nor what fails everywhere.
        route(&mut core, closed, REMOTE);
        route(&mut core, closed, "10.9.0.7:80");
        assert_eq!(told(&core), []);
        // What is counted of a member stays in the network's counts.
        core.remove_member(closed);
        assert_eq!(core.totals().members.refused, 4);
    }

    #[test]
    fn an_internal_network_leads_nowhere() {
        let mut core = core(true);
        let member = add(&mut core, 2, |member| member.host_gateway = true);
        assert_eq!(route(&mut core, member, GATEWAY), Route::Gateway);
        let refused = Route::Refused(Cause::Internal);
        assert_eq!(route(&mut core, member, REMOTE), refused);
        assert_eq!(route(&mut core, member, "10.9.0.7:80"), Route::Unreachable);
    }
}
