//! The share's server: virtiofsd, in a mount namespace in which the host is read-only.
//!
//! Mount options inside the machine would bind only an honest machine. Here the server itself has
//! nothing else: it sees a recursive bind mount of the host's root whose every mount is
//! read-only, with only the named volumes writable, and the original root is gone from its
//! namespace. Whatever the machine asks for, the kernel answers with `EROFS`.

use crate::sys::machine as sys;
use rustix::fs::Mode;
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind_recursive, mount_change,
    unmount,
};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A share to serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    /// The server.
    pub virtiofsd: PathBuf,
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

fn at(step: &'static str) -> impl FnOnce(rustix::io::Errno) -> ShareError {
    move |errno| ShareError {
        step,
        source: errno.into(),
    }
}

/// Kernel interfaces of the host that are no files to share.
const HIDDEN: [&str; 3] = ["proc", "sys", "dev"];
/// Top-level names that virtiofsd needs for itself: its own file, its libraries.
const LINKS: [&str; 6] = ["usr", "lib", "lib64", "bin", "sbin", "etc"];

/// Becomes virtiofsd. Returns only when that fails.
///
/// # Errors
/// [`ShareError`].
pub fn serve(share: &Share) -> Result<std::convert::Infallible, ShareError> {
    enter_view(&share.staging, &share.volumes)?;
    let error = Command::new(&share.virtiofsd)
        .arg(format!("--fd={}", share.listen_fd))
        .args(["-f", "-o", "source=/host", "-o", "sandbox=chroot"])
        // Contents stay cached as long as size and time of the file say they are right; names
        // and attributes are asked for again after less time than a command takes to arrive. So
        // the next command sees what the host changed, and nothing else is read again. Asking
        // every time (0) costs six times the requests of never asking, this two to three times.
        .args(["-o", "cache=always", "-o", "timeout=0.05"])
        .args(["-o", "log_level=warn"])
        .env_clear()
        .current_dir("/")
        .exec();
    Err(ShareError {
        step: "start virtiofsd",
        source: error,
    })
}

fn enter_view(staging: &Path, volumes: &[PathBuf]) -> Result<(), ShareError> {
    let tmpfs = |target: &Path, flags: MountFlags| {
        mount(
            "tmpfs",
            target,
            "tmpfs",
            flags | MountFlags::NOSUID | MountFlags::NODEV,
            c"mode=0755,size=1m",
        )
    };
    sys::unshare_mounts().map_err(|source| ShareError {
        step: "make a mount namespace",
        source,
    })?;
    // Not a slave of the host's: a mount made there later would arrive writable.
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", private).map_err(at("make mounts private"))?;
    tmpfs(staging, MountFlags::empty()).map_err(at("mount a tmpfs"))?;
    let host = staging.join("host");
    for dir in ["host", "proc", "old"] {
        rustix::fs::mkdir(staging.join(dir), Mode::from_raw_mode(0o755))
            .map_err(at("make a directory"))?;
    }
    mount_bind_recursive("/", &host).map_err(at("bind the host's root"))?;
    sys::set_read_only_recursively(&host).map_err(|source| ShareError {
        step: "make the host's root read-only",
        source,
    })?;
    for name in HIDDEN {
        let target = host.join(name);
        if target.is_dir() {
            tmpfs(&target, MountFlags::RDONLY).map_err(at("hide a kernel interface"))?;
        }
    }
    for volume in volumes {
        let inside = volume.strip_prefix("/").unwrap_or(volume);
        mount_bind_recursive(volume, host.join(inside)).map_err(at("bind a volume"))?;
    }
    mount_bind_recursive("/proc", staging.join("proc")).map_err(at("bind /proc"))?;
    for name in LINKS {
        rustix::fs::symlink(format!("host/{name}"), staging.join(name))
            .map_err(at("make a link"))?;
    }
    rustix::process::chdir(staging).map_err(at("enter the view"))?;
    rustix::process::pivot_root(".", "old").map_err(at("change the root"))?;
    unmount("old", UnmountFlags::DETACH).map_err(at("let go of the host's root"))?;
    rustix::process::chdir("/").map_err(at("enter the view"))
}
