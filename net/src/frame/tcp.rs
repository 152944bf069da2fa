//! TCP headers (RFC 9293) and the options that matter here: MSS, window scale (RFC 7323), and that
//! selective acknowledgements are permitted (RFC 2018).

use super::{be16, be32};

/// The sender has sent all.
pub const FIN: u8 = 1;
/// A connection begins.
pub const SYN: u8 = 2;
/// The connection is reset.
pub const RST: u8 = 4;
/// Data should be given to the application.
pub const PSH: u8 = 8;
/// The acknowledgement number is valid.
pub const ACK: u8 = 16;

/// Largest shift of a window (RFC 7323, section 2.3).
const MAX_WINDOW_SCALE: u8 = 14;

/// A segment as it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TcpSegment<'a> {
    /// Source port.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
    /// Sequence number of the first byte (or of SYN).
    pub sequence: u32,
    /// Acknowledgement number.
    pub acknowledgement: u32,
    /// Flags.
    pub flags: u8,
    /// Window, not scaled.
    pub window: u16,
    /// Option: largest segment, in bytes.
    pub mss: Option<u16>,
    /// Option: shift of windows.
    pub window_scale: Option<u8>,
    /// Option: the sender takes selective acknowledgements.
    pub permits_sack: bool,
    /// Data.
    pub payload: &'a [u8],
}

impl<'a> TcpSegment<'a> {
    /// Parses a segment. Unknown options are skipped; a malformed one ends the options.
    #[must_use]
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let header_bytes = usize::from(*bytes.get(12)? >> 4) * 4;
        if header_bytes < 20 {
            return None;
        }
        let (header, payload) = bytes.split_at_checked(header_bytes)?;
        let options = options(header.get(20..)?);
        Some(Self {
            source_port: be16(header, 0)?,
            destination_port: be16(header, 2)?,
            sequence: be32(header, 4)?,
            acknowledgement: be32(header, 8)?,
            flags: *header.get(13)?,
            window: be16(header, 14)?,
            mss: options.mss,
            window_scale: options.window_scale,
            permits_sack: options.permits_sack,
            payload,
        })
    }

    /// Whether a flag is set.
    #[must_use]
    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// How many sequence numbers the segment takes.
    #[must_use]
    pub fn sequence_bytes(&self) -> u32 {
        self.payload.len() as u32 + u32::from(self.has(SYN)) + u32::from(self.has(FIN))
    }
}

#[derive(Default)]
struct Options {
    mss: Option<u16>,
    window_scale: Option<u8>,
    permits_sack: bool,
}

fn options(mut rest: &[u8]) -> Options {
    let mut options = Options::default();
    while let Some(&kind) = rest.first() {
        let length = match kind {
            0 => break,
            1 => 1,
            _ => match rest.get(1) {
                Some(&length) if length >= 2 => usize::from(length),
                _ => break,
            },
        };
        let Some((option, after)) = rest.split_at_checked(length) else {
            break;
        };
        match (kind, length) {
            (2, 4) => options.mss = be16(option, 2),
            (3, 3) => {
                options.window_scale = option.get(2).map(|&shift| shift.min(MAX_WINDOW_SCALE));
            }
            (4, 2) => options.permits_sack = true,
            _ => {}
        }
        rest = after;
    }
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(options: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; 20];
        bytes[12] = (((20 + options.len()) / 4) << 4) as u8;
        bytes[13] = SYN;
        bytes.extend_from_slice(options);
        bytes
    }

    #[test]
    fn options_are_found_among_others() {
        let bytes = header(&[1, 1, 4, 2, 2, 4, 5, 0xb4, 3, 3, 200, 0]);
        let segment = TcpSegment::parse(&bytes).unwrap();
        assert_eq!((segment.mss, segment.window_scale), (Some(1460), Some(14)));
        assert!(segment.permits_sack);
        assert_eq!(segment.sequence_bytes(), 1);
    }

    #[test]
    fn malformed_options_end_the_list() {
        for options in [
            [2, 0, 0, 0],
            [2, 1, 0, 0],
            [2, 40, 0, 0],
            [3, 3, 7, 2],
            [9, 3, 1, 2],
        ] {
            let bytes = header(&options);
            let segment = TcpSegment::parse(&bytes).unwrap();
            assert_eq!(segment.mss, None, "{options:?}");
        }
    }

    #[test]
    fn a_header_that_is_longer_than_the_segment_is_none() {
        let mut bytes = header(&[]);
        bytes[12] = 15 << 4;
        assert!(TcpSegment::parse(&bytes).is_none());
        bytes[12] = 4 << 4;
        assert!(TcpSegment::parse(&bytes).is_none());
    }
}
