//! The last mile: from a fresh process in the container's namespaces to the workload.
//!
//! libcontainer makes namespaces and mounts, enters the root and calls [`Executor::exec`] as
//! full root of those namespaces, because it was asked for no other user and no fewer
//! capabilities. Everything that turns this process into the workload happens here, in an order
//! in which each step still has the privileges that it needs: seccomp without
//! `no_new_privileges` before capabilities are gone, limits before they cannot be raised.

use super::error::NsError;
use super::mounts::Mounts;
use super::network::NetworkError;
use super::rootfs::RootfsError;
use super::workload::{Workload, default_limits};
use crate::sys::{self, Forked};
use hullbox_netif::NetifError;
use hullbox_protocol::{DeviceKind, DeviceNode, Failure, FailureKind};
use hullbox_session::status::encode_failure;
use libcontainer::oci_spec::runtime::Spec;
use libcontainer::workload::{
    Executor, ExecutorError, ExecutorSetEnvsError, ExecutorValidationError,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{Access, AtFlags, CWD, FileType, Mode, OFlags};
use rustix::io::{Errno, FdFlags};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal};
use rustix::thread::{CapabilitySet, CapabilitySets};
use std::collections::HashMap;
use std::ffi::CStr;
use std::io;
use std::path::Path;
use std::rc::Rc;

/// Exit code of a process that could not become the workload. The report has the [`Failure`].
const FAILED: i32 = 127;
/// The process id of the first child in a PID namespace, which the minimal init counts on.
const FIRST_CHILD: i32 = 2;

/// What the executor needs besides the workload.
#[derive(Debug)]
pub(super) struct Launch {
    /// What to become.
    pub(super) workload: Workload,
    /// The process whose end is that of the container.
    pub(super) parent: OwnedFd,
    /// Takes a [`Failure`]; closed by a successful `execve`.
    pub(super) report: OwnedFd,
    /// With `--init`: the program that is PID 1.
    pub(super) init: Option<Init>,
    /// Files of cgroups to join, by writing 0.
    pub(super) doors: Vec<OwnedFd>,
    /// Files from outside.
    pub(super) mounts: Mounts,
    /// Nodes to make outside of /dev.
    pub(super) devices: Vec<DeviceNode>,
    /// The network namespace is new, and its loopback interface down.
    pub(super) has_new_network: bool,
    /// Our own `oom_score_adj` is not zero, and must not be the workload's.
    pub(super) reset_oom_score: bool,
}

/// The minimal init.
#[derive(Debug)]
pub(super) struct Init {
    /// The program.
    pub(super) program: OwnedFd,
    /// Takes the workload's wait status.
    pub(super) status: OwnedFd,
}

/// Runs a [`Launch`] for libcontainer.
#[derive(Debug, Clone)]
pub(super) struct LastMile(pub(super) Rc<Launch>);

impl Executor for LastMile {
    fn exec(&self, _: &Spec) -> Result<(), ExecutorError> {
        let failure = match self.0.run() {
            Ok(never) => match never {},
            Err(failure) => failure,
        };
        // Whoever reads is still there, or nobody wants to know.
        let _ = rustix::io::write(&self.0.report, &encode_failure(&failure));
        std::process::exit(FAILED)
    }

    fn validate(&self, _: &Spec) -> Result<(), ExecutorValidationError> {
        // From here on libcontainer waits for the word to start, which a dead monitor will not
        // give.
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
            .map_err(|e| ExecutorValidationError::ArgValidationError(e.to_string()))?;
        // It may have died before the call, which its number does not tell from in here.
        if has_ended(&self.0.parent) {
            let gone = "the monitor is gone".to_owned();
            return Err(ExecutorValidationError::ArgValidationError(gone));
        }
        Ok(())
    }

    fn setup_envs(&self, _: HashMap<String, String>) -> Result<(), ExecutorSetEnvsError> {
        // `execve` is given the whole environment; ours is of no interest to anybody.
        Ok(())
    }
}

/// Whether a process has ended, reaped or not.
fn has_ended(process: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(process, PollFlags::IN)];
    let now = Timespec::default();
    !matches!(poll(&mut fds, Some(&now)), Ok(0))
}

/// Nothing: what a step that ends in `execve` returns when all goes well.
pub(super) enum Never {}

/// Turns an error into the failure of a step.
pub(super) fn step<E: std::fmt::Display>(what: &'static str) -> impl FnOnce(E) -> Failure {
    move |error| Failure {
        kind: FailureKind::Setup,
        message: format!("cannot {what}: {error}"),
    }
}

fn network(error: NetifError) -> Failure {
    NsError::from(NetworkError::Interface(error)).failure()
}

impl Launch {
    fn run(&self) -> Result<Never, Failure> {
        let workload = &self.workload;
        for door in &self.doors {
            rustix::io::write(door, b"0").map_err(step("join a cgroup"))?;
        }
        if self.has_new_network {
            hullbox_netif::loopback_up().map_err(network)?;
        }
        // The caller's keyring is not the container's. A kernel without keyrings has none.
        let _ = sys::join_new_session_keyring();
        if self.reset_oom_score {
            std::fs::write("/proc/self/oom_score_adj", "0").map_err(step("reset oom_score_adj"))?;
        }
        self.attach_mounts()?;
        self.close_descriptors()?;
        self.take_terminal()?;
        // The one of Docker's links in /dev that the runtime does not make.
        let _ = rustix::fs::symlink("/proc/kcore", "/dev/core");
        self.devices.iter().try_for_each(make_device)?;
        workload.confine(true)?;
        match &self.init {
            Some(init) => self.run_under(init),
            None => {
                sys::reset_signals(false).map_err(step("reset signals"))?;
                self.workload.exec(&self.report)
            }
        }
    }

    /// Mounts files from outside, over whatever the runtime has mounted.
    fn attach_mounts(&self) -> Result<(), Failure> {
        if self.mounts.is_empty() {
            return Ok(());
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open("/", flags, Mode::empty()).map_err(step("open the root"))?;
        let attached = self.mounts.attach(root.as_fd());
        attached.map_err(|error| NsError::from(RootfsError::from(error)).failure())
    }

    /// Closes what was open in the monitor, before any path of the image's is looked at: a
    /// working directory or a program of `/proc/self/fd/N` must not lead to the host.
    fn close_descriptors(&self) -> Result<(), Failure> {
        let mut keep = vec![self.report.as_fd()];
        if let Some(init) = &self.init {
            keep.extend([init.program.as_fd(), init.status.as_fd()]);
        }
        sys::close_all_but(&keep).map_err(step("close descriptors"))
    }

    /// Gives the terminal to the workload's user, as a login would.
    fn take_terminal(&self) -> Result<(), Failure> {
        if self.workload.terminal {
            let uid = rustix::fs::Uid::from_raw(self.workload.identity.uid);
            rustix::fs::fchown(rustix::stdio::stdin(), Some(uid), None)
                .map_err(step("give the terminal to the user"))?;
        }
        Ok(())
    }

    /// Forks the workload and becomes its init.
    fn run_under(&self, init: &Init) -> Result<Never, Failure> {
        sys::reset_signals(true).map_err(step("block signals"))?;
        let (gate, held) = pipe_with(PipeFlags::CLOEXEC).map_err(step("make a pipe"))?;
        match sys::fork_alone().map_err(step("fork the workload"))? {
            Forked::Child => {
                // Until PID 1 is the init, it is our own program, which the workload must not
                // see. Its `execve` closes the other end.
                drop(held);
                rustix::io::read(&gate, &mut [0u8; 1]).map_err(step("wait for the init"))?;
                self.lead_foreground();
                sys::reset_signals(false).map_err(step("reset signals"))?;
                self.workload.exec(&self.report)
            }
            Forked::Parent(child) => self.become_init(init, child),
        }
    }

    /// A process group of its own, in the foreground: what the terminal sends then reaches the
    /// workload once, and not a second time by way of init.
    fn lead_foreground(&self) {
        let me = rustix::process::getpid();
        let own_group = rustix::process::setpgid(None, None);
        if self.workload.terminal && own_group.is_ok() {
            let _ = rustix::termios::tcsetpgrp(rustix::stdio::stdin(), me);
        }
    }

    fn become_init(&self, init: &Init, child: Pid) -> Result<Never, Failure> {
        if child.as_raw_nonzero().get() != FIRST_CHILD {
            return Err(step("start the init")(format!(
                "its child is process {child:?}"
            )));
        }
        // The pipe is the only descriptor that init has. The workload's streams end with it.
        rustix::stdio::dup2_stdin(&init.status)
            .and_then(|()| rustix::stdio::dup2_stdout(&init.status))
            .and_then(|()| rustix::stdio::dup2_stderr(&init.status))
            .map_err(step("start the init"))?;
        let args = sys::ExecArgs::new(vec![c"hullbox-init".to_owned()], Vec::new());
        Err(step("start the init")(
            args.execve_file(init.program.as_fd()),
        ))
    }
}

fn make_device(device: &DeviceNode) -> Result<(), Failure> {
    let path = Path::new(&device.path);
    let failed = |error: io::Error| Failure {
        kind: FailureKind::Setup,
        message: format!("cannot make the device {}: {error}", device.path),
    };
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(failed)?;
    }
    let kind = match device.kind {
        DeviceKind::Char => FileType::CharacterDevice,
        DeviceKind::Block => FileType::BlockDevice,
    };
    let number = rustix::fs::makedev(device.major, device.minor);
    let mode = rustix::fs::Mode::from_raw_mode(device.mode & 0o7777);
    let flags = AtFlags::SYMLINK_NOFOLLOW;
    let owner = (
        Some(rustix::fs::Uid::from_raw(device.uid)),
        Some(rustix::fs::Gid::from_raw(device.gid)),
    );
    let made = match rustix::fs::mknodat(CWD, path, kind, mode, number) {
        // By an earlier start of the same container.
        Err(Errno::EXIST) if is_node(path, kind, number) => Ok(()),
        other => other,
    };
    // Whatever umask we run under.
    made.and_then(|()| rustix::fs::chmodat(CWD, path, mode, AtFlags::empty()))
        .and_then(|()| rustix::fs::chownat(CWD, path, owner.0, owner.1, flags))
        .map_err(|errno| failed(errno.into()))
}

fn is_node(path: &Path, kind: FileType, number: rustix::fs::Dev) -> bool {
    let stat = rustix::fs::statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW);
    stat.is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == kind && stat.st_rdev == number)
}

/// Sets a limit, or as much of it as the hard limit of a monitor without CAP_SYS_RESOURCE allows.
fn set_as_far_as_allowed(resource: rustix::process::Resource, wanted: rustix::process::Rlimit) {
    use rustix::process::{Rlimit, getrlimit, setrlimit};
    if setrlimit(resource, wanted).is_ok() {
        return;
    }
    let most = getrlimit(resource).maximum;
    let within = |value: Option<u64>| match (value, most) {
        (Some(value), Some(most)) => Some(value.min(most)),
        (value, most) => value.or(most),
    };
    // What is left is what the monitor has itself.
    let _ = setrlimit(
        resource,
        Rlimit {
            current: within(wanted.current),
            maximum: within(wanted.maximum),
        },
    );
}

/// What is the same for the workload and for who joins it later.
impl Workload {
    /// Limits, working directory, filter, user and capabilities: all that is left before
    /// `execve` and needs privileges.
    pub(super) fn confine(&self, make_directory: bool) -> Result<(), Failure> {
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(self.umask & 0o777));
        for (resource, limit) in default_limits() {
            set_as_far_as_allowed(resource, limit);
        }
        for (resource, limit) in &self.rlimits {
            rustix::process::setrlimit(*resource, *limit).map_err(step("set a resource limit"))?;
        }
        self.enter_working_directory(make_directory)?;
        if !self.no_new_privileges {
            self.install_filter()?;
        }
        self.drop_privileges().map_err(step("drop privileges"))?;
        // Again: changing the user has cleared it.
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
            .map_err(step("tie the container to its monitor"))?;
        if self.no_new_privileges {
            rustix::thread::set_no_new_privs(true).map_err(step("set no_new_privs"))?;
            self.install_filter()?;
        }
        Ok(())
    }

    fn install_filter(&self) -> Result<(), Failure> {
        match &self.filter {
            Some(filter) => {
                sys::install_seccomp_filter(filter).map_err(step("install the seccomp filter"))
            }
            None => Ok(()),
        }
    }

    fn enter_working_directory(&self, make: bool) -> Result<(), Failure> {
        let cwd = &self.cwd;
        let failed = |e: &dyn std::fmt::Display| Failure {
            kind: FailureKind::Setup,
            message: format!("cannot enter the working directory {}: {e}", cwd.display()),
        };
        match std::env::set_current_dir(cwd) {
            // Below a mount of the container, where it could not be made from outside.
            Err(e) if e.kind() == io::ErrorKind::NotFound && make => {
                std::fs::create_dir_all(cwd).map_err(|e| failed(&e))?;
                std::env::set_current_dir(cwd).map_err(|e| failed(&e))?;
            }
            // As Docker says it of `exec`.
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Err(Failure {
                    kind: FailureKind::NotFound,
                    message: format!(
                        "working directory \"{}\": no such file or directory",
                        cwd.display()
                    ),
                });
            }
            other => other.map_err(|e| failed(&e))?,
        }
        // The kernel says "(unreachable)" of a directory that is not below our root.
        let here = rustix::process::getcwd(Vec::new()).map_err(|e| failed(&e))?;
        if !here.as_bytes().starts_with(b"/") {
            return Err(failed(&"it is outside the container"));
        }
        Ok(())
    }

    fn drop_privileges(&self) -> Result<(), Errno> {
        let Workload {
            identity,
            capabilities,
            ..
        } = self;
        for number in 0..64 {
            if capabilities >> number & 1 == 1 {
                continue;
            }
            let capability = CapabilitySet::from_bits_retain(1 << number);
            match rustix::thread::remove_capability_from_bounding_set(capability) {
                Ok(()) => {}
                // This kernel has no capability of that number, nor of higher ones.
                Err(Errno::INVAL) => break,
                Err(e) => return Err(e),
            }
        }
        let groups: Vec<_> = identity
            .groups
            .iter()
            .map(|&gid| rustix::fs::Gid::from_raw(gid))
            .collect();
        rustix::thread::set_thread_groups(&groups)?;
        let gid = rustix::fs::Gid::from_raw(identity.gid);
        rustix::thread::set_thread_res_gid(gid, gid, gid)?;
        let uid = rustix::fs::Uid::from_raw(identity.uid);
        // From root to somebody else, this clears the permitted and effective sets.
        rustix::thread::set_thread_res_uid(uid, uid, uid)?;
        rustix::thread::clear_ambient_capability_set()?;
        let mine = rustix::thread::capabilities(None)?.permitted.bits() & capabilities;
        let mine = CapabilitySet::from_bits_retain(mine);
        // Nothing is inheritable, as with Docker since CVE-2022-24769.
        rustix::thread::set_capabilities(
            None,
            CapabilitySets {
                effective: mine,
                permitted: mine,
                inheritable: CapabilitySet::empty(),
            },
        )
    }

    /// Becomes the program.
    pub(super) fn exec(&self, report: impl AsFd) -> Result<Never, Failure> {
        // It is the only one that is still open, and must not stay so.
        rustix::io::fcntl_setfd(report, FdFlags::CLOEXEC).map_err(step("close the report"))?;
        for candidate in &self.candidates {
            let error = self.args.execve(candidate);
            match error.raw_os_error() {
                Some(libc::ENOENT | libc::ENOTDIR) if !exists(candidate) => {}
                // A directory or a file of that name without execute permission is not meant.
                Some(libc::EACCES) if self.by_name && !is_executable(candidate) => {}
                _ => return Err(refusal(candidate, &error)),
            }
        }
        Err(self.not_found())
    }

    fn not_found(&self) -> Failure {
        let program = &self.program;
        let why = match self.by_name {
            true => "executable file not found in $PATH".to_owned(),
            false => format!("stat {program}: no such file or directory"),
        };
        Failure {
            kind: FailureKind::NotFound,
            message: format!("exec: \"{program}\": {why}"),
        }
    }
}

/// What to say of a program that is there and cannot be executed.
fn refusal(path: &CStr, error: &io::Error) -> Failure {
    let shown = path.to_string_lossy();
    let (kind, message) = match error.raw_os_error() {
        // The file is there, so it is its interpreter or its loader that is not.
        Some(libc::ENOENT) => (
            FailureKind::NotFound,
            format!("exec {shown}: no such file or directory"),
        ),
        Some(libc::EACCES) if file_type(path) == Some(FileType::Directory) => (
            FailureKind::NotExecutable,
            format!("exec: \"{shown}\": is a directory"),
        ),
        Some(libc::EACCES) => (
            FailureKind::NotExecutable,
            format!("exec: \"{shown}\": permission denied"),
        ),
        Some(libc::ENOEXEC) => (
            FailureKind::NotExecutable,
            format!("exec {shown}: exec format error"),
        ),
        _ => (FailureKind::NotExecutable, format!("exec {shown}: {error}")),
    };
    Failure { kind, message }
}

fn file_type(path: &CStr) -> Option<FileType> {
    let stat = rustix::fs::stat(path).ok()?;
    Some(FileType::from_raw_mode(stat.st_mode))
}

fn is_executable(path: &CStr) -> bool {
    file_type(path) == Some(FileType::RegularFile)
        && rustix::fs::access(path, Access::EXEC_OK).is_ok()
}

/// Whether a program is there, though `execve` says that something is not.
fn exists(path: &CStr) -> bool {
    rustix::fs::access(path, Access::EXISTS).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use hullbox_session::status::decode_failure;

    #[test]
    fn failures_pass_through_the_pipe() {
        for kind in [
            FailureKind::NotFound,
            FailureKind::NotExecutable,
            FailureKind::Setup,
        ] {
            let failure = Failure {
                kind,
                message: "why".into(),
            };
            assert_eq!(decode_failure(&encode_failure(&failure)), Some(failure));
        }
        assert_eq!(decode_failure(b""), None);
    }

    #[test]
    fn a_parent_that_ended_is_noticed() {
        let handle = |pid| rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty());
        assert!(!has_ended(&handle(rustix::process::getpid()).unwrap()));
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let ended = handle(Pid::from_child(&child)).unwrap();
        child.wait().unwrap();
        assert!(has_ended(&ended));
    }
}
