//! What the gateway's name server knows of the host: whom to ask, and names of the host's own.

use hullbox_net::dns::{DnsConfig, hosts, name_servers};
use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::net::{IpAddr, SocketAddr};

const RESOLV_CONF: &str = "/etc/resolv.conf";
const HOSTS: &str = "/etc/hosts";
/// Most that is read of either, in bytes.
const MAX_FILE: u64 = 1 << 20;
const DNS_PORT: u16 = 53;

/// The name server's configuration: these resolvers, or else the host's. One at a loopback address of
/// the host is asked like any other, because whoever asks is a process of the host.
pub fn config(resolvers: &[IpAddr]) -> DnsConfig {
    let upstreams = match resolvers {
        [] => name_servers(&read(RESOLV_CONF)),
        typed => servers(typed),
    };
    DnsConfig {
        upstreams,
        hosts: reachable(hosts(&read(HOSTS))),
    }
}

/// Name servers at these addresses.
pub fn servers(addresses: &[IpAddr]) -> Vec<SocketAddr> {
    let server = |&address| SocketAddr::new(address, DNS_PORT);
    addresses.iter().map(server).collect()
}

/// Names that mean the same to a container: a loopback address would be its own.
fn reachable(mut hosts: HashMap<String, Vec<IpAddr>>) -> HashMap<String, Vec<IpAddr>> {
    for addresses in hosts.values_mut() {
        addresses.retain(|address| {
            let address = address.to_canonical();
            !address.is_loopback() && !address.is_unspecified() && !address.is_multicast()
        });
    }
    hosts.retain(|_, addresses| !addresses.is_empty());
    hosts
}

/// The beginning of a file; nothing of one that cannot be read.
fn read(path: &str) -> String {
    let mut bytes = Vec::new();
    // What was read before an error counts.
    let _ = File::open(path).and_then(|file| file.take(MAX_FILE).read_to_end(&mut bytes));
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_own_loopback_names_are_not_passed_on() {
        let text = "127.0.0.1 localhost\n127.0.1.1 laptop\n::1 localhost\nff02::1 ip6-allnodes\n\
                    192.0.2.7 printer laptop\n";
        let known = reachable(hosts(text));
        let address: IpAddr = "192.0.2.7".parse().unwrap();
        assert_eq!(known.len(), 2);
        assert_eq!(known["printer"], [address]);
        assert_eq!(known["laptop"], [address]);
    }

    #[test]
    fn typed_resolvers_take_the_place_of_the_hosts() {
        let config = config(&["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()]);
        let expected: [SocketAddr; 2] = [
            "192.0.2.1:53".parse().unwrap(),
            "[2001:db8::1]:53".parse().unwrap(),
        ];
        assert_eq!(config.upstreams, expected);
    }
}
