//! Joining a network that containers share.
//!
//! All that takes rights is done here: published ports are opened, files are opened, and the network's process
//! is started if there is none. That process is given the monitor's control connection, the member's frames
//! and its ports' sockets, and answers the monitor from then on; this one ends.

use crate::engine::words;
use crate::home::Home;
use crate::message::{Answer, Incoming, Join, Start, send};
use crate::ports::{self, OpenSocket};
use crate::serve::Source;
use crate::shape::Shape;
use hullbox_host::privileges::more_descriptors;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// How often a process that ends before it answers is followed by another.
const MAX_TRIES: usize = 3;

/// Joins, or ends with the control connection.
///
/// # Errors
/// In words: why not.
pub fn join(
    control: &OwnedFd,
    mut start: Start,
    source: Source<'_>,
    dir: &Path,
) -> Result<(), String> {
    more_descriptors();
    let membership = start.membership.as_ref();
    let id = &membership.ok_or("the network is missing")?.id;
    let home = Home::open(dir, id).map_err(words("cannot use the networks' directory"))?;
    let (sockets, open) =
        ports::open_all(&start.network.ports).map_err(|error| error.to_string())?;
    let Some(frames) = source.take(control, start.member, Answer::Dial)? else {
        return Ok(());
    };
    let shape = Shape::of(&start);
    start.network.ports.clear();
    let join = Join { start, ports: open };
    let failed = words("cannot join the network");
    let lock = home.lock(true).map_err(&failed)?;
    let mut lock = lock.ok_or("the network is locked")?;
    for _ in 0..MAX_TRIES {
        let connection = home.connect(&mut lock, &shape).map_err(&failed)?;
        match ask(&connection, &join, (control, &frames), &sockets) {
            Ok(Some(Answer::Failed { message })) => return Err(message),
            Ok(Some(_)) => return Ok(()),
            // It was killed.
            Ok(None) => {}
            Err(error) if is_end(&error) => {}
            Err(error) => return Err(failed(error)),
        }
    }
    Err("the network's process has ended".to_owned())
}

fn ask(
    connection: impl AsFd,
    join: &Join,
    (control, frames): (&OwnedFd, &OwnedFd),
    sockets: &[OpenSocket],
) -> io::Result<Option<Answer>> {
    // The member's descriptor twice: once for its frames, once to see their end.
    let mut descriptors = vec![control.as_fd(), frames.as_fd(), frames.as_fd()];
    descriptors.extend(sockets.iter().map(|port| port.socket.as_fd()));
    send(connection.as_fd(), join, &descriptors)?;
    Incoming::default().wait(connection)
}

fn is_end(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
    )
}
