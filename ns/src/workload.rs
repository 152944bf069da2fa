//! The workload, worked out before anything is forked: whom it runs as, what exactly it is
//! given, where its program may be.

use super::inroot::{Kind, Root};
use crate::sys::ExecArgs;
use hullbox_protocol::{ProcessSpec, Rlimit, Setup, UserSpec};
use hullbox_security::seccomp::{self, Filter};
use hullbox_session::user::{self, Identity, UserError};
use rustix::io::Errno;
use std::ffi::CString;
use std::path::{Path, PathBuf};

/// Largest passwd or group file that is looked at, in bytes.
const MAX_USER_FILE: usize = 4 * 1024 * 1024;
/// Where programs are looked for when the environment has no PATH, as with Docker.
const DEFAULT_PATH: &[u8] = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Mounts of ours, in whose places a working directory cannot be made beforehand.
const COVERED: [&str; 3] = ["/proc", "/sys", "/dev"];

/// Why the workload cannot be prepared.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WorkloadError {
    /// There is nothing to run.
    #[error("no command specified")]
    NoCommand,
    /// A string that cannot be passed to a program.
    #[error("a NUL byte in {0}")]
    Nul(&'static str),
    /// The user is not known.
    #[error(transparent)]
    User(#[from] UserError),
    /// A file that says who is who cannot be read.
    #[error("cannot read the image's {path}")]
    UserFile {
        /// Its path.
        path: &'static str,
        /// Why not.
        #[source]
        source: Errno,
    },
    /// The working directory is not one.
    #[error("cannot use {path} as the working directory")]
    WorkingDirectory {
        /// Its path.
        path: String,
        /// Why not.
        #[source]
        source: Errno,
    },
    /// A resource limit that Linux does not have.
    #[error("unknown resource limit {0}")]
    UnknownLimit(u32),
    /// A working directory must be absolute.
    #[error("the working directory {0} is not absolute")]
    RelativeDirectory(String),
}

/// See the module.
#[derive(Debug)]
pub(super) struct Workload {
    /// Arguments and environment.
    pub(super) args: ExecArgs,
    /// Where the program may be, in order; one that is not a name in PATH is the only one.
    pub(super) candidates: Vec<CString>,
    /// The program as the user named it, for messages.
    pub(super) program: String,
    /// Whether it was a name to be looked up in PATH.
    pub(super) by_name: bool,
    /// Absolute working directory.
    pub(super) cwd: PathBuf,
    /// Whom it runs as.
    pub(super) identity: Identity,
    /// File mode creation mask.
    pub(super) umask: u32,
    /// Resource limits.
    pub(super) rlimits: Vec<(rustix::process::Resource, rustix::process::Rlimit)>,
    /// Capabilities that it may ever have, and that root has.
    pub(super) capabilities: u64,
    /// Whether `execve` may raise privileges.
    pub(super) no_new_privileges: bool,
    /// What it may ask of the kernel; `None` is everything.
    pub(super) filter: Option<Filter>,
    /// Whether its standard streams are a terminal.
    pub(super) terminal: bool,
}

impl Workload {
    /// Works out a process of the container whose root this is.
    pub(super) fn prepare(
        root: Root<'_>,
        setup: &Setup,
        spec: &ProcessSpec,
    ) -> Result<Self, WorkloadError> {
        let cwd = working_directory(root, setup, &spec.cwd)?;
        Self::with_directory(root, setup, spec, cwd)
    }

    /// Works out a process that joins the container whose root this is. Nothing is made for it.
    pub(super) fn join(
        root: Root<'_>,
        setup: &Setup,
        spec: &ProcessSpec,
    ) -> Result<Self, WorkloadError> {
        let cwd = absolute(&spec.cwd)?;
        Self::with_directory(root, setup, spec, cwd)
    }

    fn with_directory(
        root: Root<'_>,
        setup: &Setup,
        spec: &ProcessSpec,
        cwd: PathBuf,
    ) -> Result<Self, WorkloadError> {
        let identity = identity(root, &spec.user)?;
        let first = spec.argv.first().filter(|first| !first.is_empty());
        let first = first.ok_or(WorkloadError::NoCommand)?;
        let env = environment(spec, &identity);
        let by_name = !first.contains(&b'/');
        let capabilities = match (spec.capabilities, spec.privileged) {
            (Some(mask), false) => mask,
            _ => u64::MAX,
        };
        let filter = Some(&setup.access.filter).filter(|filter| !filter.is_empty());
        let filter = filter.filter(|_| !spec.privileged);
        Ok(Self {
            candidates: candidates(first, &env)?,
            program: String::from_utf8_lossy(first).into_owned(),
            by_name,
            args: ExecArgs::new(
                strings(&spec.argv, "the command")?,
                strings(&env, "the environment")?,
            ),
            cwd,
            identity,
            umask: spec.umask.unwrap_or(0o022),
            rlimits: spec.rlimits.iter().map(limit).collect::<Result<_, _>>()?,
            capabilities,
            no_new_privileges: spec.no_new_privileges,
            filter: filter.map(|bytes| seccomp::from_bytes(bytes)),
            terminal: spec.terminal.is_some(),
        })
    }
}

fn strings(list: &[Vec<u8>], what: &'static str) -> Result<Vec<CString>, WorkloadError> {
    let string = |bytes: &Vec<u8>| CString::new(bytes.as_slice());
    let strings: Result<_, _> = list.iter().map(string).collect();
    strings.map_err(|_| WorkloadError::Nul(what))
}

/// Resolves the user in the image's own files, absent ones being empty.
fn identity(root: Root<'_>, user: &UserSpec) -> Result<Identity, WorkloadError> {
    let read = |path: &'static str| match root.read(Path::new(path), MAX_USER_FILE) {
        Ok(text) => Ok(text),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(Vec::new()),
        Err(source) => Err(WorkloadError::UserFile { path, source }),
    };
    let passwd = read("/etc/passwd")?;
    match user {
        UserSpec::Named {
            user,
            additional_groups,
        } => {
            let group = read("/etc/group")?;
            Ok(user::resolve(user, additional_groups, &passwd, &group)?)
        }
        UserSpec::Ids { uid, gid, groups } => {
            let known = user::resolve(&uid.to_string(), &[], &passwd, b"");
            Ok(Identity {
                uid: *uid,
                gid: *gid,
                groups: groups.clone(),
                home: known.map_or_else(|_| b"/".to_vec(), |identity| identity.home),
            })
        }
    }
}

/// The environment, with a HOME if it has none.
fn environment(spec: &ProcessSpec, identity: &Identity) -> Vec<Vec<u8>> {
    let mut env = spec.env.clone();
    if !env.iter().any(|entry| entry.starts_with(b"HOME=")) {
        env.push([b"HOME=".as_slice(), &identity.home].concat());
    }
    env
}

fn candidates(program: &[u8], env: &[Vec<u8>]) -> Result<Vec<CString>, WorkloadError> {
    let command = |path: Vec<u8>| CString::new(path).map_err(|_| WorkloadError::Nul("PATH"));
    if program.contains(&b'/') {
        return Ok(vec![command(program.to_vec())?]);
    }
    let path = env
        .iter()
        .rev()
        .find_map(|entry| entry.strip_prefix(b"PATH="));
    path.unwrap_or(DEFAULT_PATH)
        .split(|&byte| byte == b':')
        .map(|dir| if dir.is_empty() { b"." } else { dir })
        .map(|dir| command([dir, b"/", program].concat()))
        .collect()
}

/// The working directory, made if it is missing and can be made from here.
fn working_directory(root: Root<'_>, setup: &Setup, cwd: &str) -> Result<PathBuf, WorkloadError> {
    let path = absolute(cwd)?;
    let covered = COVERED
        .into_iter()
        .chain(setup.tmpfs.iter().map(|mount| mount.path.as_str()));
    if covered.into_iter().any(|mount| path.starts_with(mount)) {
        return Ok(path);
    }
    root.ensure(&path, Kind::Directory)
        .and_then(|found| {
            let mode = rustix::fs::fstat(&found)?.st_mode;
            match rustix::fs::FileType::from_raw_mode(mode) {
                rustix::fs::FileType::Directory => Ok(path),
                _ => Err(Errno::NOTDIR),
            }
        })
        .map_err(|source| WorkloadError::WorkingDirectory {
            path: cwd.to_owned(),
            source,
        })
}

fn absolute(cwd: &str) -> Result<PathBuf, WorkloadError> {
    let path = PathBuf::from(if cwd.is_empty() { "/" } else { cwd });
    match path.is_absolute() {
        true => Ok(path),
        false => Err(WorkloadError::RelativeDirectory(cwd.to_owned())),
    }
}

/// Limits that every process starts with unless `--ulimit` says otherwise, whatever the caller's
/// shell has: those of a Docker daemon under systemd, and the guest agent's in a VM. Only
/// `sigpending`, which kernels derive from their memory, is as it is.
pub(super) fn default_limits() -> [(rustix::process::Resource, rustix::process::Rlimit); 15] {
    use rustix::process::{Resource, Rlimit};
    let limit = |current, maximum| Rlimit { current, maximum };
    let all = limit(None, None);
    let none = limit(Some(0), Some(0));
    let same = |value| limit(Some(value), Some(value));
    [
        (Resource::Cpu, all),
        (Resource::Fsize, all),
        (Resource::Data, all),
        (Resource::Stack, limit(Some(8 << 20), None)),
        (Resource::Core, all),
        (Resource::Rss, all),
        (Resource::Nproc, all),
        (Resource::Nofile, limit(Some(1024), Some(524_288))),
        (Resource::Memlock, same(8 << 20)),
        (Resource::As, all),
        (Resource::Locks, all),
        (Resource::Msgqueue, same(819_200)),
        (Resource::Nice, none),
        (Resource::Rtprio, none),
        (Resource::Rttime, all),
    ]
}

fn limit(
    wanted: &Rlimit,
) -> Result<(rustix::process::Resource, rustix::process::Rlimit), WorkloadError> {
    use rustix::process::Resource;
    // In the order of `asm-generic/resource.h`.
    const RESOURCES: [Resource; 16] = [
        Resource::Cpu,
        Resource::Fsize,
        Resource::Data,
        Resource::Stack,
        Resource::Core,
        Resource::Rss,
        Resource::Nproc,
        Resource::Nofile,
        Resource::Memlock,
        Resource::As,
        Resource::Locks,
        Resource::Sigpending,
        Resource::Msgqueue,
        Resource::Nice,
        Resource::Rtprio,
        Resource::Rttime,
    ];
    let resource = usize::try_from(wanted.resource)
        .ok()
        .and_then(|number| RESOURCES.get(number))
        .ok_or(WorkloadError::UnknownLimit(wanted.resource))?;
    let finite = |value: u64| (value != u64::MAX).then_some(value);
    let limit = rustix::process::Rlimit {
        current: finite(wanted.soft),
        maximum: finite(wanted.hard),
    };
    Ok((*resource, limit))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(program: &[u8], env: &[&[u8]]) -> Vec<String> {
        let env: Vec<_> = env.iter().map(|e| e.to_vec()).collect();
        let list = candidates(program, &env).unwrap();
        list.into_iter().map(|c| c.into_string().unwrap()).collect()
    }

    #[test]
    fn programs_are_looked_for_in_the_given_path() {
        assert_eq!(found(b"sh", &[b"PATH=/a:/b"]), ["/a/sh", "/b/sh"]);
        assert_eq!(
            found(b"sh", &[b"PATH=/a::/b:"]),
            ["/a/sh", "./sh", "/b/sh", "./sh"]
        );
        assert_eq!(found(b"./sh", &[b"PATH=/a"]), ["./sh"]);
        assert_eq!(found(b"sh", &[]).len(), 6);
    }

    #[test]
    fn limits_are_known_by_number() {
        let limit_of = |resource| {
            limit(&Rlimit {
                resource,
                soft: 5,
                hard: u64::MAX,
            })
        };
        let (resource, value) = limit_of(7).unwrap();
        assert_eq!(resource, rustix::process::Resource::Nofile);
        assert_eq!((value.current, value.maximum), (Some(5), None));
        assert!(limit_of(16).is_err());
    }
}
