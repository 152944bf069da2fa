//! What a container finds in its root besides the image: kernel filesystems, devices, names.

use super::machine_id;
use crate::failure::{failed, setup};
use crate::paths;
use hullbox_protocol::{Access, Failure, NameFiles, Setup};
use rustix::fs::{CWD, FileType, Mode, OFlags, makedev};
use rustix::io::Errno;
use rustix::mount::{
    MountFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount, mount_move, mount_remount,
    move_mount, open_tree, unmount,
};
use std::borrow::Cow;
use std::ffi::{CStr, CString};
use std::os::fd::OwnedFd;
use std::path::Path;

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

/// Where the kernel's filesystems are mounted before there is a root to mount them in.
pub(super) const STAGE: &str = "/t";

/// Size of /dev/shm if nobody asks for another: Docker's.
const USUAL_SHM_BYTES: u64 = 64 << 20;

/// As Docker mounts them, in order. `/sys` and its cgroups are read-only there, too.
const TABLE: [Line; 7] = [
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
    ("shm", "/dev/shm", "tmpfs", SAFE, c"mode=1777,size=67108864"),
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
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
    ("/proc/kcore", "core"),
    ("pts/ptmx", "ptmx"),
];

/// Files whose contents the host decides, on their way from the agent's root to the container's.
#[derive(Debug)]
pub(super) struct Names(Vec<Name>);

#[derive(Debug)]
struct Name {
    target: &'static str,
    /// Open for writing, empty so far.
    file: OwnedFd,
    /// The same as a mount of its own.
    tree: OwnedFd,
}

const NAMED: [&str; 4] = [
    "/etc/hosts",
    "/etc/resolv.conf",
    "/etc/hostname",
    MACHINE_ID,
];

/// What a file of [`NAMED`] says; nothing where the image's stays.
fn contents<'a>(setup: &'a Setup, target: &str) -> Cow<'a, str> {
    match target {
        "/etc/hosts" => (&*setup.etc_hosts).into(),
        "/etc/resolv.conf" => (&*setup.etc_resolv_conf).into(),
        "/etc/hostname" => (&*setup.etc_hostname).into(),
        MACHINE_ID if setup.machine_id.is_empty() || setup.access.runs_systemd => "".into(),
        _ => format!("{}\n", setup.machine_id).into(),
    }
}

fn source(target: &str) -> String {
    let name = target.rsplit('/').next().unwrap_or_default();
    format!("{NAMES}/{name}")
}

impl Names {
    /// Makes the files and takes hold of them, while the agent's root is still in sight.
    pub(super) fn prepare() -> Result<Self, Failure> {
        let what = |target: &'static str| move || failed(format!("cannot prepare {target}"));
        match rustix::fs::mkdir(NAMES, Mode::from_raw_mode(0o700)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(what(NAMES)()(errno)),
        }
        let prepare = |target| {
            let what = what(target);
            let source = source(target);
            let file = create(&source).map_err(what())?;
            let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
            let tree = open_tree(CWD, source.as_str(), flags).map_err(what())?;
            Ok(Name { target, file, tree })
        };
        NAMED
            .into_iter()
            .map(prepare)
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// Writes the files and mounts them over the image's of these names, wherever links of the image
    /// lead. As in Docker they may be written to, unless the root may not.
    pub(super) fn place(&self, setup: &Setup, read_only: bool) -> Result<(), Failure> {
        for Name { target, file, tree } in &self.0 {
            let contents = contents(setup, target);
            // An image without a machine id is no machine, and does not become one.
            let absent = || *target == MACHINE_ID && rustix::fs::stat(MACHINE_ID).is_err();
            // Somebody has mounted one of their own there.
            let taken = || setup.mounts.iter().any(|mount| mount.target == *target);
            if contents.is_empty() || taken() || absent() {
                continue;
            }
            let what = || failed(format!("cannot mount {target}"));
            write_all(file, contents.as_bytes()).map_err(what())?;
            let place = paths::own_file(target).map_err(what())?;
            let flags =
                MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
            move_mount(tree, "", &place, "", flags).map_err(what())?;
            if read_only {
                let flags = MountFlags::BIND | MountFlags::RDONLY;
                mount_remount(*target, flags, c"").map_err(what())?;
            }
        }
        Ok(())
    }
}

/// Writes the files anew that are mounted in a container already.
pub(super) fn rewrite_names(setup: &Setup) -> Result<(), Failure> {
    for target in NAMED {
        let contents = contents(setup, target);
        if !contents.is_empty() {
            write_file(&source(target), contents.as_bytes())
                .map_err(failed(format_args!("cannot prepare {target}")))?;
        }
    }
    Ok(())
}

/// Has the files say what `names` says in a container that runs, whose networks are others now.
pub(super) fn renew_names(setup: &mut Setup, names: &NameFiles) {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    if let Ok(dir) = rustix::fs::open(NAMES, flags, Mode::empty()) {
        let before = [&mut setup.etc_hosts, &mut setup.etc_resolv_conf];
        hullbox_session::names::renew_all(dir, before, names);
    }
}

fn create(path: &str) -> Result<OwnedFd, Errno> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::from_raw_mode(0o644))
}

fn write_file(path: &str, contents: &[u8]) -> Result<(), Errno> {
    write_all(&create(path)?, contents)
}

fn write_all(file: &OwnedFd, contents: &[u8]) -> Result<(), Errno> {
    let mut rest = contents;
    while !rest.is_empty() {
        let written = rustix::io::write(file, rest)?;
        rest = &rest[written..];
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

/// Mounts everything under /proc, /sys and /dev at [`STAGE`], from where [`move_system`] takes it.
pub(super) fn stage(access: &Access) -> Result<(), Failure> {
    make_staged("")?;
    for line in TABLE {
        let (_, target, kind, ..) = line;
        // sysfs has one for the control groups.
        if kind != "cgroup2" {
            make_staged(target)?;
        }
        mount_staged(line, access)?;
        if target == "/dev" {
            fill_dev()?;
        }
    }
    Ok(())
}

/// Mounts /sys there anew, which shows the network namespace that this process is in by now.
pub(super) fn stage_sys(access: &Access) -> Result<(), Failure> {
    const SYS: &str = "/sys";
    unmount(format!("{STAGE}{SYS}"), UnmountFlags::DETACH)
        .map_err(failed(format_args!("cannot unmount {SYS}")))?;
    let lines = TABLE.into_iter();
    let mut lines = lines.filter(|(_, target, ..)| Path::new(target).starts_with(SYS));
    lines.try_for_each(|line| mount_staged(line, access))
}

fn mount_staged(line: Line, access: &Access) -> Result<(), Failure> {
    let (source, target, kind, mut flags, options) = line;
    let writable = match kind {
        "sysfs" => access.privileged,
        "cgroup2" => access.manages_cgroups,
        _ => false,
    };
    if writable {
        flags -= MountFlags::RDONLY;
    }
    mount(source, format!("{STAGE}{target}"), kind, flags, options)
        .map_err(failed(format_args!("cannot mount {target}")))
}

fn make_staged(target: &str) -> Result<(), Failure> {
    match rustix::fs::mkdir(format!("{STAGE}{target}"), Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(failed(format_args!("cannot make {STAGE}{target}"))(errno)),
    }
}

/// Moves what was staged into the container's root.
pub(super) fn move_system(root: &str) -> Result<(), Failure> {
    for target in ["/proc", "/dev", "/sys"] {
        // Whatever is there must not be a link.
        let place = format!("{root}{target}");
        paths::own_directory(&place).map_err(|errno| match errno {
            Errno::LOOP | Errno::NOTDIR => {
                setup(format_args!("the image's {target} is not a directory"))
            }
            errno => failed(format_args!("cannot make {target}"))(errno),
        })?;
        mount_move(format!("{STAGE}{target}"), place)
            .map_err(failed(format_args!("cannot mount {target}")))?;
    }
    Ok(())
}

/// `--shm-size`.
pub(super) fn size_shm(bytes: u64) -> Result<(), Failure> {
    if bytes == USUAL_SHM_BYTES {
        return Ok(());
    }
    let what = "cannot mount /dev/shm";
    let size = CString::new(format!("size={bytes}")).map_err(|_| setup(what))?;
    mount_remount("/dev/shm", SAFE, &*size).map_err(failed(what))
}

fn fill_dev() -> Result<(), Failure> {
    let all = Mode::from_raw_mode(0o666);
    make_staged("/dev/net")?;
    for (name, major, minor) in DEVICES {
        let path = format!("{STAGE}/dev/{name}");
        let number = makedev(major, minor);
        rustix::fs::mknodat(CWD, path.as_str(), FileType::CharacterDevice, all, number)
            .map_err(failed(format_args!("cannot make /dev/{name}")))?;
    }
    for (target, name) in LINKS {
        rustix::fs::symlinkat(target, CWD, format!("{STAGE}/dev/{name}"))
            .map_err(failed(format_args!("cannot make /dev/{name}")))?;
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
