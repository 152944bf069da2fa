//! Running a program in the machine as if it ran here.

use crate::config::POLICY_VARIABLE;
use crate::error::{ForwardError, MachineError};
use crate::machine::Machine;
use crate::start::StartOptions;
use hullbox_protocol::{ExitStatus, Frame, PipedStreams, ProcessSpec, Rlimit, UserSpec};
use hullbox_session::client::{AttachOptions, Outcome, attach, terminal_size};
use rustix::process::{Resource, getegid, geteuid, getgroups, getrlimit};
use rustix::termios::isatty;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// Whether a program gets a terminal of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Terminal {
    /// No: its streams are pipes.
    No,
    /// When standard input is one here.
    FromStdin,
    /// When standard input and output are both one here. With output going elsewhere, the
    /// terminal belongs to whoever reads that, a pager for one, and must stay as it is.
    Interactive,
}

/// A program to run in the machine.
#[derive(Debug, Clone)]
pub struct Session {
    /// Program and arguments; the program is looked up in the environment's PATH.
    pub argv: Vec<OsString>,
    /// The whole environment.
    pub env: Vec<(OsString, OsString)>,
    /// Pass standard input on. Without it not a byte of it is read.
    pub stdin: bool,
    /// Whether it gets a terminal.
    pub terminal: Terminal,
}

/// Resource limits that a program inherits from its caller here, and so must there.
const LIMITS: [(Resource, u32); 4] = [
    (Resource::Fsize, libc::RLIMIT_FSIZE),
    (Resource::Stack, libc::RLIMIT_STACK),
    (Resource::Core, libc::RLIMIT_CORE),
    (Resource::Nofile, libc::RLIMIT_NOFILE),
];

impl Machine {
    /// Runs a program in the machine, which is started if need be, with our standard streams,
    /// working directory, user, limits and signals. Returns how it ended.
    ///
    /// # Errors
    /// [`MachineError`]; for one that is [`MachineError::Forward`], the exit code is
    /// [`ForwardError::exit_code`].
    pub fn exec(
        &self,
        session: &Session,
        options: &StartOptions,
        progress: &dyn Fn(&str),
    ) -> Result<ExitStatus, MachineError> {
        let (spec, tty) = process_spec(session)?;
        let stream = self.open_session(options, progress)?;
        Ok(run(stream.into(), spec, session.stdin, tty)?)
    }

    /// Runs this same program in the machine, with these arguments after its name.
    ///
    /// `stdin` says whether the command reads standard input at all, `terminal` whether it wants
    /// one (`-t`).
    ///
    /// # Errors
    /// As [`Machine::exec`].
    pub fn forward_self(
        &self,
        args: &[OsString],
        (stdin, terminal): (bool, bool),
        options: &StartOptions,
        progress: &dyn Fn(&str),
    ) -> Result<ExitStatus, MachineError> {
        let own = std::env::current_exe().map_err(ForwardError::OwnProgram)?;
        let mut argv = vec![own.into_os_string()];
        argv.extend(args.iter().cloned());
        let session = Session {
            argv,
            env: self.environment(),
            stdin,
            terminal: if terminal {
                Terminal::FromStdin
            } else {
                Terminal::No
            },
        };
        self.exec(&session, options, progress)
    }

    /// Our environment, as a program in the machine should have it: the same directories, and no
    /// thought of a machine in the machine.
    #[must_use]
    pub fn environment(&self) -> Vec<(OsString, OsString)> {
        let runtime = self.files.dir.parent().unwrap_or(&self.files.dir);
        let ours: [(&str, OsString); 3] = [
            (POLICY_VARIABLE, "never".into()),
            ("HULLBOX_ROOT", self.data.clone().into()),
            ("HULLBOX_RUNTIME", runtime.into()),
        ];
        std::env::vars_os()
            .filter(|(name, _)| ours.iter().all(|(own, _)| name != own))
            .chain(
                ours.iter()
                    .map(|(name, value)| (OsString::from(name), value.clone())),
            )
            .collect()
    }
}

fn process_spec(session: &Session) -> Result<(ProcessSpec, bool), ForwardError> {
    let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
    let in_terminal = session.stdin && isatty(stdin.as_fd());
    let out_terminal = isatty(stdout.as_fd());
    let tty = match session.terminal {
        Terminal::No => false,
        Terminal::FromStdin => in_terminal,
        Terminal::Interactive => in_terminal && out_terminal,
    };
    let cwd = std::env::current_dir().map_err(ForwardError::WorkingDirectory)?;
    let cwd = cwd
        .into_os_string()
        .into_string()
        .map_err(|path| ForwardError::NotUtf8(path.into()))?;
    let limits = LIMITS.iter().map(|&(resource, number)| {
        let limit = getrlimit(resource);
        Rlimit {
            resource: number,
            soft: limit.current.unwrap_or(u64::MAX),
            hard: limit.maximum.unwrap_or(u64::MAX),
        }
    });
    let spec = ProcessSpec {
        argv: session
            .argv
            .iter()
            .map(|arg| arg.as_bytes().to_vec())
            .collect(),
        env: session
            .env
            .iter()
            .map(|(name, value)| assignment(name, value))
            .collect(),
        cwd,
        user: user(),
        rlimits: limits.collect(),
        umask: Some(current_umask()),
        terminal: tty.then(|| terminal_size(stdin.as_fd()).unwrap_or_default()),
        pipes: PipedStreams {
            stdin: false,
            stdout: tty && !out_terminal,
            stderr: tty && !isatty(stderr.as_fd()),
        },
        stdin: session.stdin,
        ..ProcessSpec::default()
    };
    Ok((spec, tty))
}

/// Whom the program runs as. An ordinary user is root in a machine of their own, to which the host
/// shows no more than the user sees (`share`).
fn user() -> UserSpec {
    if !geteuid().is_root() {
        return UserSpec::Ids {
            uid: 0,
            gid: 0,
            groups: Vec::new(),
        };
    }
    UserSpec::Ids {
        uid: 0,
        gid: getegid().as_raw(),
        groups: getgroups()
            .map(|groups| groups.iter().map(|group| group.as_raw()).collect())
            .unwrap_or_default(),
    }
}

fn assignment(name: &OsStr, value: &OsStr) -> Vec<u8> {
    let mut bytes = name.to_owned().into_vec();
    bytes.push(b'=');
    bytes.extend_from_slice(value.as_bytes());
    bytes
}

/// The mask can only be read by setting it, which other threads would notice, or from /proc.
fn current_umask() -> u32 {
    std::fs::read_to_string("/proc/self/status")
        .ok()
        .and_then(|text| {
            let line = text.lines().find_map(|line| line.strip_prefix("Umask:"))?;
            u32::from_str_radix(line.trim(), 8).ok()
        })
        .unwrap_or(0o022)
}

fn run(
    connection: OwnedFd,
    spec: ProcessSpec,
    stdin: bool,
    tty: bool,
) -> Result<ExitStatus, ForwardError> {
    let options = AttachOptions {
        stdin,
        tty,
        sig_proxy: true,
        ..AttachOptions::default()
    };
    let exec = Frame::Exec {
        session: 0,
        spec: Box::new(spec),
    };
    match attach(connection, &[exec], options, &mut |_| {})? {
        Outcome::Exited(status) => Ok(status),
        Outcome::Failed(failure) => Err(ForwardError::Failed(failure)),
        Outcome::Disconnected => Err(ForwardError::Disconnected),
        // Nobody was given keys to leave with, nor leaves for want of a reader.
        Outcome::Detached | Outcome::Unread => Ok(ExitStatus::Code(0)),
        // This process's signal, and no end of the program's own.
        Outcome::Interrupted(signal) => {
            let code = u8::try_from(signal).map_or(u8::MAX, |signal| signal.saturating_add(128));
            Ok(ExitStatus::Code(code))
        }
    }
}
