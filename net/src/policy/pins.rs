//! Addresses that a member was told for names, for as long as it was told.
//!
//! A connection under a rule with a name goes to such an address and to no other one.

use super::NamePattern;
use std::collections::HashMap;
use std::net::IpAddr;
use std::ops::RangeInclusive;

/// How long an address is kept, in seconds, whatever the answer said.
pub const SECONDS: RangeInclusive<u32> = 60..=3600;
const SECOND_NS: u64 = 1_000_000_000;

/// Most names of one member.
pub const MAX_NAMES: usize = 1024;
/// Most addresses of one name.
pub const MAX_ADDRESSES: usize = 32;

/// An address, and until when it is a name's.
type Pin = (IpAddr, u64);

/// The addresses of a member's names.
#[derive(Debug, Default)]
pub struct Pins {
    by_name: HashMap<String, Vec<Pin>>,
    /// How many of its names have an address.
    by_address: HashMap<IpAddr, Vec<String>>,
}

impl Pins {
    /// Keeps addresses of a name, in lower case, each for so many seconds, within bounds.
    pub fn add(&mut self, name: &str, addresses: &[(IpAddr, u32)], now_ns: u64) {
        if !self.by_name.contains_key(name) && self.by_name.len() >= MAX_NAMES {
            self.make_room(now_ns);
        }
        for &(address, seconds) in addresses {
            let kept = seconds.clamp(*SECONDS.start(), *SECONDS.end());
            self.add_one(name, address, now_ns + u64::from(kept) * SECOND_NS);
        }
    }

    fn add_one(&mut self, name: &str, address: IpAddr, until_ns: u64) {
        let pins = self.by_name.entry(name.to_owned()).or_default();
        if let Some(pin) = pins.iter_mut().find(|(other, _)| *other == address) {
            pin.1 = pin.1.max(until_ns);
            return;
        }
        let mut gone = None;
        if pins.len() >= MAX_ADDRESSES {
            let first = pins.iter().enumerate().min_by_key(|(_, pin)| pin.1);
            gone = first.map(|(at, _)| at).map(|at| pins.remove(at).0);
        }
        pins.push((address, until_ns));
        if let Some(gone) = gone {
            self.forget(gone, name);
        }
        self.by_address
            .entry(address)
            .or_default()
            .push(name.to_owned());
    }

    /// Drops what has run out; if that is nothing, the name that would run out first.
    fn make_room(&mut self, now_ns: u64) {
        let last = |pins: &[Pin]| pins.iter().map(|pin| pin.1).max().unwrap_or(0);
        let mut gone: Vec<String> = self
            .by_name
            .iter()
            .filter(|(_, pins)| last(pins) <= now_ns)
            .map(|(name, _)| name.clone())
            .collect();
        if gone.is_empty() {
            let first = self.by_name.iter().min_by_key(|(_, pins)| last(pins));
            gone.extend(first.map(|(name, _)| name.clone()));
        }
        for name in gone {
            for (address, _) in self.by_name.remove(&name).unwrap_or_default() {
                self.forget(address, &name);
            }
        }
    }

    fn forget(&mut self, address: IpAddr, name: &str) {
        if let Some(names) = self.by_address.get_mut(&address) {
            names.retain(|other| other != name);
            if names.is_empty() {
                self.by_address.remove(&address);
            }
        }
    }

    /// Whether an address is one of a name that matches.
    #[must_use]
    pub fn has(&self, address: IpAddr, pattern: &NamePattern, now_ns: u64) -> bool {
        let names = self.by_address.get(&address).into_iter().flatten();
        names
            .filter(|name| pattern.matches(name))
            .any(|name| self.of_name(name, now_ns).any(|other| other == address))
    }

    /// The addresses of a name that have not run out.
    pub fn of_name(&self, name: &str, now_ns: u64) -> impl Iterator<Item = IpAddr> {
        let pins = self.by_name.get(name).into_iter().flatten();
        pins.filter_map(move |&(address, until_ns)| (until_ns > now_ns).then_some(address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(number: u32) -> IpAddr {
        IpAddr::V4((0xc000_0200 + number).into())
    }

    fn pattern(text: &str) -> NamePattern {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_is_a_names_for_as_long_as_was_said_within_bounds() {
        for (said, kept) in [(0, 60), (60, 60), (90, 90), (u32::MAX, 3600)] {
            let mut pins = Pins::default();
            pins.add("www.example.com", &[(address(1), said)], 5);
            let last_ns = 5 + kept * SECOND_NS - 1;
            for name in ["*.example.com", "www.example.com", "*"] {
                assert!(pins.has(address(1), &pattern(name), last_ns), "{said}");
                assert!(!pins.has(address(1), &pattern(name), last_ns + 1), "{said}");
            }
            assert!(!pins.has(address(1), &pattern("example.com"), 5));
            assert!(!pins.has(address(2), &pattern("*"), 5));
        }
    }

    #[test]
    fn answers_add_up_and_never_shorten() {
        let mut pins = Pins::default();
        pins.add("a.b", &[(address(1), 600), (address(2), 600)], 0);
        pins.add("a.b", &[(address(2), 60), (address(3), 60)], 0);
        let now_ns = 100 * SECOND_NS;
        let left: Vec<IpAddr> = pins.of_name("a.b", now_ns).collect();
        assert_eq!(left, [address(1), address(2)]);
        assert_eq!(pins.of_name("a.b", 0).count(), 3);
        assert_eq!(pins.of_name("c.d", 0).count(), 0);
    }

    #[test]
    fn there_are_bounds() {
        let mut pins = Pins::default();
        for n in 0..3000 {
            let addresses = [(address(n), 60), (address(9999), 60)];
            pins.add(&format!("n{n}.x"), &addresses, u64::from(n));
        }
        assert_eq!(pins.by_name.len(), MAX_NAMES);
        assert_eq!(pins.by_address.len(), MAX_NAMES + 1);
        assert_eq!(pins.by_address[&address(9999)].len(), MAX_NAMES);
        // Those that would have run out first have gone.
        assert!(pins.has(address(2999), &pattern("n2999.x"), 3000));
        assert!(!pins.has(address(0), &pattern("*"), 0));
        let many: Vec<(IpAddr, u32)> = (0..100).map(|n| (address(n), 60)).collect();
        pins.add("many.x", &many, 0);
        assert_eq!(pins.of_name("many.x", 0).count(), MAX_ADDRESSES);
        // All at once, when they have run out.
        pins.add("late.x", &[(address(1), 60)], 4000 * SECOND_NS);
        assert_eq!((pins.by_name.len(), pins.by_address.len()), (1, 1));
    }
}
