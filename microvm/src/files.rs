//! Files from outside: what the guest is told of them, who serves them, and block volumes.
//!
//! ```text
//! Mount ─┬─ Here, Outside ─► export of `hullbox __files`, by number ─► the guest's virtio-fs device
//!        └─ Disk ──────────► a disk behind the writable layer's
//! ```

use crate::error::GuestError;
use hullbox_backend::bundle::Bundle;
use hullbox_backend::mount::{Mount, MountSource};
use hullbox_files::{Export, Process, Starting, launch, outside};
use hullbox_protocol::{FileMount, FileSource, UserSpec};
use hullbox_vmm::{DiskConfig, Vm};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Most block volumes of a guest: with the layers' disk and the writable layer's, the VMM's most disks.
pub(crate) const MAX_VOLUMES: usize = hullbox_vmm::MAX_DISKS - 2;
/// How long a server may take to make itself ready.
const READY_LIMIT: Duration = Duration::from_secs(30);

/// How many disks a container has besides those that every guest has.
#[must_use]
pub fn volume_disks(mounts: &[Mount]) -> u8 {
    let disks = Plan::of(mounts, (0, 0)).disks.len();
    u8::try_from(disks).unwrap_or(u8::MAX)
}

/// What a container's mounts come to.
#[derive(Debug, Default)]
struct Plan {
    exports: Vec<Export>,
    /// Images, and whether nothing is written to any.
    disks: Vec<(PathBuf, bool)>,
    mounts: Vec<FileMount>,
}

impl Plan {
    /// `owner` is the user in the guest whose files an ordinary user's own are.
    fn of(mounts: &[Mount], owner: (u32, u32)) -> Self {
        let mut plan = Self::default();
        for mount in mounts {
            let fills = wants_files(mount);
            let source = plan.source(mount, owner, mount.read_only && !fills);
            plan.mounts.push(FileMount {
                source,
                target: mount.target.clone(),
                directory: is_directory(&mount.source),
                read_only: mount.read_only,
                copy_up: mount.copy_up && (fills || !mount.read_only),
            });
        }
        plan
    }

    fn source(&mut self, mount: &Mount, (user, group): (u32, u32), read_only: bool) -> FileSource {
        let (path, outside) = match &mount.source {
            MountSource::Disk(path) => return FileSource::Disk(self.disk(path, read_only)),
            MountSource::Here(path) => (path, false),
            MountSource::Outside(path) => (path, true),
        };
        let export = Export {
            subpath: PathBuf::from(&mount.subpath),
            outside,
            read_only,
            recursive: mount.recursive,
            volume: mount.volume,
            exclusive: false,
            user,
            group,
            ..Export::of(path)
        };
        let found = self.exports.iter().position(|known| *known == export);
        FileSource::Export(number(found.unwrap_or_else(|| {
            self.exports.push(export);
            self.exports.len() - 1
        })))
    }

    fn disk(&mut self, path: &Path, read_only: bool) -> u32 {
        let found = self.disks.iter().position(|(known, _)| known == path);
        number(match found {
            Some(at) => {
                self.disks[at].1 &= read_only;
                at
            }
            None => {
                self.disks.push((path.to_owned(), read_only));
                self.disks.len() - 1
            }
        })
    }
}

/// A place in a list of at most `MAX_MOUNTS`.
fn number(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}

/// Whether it is a volume with nothing in it, which gets what the image has. Then the guest has to write it,
/// also where its workload may not: there is nothing yet that could be lost.
fn wants_files(mount: &Mount) -> bool {
    match &mount.source {
        MountSource::Here(path) if mount.copy_up && mount.subpath.is_empty() => {
            fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none())
        }
        _ => false,
    }
}

/// What is elsewhere, the agent sees for itself, and what is here as well.
fn is_directory(source: &MountSource) -> bool {
    match source {
        MountSource::Here(path) => fs::metadata(path).map_or(true, |metadata| metadata.is_dir()),
        MountSource::Outside(_) | MountSource::Disk(_) => true,
    }
}

/// The ids of the container's user, as far as they can be told without its image.
fn owner_of(bundle: &Bundle) -> (u32, u32) {
    match &bundle.process.user {
        UserSpec::Ids { uid, gid, .. } => (*uid, *gid),
        UserSpec::Named { user, .. } => {
            let (user, group) = user.split_once(':').unwrap_or((user, ""));
            let user = user.parse().unwrap_or(0);
            (user, group.parse().unwrap_or(0))
        }
    }
}

/// A container's files from outside, as long as its guest runs.
#[derive(Debug, Default)]
pub(crate) struct Files {
    exports: Vec<Export>,
    /// For the next guest.
    starting: Option<Starting>,
    /// Of the guest that runs.
    process: Option<Process>,
    pub(crate) disks: Vec<DiskConfig>,
    /// The images, which nobody else has meanwhile.
    _locks: Vec<File>,
}

impl Files {
    /// Has them served, and says in the bundle's setup what the guest is to mount.
    pub(crate) fn of(bundle: &mut Bundle) -> Result<Self, GuestError> {
        if bundle.mounts.is_empty() {
            return Ok(Self::default());
        }
        let plan = Plan::of(&bundle.mounts, owner_of(bundle));
        if plan.disks.len() > MAX_VOLUMES {
            return Err(GuestError::Volumes(plan.disks.len()));
        }
        let is_part = |mount: &&Mount| {
            matches!(mount.source, MountSource::Disk(_)) && !mount.subpath.is_empty()
        };
        if let Some(mount) = bundle.mounts.iter().find(is_part) {
            return Err(GuestError::VolumeSubpath(mount.target.clone()));
        }
        let mut files = Self {
            exports: plan.exports,
            ..Self::default()
        };
        // It makes itself ready while all else of the guest is made.
        files.starting = files.serve()?;
        for (path, read_only) in plan.disks {
            files._locks.push(lock(&path, read_only)?);
            files.disks.push(DiskConfig {
                files: vec![path],
                read_only,
            });
        }
        bundle.setup.mounts = plan.mounts;
        Ok(files)
    }

    fn serve(&self) -> Result<Option<Starting>, GuestError> {
        if self.exports.is_empty() {
            return Ok(None);
        }
        let starting = match self.exports.iter().all(|export| export.outside) {
            true => outside::dial(&self.exports),
            false => launch::start(&self.exports),
        };
        starting.map(Some).map_err(GuestError::Files)
    }

    /// Connects a guest that has not run yet with a server of its own.
    pub(crate) fn connect(&mut self, vm: &Vm) -> Result<(), GuestError> {
        let starting = match self.starting.take() {
            Some(starting) => Some(starting),
            None => self.serve()?,
        };
        let Some(starting) = starting else {
            return Ok(());
        };
        let started = starting.finish(READY_LIMIT).map_err(GuestError::Files)?;
        // That of a guest before it ends now.
        self.process = started.process;
        vm.connect_files(started.connection)
            .map_err(GuestError::Vmm)
    }

    /// Whether there are any.
    pub(crate) const fn are_there(&self) -> bool {
        !self.exports.is_empty() || !self.disks.is_empty()
    }
}

/// Takes hold of a block volume's image: nobody else writes to it, or writes while this one reads.
fn lock(path: &Path, read_only: bool) -> Result<File, GuestError> {
    let volume = |source: std::io::Error| GuestError::Volume {
        path: path.to_owned(),
        source,
    };
    let file = File::options()
        .read(true)
        .write(!read_only)
        .open(path)
        .map_err(volume)?;
    let operation = match read_only {
        true => FlockOperation::NonBlockingLockShared,
        false => FlockOperation::NonBlockingLockExclusive,
    };
    match flock(&file, operation) {
        Ok(()) => Ok(file),
        Err(Errno::WOULDBLOCK) => Err(GuestError::VolumeInUse(path.to_owned())),
        Err(errno) => Err(volume(errno.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(source: MountSource, target: &str, read_only: bool) -> Mount {
        Mount {
            source,
            subpath: String::new(),
            target: target.into(),
            read_only,
            recursive: true,
            writable_submounts: false,
            propagation: hullbox_backend::mount::Propagation::default(),
            copy_up: false,
            volume: false,
        }
    }

    #[test]
    fn only_an_empty_volume_is_written_by_who_may_only_read_it() {
        let volume = tempfile::tempdir().unwrap();
        let plan = || {
            let here = MountSource::Here(volume.path().to_owned());
            let filled = Mount {
                copy_up: true,
                ..mount(here, "/v", true)
            };
            let plan = Plan::of(&[filled], (0, 0));
            (plan.exports[0].read_only, plan.mounts[0].copy_up)
        };
        assert_eq!(plan(), (false, true));
        fs::write(volume.path().join("file"), "").unwrap();
        assert_eq!(plan(), (true, false));
    }

    #[test]
    fn the_same_files_are_one_export_and_another_right_is_another() {
        let here = |path: &str| MountSource::Here(path.into());
        let plan = Plan::of(
            &[
                mount(here("/a"), "/1", false),
                mount(here("/a"), "/2", false),
                mount(here("/a"), "/3", true),
                mount(MountSource::Outside("/a".into()), "/4", false),
                mount(here("/b"), "/5", false),
            ],
            (5, 6),
        );
        let sources: Vec<_> = plan.mounts.iter().map(|mount| mount.source).collect();
        assert_eq!(sources, [0, 0, 1, 2, 3].map(FileSource::Export));
        let outside: Vec<_> = plan.exports.iter().map(|export| export.outside).collect();
        assert_eq!(outside, [false, false, true, false]);
        assert!(plan.exports[1].read_only && !plan.exports[0].read_only);
        assert_eq!((plan.exports[3].user, plan.exports[3].group), (5, 6));
        assert_eq!(plan.exports[3].source, Path::new("/b"));
    }

    #[test]
    fn a_volume_is_one_disk_that_is_written_to_if_anybody_does() {
        let disk = |path: &str| MountSource::Disk(path.into());
        let mounts = [
            mount(disk("/v"), "/1", true),
            mount(disk("/w"), "/2", true),
            mount(disk("/v"), "/3", false),
        ];
        let plan = Plan::of(&mounts, (0, 0));
        let disks = [("/v".into(), false), ("/w".into(), true)];
        assert_eq!(plan.disks, disks);
        let sources: Vec<_> = plan.mounts.iter().map(|mount| mount.source).collect();
        assert_eq!(sources, [0, 1, 0].map(FileSource::Disk));
        assert_eq!(volume_disks(&mounts), 2);
        assert_eq!(volume_disks(&[]), 0);
    }

    #[test]
    fn one_writer_has_a_volume_or_several_readers() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let readers = [(); 2].map(|()| lock(file.path(), true).unwrap());
        let in_use = |read_only| match lock(file.path(), read_only) {
            Err(GuestError::VolumeInUse(path)) => path == file.path(),
            _ => false,
        };
        assert!(in_use(false));
        drop(readers);
        let _writer = lock(file.path(), false).unwrap();
        assert!(in_use(false) && in_use(true));
        assert!(matches!(
            lock(Path::new("/nowhere"), false),
            Err(GuestError::Volume { .. })
        ));
    }
}
