//! Ethernet frames with virtio-net headers: parsing what a guest sent, and building what it is
//! sent. Every parser is bounded by the slice that it is given, and none of them panics.

pub mod build;
pub mod checksum;
pub mod ethernet;
pub mod fragment;
pub mod ip;
pub mod segment;
pub mod tcp;
pub mod vnet;

/// Length of a virtio-net header with `num_buffers` (virtio 1.2, section 5.1.6), in bytes.
pub const VNET_BYTES: usize = 12;
/// Length of an Ethernet header without tags, in bytes.
pub const ETHERNET_BYTES: usize = 14;
/// The longest IP packet, in bytes.
pub const MAX_IP_BYTES: usize = 65535;
/// The longest frame on a link, virtio-net header included, in bytes.
pub const MAX_FRAME_BYTES: usize = VNET_BYTES + ETHERNET_BYTES + MAX_IP_BYTES;

/// Protocol numbers of IP (IANA).
pub mod protocol {
    /// ICMP for IPv4.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// The fragment header of IPv6.
    pub const IPV6_FRAGMENT: u8 = 44;
    /// ICMP for IPv6.
    pub const ICMPV6: u8 = 58;
}

/// Two bytes in network order at an offset, if they are there.
#[must_use]
pub fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    let two = bytes.get(at..at.checked_add(2)?)?;
    Some(u16::from_be_bytes(two.try_into().ok()?))
}

/// Four bytes in network order at an offset, if they are there.
#[must_use]
pub fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    let four = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_be_bytes(four.try_into().ok()?))
}
