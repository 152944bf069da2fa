//! What containers' networks need of the host.

use super::check::Check;
use std::fs;
use std::net::IpAddr;
use std::path::Path;

/// Where the host says whom it asks for names.
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// The kernel's choice where nobody has made one.
const FIRST_FREE_PORT: u16 = 1024;

/// All of it; the sockets that containers' traffic leaves by anybody has.
pub(super) fn checks() -> [Check; 4] {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    [
        tun(),
        ping(&read("/proc/sys/net/ipv4/ping_group_range")),
        ports(&read("/proc/sys/net/ipv4/ip_unprivileged_port_start")),
        names(&read(RESOLV_CONF)),
    ]
}

fn tun() -> Check {
    if Path::new("/dev/net/tun").exists() {
        Check::ok("tun", "/dev/net/tun is there")
    } else {
        Check::warn(
            "tun",
            "there is no /dev/net/tun: in container mode only --network none and host can be had",
            "load the module: `sudo modprobe tun`",
        )
    }
}

fn ping(range: &str) -> Check {
    let groups = rustix::process::getgroups().unwrap_or_default().into_iter();
    let mut groups = groups
        .chain([rustix::process::getegid()])
        .map(rustix::process::Gid::as_raw);
    if groups.any(|group| may_ping(range, group)) {
        Check::ok("ping", "echo requests of containers can leave")
    } else {
        Check::warn(
            "ping",
            "this user may not send echo requests, so ping from a container is refused",
            "allow it: `sudo sysctl net.ipv4.ping_group_range=\"0 2147483647\"`",
        )
    }
}

/// Whether a group is in the range of those that may open ping sockets (icmp(7)).
fn may_ping(range: &str, group: u32) -> bool {
    let mut bounds = range.split_whitespace().map(str::parse::<u32>);
    match (bounds.next(), bounds.next()) {
        (Some(Ok(first)), Some(Ok(last))) => (first..=last).contains(&group),
        _ => false,
    }
}

/// Which ports of the host may be published.
fn ports(first_free: &str) -> Check {
    let first = first_free.trim().parse().unwrap_or(FIRST_FREE_PORT);
    if first == 0 || rustix::process::geteuid().is_root() {
        Check::ok("ports", "every port of the host can be published")
    } else {
        Check::warn(
            "ports",
            format!("this user may publish ports from {first} on"),
            "publish a higher one (-p 8080:80), or allow lower ones: `sudo sysctl \
             net.ipv4.ip_unprivileged_port_start=0`",
        )
    }
}

/// Whom the names are asked of that containers look up.
fn names(resolv_conf: &str) -> Check {
    let servers = name_servers(resolv_conf);
    if servers.is_empty() {
        return Check::warn(
            "names",
            format!(
                "{RESOLV_CONF} names no name server: containers find names of /etc/hosts alone"
            ),
            "name one, there or for a container with --dns",
        );
    }
    let listed: Vec<String> = servers.iter().map(ToString::to_string).collect();
    Check::ok(
        "names",
        format!("containers' names are asked of {}", listed.join(", ")),
    )
}

/// What is not understood is skipped, as by the network itself.
fn name_servers(resolv_conf: &str) -> Vec<IpAddr> {
    let words = resolv_conf.lines().map(|line| {
        let mut words = line.split_whitespace();
        (words.next(), words.next())
    });
    words
        .filter(|(keyword, _)| *keyword == Some("nameserver"))
        .filter_map(|(_, address)| address?.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::check::Status;
    use super::*;

    #[test]
    fn groups_may_ping_that_are_in_the_range() {
        assert!(may_ping("0\t2147483647\n", 1000));
        assert!(may_ping("100 100", 100));
        // The kernel's default: nobody.
        assert!(!may_ping("1\t0\n", 0) && !may_ping("1\t0\n", 1));
        assert!(!may_ping("", 0));
    }

    #[test]
    fn name_servers_are_listed_and_their_absence_is_told() {
        let found = name_servers(
            "# nameserver 192.0.2.9\noptions x\nnameserver 192.0.2.1 x\n\
                                  nameserver  2001:db8::1\nnameserver fe80::1%eth0\nnameserver\n",
        );
        assert_eq!(
            found,
            ["192.0.2.1", "2001:db8::1"].map(|a| a.parse::<IpAddr>().unwrap())
        );
        assert_eq!(names("nameserver 192.0.2.1").status, Status::Ok);
        assert_eq!(names("search test").status, Status::Warn);
    }

    #[test]
    fn everybody_may_publish_where_no_port_is_privileged() {
        assert_eq!(ports("0\n").status, Status::Ok);
        let is_root = rustix::process::geteuid().is_root();
        for text in ["1024\n", "", "80"] {
            assert_eq!(ports(text).status == Status::Ok, is_root, "{text:?}");
        }
    }
}
