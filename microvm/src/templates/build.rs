//! Making a template.

use super::error::TemplateError;
use super::files::{LockError, lock, place};
use super::key;
use super::template::origin;
use crate::shape::{ShapeError, template_config};
use hullbox_backend::bundle::GuestSize;
use hullbox_host::data_lock::DataLock;
use hullbox_vmm::{Outcome, SaveError, Snapshot, Vm, VmError};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::fd::BorrowedFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The hidden argument that makes the program a builder of templates.
pub const ENTRY: &str = "__template";

/// How long a guest may take to boot. Software emulation on a busy machine is slow.
const BOOT_LIMIT: Timespec = Timespec {
    tv_sec: 120,
    tv_nsec: 0,
};
/// The last argument of a builder that takes what is there for useless.
const REPLACE: &str = "replace";
/// How long nobody tries in the background what has failed.
const PATIENCE: Duration = Duration::from_secs(3600);
/// How long it may take to come to rest after that.
const REST_LIMIT: Duration = Duration::from_secs(1);

/// What stands beside a snapshot, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct About {
    pub(super) vcpus: u8,
    pub(super) memory_mib: u32,
    #[serde(default)]
    pub(super) disks: u8,
    pub(super) made_s: u64,
    pub(super) version: String,
}

/// What [`build`] found or made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Built {
    /// It was made.
    Made,
    /// It was there already.
    Present,
    /// Somebody else is making one.
    Busy,
}

/// Why a template could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// Its identity, or the secret.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// The lock.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// Its guest cannot be configured.
    #[error("cannot configure the template's guest")]
    Guest(#[source] ShapeError),
    /// Its guest cannot be started.
    #[error("cannot start the template's guest")]
    Start(#[source] VmError),
    /// Its guest ended.
    #[error("the template's guest {0}")]
    Ended(Outcome),
    /// Its guest did not come as far as to dial.
    #[error("the template's guest did not get ready in time")]
    Late,
    /// It could not be saved.
    #[error("cannot save the template's guest")]
    Save(#[source] SaveError),
    /// A file or directory.
    #[error("cannot use {}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

fn file_error(path: &Path) -> impl FnOnce(io::Error) -> BuildError {
    let path = path.to_owned();
    move |source| BuildError::File { path, source }
}

/// Boots a guest of this size and saves it when its agent is ready, unless that was done before.
/// `wait` for somebody else who is at it, or leave it to them.
///
/// # Errors
/// [`BuildError`]; nothing is left behind but what the next one cleans up.
pub fn build(size: GuestSize, data: &Path, wait: bool) -> Result<Built, BuildError> {
    build_or_replace(size, data, wait, false)
}

fn build_or_replace(
    size: GuestSize,
    data: &Path,
    wait: bool,
    replace: bool,
) -> Result<Built, BuildError> {
    let origin = origin(size, data)?;
    let dir = place(&origin, data);
    let Some(_lock) = lock(data, wait)? else {
        return Ok(Built::Busy);
    };
    let key = key::read_or_make(data)?;
    if !replace && Snapshot::open(&dir, &key, &origin, &[]).is_ok() {
        return Ok(Built::Present);
    }
    // What is there cannot be used, or is what a killed builder left.
    let staged = dir.with_extension("staging");
    for old in [&staged, &dir] {
        match fs::remove_dir_all(old) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(file_error(old)(error));
            }
            _ => {}
        }
    }
    DirBuilder::new()
        .mode(0o700)
        .create(&staged)
        .map_err(file_error(&staged))?;
    let made = make(size, data, &staged, |vm| {
        vm.save(&staged, &key, origin, &[])
    })
    .and_then(|()| put_in_place(&staged, &dir));
    if made.is_err() {
        // The first error is the one to tell.
        let _ = fs::remove_dir_all(&staged);
    }
    made.map(|()| Built::Made)
}

fn make(
    size: GuestSize,
    data: &Path,
    staged: &Path,
    save: impl FnOnce(&mut hullbox_vmm::RunningVm) -> Result<(), SaveError>,
) -> Result<(), BuildError> {
    let config = template_config(size, data).map_err(BuildError::Guest)?;
    let vm = Vm::new(config).map_err(BuildError::Start)?;
    let mut running = vm.start().map_err(BuildError::Start)?;
    await_dial(running.dialled(), running.ended())?;
    if let Some(outcome) = running.outcome() {
        return Err(BuildError::Ended(outcome));
    }
    running
        .pause_at_rest(REST_LIMIT)
        .map_err(BuildError::Save)?;
    save(&mut running).map_err(BuildError::Save)?;
    let path = staged.join("about.json");
    let about = About {
        vcpus: size.vcpus,
        memory_mib: size.memory_mib,
        disks: size.disks,
        made_s: SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |now| now.as_secs()),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let text = serde_json::to_vec(&about).unwrap_or_default();
    let mut file = File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)
        .map_err(file_error(&path))?;
    file.write_all(&text).map_err(file_error(&path))
}

/// Waits until the guest dials or ends.
fn await_dial(dialled: BorrowedFd<'_>, ended: BorrowedFd<'_>) -> Result<(), BuildError> {
    let mut fds = [
        PollFd::from_borrowed_fd(dialled, PollFlags::IN),
        PollFd::from_borrowed_fd(ended, PollFlags::IN),
    ];
    loop {
        match poll(&mut fds, Some(&BOOT_LIMIT)) {
            Err(Errno::INTR) => {}
            Ok(ready) if ready > 0 => return Ok(()),
            _ => return Err(BuildError::Late),
        }
    }
}

fn put_in_place(staged: &Path, dir: &Path) -> Result<(), BuildError> {
    let sync = |path: &Path| File::open(path).and_then(|file| file.sync_all());
    sync(staged).map_err(file_error(staged))?;
    fs::rename(staged, dir).map_err(file_error(dir))?;
    let parent = dir.parent().unwrap_or(dir);
    sync(parent).map_err(file_error(parent))
}

/// Has a process of its own make a template, which nobody waits for: where there is none, or one
/// that was found to be of no use.
///
/// # Errors
/// It cannot be started.
pub fn build_in_background(size: GuestSize, data: &Path, replace: bool) -> io::Result<()> {
    Command::new("/proc/self/exe")
        .arg0("hullbox")
        .arg(ENTRY)
        .arg(size.vcpus.to_string())
        .arg(size.memory_mib.to_string())
        .arg(size.disks.to_string())
        .arg(data)
        .arg(if replace { REPLACE } else { "" })
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .map(drop)
}

/// What the process of [`build_in_background`] does: `arguments` are those after [`ENTRY`].
pub fn main(arguments: &[std::ffi::OsString]) -> io::Result<()> {
    let invalid = || io::Error::from(io::ErrorKind::InvalidInput);
    let [vcpus, memory, disks, data, replace] = arguments else {
        return Err(invalid());
    };
    let number =
        |text: &std::ffi::OsString| text.to_str().and_then(|text| text.parse::<u32>().ok());
    let small = |text: &std::ffi::OsString| number(text).and_then(|count| u8::try_from(count).ok());
    let size = GuestSize {
        vcpus: small(vcpus).ok_or_else(invalid)?,
        memory_mib: number(memory).ok_or_else(invalid)?,
        disks: small(disks).ok_or_else(invalid)?,
    };
    let data = Path::new(data);
    // A helper machine may have come for the data directory meanwhile: then it is not ours.
    let Some(_direct) = DataLock::try_shared(data)? else {
        return Ok(());
    };
    // Whatever else runs comes first.
    let _ = rustix::process::setpriority_process(None, 19);
    let failed =
        place(&origin(size, data).map_err(io::Error::other)?, data).with_extension("failed");
    if is_recent(&failed) {
        return Ok(());
    }
    let replace = replace == REPLACE;
    let built = build_or_replace(size, data, false, replace);
    if replace || built.is_err() {
        // Without the mark the next run tries once more, perhaps in vain again.
        let _ = fs::write(&failed, "");
    }
    built.map(drop).map_err(io::Error::other)
}

/// Whether it was tried in vain a short while ago.
fn is_recent(failed: &Path) -> bool {
    let modified = fs::metadata(failed).and_then(|metadata| metadata.modified());
    modified.is_ok_and(|then| then.elapsed().is_ok_and(|age| age < PATIENCE))
}
