//! Clients' own pipes.

use super::link::Guest;
use super::{Hub, ReadyPipe};
use crate::client::Role;
use crate::pipes::PipeEnd;
use crate::rules::WORKLOAD;
use hullbox_protocol::{Frame, MAX_DATA, Stream};
use rustix::io::Errno;
use std::os::fd::AsFd as _;

impl Hub<'_> {
    /// Whether input may be read from pipes now. What is kept for another guest is not read from one.
    pub(super) fn takes_piped_input(&self) -> bool {
        self.link.replay.is_none()
            && matches!(&self.link.guest, Guest::Connected(guest) if guest.has_room())
    }

    pub(super) fn serve_pipes(&mut self, ready: &[ReadyPipe]) {
        for (id, end, events) in ready {
            match end {
                PipeEnd::Input => self.read_input_pipe(*id),
                PipeEnd::Output(at) => {
                    if let Some(client) = self.clients.find(*id) {
                        client.pipes.attend(*at, *events);
                    }
                }
            }
        }
    }

    fn read_input_pipe(&mut self, id: u64) {
        // What was queued before comes first.
        self.link.flush();
        let Some(client) = self.clients.find(id) else {
            return;
        };
        let session = match client.role {
            Role::Attached { .. } => WORKLOAD,
            Role::Exec { session } => session,
            _ => {
                // What it was for has ended: nothing is read from it any more, nor waited for.
                client.pipes.input = None;
                return;
            }
        };
        let (Some(input), Guest::Connected(guest)) =
            (&mut client.pipes.input, &mut self.link.guest)
        else {
            return;
        };
        let limit = usize::try_from(input.credit)
            .unwrap_or(MAX_DATA)
            .min(MAX_DATA);
        if limit == 0 {
            return;
        }
        let ended = match guest.send_from(input.fd.as_fd(), session, Stream::Stdin, limit) {
            Err(Errno::WOULDBLOCK) => return,
            // An end, or an input that cannot be read.
            Ok(0) | Err(_) => client.pipes.end_input(),
            Ok(read) => {
                input.credit = input
                    .credit
                    .saturating_sub(u32::try_from(read).unwrap_or(u32::MAX));
                if session == WORKLOAD {
                    // No more than the pipe's credit, which comes from there.
                    let _ = self.sessions.workload.input.take(read);
                }
                return;
            }
        };
        self.on_pipe_frame(id, ended);
    }

    /// Writes what the pipes take, and deals with what has become of them since the last time.
    ///
    /// Nothing may be written to a pipe behind this before the loop waits again: a pipe that is empty
    /// or closed by then wakes nobody, and its credit would stay here.
    pub(super) fn settle_pipes(&mut self) {
        let mut all = Vec::new();
        for client in &mut self.clients.list {
            client.pipes.flush();
            let frames = client.pipes.frames().into_iter();
            all.extend(frames.map(|frame| (client.id, frame)));
        }
        for (id, frame) in all {
            self.on_pipe_frame(id, frame);
        }
    }

    /// A frame that the client would have sent.
    fn on_pipe_frame(&mut self, id: u64, frame: Frame) {
        let Some(at) = self.clients.list.iter().position(|client| client.id == id) else {
            return;
        };
        match self.clients.list[at].role {
            // It is one that a client may send at any time.
            Role::Attached { .. } => drop(self.on_attached_frame(at, frame)),
            Role::Exec { session } => self.on_exec_client_frame(session, frame),
            _ => {}
        }
    }
}
