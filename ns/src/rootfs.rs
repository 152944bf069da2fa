//! The container's root: layer images behind loop devices, stacked with overlayfs.
//!
//! Everything is mounted in a mount namespace of the calling process alone, below one small
//! tmpfs in the runtime directory. When the processes that are in that namespace are gone, the
//! kernel takes the mounts and, through `LO_FLAGS_AUTOCLEAR`, the loop devices away, however
//! the processes ended. What remains is one empty directory.

use super::inroot::{Kind, Root};
use super::mounts::{self, MountError, Mounts};
use crate::sys;
use hullbox_archive::Layers;
use hullbox_backend::bundle::Bundle;
use hullbox_files::outside::Outside;
use hullbox_protocol::{NameFiles, WritableLayer};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags, UnmountFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount,
    fsopen, mount, mount_change, move_mount, open_tree, unmount,
};
use std::cell::RefCell;
use std::ffi::CString;
use std::path::{Path, PathBuf};

/// How often another process may take the loop device that we were offered.
const LOOP_ATTEMPTS: usize = 256;
/// Most layers of an image, as the image store has it.
const MAX_LAYERS: usize = 127;
/// Room for mount points and for the container's /etc files: hosts, resolv.conf, hostname.
const BASE_SIZE: &str = "16m";

/// Why the root could not be put together.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RootfsError {
    /// Not even a namespace.
    #[error("cannot make a mount namespace")]
    Namespace(#[source] std::io::Error),
    /// A directory or a mount of our own.
    #[error("cannot {action} {path}")]
    Prepare {
        /// What was attempted.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: Errno,
    },
    /// The kernel does not know a filesystem.
    #[error("this kernel has no {filesystem} filesystem: load it with `modprobe {filesystem}`")]
    NoFilesystem {
        /// Its name.
        filesystem: &'static str,
    },
    /// No loop devices.
    #[error("cannot get a loop device: load the driver with `modprobe loop`")]
    NoLoop(#[source] std::io::Error),
    /// A layer's image could not be mounted.
    #[error("cannot mount layer {}", path.display())]
    Layer {
        /// Its file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// Overlayfs said no.
    #[error(
        "overlayfs does not accept {}: the data directory must be on a filesystem that \
         can hold its upper layer, such as ext4, xfs or btrfs", dir.display()
    )]
    Overlay {
        /// Where the writable layer is.
        dir: PathBuf,
        /// Why not.
        #[source]
        source: Errno,
    },
    /// More layers than there can be.
    #[error("an image cannot have more than {MAX_LAYERS} layers")]
    TooManyLayers,
    /// The image has something else where a mount point must be.
    #[error("the image's {path} is not a directory, so nothing can be mounted there")]
    NotADirectory {
        /// Its path.
        path: &'static str,
    },
    /// Files from outside.
    #[error(transparent)]
    Mount(#[from] MountError),
}

/// A mounted root, in this process's own mount namespace.
#[derive(Debug)]
pub(super) struct Rootfs {
    base: PathBuf,
    root: OwnedFd,
    mounts: RefCell<Mounts>,
    /// Files of the host outside the helper machine, as long as the container is.
    _outside: Option<Outside>,
}

impl Rootfs {
    /// Leaves the caller's mount namespace and mounts the bundle's layers.
    pub(super) fn mount(bundle: &Bundle) -> Result<Self, RootfsError> {
        if bundle.layers.len() > MAX_LAYERS {
            return Err(RootfsError::TooManyLayers);
        }
        sys::unshare_mounts().map_err(RootfsError::Namespace)?;
        // While mounts of ours still spread as the host's do.
        let sources = mounts::open(bundle)?;
        // What the host mounts and unmounts still reaches us; nothing of ours reaches it.
        let downstream = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
        mount_change("/", downstream).map_err(prepare("detach mounts below", Path::new("/")))?;
        let base = base_of(&bundle.runtime_dir);
        let base_fd = mount_base(&base)?;
        let (sources, outside) = mounts::open_outside(bundle, sources, &base_fd)?;
        let mut lower = Vec::new();
        let mut mounter = LayerMounter::default();
        for (index, layer) in bundle.layers.iter().enumerate() {
            let name = index.to_string();
            make_dir(&base_fd, &name)?;
            let mounted = mounter.mount(layer)?;
            attach(&mounted, &base_fd, &name)?;
            lower.push(name);
        }
        if lower.is_empty() {
            make_dir(&base_fd, "none")?;
            lower.push("none".to_owned());
        }
        lower.reverse();
        overlay(bundle, &base, &base_fd, &lower)?;
        let root = open_path(&base_fd, "root").map_err(prepare("open", &base))?;
        let mounts = RefCell::new(Mounts::default());
        let rootfs = Self {
            base,
            root,
            mounts,
            _outside: outside,
        };
        rootfs.check_mount_points()?;
        let mounts = mounts::prepare(sources, bundle, rootfs.root())?;
        rootfs.mounts.replace(mounts);
        rootfs.place_etc_files(bundle, &base_fd)?;
        Ok(rootfs)
    }

    /// Where the root is mounted.
    pub(super) fn path(&self) -> PathBuf {
        self.base.join("root")
    }

    /// The root, for looking around in it.
    pub(super) fn root(&self) -> Root<'_> {
        Root::new(self.root.as_fd())
    }

    /// The files from outside, to be attached once the runtime has mounted everything else.
    pub(super) fn take_mounts(&self) -> Mounts {
        self.mounts.take()
    }

    /// The writable layer and what is below it, each as a tree of its own. For a process with
    /// mounts of its own, which this changes.
    pub(super) fn layers(&self, bundle: &Bundle) -> Result<Layers, RootfsError> {
        let base = open_path(CWD, &self.base).map_err(prepare("open", &self.base))?;
        let writable = match bundle.setup.rootfs.writable {
            WritableLayer::Disk => bundle.dir.clone(),
            WritableLayer::Memory => self.base.join("memory"),
        };
        let upper = writable.join("upper");
        let names: Vec<_> = (0..bundle.layers.len())
            .rev()
            .map(|n| n.to_string())
            .collect();
        let below = match &names[..] {
            [] => "none",
            [only] => only.as_str(),
            _ => {
                overlay_of(&self.base, &base, &names)?;
                "root"
            }
        };
        let open = |at: &OwnedFd, path: &Path| {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let opened = rustix::fs::openat(at, path, flags, Mode::empty());
            opened.map_err(prepare("open", path))
        };
        Ok(Layers {
            upper: open(&base, &upper)?,
            lower: open(&base, Path::new(below))?,
        })
    }

    /// The runtime puts nodes and links below these by plain path names, before it enters the
    /// container. A symbolic link here would make it write wherever the link says.
    fn check_mount_points(&self) -> Result<(), RootfsError> {
        for path in ["/dev", "/proc", "/sys"] {
            match self.root().type_of(Path::new(path)) {
                Ok(FileType::Directory) | Err(Errno::NOENT) => {}
                Ok(_) => return Err(RootfsError::NotADirectory { path }),
                Err(e) => return Err(prepare("look at", Path::new(path))(e)),
            }
        }
        Ok(())
    }

    /// Mounts the container's own /etc/hosts, /etc/resolv.conf and /etc/hostname over the
    /// image's, so that they stay out of its writable layer.
    fn place_etc_files(&self, bundle: &Bundle, base: &OwnedFd) -> Result<(), RootfsError> {
        let setup = &bundle.setup;
        for (name, contents) in [
            ("hosts", &setup.etc_hosts),
            ("resolv.conf", &setup.etc_resolv_conf),
            ("hostname", &setup.etc_hostname),
        ] {
            if contents.is_empty() {
                continue;
            }
            let path = Path::new("/etc").join(name);
            let target = self
                .root()
                .ensure(&path, Kind::File)
                .map_err(prepare("make", &path))?;
            let source = write_file(base, name, contents.as_bytes())
                .and_then(|()| {
                    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
                    open_tree(base, name, flags)
                })
                .map_err(prepare("write", &path))?;
            let flags =
                MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
            move_mount(&source, "", &target, "", flags).map_err(prepare("mount", &path))?;
        }
        Ok(())
    }

    /// Has the container's /etc/hosts and /etc/resolv.conf say what `names` says, where `before` was written.
    pub(super) fn renew_names(&self, before: &mut NameFiles, names: &NameFiles) {
        if let Ok(base) = open_path(CWD, &self.base) {
            let before = [&mut before.hosts, &mut before.resolv_conf];
            hullbox_session::names::renew_all(base, before, names);
        }
    }

    /// Takes everything away from this mount namespace. The container's own namespace must be
    /// gone for the filesystems to go too.
    pub(super) fn unmount(self) {
        drop(self.root);
        clear(&self.base);
    }
}

/// Takes away what is mounted at the base, a part or the whole.
pub(super) fn clear(base: &Path) {
    // Detached, because a straggler's descriptor must not keep the rest from going.
    let _ = unmount(base, UnmountFlags::DETACH);
    remove_leftovers(base);
}

/// Where a container's mounts are.
pub(super) fn base_of(runtime_dir: &Path) -> PathBuf {
    runtime_dir.join("rootfs")
}

/// Removes the empty mount point that a killed container leaves.
pub(super) fn remove_leftovers(base: &Path) {
    // Only an empty directory goes: never what might still be mounted there.
    let _ = rustix::fs::rmdir(base);
}

fn prepare(action: &'static str, path: &Path) -> impl FnOnce(Errno) -> RootfsError {
    let path = path.to_owned();
    move |source| RootfsError::Prepare {
        action,
        path,
        source,
    }
}

fn make_dir(at: &OwnedFd, name: &str) -> Result<(), RootfsError> {
    rustix::fs::mkdirat(at, name, Mode::from_raw_mode(0o755))
        .map_err(prepare("make directory", Path::new(name)))
}

fn open_path(at: impl AsFd, path: impl rustix::path::Arg) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(at, path, flags, Mode::empty())
}

fn write_file(at: &OwnedFd, name: &str, mut contents: &[u8]) -> Result<(), Errno> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let file = rustix::fs::openat(at, name, flags, Mode::from_raw_mode(0o644))?;
    // Whatever umask we run under, the container's users read these.
    rustix::fs::fchmod(&file, Mode::from_raw_mode(0o644))?;
    while !contents.is_empty() {
        let written = rustix::io::write(&file, contents)?;
        contents = &contents[written..];
    }
    Ok(())
}

/// Puts a detached mount at a name.
fn attach(mounted: &OwnedFd, at: &OwnedFd, name: &str) -> Result<(), RootfsError> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    move_mount(mounted, "", at, name, flags).map_err(prepare("mount layer", Path::new(name)))
}

/// A tmpfs for mount points and small files.
fn mount_base(base: &Path) -> Result<OwnedFd, RootfsError> {
    match rustix::fs::mkdir(base, Mode::from_raw_mode(0o700)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(e) => return Err(prepare("make directory", base)(e)),
    }
    let flags = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    tmpfs(&[("size", BASE_SIZE), ("mode", "0700")], flags)
        .and_then(|mounted| {
            move_mount(
                &mounted,
                "",
                CWD,
                base,
                MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
            )?;
            open_path(CWD, base)
        })
        .map_err(prepare("mount a tmpfs at", base))
}

fn tmpfs(options: &[(&str, &str)], flags: MountAttrFlags) -> Result<OwnedFd, Errno> {
    let fs = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&fs, "source", "hullbox")?;
    for &(key, value) in options {
        fsconfig_set_string(&fs, key, value)?;
    }
    fsconfig_create(&fs)?;
    fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, flags)
}

/// Mounts EROFS images, with whatever this kernel offers.
#[derive(Debug, Default)]
struct LayerMounter {
    /// This kernel's EROFS wants a block device (before Linux 6.12).
    needs_loop: bool,
    control: Option<OwnedFd>,
}

impl LayerMounter {
    fn mount(&mut self, path: &Path) -> Result<OwnedFd, RootfsError> {
        let failed = |source: std::io::Error| RootfsError::Layer {
            path: path.to_owned(),
            source,
        };
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let file = rustix::fs::open(path, flags, Mode::empty()).map_err(|e| failed(e.into()))?;
        if !self.needs_loop {
            match erofs(&file) {
                Err(Errno::NODEV) => {
                    return Err(RootfsError::NoFilesystem {
                        filesystem: "erofs",
                    });
                }
                Err(Errno::NOTBLK) => self.needs_loop = true,
                other => return other.map_err(|e| failed(e.into())),
            }
        }
        let device = self.loop_device(file.as_fd())?;
        erofs(&device).map_err(|e| failed(e.into()))
    }

    /// A loop device with the file behind it, which lasts as long as it is open or mounted.
    fn loop_device(&mut self, file: BorrowedFd<'_>) -> Result<OwnedFd, RootfsError> {
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        let control = match self.control.take() {
            Some(control) => control,
            None => rustix::fs::open("/dev/loop-control", flags, Mode::empty())
                .map_err(|e| RootfsError::NoLoop(e.into()))?,
        };
        let control = self.control.insert(control);
        let mut last = std::io::Error::from(Errno::BUSY);
        for _ in 0..LOOP_ATTEMPTS {
            let number = sys::free_loop_device(control.as_fd()).map_err(RootfsError::NoLoop)?;
            let flags = OFlags::RDONLY | OFlags::CLOEXEC;
            // The node of a device that was just made may take a moment to appear.
            let device = match rustix::fs::open(format!("/dev/loop{number}"), flags, Mode::empty())
            {
                Ok(device) => device,
                Err(e @ (Errno::NOENT | Errno::NXIO)) => {
                    last = e.into();
                    std::thread::sleep(std::time::Duration::from_millis(1));
                    continue;
                }
                Err(e) => return Err(RootfsError::NoLoop(e.into())),
            };
            match sys::configure_loop_device(device.as_fd(), file) {
                Ok(()) => return Ok(device),
                // Somebody else was offered the same device and came first.
                Err(e) if e.raw_os_error() == Some(libc::EBUSY) => last = e,
                Err(e) => return Err(RootfsError::NoLoop(e)),
            }
        }
        Err(RootfsError::NoLoop(last))
    }
}

/// A detached read-only mount of an EROFS image in an open file or block device. Named by its
/// descriptor: the kernel takes no longer path than 255 bytes here.
fn erofs(source: &OwnedFd) -> Result<OwnedFd, Errno> {
    let source = format!("/proc/self/fd/{}", source.as_raw_fd());
    let fs = fsopen("erofs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&fs, "source", source)?;
    fsconfig_set_flag(&fs, "ro")?;
    fsconfig_create(&fs)?;
    let flags = MountAttrFlags::MOUNT_ATTR_RDONLY;
    fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, flags)
}

/// Where a container's directory keeps the files that it has written.
#[must_use]
pub fn upper_dir(container_dir: &Path) -> PathBuf {
    container_dir.join("upper")
}

/// Stacks the layers (highest first) under a writable one and mounts the result as `root`.
fn overlay(
    bundle: &Bundle,
    base: &Path,
    base_fd: &OwnedFd,
    lower: &[String],
) -> Result<(), RootfsError> {
    make_dir(base_fd, "root")?;
    let (dir, dir_fd) = match bundle.setup.rootfs.writable {
        WritableLayer::Disk => {
            let fd = open_path(CWD, &bundle.dir).map_err(prepare("open", &bundle.dir))?;
            (bundle.dir.clone(), fd)
        }
        WritableLayer::Memory => {
            make_dir(base_fd, "memory")?;
            let mounted = tmpfs(&[("mode", "0700")], MountAttrFlags::empty())
                .map_err(prepare("mount a tmpfs at", base))?;
            attach(&mounted, base_fd, "memory")?;
            let fd = open_path(base_fd, "memory").map_err(prepare("open", base))?;
            (base.join("memory"), fd)
        }
    };
    let failed = prepare("prepare the writable layer in", &dir);
    make_writable(&dir_fd, base_fd, &lower[0]).map_err(failed)?;
    if !bundle.setup.persist {
        // Left by an earlier run that did not sync either: nothing is expected of this layer.
        let mark = "work/work/incompat/volatile";
        let _ = rustix::fs::unlinkat(&dir_fd, format!("{mark}/dirty"), AtFlags::empty());
        let _ = rustix::fs::unlinkat(&dir_fd, mark, AtFlags::REMOVEDIR);
    }
    // Relative names for the layers, so that 127 of them fit into the one page that mount(2)
    // takes; a descriptor for the writable layer, whose path may contain what separates options.
    let number = dir_fd.as_raw_fd();
    // The guest agent's options: directories of the image can be renamed, no feature that would tie
    // the writable layer to these lower filesystems, and no waiting for the disk on behalf of a
    // layer that ends with the run. Without the last, the end of every container would sync the
    // whole filesystem of the upper layer.
    let volatile = if bundle.setup.persist {
        ""
    } else {
        ",volatile"
    };
    let options = format!(
        "lowerdir={},upperdir=/proc/self/fd/{number}/upper,workdir=/proc/self/fd/{number}/work,\
         index=off,metacopy=off,redirect_dir=on,xino=on{volatile}",
        lower.join(":")
    );
    let options = CString::new(options).map_err(|_| prepare("stack", base)(Errno::INVAL))?;
    let here = open_path(CWD, ".").map_err(prepare("open", Path::new(".")))?;
    rustix::process::fchdir(base_fd).map_err(prepare("enter", base))?;
    let mounted = mount(
        "overlay",
        "root",
        "overlay",
        MountFlags::empty(),
        options.as_c_str(),
    );
    rustix::process::fchdir(&here).map_err(prepare("return from", base))?;
    match mounted {
        Ok(()) => Ok(()),
        Err(Errno::NODEV) => Err(RootfsError::NoFilesystem {
            filesystem: "overlay",
        }),
        Err(source) => Err(RootfsError::Overlay { dir, source }),
    }
}

/// Mounts layers (highest first) as one read-only tree over `root`.
fn overlay_of(base: &Path, base_fd: &OwnedFd, lower: &[String]) -> Result<(), RootfsError> {
    let options = CString::new(format!("lowerdir={}", lower.join(":")));
    let options = options.map_err(|_| prepare("stack", base)(Errno::INVAL))?;
    // Relative names, as above. This process is about to go elsewhere anyway.
    rustix::process::fchdir(base_fd).map_err(prepare("enter", base))?;
    let flags = MountFlags::RDONLY;
    mount("overlay", "root", "overlay", flags, options.as_c_str()).map_err(prepare("stack", base))
}

/// Makes the writable layer's directories. Its root is the container's `/`: when it is new, it
/// gets mode and owner of the topmost layer's.
fn make_writable(dir: &OwnedFd, base: &OwnedFd, top: &str) -> Result<(), Errno> {
    let mode = Mode::from_raw_mode(0o755);
    match rustix::fs::mkdirat(dir, "work", mode) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(e) => return Err(e),
    }
    match rustix::fs::mkdirat(dir, "upper", mode) {
        Ok(()) => {}
        Err(Errno::EXIST) => return Ok(()),
        Err(e) => return Err(e),
    }
    let stat = rustix::fs::statat(base, top, AtFlags::SYMLINK_NOFOLLOW)?;
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    let flags = AtFlags::SYMLINK_NOFOLLOW;
    rustix::fs::chownat(dir, "upper", Some(uid), Some(gid), flags)?;
    let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
    rustix::fs::chmodat(dir, "upper", mode, AtFlags::empty())
}
