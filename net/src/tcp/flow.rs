//! One TCP flow: a connection of a member's and the host socket that it is translated to.

use super::ahead::Ahead;
use super::gate::Gate;
use super::sequence::{after, distance};
use crate::core::MemberId;
use crate::frame::tcp::TcpSegment;
use crate::timers::Deadline;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

/// The shift of the windows that are advertised to members.
pub const WINDOW_SCALE: u8 = 8;
/// The window of a SYN and of what follows it without an option, in bytes.
pub const UNSCALED_WINDOW: u32 = 65535;
/// The largest segment of a peer that names none, in bytes (RFC 9293, section 3.7.1).
pub const DEFAULT_MSS: u16 = 536;
/// The smallest segment that a member may ask for, in bytes.
const MIN_MSS: u16 = 216;

/// Names a flow by its ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key {
    /// Whose connection it is.
    pub member: MemberId,
    /// The member's address and port.
    pub guest: SocketAddr,
    /// The other end, as the member sees it.
    pub remote: SocketAddr,
}

/// Where a flow stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// The member's SYN came; the host's socket is being connected.
    Connecting,
    /// SYN-ACK was sent to the member.
    SynReceived,
    /// A published port's connection was accepted, and SYN was sent to the member.
    SynSent,
    /// Data may flow.
    Established,
    /// Both directions have ended and the host's socket is closed; late segments are acknowledged.
    TimeWait,
}

/// What a flow's host socket has for the member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// There may be bytes that were not peeked at.
    Ready,
    /// All that has come was peeked at.
    Drained,
}

/// A flow.
#[derive(Debug)]
pub struct Flow {
    /// Its ends.
    pub key: Key,
    /// The socket is one of a pair, to the name server.
    pub is_local: bool,
    /// Where it stands.
    pub state: State,
    /// The host's socket, until `TimeWait`; none yet while a name is waited for.
    pub socket: Option<OwnedFd>,
    /// What keeps data from the socket.
    pub gate: Option<Box<Gate>>,

    /// To the member: the oldest number that is not acknowledged.
    pub unacknowledged: u32,
    /// To the member: the next number that is sent.
    pub next: u32,
    /// To the member: the number behind the last that ever was sent.
    pub highest: u32,
    /// To the member: the number of FIN, once it was sent.
    pub fin: Option<u32>,
    /// The member's window, in bytes.
    pub window: u32,
    /// The shift of the member's windows.
    pub window_shift: u8,
    /// The member's largest segment, in bytes.
    pub mss: u16,
    /// Acknowledgements in a row that acknowledge nothing.
    pub duplicates: u8,
    /// A loss is being made good until this number is acknowledged (RFC 6582).
    pub recover: Option<u32>,
    /// The oldest segment that is not acknowledged has to be sent again.
    pub must_resend: bool,
    /// Bytes that the member has acknowledged and that still lie in the socket.
    pub to_discard: usize,
    /// Where the kernel begins the next peek, once it was told.
    pub peek_offset: Option<usize>,
    /// The kernel can begin a peek at an offset, as far as is known.
    pub can_offset: bool,
    /// Whether the socket may have more.
    pub source: Source,
    /// The host's peer has sent all.
    pub source_ended: bool,

    /// From the member: the next number that is expected.
    pub expected: u32,
    /// From the member: what the socket was not given yet.
    pub ahead: Ahead,
    /// From the member: the number of its FIN, once it came.
    pub guest_fin: Option<u32>,
    /// From the member: its FIN came, and the host's socket was shut down for writing.
    pub guest_ended: bool,
    /// The member takes selective acknowledgements.
    pub permits_sack: bool,
    /// Whether windows to the member are scaled.
    pub scaled: bool,
    /// The largest window that the member is given, in bytes.
    pub longest_window: u32,
    /// The window that was advertised last, in bytes.
    pub advertised: u32,
    /// A window below this is to be followed by a larger one, in bytes.
    pub low_window: u32,
    /// The host's socket has no room for what is expected.
    pub refused: bool,
    /// Of that something could not be kept.
    pub dropped: bool,

    /// The member has to be sent an acknowledgement.
    pub must_acknowledge: bool,
    /// The flow is in the list of those that the end of the turn looks at.
    pub is_dirty: bool,
    /// It is in one of the lists of those that wait for their member's rate.
    pub is_late: bool,
    /// It is among those that wait for their member's link.
    pub is_blocked: bool,
    /// How often something was sent again without an answer.
    pub retries: u8,
    /// How often the member was asked for a window, with or without an answer.
    pub probes: u8,
    /// When something has to be done.
    pub deadline: Deadline,
}

impl Flow {
    /// A flow in its first state; `initial` is the first sequence number that the member is sent.
    #[must_use]
    pub fn new(key: Key, state: State, socket: impl Into<Option<OwnedFd>>, initial: u32) -> Self {
        Self {
            key,
            is_local: false,
            state,
            socket: socket.into(),
            gate: None,
            unacknowledged: initial,
            next: initial.wrapping_add(1),
            highest: initial.wrapping_add(1),
            fin: None,
            window: UNSCALED_WINDOW,
            window_shift: 0,
            mss: DEFAULT_MSS,
            duplicates: 0,
            recover: None,
            must_resend: false,
            to_discard: 0,
            peek_offset: None,
            can_offset: true,
            source: Source::Ready,
            source_ended: false,
            expected: 0,
            ahead: Ahead::default(),
            guest_fin: None,
            guest_ended: false,
            permits_sack: false,
            scaled: false,
            longest_window: u32::MAX,
            advertised: UNSCALED_WINDOW,
            low_window: 0,
            refused: false,
            dropped: false,
            must_acknowledge: false,
            is_dirty: false,
            is_late: false,
            is_blocked: false,
            retries: 0,
            probes: 0,
            deadline: Deadline::default(),
        }
    }

    /// Takes what a SYN of the member's says.
    pub fn learn(&mut self, syn: &TcpSegment<'_>, longest: u16) {
        self.expected = syn.sequence.wrapping_add(1);
        self.window = u32::from(syn.window);
        self.window_shift = syn.window_scale.unwrap_or(0);
        self.scaled = syn.window_scale.is_some();
        self.permits_sack = syn.permits_sack;
        self.mss = syn.mss.unwrap_or(DEFAULT_MSS).clamp(MIN_MSS, longest);
    }

    /// Bytes on their way to the member, FIN excluded.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        let sent = distance(self.next, self.unacknowledged).max(0) as usize;
        let fin = self.fin.is_some_and(|fin| after(self.next, fin));
        sent.saturating_sub(usize::from(fin))
    }

    /// Whether the member still has to acknowledge something.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.next != self.unacknowledged
    }

    /// Whether FIN was sent and acknowledged.
    #[must_use]
    pub fn fin_is_acknowledged(&self) -> bool {
        self.fin.is_some_and(|fin| after(self.unacknowledged, fin))
    }

    /// Takes an acknowledgement number. `None` if it is about bytes that were never sent,
    /// otherwise whether it acknowledges something new.
    pub fn acknowledge(&mut self, number: u32) -> Option<bool> {
        let gained = distance(number, self.unacknowledged);
        if after(number, self.highest) {
            return None;
        }
        if gained <= 0 {
            return Some(false);
        }
        let fin = self.fin.is_some_and(|fin| after(number, fin));
        self.to_discard += gained as usize - usize::from(fin);
        self.unacknowledged = number;
        if after(number, self.next) {
            // What is being sent again had arrived.
            self.next = number;
        }
        self.duplicates = 0;
        self.retries = 0;
        // The member keeps what came behind a gap: of what it acknowledges in part, only the next
        // segment is missing.
        self.must_resend = self.recover.is_some_and(|end| after(end, number));
        if !self.must_resend {
            self.recover = None;
        }
        Some(true)
    }

    /// Goes back to the oldest byte that is not acknowledged; returns how many bytes that is.
    pub fn rewind(&mut self) -> usize {
        let bytes = self.in_flight();
        self.next = self.unacknowledged;
        self.source = Source::Ready;
        self.duplicates = 0;
        self.recover = None;
        self.must_resend = false;
        bytes
    }

    /// The window field for a window of that many bytes; remembers what it says.
    pub fn window_field(&mut self, bytes: usize) -> u16 {
        let shift = if self.scaled { WINDOW_SCALE } else { 0 };
        let field = u16::try_from(bytes >> shift).unwrap_or(u16::MAX);
        self.advertised = u32::from(field) << shift;
        field
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::Id;
    use std::os::unix::net::UnixStream;

    fn flow(initial: u32) -> Flow {
        let key = Key {
            member: Id {
                index: 0,
                generation: 1,
            },
            guest: ([10, 0, 0, 2], 1000).into(),
            remote: ([10, 0, 0, 3], 80).into(),
        };
        let (socket, _) = UnixStream::pair().unwrap();
        let mut flow = Flow::new(key, State::Established, OwnedFd::from(socket), initial);
        flow.unacknowledged = flow.next;
        flow
    }

    #[test]
    fn acknowledgements_count_bytes_and_not_fin_across_the_wrap() {
        let mut flow = flow(u32::MAX - 10);
        let first = flow.next;
        flow.next = first.wrapping_add(100);
        flow.fin = Some(flow.next);
        flow.next = flow.next.wrapping_add(1);
        flow.highest = flow.next;
        assert_eq!(flow.in_flight(), 100);
        assert_eq!(flow.acknowledge(first.wrapping_sub(1)), Some(false));
        assert_eq!(flow.acknowledge(first.wrapping_add(102)), None);
        assert_eq!(flow.acknowledge(first.wrapping_add(40)), Some(true));
        assert_eq!((flow.to_discard, flow.in_flight()), (40, 60));
        assert!(!flow.fin_is_acknowledged());
        assert_eq!(flow.acknowledge(first.wrapping_add(101)), Some(true));
        assert_eq!((flow.to_discard, flow.in_flight()), (100, 0));
        assert!(flow.fin_is_acknowledged());
    }

    #[test]
    fn what_arrived_is_not_sent_again_after_a_rewind() {
        let mut flow = flow(0);
        flow.next = 1001;
        flow.highest = 1001;
        assert_eq!(flow.rewind(), 1000);
        assert_eq!(flow.in_flight(), 0);
        assert_eq!(flow.acknowledge(601), Some(true));
        assert_eq!((flow.next, flow.to_discard), (601, 600));
    }

    #[test]
    fn a_flow_is_small() {
        // The bound that is promised is 4 KiB for all of a flow, its places in tables included.
        assert!(size_of::<Flow>() <= 512, "{}", size_of::<Flow>());
    }

    #[test]
    fn windows_without_scaling_end_at_64_kib() {
        let mut flow = flow(0);
        assert_eq!(flow.window_field(1 << 20), u16::MAX);
        flow.scaled = true;
        assert_eq!(flow.window_field(1 << 20), 4096);
        assert_eq!(flow.advertised, 1 << 20);
    }
}
