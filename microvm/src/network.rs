//! The network card of every guest, and the link that carries its frames.

use crate::error::GuestError;
use hullbox_backend::network::Network;
use hullbox_vmm::{NetConfig, Vm};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair, sockopt};
use std::io;
use std::os::fd::OwnedFd;

/// The same for all guests, a template's too: one that begins at a template then finds its card
/// as it was. The agent gives it the address of its container.
pub(crate) const CARD: NetConfig = NetConfig {
    mac: [0x02, 0x48, 0x55, 0x4c, 0x4c, 0x00],
    // That of a container's TAP device, too, which could take one byte more.
    mtu: 65520,
};

/// What may wait in either direction, in bytes: some frames of 64 KiB, so that neither end waits
/// for the other after each. The host may allow less.
const LINK_BYTES: usize = 1 << 20;

/// The VMM's end of a guest's link. It is kept for another guest that boots in place of the first.
#[derive(Debug)]
pub(crate) struct Link(OwnedFd);

impl Link {
    /// A link for a container that has a network of user mode, and its other end.
    pub(crate) fn of(network: &Network) -> Result<Option<(Self, OwnedFd)>, GuestError> {
        match network {
            Network::User(_) => pair().map(Some).map_err(GuestError::Link),
            // The last two are refused before a microVM is started.
            Network::None | Network::Host | Network::Container(_) => Ok(None),
        }
    }

    /// Connect a guest's card with it.
    pub(crate) fn connect(&self, vm: &Vm) -> Result<(), GuestError> {
        vm.connect_network(self.0.try_clone().map_err(GuestError::Link)?);
        Ok(())
    }
}

fn pair() -> io::Result<(Link, OwnedFd)> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    for end in [&ours, &theirs] {
        sockopt::set_socket_send_buffer_size(end, LINK_BYTES)?;
    }
    Ok((Link(ours), theirs))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hullbox_backend::network::UserNetwork;
    use rustix::net::{RecvFlags, SendFlags};

    #[test]
    fn a_link_is_made_for_a_network_of_user_mode_and_takes_the_longest_frame() {
        for network in [
            Network::None,
            Network::Host,
            Network::Container("0".repeat(64)),
        ] {
            assert!(Link::of(&network).unwrap().is_none());
        }
        let network = Network::User(UserNetwork::default());
        let (Link(ours), theirs) = Link::of(&network).unwrap().unwrap();
        let frame = vec![7; 12 + 14 + 65535];
        let mut buffer = vec![0; frame.len() + 1];
        for (from, to) in [(&ours, &theirs), (&theirs, &ours)] {
            rustix::net::send(from, &frame, SendFlags::empty()).unwrap();
            // A second one does not wait for the first to be read.
            rustix::net::send(from, &frame[..60], SendFlags::empty()).unwrap();
            for length in [frame.len(), 60] {
                let (received, _) =
                    rustix::net::recv(to, &mut buffer[..], RecvFlags::empty()).unwrap();
                assert_eq!(received, length);
            }
            let nothing = rustix::net::recv(to, &mut buffer[..], RecvFlags::empty());
            assert_eq!(nothing.unwrap_err(), rustix::io::Errno::AGAIN);
        }
    }
}
