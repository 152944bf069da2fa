//! Members whose rates are bounded: what they send is not read, and what they are to be sent is not read of
//! the host's sockets, until it may pass. Neither is polled: a deadline tells when.

use crate::core::{Core, MemberId, link_token, watch_link};
use crate::frame::VNET_BYTES;
use crate::rate::{Bucket, Rates};
use crate::timers::Deadline;
use crate::token::{Kind, Token};

/// Under a rate a connection's window is what passes in this part of a second: what is beyond it would
/// wait in the link.
const WINDOW_PARTS: u64 = 8;
const MIN_WINDOW: u32 = 4096;
/// And a segment to the member what passes in this part.
const SEGMENT_PARTS: u64 = 20;
const MIN_SEGMENT: u64 = 1400;

/// A member's rates.
#[derive(Debug)]
pub struct Pace {
    inbound: Option<Bucket>,
    outbound: Option<Bucket>,
    inbound_deadline: Deadline,
    outbound_deadline: Deadline,
    /// Its link is not read.
    is_paused: bool,
    /// Sockets of it that are not read: UDP flows and published ports.
    unread: Vec<Token>,
}

impl Pace {
    /// Full buckets.
    #[must_use]
    pub fn new(rates: Rates, now_ns: u64) -> Self {
        let bucket = |rate: Option<u64>| rate.map(|rate| Bucket::new(rate, now_ns));
        Self {
            inbound: bucket(rates.inbound),
            outbound: bucket(rates.outbound),
            inbound_deadline: Deadline::default(),
            outbound_deadline: Deadline::default(),
            is_paused: false,
            unread: Vec::new(),
        }
    }

    /// Whether its link is not read.
    #[must_use]
    pub const fn is_paused(&self) -> bool {
        self.is_paused
    }

    /// The member sent a frame.
    pub fn received(&mut self, length: usize) {
        if let Some(bucket) = &mut self.outbound {
            bucket.spend(length.saturating_sub(VNET_BYTES));
        }
    }

    /// The member was sent a frame.
    pub fn sent(&mut self, length: usize) {
        if let Some(bucket) = &mut self.inbound {
            bucket.spend(length.saturating_sub(VNET_BYTES));
        }
    }

    /// Whether the member may be sent another one's frame, which cannot be held back.
    pub fn tolerates(&mut self, now_ns: u64) -> bool {
        let inbound = self.inbound.as_mut();
        inbound.is_none_or(|bucket| bucket.tolerates(now_ns))
    }

    /// The largest window of a connection of it, in bytes.
    #[must_use]
    pub fn longest_window(&self) -> u32 {
        let rate = self.outbound.as_ref().map(Bucket::rate);
        rate.map_or(u32::MAX, |rate| {
            let window = u32::try_from(rate / WINDOW_PARTS).unwrap_or(u32::MAX);
            window.max(MIN_WINDOW)
        })
    }

    /// The longest segment that it is sent, in bytes.
    #[must_use]
    pub fn longest_segment(&self) -> usize {
        let rate = self.inbound.as_ref().map(Bucket::rate);
        let segment = rate.map(|rate| (rate / SEGMENT_PARTS).max(MIN_SEGMENT));
        segment.map_or(usize::MAX, |segment| {
            usize::try_from(segment).unwrap_or(usize::MAX)
        })
    }

    /// What is queued of it.
    #[must_use]
    pub fn deadlines(&self, id: MemberId) -> [(Deadline, Token); 2] {
        [
            (self.inbound_deadline, rate_token(id)),
            (self.outbound_deadline, link_token(id)),
        ]
    }
}

fn rate_token(id: MemberId) -> Token {
    Token {
        kind: Kind::Rate,
        id,
    }
}

impl Core {
    /// Whether a member's link may be read. If not, it is not watched until it may.
    pub fn may_receive(&mut self, id: MemberId) -> bool {
        let Some(member) = self.members.get_mut(id) else {
            return true;
        };
        let pace = &mut member.pace;
        let Some(bucket) = &mut pace.outbound else {
            return true;
        };
        if bucket.is_open(self.now_ns) {
            return true;
        }
        let resume_ns = bucket.resume_ns();
        self.timers
            .set(&mut pace.outbound_deadline, link_token(id), resume_ns);
        pace.is_paused = true;
        watch_link(&self.epoll, id, member);
        false
    }

    /// Whether a member's link may be read again, which is watched then.
    pub fn resumes_receiving(&mut self, id: MemberId) -> bool {
        let Some(member) = self.members.get_mut(id) else {
            return false;
        };
        let pace = &mut member.pace;
        let deadline = &mut pace.outbound_deadline;
        if !self.timers.is_due(deadline, link_token(id), self.now_ns) {
            return false;
        }
        pace.is_paused = false;
        watch_link(&self.epoll, id, member);
        true
    }

    /// Whether a member may be sent something of a host's socket. If not, a deadline tells when it may.
    pub fn may_send(&mut self, id: MemberId) -> bool {
        let Some(member) = self.members.get_mut(id) else {
            return true;
        };
        let Some(bucket) = &mut member.pace.inbound else {
            return true;
        };
        if bucket.is_open(self.now_ns) {
            return true;
        }
        let resume_ns = bucket.resume_ns();
        let deadline = &mut member.pace.inbound_deadline;
        self.timers.set(deadline, rate_token(id), resume_ns);
        false
    }

    /// Remembers a socket that is not read until its member may be sent more.
    pub fn leave_unread(&mut self, id: MemberId, socket: Token) {
        if let Some(member) = self.members.get_mut(id) {
            member.pace.unread.push(socket);
        }
    }

    /// Whether a member may be sent more, and its sockets that are to be read again.
    pub fn resumes_sending(&mut self, id: MemberId) -> Option<Vec<Token>> {
        let member = self.members.get_mut(id)?;
        let deadline = &mut member.pace.inbound_deadline;
        let is_due = self.timers.is_due(deadline, rate_token(id), self.now_ns);
        is_due.then(|| std::mem::take(&mut member.pace.unread))
    }
}
