//! The helper machine's role: PID 1 under QEMU with Debian's cloud kernel.
//!
//! The host side (`machine/src`) builds an initramfs and a command line; this
//! module's side of that contract is:
//!
//! # Initramfs
//!
//! | path | what |
//! |---|---|
//! | `/init` | this program |
//! | `/dev/console`, `/dev/null` | character nodes 5:1 and 1:3 (the kernel and Rust's runtime open them before anything is mounted) |
//! | `/machine/modules` | module file names, one a line, in loading order. Absent: none |
//! | `/machine/NAME.ko` | each module of the list. One that is loaded or built in already (`EEXIST`) is no error; any other failure is reported on the console and passed over, so that a missing driver shows itself where it is needed |
//! | `/machine/config` | the configuration |
//!
//! The role itself comes from the kernel command line: `HULLBOX_ROLE=machine`, which the
//! kernel hands to init as environment.
//!
//! # Configuration
//!
//! Lines of `key=value`, the value as it stands up to the end of its line; unknown keys are
//! passed over.
//!
//! | key | meaning | without it |
//! |---|---|---|
//! | `root` | virtio-fs tag of the host's root: the read-only lower layer of `/` | `host` |
//! | `hostname` | host name | `hullbox-machine` |
//! | `modules` | this kernel's module directory as a path of the host; bound from the share (below the overlay, and before `data`, which may hide the path) at `/lib/modules/RELEASE`, so that `modprobe` works | none |
//! | `volume` (any number) | a path of the host that is written through: the share's own directory is mounted over the overlay at the same path. The share must allow it; the machine's mount alone gives no right | none |
//! | `data` | where the ext4 filesystem on `/dev/vda` is mounted, read-write | no data disk |
//! | `idle_s` | power off after so many seconds without a session or leftover process; 0 is never | 0 |
//!
//! A volume or the data directory that does not exist below is made in the overlay.
//!
//! # What programs find
//!
//! `/` is the host's root with a memory overlay; `/proc`, `/sys`, `/dev` (devtmpfs, with
//! `/dev/kvm` open to all), `/dev/pts`, `/dev/shm`, `/dev/mqueue` and `/run` (tmpfs) are the
//! machine's own; `/sys/fs/cgroup` is cgroup v2 with all controllers enabled for children;
//! programs run in the group `/sys/fs/cgroup/init`, on every processor but the first. Loopback is
//! up. Every mount of the machine is private, so nothing propagates.
//!
//! # Sessions
//!
//! When all of this stands, the machine connects once to the host (CID 2) at
//! [`MACHINE_READY_PORT`](hullbox_protocol::MACHINE_READY_PORT), sends one `Hello` frame and
//! closes; if the setup failed it sends a `Log` frame with the reason instead and powers off. It
//! listens on [`MACHINE_PORT`](hullbox_protocol::MACHINE_PORT) before it connects, so a host
//! that has seen `Hello` can dial at once.
//!
//! On each accepted connection the agent first makes the overlay forget names (by remounting
//! `/`, as it is): a file that the host made or replaced since must be seen, and
//! overlayfs never asks again about a name that was not there), then sends `Hello`, and begins the
//! program when what the share itself said before has expired as well ([`names`]). From
//! `Hello` on the connection counts as work; the client waits for it, so that a machine about to
//! idle out is noticed before any input is spent. `ProcessSpec.pipes` says which streams are
//! pipes although there is a terminal.
//!
//! Each accepted connection is one trusted session. The client sends `Exec { session: 0 }` (no
//! `Setup`) and then speaks as with any agent: `Data`, `Eof`, `Credit`,
//! `Signal`, `Resize` in, `Started` or `Failed`, `Data`, `Eof`, `Credit`, `Exited` out.
//! `ProcessSpec` means what it means in a container, in the machine's root:
//! - `user`: `UserSpec::Ids` (`Named` is resolved in the host's files);
//! - `cwd`: the absolute path; one that does not exist here is an error, not made;
//! - `argv`, `env`: exact; the program is looked up in the spec's PATH;
//! - `terminal`: a pseudo-terminal of the machine, controlling, of its own session;
//! - a signal goes to the process group of the program, as from a terminal's keyboard.
//!
//! A `Request` with `SetClock` in place of `Exec` sets the machine's clock.
//!
//! When the program ends, `Exited` follows as soon as its output is drained; descendants that
//! hold the output open hold it up for two seconds at most and are then left alone.
//! When the connection ends first, the program's process group gets SIGHUP, and SIGKILL two
//! seconds later. Processes that left the group (`setsid`: detached monitors) live on and
//! are reaped; as long as one lives the machine is not idle.
//!
//! A `Shutdown` frame on any connection stops the machine in an orderly way: SIGTERM to all,
//! SIGKILL after five seconds, sync, unmount the data disk, ACPI power-off (QEMU ends).
//! The same happens after `idle_s`.

mod config;
mod held;
mod modules;
mod names;
mod root;
pub mod session;

use crate::failure::words;
use crate::sys::{self, Forked, Namespaces};
use config::Config;
use hullbox_protocol::{
    Frame, Hello, MACHINE_PORT, MACHINE_READY_PORT, PROTOCOL_VERSION, encode_into,
};
use hullbox_session::children::uptime_us;
use names::Known;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};
use rustix::process::{Pid, Signal, WaitOptions};
use std::collections::HashSet;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

/// How long programs have after SIGTERM when the machine stops, and again after SIGKILL.
const STOP_TIME: Duration = Duration::from_secs(5);
/// How long the host may take to accept the word that the machine is ready.
const READY_TIME: Duration = Duration::from_secs(10);

/// Runs the machine.
///
/// # Errors
/// Why it cannot go on, in words for the console.
pub fn run() -> Result<(), String> {
    let config = Config::read();
    modules::load();
    match start(&config) {
        Ok(machine) => machine.serve(&config),
        Err(error) => {
            // The host waits for a word; one of regret is better than none.
            let _ = tell_host(&Frame::Log(error.clone()));
            Err(error)
        }
    }
}

fn start(config: &Config) -> Result<Machine, String> {
    let (share, data) = root::build(config).map_err(|failure| failure.message)?;
    let held = held::hold();
    let told = |what: &'static str| move |errno| format!("{what}: {}", words(errno));
    let signals = sys::watch_signals(&[]).map_err(told("cannot watch signals"))?;
    let listener = sys::vsock_listen(MACHINE_PORT).map_err(told("cannot listen on vsock"))?;
    tell_host(&Frame::Hello(Hello {
        version: PROTOCOL_VERSION,
        uptime_us: uptime_us(),
    }))
    .map_err(told("cannot tell the host"))?;
    Ok(Machine {
        signals,
        listener,
        share,
        data,
        handlers: HashSet::new(),
        idle_since: Some(Instant::now()),
        _held: held,
    })
}

/// One frame to the host's ready port.
fn tell_host(frame: &Frame) -> Result<(), Errno> {
    let mut wire = Vec::new();
    encode_into(frame, &mut wire).map_err(|_| Errno::MSGSIZE)?;
    let socket = sys::vsock_connect(MACHINE_READY_PORT)?;
    wait(&socket, PollFlags::OUT, READY_TIME)?;
    rustix::net::sockopt::socket_error(&socket)??;
    rustix::io::write(&socket, &wire)?;
    // The host closes when it has read; a word cut off by our own end would be lost.
    wait(&socket, PollFlags::IN, READY_TIME)
}

fn wait(fd: &OwnedFd, flags: PollFlags, time: Duration) -> Result<(), Errno> {
    let time = Timespec::try_from(time).map_err(|_| Errno::INVAL)?;
    let mut fds = [PollFd::new(fd, flags)];
    match rustix::event::poll(&mut fds, Some(&time))? {
        0 => Err(Errno::TIMEDOUT),
        _ => Ok(()),
    }
}

/// PID 1: accepts connections and reaps. Each connection has a process of its own, so that
/// one slow client holds up nobody, and PID 1 stays too simple to fail.
struct Machine {
    signals: OwnedFd,
    listener: OwnedFd,
    /// The host's files without the memory above them.
    share: OwnedFd,
    /// Where the data disk is mounted.
    data: Option<String>,
    handlers: HashSet<Pid>,
    /// Since when there has been no child at all.
    idle_since: Option<Instant>,
    _held: held::Held,
}

impl Machine {
    fn serve(mut self, config: &Config) -> Result<(), String> {
        loop {
            let due = match (config.idle, self.idle_since) {
                (Some(idle), Some(since)) => Some(idle.saturating_sub(since.elapsed())),
                _ => None,
            };
            if due == Some(Duration::ZERO) {
                break;
            }
            let mut fds = [
                PollFd::new(&self.signals, PollFlags::IN),
                PollFd::new(&self.listener, PollFlags::IN),
            ];
            let due = due.and_then(|due| Timespec::try_from(due).ok());
            match rustix::event::poll(&mut fds, due.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(format!("poll: {}", words(errno))),
            }
            let connected = !fds[1].revents().is_empty();
            if self.reap() {
                break;
            }
            if connected {
                self.accept()?;
            }
        }
        self.stop();
        Ok(())
    }

    /// Collects what ended. True if a connection asked for the machine's end.
    fn reap(&mut self) -> bool {
        while sys::next_signal(self.signals.as_fd()).is_some() {}
        let mut stop = false;
        loop {
            match rustix::process::wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) => {
                    let asked = status.exit_status() == Some(session::STOP_MACHINE);
                    stop |= self.handlers.remove(&pid) && asked;
                }
                Ok(None) => {
                    self.idle_since = None;
                    return stop;
                }
                Err(_) => {
                    let _ = self.idle_since.get_or_insert_with(Instant::now);
                    return stop;
                }
            }
        }
    }

    fn accept(&mut self) -> Result<(), String> {
        let Ok(connection) = sys::vsock_accept(self.listener.as_fd()) else {
            // The client left, or is not the host.
            return Ok(());
        };
        match sys::fork(Namespaces::Inherit, None) {
            Ok(Forked::Child) => {
                let known = Known::now();
                known.forget_overlay();
                sys::exit_now(session::serve(connection, &self.share, Some(known)))
            }
            Ok(Forked::Parent(pid)) => {
                self.handlers.insert(pid);
                self.idle_since = None;
            }
            // The client sees its connection end.
            Err(errno) => eprintln!("hullbox-agent: cannot fork: {}", words(errno)),
        }
        Ok(())
    }

    /// Ends everything in an orderly way.
    fn stop(mut self) {
        for signal in [Signal::TERM, Signal::KILL] {
            // From PID 1, "all" is everybody else.
            let _ = sys::kill_all(signal);
            let due = Instant::now() + STOP_TIME;
            loop {
                self.reap();
                let left = due.saturating_duration_since(Instant::now());
                if self.idle_since.is_some() || left.is_zero() {
                    break;
                }
                let _ = wait(&self.signals, PollFlags::IN, left);
            }
        }
        rustix::fs::sync();
        if let Some(data) = &self.data
            && unmount(data.as_str(), UnmountFlags::empty()).is_err()
        {
            // Somebody's mount lies on it: at least no more writes.
            let _ = unmount(data.as_str(), UnmountFlags::DETACH);
        }
    }
}
