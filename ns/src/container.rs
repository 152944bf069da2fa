//! The namespace backend: a child process that runs [`crate::run`] and speaks frames on a socket pair.
//!
//! It is a process of its own because a namespace container's parent lives in its mount
//! namespace and may have no threads; the monitor stays what it is for a microVM. It dies with the
//! monitor, and the container with it.

use crate::error::{NsError, io as failed};
use crate::sys::{Forked, close_all_but, fork_alone, ignore_signals, reset_signals};
use crate::{cleanup, network, serve};
use hullbox_backend::backend::{Backend, KILL_NOW, Link};
use hullbox_backend::bundle::Bundle;
use hullbox_backend::network::Member;
use hullbox_protocol::{Interface, interface_name};
use hullbox_session::direct::Descriptors;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, getppid, pidfd_open, pidfd_send_signal,
    set_parent_process_death_signal, waitid,
};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

/// How long the child may take to clean up after a workload that ended in good order.
const CLEAN_UP_LIMIT: Timespec = Timespec {
    tv_sec: 10,
    tv_nsec: 0,
};

/// A namespace container that starts or runs.
#[derive(Debug)]
pub struct Container {
    bundle: Bundle,
    link: Option<OwnedFd>,
    /// Behind its network interfaces.
    taps: Vec<OwnedFd>,
    /// Readable when the child has ended.
    child: OwnedFd,
}

impl Container {
    /// Forks the child. Of the monitor's descriptors it keeps `keep`, which hold the container's
    /// lock, and those of the workload's streams, and none of its connections.
    ///
    /// # Errors
    /// [`NsError::Network`]; [`NsError::Io`]: no more processes or descriptors.
    pub fn start(
        bundle: &Bundle,
        keep: &[BorrowedFd<'_>],
        streams: Descriptors,
    ) -> Result<Self, NsError> {
        if !rustix::process::geteuid().is_root() {
            return Err(NsError::NotRoot);
        }
        let (ours, theirs) = UnixStream::pair().map_err(failed("make a socket pair"))?;
        let monitor = rustix::process::getpid();
        let entered = network::enter(bundle)?;
        let forked = fork_alone();
        if let Ok(Forked::Child) = forked {
            let mut kept = keep.to_vec();
            kept.push(theirs.as_fd());
            kept.extend(streams.borrowed());
            // The owners of what is closed are in frames that this process never returns to: so
            // is the pipe that the monitor's handlers of signals write to.
            let ready = set_up_signals().and_then(|()| close_all_but(&kept));
            let code = match ready {
                Ok(()) => run(bundle, theirs, streams, monitor),
                Err(_) => 1,
            };
            std::process::exit(code)
        }
        let taps = entered.leave()?;
        let child = match forked.map_err(failed("fork the container's parent process"))? {
            Forked::Parent(pid) => pidfd_open(pid, PidfdFlags::empty()),
            Forked::Child => Err(rustix::io::Errno::CHILD),
        };
        Ok(Self {
            bundle: bundle.clone(),
            link: Some(ours.into()),
            taps,
            child: child.map_err(failed("watch the container's parent process"))?,
        })
    }

    /// Waits for the child; `None` is for ever. Whether it has ended.
    fn wait(&self, limit: Option<&Timespec>) -> bool {
        let mut fds = [PollFd::from_borrowed_fd(self.child.as_fd(), PollFlags::IN)];
        loop {
            match poll(&mut fds, limit) {
                Err(rustix::io::Errno::INTR) => {}
                Ok(ready) => return ready > 0,
                Err(_) => return false,
            }
        }
    }
}

/// The child has no handlers of the monitor's. Signals that end the container, which a host's shutdown
/// sends to every process, are the monitor's to handle.
fn set_up_signals() -> io::Result<()> {
    reset_signals(false)?;
    ignore_signals(&[
        libc::SIGTERM,
        libc::SIGINT,
        libc::SIGHUP,
        KILL_NOW.as_raw(),
        // As in every Rust program.
        libc::SIGPIPE,
    ]);
    Ok(())
}

/// The child's life. Returns its exit code.
fn run(bundle: &Bundle, connection: UnixStream, streams: Descriptors, monitor: Pid) -> i32 {
    let bound = set_parent_process_death_signal(Some(Signal::KILL));
    // The monitor may have died before the call.
    if bound.is_err() || getppid() != Some(monitor) {
        return 1;
    }
    match serve::run(bundle, connection, streams) {
        Ok(()) => 0,
        Err(error) => {
            // The peer has the failure; this is for debugging.
            let message = hullbox_host::error::chain(&error);
            let _ = io::Write::write_fmt(
                &mut io::stderr(),
                format_args!("hullbox: container mode: {message}\n"),
            );
            1
        }
    }
}

impl Backend for Container {
    fn link(&mut self) -> io::Result<Link> {
        self.link
            .take()
            .map(Link::Connected)
            .ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected))
    }

    fn ended(&self) -> BorrowedFd<'_> {
        self.child.as_fd()
    }

    fn members(&mut self) -> Vec<Member> {
        self.taps.drain(..).map(Member::Tap).collect()
    }

    fn connect(&mut self, index: u8, interface: &Interface) -> Result<Member, String> {
        let name = interface_name(index.into());
        network::connect(self.child.as_fd(), &name, interface)
            .map(Member::Tap)
            .map_err(|error| hullbox_host::error::chain(&error))
    }

    fn disconnect(&mut self, index: u8) -> Result<(), String> {
        network::disconnect(self.child.as_fd(), &interface_name(index.into()))
            .map_err(|error| hullbox_host::error::chain(&error))
    }

    fn takes_descriptors(&self) -> bool {
        true
    }

    fn kill(&mut self) {
        // An ended child is what was wanted.
        let _ = pidfd_send_signal(&self.child, Signal::KILL);
    }

    fn release(mut self: Box<Self>, orderly: bool) -> String {
        let limit = if orderly { Some(&CLEAN_UP_LIMIT) } else { None };
        if !orderly || !self.wait(limit) {
            self.kill();
            self.wait(None);
        }
        let status = waitid(WaitId::PidFd(self.child.as_fd()), WaitIdOptions::EXITED);
        let clean = matches!(status, Ok(Some(status)) if status.exit_status() == Some(0));
        let mut cause = "the container's parent process ended without a report".to_owned();
        if !clean && let Err(error) = cleanup::cleanup(&self.bundle) {
            cause = format!("{cause}, and cleaning up failed: {error}");
        }
        cause
    }
}
