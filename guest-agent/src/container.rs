//! The container's role: PID 1 of a microVM, outside of everything the workload can see.
//!
//! ```text
//!  guest kernel's first namespaces         the workload's own
//!  agent (PID 1) ── control socket         PID 1: the workload, or a small init above it
//!  initramfs, /dev, cgroup root            overlay root, /proc, /dev, cgroup below its own
//! ```
//!
//! The workload runs in PID, mount and cgroup namespaces of its own. So it is PID 1 as in Docker, `kill -9 -1` ends it and not the agent, and no path leads to the
//! agent's files or its socket. When it ends the kernel ends everything else in there.

mod cgroup;
mod mounts;
mod rootfs;
mod tmpfs;

use crate::failure::{failed, setup as setup_failure};
use crate::process::{self, Root};
use crate::sessions::{Reach, Sessions, uptime_us};
use crate::sys::{self, Namespaces};
use cgroup::Cgroup;
use hullbox_protocol::{
    CONTROL_PORT, ExitStatus, Failure, Frame, Hello, PROTOCOL_VERSION, ProcessSpec, Setup,
};
use hullbox_session::connection::ConnectionError;
use hullbox_session::server::{Drain, Event, Pump};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount};
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions};
use rustix::thread::ThreadNameSpaceType;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

/// The session that is the container's own.
const WORKLOAD: u32 = 0;
/// How long descendants of an additional process may hold its output open after its end.
const GRACE: Duration = Duration::from_secs(2);
/// How long a workload has after the SIGTERM of an orderly shutdown.
const STOP_TIME: Duration = Duration::from_secs(10);
/// How long the host may take to accept the connection.
const CONNECT_TIME: Duration = Duration::from_secs(20);

/// Runs until the host is done with this guest.
///
/// # Errors
/// Why the agent cannot go on, in words for the console.
pub fn run() -> Result<(), String> {
    // The host takes its time to accept; meanwhile there is something to do.
    let connection = sys::vsock_connect(CONTROL_PORT)
        .map_err(|errno| format!("cannot reach the host: {errno}"))?;
    mount_devices().map_err(|failure| failure.message)?;
    let signals = sys::watch_signals(&[]).map_err(|errno| format!("signals: {errno}"))?;
    raise_limits();
    let hierarchy = cgroup::mount_hierarchy();
    // A workload without loopback is rather a workload than none.
    let _ = sys::loopback_up();
    wait_connected(&connection)?;
    let pump = Pump::new(connection).map_err(|error| error.to_string())?;
    let mut agent = Agent {
        pump,
        signals,
        sessions: Sessions::default(),
        setup: None,
        hierarchy,
        container: None,
        finishing: false,
        stop: None,
    };
    let result = agent.serve().map_err(|error| error.to_string());
    if agent.setup.is_some_and(|setup| setup.persist) {
        rustix::fs::sync();
    }
    result
}

fn mount_devices() -> Result<(), Failure> {
    match rustix::fs::mkdir("/dev", Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(failed("cannot make /dev")(errno)),
    }
    match mount("dev", "/dev", "devtmpfs", MountFlags::NOSUID, None) {
        // The kernel may have done it.
        Ok(()) | Err(Errno::BUSY) => Ok(()),
        Err(errno) => Err(failed("cannot mount /dev")(errno)),
    }
}

/// Limits as containers elsewhere start with, in place of those that the kernel derives from
/// the guest's memory. Failing that, the kernel's are good enough.
fn raise_limits() {
    let _ = sys::set_rlimit(libc::RLIMIT_NOFILE, 1024, 524_288);
    let _ = sys::set_rlimit(libc::RLIMIT_NPROC, u64::MAX, u64::MAX);
}

/// Waits until the connection is made.
fn wait_connected(connection: &OwnedFd) -> Result<(), String> {
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

/// The running container.
struct Container {
    cgroup: Cgroup,
    writable: Option<rootfs::Writable>,
    /// Of the workload, whose namespaces others join.
    pidfd: Option<OwnedFd>,
}

struct Agent {
    pump: Pump,
    signals: OwnedFd,
    sessions: Sessions,
    setup: Option<Box<Setup>>,
    /// Whether the hierarchy for the workload's control group could be mounted.
    hierarchy: Result<(), Failure>,
    container: Option<Container>,
    /// The workload is over, and its `Exited` still on its way.
    finishing: bool,
    /// An orderly shutdown is under way; then SIGKILL is due at this time.
    stop: Option<Instant>,
}

impl Agent {
    fn serve(&mut self) -> Result<(), ConnectionError> {
        self.pump.send(&Frame::Hello(Hello {
            version: PROTOCOL_VERSION,
            uptime_us: uptime_us(),
        }))?;
        loop {
            let timeout = self
                .stop
                .map(|due| due.saturating_duration_since(Instant::now()));
            let mut watched = vec![self.signals.as_fd()];
            watched.extend(self.sessions.descriptors());
            let event = self.pump.wait(&watched, timeout)?;
            match event {
                Event::Setup(setup) => self.take_setup(setup)?,
                Event::Exec { session, spec } => self.exec(session, &spec)?,
                Event::Signal { session, signal } => {
                    self.sessions.signal(session, signal, Reach::Process);
                }
                // Between `Exec` and the opening of the terminal: the client repeats it.
                Event::Resize { .. } => {}
                Event::Ready(_) => {
                    self.take_reports()?;
                    self.reap()?;
                }
                Event::Shutdown => self.shut_down(),
                Event::Timeout => {
                    self.sessions.signal_all(Signal::KILL, Reach::Process);
                    self.stop = Some(Instant::now() + STOP_TIME);
                }
                Event::Finished { session } => self.finishing &= session != WORKLOAD,
                Event::Closed(None) => return Ok(()),
                Event::Closed(Some(error)) => return Err(error),
            }
            if self.stop.is_some() && self.sessions.is_empty() && !self.finishing {
                return Ok(());
            }
        }
    }

    fn take_setup(&mut self, setup: Box<Setup>) -> Result<(), ConnectionError> {
        if self.setup.is_some() {
            return Err(ConnectionError::Violation("a second Setup"));
        }
        set_clock(setup.wall_clock_ns);
        self.setup = Some(setup);
        Ok(())
    }

    fn exec(&mut self, session: u32, spec: &ProcessSpec) -> Result<(), ConnectionError> {
        let spawned = match session {
            WORKLOAD => self.start_workload(spec),
            _ => self.start_additional(spec),
        };
        match spawned {
            Ok(spawned) => self.sessions.add(&mut self.pump, session, spawned),
            Err(failure) => self.pump.fail(session, failure),
        }
    }

    fn start_workload(&mut self, spec: &ProcessSpec) -> Result<process::Spawned, Failure> {
        let Some(setup) = &self.setup else {
            return Err(setup_failure("no Setup before Exec"));
        };
        if self.container.is_some() {
            return Err(setup_failure("the workload was started before"));
        }
        let writable = rootfs::Writable::mount(setup)?;
        self.hierarchy.clone()?;
        let cgroup = Cgroup::create(setup.limits)?;
        let first = First { setup };
        let spawned = process::spawn(spec, &first, Namespaces::Own, Some(cgroup.fd()))?;
        self.container = Some(Container {
            cgroup,
            writable,
            pidfd: None,
        });
        Ok(spawned)
    }

    /// A process beside the workload, in its namespaces.
    fn start_additional(&mut self, spec: &ProcessSpec) -> Result<process::Spawned, Failure> {
        let workload = self.sessions.pid(WORKLOAD);
        let (Some(container), Some(workload)) = (&mut self.container, workload) else {
            return Err(setup_failure("the container is not running"));
        };
        let pidfd = match container.pidfd.take() {
            Some(pidfd) => pidfd,
            None => join_processes(workload)?,
        };
        let workload: &OwnedFd = container.pidfd.insert(pidfd);
        let joined = Joined {
            workload: workload.as_fd(),
        };
        let cgroup = container.cgroup.fd();
        process::spawn(spec, &joined, Namespaces::Inherit, Some(cgroup))
    }

    fn take_reports(&mut self) -> Result<(), ConnectionError> {
        let failed = self.sessions.take_reports(&mut self.pump)?;
        self.sessions.deliver_pending(Reach::Process);
        if failed.contains(&WORKLOAD) {
            self.settle();
        }
        Ok(())
    }

    /// Collects every process that ended.
    fn reap(&mut self) -> Result<(), ConnectionError> {
        while sys::next_signal(self.signals.as_fd()).is_some() {}
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            let Some(mut ended) = self.sessions.reaped(&mut self.pump, pid, status)? else {
                continue;
            };
            if let ExitStatus::Signal { signal: 9, oom } = &mut ended.status
                && let Some(container) = &self.container
            {
                *oom = container.cgroup.saw_oom_kill();
            }
            let drain = if ended.session == WORKLOAD {
                self.finishing = true;
                self.settle();
                // Everything else in its namespace ended before it was reported.
                Drain::ToEnd
            } else {
                Drain::Grace(GRACE)
            };
            self.pump.finish(ended.session, ended.status, drain);
        }
        Ok(())
    }

    /// Brings the writable layer to rest, before the end of the workload is told.
    fn settle(&mut self) {
        let persist = self.setup.as_ref().is_some_and(|setup| setup.persist);
        let writable = self.container.as_mut().and_then(|c| c.writable.take());
        if let Some(writable) = writable.filter(|_| persist) {
            if let Err(errno) = writable.settle() {
                let text = format!("the writable layer cannot be synced: {errno}");
                let _ = self.pump.send(&Frame::Log(text));
            }
            rootfs::unmount_writable();
        }
    }

    fn shut_down(&mut self) {
        self.sessions.signal_all(Signal::TERM, Reach::Process);
        self.stop = Some(Instant::now() + STOP_TIME);
    }
}

/// Sends children to come into the workload's PID namespace.
fn join_processes(workload: Pid) -> Result<OwnedFd, Failure> {
    let what = || failed("cannot join the container");
    let opened = rustix::process::pidfd_open(workload, PidfdFlags::empty()).map_err(what())?;
    // Of the caller itself this changes nothing, only where its children begin.
    let kind = ThreadNameSpaceType::PROCESS_ID;
    rustix::thread::move_into_thread_name_spaces(opened.as_fd(), kind).map_err(what())?;
    Ok(opened)
}

fn set_clock(wall_clock_ns: u64) {
    if wall_clock_ns == 0 {
        return;
    }
    let time = rustix::time::Timespec {
        tv_sec: i64::try_from(wall_clock_ns / 1_000_000_000).unwrap_or(0),
        tv_nsec: i64::try_from(wall_clock_ns % 1_000_000_000).unwrap_or(0),
    };
    let _ = rustix::time::clock_settime(rustix::time::ClockId::Realtime, time);
}

/// The workload's way in: everything is made for it.
struct First<'a> {
    setup: &'a Setup,
}

impl Root for First<'_> {
    fn enter(&self, _: &ProcessSpec) -> Result<(), Failure> {
        let setup = self.setup;
        sys::unshare_cgroup().map_err(failed("cannot unshare the control group"))?;
        if !setup.hostname.is_empty() {
            rustix::system::sethostname(setup.hostname.as_bytes())
                .map_err(failed("cannot set the host name"))?;
        }
        let names = mounts::take_names(setup)?;
        rootfs::enter(setup)?;
        mounts::mount_system(setup)?;
        mounts::place_names(names, setup.rootfs.read_only)?;
        for mount in &setup.tmpfs {
            tmpfs::mount(mount)?;
        }
        mounts::set_sysctls(&setup.sysctls)
    }

    fn init(&self) -> bool {
        self.setup.init
    }

    fn console(&self) -> bool {
        true
    }

    fn seal(&self) -> Result<(), Failure> {
        if self.setup.rootfs.read_only {
            rootfs::make_read_only()?;
        }
        Ok(())
    }
}

/// The way in of a process that joins a running container.
struct Joined<'a> {
    workload: BorrowedFd<'a>,
}

impl Root for Joined<'_> {
    fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        vec![self.workload]
    }

    fn enter(&self, _: &ProcessSpec) -> Result<(), Failure> {
        let kinds = ThreadNameSpaceType::MOUNT | ThreadNameSpaceType::CONTROL_GROUP;
        rustix::thread::move_into_thread_name_spaces(self.workload, kinds)
            .map_err(failed("cannot join the container"))
    }
}
