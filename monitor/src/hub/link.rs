//! The connection to the workload's side, and what is on its way there.

use crate::setup;
use hullbox_protocol::{Frame, Stream};
use hullbox_session::connection::{Connection, ConnectionError};
use std::os::unix::net::UnixListener;

/// Where the workload's side is.
#[derive(Debug)]
pub(super) enum Guest {
    Awaited(UnixListener),
    Connected(Connection),
    Gone,
}

/// The connection and its queues.
#[derive(Debug)]
pub(super) struct GuestLink {
    pub(super) guest: Guest,
    /// Frames to be sent once the guest is connected.
    pub(super) outgoing: Vec<Frame>,
    /// Frames that were sent to a guest that has not answered yet, for another that may have to take
    /// its place. `None` where none can.
    pub(super) replay: Option<Vec<Frame>>,
    /// What the workload is to be started with does not fit a frame.
    pub(super) too_long: bool,
    /// The backend has ended; what is left is to read what was sent before.
    pub(super) backend_ended: bool,
}

impl GuestLink {
    /// Not connected yet; `opening` is sent first.
    pub(super) fn new(opening: Vec<Frame>, replaceable: bool) -> Self {
        Self {
            guest: Guest::Gone,
            outgoing: opening,
            replay: replaceable.then(Vec::new),
            too_long: false,
            backend_ended: false,
        }
    }

    pub(super) fn connect(&mut self, guest: Connection) {
        self.guest = Guest::Connected(guest);
        self.outgoing.iter_mut().for_each(setup::refresh_wall_clock);
        self.flush();
    }

    /// Queues a frame for the guest.
    pub(super) fn send(&mut self, frame: Frame) {
        self.outgoing.push(frame);
    }

    /// Sends what is queued. A broken guest is noticed when it is read: it may have sent why.
    pub(super) fn flush(&mut self) {
        match &mut self.guest {
            Guest::Connected(guest) => {
                for frame in self.outgoing.drain(..) {
                    let sent = guest.send(&frame);
                    let begins = matches!(frame, Frame::Setup(_) | Frame::Exec { .. });
                    self.too_long |= begins && matches!(sent, Err(ConnectionError::Encode(_)));
                    if let Some(replay) = &mut self.replay {
                        replay.push(frame);
                    }
                }
                let _ = guest.flush();
            }
            Guest::Awaited(_) => {}
            // Kept for another guest, if there may be one.
            Guest::Gone if self.replay.is_some() => {}
            Guest::Gone => self.outgoing.clear(),
        }
    }

    /// Sends input of a process, or queues it as long as other frames are kept.
    ///
    /// # Errors
    /// See [`Connection::send_data`].
    pub(super) fn send_input(&mut self, session: u32, bytes: &[u8]) -> Result<(), ConnectionError> {
        let stream = Stream::Stdin;
        match &mut self.guest {
            Guest::Connected(guest) if self.replay.is_none() => {
                return guest.send_data(session, stream, bytes);
            }
            Guest::Gone if self.replay.is_none() => {}
            _ => self.outgoing.push(Frame::Data {
                session,
                stream,
                bytes: bytes.to_vec(),
            }),
        }
        Ok(())
    }

    /// Frames that wait for the guest's first answer.
    pub(super) fn unanswered(&self) -> usize {
        self.outgoing.len() + self.replay.as_ref().map_or(0, Vec::len)
    }

    /// Whether the guest leaves unread what it is sent.
    pub(super) fn is_stalled(&self) -> bool {
        matches!(&self.guest, Guest::Connected(guest) if !guest.may_fill())
    }
}
