//! The share's server: the host's files, read-only, for the machine alone.
//!
//! Mount options inside the machine would bind only an honest machine. Here the server itself has
//! nothing else: a process in a mount namespace whose root is a recursive bind mount of the host's,
//! every mount of it read-only, with only the named volumes writable, and the original root is gone;
//! no mount leads to a device.
//! Whatever the machine asks for, the kernel answers with `EROFS`. Should the machine take the
//! process over, it has the capabilities that files take and no others, and a system call filter.
//!
//! An ordinary user's server does this in a user namespace of its own. There the user is root and
//! nobody else exists, as in the user's machine: the user's files look like root's, all others like
//! nobody's, and rights are those that the user has.

mod confine;
mod device;
mod files;
mod message;

pub use device::QUEUE_SIZE;

use crate::sys;
use files::Files;
use hullbox_host::privileges::more_descriptors;
use message::Rights;
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_bind_recursive,
    mount_change, unmount,
};
use std::fs;
use std::io;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

/// A share to serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    /// Listening vhost-user socket, inherited.
    pub listen_fd: i32,
    /// An empty directory to build the view on.
    pub staging: PathBuf,
    /// What is writable.
    pub volumes: Vec<PathBuf>,
}

/// What could not be done.
#[derive(Debug, thiserror::Error)]
#[error("share: cannot {step}")]
pub struct ShareError {
    step: &'static str,
    #[source]
    source: io::Error,
}

fn at<E: Into<io::Error>>(step: &'static str) -> impl FnOnce(E) -> ShareError {
    move |error| ShareError {
        step,
        source: error.into(),
    }
}

/// Kernel interfaces of the host that are no files to share.
const HIDDEN: [&str; 3] = ["proc", "sys", "dev"];

/// Serves the share until QEMU goes away.
///
/// # Errors
/// [`ShareError`].
pub fn serve(share: &Share) -> Result<(), ShareError> {
    let listener = sys::inherited_fd(share.listen_fd).map_err(at("take over its socket"))?;
    let rights = if rustix::process::geteuid().is_root() {
        sys::unshare_mounts().map_err(at("make a mount namespace"))?;
        Rights::Askers
    } else {
        enter_user_namespace()?;
        Rights::Own
    };
    detach_descriptors()?;
    let files = Files::new("/", rights).map_err(at("open /proc"))?;
    enter_view(&share.staging, &share.volumes)?;
    // Each name that the machine's kernel knows costs a descriptor.
    more_descriptors();
    confine::give_up(rights).map_err(at("confine itself"))?;
    device::serve(files, UnixListener::from(listener)).map_err(at("serve QEMU"))
}

/// A user namespace in which this user is the only one there is, and may mount.
fn enter_user_namespace() -> Result<(), ShareError> {
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    sys::unshare_user_and_mounts().map_err(at("make a user namespace"))?;
    let map = |id: u32| format!("0 {id} 1");
    // In this order: a group may be mapped once nobody can drop groups any more.
    for (file, text) in [
        ("setgroups", "deny".to_owned()),
        ("uid_map", map(uid.as_raw())),
        ("gid_map", map(gid.as_raw())),
    ] {
        fs::write(Path::new("/proc/self").join(file), text)
            .map_err(at("arrange its user namespace"))?;
    }
    Ok(())
}

/// Makes a mount of its own of what leads from a number to an open file. Whoever serves files keeps it
/// open, and it leads no further: to none of the rest of the host's `/proc`.
fn detach_descriptors() -> Result<(), ShareError> {
    // Not a slave of the host's: a mount made there later would arrive writable.
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", private).map_err(at("make mounts private"))?;
    let descriptors = Path::new("/proc/self/fd");
    mount_bind(descriptors, descriptors).map_err(at("bind /proc/self/fd"))?;
    sys::guard_recursively(descriptors, true).map_err(at("make /proc/self/fd read-only"))
}

fn enter_view(root: &Path, volumes: &[PathBuf]) -> Result<(), ShareError> {
    mount_bind_recursive("/", root).map_err(at("bind the host's root"))?;
    sys::guard_recursively(root, true).map_err(at("make the host's root read-only"))?;
    for name in HIDDEN {
        let target = root.join(name);
        if target.is_dir() {
            let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV;
            mount("tmpfs", &target, "tmpfs", flags, c"mode=0755,size=1m")
                .map_err(at("hide a kernel interface"))?;
        }
    }
    for volume in volumes {
        let inside = volume.strip_prefix("/").unwrap_or(volume);
        let inside = root.join(inside);
        mount_bind_recursive(volume, &inside).map_err(at("bind a volume"))?;
        sys::guard_recursively(&inside, false).map_err(at("keep devices out of a volume"))?;
    }
    rustix::process::chdir(root).map_err(at("enter the view"))?;
    // The old root lies on the new one for a moment, and needs no directory of its own there.
    rustix::process::pivot_root(".", ".").map_err(at("change the root"))?;
    unmount(".", UnmountFlags::DETACH).map_err(at("let go of the host's root"))?;
    rustix::process::chdir("/").map_err(at("enter the view"))
}
