//! The packet header of virtio-vsock (virtio 1.2, section 5.10.6).

use std::io::{self, Read, Write};

/// Bytes of a header on the wire.
pub(super) const HEADER_LEN: usize = 44;
/// Context id of the host (section 5.10.4).
pub(super) const HOST_CID: u64 = 2;
/// The stream socket type (section 5.10.6).
pub(super) const TYPE_STREAM: u16 = 1;
/// Most payload bytes a packet may carry: what Linux sends, and what our scratch buffer holds.
pub(super) const MAX_PAYLOAD: usize = 64 * 1024;

/// What a packet does (section 5.10.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Op {
    Request,
    Response,
    Reset,
    Shutdown,
    Data,
    CreditUpdate,
    CreditRequest,
}

impl Op {
    const fn from_wire(op: u16) -> Option<Self> {
        Some(match op {
            1 => Self::Request,
            2 => Self::Response,
            3 => Self::Reset,
            4 => Self::Shutdown,
            5 => Self::Data,
            6 => Self::CreditUpdate,
            7 => Self::CreditRequest,
            _ => return None,
        })
    }

    const fn wire(self) -> u16 {
        match self {
            Self::Request => 1,
            Self::Response => 2,
            Self::Reset => 3,
            Self::Shutdown => 4,
            Self::Data => 5,
            Self::CreditUpdate => 6,
            Self::CreditRequest => 7,
        }
    }
}

/// The sender of a shutdown will receive no more.
pub(super) const SHUTDOWN_RECEIVE: u32 = 1;
/// The sender of a shutdown will send no more.
pub(super) const SHUTDOWN_SEND: u32 = 2;

/// A header, in host byte order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Header {
    pub src_cid: u64,
    pub dst_cid: u64,
    pub src_port: u32,
    pub dst_port: u32,
    pub len: u32,
    pub kind: u16,
    pub op: u16,
    pub flags: u32,
    pub buf_alloc: u32,
    pub fwd_cnt: u32,
}

impl Header {
    /// Takes a header off the front of a packet.
    pub(super) fn read_from(reader: &mut impl Read) -> io::Result<Self> {
        Ok(Self {
            src_cid: u64::from_le_bytes(take(reader)?),
            dst_cid: u64::from_le_bytes(take(reader)?),
            src_port: u32::from_le_bytes(take(reader)?),
            dst_port: u32::from_le_bytes(take(reader)?),
            len: u32::from_le_bytes(take(reader)?),
            kind: u16::from_le_bytes(take(reader)?),
            op: u16::from_le_bytes(take(reader)?),
            flags: u32::from_le_bytes(take(reader)?),
            buf_alloc: u32::from_le_bytes(take(reader)?),
            fwd_cnt: u32::from_le_bytes(take(reader)?),
        })
    }

    /// Puts the header at the front of a packet.
    pub(super) fn write_to(&self, writer: &mut impl Write) -> io::Result<()> {
        let mut wire = Vec::with_capacity(HEADER_LEN);
        wire.extend_from_slice(&self.src_cid.to_le_bytes());
        wire.extend_from_slice(&self.dst_cid.to_le_bytes());
        wire.extend_from_slice(&self.src_port.to_le_bytes());
        wire.extend_from_slice(&self.dst_port.to_le_bytes());
        wire.extend_from_slice(&self.len.to_le_bytes());
        wire.extend_from_slice(&self.kind.to_le_bytes());
        wire.extend_from_slice(&self.op.to_le_bytes());
        wire.extend_from_slice(&self.flags.to_le_bytes());
        wire.extend_from_slice(&self.buf_alloc.to_le_bytes());
        wire.extend_from_slice(&self.fwd_cnt.to_le_bytes());
        writer.write_all(&wire)
    }

    /// What the packet does, if we know it.
    pub(super) const fn op(&self) -> Option<Op> {
        Op::from_wire(self.op)
    }

    /// A packet to the guest.
    pub(super) const fn to_guest(guest_cid: u64, key: ConnectionKey, op: Op) -> Self {
        Self {
            src_cid: HOST_CID,
            dst_cid: guest_cid,
            src_port: key.host_port,
            dst_port: key.guest_port,
            len: 0,
            kind: TYPE_STREAM,
            op: op.wire(),
            flags: 0,
            buf_alloc: 0,
            fwd_cnt: 0,
        }
    }

    /// The connection that a packet from the guest is about.
    pub(super) const fn key(&self) -> ConnectionKey {
        ConnectionKey {
            host_port: self.dst_port,
            guest_port: self.src_port,
        }
    }
}

fn take<const N: usize>(reader: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    reader.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// The two ports that name a connection: there is one guest, and one host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct ConnectionKey {
    pub host_port: u32,
    pub guest_port: u32,
}

impl ConnectionKey {
    /// As the user data of an epoll registration.
    pub(super) const fn token(self) -> u64 {
        (self.host_port as u64) << 32 | self.guest_port as u64
    }

    /// The reverse of [`Self::token`].
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the halves are what is meant"
    )]
    pub(super) const fn from_token(token: u64) -> Self {
        Self {
            host_port: (token >> 32) as u32,
            guest_port: token as u32,
        }
    }
}
