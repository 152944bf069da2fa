//! Files from outside: what the host serves, and block volumes.
//!
//! ```text
//!  agent's namespace                      workload's
//!  /m/f   virtiofs: 0, 1, …  ── tree ──►  a clone of each source, at its target
//!  /m/0…  ext4 of block volumes
//! ```
//!
//! The agent mounts them and brings them to rest at the end. Into the container's namespace go clones of
//! what is to be seen there, and nothing above that.

use super::rootfs::await_disk;
use crate::failure::{failed, setup as setup_failure};
use crate::sys::{self, Forked, Namespaces};
use hullbox_protocol::{AnyMount, FILES_TAG, Failure, FileMount, FileSource, Setup, TmpfsMount};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::{
    MountFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount, mount_remount, move_mount,
    open_tree, unmount,
};
use rustix::process::{PidfdFlags, Signal, WaitOptions};
use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Where everything is mounted that the container's mounts are clones of.
const STAGE: &str = "/m";
/// The file server's exports.
const SERVED: &str = "/m/f";
/// The first block volume's letter: behind the layers' disk and the writable layer's.
const FIRST_DISK: u8 = b'c';
/// No more than the VMM has disks for.
const MAX_DISKS: u32 = 16;
/// How long what a server was not told yet may take to reach it.
const SYNC_LIMIT: Timespec = Timespec {
    tv_sec: 20,
    tv_nsec: 0,
};
/// `f_type` of /proc (`linux/magic.h`).
const PROC: u64 = 0x9fa0;

fn directory(path: &str) -> Result<(), Failure> {
    match rustix::fs::mkdir(path, Mode::from_raw_mode(0o700)) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(failed(format_args!("cannot make {path}"))(errno)),
    }
}

fn volume_path(number: u32) -> String {
    format!("{STAGE}/{number}")
}

/// What of it is the volume: the image is made as a writable layer's is, with something beside this.
fn volume_root(number: u32) -> String {
    format!("{STAGE}/{number}/upper")
}

/// What is mounted in the agent's own namespace.
#[derive(Debug)]
pub(super) struct Sources {
    /// The root of the file server's tree.
    served: Option<OwnedFd>,
    /// Those of block volumes, by number.
    volumes: BTreeMap<u32, OwnedFd>,
}

impl Sources {
    /// Mounts what the container's mounts are made of; nothing if it has none.
    pub(super) fn mount(setup: &Setup) -> Result<Option<Self>, Failure> {
        if setup.mounts.is_empty() {
            return Ok(None);
        }
        directory(STAGE)?;
        let mut sources = Self {
            served: None,
            volumes: BTreeMap::new(),
        };
        for one in &setup.mounts {
            match one.source {
                FileSource::Export(_) if sources.served.is_none() => {
                    sources.served = Some(mount_served()?);
                }
                FileSource::Disk(number) if !sources.volumes.contains_key(&number) => {
                    let same = |other: &&FileMount| other.source == FileSource::Disk(number);
                    let mut all = setup.mounts.iter().filter(same);
                    let read_only = all.all(|mount| mount.read_only);
                    let volume = mount_volume(number, read_only)?;
                    sources.volumes.insert(number, volume);
                }
                FileSource::Export(_) | FileSource::Disk(_) => {}
            }
        }
        Ok(Some(sources))
    }

    /// All of it, for another mount namespace.
    pub(super) fn tree() -> Result<OwnedFd, Failure> {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_RECURSIVE;
        open_tree(CWD, STAGE, flags).map_err(failed("cannot pass on the container's files"))
    }

    /// Has everything that was written be where it lasts: with the file server, and on the disks. The
    /// first error, if there is one.
    pub(super) fn settle(&self) -> Result<(), Errno> {
        let mut settled = Ok(());
        if let Some(served) = &self.served {
            // To unmount it would take an answer once more, and does nothing that lasts.
            settled = sync_in_time(served.as_fd());
        }
        for (number, root) in &self.volumes {
            let path = volume_path(*number);
            // Where something is still open for writing, at least all data is safe.
            let clean = mount_remount(path.as_str(), MountFlags::RDONLY, c"")
                .or_else(|_| rustix::fs::syncfs(root));
            settled = settled.and(clean);
            let _ = unmount(path.as_str(), UnmountFlags::DETACH);
        }
        settled
    }
}

fn mount_served() -> Result<OwnedFd, Failure> {
    let what = || failed("cannot mount the container's files");
    directory(SERVED)?;
    // A node there is one of another machine's device.
    mount(FILES_TAG, SERVED, "virtiofs", MountFlags::NODEV, None).map_err(what())?;
    open_directory(SERVED).map_err(what())
}

fn mount_volume(number: u32, read_only: bool) -> Result<OwnedFd, Failure> {
    let what = || failed(format!("cannot mount volume {number}"));
    let letter = u8::try_from(number).ok().filter(|_| number < MAX_DISKS);
    let letter = letter.ok_or_else(|| setup_failure("there is no such volume"))? + FIRST_DISK;
    let device = format!("/dev/vd{}", char::from(letter));
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let disk = rustix::fs::open(device.as_str(), flags, Mode::empty()).map_err(what())?;
    await_disk(disk.as_fd()).map_err(what())?;
    let path = volume_path(number);
    directory(&path)?;
    let with = |flags, options| mount(device.as_str(), path.as_str(), "ext4", flags, options);
    let mounted = match read_only {
        false => with(MountFlags::empty(), c"noinit_itable"),
        // A journal that nobody has replayed cannot be on a disk that nobody writes to.
        true => with(MountFlags::RDONLY, c"").or_else(|_| with(MountFlags::RDONLY, c"noload")),
    };
    mounted.map_err(what())?;
    match rustix::fs::mkdir(volume_root(number), Mode::from_raw_mode(0o755)) {
        // Where it is missing there is nothing to read either.
        Ok(()) | Err(Errno::EXIST | Errno::ROFS) => {}
        Err(errno) => return Err(what()(errno)),
    }
    open_directory(&path).map_err(what())
}

fn open_directory(path: &str) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty())
}

/// Syncs a file system whose server may never answer.
fn sync_in_time(root: BorrowedFd<'_>) -> Result<(), Errno> {
    let child = match sys::fork(Namespaces::Inherit, None)? {
        Forked::Parent(pid) => pid,
        Forked::Child => {
            let code = rustix::fs::syncfs(root).map_or_else(|errno| errno.raw_os_error(), |()| 0);
            sys::exit_now(code & 0xff)
        }
    };
    let ended = rustix::process::pidfd_open(child, PidfdFlags::empty())?;
    loop {
        match poll(&mut [PollFd::new(&ended, PollFlags::IN)], Some(&SYNC_LIMIT)) {
            Err(Errno::INTR) => {}
            Ok(ready) if ready > 0 => break,
            _ => {
                let _ = rustix::process::kill_process(child, Signal::KILL);
                return Err(Errno::TIMEDOUT);
            }
        }
    }
    let status = rustix::process::waitpid(Some(child), WaitOptions::empty())?;
    match status.and_then(|(_, status)| status.exit_status()) {
        Some(0) => Ok(()),
        Some(code) => Err(Errno::from_raw_os_error(code)),
        None => Err(Errno::IO),
    }
}

/// A source, on its way to its target.
#[derive(Debug)]
struct Clone<'a> {
    mount: &'a FileMount,
    tree: OwnedFd,
    is_directory: bool,
}

/// The container's mounts, taken before its root hides where they come from.
#[derive(Debug)]
pub(super) struct Clones<'a>(Vec<Clone<'a>>);

impl<'a> Clones<'a> {
    /// Takes them from what the agent passed on, or from its own where this is its namespace's copy.
    pub(super) fn take(setup: &'a Setup, tree: Option<BorrowedFd<'_>>) -> Result<Self, Failure> {
        if setup.mounts.is_empty() {
            return Ok(Self(Vec::new()));
        }
        if let Some(tree) = tree {
            let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
            move_mount(tree, "", CWD, STAGE, flags)
                .map_err(failed("cannot take over the container's files"))?;
        }
        let clones = setup
            .mounts
            .iter()
            .map(Clone::of)
            .collect::<Result<_, _>>()?;
        if tree.is_some() {
            unmount(STAGE, UnmountFlags::DETACH)
                .map_err(failed("cannot hide the container's files"))?;
        }
        Ok(Self(clones))
    }

    /// In the container's root, before anything is mounted over it: fills empty volumes with what the
    /// image has.
    pub(super) fn fill(&self) -> Result<(), Failure> {
        for Clone { mount, tree, .. } in self.0.iter().filter(|clone| clone.wants_files()) {
            let from = match in_root(&mount.target, OFlags::DIRECTORY) {
                Ok(from) => from,
                // What is no directory cannot be mounted over.
                Err(Errno::NOENT | Errno::NOTDIR) => continue,
                Err(errno) => {
                    let what = format!("cannot look at {}", mount.target);
                    return Err(failed(what)(errno));
                }
            };
            // A guest that is killed takes along what only its own kernel has; what the file server has been
            // told is on the host.
            let lasting = matches!(mount.source, FileSource::Disk(_));
            hullbox_archive::copy_up(from.as_fd(), tree.as_fd(), lasting).map_err(|error| {
                setup_failure(format_args!(
                    "cannot fill the volume for {}: {error}",
                    mount.target
                ))
            })?;
        }
        Ok(())
    }

    /// Mounts one of them.
    pub(super) fn place(&self, mount: &FileMount) -> Result<(), Failure> {
        let found = self.0.iter().find(|clone| std::ptr::eq(clone.mount, mount));
        found.map_or(Ok(()), Clone::place)
    }

    /// Mounts all of them, and memory with `other`, each behind what it lies in.
    pub(super) fn place_all(
        &self,
        setup: &Setup,
        other: impl Fn(&TmpfsMount) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        self.fill()?;
        for mount in setup.mounts_in_order() {
            match mount {
                AnyMount::Files(mount) => self.place(mount)?,
                AnyMount::Tmpfs(mount) => other(mount)?,
            }
        }
        Ok(())
    }
}

impl<'a> Clone<'a> {
    fn of(mount: &'a FileMount) -> Result<Self, Failure> {
        let what = || failed(format!("cannot mount {}", mount.target));
        let path = match mount.source {
            FileSource::Export(number) => format!("{SERVED}/{number}"),
            FileSource::Disk(number) => volume_root(number),
        };
        let flags = OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_SYMLINK_NOFOLLOW;
        let tree = open_tree(CWD, path, flags).map_err(what())?;
        let stat = rustix::fs::fstat(&tree).map_err(what())?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        Ok(Self {
            mount,
            tree,
            is_directory: kind == FileType::Directory,
        })
    }

    /// It is a volume that may be empty.
    const fn wants_files(&self) -> bool {
        self.mount.copy_up && self.is_directory
    }

    fn place(&self) -> Result<(), Failure> {
        let target = self.mount.target.as_str();
        let what = || format!("cannot mount {target}");
        let place = self.make_place().map_err(|errno| self.misfit(errno))?;
        if rustix::fs::fstatfs(&place).is_ok_and(|at| at.f_type.cast_unsigned() == PROC) {
            let why = format!("{}: it is inside /proc", what());
            return Err(setup_failure(why));
        }
        if self.mount.read_only {
            sys::make_mount_read_only(self.tree.as_fd()).map_err(failed(what()))?;
        }
        let flags =
            MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
        move_mount(&self.tree, "", &place, "", flags).map_err(|errno| self.misfit(errno))
    }

    /// What it is mounted over, made where it is missing.
    fn make_place(&self) -> Result<OwnedFd, Errno> {
        let target = self.mount.target.as_str();
        if self.is_directory {
            crate::paths::make_directories(target)?;
            return in_root(target, OFlags::DIRECTORY);
        }
        drop(crate::paths::own_file(target)?);
        in_root(target, OFlags::empty())
    }

    fn misfit(&self, errno: Errno) -> Failure {
        // The kernel has one word for a directory on a file, and another one for the other way round.
        let errno = match errno {
            Errno::INVAL => Errno::NOTDIR,
            errno => errno,
        };
        let failure = failed(format_args!("cannot mount {}", self.mount.target))(errno);
        match errno {
            Errno::NOTDIR => setup_failure(format_args!(
                "{}: a directory can only be mounted over a directory, and a file over a file",
                failure.message
            )),
            _ => failure,
        }
    }
}

/// Names a path of the root that this process is in, wherever links lead, but through none of /proc's:
/// files from outside may hold whatever links their owners like.
fn in_root(path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let flags = flags | OFlags::PATH | OFlags::CLOEXEC;
    let root = rustix::fs::open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    rustix::fs::openat2(&root, path, flags, Mode::empty(), resolve)
}
