//! The network card of every guest, and the link that carries its frames.

use crate::error::GuestError;
use hullbox_backend::bundle::Bundle;
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

/// The VMM's ends of a guest's links, by the addresses of its interfaces. They are kept for another guest
/// that boots in place of the first.
#[derive(Debug, Default)]
pub(crate) struct Links(Vec<([u8; 6], OwnedFd)>);

impl Links {
    /// Links for a container that is in networks of user mode, and their other ends.
    pub(crate) fn of(bundle: &Bundle) -> Result<(Self, Vec<OwnedFd>), GuestError> {
        let interfaces = match &bundle.network {
            Network::User(_) => bundle.setup.interfaces.as_slice(),
            // The last two are refused before a microVM is started.
            Network::None | Network::Host | Network::Container(_) => &[],
        };
        let mut links = Self::default();
        let mut members = Vec::new();
        for interface in interfaces {
            let (ours, theirs) = pair().map_err(GuestError::Link)?;
            links.0.push((interface.mac, ours));
            members.push(theirs);
        }
        Ok((links, members))
    }

    /// Connect a guest's card with them.
    pub(crate) fn connect(&self, vm: &Vm) -> Result<(), GuestError> {
        for (mac, ours) in &self.0 {
            let ours = ours.try_clone().map_err(GuestError::Link)?;
            vm.connect_network(*mac, ours).map_err(GuestError::Vmm)?;
        }
        Ok(())
    }
}

/// A link: the VMM's end, and the other one.
pub(crate) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    for end in [&ours, &theirs] {
        sockopt::set_socket_send_buffer_size(end, LINK_BYTES)?;
    }
    Ok((ours, theirs))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{RecvFlags, SendFlags};

    #[test]
    fn a_link_takes_the_longest_frame() {
        let (ours, theirs) = pair().unwrap();
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
