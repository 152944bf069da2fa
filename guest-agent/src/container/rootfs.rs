//! The root filesystem: layers, the writable one above them, and moving in.

use super::disk_failure::Errors;
use super::reserve::Lent;
use super::volatile;
use crate::failure::{failed, setup as setup_failure};
use crate::sys;
use hullbox_archive::Layers;
use hullbox_protocol::{Failure, LayerDisk, Setup, WritableLayer};
use rustix::fs::{CWD, Gid, Mode, OFlags, SeekFrom, StatVfsMountFlags, Uid};
use rustix::io::Errno;
use rustix::mount::{
    MountFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount, mount_move, mount_remount,
    move_mount, open_tree, unmount,
};
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

/// The disk with the layers, and the one for writes.
const LAYER_DISK: &str = "/dev/vda";
const WRITABLE_DISK: &str = "/dev/vdb";

/// Read-ahead of the layers' disk: 512 KiB.
const READ_AHEAD_SECTORS: libc::c_ulong = 1024;

/// Where layers are stacked from; short, because 127 of them must fit one page of options.
const LAYERS: &str = "/l";
/// Where the writable layer is mounted.
const WRITABLE: &str = "/w";
/// Where the whole is put together before it becomes `/`.
pub(super) const ROOT: &str = "/r";
/// How long a disk may take to get its size, and how often that is looked at.
const DISK_TIME: Duration = Duration::from_secs(5);
const DISK_PAUSE: Duration = Duration::from_micros(200);
/// More layers than this are no image that Docker would make.
const MAX_LAYERS: usize = 200;

fn directory(path: &str) -> Result<(), Failure> {
    match rustix::fs::mkdir(path, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(failed(format_args!("cannot make {path}"))(errno)),
    }
}

/// The agent's own part, in its own mount namespace: a writable layer that outlives
/// the container's namespace, so that it can be brought to rest afterwards.
#[derive(Debug)]
pub(super) struct Writable {
    mounted: OwnedFd,
    errors: Errors,
}

impl Writable {
    /// Mounts it. Only one that lives on a disk has to be brought to rest.
    pub(super) fn mount(setup: &Setup) -> Result<Option<Self>, Failure> {
        directory(WRITABLE)?;
        if setup.rootfs.writable == WritableLayer::Memory {
            mount("tmpfs", WRITABLE, "tmpfs", MountFlags::NOATIME, c"mode=755")
                .map_err(failed("cannot mount memory for writes"))?;
            return Ok(None);
        }
        let what = || failed("cannot mount the writable layer");
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let disk = rustix::fs::open(WRITABLE_DISK, flags, Mode::empty()).map_err(what())?;
        await_disk(disk.as_fd()).map_err(what())?;
        let mount_with = |options: &CStr| {
            mount(
                WRITABLE_DISK,
                WRITABLE,
                "ext4",
                MountFlags::NOATIME,
                options,
            )
        };
        // Its inode tables are zero already; nobody should be busy with writing them. What does
        // not outlive the run need not wait for the disk either, and no journal is to bring it into
        // order after a crash: that costs writes, and a kernel thread.
        let mounted = if setup.persist {
            mount_with(c"noinit_itable")
        } else {
            // With a journal where one has to be replayed: somebody copied files into it and was killed.
            mount_with(c"noinit_itable,nobarrier,noload")
                .or_else(|_| mount_with(c"noinit_itable,nobarrier"))
        };
        mounted.map_err(what())?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let mounted = rustix::fs::open(WRITABLE, flags, Mode::empty()).map_err(what())?;
        if setup.persist {
            volatile::refuse_marked(mounted.as_fd())?;
        }
        let errors = Errors::default();
        Ok(Some(Self { mounted, errors }))
    }

    /// Ends it if its file system has given up since the last call: see [`Errors::end_failed`].
    pub(super) fn end_failed(&mut self) -> Result<bool, Errno> {
        self.errors.end_failed(self.mounted.as_fd())
    }

    /// Before this guest is copied: what says that nobody syncs its files is on its disk, for copies that end
    /// before it would get there by itself.
    pub(super) fn sync_mark(&self) -> Result<(), Errno> {
        match volatile::is_marked(self.mounted.as_fd()) {
            true => rustix::fs::syncfs(&self.mounted),
            false => Ok(()),
        }
    }

    /// Everything on the disk, and the filesystem clean, now that nobody writes.
    pub(super) fn settle(&self) -> Result<(), Errno> {
        // An errand's root was its own. Whoever holds this one open writes nothing any more.
        let _ = unmount(ROOT, UnmountFlags::DETACH);
        if volatile::is_marked(self.mounted.as_fd()) {
            // This guest is a copy of one whose disk was not to outlive its run: without barriers
            // until now, and with the mark, which must not go before everything else is on the disk.
            mount_remount(WRITABLE, MountFlags::NOATIME, c"barrier")?;
            rustix::fs::syncfs(&self.mounted)?;
            volatile::unmark(self.mounted.as_fd())?;
        }
        if mount_remount(WRITABLE, MountFlags::RDONLY, c"").is_ok() {
            return Ok(());
        }
        // Something is still open for writing: at least all data is safe then.
        rustix::fs::syncfs(&self.mounted)
    }
}

/// Waits until there is something behind a disk. A guest that began as a copy had disks of no size;
/// the kernel hears of theirs when it goes on, and tells nobody whom the agent could ask cheaply.
pub(super) fn await_disk(disk: BorrowedFd<'_>) -> Result<(), Errno> {
    let deadline = Instant::now() + DISK_TIME;
    while rustix::fs::seek(disk, SeekFrom::End(0))? == 0 {
        if Instant::now() > deadline {
            return Err(Errno::NXIO);
        }
        std::thread::sleep(DISK_PAUSE);
    }
    Ok(())
}

/// Puts the container's root together, as a mount that another mount namespace can take in.
///
/// The agent does this and keeps the layers: they are in nobody's way when the workload's namespace
/// ends, and its end is not held up by taking them down.
pub(super) fn assemble(setup: &Setup) -> Result<OwnedFd, Failure> {
    stack(setup)?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    open_tree(CWD, ROOT, flags).map_err(failed("cannot pass on the root filesystem"))
}

/// Takes in what was assembled.
pub(super) fn attach(tree: BorrowedFd<'_>) -> Result<(), Failure> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    move_mount(tree, "", CWD, ROOT, flags).map_err(failed("cannot mount the root filesystem"))
}

/// Stacks the container's root out of the disks.
pub(super) fn stack(setup: &Setup) -> Result<(), Failure> {
    directory(ROOT)?;
    let lower = mount_layers(&setup.rootfs.layers)?;
    let top = lower.first().cloned();
    let (upper, work) = (format!("{WRITABLE}/upper"), format!("{WRITABLE}/work"));
    make_upper(&upper, top.as_deref())?;
    directory(&work)?;
    // Directories of the image can be renamed. No feature that would tie the writable layer to these
    // lower filesystems by their inodes, or that the container backend could not read. Volatile:
    // nobody waits for the disk on behalf of a layer that ends with the run.
    let volatile = if setup.persist { "" } else { ",volatile" };
    let options = format!(
        "lowerdir={},upperdir={upper},workdir={work},index=off,metacopy=off,redirect_dir=on,\
         xino=on{volatile}",
        lower.join(":")
    );
    let options = CString::new(options).map_err(|_| setup_failure("overlay options"))?;
    let what = || failed("cannot stack the layers");
    let stack = || mount("overlay", ROOT, "overlay", MountFlags::empty(), &*options);
    stack().map_err(what())?;
    if is_read_only(ROOT) {
        // Overlayfs makes a directory first, and where it finds no block for that it does without
        // writing: the disk is full to the last block.
        unmount(ROOT, UnmountFlags::empty()).map_err(what())?;
        let _lent = Lent::take().map_err(failed("cannot find room on the full disk"))?;
        stack().map_err(what())?;
    }
    Ok(())
}

fn is_read_only(path: &str) -> bool {
    let stat = rustix::fs::statvfs(path);
    stat.is_ok_and(|stat| stat.f_flag.contains(StatVfsMountFlags::RDONLY))
}

/// The writable layer and what is below it, each as a tree of its own. Changes mounts.
pub(super) fn layers(setup: &Setup) -> Result<Layers, Failure> {
    directory(ROOT)?;
    let lower = mount_layers(&setup.rootfs.layers)?;
    let upper = format!("{WRITABLE}/upper");
    make_upper(&upper, lower.first().map(String::as_str))?;
    let what = || failed("cannot look at the layers");
    let below = match &lower[..] {
        [only] => only.as_str(),
        _ => {
            let options = format!("lowerdir={}", lower.join(":"));
            let options = CString::new(options).map_err(|_| setup_failure("overlay options"))?;
            mount("overlay", ROOT, "overlay", MountFlags::RDONLY, &*options).map_err(what())?;
            ROOT
        }
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let open = |path: &str| rustix::fs::open(path, flags, Mode::empty()).map_err(what());
    Ok(Layers {
        upper: open(&upper)?,
        lower: open(below)?,
    })
}

/// Mounts the layers; gives their paths, the topmost first.
fn mount_layers(layers: &[LayerDisk]) -> Result<Vec<String>, Failure> {
    if layers.len() > MAX_LAYERS {
        return Err(setup_failure(format_args!(
            "{} layers are too many",
            layers.len()
        )));
    }
    directory(LAYERS)?;
    if layers.is_empty() {
        // An image without layers is an empty root.
        return Ok(vec![LAYERS.to_owned()]);
    }
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let disk = rustix::fs::open(LAYER_DISK, flags, Mode::empty())
        .map_err(failed("cannot open the layers' disk"))?;
    await_disk(disk.as_fd()).map_err(failed("cannot use the layers' disk"))?;
    // Every request costs exits and a wake-up of the VMM, and what lies behind it is mostly
    // the host's page cache: few large requests are cheaper. Without it all works as well.
    let _ = sys::set_read_ahead(disk.as_fd(), READ_AHEAD_SECTORS);
    let whole = layers.len() == 1 && layers[0].offset_bytes == 0;
    let mut paths = Vec::with_capacity(layers.len());
    for (index, layer) in layers.iter().enumerate() {
        let device = if whole {
            LAYER_DISK.to_owned()
        } else {
            let number = index + 1;
            let (start, length) = (layer.offset_bytes, layer.length_bytes);
            match sys::add_partition(disk.as_fd(), number, start, length) {
                // There already, and in use: for a second look at a running container's layers.
                Ok(()) | Err(Errno::BUSY) => {}
                Err(e) => return Err(failed(format_args!("cannot find layer {number}"))(e)),
            }
            format!("{LAYER_DISK}{number}")
        };
        let path = format!("{LAYERS}/{index}");
        directory(&path)?;
        match mount(device, path.as_str(), "erofs", MountFlags::RDONLY, None) {
            // There already, as above.
            Ok(()) | Err(Errno::BUSY) => {}
            Err(e) => return Err(failed(format_args!("cannot mount layer {}", index + 1))(e)),
        }
        paths.push(path);
    }
    paths.reverse();
    Ok(paths)
}

/// The writable layer's root is the container's `/`: on its first use it looks like
/// that of the image.
fn make_upper(upper: &str, top: Option<&str>) -> Result<(), Failure> {
    match rustix::fs::mkdir(upper, Mode::from_raw_mode(0o755)) {
        Ok(()) => {}
        Err(Errno::EXIST) => return Ok(()),
        Err(errno) => return Err(failed("cannot make the writable layer")(errno)),
    }
    let Some(stat) = top.and_then(|top| rustix::fs::stat(top).ok()) else {
        return Ok(());
    };
    let what = || failed("cannot prepare the writable layer");
    let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
    let owner = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    rustix::fs::chown(upper, Some(owner.0), Some(owner.1)).map_err(what())?;
    rustix::fs::chmod(upper, mode).map_err(what())
}

/// Puts the finished root over the initramfs, which cannot be pivoted away from.
pub(super) fn move_in() -> Result<(), Failure> {
    let what = || failed("cannot enter the root filesystem");
    rustix::process::chdir(ROOT).map_err(what())?;
    mount_move(".", "/").map_err(what())?;
    rustix::process::chroot(".").map_err(what())?;
    rustix::process::chdir("/").map_err(what())
}

/// No more writes to the root, though to what is mounted in it.
pub(super) fn make_read_only() -> Result<(), Failure> {
    mount_remount("/", MountFlags::BIND | MountFlags::RDONLY, c"")
        .map_err(failed("cannot make the root filesystem read-only"))
}

/// Forgets the agent's own mount of the writable layer.
pub(super) fn unmount_writable() {
    let _ = unmount(WRITABLE, UnmountFlags::DETACH);
}
