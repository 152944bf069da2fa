//! Contents of /etc/hosts and /etc/resolv.conf.

use super::error::{PlanError, value};
use super::network::{GATEWAY, Planned};
use super::request::RunRequest;
use super::spec::Typed;
use super::units::{HostAddress, HostEntry};
use hullbox_backend::network::Network;
use hullbox_protocol::{Interface, Setup};
use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr};

/// The usual names of this machine.
const LOCALHOST: &str = "127.0.0.1\tlocalhost\n\
     ::1\tlocalhost ip6-localhost ip6-loopback\n\
     fe00::0\tip6-localnet\n\
     ff00::0\tip6-mcastprefix\n\
     ff02::1\tip6-allnodes\n\
     ff02::2\tip6-allrouters\n";

/// The usual names of this machine, what was asked for, and the container's own; the file of the container
/// whose network it joins.
pub(super) fn hosts(hostname: &str, request: &RunRequest, planned: &Planned) -> String {
    if let (Network::Container(_), Some(joined)) = (&planned.network, &request.network.joined) {
        return joined.etc_hosts.clone();
    }
    let mut text = LOCALHOST.to_owned();
    // Before its own, as in Docker: the first line that has a name counts.
    text.push_str(&entries(&request.add_host, gateway_of(&planned.network)));
    for address in own_addresses(planned) {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{address}\t{hostname}");
    }
    text
}

/// The addresses that the container's own name has.
fn own_addresses(planned: &Planned) -> Vec<IpAddr> {
    let own: Vec<_> = planned.interfaces.iter().flat_map(addresses).collect();
    if own.is_empty() {
        // Debian's address of a machine without a permanent one.
        return vec![Ipv4Addr::new(127, 0, 1, 1).into()];
    }
    own
}

fn addresses(interface: &Interface) -> impl Iterator<Item = IpAddr> {
    let ipv4 = interface.ipv4.map(|ipv4| IpAddr::V4(ipv4.address));
    let ipv6 = interface.ipv6.map(|ipv6| IpAddr::V6(ipv6.address));
    ipv4.into_iter().chain(ipv6)
}

/// What leads to the host.
const fn gateway_of(network: &Network) -> Ipv4Addr {
    match network {
        Network::Host => Ipv4Addr::LOCALHOST,
        _ => GATEWAY,
    }
}

/// A line for each `--add-host`.
fn entries(extra: &[HostEntry], gateway: Ipv4Addr) -> String {
    let mut text = String::new();
    for entry in extra {
        let address = match entry.address {
            HostAddress::Ip(address) => address,
            HostAddress::Gateway => gateway.into(),
        };
        let _ = writeln!(text, "{address}\t{}", entry.name);
    }
    text
}

/// The gateway as name server in a network of its own, else those of `--dns`, and what the rest of
/// that family says. The host's own search domains are not passed on: names that end in them are asked
/// of the host's name servers all the same, but in full.
pub(super) fn resolv_conf(request: &RunRequest, network: &Network) -> Result<String, PlanError> {
    let word = |flag, text: &str| {
        if text.is_empty() || text.chars().any(|c| c.is_whitespace() || c.is_control()) {
            Err(value(flag, format!("{text:?} is not one word")))
        } else {
            Ok(())
        }
    };
    if let (Network::Container(_), Some(joined)) = (network, &request.network.joined) {
        return Ok(joined.etc_resolv_conf.clone());
    }
    let mut text = String::new();
    if let Network::User(_) = network {
        // It asks those of `--dns`.
        let _ = writeln!(text, "nameserver {GATEWAY}");
    } else {
        for address in &request.dns {
            let _ = writeln!(text, "nameserver {address}");
        }
    }
    for domain in &request.dns_search {
        word("dns-search", domain)?;
    }
    text.push_str(&search(&request.dns_search));
    for option in &request.dns_option {
        word("dns-option", option)?;
    }
    if !request.dns_option.is_empty() {
        let _ = writeln!(text, "options {}", request.dns_option.join(" "));
    }
    if text.is_empty() {
        text.push_str("# This container has no network.\n");
    }
    Ok(text)
}

/// Makes the files of a container that shares its host's network from the host's own, which may change
/// between two starts, and what was typed.
pub fn share_host(setup: &mut Setup, typed: &Typed, hosts: &str, resolv_conf: &str) {
    let extra = typed.extra_hosts.iter();
    let extra: Vec<HostEntry> = extra.filter_map(|text| text.parse().ok()).collect();
    setup.etc_hosts = lines(hosts.lines()) + &entries(&extra, gateway_of(&Network::Host));

    let own = |keys: &'static [&str]| {
        let has_key = move |line: &&str| {
            let key = line.split_whitespace().next();
            key.is_some_and(|key| keys.contains(&key))
        };
        lines(resolv_conf.lines().filter(has_key))
    };
    let mut text = match typed.dns.as_slice() {
        [] => own(&["nameserver"]),
        typed => lines(typed.iter().map(|server| format!("nameserver {server}"))),
    };
    match typed.dns_search.as_slice() {
        [] => text.push_str(&own(&["search", "domain"])),
        [dot] if dot == "." => {}
        typed => text += &lines([format!("search {}", typed.join(" "))].iter()),
    }
    match typed.dns_options.as_slice() {
        [] => text.push_str(&own(&["options"])),
        typed => text += &lines([format!("options {}", typed.join(" "))].iter()),
    }
    setup.etc_resolv_conf = text;
}

/// Makes the files of a container that is in networks which it shares, where it has these interfaces: its
/// own name with its address in each, and their gateways as name servers.
pub fn join_shared(setup: &mut Setup, typed: &Typed, interfaces: &[Interface]) {
    let gateways = interfaces
        .iter()
        .filter_map(|interface| interface.ipv4?.gateway);
    let gateways: Vec<Ipv4Addr> = gateways.collect();
    let own = interfaces.iter().flat_map(addresses);
    let own = own.map(|address| format!("{address}\t{}", setup.hostname));
    let extra = typed.extra_hosts.iter();
    let extra: Vec<HostEntry> = extra.filter_map(|text| text.parse().ok()).collect();
    let gateway = gateways.first().copied().unwrap_or(GATEWAY);
    setup.etc_hosts = LOCALHOST.to_owned() + &entries(&extra, gateway) + &lines(own);

    let mut text = lines(
        gateways
            .iter()
            .map(|gateway| format!("nameserver {gateway}")),
    );
    text += &search(&typed.dns_search);
    // A name without dots is another member's, not a host's of the search domain.
    let mut options = typed.dns_options.clone();
    if !options.iter().any(|option| option.starts_with("ndots:")) {
        options.push("ndots:0".to_owned());
    }
    setup.etc_resolv_conf = text + &lines([format!("options {}", options.join(" "))].iter());
}

/// A single dot means no search domain.
fn search(domains: &[String]) -> String {
    match domains {
        [] => String::new(),
        [dot] if dot == "." => String::new(),
        typed => lines([format!("search {}", typed.join(" "))].iter()),
    }
}

fn lines<T: AsRef<str>>(all: impl Iterator<Item = T>) -> String {
    all.fold(String::new(), |text, line| text + line.as_ref() + "\n")
}
