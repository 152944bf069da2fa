//! Files from outside, as mounts of the container's own.
//!
//! ```text
//! monitor's child   open ─► clone (detached) ─► read-only, propagation       while it still has the host's mounts
//!                   empty volumes are filled, places are made                before anything covers them
//! container's first process                      move to the target          behind all mounts of the runtime
//! ```
//!
//! A source is looked up once, so that what is mounted is what was checked: of a file that one inode. The
//! clone leaves the host's namespace before that gets out of touch with the host, and is attached by the
//! container's own process, last of all, because the runtime would change how it spreads.

use crate::inroot::{Kind, Root};
use crate::sys;
use hullbox_archive::copy_up;
use hullbox_backend::bundle::Bundle;
use hullbox_backend::mount::{Mount, MountSource, Propagation};
use hullbox_files::LaunchError;
use hullbox_files::outside::Outside;
use hullbox_protocol::TmpfsMount;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, StatxFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen,
    move_mount, open_tree,
};
use std::io;
use std::path::{Path, PathBuf};

/// `PROC_SUPER_MAGIC` of `linux/magic.h`.
const PROC: i64 = 0x9fa0;
/// Docker's hint for what cannot be on top of one another.
const WRONG_TYPE: &str = "Are you trying to mount a directory onto a file (or vice-versa)? Check if the \
     specified host path exists and is the expected type";

/// Why something cannot be mounted in the container.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MountError {
    /// Docker's words.
    #[error("bind source path does not exist: {}", .0.display())]
    NoSource(PathBuf),
    /// It is there, and cannot be had.
    #[error("cannot mount {}", path.display())]
    Source {
        /// What.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A part of a volume that is not there, or not in it.
    #[error("cannot access path {subpath:?} in {}", path.display())]
    Subpath {
        /// The volume's files.
        path: PathBuf,
        /// As asked for.
        subpath: String,
        /// Why not.
        #[source]
        source: Errno,
    },
    /// Docker's words.
    #[error("path {} is mounted on {on} but it is not a {wanted} mount", path.display())]
    NotShared {
        /// What was to be mounted.
        path: PathBuf,
        /// Where the mount is that it lies in.
        on: String,
        /// `shared`, or `shared or slave`.
        wanted: &'static str,
    },
    /// Invariant: the host's kernel mounts nothing that a guest has written.
    #[error(
        "volume image {}: a volume with a disk of its own can be used by microVMs alone: this kernel mounts \
         no file system that a guest has written (--isolation=vm)", .0.display()
    )]
    Disk(PathBuf),
    /// The kernel cannot.
    #[error("cannot set up the mount of {}: this kernel is older than Linux 5.12, or", path.display())]
    Attributes {
        /// What.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Files of the host outside the helper machine.
    #[error(transparent)]
    Outside(#[from] LaunchError),
    /// A volume is not filled.
    #[error("cannot copy what the image has at {target} into the volume")]
    CopyUp {
        /// Where.
        target: String,
        /// Why not.
        #[source]
        source: hullbox_archive::Error,
    },
    /// A place in the container.
    #[error("cannot mount at {target}: {why}")]
    Target {
        /// Where.
        target: String,
        /// Why not.
        why: String,
    },
}

/// A mount that is made and nowhere yet.
#[derive(Debug)]
struct One {
    mount: OwnedFd,
    target: String,
    kind: Kind,
}

/// Everything that is to be attached, each behind what it lies in.
#[derive(Debug, Default)]
pub(super) struct Mounts(Vec<Pending>);

#[derive(Debug)]
enum Pending {
    Files(One),
    /// Memory in something of the above. Made when it is attached: what it covers tells its mode.
    Tmpfs(TmpfsMount),
}

/// A source that was found.
#[derive(Debug)]
pub(super) struct Source {
    /// What is there, reached by the host's own mounts.
    found: OwnedFd,
    one: One,
    copy_up: bool,
}

/// Finds and clones what the bundle wants and is here; of the others, nothing. For a process that has the
/// host's mounts in a namespace of its own, and still as they are.
pub(super) fn open(bundle: &Bundle) -> Result<Vec<Option<Source>>, MountError> {
    let one = |mount: &Mount| match &mount.source {
        MountSource::Here(path) => source(CWD, path, path, mount).map(Some),
        MountSource::Outside(_) => Ok(None),
        MountSource::Disk(path) => Err(MountError::Disk(path.clone())),
    };
    bundle.mounts.iter().map(one).collect()
}

/// Finds and clones the others: files of the host outside the helper machine, by a file system that is mounted
/// at a name in this directory meanwhile. Whoever uses them gets errors once the second is dropped.
pub(super) fn open_outside(
    bundle: &Bundle,
    opened: Vec<Option<Source>>,
    base: &OwnedFd,
) -> Result<(Vec<Source>, Option<Outside>), MountError> {
    let path = |mount: &Mount| match &mount.source {
        MountSource::Outside(path) => Some((path.clone(), mount.read_only)),
        _ => None,
    };
    let paths: Vec<_> = bundle.mounts.iter().filter_map(path).collect();
    if paths.is_empty() {
        return Ok((opened.into_iter().flatten().collect(), None));
    }
    let outside = hullbox_files::outside::mount(&paths)?;
    let failed = |source: Errno| MountError::Source {
        path: OUTSIDE.into(),
        source: source.into(),
    };
    rustix::fs::mkdirat(base, OUTSIDE, Mode::from_raw_mode(0o700)).map_err(failed)?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    move_mount(&outside.root, "", base, OUTSIDE, flags).map_err(failed)?;
    let mut number = 0;
    let mut all = Vec::new();
    for (mount, opened) in bundle.mounts.iter().zip(opened) {
        let one = match (opened, path(mount)) {
            (Some(source), _) => source,
            (None, Some((shown, _))) => {
                let name = number.to_string();
                number += 1;
                source(outside.root.as_fd(), Path::new(&name), &shown, mount)?
            }
            (None, None) => continue,
        };
        all.push(one);
    }
    Ok((all, Some(outside)))
}

/// Where files of the host outside are mounted, in the directory of the container's mounts.
const OUTSIDE: &str = "outside";

/// What is at a place of the host, which people know as `path`.
fn source(
    at: BorrowedFd<'_>,
    place: &Path,
    path: &Path,
    mount: &Mount,
) -> Result<Source, MountError> {
    let failed = |source: Errno| MountError::Source {
        path: path.to_owned(),
        source: source.into(),
    };
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let mut found = match rustix::fs::openat(at, place, flags, Mode::empty()) {
        Err(Errno::NOENT) => return Err(MountError::NoSource(path.to_owned())),
        other => other.map_err(failed)?,
    };
    if !mount.subpath.is_empty() {
        found = within(&found, mount).map_err(|source| MountError::Subpath {
            path: path.to_owned(),
            subpath: mount.subpath.clone(),
            source,
        })?;
    }
    let stat = rustix::fs::fstat(&found).map_err(failed)?;
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => Kind::Directory,
        _ => Kind::File,
    };
    check_propagation(&found, path, mount.propagation)?;
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    if mount.recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    let clone = open_tree(&found, "", flags).map_err(failed)?;
    set_attributes(clone.as_fd(), mount).map_err(|source| MountError::Attributes {
        path: path.to_owned(),
        source,
    })?;
    Ok(Source {
        found,
        one: One {
            mount: clone,
            target: mount.target.clone(),
            kind,
        },
        copy_up: mount.copy_up && kind == Kind::Directory,
    })
}

/// A part of a volume. Links in it are the work of who has the volume: none of them leads out.
fn within(volume: &OwnedFd, mount: &Mount) -> Result<OwnedFd, Errno> {
    rustix::fs::openat2(
        volume,
        &*mount.subpath,
        OFlags::PATH | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS,
    )
}

/// Read-only and propagation. Of what is mounted below only after the mount itself: a part of it may have
/// other wishes.
fn set_attributes(clone: BorrowedFd<'_>, mount: &Mount) -> io::Result<()> {
    let (flag, recursive) = match mount.propagation {
        Propagation::Private => (MountPropagationFlags::PRIVATE, false),
        Propagation::Rprivate => (MountPropagationFlags::PRIVATE, true),
        Propagation::Shared => (MountPropagationFlags::SHARED, false),
        Propagation::Rshared => (MountPropagationFlags::SHARED, true),
        Propagation::Slave => (MountPropagationFlags::DOWNSTREAM, false),
        Propagation::Rslave => (MountPropagationFlags::DOWNSTREAM, true),
    };
    sys::set_mount_attributes(clone, 0, flag.bits().into(), recursive)?;
    if mount.read_only {
        let below = !mount.writable_submounts;
        sys::set_mount_attributes(clone, sys::MOUNT_READ_ONLY, 0, below)?;
    }
    Ok(())
}

/// Whether mounts can spread as they are wanted to: only where the host's mount does.
fn check_propagation(
    found: &OwnedFd,
    path: &Path,
    propagation: Propagation,
) -> Result<(), MountError> {
    let (words, wanted): (&[&str], _) = match propagation {
        Propagation::Private | Propagation::Rprivate => return Ok(()),
        Propagation::Shared | Propagation::Rshared => (&["shared:"], "shared"),
        Propagation::Slave | Propagation::Rslave => (&["shared:", "master:"], "shared or slave"),
    };
    let failed = |source: io::Error| MountError::Source {
        path: path.to_owned(),
        source,
    };
    let statx = rustix::fs::statx(found, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID);
    let id = statx.map_err(|errno| failed(errno.into()))?.stx_mnt_id;
    let table = std::fs::read_to_string("/proc/self/mountinfo").map_err(failed)?;
    let number = id.to_string();
    let line = table
        .lines()
        .find(|line| line.split(' ').next() == Some(&number));
    let fields: Vec<&str> = line.unwrap_or_default().split(' ').collect();
    // proc_pid_mountinfo(5): fields without number stand between the sixth and a hyphen.
    let optional = fields.iter().skip(6).take_while(|field| **field != "-");
    let spreads = |field: &&str| words.iter().any(|word| field.starts_with(word));
    match optional.copied().any(|field| spreads(&field)) {
        true => Ok(()),
        false => Err(MountError::NotShared {
            path: path.to_owned(),
            on: fields.get(4).map_or("/", |on| on).to_owned(),
            wanted,
        }),
    }
}

/// Fills empty volumes from the container's root, where nothing is mounted over it yet, and makes the
/// places that are missing there.
pub(super) fn prepare(
    sources: Vec<Source>,
    bundle: &Bundle,
    root: Root<'_>,
) -> Result<Mounts, MountError> {
    for source in sources.iter().filter(|source| source.copy_up) {
        let target = &source.one.target;
        let Ok(below) = root.find(Path::new(target)) else {
            continue;
        };
        let failed = |why: Errno| no_target(target, why.to_string());
        let stat = rustix::fs::fstat(&below).map_err(failed)?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            copy_up(below.as_fd(), source.found.as_fd(), false).map_err(|source| {
                MountError::CopyUp {
                    target: target.clone(),
                    source,
                }
            })?;
        }
    }
    let mut pending = Vec::new();
    let mut covered: Vec<String> = OTHERS.map(str::to_owned).to_vec();
    covered.extend(bundle.setup.tmpfs.iter().map(|one| clean(&one.path)));
    for source in sources {
        let one = source.one;
        if !covered.iter().any(|place| is_within(&one.target, place)) {
            place(root, &one)?;
        }
        covered.push(one.target.clone());
        pending.push(Pending::Files(one));
    }
    for tmpfs in inner_tmpfs(bundle) {
        pending.push(Pending::Tmpfs(tmpfs.clone()));
    }
    pending.sort_by_key(|one| depth(one.target()));
    Ok(Mounts(pending))
}

/// Where the runtime mounts something of its own, which covers what the image has there.
const OTHERS: [&str; 3] = ["/dev", "/proc", "/sys"];

/// Memory that lies in files from outside.
fn inner_tmpfs(bundle: &Bundle) -> impl Iterator<Item = &TmpfsMount> {
    let tmpfs = bundle.setup.tmpfs.iter();
    tmpfs.filter(|one| is_inner(bundle, one))
}

/// Whether a tmpfs lies in files from outside, so that it is mounted behind them.
pub(super) fn is_inner(bundle: &Bundle, tmpfs: &TmpfsMount) -> bool {
    let path = clean(&tmpfs.path);
    let mut files = bundle.mounts.iter();
    files.any(|mount| is_within(&path, &mount.target))
}

fn is_within(path: &str, of: &str) -> bool {
    let below = path.strip_prefix(of);
    below.is_some_and(|below| below.is_empty() || below.starts_with('/'))
}

fn clean(path: &str) -> String {
    let names = path
        .split('/')
        .filter(|name| !name.is_empty() && *name != ".");
    format!("/{}", names.collect::<Vec<_>>().join("/"))
}

fn depth(path: &str) -> usize {
    path.split('/').filter(|name| !name.is_empty()).count()
}

impl Pending {
    fn target(&self) -> &str {
        match self {
            Self::Files(one) => &one.target,
            Self::Tmpfs(tmpfs) => &tmpfs.path,
        }
    }
}

impl Mounts {
    /// Whether there is nothing to attach.
    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The descriptors of what is to be attached.
    pub(super) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.0.iter().filter_map(|pending| match pending {
            Pending::Files(one) => Some(one.mount.as_fd()),
            Pending::Tmpfs(_) => None,
        })
    }

    /// Attaches everything below this root, of a process in the container's mount namespace.
    pub(super) fn attach(&self, root: BorrowedFd<'_>) -> Result<(), MountError> {
        let inside = Root::new(root);
        for pending in &self.0 {
            match pending {
                Pending::Files(one) => {
                    let target = place(inside, one)?;
                    check_place(root, &target, one)?;
                    attach(&one.mount, &target, &one.target)?;
                }
                Pending::Tmpfs(tmpfs) => {
                    let failed = |why: Errno| no_target(&tmpfs.path, why.to_string());
                    let target = inside.ensure(Path::new(&tmpfs.path), Kind::Directory);
                    let target = target.map_err(failed)?;
                    let one = One {
                        mount: memory(&target, tmpfs).map_err(failed)?,
                        target: tmpfs.path.clone(),
                        kind: Kind::Directory,
                    };
                    check_place(root, &target, &one)?;
                    attach(&one.mount, &target, &one.target)?;
                }
            }
        }
        Ok(())
    }
}

/// The place of a mount, made where it is missing, as Docker makes it.
fn place(root: Root<'_>, one: &One) -> Result<OwnedFd, MountError> {
    let made = root.ensure(Path::new(&one.target), one.kind);
    made.map_err(|errno| no_target(&one.target, errno.to_string()))
}

/// Links of the image may lead where nothing may be mounted.
fn check_place(root: BorrowedFd<'_>, target: &OwnedFd, one: &One) -> Result<(), MountError> {
    let name = &one.target;
    let failed = |errno: Errno| no_target(name, errno.to_string());
    if rustix::fs::fstatfs(target).map_err(failed)?.f_type == PROC {
        return Err(no_target(name, "it is inside /proc".to_owned()));
    }
    let (here, there) = (
        rustix::fs::fstat(root).map_err(failed)?,
        rustix::fs::fstat(target).map_err(failed)?,
    );
    if (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino) {
        return Err(no_target(name, "it is the root".to_owned()));
    }
    let is_directory = FileType::from_raw_mode(there.st_mode) == FileType::Directory;
    if is_directory != (one.kind == Kind::Directory) {
        return Err(no_target(name, format!("not a directory: {WRONG_TYPE}")));
    }
    Ok(())
}

fn attach(mount: &OwnedFd, target: &OwnedFd, name: &str) -> Result<(), MountError> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    let moved = move_mount(mount, "", target, "", flags);
    moved.map_err(|errno| no_target(name, errno.to_string()))
}

fn no_target(target: &str, why: String) -> MountError {
    MountError::Target {
        target: target.to_owned(),
        why,
    }
}

/// A tmpfs with Docker's defaults and these options. Its mode is that of what it covers.
fn memory(covered: &OwnedFd, tmpfs: &TmpfsMount) -> Result<OwnedFd, Errno> {
    let fs = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&fs, "source", "tmpfs")?;
    let mode = rustix::fs::fstat(covered)?.st_mode & 0o7777;
    fsconfig_set_string(&fs, "mode", format!("{mode:o}"))?;
    let mut flags = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    for option in tmpfs.options.split(',').filter(|option| !option.is_empty()) {
        if let Some((name, value)) = option.split_once('=') {
            fsconfig_set_string(&fs, name, value)?;
            continue;
        }
        match option {
            "ro" => flags |= MountAttrFlags::MOUNT_ATTR_RDONLY,
            "rw" => flags -= MountAttrFlags::MOUNT_ATTR_RDONLY,
            "exec" => flags -= MountAttrFlags::MOUNT_ATTR_NOEXEC,
            "noexec" => flags |= MountAttrFlags::MOUNT_ATTR_NOEXEC,
            "suid" => flags -= MountAttrFlags::MOUNT_ATTR_NOSUID,
            "nosuid" => flags |= MountAttrFlags::MOUNT_ATTR_NOSUID,
            "dev" => flags -= MountAttrFlags::MOUNT_ATTR_NODEV,
            "nodev" => flags |= MountAttrFlags::MOUNT_ATTR_NODEV,
            "noatime" => flags |= MountAttrFlags::MOUNT_ATTR_NOATIME,
            "nodiratime" => flags |= MountAttrFlags::MOUNT_ATTR_NODIRATIME,
            "strictatime" => flags |= MountAttrFlags::MOUNT_ATTR_STRICTATIME,
            "sync" => fsconfig_set_flag(&fs, "sync")?,
            // What a tmpfs does anyway.
            _ => {}
        }
    }
    fsconfig_create(&fs)?;
    fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, flags)
}
