//! One process's streams, and its end.

use super::source::Source;
use crate::connection::ConnectionError;
use crate::direct::{Descriptors, DirectInput, Input, Moved};
use crate::sink::{Sink, Writer};
use hullbox_protocol::{ExitStatus, Stream};
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

#[derive(Debug, Default)]
pub(super) struct Session {
    pub(super) id: u32,
    pub(super) terminal: Option<Arc<OwnedFd>>,
    pub(super) opened: bool,
    pub(super) stdin: Sink,
    /// Where input comes from, if not from frames.
    pub(super) input: Option<DirectInput>,
    pub(super) stdout: Source,
    pub(super) stderr: Source,
    pub(super) exit: Option<Exit>,
    /// `Exited` is queued: nothing is left to do for it.
    pub(super) over: bool,
}

#[derive(Debug)]
pub(super) struct Exit {
    pub(super) status: ExitStatus,
    /// When to stop waiting for others that hold the output open.
    pub(super) deadline: Option<Instant>,
}

impl Session {
    pub(super) fn source(&mut self, stream: Stream) -> Option<&mut Source> {
        match stream {
            Stream::Stdin => None,
            Stream::Stdout => Some(&mut self.stdout),
            Stream::Stderr => Some(&mut self.stderr),
        }
    }

    pub(super) fn open_terminal(
        &mut self,
        master: OwnedFd,
        [stdin, stdout, stderr]: [Option<OwnedFd>; 3],
    ) -> Result<(), ConnectionError> {
        let master = shared(Some(master))?;
        self.terminal.clone_from(&master);
        let (terminal_in, stdin) = match shared(stdin)? {
            Some(pipe) => (false, Some(Writer::Pipe(pipe))),
            None => (true, master.clone().map(Writer::NonBlocking)),
        };
        self.stdin.open(stdin, terminal_in);
        let mut master = master;
        for (source, pipe) in [(&mut self.stdout, stdout), (&mut self.stderr, stderr)] {
            match shared(pipe)? {
                Some(pipe) => source.open(Some(pipe), false),
                None => source.open(master.take(), true),
            }
        }
        Ok(())
    }

    pub(super) fn sources(&self) -> [(Stream, &Source); 2] {
        [
            (Stream::Stdout, &self.stdout),
            (Stream::Stderr, &self.stderr),
        ]
    }

    /// The peer ended a stream: its own input, or its interest in our output.
    pub(super) fn end(&mut self, stream: Stream) {
        match self.source(stream) {
            Some(source) => source.stop_reading(),
            None => self.end_input(),
        }
    }

    pub(super) fn end_input(&mut self) {
        self.input = None;
        self.stdin.end();
    }

    /// Joins streams to these descriptors, where there are any.
    pub(super) fn direct(&mut self, descriptors: Descriptors) {
        self.input = descriptors.stdin.map(DirectInput::new);
        self.stdout.direct(descriptors.stdout);
        self.stderr.direct(descriptors.stderr);
    }

    /// Gives the process input that there is without frames.
    pub(super) fn feed(&mut self) {
        let (Some(input), Some(writer)) = (&mut self.input, &self.stdin.writer) else {
            return;
        };
        match input.move_to(writer.as_fd()) {
            Input::Bytes(bytes) => self.stdin.pass_on(&bytes),
            Input::Moved(Moved::End) => self.end_input(),
            Input::Moved(Moved::Unread) => self.stdin.break_off(),
            Input::Moved(Moved::Full) => {
                let _ = self.stdin.enlarge();
            }
            Input::Moved(Moved::Bytes(_) | Moved::Nothing | Moved::Unfit) => {}
        }
    }

    pub(super) fn is_drained(&self) -> bool {
        self.stdout.fd.is_none() && self.stderr.fd.is_none()
    }
}

/// Makes a descriptor fit for the pump.
pub(super) fn shared(fd: Option<OwnedFd>) -> Result<Option<Arc<OwnedFd>>, ConnectionError> {
    let Some(fd) = fd else { return Ok(None) };
    rustix::io::ioctl_fionbio(&fd, true)?;
    Ok(Some(Arc::new(fd)))
}
