//! On the host of a helper machine: where a member's frames arrive.

use crate::message::{Answer, send};
use hullbox_protocol::NETWORK_FRAME_PORTS;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long the member's stream may take to be dialled. The helper machine is emulated.
const DIAL_LIMIT: Duration = Duration::from_secs(60);

/// A socket that is removed with this value.
struct Door {
    listener: UnixListener,
    path: PathBuf,
    port: u32,
}

impl Drop for Door {
    fn drop(&mut self) {
        // Whoever cleans up the machine's files may have been here.
        let _ = fs::remove_file(&self.path);
    }
}

impl Door {
    /// Listens at a vsock port that nobody knows.
    fn open(vsock: &Path) -> io::Result<Self> {
        loop {
            let mut random = [0; 4];
            rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())?;
            let (first, last) = (*NETWORK_FRAME_PORTS.start(), *NETWORK_FRAME_PORTS.end());
            let port = first + u32::from_ne_bytes(random) % (last - first + 1);
            let path = socket_of(vsock, port);
            match UnixListener::bind(&path) {
                Ok(listener) => {
                    return Ok(Self {
                        listener,
                        path,
                        port,
                    });
                }
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// Where the guest's connection to a port of the host arrives, given the path that stands for its vsock.
pub fn socket_of(vsock: &Path, port: u32) -> PathBuf {
    let mut path = vsock.as_os_str().to_owned();
    path.push(format!("_{port}"));
    path.into()
}

/// Says where to dial, and takes one connection there. None if the control connection ends before.
///
/// # Errors
/// In words: why there is no such place.
pub fn dialled(
    control: &OwnedFd,
    vsock: &Path,
    answer: impl FnOnce(u32) -> Answer,
) -> Result<Option<OwnedFd>, String> {
    let failed = |error: io::Error| format!("cannot listen for the container's frames: {error}");
    let door = Door::open(vsock).map_err(failed)?;
    send(control.as_fd(), &answer(door.port), &[]).map_err(failed)?;
    let deadline = Instant::now() + DIAL_LIMIT;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).unwrap_or_default();
        let mut fds = [
            PollFd::new(&door.listener, PollFlags::IN),
            PollFd::new(control, PollFlags::RDHUP),
        ];
        match poll(&mut fds, Some(&timeout)) {
            Ok(0) => return Ok(None),
            Ok(_) if !fds[1].revents().is_empty() => return Ok(None),
            Ok(_) => {
                let (stream, _) = door.listener.accept().map_err(failed)?;
                return Ok(Some(stream.into()));
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(failed(errno.into())),
        }
    }
}
