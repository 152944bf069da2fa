//! `/etc/hosts` and `/etc/resolv.conf` (resolv.conf(5)). What a line says that is not understood
//! is passed over.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

/// Most name servers that are asked: glibc's.
const MAX_SERVERS: usize = 3;
const MAX_SEARCH: usize = 6;

/// How names are asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Config {
    pub servers: Vec<IpAddr>,
    /// Whether the file names them.
    pub names_servers: bool,
    search: Vec<String>,
    ndots: usize,
    /// Of one question to one server.
    pub timeout: Duration,
    /// Rounds through the servers.
    pub attempts: usize,
}

impl Config {
    pub(super) fn parse(text: &str) -> Self {
        let mut own = Self {
            servers: Vec::new(),
            names_servers: false,
            search: Vec::new(),
            ndots: 1,
            timeout: Duration::from_secs(5),
            attempts: 2,
        };
        for mut words in lines(text) {
            match words.next() {
                Some("nameserver") => {
                    // An address with a zone is of a link; glibc's third and later are not asked.
                    let address = words.next().and_then(|word| word.parse::<IpAddr>().ok());
                    own.servers.extend(address);
                }
                Some("search" | "domain") => own.search = words.map(plain).collect(),
                Some("options") => words.for_each(|word| own.option(word)),
                _ => {}
            }
        }
        own.servers.truncate(MAX_SERVERS);
        own.search.truncate(MAX_SEARCH);
        own.names_servers = !own.servers.is_empty();
        if !own.names_servers {
            own.servers.push(Ipv4Addr::LOCALHOST.into());
        }
        own
    }

    fn option(&mut self, word: &str) {
        let Some((key, value)) = word.split_once(':') else {
            return;
        };
        let Ok(value) = value.parse::<u8>() else {
            return;
        };
        match key {
            "ndots" => self.ndots = usize::from(value.min(15)),
            "timeout" => self.timeout = Duration::from_secs(u64::from(value.clamp(1, 30))),
            "attempts" => self.attempts = usize::from(value.clamp(1, 5)),
            _ => {}
        }
    }

    /// The full names that a name may be, in the order they are asked for.
    pub(super) fn names(&self, name: &str) -> Vec<String> {
        let searched = self.search.iter().map(|domain| format!("{name}.{domain}"));
        let mut names: Vec<String> = searched.collect();
        if name.matches('.').count() >= self.ndots {
            names.insert(0, name.to_owned());
        } else {
            names.push(name.to_owned());
        }
        names
    }

    /// The servers, for an error.
    pub(super) fn shown(&self) -> String {
        let servers: Vec<String> = self.servers.iter().map(ToString::to_string).collect();
        servers.join(", ")
    }
}

/// The addresses that a hosts file has for a name.
pub(super) fn hosts(text: &str, name: &str) -> Vec<IpAddr> {
    lines(text)
        .filter_map(|mut words| {
            let address = words.next()?.parse().ok()?;
            words.any(|word| plain(word) == name).then_some(address)
        })
        .collect()
}

/// Lower case, without the dot at the end.
fn plain(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}

/// The words of each line, without comments.
fn lines(text: &str) -> impl Iterator<Item = std::str::SplitWhitespace<'_>> {
    text.lines().map(|line| {
        let end = line.find(['#', ';']).unwrap_or(line.len());
        line[..end].split_whitespace()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_unknown_is_passed_over() {
        let own = Config::parse(
            "# by hand\nsearch A.io b.io. \noptions edns0 ndots:2 timeout:0 attempts:x made-up:7\n\
             nameserver fe80::1%eth0\nnameserver 10.0.0.1 # one\nnameserver ::1\nnameserver\nsortlist x\n",
        );
        assert_eq!(own.shown(), "10.0.0.1, ::1");
        assert_eq!(own.timeout, Duration::from_secs(1));
        assert_eq!(own.attempts, 2);
        assert_eq!(own.names("r"), ["r.a.io", "r.b.io", "r"]);
        assert_eq!(own.names("a.b.c"), ["a.b.c", "a.b.c.a.io", "a.b.c.b.io"]);
        assert_eq!(Config::parse("").shown(), "127.0.0.1");
    }

    #[test]
    fn a_hosts_file_has_several_lines_for_a_name() {
        let text = "10.0.0.1 x R.io. # r\n::5 r.io\nnonsense r.io\n10.0.0.2 r.io.x\n";
        let expected: [IpAddr; 2] = ["10.0.0.1".parse().unwrap(), "::5".parse().unwrap()];
        assert_eq!(hosts(text, "r.io"), expected);
        assert!(hosts(text, "nonsense").is_empty());
    }
}
