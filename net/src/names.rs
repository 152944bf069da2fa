//! Names of members.

use crate::core::{Core, MemberId};
use std::net::IpAddr;

impl Core {
    /// Gives a member these names, in lower case, in place of those that it had.
    pub fn set_names(&mut self, id: MemberId, names: Vec<String>) -> bool {
        let Some(member) = self.members.get_mut(id) else {
            return false;
        };
        let before = std::mem::replace(&mut member.names, names.clone());
        for name in before {
            if let Some(owners) = self.by_name.get_mut(&name) {
                owners.retain(|owner| *owner != id);
                if owners.is_empty() {
                    self.by_name.remove(&name);
                }
            }
        }
        for name in names {
            let owners = self.by_name.entry(name).or_default();
            if !owners.contains(&id) {
                owners.push(id);
            }
        }
        true
    }

    /// The addresses of all members with a name: those of `asker` first, if it is one of them. The others
    /// take turns to be the first, so that clients spread over them. None if nobody has the name.
    pub fn addresses_of(&mut self, name: &str, asker: MemberId) -> Option<Vec<IpAddr>> {
        let owners = self.by_name.get_mut(name)?;
        owners.rotate_left(1);
        let mut order = owners.clone();
        order.sort_by_key(|owner| *owner != asker);
        let mut addresses = Vec::new();
        for member in order.into_iter().filter_map(|id| self.members.get(id)) {
            addresses.extend(member.ipv4.map(IpAddr::from));
            addresses.extend(member.ipv6.map(IpAddr::from));
        }
        Some(addresses)
    }

    /// What the member with an address is called; empty if it has no name. None if nobody has the address.
    #[must_use]
    pub fn name_of(&self, address: IpAddr) -> Option<&str> {
        let member = self.members.get(*self.by_address.get(&address)?)?;
        Some(member.names.first().map_or("", String::as_str))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn core() -> Core {
        crate::testing::core(|_| {})
    }

    fn add(core: &mut Core, number: u8, names: &[&str]) -> MemberId {
        crate::testing::add(core, number, |member| {
            member.names = names.iter().map(|&name| name.to_owned()).collect();
        })
    }

    fn address(number: u8) -> IpAddr {
        [10, 9, 0, number].into()
    }

    #[test]
    fn members_that_share_a_name_take_turns_and_find_themselves() {
        let mut core = core();
        let client = add(&mut core, 2, &["client"]);
        let first = add(&mut core, 3, &["one", "web"]);
        add(&mut core, 4, &["two", "web"]);
        add(&mut core, 5, &["three", "web", "web"]);
        let mut seen = Vec::new();
        for _ in 0..3 {
            let addresses = core.addresses_of("web", client).unwrap();
            assert_eq!(addresses.len(), 3);
            seen.push(addresses[0]);
            assert_eq!(core.addresses_of("web", first).unwrap()[0], address(3));
        }
        seen.sort();
        assert!(seen.windows(2).any(|pair| pair[0] != pair[1]), "{seen:?}");
        assert_eq!(core.addresses_of("nobody", client), None);
    }

    #[test]
    fn names_go_with_their_member_and_can_be_given_again() {
        let mut core = core();
        let client = add(&mut core, 2, &["client"]);
        let web = add(&mut core, 3, &["web"]);
        assert_eq!(core.name_of(address(3)), Some("web"));
        assert!(core.set_names(web, vec!["db".to_owned(), "store".to_owned()]));
        assert_eq!(core.addresses_of("web", client), None);
        assert_eq!(core.addresses_of("store", client), Some(vec![address(3)]));
        assert_eq!(core.name_of(address(3)), Some("db"));
        core.remove_member(web);
        assert_eq!(core.addresses_of("db", client), None);
        assert_eq!(core.name_of(address(3)), None);
        assert_eq!(core.by_name.len(), 1);
        add(&mut core, 4, &["web"]);
        assert_eq!(core.addresses_of("web", client), Some(vec![address(4)]));
        assert!(!core.set_names(web, Vec::new()));
    }
}
