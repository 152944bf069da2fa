//! From a bundle to a running process.

use super::builtin;
use super::cgroup::Cgroup;
use super::cleanup::{remove_runtime_files, state_dir};
use super::error::{NsError, io};
use super::executor::{Init, LastMile, Launch};
use super::rootfs::{self, Rootfs};
use super::spec::{SpecError, console};
use super::workload::Workload;
use super::{devices, guard, init, spec, trace};
use crate::sys;
use hullbox_backend::bundle::Bundle;
use hullbox_protocol::{Builtin, DeviceNode, TerminalSize};
use hullbox_session::server::Stdio;
use libcontainer::container::Container;
use libcontainer::container::builder::ContainerBuilder;
use libcontainer::error::LibcontainerError;
use libcontainer::syscall::syscall::SyscallType;
use rustix::fd::{AsFd, AsRawFd, OwnedFd};
use rustix::fs::{Gid, Mode, OFlags, Uid};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketAddrUnix,
    SocketFlags, SocketType,
};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use rustix::termios::Winsize;
use std::io::IoSliceMut;
use std::path::Path;
use std::rc::Rc;

/// A container whose first process runs, or has failed to.
#[derive(Debug)]
pub(super) struct Running {
    /// Its first process.
    pub(super) pid: Pid,
    /// The same, to be watched and signalled.
    pub(super) pidfd: OwnedFd,
    /// Our ends of its standard streams.
    pub(super) stdio: Stdio,
    /// Gives a failure, or ends when the workload's `execve` succeeded.
    pub(super) report: OwnedFd,
    /// With `--init`: gives the workload's wait status.
    pub(super) status: Option<OwnedFd>,
}

/// What a container is in, from its making to its removal.
#[derive(Debug)]
pub(super) struct Surroundings {
    pub(super) cgroup: Cgroup,
    pub(super) rootfs: Rootfs,
    devices: Vec<DeviceNode>,
}

impl Surroundings {
    /// Makes cgroup and root.
    pub(super) fn make(bundle: &Bundle) -> Result<Self, NsError> {
        check_caller()?;
        // Of one that does not run, nothing uses any.
        let devices = match bundle.process.builtin {
            Some(_) => Vec::new(),
            None => devices::of(bundle)?,
        };
        let rules = devices::program(bundle, &devices);
        let cgroup = Cgroup::create(&bundle.id, &bundle.setup.limits, rules.as_deref())?;
        match Rootfs::mount(bundle) {
            Ok(rootfs) => Ok(Self {
                cgroup,
                rootfs,
                devices,
            }),
            Err(e) => {
                rootfs::clear(&rootfs::base_of(&bundle.runtime_dir));
                // The first error is the one to tell.
                let _ = cgroup.remove();
                Err(e.into())
            }
        }
    }

    /// Kills what is left in the container and removes everything but the writable layer.
    pub(super) fn remove(self, bundle: &Bundle) -> Result<(), NsError> {
        let killed = self.cgroup.kill();
        let removed = self.cgroup.remove();
        self.rootfs.unmount();
        remove_runtime_files(&bundle.runtime_dir);
        killed.and(removed).map_err(NsError::Cgroup)
    }

    /// Starts a builtin in the workload's place: a container that otherwise does not run.
    fn start_builtin(&self, bundle: &Bundle, builtin: &Builtin) -> Result<Running, NsError> {
        let place = builtin::Place {
            process: None,
            rootfs: &self.rootfs,
            bundle,
        };
        let spawned = builtin::spawn(place, builtin, bundle.process.stdin)?;
        let pidfd = pidfd_open(spawned.pid, PidfdFlags::empty());
        Ok(Running {
            pid: spawned.pid,
            pidfd: pidfd.map_err(io("watch the process"))?,
            stdio: spawned.pipes.into_stdio(None),
            report: spawned.status.into(),
            status: None,
        })
    }

    /// Starts the workload, once all is made and `ready` returns.
    pub(super) fn start(
        &self,
        bundle: &Bundle,
        ready: impl FnOnce() -> Result<(), NsError>,
    ) -> Result<Running, NsError> {
        if let Some(builtin) = &bundle.process.builtin {
            ready()?;
            return self.start_builtin(bundle, builtin);
        }
        Cgroup::show_at_standard_place()?;
        let root = self.rootfs.root();
        let workload = Workload::prepare(root, &bundle.setup, &bundle.process)?;
        let description = spec::build(bundle, &self.rootfs.path(), root, &self.devices)?;
        let state = state_dir(&bundle.runtime_dir);
        make_empty_dir(&state).map_err(io("make the state directory"))?;
        description
            .save(state.join("config.json"))
            .map_err(SpecError::from)?;

        let (report, report_end) = pipe().map_err(io("make a pipe"))?;
        let (status, init) = init_parts(bundle)?;
        let terminal = console(bundle);
        let owner = Uid::from_raw(workload.identity.uid);
        let parent = pidfd_open(rustix::process::getpid(), PidfdFlags::empty())
            .map_err(io("watch this process"))?;
        let launch = LastMile(Rc::new(Launch {
            workload,
            parent,
            report: report_end,
            init,
            doors: self.cgroup.doors()?,
            mounts: self.rootfs.take_mounts(),
            devices: self
                .devices
                .iter()
                .filter(|device| !spec::is_in_dev(device))
                .cloned()
                .collect(),
            has_new_network: spec::has_new_network(bundle),
            reset_oom_score: has_oom_score(),
        }));
        let builder = ContainerBuilder::new(bundle.id.clone(), SyscallType::default())
            .with_executor(launch)
            .with_root_path(&state)
            .and_then(ContainerBuilder::validate_id)
            .map_err(create)?;
        let (mut container, stdio) = match terminal {
            Some(size) => build_with_terminal(builder, &state, size)?,
            None => build_with_pipes(builder, &state, bundle, owner)?,
        };
        let pid = container
            .pid()
            .and_then(|pid| Pid::from_raw(pid.as_raw()))
            .ok_or_else(|| create(LibcontainerError::Other("no process id".into())))?;
        let pidfd =
            pidfd_open(pid, PidfdFlags::empty()).map_err(io("watch the container's process"))?;
        ready()?;
        container.start().map_err(create)?;
        guard::post(pidfd.as_fd()).map_err(io("watch over the container's process"))?;
        Ok(Running {
            pid,
            pidfd,
            stdio,
            report,
            status,
        })
    }
}

fn create(error: LibcontainerError) -> NsError {
    let cause = error.to_string();
    NsError::Create {
        cause,
        source: Box::new(error),
    }
}

fn pipe() -> rustix::io::Result<(OwnedFd, OwnedFd)> {
    pipe_with(PipeFlags::CLOEXEC)
}

fn make_empty_dir(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    match std::fs::remove_dir_all(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    std::fs::DirBuilder::new().mode(0o700).create(path)
}

/// With `--init`: where the workload's status comes from, and what the init needs.
fn init_parts(bundle: &Bundle) -> Result<(Option<OwnedFd>, Option<Init>), NsError> {
    if !bundle.setup.init {
        return Ok((None, None));
    }
    let program = init::program().map_err(io("make the init program"))?;
    let (read, status) = pipe().map_err(io("make a pipe"))?;
    Ok((Some(read), Some(Init { program, status })))
}

/// Whether our own `oom_score_adj` would be passed on to the workload.
pub(super) fn has_oom_score() -> bool {
    std::fs::read_to_string("/proc/self/oom_score_adj").is_ok_and(|score| score.trim() != "0")
}

fn finish(builder: ContainerBuilder, state: &Path) -> Result<Container, NsError> {
    let builder = builder.as_init(state).with_systemd(false).with_detach(true);
    let (built, traced) = trace::first_error(|| builder.build());
    built.map_err(|error| NsError::Create {
        cause: traced.unwrap_or_else(|| error.to_string()),
        source: Box::new(error),
    })
}

fn build_with_pipes(
    builder: ContainerBuilder,
    state: &Path,
    bundle: &Bundle,
    owner: Uid,
) -> Result<(Container, Stdio), NsError> {
    let make = || pipe().map_err(io("make a pipe"));
    let (stdout, stdout_end) = make()?;
    let (stderr, stderr_end) = make()?;
    let (stdin_end, stdin) = if bundle.process.stdin {
        let (end, stdin) = make()?;
        (end, Some(stdin))
    } else {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let null = rustix::fs::open("/dev/null", flags, Mode::empty());
        (null.map_err(io("open /dev/null"))?, None)
    };
    // The workload may open its streams again by way of /dev/stdout.
    let pipes = [
        stdin.as_ref().map(|_| &stdin_end),
        Some(&stdout_end),
        Some(&stderr_end),
    ];
    for end in pipes.into_iter().flatten() {
        rustix::fs::fchown(end, Some(owner), None::<Gid>).map_err(io("hand over a pipe"))?;
    }
    let builder = builder
        .with_stdin(stdin_end)
        .with_stdout(stdout_end)
        .with_stderr(stderr_end);
    let container = finish(builder, state)?;
    Ok((
        container,
        Stdio::Pipes {
            stdin,
            stdout: Some(stdout),
            stderr: Some(stderr),
        },
    ))
}

/// libcontainer makes the terminal in the container's own devpts and sends its master to a
/// socket that it finds by path.
fn build_with_terminal(
    builder: ContainerBuilder,
    state: &Path,
    size: TerminalSize,
) -> Result<(Container, Stdio), NsError> {
    let listener = console_listener(state).map_err(io("make the console socket"))?;
    let builder = builder.with_console_socket(Some(state.join(CONSOLE)));
    let container = finish(builder, state)?;
    let master = receive_master(&listener).map_err(io("receive the terminal"))?;
    let size = Winsize {
        ws_row: size.rows,
        ws_col: size.columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    rustix::termios::tcsetwinsize(&master, size).map_err(io("size the terminal"))?;
    Ok((container, Stdio::Terminal(master)))
}

/// Name of the console socket in the state directory.
const CONSOLE: &str = "console.sock";

fn console_listener(state: &Path) -> rustix::io::Result<OwnedFd> {
    let listener = rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    // A short name for a directory whose own may be longer than a socket address.
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = rustix::fs::open(state, flags, Mode::empty())?;
    let address = SocketAddrUnix::new(format!("/proc/self/fd/{}/{CONSOLE}", dir.as_raw_fd()))?;
    rustix::net::bind(&listener, &address)?;
    rustix::net::listen(&listener, 1)?;
    Ok(listener)
}

fn receive_master(listener: &OwnedFd) -> rustix::io::Result<OwnedFd> {
    let connection = rustix::net::accept_with(listener, SocketFlags::CLOEXEC)?;
    let mut name = [0; 64];
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    rustix::net::recvmsg(
        &connection,
        &mut [IoSliceMut::new(&mut name)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    control
        .drain()
        .find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        })
        .ok_or(rustix::io::Errno::BADMSG)
}

/// The descriptors that the pump watches for us.
impl Running {
    /// Process and report.
    pub(super) fn watched(&self) -> [rustix::fd::BorrowedFd<'_>; 2] {
        [self.pidfd.as_fd(), self.report.as_fd()]
    }
}

/// Whether this process may start a container.
fn check_caller() -> Result<(), NsError> {
    if !rustix::process::geteuid().is_root() {
        return Err(NsError::NotRoot);
    }
    match sys::thread_count() {
        Ok(1) => Ok(()),
        Ok(_) => Err(NsError::Threads),
        Err(e) => Err(io("count threads")(e)),
    }
}
