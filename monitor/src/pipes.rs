//! A client's own pipes, for streams that do not travel on its connection.
//!
//! Everything else about the streams is as with frames: what is written out gives credit, and a reader
//! who leaves closes a stream, as if the client had sent that.

use super::streams::OUTPUTS;
use hullbox_protocol::{Frame, INITIAL_CREDIT, Stream};
use hullbox_session::direct::{Descriptors, OutputPipe};
use rustix::event::PollFlags;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// What a client's process reads.
#[derive(Debug)]
pub(super) struct InputPipe {
    pub(super) fd: OwnedFd,
    /// Bytes that may be read.
    pub(super) credit: u32,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct ClientPipes {
    pub(super) input: Option<InputPipe>,
    pub(super) outputs: [Option<OutputPipe>; 2],
}

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PipeEnd {
    Input,
    Output(usize),
}

impl ClientPipes {
    /// Takes pipes that do not block.
    pub(super) fn of(descriptors: Descriptors) -> Self {
        Self {
            input: descriptors.stdin.map(|fd| InputPipe {
                fd,
                credit: INITIAL_CREDIT,
            }),
            outputs: [descriptors.stdout, descriptors.stderr].map(|fd| fd.map(OutputPipe::new)),
        }
    }

    /// What to poll for; input only where there is somewhere for it to go.
    pub(super) fn interests(
        &self,
        takes_input: bool,
    ) -> impl Iterator<Item = (PipeEnd, BorrowedFd<'_>, PollFlags)> {
        let input = self
            .input
            .as_ref()
            .filter(|input| takes_input && input.credit > 0);
        let input = input.map(|input| (PipeEnd::Input, input.fd.as_fd(), PollFlags::IN));
        let outputs = self.outputs.iter().enumerate().filter_map(|(at, pipe)| {
            let pipe = pipe.as_ref()?;
            let mut events = PollFlags::empty();
            events.set(PollFlags::OUT, pipe.is_waiting());
            Some((PipeEnd::Output(at), pipe.fd()?, events))
        });
        input.into_iter().chain(outputs)
    }

    pub(super) fn is_waiting(&self) -> bool {
        self.outputs.iter().flatten().any(OutputPipe::is_waiting)
    }

    pub(super) fn flush(&mut self) {
        self.outputs
            .iter_mut()
            .flatten()
            .for_each(OutputPipe::flush);
    }

    /// Writes what an output takes, or closes it if its reader is gone.
    pub(super) fn attend(&mut self, at: usize, events: PollFlags) {
        let Some(pipe) = &mut self.outputs[at] else {
            return;
        };
        if events.intersects(PollFlags::ERR | PollFlags::HUP | PollFlags::NVAL) {
            pipe.close();
        } else {
            pipe.flush();
        }
    }

    /// What the client would have sent by now if its process wrote the outputs.
    pub(super) fn frames(&mut self) -> Vec<Frame> {
        let session = 0;
        let mut frames = Vec::new();
        for (stream, pipe) in OUTPUTS.into_iter().zip(&mut self.outputs) {
            let Some(pipe) = pipe else { continue };
            if let Some(bytes) = pipe.take_credit() {
                frames.push(Frame::Credit {
                    session,
                    stream,
                    bytes,
                });
            }
            if pipe.take_closed() {
                frames.push(Frame::Eof { session, stream });
            }
        }
        frames
    }

    /// Ends the input: what the client would have sent then.
    pub(super) fn end_input(&mut self) -> Frame {
        self.input = None;
        Frame::Eof {
            session: 0,
            stream: Stream::Stdin,
        }
    }
}
