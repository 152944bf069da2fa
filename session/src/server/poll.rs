//! Waiting, and moving the bytes that can be moved.

use super::{Event, Pump};
use crate::connection::ConnectionError;
use crate::direct::Moved;
use hullbox_protocol::{Frame, MAX_DATA, Stream};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

/// Which descriptor a poll result is about.
#[derive(Debug, Clone, Copy)]
pub(super) enum Token {
    Connection,
    Extra(usize),
    Stdin(usize),
    /// What feeds a process's input without frames.
    DirectInput(usize),
    Output(usize, Stream),
    /// Where an output goes without frames.
    DirectOutput(usize, Stream),
}

impl Pump {
    /// Waits until something can be done. The answer is empty when the time is over.
    pub(super) fn poll(
        &self,
        extra: &[BorrowedFd<'_>],
        end: Option<Instant>,
    ) -> Result<Vec<(Token, PollFlags)>, ConnectionError> {
        let mut tokens = Vec::with_capacity(8);
        let mut fds = Vec::with_capacity(8);
        let mut watch = |token, fd, flags| {
            tokens.push(token);
            fds.push(PollFd::from_borrowed_fd(fd, flags));
        };
        if !self.closed {
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::IN, self.connection.may_fill());
            flags.set(PollFlags::OUT, self.connection.pending() > 0);
            watch(Token::Connection, self.connection.as_fd(), flags);
        }
        for (index, fd) in extra.iter().enumerate() {
            watch(Token::Extra(index), *fd, PollFlags::IN);
        }
        let room = self.connection.has_room();
        let mut end = end;
        for (index, session) in self.sessions.iter().enumerate() {
            if let Some(writer) = session.stdin.writer.as_ref()
                && session.stdin.is_watched()
            {
                let mut flags = PollFlags::empty();
                let input = session.input.as_ref();
                let full = session.stdin.is_waiting() || input.is_some_and(|input| input.full);
                flags.set(PollFlags::OUT, full);
                watch(Token::Stdin(index), writer.as_fd(), flags);
                if let Some(input) = input.filter(|_| !full) {
                    watch(Token::DirectInput(index), input.as_fd(), PollFlags::IN);
                }
            }
            for (stream, source) in session.sources() {
                if let Some(fd) = source.fd.as_ref()
                    && source.is_watched(room)
                {
                    watch(Token::Output(index, stream), fd.as_fd(), PollFlags::IN);
                }
                if let Some(fd) = source.awaited() {
                    watch(Token::DirectOutput(index, stream), fd, PollFlags::OUT);
                }
            }
            if let Some(deadline) = session.exit.as_ref().and_then(|exit| exit.deadline) {
                end = Some(end.map_or(deadline, |end| end.min(deadline)));
            }
        }
        wait_for(&mut fds, end)?;
        Ok(tokens
            .into_iter()
            .zip(&fds)
            .filter(|(_, fd)| !fd.revents().is_empty())
            .map(|(token, fd)| (token, fd.revents()))
            .collect())
    }

    /// Moves the bytes that `ready` allows to move.
    pub(super) fn dispatch(&mut self, ready: &[(Token, PollFlags)]) -> Option<Event> {
        let mut event = None;
        for &(token, flags) in ready {
            match token {
                Token::Extra(index) => {
                    let _ = event.get_or_insert(Event::Ready(index));
                }
                // Only room to write was waited for: `advance` flushes.
                Token::Connection if flags == PollFlags::OUT => {}
                Token::Connection => match self.connection.fill() {
                    Ok(true) => {}
                    Ok(false) => self.close(None),
                    Err(error) => self.close(Some(error)),
                },
                _ if self.closed => {}
                Token::Stdin(index) => {
                    let session = &mut self.sessions[index];
                    let sink = &mut session.stdin;
                    if let Some(input) = &mut session.input {
                        input.full = false;
                    }
                    if flags.intersects(PollFlags::ERR | PollFlags::HUP | PollFlags::NVAL) {
                        sink.break_off();
                    } else {
                        sink.write_queued();
                    }
                }
                Token::DirectInput(index) => self.sessions[index].feed(),
                Token::DirectOutput(index, stream) => {
                    if let Some(source) = self.sessions[index].source(stream) {
                        source.try_again();
                    }
                }
                Token::Output(index, stream) => {
                    if let Err(error) = self.read_output(index, stream) {
                        self.close(Some(error));
                    }
                }
            }
        }
        self.close_overdue();
        event
    }

    /// Reads once from a process and queues what came.
    fn read_output(&mut self, index: usize, stream: Stream) -> Result<(), ConnectionError> {
        let connection = &mut self.connection;
        let Some(session) = self.sessions.get_mut(index) else {
            return Ok(());
        };
        let id = session.id;
        let Some(source) = session.source(stream) else {
            return Ok(());
        };
        match source.move_direct() {
            None | Some(Moved::Unfit) => {}
            Some(Moved::End) => {
                let ended = Frame::Eof {
                    session: id,
                    stream,
                };
                return self.connection.send(&ended);
            }
            Some(_) => return Ok(()),
        }
        let Some(fd) = source.fd.clone() else {
            return Ok(());
        };
        let read = if source.discards() {
            rustix::io::read(&fd, &mut [0; 4096])
        } else {
            connection.send_from(fd.as_fd(), id, stream, source.credit().min(MAX_DATA))
        };
        match read {
            Ok(read @ 1..) => source.spend(read),
            Err(Errno::WOULDBLOCK | Errno::INTR) => {}
            // A terminal whose last slave was closed says EIO instead of an end.
            Ok(_) | Err(_) => {
                source.close();
                let ended = Frame::Eof {
                    session: id,
                    stream,
                };
                if source.is_terminal() && session.stdin.is_terminal() {
                    session.stdin.break_off();
                }
                self.connection.send(&ended)?;
            }
        }
        Ok(())
    }

    /// Gives up outputs that outlive their process beyond its grace and have nothing to say.
    fn close_overdue(&mut self) {
        let now = Instant::now();
        for session in &mut self.sessions {
            let Some(exit) = &mut session.exit else {
                continue;
            };
            if exit.deadline.is_none_or(|deadline| deadline > now) {
                continue;
            }
            // Not a busy loop while a slow peer leaves bytes here: look again in a while.
            exit.deadline = Some(now + Duration::from_millis(100));
            for source in [&mut session.stdout, &mut session.stderr] {
                if source.fd.as_ref().is_some_and(|fd| !is_readable(fd)) {
                    source.close();
                }
            }
        }
    }
}

fn is_readable(fd: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(fd, PollFlags::IN)];
    let polled = rustix::event::poll(&mut fds, Some(&Timespec::default()));
    polled.is_ok() && fds[0].revents().contains(PollFlags::IN)
}

/// Polls until something happens or the time is over.
pub(crate) fn wait_for(
    fds: &mut [PollFd<'_>],
    end: Option<Instant>,
) -> Result<(), ConnectionError> {
    loop {
        let left = end.map(|end| end.saturating_duration_since(Instant::now()));
        let left = left.and_then(|left| Timespec::try_from(left).ok());
        match rustix::event::poll(fds, left.as_ref()) {
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}
