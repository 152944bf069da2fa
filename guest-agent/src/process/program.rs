//! Finding and becoming the program, with the words and exit codes that Docker has for it.

use super::identity::Identity;
use super::root::Root;
use crate::failure::{setup, words};
use crate::sys;
use hullbox_protocol::{Failure, FailureKind, ProcessSpec};
use rustix::fs::{Access, FileType};
use rustix::io::Errno;
use std::ffi::CString;
use std::os::fd::AsRawFd;

/// Where programs are looked up if the environment does not say.
const DEFAULT_PATH: &[u8] = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Everything `execve` takes, made while memory and errors are no concern yet.
pub(super) struct Program {
    argv: Vec<CString>,
    env: Vec<CString>,
    path: Vec<u8>,
}

impl Program {
    pub(super) fn new(spec: &ProcessSpec, identity: &Identity) -> Result<Self, Failure> {
        let nul = |_| setup("arguments and environment must not contain NUL bytes");
        let strings = |list: &[Vec<u8>]| -> Result<Vec<_>, _> {
            list.iter().map(|s| CString::new(s.as_slice())).collect()
        };
        let argv: Vec<CString> = strings(&spec.argv).map_err(nul)?;
        let mut env: Vec<CString> = strings(&spec.env).map_err(nul)?;
        if argv.first().is_none_or(|name| name.is_empty()) {
            return Err(setup("no command specified"));
        }
        let value = |name: &[u8]| {
            let entry = spec.env.iter().rev().find_map(|s| s.strip_prefix(name));
            entry
                .and_then(|rest| rest.strip_prefix(b"="))
                .map(<[u8]>::to_vec)
        };
        if value(b"HOME").is_none() && !identity.home.is_empty() {
            let home = [b"HOME=", identity.home.as_slice()].concat();
            env.push(CString::new(home).map_err(nul)?);
        }
        let path = value(b"PATH").unwrap_or_else(|| DEFAULT_PATH.to_vec());
        Ok(Self { argv, env, path })
    }
}

/// Becomes the program, or says why not.
pub(super) fn exec(program: &Program, spec: &ProcessSpec, root: &dyn Root) -> Failure {
    let name = spec.argv.first().map_or(&[][..], Vec::as_slice);
    let shown = String::from_utf8_lossy(name);
    if name.contains(&b'/') {
        return match try_exec(program, name, root) {
            Errno::NOENT | Errno::NOTDIR if !exists(name) => not_found(format_args!(
                "exec: \"{shown}\": stat {shown}: no such file or directory"
            )),
            errno => cannot_execute(name, errno),
        };
    }
    let mut refused = None;
    for directory in program.path.split(|&b| b == b':') {
        let directory = if directory.is_empty() {
            b"."
        } else {
            directory
        };
        let candidate = [directory, b"/", name].concat();
        match try_exec(program, &candidate, root) {
            Errno::NOENT | Errno::NOTDIR if !exists(&candidate) => {}
            // A directory or file of that name without execute permission is not meant.
            Errno::ACCESS if !is_executable_file(&candidate) => {}
            errno => {
                refused = Some((candidate, errno));
                break;
            }
        }
    }
    match refused {
        Some((candidate, errno)) => cannot_execute(&candidate, errno),
        None => not_found(format_args!(
            "exec: \"{shown}\": executable file not found in $PATH"
        )),
    }
}

fn try_exec(program: &Program, path: &[u8], root: &dyn Root) -> Errno {
    let execve = |path: Vec<u8>| match CString::new(path) {
        Ok(path) => sys::execve(&path, &program.argv, &program.env),
        Err(_) => Errno::NOENT,
    };
    match execve(path.to_vec()) {
        Errno::STALE => root.reopen(path).map_or(Errno::STALE, |file| {
            execve(format!("/proc/self/fd/{}", file.as_raw_fd()).into_bytes())
        }),
        errno => errno,
    }
}

fn cannot_execute(path: &[u8], errno: Errno) -> Failure {
    let shown = String::from_utf8_lossy(path);
    match errno {
        // The file is there, so it is its interpreter or its loader that is not.
        Errno::NOENT => not_found(format_args!("exec {shown}: no such file or directory")),
        Errno::NOEXEC => cannot(format_args!("exec {shown}: exec format error")),
        Errno::ACCESS if kind(path) == Some(FileType::Directory) => {
            cannot(format_args!("exec: \"{shown}\": is a directory"))
        }
        Errno::ACCESS => cannot(format_args!("exec: \"{shown}\": permission denied")),
        errno => cannot(format_args!("exec {shown}: {}", words(errno))),
    }
}

fn not_found(message: std::fmt::Arguments<'_>) -> Failure {
    Failure {
        kind: FailureKind::NotFound,
        message: message.to_string(),
    }
}

fn cannot(message: std::fmt::Arguments<'_>) -> Failure {
    Failure {
        kind: FailureKind::NotExecutable,
        message: message.to_string(),
    }
}

fn kind(path: &[u8]) -> Option<FileType> {
    let stat = rustix::fs::stat(path).ok()?;
    Some(FileType::from_raw_mode(stat.st_mode))
}

fn exists(path: &[u8]) -> bool {
    kind(path).is_some()
}

fn is_executable_file(path: &[u8]) -> bool {
    kind(path) == Some(FileType::RegularFile) && rustix::fs::access(path, Access::EXEC_OK).is_ok()
}
