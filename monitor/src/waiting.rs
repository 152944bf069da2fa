//! Between two runs of a container that its restart policy starts again.

use super::client::{Client, Role};
use super::control::{Answer, Command};
use super::entrance::Entrance;
use super::hub::{MAX_CLIENTS, Observer};
use super::signals::Signals;
use hullbox_protocol::{Incoming, Request};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

/// Docker's pauses: this long at first, then twice as long each time.
const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_mins(1);
/// A run this long was a good one: the next pause is the first again.
pub(super) const GOOD_RUN: Duration = Duration::from_secs(10);

/// How long to wait before a restart, after so many runs in a row that were short.
pub(super) fn pause(short_runs: u32) -> Duration {
    FIRST.saturating_mul(1 << short_runs.min(16)).min(LONGEST)
}

/// Why the waiting is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Waited {
    /// The time is.
    Over,
    /// Somebody wants the container to stay ended; who asked for that is among the clients.
    Unwanted,
    /// The same, by `stop` or by a signal to its monitor.
    Stopped,
}

/// Waits, and answers meanwhile.
pub(super) fn wait(
    pause: Duration,
    control: BorrowedFd<'_>,
    signals: &Signals,
    clients: &mut Vec<Client>,
    observer: &mut dyn Observer,
) -> Waited {
    let due = Instant::now() + pause;
    let mut entrance = Entrance::new(control);
    let mut next_id = clients.iter().map(|c| c.id + 1).max().unwrap_or(0);
    loop {
        let now = Instant::now();
        if now >= due {
            return Waited::Over;
        }
        entrance.wake(now);
        let left = entrance.due().map_or(due, |at| at.min(due)) - now;
        let mut fds = vec![
            PollFd::new(signals, PollFlags::IN),
            PollFd::from_borrowed_fd(control, entrance.interest()),
        ];
        fds.extend(clients.iter().map(|client| {
            let mut events = PollFlags::IN;
            events.set(PollFlags::OUT, client.connection.pending() > 0);
            PollFd::from_borrowed_fd(client.connection.as_fd(), events)
        }));
        let first_pipe = fds.len();
        // The first of a client's is its connection.
        fds.extend(clients.iter().flat_map(|client| client.awaited().skip(1)));
        let timeout = Timespec::try_from(left).ok();
        if poll(&mut fds, timeout.as_ref()).is_err() {
            continue;
        }
        let ready: Vec<_> = fds.iter().map(PollFd::revents).collect();
        drop(fds);
        if !ready[0].is_empty() && signals.take().is_some() {
            return Waited::Stopped;
        }
        let mut unwanted = None;
        let mut events = ready[2..first_pipe].iter();
        clients.retain_mut(|client| {
            // Output of the run that ended, and its end behind it.
            let reached = client.flush().is_ok();
            if events.next().is_none_or(|events| events.is_empty()) {
                return reached && !client.is_done();
            }
            match serve(client, observer) {
                Some(Waited::Over) => {}
                Some(why) => unwanted = Some(why),
                None => return false,
            }
            !client.is_done()
        });
        if let Some(why) = unwanted {
            return why;
        }
        if !ready[1].is_empty() {
            while let Some(fd) = entrance.accept() {
                // One too many sees its connection end.
                if clients.len() < MAX_CLIENTS
                    && let Ok(client) = Client::new(next_id, fd, Role::Asking)
                {
                    next_id += 1;
                    clients.push(client);
                }
            }
        }
    }
}

/// Reads from a client and answers: whether the container is to stay ended. `None`: it is gone.
fn serve(client: &mut Client, observer: &mut dyn Observer) -> Option<Waited> {
    client.connection.flush().ok()?;
    if !client.connection.fill().ok()? {
        return None;
    }
    let mut waited = Waited::Over;
    while let Ok(Some(Incoming::Frame(frame))) = client.connection.next_incoming() {
        if !matches!(client.role, Role::Asking) {
            continue;
        }
        client.acknowledge();
        match Client::command(&frame) {
            Some(Command::Stop { .. }) => {
                client.role = Role::Stopper;
                waited = Waited::Stopped;
            }
            Some(Command::Signal(_)) => {
                client.answer(&Answer::Done);
                waited = Waited::Unwanted;
            }
            // For the next run.
            Some(Command::SetRestart(restart)) => {
                observer.restart(restart);
                client.answer(&Answer::Done);
            }
            Some(Command::Ask(Request::Limit(limits))) => {
                observer.limited(&limits);
                client.answer(&Answer::Done);
            }
            Some(Command::SetName { name, dns }) => {
                observer.renamed(name, &dns);
                client.answer(&Answer::Done);
            }
            Some(Command::Refused) => {
                client.answer(&Answer::of_refused(&observer.refused_last()));
            }
            Some(Command::Execs) => {
                client.answer(&Answer::of_execs(observer.execs()));
            }
            Some(Command::Watch) => client.role = Role::Watcher,
            _ => client.answer(&Answer::Failed(
                "the container is restarting: wait until it runs".to_owned(),
            )),
        }
    }
    client.connection.flush().ok()?;
    Some(waited)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_and_end_somewhere() {
        assert_eq!(pause(0), FIRST);
        assert_eq!(pause(3), FIRST * 8);
        assert_eq!(pause(40), LONGEST);
    }
}
