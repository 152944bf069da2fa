//! The virtio-net header (virtio 1.2, section 5.1.6): checksum and segmentation offload.

use super::VNET_BYTES;

/// The checksum is partial: the receiver completes it from `csum_start`.
pub const F_NEEDS_CSUM: u8 = 1;
/// The checksum was verified already.
pub const F_DATA_VALID: u8 = 2;
/// No segmentation.
pub const GSO_NONE: u8 = 0;
/// TCP over IPv4.
pub const GSO_TCPV4: u8 = 1;
/// TCP over IPv6.
pub const GSO_TCPV6: u8 = 4;
/// A flag beside the type: the segment carries explicit congestion notification.
pub const GSO_ECN: u8 = 0x80;

/// A virtio-net header. Fields are little-endian on the wire, as virtio 1 has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct VnetHeader {
    /// `F_NEEDS_CSUM`, `F_DATA_VALID`.
    pub flags: u8,
    /// `GSO_NONE`, `GSO_TCPV4`, `GSO_TCPV6`.
    pub gso_type: u8,
    /// Length of all headers, in bytes; a hint.
    pub header_bytes: u16,
    /// Payload of each segment, in bytes.
    pub gso_bytes: u16,
    /// Where the checksum begins, from the Ethernet header on.
    pub csum_start: u16,
    /// Where its field is, from `csum_start` on.
    pub csum_offset: u16,
}

impl VnetHeader {
    /// Parses a header; `num_buffers` says nothing in this direction.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let header = bytes.get(..VNET_BYTES)?;
        let le16 = |at: usize| Some(u16::from_le_bytes(header.get(at..at + 2)?.try_into().ok()?));
        Some(Self {
            flags: *header.first()?,
            gso_type: *header.get(1)?,
            header_bytes: le16(2)?,
            gso_bytes: le16(4)?,
            csum_start: le16(6)?,
            csum_offset: le16(8)?,
        })
    }

    /// The header's bytes, for one receive buffer.
    #[must_use]
    pub fn encode(self) -> [u8; VNET_BYTES] {
        let mut bytes = [0; VNET_BYTES];
        bytes[0] = self.flags;
        bytes[1] = self.gso_type;
        bytes[2..4].copy_from_slice(&self.header_bytes.to_le_bytes());
        bytes[4..6].copy_from_slice(&self.gso_bytes.to_le_bytes());
        bytes[6..8].copy_from_slice(&self.csum_start.to_le_bytes());
        bytes[8..10].copy_from_slice(&self.csum_offset.to_le_bytes());
        bytes[10..12].copy_from_slice(&1u16.to_le_bytes());
        bytes
    }

    /// What of a sender's header may be shown to another member, for a frame of that length
    /// without its virtio-net header. `None` if it makes no sense: a receiver would trust it.
    #[must_use]
    pub fn for_receiver(self, frame_bytes: usize) -> Option<Self> {
        let flags = self.flags & F_NEEDS_CSUM;
        let field_end = usize::from(self.csum_start) + usize::from(self.csum_offset) + 2;
        if flags == 0 {
            return (self.gso_type == GSO_NONE).then(Self::default);
        }
        let gso = self.gso_type & !GSO_ECN;
        let is_known = match gso {
            GSO_NONE => true,
            GSO_TCPV4 | GSO_TCPV6 => self.gso_bytes > 0,
            _ => false,
        };
        (is_known && field_end <= frame_bytes).then_some(Self { flags, ..self })
    }

    /// Whether the transport checksum in the frame need not be verified.
    #[must_use]
    pub fn checksum_is_offloaded(self) -> bool {
        self.flags & (F_NEEDS_CSUM | F_DATA_VALID) != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receiver_sees_only_what_makes_sense() {
        let good = VnetHeader {
            flags: F_NEEDS_CSUM | F_DATA_VALID,
            gso_type: GSO_TCPV4,
            header_bytes: 54,
            gso_bytes: 1448,
            csum_start: 34,
            csum_offset: 16,
        };
        let seen = good.for_receiver(1000).unwrap();
        assert_eq!((seen.flags, seen.gso_bytes), (F_NEEDS_CSUM, 1448));
        assert_eq!(good.for_receiver(51), None);
        for wrong in [
            VnetHeader {
                flags: F_DATA_VALID,
                ..good
            },
            VnetHeader {
                gso_bytes: 0,
                ..good
            },
            VnetHeader {
                gso_type: 3,
                ..good
            },
            VnetHeader {
                csum_start: u16::MAX,
                ..good
            },
        ] {
            assert_eq!(wrong.for_receiver(1000), None, "{wrong:?}");
        }
        let plain = VnetHeader {
            flags: F_DATA_VALID,
            gso_type: 0,
            ..good
        };
        assert_eq!(plain.for_receiver(1000), Some(VnetHeader::default()));
    }

    #[test]
    fn what_is_encoded_is_parsed() {
        let header = VnetHeader {
            flags: F_NEEDS_CSUM,
            gso_type: GSO_TCPV6,
            header_bytes: 74,
            gso_bytes: 1440,
            csum_start: 54,
            csum_offset: 16,
        };
        assert_eq!(VnetHeader::parse(&header.encode()), Some(header));
        assert_eq!(VnetHeader::parse(&header.encode()[..11]), None);
    }
}
