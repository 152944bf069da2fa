//! What a container finds in its root besides the image: kernel filesystems, devices, names.

use super::machine_id;
use crate::failure::{failed, setup};
use crate::paths;
use hullbox_protocol::{Failure, Setup};
use rustix::fs::{CWD, FileType, Mode, OFlags, makedev};
use rustix::io::Errno;
use rustix::mount::{
    MountFlags, MoveMountFlags, OpenTreeFlags, mount, mount_remount, move_mount, open_tree,
};
use std::ffi::{CStr, CString};
use std::os::fd::OwnedFd;

/// Sources of /etc files, in the agent's own memory filesystem.
const NAMES: &str = "/n";

const MACHINE_ID: &str = "/etc/machine-id";

/// One line of the table of mounts.
type Line = (
    &'static str,
    &'static str,
    &'static str,
    MountFlags,
    &'static CStr,
);

const SAFE: MountFlags = MountFlags::NOSUID
    .union(MountFlags::NODEV)
    .union(MountFlags::NOEXEC);

/// As Docker mounts them, in order. `/sys` and its cgroups are read-only there, too.
const TABLE: [Line; 6] = [
    ("proc", "/proc", "proc", SAFE, c""),
    (
        "tmpfs",
        "/dev",
        "tmpfs",
        MountFlags::NOSUID.union(MountFlags::STRICTATIME),
        c"mode=755,size=65536k",
    ),
    (
        "devpts",
        "/dev/pts",
        "devpts",
        MountFlags::NOSUID.union(MountFlags::NOEXEC),
        c"newinstance,ptmxmode=0666,mode=0620,gid=5",
    ),
    ("mqueue", "/dev/mqueue", "mqueue", SAFE, c""),
    (
        "sysfs",
        "/sys",
        "sysfs",
        SAFE.union(MountFlags::RDONLY),
        c"",
    ),
    (
        "cgroup",
        "/sys/fs/cgroup",
        "cgroup2",
        SAFE.union(MountFlags::RDONLY),
        c"",
    ),
];

/// Character devices: name, major, minor. Beyond Docker's there are those that a VM has for itself:
/// FUSE filesystems and TUN interfaces of the guest's kernel.
const DEVICES: [(&str, u32, u32); 8] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
    ("fuse", 10, 229),
    ("net/tun", 10, 200),
];

const LINKS: [(&str, &str); 6] = [
    ("/proc/self/fd", "/dev/fd"),
    ("/proc/self/fd/0", "/dev/stdin"),
    ("/proc/self/fd/1", "/dev/stdout"),
    ("/proc/self/fd/2", "/dev/stderr"),
    ("/proc/kcore", "/dev/core"),
    ("pts/ptmx", "/dev/ptmx"),
];

/// Files whose contents the host decides, on their way from the agent's root to the container's.
#[derive(Debug, Default)]
pub(super) struct Names(Vec<(&'static str, OwnedFd)>);

/// Writes the files and takes hold of them, while the agent's root is still in sight.
pub(super) fn take_names(setup: &Setup) -> Result<Names, Failure> {
    let machine_id = match &*setup.machine_id {
        "" => String::new(),
        id => format!("{id}\n"),
    };
    let files = [
        ("/etc/hosts", &setup.etc_hosts),
        ("/etc/resolv.conf", &setup.etc_resolv_conf),
        ("/etc/hostname", &setup.etc_hostname),
        (MACHINE_ID, &machine_id),
    ];
    let mut names = Names::default();
    for (target, contents) in files {
        let own = target == MACHINE_ID && setup.access.runs_systemd;
        if contents.is_empty() || own {
            continue;
        }
        names.0.push((target, take_file(target, contents)?));
    }
    Ok(names)
}

/// Writes the files anew that are mounted in a container already.
pub(super) fn rewrite_names(setup: &Setup) -> Result<(), Failure> {
    take_names(setup).map(drop)
}

fn take_file(target: &str, contents: &str) -> Result<OwnedFd, Failure> {
    let what = || failed(format!("cannot prepare {target}"));
    match rustix::fs::mkdir(NAMES, Mode::from_raw_mode(0o700)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(what()(errno)),
    }
    let name = target.rsplit('/').next().unwrap_or_default();
    let source = format!("{NAMES}/{name}");
    write_file(&source, contents.as_bytes()).map_err(what())?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    open_tree(CWD, source.as_str(), flags).map_err(what())
}

fn write_file(path: &str, contents: &[u8]) -> Result<(), Errno> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, Mode::from_raw_mode(0o644))?;
    let mut rest = contents;
    while !rest.is_empty() {
        let written = rustix::io::write(&file, rest)?;
        rest = &rest[written..];
    }
    Ok(())
}

/// Mounts the names over the image's files of these names, wherever links of the image lead.
/// As in Docker they may be written to, unless the root may not.
pub(super) fn place_names(names: Names, read_only: bool) -> Result<(), Failure> {
    for (target, tree) in names.0 {
        // An image without one is no machine, and does not become one.
        if target == MACHINE_ID && rustix::fs::stat(target).is_err() {
            continue;
        }
        let what = || failed(format!("cannot mount {target}"));
        let place = paths::own_file(target).map_err(what())?;
        let flags =
            MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
        move_mount(&tree, "", &place, "", flags).map_err(what())?;
        if read_only {
            let flags = MountFlags::BIND | MountFlags::RDONLY;
            mount_remount(target, flags, c"").map_err(what())?;
        }
    }
    Ok(())
}

/// To an init system a mounted machine id is one that has yet to be written to the disk, and it fails
/// to do that. So it is written there, as at a machine's first boot.
pub(super) fn write_machine_id(setup: &Setup) -> Result<(), Failure> {
    if !setup.access.runs_systemd || setup.machine_id.is_empty() {
        return Ok(());
    }
    let what = || failed("cannot open the root filesystem");
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open("/", flags, Mode::empty()).map_err(what())?;
    machine_id::write(&root, &setup.machine_id).map(drop)
}

/// Everything under /proc, /sys and /dev.
pub(super) fn mount_system(setup: &Setup) -> Result<(), Failure> {
    for (source, target, kind, mut flags, options) in TABLE {
        let writable = match kind {
            "sysfs" => setup.access.privileged,
            "cgroup2" => setup.access.manages_cgroups,
            _ => false,
        };
        if writable {
            flags -= MountFlags::RDONLY;
        }
        // /sys/fs/cgroup is there already; all others are made, and must not be links.
        if kind != "cgroup2" {
            make_mount_point(target)?;
        }
        mount(source, target, kind, flags, options)
            .map_err(failed(format_args!("cannot mount {target}")))?;
        if target == "/dev" {
            fill_dev()?;
        }
    }
    make_mount_point("/dev/shm")?;
    let size = CString::new(format!("mode=1777,size={}", setup.shm_size_bytes));
    let size = size.map_err(|_| crate::failure::setup("shm size"))?;
    mount("shm", "/dev/shm", "tmpfs", SAFE, &*size).map_err(failed("cannot mount /dev/shm"))
}

fn make_mount_point(path: &'static str) -> Result<(), Failure> {
    paths::own_directory(path).map_err(|errno| match errno {
        Errno::LOOP | Errno::NOTDIR => setup(format_args!("the image's {path} is not a directory")),
        errno => failed(format_args!("cannot make {path}"))(errno),
    })
}

fn fill_dev() -> Result<(), Failure> {
    let all = Mode::from_raw_mode(0o666);
    rustix::fs::mkdir("/dev/net", Mode::from_raw_mode(0o755))
        .map_err(failed("cannot make /dev/net"))?;
    for (name, major, minor) in DEVICES {
        let path = format!("/dev/{name}");
        let number = makedev(major, minor);
        rustix::fs::mknodat(CWD, path.as_str(), FileType::CharacterDevice, all, number)
            .map_err(failed(format_args!("cannot make {path}")))?;
    }
    for (target, path) in LINKS {
        rustix::fs::symlinkat(target, CWD, path)
            .map_err(failed(format_args!("cannot make {path}")))?;
    }
    Ok(())
}

/// `--sysctl`: dots or slashes separate the parts of a name.
pub(super) fn set_sysctls(sysctls: &[(String, String)]) -> Result<(), Failure> {
    for (name, value) in sysctls {
        let what = || format!("cannot set sysctl {name}");
        let path = name.replace('.', "/");
        let odd = |part: &str| part.is_empty() || part == ".." || part == ".";
        if path.split('/').any(odd) {
            return Err(setup(format_args!("{}: it is no name", what())));
        }
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        let path = format!("/proc/sys/{path}");
        let file = rustix::fs::openat(CWD, path, flags, Mode::empty()).map_err(failed(what()))?;
        rustix::io::write(&file, value.as_bytes()).map_err(failed(what()))?;
    }
    Ok(())
}
