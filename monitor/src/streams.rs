//! How many bytes of each stream may be on their way.
//!
//! A guest sends what it has credit for. The credit of a process that one client started is that
//! client's own business and passed on. The workload's output goes to the log and to any number of
//! clients: there the monitor gives the credit, as far as the slowest client allows. Its input has
//! one writer at a time, whom the guest's credit is passed on to.
//!
//! Credit alone holds a client back. Not reading its connection would hold back, behind its input,
//! the credit that it gives for output: a workload that copies one to the other would wait for ever.

use hullbox_protocol::{INITIAL_CREDIT, Stream};

/// Credit is given back in pieces of this size, so that frames are few.
const STEP: u64 = 64 * 1024;

/// Index of an output stream.
pub(super) const fn index(stream: Stream) -> Option<usize> {
    match stream {
        Stream::Stdin => None,
        Stream::Stdout => Some(0),
        Stream::Stderr => Some(1),
    }
}

/// The output streams, by [`index`].
pub(super) const OUTPUTS: [Stream; 2] = [Stream::Stdout, Stream::Stderr];

/// What one output stream of a guest's process may still send.
#[derive(Debug, Clone, Copy)]
pub(super) struct Window(u64);

impl Default for Window {
    fn default() -> Self {
        Self(INITIAL_CREDIT.into())
    }
}

impl Window {
    /// Takes bytes that arrived; false if they were not allowed.
    pub(super) fn take(&mut self, bytes: usize) -> bool {
        let left = u64::try_from(bytes)
            .ok()
            .and_then(|bytes| self.0.checked_sub(bytes));
        self.0 = left.unwrap_or(0);
        left.is_some()
    }

    pub(super) const fn grant(&mut self, bytes: u64) {
        self.0 = self.0.saturating_add(bytes);
    }

    /// Bytes that may still come.
    pub(super) const fn left(self) -> u64 {
        self.0
    }
}

/// One output stream of the workload.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Shared {
    window: Window,
    /// Arrived, and not granted again.
    owed: u64,
}

impl Shared {
    /// Takes bytes that arrived; false if they were not allowed.
    pub(super) fn take(&mut self, bytes: usize) -> bool {
        self.owed = self.owed.saturating_add(bytes as u64);
        self.window.take(bytes)
    }

    /// Somebody else granted bytes.
    pub(super) const fn granted(&mut self, bytes: u64) {
        self.owed = self.owed.saturating_sub(bytes);
        self.window.grant(bytes);
    }

    /// What to grant now, when the slowest client has this many bytes unread.
    pub(super) fn grant(&mut self, unread: u64) -> Option<u32> {
        let free = self.owed.saturating_sub(unread);
        if free < STEP {
            return None;
        }
        self.owed -= free;
        self.window.grant(free);
        u32::try_from(free).ok()
    }
}

/// The workload's input, which one client at a time may write.
#[derive(Debug, Default)]
pub(super) struct Input {
    /// Bytes that the guest takes, and that its writer may send.
    window: Window,
    /// Which client.
    owner: Option<u64>,
    /// Credit that was not passed on to the owner yet, in bytes.
    ungranted: u32,
    /// Nobody reads it any more, or it was ended.
    pub(super) closed: bool,
}

impl Input {
    /// Makes a client the writer, unless there is one. The first one may send as much as any fresh
    /// stream takes; every other one is granted what is [`Self::left`] of that.
    pub(super) fn claim(&mut self, client: u64) -> bool {
        if self.closed || self.owner.is_some() {
            return false;
        }
        self.owner = Some(client);
        self.ungranted = 0;
        true
    }

    /// The writer is gone. True if this client was it.
    pub(super) fn release(&mut self, client: u64) -> bool {
        let was = self.owner == Some(client);
        if was {
            self.owner = None;
        }
        was
    }

    pub(super) fn is_owner(&self, client: u64) -> bool {
        self.owner == Some(client)
    }

    /// The owner, and the credit to pass on to it, if there is any.
    pub(super) const fn ungranted(&mut self) -> Option<(u64, &mut u32)> {
        match self.owner {
            Some(owner) if self.ungranted > 0 => Some((owner, &mut self.ungranted)),
            _ => None,
        }
    }

    /// Takes what its owner sent.
    pub(super) fn take(&mut self, bytes: usize) -> bool {
        self.window.take(bytes)
    }

    /// Bytes that a writer may send now.
    pub(super) fn left(&self) -> u32 {
        u32::try_from(self.window.left()).unwrap_or(u32::MAX)
    }

    /// Credit from the guest: for the owner, if there is one.
    pub(super) fn grant(&mut self, bytes: u32) {
        self.window.grant(bytes.into());
        self.ungranted = self.ungranted.saturating_add(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slowest_client_holds_the_credit_back() {
        let mut stream = Shared::default();
        assert!(stream.take(200_000));
        assert_eq!(stream.grant(150_000), None);
        assert_eq!(stream.grant(100_000), Some(100_000));
        assert_eq!(stream.grant(0), Some(100_000));
        assert!(stream.take(INITIAL_CREDIT as usize));
        assert!(!stream.take(1), "more than was granted");
    }

    #[test]
    fn a_second_writer_has_the_credit_that_the_first_one_left() {
        let mut input = Input::default();
        assert!(input.claim(1));
        assert!(!input.claim(2));
        assert!(input.take(300_000));
        assert!(input.release(1));
        input.grant(100_000);
        assert!(input.claim(2));
        assert_eq!(input.left(), INITIAL_CREDIT - 200_000);
        assert!(!input.take(INITIAL_CREDIT as usize));
    }
}
