//! Which addresses the host itself reaches.

use hullbox_model::network::Subnet;
use std::net::Ipv4Addr;

/// Subnets of IPv4 to which the host has routes, its default route aside: members of a network with the
/// same addresses could not reach them. What cannot be read is nothing.
pub(super) fn routes() -> Vec<Subnet> {
    let text = std::fs::read_to_string("/proc/net/route").unwrap_or_default();
    parse(&text)
}

fn parse(text: &str) -> Vec<Subnet> {
    text.lines().skip(1).filter_map(route).collect()
}

/// Numbers are in the host's byte order.
fn route(line: &str) -> Option<Subnet> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let number = |at: usize| u32::from_str_radix(fields.get(at)?, 16).ok();
    let (destination, mask) = (number(1)?.to_ne_bytes(), number(7)?.to_ne_bytes());
    let prefix = u32::from_be_bytes(mask).leading_ones();
    let prefix = u8::try_from(prefix).ok().filter(|prefix| *prefix > 0)?;
    Subnet::around(Ipv4Addr::from(destination).into(), prefix)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_are_read_but_for_the_default_one() {
        let text = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
             eth0\t00000000\t0100A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
             docker0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n\
             eth0\t0000A8C0\t00000000\t0001\t0\t0\t0\t00F0FFFF\t0\t0\t0\n\
             broken\n";
        let found: Vec<_> = parse(text).iter().map(Subnet::to_string).collect();
        assert_eq!(found, ["172.17.0.0/16", "192.168.0.0/20"]);
        assert!(parse("").is_empty());
    }
}
