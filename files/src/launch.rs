//! Starting the process, for whoever puts its connection behind a virtio-fs device.

use crate::ENTRY;
use crate::export::Export;
use crate::hello::{Answer, Hello, hear, say};
use hullbox_host::wait::is_readable;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How much may be under way in either direction, in bytes, where the kernel allows it: a longest message
/// and half of the next.
const SOCKET_BUFFER: usize = 1 << 20;

/// The process's whole environment: one heap for all threads, because they share little, and each heap would
/// stay.
pub const ENVIRONMENT: [(&str, &str); 1] = [("MALLOC_ARENA_MAX", "1")];

/// Why files are not served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LaunchError {
    /// There is no process, or it is not told.
    #[error("cannot start the file server")]
    Start(#[source] io::Error),
    /// It cannot serve what it is asked to, in its own words.
    #[error("{0}")]
    Refused(String),
    /// It has ended, or makes no sense.
    #[error("the file server has ended")]
    Ended,
    /// It does not answer in time.
    #[error("the file server does not answer")]
    Silent,
    /// They cannot be mounted.
    #[error("cannot mount files of the host")]
    Mount(#[source] io::Error),
    /// There is nobody outside the helper machine.
    #[error("cannot reach the host's file server")]
    Outside(#[source] io::Error),
}

/// How the process is started.
#[derive(Debug, Clone)]
pub struct Launcher {
    program: PathBuf,
    arguments: Vec<OsString>,
}

impl Default for Launcher {
    /// This program.
    fn default() -> Self {
        Self::of("/proc/self/exe", vec![ENTRY.into()])
    }
}

/// Starts a server of these exports, `0`, `1` and so on; see [`Launcher::start`].
///
/// # Errors
/// [`LaunchError::Start`].
pub fn start(exports: &[Export]) -> Result<Starting, LaunchError> {
    Launcher::default().start(exports)
}

impl Launcher {
    /// Another program that calls [`crate::main`], with these arguments.
    #[must_use]
    pub fn of(program: impl Into<PathBuf>, arguments: Vec<OsString>) -> Self {
        Self {
            program: program.into(),
            arguments,
        }
    }

    /// Starts a process that is to serve these exports. It makes itself ready while its starter does
    /// other things.
    ///
    /// # Errors
    /// [`LaunchError::Start`].
    pub fn start(&self, exports: &[Export]) -> Result<Starting, LaunchError> {
        let (connection, theirs) = UnixStream::pair().map_err(LaunchError::Start)?;
        widen(&connection);
        widen(&theirs);
        let child = self.spawn(theirs.into(), None);
        let process = Process::of(child.map_err(LaunchError::Start)?);
        let hello = Hello {
            exports: exports.to_vec(),
        };
        say(&connection, &hello).map_err(LaunchError::Start)?;
        Ok(Starting {
            connection,
            process: Some(process),
        })
    }

    pub(crate) fn spawn(&self, input: OwnedFd, output: Option<OwnedFd>) -> io::Result<Child> {
        // Everything this program opens is close-on-exec; what it was started with may not be.
        hullbox_host::sys::set_cloexec_from_3()?;
        Command::new(&self.program)
            .arg0("hullbox")
            .args(&self.arguments)
            .env_clear()
            .envs(ENVIRONMENT)
            .current_dir("/")
            .stdin(Stdio::from(input))
            .stdout(output.map_or_else(Stdio::null, Stdio::from))
            .stderr(Stdio::null())
            .spawn()
    }
}

/// As far as the kernel lets it: with less, long messages travel in more pieces.
fn widen(socket: &UnixStream) {
    let _ = rustix::net::sockopt::set_socket_send_buffer_size_force(socket, SOCKET_BUFFER)
        .or_else(|_| rustix::net::sockopt::set_socket_send_buffer_size(socket, SOCKET_BUFFER));
}

/// A server that makes itself ready.
#[derive(Debug)]
pub struct Starting {
    pub(crate) connection: UnixStream,
    /// None if it is outside the helper machine.
    pub(crate) process: Option<Process>,
}

/// A server that serves.
#[derive(Debug)]
pub struct Started {
    /// FUSE messages one after the other, `SOCK_STREAM`, blocking. The server ends with it.
    pub connection: OwnedFd,
    /// None if it is outside the helper machine. When this is dropped, the process is ended.
    pub process: Option<Process>,
}

impl AsFd for Starting {
    /// Readable when it has answered or ended.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.connection.as_fd()
    }
}

impl Starting {
    /// Waits until it serves.
    ///
    /// # Errors
    /// It does not: [`LaunchError::Refused`] says why.
    pub fn finish(self, limit: Duration) -> Result<Started, LaunchError> {
        if !is_readable(self.connection.as_fd(), Instant::now() + limit) {
            return Err(LaunchError::Silent);
        }
        // Of a line that has begun the rest is on its way.
        let timeout = Some(limit.max(Duration::from_millis(1)));
        let _ = self.connection.set_read_timeout(timeout);
        match hear(&self.connection).map_err(|_| LaunchError::Ended)? {
            Answer::Ready => {}
            Answer::Failed(message) => return Err(LaunchError::Refused(message)),
        }
        let _ = self.connection.set_read_timeout(None);
        Ok(Started {
            connection: self.connection.into(),
            process: self.process,
        })
    }
}

/// The process of a server. When this is dropped it ends, and has done so then.
#[derive(Debug)]
pub struct Process {
    child: Child,
}

impl Process {
    pub(crate) const fn of(child: Child) -> Self {
        Self { child }
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A descriptor that is readable once it has ended.
    ///
    /// # Errors
    /// There is no descriptor left.
    pub fn pidfd(&self) -> io::Result<OwnedFd> {
        Ok(pidfd_open(
            Pid::from_child(&self.child),
            PidfdFlags::empty(),
        )?)
    }

    /// How it ended, if it has.
    ///
    /// # Errors
    /// It cannot be waited for.
    pub fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// Ends it, whatever it is doing, and waits for that.
    pub fn kill(&mut self) {
        // It has no child and nothing to tidy up; what it was writing it has written or not, as if the
        // guest had been killed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
