//! The jobs on real directories. Against GNU tar where there is one; as root where owners,
//! devices and overlayfs's marks need it.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test's helpers fail as its own lines do"
)]

mod changes;
mod sparse;
mod trees;

use hullbox_archive::{Error, Job, Layers, Scene};
use hullbox_protocol::{Builtin, Failure, FailureKind};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{FileType, Mode, OFlags, XattrFlags};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

fn open(path: &Path) -> OwnedFd {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    rustix::fs::open(path, flags, Mode::empty()).unwrap()
}

fn attempt(root: &Path, builtin: &Builtin, input: &[u8]) -> Result<Vec<u8>, Failure> {
    let root = open(root);
    let job = Job::prepare(builtin, Scene::Root(root.as_fd()))?;
    let mut out = Vec::new();
    job.run(input, &mut out).map_err(|error| Failure {
        kind: FailureKind::Setup,
        message: format!("run: {error}"),
    })?;
    Ok(out)
}

fn run(root: &Path, builtin: &Builtin, input: &[u8]) -> Vec<u8> {
    attempt(root, builtin, input).unwrap()
}

fn out(path: &str) -> Builtin {
    Builtin::ArchiveOut {
        path: path.into(),
        follow: false,
    }
}

fn into(path: &str) -> Builtin {
    Builtin::ArchiveIn {
        path: path.into(),
        keep_owner: true,
    }
}

fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("skipped: not root");
    }
    root
}

/// What GNU tar makes of an archive: its listing, or what it says on standard error.
fn tar(arguments: &[&str], archive: &[u8], directory: &Path) -> String {
    let mut child = Command::new("tar")
        .args(arguments)
        .current_dir(directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(archive).unwrap();
    let output = child.wait_with_output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{error}");
    String::from_utf8_lossy(&output.stdout).into_owned() + &error
}

/// The directories of an overlayfs that changes are made of.
struct Overlay {
    dir: tempfile::TempDir,
    lower: PathBuf,
    upper: PathBuf,
}

impl Overlay {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let [lower, upper] = ["lower", "upper"].map(|name| dir.path().join(name));
        for path in [&lower, &upper] {
            std::fs::create_dir(path).unwrap();
        }
        Self { dir, lower, upper }
    }

    /// What contains both, for other files of a test.
    fn dir(&self) -> &Path {
        self.dir.path()
    }

    fn whiteout(&self, path: &str) {
        let (path, kind) = (self.upper.join(path), FileType::CharacterDevice);
        rustix::fs::mknodat(rustix::fs::CWD, path, kind, Mode::empty(), 0).unwrap();
    }

    /// Does a job that looks at the layers.
    fn attempt(&self, builtin: &Builtin) -> Result<Vec<u8>, Error> {
        let layers = Layers {
            upper: open(&self.upper),
            lower: open(&self.lower),
        };
        let mut out = Vec::new();
        let job = Job::prepare(builtin, Scene::Layers(&layers)).unwrap();
        job.run(&b""[..], &mut out).map(|()| out)
    }

    /// The lines of `diff`.
    fn changes(&self) -> Vec<String> {
        let text = String::from_utf8(self.attempt(&Builtin::Changes).unwrap()).unwrap();
        text.split_terminator('\0').map(str::to_owned).collect()
    }
}

/// Writes a file and makes the directories above it.
fn write(top: &Path, path: &str, text: &str) {
    let path = top.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

/// Sets an attribute, where that is possible.
fn set(path: &Path, attribute: &str, value: &str) -> bool {
    let done = rustix::fs::setxattr(path, attribute, value.as_bytes(), XattrFlags::empty());
    done.is_ok()
}
