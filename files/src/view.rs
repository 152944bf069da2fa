//! What the process sees: the exports, each by its number, and nothing else.
//!
//! Each source's mount is cloned, guarded and attached to an empty file system that becomes the root; the
//! host's root is gone then. Guards are attributes of the mounts, so the kernel refuses what the server
//! might be talked into. Beside them there is `/proc/self/fd`, cut off from the rest of `/proc`: with it a
//! descriptor without rights becomes one with rights.

use crate::export::Export;
use crate::launch::Process;
use crate::outside::{self, Outside};
use crate::owners::Rights;
use hullbox_host::sys::mounts::{Apart, Guard, guard, unshare};
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, mkdirat, openat, openat2};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags, UnmountFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen,
    mount_change, move_mount, open_tree, unmount,
};
use rustix::process::{chdir, fchdir, pivot_root};
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

/// What could not be done.
#[derive(Debug, thiserror::Error)]
pub enum ViewError {
    /// A source.
    #[error("cannot share {path}: {source}")]
    Source {
        /// As it was asked for.
        path: String,
        /// Why not.
        source: io::Error,
    },
    /// An ordinary user cannot have namespaces.
    #[error(
        "an ordinary user's files are shared from a user namespace, which this host refuses \
         ({0}); see kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns \
         and user.max_user_namespaces"
    )]
    UserNamespace(io::Error),
    /// The host outside the helper machine.
    #[error("{0}")]
    Outside(String),
    /// Anything else.
    #[error("cannot {step}: {source}")]
    Step {
        /// What.
        step: &'static str,
        /// Why not.
        source: io::Error,
    },
}

fn at<E: Into<io::Error>>(step: &'static str) -> impl FnOnce(E) -> ViewError {
    move |error| ViewError::Step {
        step,
        source: error.into(),
    }
}

/// What is left to see.
pub struct View {
    /// The directory of the exports.
    pub root: OwnedFd,
    pub rights: Rights,
    /// Kept, because the working directory is in it.
    _descriptors: OwnedFd,
    _relay: Option<Process>,
}

/// Leaves the process nothing but the exports. It must have one thread. Afterwards it has every capability
/// in its user namespace, as before or newly.
///
/// # Errors
/// [`ViewError`].
pub fn enter(exports: &[Export]) -> Result<View, ViewError> {
    let rights = separate()?;
    // Not slaves of the host's: a mount made there later would arrive without guards.
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", private).map_err(at("make mounts private"))?;
    let clones: Vec<Option<Clone>> = exports
        .iter()
        .map(|export| {
            (!export.outside)
                .then(|| Clone::of(export, rights))
                .transpose()
        })
        .collect::<Result<_, _>>()?;
    let outside = mount_outside(exports)?;
    let descriptors = descriptors().map_err(at("keep /proc/self/fd"))?;
    let root = empty_root().map_err(at("make an empty root"))?;
    replace_root(&root).map_err(at("change the root"))?;
    let mut outside = Outsiders::attach(outside, &root)?;
    for (number, (export, clone)) in exports.iter().zip(clones).enumerate() {
        let clone = match clone {
            Some(clone) => clone,
            None => outside.next(export)?,
        };
        clone
            .attach(&root, number)
            .map_err(at("attach an export"))?;
    }
    let relay = outside.detach()?;
    let closed = Guard {
        read_only: true,
        no_setuid: true,
        ..Guard::default()
    };
    guard(&root, closed).map_err(at("make the root read-only"))?;
    fchdir(&descriptors).map_err(at("enter /proc/self/fd"))?;
    // As a file: the mount's own descriptor is as good, but has no rights to be read.
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = openat(&root, c".", flags, Mode::empty()).map_err(at("open the root"))?;
    Ok(View {
        root,
        rights,
        _descriptors: descriptors,
        _relay: relay,
    })
}

/// Namespaces of its own.
fn separate() -> Result<Rights, ViewError> {
    let all = Apart {
        user: false,
        mounts: true,
        network: true,
        ipc: true,
    };
    if rustix::process::geteuid().is_root() {
        unshare(all).map_err(at("make namespaces"))?;
        return Ok(Rights::Root);
    }
    let (user, group) = (rustix::process::geteuid(), rustix::process::getegid());
    unshare(Apart { user: true, ..all }).map_err(ViewError::UserNamespace)?;
    let map = |id: u32| format!("0 {id} 1");
    // In this order: a group may be mapped once nobody can drop groups any more.
    for (file, text) in [
        ("setgroups", "deny".to_owned()),
        ("uid_map", map(user.as_raw())),
        ("gid_map", map(group.as_raw())),
    ] {
        fs::write(Path::new("/proc/self").join(file), text).map_err(ViewError::UserNamespace)?;
    }
    Ok(Rights::User)
}

/// A clone of an export's mount.
struct Clone {
    mount: OwnedFd,
    is_directory: bool,
}

impl Clone {
    fn of(export: &Export, rights: Rights) -> Result<Self, ViewError> {
        let mut path = export.source.clone();
        // A path that ends in a slash is another one.
        if !export.subpath.as_os_str().is_empty() {
            path.push(&export.subpath);
        }
        let failed = |error: io::Error| ViewError::Source {
            path: path.display().to_string(),
            source: error,
        };
        let mount = clone_mount(export, rights).map_err(failed)?;
        Self::guarded(mount, export, failed)
    }

    fn guarded(
        mount: OwnedFd,
        export: &Export,
        failed: impl Fn(io::Error) -> ViewError,
    ) -> Result<Self, ViewError> {
        let stat = rustix::fs::fstat(&mount).map_err(|errno| failed(errno.into()))?;
        guard(
            &mount,
            Guard {
                read_only: export.read_only,
                no_setuid: true,
                private: true,
                recursive: true,
            },
        )
        .map_err(failed)?;
        Ok(Self {
            mount,
            is_directory: FileType::from_raw_mode(stat.st_mode) == FileType::Directory,
        })
    }

    /// Puts it into the root, by its number.
    fn attach(&self, root: &OwnedFd, number: usize) -> io::Result<()> {
        let name = number.to_string();
        if self.is_directory {
            mkdirat(root, &name, Mode::from_raw_mode(0o555))?;
        } else {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::WRONLY;
            openat(root, &name, flags, Mode::from_raw_mode(0o444))?;
        }
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        Ok(move_mount(&self.mount, c"", root, name, flags)?)
    }
}

/// Mounts those of the exports that are outside the helper machine, if there are any.
fn mount_outside(exports: &[Export]) -> Result<Option<Outside>, ViewError> {
    let outside = exports.iter().filter(|export| export.outside);
    let sources: Vec<_> = outside
        .map(|export| (export.source.clone(), export.read_only))
        .collect();
    if sources.is_empty() {
        return Ok(None);
    }
    outside::mount(&sources)
        .map(Some)
        .map_err(|error| ViewError::Outside(hullbox_host::error::chain(&error)))
}

/// Exports of the host outside, while they are in one mount. Only what is attached can be cloned.
struct Outsiders {
    place: Option<(OwnedFd, Process)>,
    next: usize,
}

/// Where that mount is for a while.
const PLACE: &str = "outside";

impl Outsiders {
    fn attach(outside: Option<Outside>, root: &OwnedFd) -> Result<Self, ViewError> {
        let place = match outside {
            None => None,
            Some(Outside { root: mount, relay }) => {
                let attach = || -> io::Result<()> {
                    mkdirat(root, PLACE, Mode::from_raw_mode(0o555))?;
                    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
                    Ok(move_mount(&mount, c"", root, PLACE, flags)?)
                };
                attach().map_err(at("attach files of the host"))?;
                Some((mount, relay))
            }
        };
        Ok(Self { place, next: 0 })
    }

    fn next(&mut self, export: &Export) -> Result<Clone, ViewError> {
        let number = self.next;
        self.next += 1;
        let failed = |error: io::Error| ViewError::Source {
            path: export.source.display().to_string(),
            source: error,
        };
        let Some((mount, _)) = &self.place else {
            return Err(failed(io::ErrorKind::NotFound.into()));
        };
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let clone = open_tree(mount, number.to_string(), flags);
        Clone::guarded(clone.map_err(|errno| failed(errno.into()))?, export, failed)
    }

    fn detach(self) -> Result<Option<Process>, ViewError> {
        let Some((_, relay)) = self.place else {
            return Ok(None);
        };
        let path = Path::new("/").join(PLACE);
        unmount(&path, UnmountFlags::DETACH)
            .and_then(|()| rustix::fs::rmdir(&path))
            .map_err(at("tidy up"))?;
        Ok(Some(relay))
    }
}

fn clone_mount(export: &Export, rights: Rights) -> io::Result<OwnedFd> {
    let source = openat(
        CWD,
        &export.source,
        OFlags::PATH | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let source = if export.subpath.as_os_str().is_empty() {
        source
    } else {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let within = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        openat2(&source, &export.subpath, flags, Mode::empty(), within)?
    };
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    let recursive = flags | OpenTreeFlags::AT_RECURSIVE;
    if export.recursive {
        return Ok(open_tree(&source, c"", recursive)?);
    }
    match open_tree(&source, c"", flags) {
        // What lies below a mount of somebody else's is not for a user to see.
        Err(rustix::io::Errno::INVAL) if rights == Rights::User => {
            Ok(open_tree(&source, c"", recursive)?)
        }
        cloned => Ok(cloned?),
    }
}

/// A mount of what leads from a number to an open file: no other part of `/proc` is behind it.
fn descriptors() -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let mount = open_tree(CWD, c"/proc/self/fd", flags)?;
    guard(
        &mount,
        Guard {
            read_only: true,
            no_setuid: true,
            private: true,
            recursive: false,
        },
    )?;
    Ok(mount)
}

fn empty_root() -> io::Result<OwnedFd> {
    let context = fsopen(c"tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, c"mode", c"0555")?;
    fsconfig_set_string(&context, c"size", c"1m")?;
    fsconfig_create(&context)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    Ok(fsmount(
        &context,
        FsMountFlags::FSMOUNT_CLOEXEC,
        attributes,
    )?)
}

/// Makes this mount, which is attached nowhere, the root, and lets go of the one before.
fn replace_root(root: &OwnedFd) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    move_mount(root, c"", CWD, c"/", flags)?;
    fchdir(root)?;
    // The old root lies on the new one for a moment, and needs no directory of its own there.
    pivot_root(".", ".")?;
    unmount(".", UnmountFlags::DETACH)?;
    Ok(chdir("/")?)
}
