//! Names that stand for addresses: `7.0.0.10.in-addr.arpa` (RFC 1035, section 3.5), and 32 digits below
//! `ip6.arpa` (RFC 3596, section 2.5).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The address that a name in lower case stands for.
#[must_use]
pub fn address(name: &str) -> Option<IpAddr> {
    if let Some(digits) = name.strip_suffix(".in-addr.arpa") {
        return v4(digits).map(IpAddr::V4);
    }
    v6(name.strip_suffix(".ip6.arpa")?).map(IpAddr::V6)
}

fn v4(text: &str) -> Option<Ipv4Addr> {
    let mut octets = [0; 4];
    let mut labels = text.rsplit('.');
    for octet in &mut octets {
        let label = labels.next()?;
        // Neither a sign nor a leading zero: one name for each address.
        let is_plain = label.bytes().all(|byte| byte.is_ascii_digit())
            && (label.len() == 1 || !label.starts_with('0'));
        *octet = label.parse().ok().filter(|_| is_plain)?;
    }
    labels.next().is_none().then(|| octets.into())
}

fn v6(text: &str) -> Option<Ipv6Addr> {
    let mut value = 0u128;
    let mut count = 0;
    for label in text.rsplit('.') {
        let &[digit] = label.as_bytes() else {
            return None;
        };
        value = value << 4 | u128::from(char::from(digit).to_digit(16)?);
        count += 1;
        if count > 32 {
            return None;
        }
    }
    (count == 32).then(|| value.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_addresses_and_others() {
        let v6 = "7.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.7.7.d.f.ip6.arpa";
        for (name, expected) in [
            ("7.0.0.10.in-addr.arpa", Some("10.0.0.7")),
            ("255.255.255.255.in-addr.arpa", Some("255.255.255.255")),
            (v6, Some("fd77::7")),
            ("7.0.10.in-addr.arpa", None),
            ("1.7.0.0.10.in-addr.arpa", None),
            ("256.0.0.10.in-addr.arpa", None),
            ("07.0.0.10.in-addr.arpa", None),
            ("+7.0.0.10.in-addr.arpa", None),
            ("7.0.0.in-addr.arpa.", None),
            ("in-addr.arpa", None),
            (&v6[2..], None),
            (&format!("0.{v6}"), None),
            (&v6.replace("7.7.d.f", "77.d.f"), None),
            (&v6.replace('d', "x"), None),
            ("web", None),
        ] {
            let expected: Option<IpAddr> = expected.map(|text| text.parse().unwrap());
            assert_eq!(address(name), expected, "{name}");
        }
    }
}
