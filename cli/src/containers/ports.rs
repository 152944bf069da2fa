//! `port`, and the ports of `ps`.

use crate::args::container::PortArgs;
use crate::engine;
use crate::output::failure::Failure;
use crate::output::stdout;
use hullbox_model::container::{Port, PortBinding};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

/// `port CONTAINER [PORT[/PROTOCOL]]`.
pub(crate) fn port(args: &PortArgs) -> Result<(), Failure> {
    let engine = engine::open()?;
    let record = engine.find(&args.name)?;
    let ports = engine
        .inspect_container(&record, false)
        .network_settings
        .ports;
    // As Docker: an empty one is none.
    let lines = match args.port.as_deref().filter(|port| !port.is_empty()) {
        Some(port) => of_one(&ports, port, &args.name)?,
        None => of_all(&ports),
    };
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    stdout::print(&text)
}

type Ports = BTreeMap<String, Option<Vec<PortBinding>>>;

/// Where one port is published.
fn of_one(ports: &Ports, text: &str, container: &str) -> Result<Vec<String>, Failure> {
    let (number, protocol) = text.split_once('/').unwrap_or((text, ""));
    let protocol = if protocol.is_empty() { "tcp" } else { protocol };
    let is_number = number.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number || number.parse::<u16>().is_err() {
        return Err(Failure::new(format!("invalid port ({number})")));
    }
    let bindings = ports.get(&format!("{number}/{protocol}"));
    match bindings.and_then(Option::as_ref) {
        Some(bindings) if !bindings.is_empty() => Ok(in_order(bindings.iter().map(address))),
        _ => Err(Failure::new(format!(
            "No public port '{text}' published for {container}"
        ))),
    }
}

/// Where each port is published.
fn of_all(ports: &Ports) -> Vec<String> {
    in_order(ports.iter().flat_map(|(port, bindings)| {
        let bindings = bindings.iter().flatten();
        bindings.map(move |binding| format!("{port} -> {}", address(binding)))
    }))
}

fn address(binding: &PortBinding) -> String {
    let ip = binding.host_ip.parse::<IpAddr>();
    match (ip, binding.host_port.parse()) {
        (Ok(ip), Ok(port)) => SocketAddr::new(ip, port).to_string(),
        _ => format!("{}:{}", binding.host_ip, binding.host_port),
    }
}

/// Numbers in the texts count as numbers.
fn in_order(lines: impl Iterator<Item = String>) -> Vec<String> {
    let mut lines: Vec<String> = lines.collect();
    lines.sort_by_cached_key(|line| natural(line));
    lines
}

/// A part of a text: digits sort before all else, and among themselves by their value.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Number(u64),
    Char(char),
}

fn natural(text: &str) -> Vec<Part> {
    let mut parts = Vec::new();
    for c in text.chars() {
        match (c.to_digit(10), parts.last_mut()) {
            (Some(digit), Some(Part::Number(number))) => {
                *number = number.saturating_mul(10).saturating_add(u64::from(digit));
            }
            (Some(digit), _) => parts.push(Part::Number(u64::from(digit))),
            (None, _) => parts.push(Part::Char(c)),
        }
    }
    parts
}

/// The column PORTS, as docker 26.1 writes it: neighbours that lead to themselves are one range, and what
/// leads elsewhere stands by itself.
pub(super) fn column(ports: &[Port]) -> String {
    // The open ranges, by address and protocol, in the order in which each was begun first.
    let mut open: Vec<(&str, &str, u16, u16)> = Vec::new();
    let mut done = Vec::new();
    let mut elsewhere = Vec::new();
    for port in ports {
        let (ip, kind, number) = (port.ip.as_str(), port.kind.as_str(), port.private_port);
        if !ip.is_empty() && port.public_port != Some(number) {
            let public = port.public_port.unwrap_or(0);
            elsewhere.push(format!("{ip}:{public}->{number}/{kind}"));
            continue;
        }
        let same = |range: &&mut (&str, &str, u16, u16)| (range.0, range.1) == (ip, kind);
        match open.iter_mut().find(same) {
            Some(range) if range.3.checked_add(1) == Some(number) => range.3 = number,
            Some(range) => {
                done.push(ports_of(*range));
                (range.2, range.3) = (number, number);
            }
            None => open.push((ip, kind, number, number)),
        }
    }
    done.extend(open.into_iter().map(ports_of));
    done.extend(elsewhere);
    done.join(", ")
}

fn ports_of((ip, kind, first, last): (&str, &str, u16, u16)) -> String {
    let numbers = if first == last {
        first.to_string()
    } else {
        format!("{first}-{last}")
    };
    if ip.is_empty() {
        format!("{numbers}/{kind}")
    } else {
        format!("{ip}:{numbers}->{numbers}/{kind}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(text: &str) -> Vec<Port> {
        let one = |text: &str| {
            let (host, inside) = text.split_once("->").unwrap_or(("", text));
            let (number, kind) = inside.split_once('/').unwrap();
            let (ip, public) = host.rsplit_once(':').unwrap_or_default();
            Port {
                ip: ip.to_owned(),
                private_port: number.parse().unwrap(),
                public_port: public.parse().ok(),
                kind: kind.to_owned(),
            }
        };
        text.split(' ')
            .filter(|text| !text.is_empty())
            .map(one)
            .collect()
    }

    #[test]
    fn the_column_folds_what_leads_to_itself() {
        for (ports, wanted) in [
            ("", ""),
            ("80/tcp", "80/tcp"),
            (
                "0.0.0.0:8080->80/tcp :::8080->80/tcp",
                "0.0.0.0:8080->80/tcp, :::8080->80/tcp",
            ),
            ("80/tcp 81/tcp 82/tcp 84/tcp", "80-82/tcp, 84/tcp"),
            ("53/tcp 53/udp 54/udp", "53/tcp, 53-54/udp"),
            (
                "0.0.0.0:80->80/tcp :::80->80/tcp 0.0.0.0:81->81/tcp :::81->81/tcp",
                "0.0.0.0:80-81->80-81/tcp, :::80-81->80-81/tcp",
            ),
            (
                "0.0.0.0:90->80/tcp 443/tcp 0.0.0.0:444->444/tcp",
                "443/tcp, 0.0.0.0:444->444/tcp, 0.0.0.0:90->80/tcp",
            ),
            // Not one range, though the numbers are neighbours.
            (
                "0.0.0.0:80->80/tcp 127.0.0.1:81->81/tcp 82/tcp",
                "0.0.0.0:80->80/tcp, 127.0.0.1:81->81/tcp, 82/tcp",
            ),
        ] {
            assert_eq!(column(&listed(ports)), wanted, "{ports}");
        }
    }

    fn ports(lines: &[(&str, &[(&str, &str)])]) -> Ports {
        let bindings = |list: &[(&str, &str)]| -> Vec<PortBinding> {
            let binding = |(ip, port): &(&str, &str)| PortBinding {
                host_ip: (*ip).to_owned(),
                host_port: (*port).to_owned(),
            };
            list.iter().map(binding).collect()
        };
        let lines = lines.iter();
        lines
            .map(|(port, list)| {
                let list = Some(bindings(list)).filter(|list| !list.is_empty());
                ((*port).to_owned(), list)
            })
            .collect()
    }

    #[test]
    fn ports_are_listed_in_the_order_of_their_numbers() {
        let ports = ports(&[
            ("443/tcp", &[("0.0.0.0", "4430"), ("::", "4430")]),
            ("53/udp", &[]),
            ("80/tcp", &[("127.0.0.1", "10080"), ("127.0.0.1", "8080")]),
        ]);
        assert_eq!(
            of_all(&ports),
            [
                "80/tcp -> 127.0.0.1:8080",
                "80/tcp -> 127.0.0.1:10080",
                "443/tcp -> 0.0.0.0:4430",
                "443/tcp -> [::]:4430",
            ]
        );
        let one = |text: &str| of_one(&ports, text, "web").map_err(|error| format!("{error:?}"));
        assert_eq!(one("443").unwrap(), ["0.0.0.0:4430", "[::]:4430"]);
        assert_eq!(one("443/tcp").unwrap().len(), 2);
        for missing in ["53/udp", "443/udp", "81", "80/TCP"] {
            let error = one(missing).unwrap_err();
            let words = format!("No public port '{missing}' published for web");
            assert!(error.contains(&words), "{error}");
        }
        for invalid in ["x", "-1", "+80", "65536", "/tcp"] {
            let error = one(invalid).unwrap_err();
            assert!(error.contains("invalid port ("), "{error}");
        }
    }
}
