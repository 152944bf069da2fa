//! The connection to the host: dialled, and waited for.

use crate::sys;
use hullbox_protocol::CONTROL_PORT;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use std::os::fd::OwnedFd;
use std::time::Duration;

/// How long the host may take to accept the connection.
const CONNECT_TIME: Duration = Duration::from_secs(60);

/// Begins to connect.
pub(super) fn dial() -> Result<OwnedFd, String> {
    sys::vsock_connect(CONTROL_PORT).map_err(|errno| format!("cannot reach the host: {errno}"))
}

/// Waits until the connection is made.
pub(super) fn wait_connected(connection: &OwnedFd) -> Result<(), String> {
    let time = Timespec::try_from(CONNECT_TIME).map_err(|error| error.to_string())?;
    let mut fds = [PollFd::new(connection, PollFlags::OUT)];
    loop {
        match rustix::event::poll(&mut fds, Some(&time)) {
            Ok(0) => return Err("the host does not accept the connection".into()),
            Ok(_) => break,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(format!("poll: {errno}")),
        }
    }
    match rustix::net::sockopt::socket_error(connection) {
        Ok(Ok(())) => Ok(()),
        Ok(Err(errno)) | Err(errno) => Err(format!("cannot reach the host: {errno}")),
    }
}
