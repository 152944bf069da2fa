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
mod confine;
mod connections;
mod copies;
mod dial;
mod disk_failure;
mod files;
mod hugepages;
mod identity;
mod machine_id;
mod mounts;
mod network;
mod oom;
mod prepared;
mod requests;
mod reserve;
mod rootfs;
mod sysfs;
mod tmpfs;
mod volatile;
mod ways;

use crate::clock;
use crate::failure::{failed, setup as setup_failure};
use crate::process::{self, Handed};
use crate::sys::{self, Namespaces};
use cgroup::{Cgroup, Hierarchy};
use dial::{dial, wait_connected};
use files::Sources;
use hullbox_protocol::{
    AgentEnv, CONSOLE_SIZE, ExitStatus, Failure, Frame, Hello, Hygiene, PROTOCOL_VERSION,
    ProcessSpec, Reply, Request, Setup,
};
use hullbox_session::children::{Children, Reach, Spawned, uptime_us};
use hullbox_session::connection::ConnectionError;
use hullbox_session::server::{Carried, Drain, Event, Pump};
use network::{Interfaces, Isolated};
use oom::OomWatch;
use prepared::Prepared;
use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount};
use rustix::process::{Pid, PidfdFlags, WaitOptions};
use rustix::thread::ThreadNameSpaceType;
use std::borrow::Cow;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};
use ways::{Errand, Joined};

/// As the protocol numbers signals.
const SIGKILL: u32 = 9;
const SIGTERM: u32 = 15;

/// The session that is the container's own.
const WORKLOAD: u32 = 0;
/// How long descendants of an additional process may hold its output open after its end.
const GRACE: Duration = Duration::from_secs(2);
/// How long a workload has after the SIGTERM of an orderly shutdown.
const STOP_TIME: Duration = Duration::from_secs(10);

/// Runs until the host is done with this guest.
///
/// # Errors
/// Why the agent cannot go on, in words for the console.
pub fn run() -> Result<(), String> {
    // A template is saved when it dials: whatever comes before is done once and for all. Otherwise
    // the host takes its time to accept, and meanwhile there is something to do.
    let template = std::env::var_os(AgentEnv::TEMPLATE).is_some();
    let early = if template { None } else { Some(dial()?) };
    mount_devices().map_err(|failure| failure.message)?;
    let signals = sys::watch_signals(&[]).map_err(|errno| format!("signals: {errno}"))?;
    raise_limits();
    // Without them programs grow more slowly.
    let _ = hugepages::arrange();
    // Only root could, and only its own guest; the other guards do not depend on it.
    let _ = confine::close_trigger();
    let mut ahead = Ahead::prepare();
    if template {
        ahead.isolated = Isolated::make().ok();
    }
    let dialled = Instant::now();
    let connection = match early {
        Some(connection) => connection,
        None => dial()?,
    };
    wait_connected(&connection)?;
    converse(connection, signals, ahead, dialled)
}

/// Serves a connection that is there already. Gives an exit code.
pub fn serve(connection: OwnedFd) -> i32 {
    let signals = sys::watch_signals(&[]).map_err(|errno| format!("signals: {errno}"));
    match signals
        .and_then(|signals| converse(connection, signals, Ahead::prepare(), Instant::now()))
    {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("hullbox-agent: {error}");
            1
        }
    }
}

/// What is there before the host has said anything.
struct Ahead {
    /// The hierarchy for the workload's control group.
    hierarchy: Result<Hierarchy, Failure>,
    /// What failed of this is tried anew, and told, when it is needed.
    prepared: Option<Prepared>,
    /// Where a container without an interface goes. What is missing of this, too, is made then.
    isolated: Option<Isolated>,
    oom: Option<OomWatch>,
}

impl Ahead {
    fn prepare() -> Self {
        let hierarchy = Hierarchy::mount();
        let usual = |hierarchy| Prepared::usual(hierarchy).ok();
        let prepared = hierarchy.as_ref().ok().and_then(usual);
        network::arrange();
        Self {
            prepared,
            isolated: None,
            oom: OomWatch::prepare(),
            hierarchy,
        }
    }
}

fn converse(
    connection: OwnedFd,
    signals: OwnedFd,
    ahead: Ahead,
    dialled: Instant,
) -> Result<(), String> {
    let pump = Pump::new(connection).map_err(|error| error.to_string())?;
    let mut agent = Agent {
        pump,
        signals,
        sessions: Children::new(process::send_signal),
        setup: None,
        dialled,
        reseeded: Ok(()),
        hygiene: Hygiene::default(),
        ahead,
        container: None,
        copies: Copies::default(),
        oom: None,
        finishing: false,
        ending: None,
        open: Vec::new(),
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
    let _ = sys::set_rlimit(libc::RLIMIT_CORE, u64::MAX, u64::MAX);
}

/// The running container.
struct Container {
    cgroup: Cgroup,
    writable: Option<rootfs::Writable>,
    /// Its files from outside, if it has any.
    sources: Option<Sources>,
    /// Its network namespace, if it began without an interface.
    isolated: Option<Isolated>,
    interfaces: Interfaces,
    /// Of the workload, whose namespaces others join.
    pidfd: Option<OwnedFd>,
    /// It runs a program, and is not just there for builtins.
    program: bool,
}

struct Agent {
    pump: Pump,
    signals: OwnedFd,
    sessions: Children,
    setup: Option<Box<Setup>>,
    /// When it dialled; a copy of it went on from there.
    dialled: Instant,
    /// Whether this guest has random numbers of its own.
    reseeded: Result<(), Failure>,
    /// What was done so far to make it differ from others.
    hygiene: Hygiene,
    ahead: Ahead,
    container: Option<Container>,
    copies: Copies,
    /// Since there is a workload.
    oom: Option<OomWatch>,
    /// The workload is over, and its `Exited` still on its way.
    finishing: bool,
    /// How it ended, to be told once the ends of all others are.
    ending: Option<ExitStatus>,
    /// Additional sessions that ended, and whose end has not reached the host.
    open: Vec<u32>,
    /// An orderly shutdown is under way; then SIGKILL is due at this time.
    stop: Option<Instant>,
}

/// What an agent knows of copies of itself.
#[derive(Debug, Default)]
struct Copies {
    /// It came to rest to be copied; whether the container was frozen before.
    suspended: Option<bool>,
    /// This is a copy, with the workload's streams to be joined to its own host.
    carried: Option<Carried>,
}

impl Copies {
    const fn is_suspended(&self) -> bool {
        self.suspended.is_some()
    }

    const fn carries(&self) -> bool {
        self.carried.is_some()
    }
}

impl Agent {
    fn serve(&mut self) -> Result<(), ConnectionError> {
        self.pump.send(&Frame::Hello(Hello {
            version: PROTOCOL_VERSION,
            uptime_us: uptime_us(),
        }))?;
        loop {
            self.tell_end()?;
            let timeout = self
                .stop
                .map(|due| due.saturating_duration_since(Instant::now()));
            let mut watched = vec![self.signals.as_fd()];
            watched.extend(self.oom.as_ref().map(OomWatch::fd));
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
                    self.take_kernel_log()?;
                    self.take_reports()?;
                    self.reap()?;
                }
                Event::Shutdown => self.shut_down(),
                Event::Request { number, request } => {
                    let reply = self.answer(&request);
                    self.pump.send(&Frame::Reply { number, reply })?;
                }
                Event::Timeout => {
                    self.sessions.signal_all(SIGKILL, Reach::Process);
                    self.stop = Some(Instant::now() + STOP_TIME);
                }
                Event::Finished { session } => {
                    self.finishing &= session != WORKLOAD;
                    self.open.retain(|&open| open != session);
                }
                Event::Closed(_) if self.copies.is_suspended() => self.begin_as_copy()?,
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
        // A copy's clock went on from the moment it dialled.
        let since = if setup.resumed {
            self.dialled.elapsed()
        } else {
            Duration::ZERO
        };
        self.hygiene = Hygiene {
            clock_set: clock::begin(setup.wall_clock_ns, since),
            ..Hygiene::default()
        };
        self.reseeded = identity::reseed(&setup.entropy, &mut self.hygiene);
        self.setup = Some(setup);
        Ok(())
    }

    fn exec(&mut self, session: u32, spec: &ProcessSpec) -> Result<(), ConnectionError> {
        if session == WORKLOAD && self.copies.carries() {
            return self.go_on_as_copy();
        }
        let spawned = match session {
            WORKLOAD => self.start_workload(&self.with_console(spec)),
            _ => self.start_additional(spec),
        };
        match spawned {
            Ok(spawned) => {
                self.sessions.add(&mut self.pump, session, spawned)?;
                if session == WORKLOAD {
                    self.sessions
                        .set_hygiene(session, self.done(spec.builtin.is_none()));
                }
                Ok(())
            }
            Err(failure) => self.pump.fail(session, failure),
        }
    }

    /// All that is done once this workload runs: its own process does the rest on its way
    /// ([`First`]), and does not run if any of that fails.
    fn done(&self, program: bool) -> Hygiene {
        let named = |name: fn(&Setup) -> &str| {
            let setup = self.setup.as_deref().filter(|_| program);
            setup.is_some_and(|setup| !name(setup).is_empty())
        };
        Hygiene {
            // The kernel makes one when it is first read. In a template's guest nobody has yet, and a
            // container's copy had its kernel forget it; both after the reseeding.
            boot_id_replaced: program && self.setup.as_deref().is_some_and(|setup| setup.resumed),
            hostname_set: named(|setup| &setup.hostname),
            machine_id_replaced: named(|setup| &setup.machine_id),
            ..self.hygiene
        }
    }

    /// An init system has a terminal in any case, which is its console: what it has to say it says
    /// nowhere else.
    fn with_console<'a>(&self, spec: &'a ProcessSpec) -> Cow<'a, ProcessSpec> {
        let setup = self.setup.as_deref();
        let wanted = setup.is_some_and(|setup| setup.access.runs_systemd);
        if !wanted || spec.terminal.is_some() || spec.builtin.is_some() {
            return Cow::Borrowed(spec);
        }
        let mut spec = spec.clone();
        spec.terminal = Some(CONSOLE_SIZE);
        spec.pipes.stdin = true;
        spec.pipes.stderr = true;
        Cow::Owned(spec)
    }

    fn start_workload(&mut self, spec: &ProcessSpec) -> Result<Spawned, Failure> {
        let Some(setup) = &self.setup else {
            return Err(setup_failure("no Setup before Exec"));
        };
        if self.container.is_some() {
            return Err(setup_failure("the workload was started before"));
        }
        self.reseeded.clone()?;
        let hierarchy = self.ahead.hierarchy.as_ref().map_err(Clone::clone)?;
        let prepared = self.ahead.prepared.take();
        let writable = rootfs::Writable::mount(setup)?;
        let sources = Sources::mount(setup)?;
        let (mut isolated, mut interfaces) = (None, Interfaces::default());
        let (cgroup, spawned) = if spec.builtin.is_some() {
            // It makes its own way to the disks, where no guard may be.
            prepared.map_or(Ok(()), Prepared::discard)?;
            let mut cgroup = Cgroup::create()?;
            cgroup.limit(setup.limits, setup.access.manages_cgroups)?;
            let errand = Errand { setup };
            let spawned = process::spawn(spec, &errand, Namespaces::Own, Some(cgroup.fd()))?;
            (cgroup, spawned)
        } else {
            let (access, may_mount) = (&setup.access, prepared::may_mount(spec));
            let mut prepared = Prepared::for_container(prepared, hierarchy, access, may_mount)?;
            let manages = access.manages_cgroups;
            prepared.cgroup.limit(setup.limits, manages)?;
            match setup.interfaces.as_slice() {
                [] => isolated = Some(self.ahead.isolated.take().map_or_else(Isolated::make, Ok)?),
                some => interfaces = Interfaces::configure(some)?,
            }
            let set_sysctls = || mounts::set_sysctls(&setup.sysctls);
            match &isolated {
                Some(isolated) if !setup.sysctls.is_empty() => isolated.within(set_sysctls)?,
                _ => set_sysctls()?,
            }
            let root = rootfs::assemble(setup)?;
            let handed = Handed {
                root: root.as_fd(),
                network: isolated.as_ref().map(Isolated::fd),
                files: sources.as_ref().map(|_| Sources::tree()).transpose()?,
            };
            prepared.order(setup, spec, &handed)?
        };
        // While it sets itself up.
        self.oom = self.ahead.oom.take().and_then(OomWatch::begin);
        self.container = Some(Container {
            cgroup,
            writable,
            sources,
            isolated,
            interfaces,
            pidfd: None,
            program: spec.builtin.is_none(),
        });
        Ok(spawned)
    }

    /// A process beside the workload: a program in its namespaces, or a builtin in its root.
    fn start_additional(&mut self, spec: &ProcessSpec) -> Result<Spawned, Failure> {
        let workload = self.sessions.pid(WORKLOAD);
        let (Some(container), Some(setup), Some(workload)) =
            (&mut self.container, &self.setup, workload)
        else {
            return Err(setup_failure("the container is not running"));
        };
        let pidfd = match container.pidfd.take() {
            Some(pidfd) => pidfd,
            None => open_process(workload)?,
        };
        let workload: &OwnedFd = container.pidfd.insert(pidfd);
        let joined = Joined {
            workload: workload.as_fd(),
            setup,
        };
        if spec.builtin.is_some() {
            // Neither seen by the container's processes nor frozen with them.
            let own = open_process(rustix::process::getpid())?;
            children_begin_in(&own)?;
            return process::spawn(spec, &joined, Namespaces::Inherit, None);
        }
        if !container.program {
            return Err(setup_failure("the container is not running"));
        }
        if container.cgroup.frozen {
            return Err(setup_failure(
                "the container is paused, unpause it before exec",
            ));
        }
        let own = match (setup.access.manages_cgroups, self.sessions.pid(WORKLOAD)) {
            (true, Some(pid)) => Some(Cgroup::of_process(pid)?),
            _ => None,
        };
        children_begin_in(workload)?;
        let cgroup = own.as_ref().map_or(container.cgroup.fd(), OwnedFd::as_fd);
        process::spawn(spec, &joined, Namespaces::Inherit, Some(cgroup))
    }

    fn answer(&mut self, request: &Request) -> Reply {
        match request {
            Request::Suspend => return self.suspend(),
            Request::Resume => return self.resume(),
            Request::SetClock { wall_clock_ns } => {
                return clock::keep(*wall_clock_ns);
            }
            _ => {}
        }
        match &mut self.container {
            Some(container) if self.sessions.pid(WORKLOAD).is_some() => {
                let isolated = container.isolated.as_mut();
                let done = match request {
                    Request::Connect {
                        index,
                        interface,
                        names,
                    } => {
                        let connected = container.interfaces.connect(*index, interface, isolated);
                        connected.map(|()| names)
                    }
                    Request::Disconnect { index, names } => {
                        let disconnected = container.interfaces.disconnect(*index, isolated);
                        disconnected.map(|()| names)
                    }
                    _ => return requests::answer(&mut container.cgroup, request),
                };
                match (done, &mut self.setup) {
                    (Ok(names), Some(setup)) => {
                        mounts::renew_names(setup, names);
                        Reply::Done
                    }
                    (Ok(_), None) => Reply::Done,
                    (Err(failure), _) => Reply::Failed(failure.message),
                }
            }
            _ => Reply::Failed("the container is not running".to_owned()),
        }
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
            if ended.session == WORKLOAD {
                self.finishing = true;
                self.ending = Some(ended.status);
                // Programs in its namespace are gone already; this is about builtins.
                self.sessions.signal_all(SIGKILL, Reach::Process);
            } else {
                self.open.push(ended.session);
                self.pump
                    .finish(ended.session, ended.status, Drain::Grace(GRACE));
            }
        }
        Ok(())
    }

    /// Tells the workload's end when nothing else is left to be told.
    fn tell_end(&mut self) -> Result<(), ConnectionError> {
        let last = self.sessions.is_empty() && self.open.is_empty();
        if let Some(status) = self.ending.take_if(|_| last) {
            self.take_kernel_log()?;
            self.settle();
            // Everything else in its namespace ended before it was reported.
            self.pump.finish(WORKLOAD, status, Drain::ToEnd);
        }
        Ok(())
    }

    /// Looks at what the kernel logged: whether the out-of-memory killer was at work, or the disk
    /// failed.
    fn take_kernel_log(&mut self) -> Result<(), ConnectionError> {
        let Some(watch) = self.oom.as_mut().filter(|watch| watch.skip_records()) else {
            return Ok(());
        };
        if watch.take() {
            self.pump.send(&Frame::Oom)?;
        }
        let writable = self.container.as_mut().and_then(|c| c.writable.as_mut());
        let text = match writable.map(rootfs::Writable::end_failed) {
            Some(Ok(true)) => "the writable layer's disk failed; it cannot be used any more",
            Some(Err(errno)) => &format!("the writable layer's disk may have failed: {errno}"),
            _ => return Ok(()),
        };
        self.pump.send(&Frame::Log(text.to_owned()))
    }

    /// Brings the writable layer and files from outside to rest, before the end of the workload is told.
    fn settle(&mut self) {
        let sources = self.container.as_mut().and_then(|c| c.sources.take());
        if let Some(Err(errno)) = sources.as_ref().map(Sources::settle) {
            let text = format!("not all of the container's files may have been written: {errno}");
            let _ = self.pump.send(&Frame::Log(text));
        }
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
        self.sessions.signal_all(SIGTERM, Reach::Process);
        self.stop = Some(Instant::now() + STOP_TIME);
    }
}

fn open_process(pid: Pid) -> Result<OwnedFd, Failure> {
    rustix::process::pidfd_open(pid, PidfdFlags::empty())
        .map_err(failed("cannot join the container"))
}

/// Sends children to come into a process's PID namespace. Of the caller itself this changes
/// nothing.
fn children_begin_in(process: &OwnedFd) -> Result<(), Failure> {
    let kind = ThreadNameSpaceType::PROCESS_ID;
    rustix::thread::move_into_thread_name_spaces(process.as_fd(), kind)
        .map_err(failed("cannot join the container"))
}
