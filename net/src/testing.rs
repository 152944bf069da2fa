//! What this crate's unit tests are made of.

use crate::config::{LinkFd, MemberConfig, NetworkConfig, Subnet};
use crate::core::{Core, MemberId};
use crate::frame::ethernet::Mac;
use std::os::unix::net::UnixStream;

/// A network whose gateway is 10.9.0.1, without members.
pub fn core(change: impl FnOnce(&mut NetworkConfig)) -> Core {
    let mut config = NetworkConfig::new(Mac([2, 0, 0, 0, 0, 1]));
    config.ipv4 = Some(Subnet {
        gateway: [10, 9, 0, 1].into(),
        prefix: 24,
    });
    change(&mut config);
    Core::new(config).unwrap()
}

/// Adds a member whose addresses end with this number.
pub fn add(core: &mut Core, number: u8, change: impl FnOnce(&mut MemberConfig)) -> MemberId {
    let (_, link) = UnixStream::pair().unwrap();
    let mac = Mac([2, 0, 0, 0, 0, number]);
    let mut member = MemberConfig::new(mac, LinkFd::Stream(link.into()));
    member.ipv4 = Some([10, 9, 0, number].into());
    change(&mut member);
    core.add_member(member).unwrap()
}
