//! The machine's root: the host's files under a memory overlay, and the machine's own mounts.

use super::config::Config;
use crate::failure::{failed, setup};
use crate::paths;
use crate::sys;
use hullbox_protocol::Failure;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;
use rustix::mount::{
    MountFlags, MoveMountFlags, OpenTreeFlags, mount, mount_move, move_mount, open_tree,
};
use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};

const SHARE: &str = "/h";
const MEMORY: &str = "/o";
const ROOT: &str = "/r";
const DATA_DISK: &str = "/dev/vda";

const SAFE: MountFlags = MountFlags::NOSUID
    .union(MountFlags::NODEV)
    .union(MountFlags::NOEXEC);
const DEVICES: MountFlags = MountFlags::NOSUID.union(MountFlags::NOEXEC);

/// Source, target, type, flags, options; in order.
type Line = (
    &'static str,
    &'static str,
    &'static str,
    MountFlags,
    &'static CStr,
);
const TABLE: [Line; 8] = [
    ("proc", "/proc", "proc", SAFE, c""),
    ("sysfs", "/sys", "sysfs", SAFE, c""),
    ("cgroup2", "/sys/fs/cgroup", "cgroup2", SAFE, c"nsdelegate"),
    (
        "devtmpfs",
        "/dev",
        "devtmpfs",
        MountFlags::NOSUID,
        c"mode=755",
    ),
    (
        "devpts",
        "/dev/pts",
        "devpts",
        DEVICES,
        c"mode=620,gid=5,ptmxmode=666",
    ),
    ("tmpfs", "/dev/shm", "tmpfs", SAFE, c"mode=1777"),
    ("mqueue", "/dev/mqueue", "mqueue", SAFE, c""),
    ("tmpfs", "/run", "tmpfs", SAFE, c"mode=755"),
];

const LINKS: [(&str, &str); 5] = [
    ("/proc/self/fd", "/dev/fd"),
    ("/proc/self/fd/0", "/dev/stdin"),
    ("/proc/self/fd/1", "/dev/stdout"),
    ("/proc/self/fd/2", "/dev/stderr"),
    ("/proc/kcore", "/dev/core"),
];

/// Nodes that any user of the machine may open: who may use the machine may use these.
const OPEN_NODES: [&str; 3] = ["/dev/kvm", "/dev/fuse", "/dev/net/tun"];

/// A directory of the host that is written through, held until its place exists.
struct Held {
    path: String,
    tree: OwnedFd,
}

/// Builds all of it and moves in. Gives the share's own root and the data disk's mount point.
pub(super) fn build(config: &Config) -> Result<(OwnedFd, Option<String>), Failure> {
    let share = mount_share(config)?;
    let modules = config
        .modules
        .as_deref()
        .map(|path| hold(&share, path))
        .transpose()?;
    let volumes: Result<Vec<_>, _> = config
        .volumes
        .iter()
        .map(|path| hold(&share, path))
        .collect();
    move_in()?;
    for (source, target, kind, flags, options) in TABLE {
        // Of the two only one is a directory that somebody has to make.
        if kind != "cgroup2" {
            paths::make_directories(target)
                .map_err(failed(format_args!("cannot make {target}")))?;
        }
        mount(source, target, kind, flags, options)
            .map_err(failed(format_args!("cannot mount {target}")))?;
    }
    arrange_devices();
    if let Some(mut modules) = modules {
        let release = rustix::system::uname();
        modules.path = format!("/lib/modules/{}", release.release().to_string_lossy());
        place(modules)?;
    }
    mount_writable(config.data.as_deref(), volumes?)?;
    delegate_cgroups()?;
    let _ = hullbox_netif::loopback_up();
    rustix::system::sethostname(config.hostname.as_bytes())
        .map_err(failed("cannot set the host name"))?;
    // What distributions give their services; the kernel's own 4096 is too few for some.
    let _ = sys::set_rlimit(libc::RLIMIT_NOFILE, 1024, 524_288);
    Ok((share, config.data.clone()))
}

fn directory(path: &str) -> Result<(), Failure> {
    match rustix::fs::mkdir(path, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(failed(format_args!("cannot make {path}"))(errno)),
    }
}

/// The host's files with memory above them. Gives the share's own root.
fn mount_share(config: &Config) -> Result<OwnedFd, Failure> {
    for path in [SHARE, MEMORY, ROOT] {
        directory(path)?;
    }
    mount(
        config.root.as_str(),
        SHARE,
        "virtiofs",
        MountFlags::NOATIME,
        None,
    )
    .map_err(failed("cannot mount the host's files"))?;
    mount("tmpfs", MEMORY, "tmpfs", MountFlags::NOATIME, c"mode=755")
        .map_err(failed("cannot mount memory for writes"))?;
    directory("/o/upper")?;
    directory("/o/work")?;
    let options = c"lowerdir=/h,upperdir=/o/upper,workdir=/o/work,index=off,metacopy=off,xino=off";
    mount("overlay", ROOT, "overlay", MountFlags::NOATIME, options)
        .map_err(failed("cannot put memory over the host's files"))?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(SHARE, flags, Mode::empty()).map_err(failed("cannot open the host's files"))
}

/// Something of the share, wherever links of the host lead to.
pub(super) fn find(share: impl AsFd, path: impl rustix::path::Arg) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    openat2(share, path, flags, Mode::empty(), ResolveFlags::IN_ROOT)
}

/// Takes hold of a directory of the share.
fn hold(share: &OwnedFd, path: &str) -> Result<Held, Failure> {
    let what = || failed(format!("cannot share {path}"));
    if !path.starts_with('/') {
        return Err(setup(format_args!(
            "cannot share {path}: it is not an absolute path"
        )));
    }
    let found = find(share, path).map_err(what())?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    let tree = open_tree(&found, "", flags).map_err(what())?;
    Ok(Held {
        path: path.to_owned(),
        tree,
    })
}

fn place(held: Held) -> Result<(), Failure> {
    let what = || failed(format!("cannot mount {}", held.path));
    paths::make_directories(&held.path).map_err(what())?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_SYMLINKS;
    move_mount(&held.tree, "", CWD, held.path.as_str(), flags).map_err(what())
}

fn move_in() -> Result<(), Failure> {
    let what = || failed("cannot enter the root filesystem");
    rustix::process::chdir(ROOT).map_err(what())?;
    mount_move(".", "/").map_err(what())?;
    rustix::process::chroot(".").map_err(what())?;
    rustix::process::chdir("/").map_err(what())
}

/// The data disk and the volumes, parents before what lies in them.
fn mount_writable(data: Option<&str>, volumes: Vec<Held>) -> Result<(), Failure> {
    let mut mounts: Vec<(String, Option<Held>)> = volumes
        .into_iter()
        .map(|held| (held.path.clone(), Some(held)))
        .collect();
    mounts.extend(data.map(|path| (path.to_owned(), None)));
    mounts.sort_by_key(|(path, _)| path.split('/').filter(|part| !part.is_empty()).count());
    for (path, held) in mounts {
        match held {
            Some(held) => place(held)?,
            None => {
                let what = || failed(format!("cannot mount the data disk at {path}"));
                paths::make_directories(&path).map_err(what())?;
                // What is deleted here is free again on the host, too.
                let options = Some(c"discard");
                mount(
                    DATA_DISK,
                    path.as_str(),
                    "ext4",
                    MountFlags::NOATIME,
                    options,
                )
                .map_err(what())?;
            }
        }
    }
    Ok(())
}

/// Conveniences in /dev. Missing ones are noticed by whoever needs them.
fn arrange_devices() {
    for (target, path) in LINKS {
        let _ = rustix::fs::symlinkat(target, CWD, path);
    }
    for path in OPEN_NODES {
        let _ = rustix::fs::chmodat(CWD, path, Mode::from_raw_mode(0o666), AtFlags::empty());
    }
}

/// Writes a file of the kernel's.
pub(super) fn write(path: &str, text: &str) -> Result<(), Errno> {
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, Mode::empty())?;
    rustix::io::write(&file, text.as_bytes()).map(drop)
}

/// All controllers for groups below the root, and a group for everything that runs here, so that
/// container runtimes find the layout they know.
fn delegate_cgroups() -> Result<(), Failure> {
    let what = || failed("cannot arrange control groups");
    directory("/sys/fs/cgroup/init")?;
    write("/sys/fs/cgroup/init/cgroup.procs", "0").map_err(what())?;
    let controllers =
        std::fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap_or_default();
    for controller in controllers.split_whitespace() {
        // One that cannot be enabled, such as an RT-only one, must not cost the others.
        let _ = write(
            "/sys/fs/cgroup/cgroup.subtree_control",
            &format!("+{controller}"),
        );
    }
    Ok(())
}
