//! Any frames from a member to a network that runs; after each it must still answer.
#![no_main]

use hullbox_net::frame::build;
use hullbox_net::{Control, LinkFd, Mac, MemberConfig, Network, NetworkConfig, Offloads, Subnet};
use libfuzzer_sys::fuzz_target;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, socketpair};
use std::os::fd::OwnedFd;
use std::sync::OnceLock;

const MAC: Mac = Mac([2, 0, 0, 0, 0, 2]);
const GATEWAY: Mac = Mac([2, 0, 0, 0, 0, 1]);

fn bed() -> &'static (Control, OwnedFd) {
    static BED: OnceLock<(Control, OwnedFd)> = OnceLock::new();
    BED.get_or_init(|| {
        let mut config = NetworkConfig::new(GATEWAY);
        config.ipv4 = Some(Subnet { gateway: [10, 0, 0, 1].into(), prefix: 24 });
        let (network, control) = Network::new(config).unwrap();
        std::thread::spawn(move || network.run().unwrap());
        let kind = SocketType::SEQPACKET;
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None).unwrap();
        control
            .add_member(MemberConfig {
                ipv4: Some([10, 0, 0, 2].into()),
                policy: "none".parse().unwrap(),
                host_gateway: true,
                offloads: Offloads::NONE,
                ..MemberConfig::new(MAC, LinkFd::Packets(theirs))
            })
            .unwrap();
        (control, ours)
    })
}

fuzz_target!(|data: &[u8]| {
    let (control, link) = bed();
    // Frames with a length of one byte before each; the first bit gives them valid headers.
    let mut rest = data;
    while let Some((&length, after)) = rest.split_first() {
        let (bytes, next) = after.split_at(after.len().min(usize::from(length)));
        rest = next;
        let mut frame = vec![0; 12];
        if length & 1 == 1 && bytes.len() > 2 {
            frame.resize(46, 0);
            frame[0] = bytes[0] & 1;
            build::put_ethernet(&mut frame[12..26], GATEWAY, MAC, 0x0800);
            let (from, to) = ([10, 0, 0, 2].into(), [10, 0, 0, 1].into());
            build::put_ip(&mut frame[26..46], from, to, bytes[1], bytes.len() - 2);
            frame.extend_from_slice(&bytes[2..]);
        } else {
            frame.extend_from_slice(bytes);
        }
        rustix::net::send(link, &frame, SendFlags::NOSIGNAL).unwrap();
    }
    control.totals().unwrap();
    let mut buffer = vec![0; 1 << 17];
    while rustix::net::recv(link, &mut buffer[..], RecvFlags::DONTWAIT).is_ok() {}
});
