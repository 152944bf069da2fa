//! `resolv.conf` and `hosts`. What a line says that is not understood is skipped: a resolver that
//! gives up on an unknown option leaves its containers without names.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

/// Most name servers that are used.
const MAX_SERVERS: usize = 8;
/// Most names of a hosts file that are used.
const MAX_NAMES: usize = 16 * 1024;
const DNS_PORT: u16 = 53;

/// The words of each line, without comments.
fn lines(text: &str) -> impl Iterator<Item = std::str::SplitWhitespace<'_>> {
    text.lines().map(|line| {
        line.split(['#', ';'])
            .next()
            .unwrap_or_default()
            .split_whitespace()
    })
}

/// The name servers of a `resolv.conf`, in order. Addresses with a zone are skipped.
#[must_use]
pub fn name_servers(text: &str) -> Vec<SocketAddr> {
    lines(text)
        .filter_map(|mut words| {
            let address = (words.next()? == "nameserver").then(|| words.next())??;
            Some(SocketAddr::new(address.parse::<IpAddr>().ok()?, DNS_PORT))
        })
        .take(MAX_SERVERS)
        .collect()
}

/// The names of a hosts file, in lower case.
#[must_use]
pub fn hosts(text: &str) -> HashMap<String, Vec<IpAddr>> {
    let mut names: HashMap<String, Vec<IpAddr>> = HashMap::new();
    for mut words in lines(text) {
        let Some(address) = words.next().and_then(|word| word.parse().ok()) else {
            continue;
        };
        for name in words {
            let name = name.trim_end_matches('.').to_ascii_lowercase();
            if names.len() >= MAX_NAMES && !names.contains_key(&name) {
                return names;
            }
            names.entry(name).or_default().push(address);
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_unknown_in_a_resolv_conf_is_skipped() {
        let text = "# made by somebody\nsearch example.com\noptions edns0 trust-ad made-up:7\n\
                    nameserver 127.0.0.53\nnameserver fe80::1%eth0\n nameserver\t2001:db8::1 # one\n\
                    nameserver\nnameserver nonsense\nnameserver 10.0.0.1;\nsortlist x\n";
        let expected: Vec<SocketAddr> = ["127.0.0.53:53", "[2001:db8::1]:53", "10.0.0.1:53"]
            .map(|address| address.parse().unwrap())
            .into();
        assert_eq!(name_servers(text), expected);
        assert_eq!(
            name_servers(&"nameserver 10.0.0.1\n".repeat(100)).len(),
            MAX_SERVERS
        );
    }

    #[test]
    fn hosts_have_several_names_and_addresses() {
        let names = hosts(
            "127.0.0.1 localhost\n::1 LocalHost ip6-localhost. # both\nnonsense x\n10.0.0.5\n",
        );
        assert_eq!(
            names["localhost"],
            [
                "127.0.0.1".parse::<IpAddr>().unwrap(),
                "::1".parse().unwrap()
            ]
        );
        assert_eq!(names["ip6-localhost"].len(), 1);
        assert_eq!(names.len(), 2);
    }
}
