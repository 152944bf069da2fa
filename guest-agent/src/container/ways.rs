//! The ways into a container: of its workload, of an errand in its place, and of who joins it.

use super::files::Clones;
use super::{confine, mounts, network, rootfs, tmpfs};
use crate::failure::failed;
use crate::process::{Place, Root};
use crate::sys;
use hullbox_protocol::{Builtin, Failure, FailureKind, ProcessSpec, Setup};
use rustix::fs::{Mode, OFlags};
use rustix::thread::ThreadNameSpaceType;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// The workload's: everything is made for it.
pub(super) struct Workload<'a> {
    pub(super) setup: &'a Setup,
    /// The root that the agent put together, as a mount of its own.
    pub(super) root: OwnedFd,
    /// Where it goes if it has no interface.
    pub(super) network: Option<OwnedFd>,
    /// What its mounts are made of.
    pub(super) files: Option<OwnedFd>,
    pub(super) names: mounts::Names,
    /// What is hidden and read-only is so already.
    pub(super) confined: bool,
}

impl Root for Workload<'_> {
    fn enter(&self, _: &ProcessSpec) -> Result<(), Failure> {
        let setup = self.setup;
        let access = &setup.access;
        if !setup.hostname.is_empty() {
            rustix::system::sethostname(setup.hostname.as_bytes())
                .map_err(failed("cannot set the host name"))?;
        }
        if let Some(network) = &self.network {
            network::enter(network.as_fd())?;
            // The one that there is shows the guest's card.
            mounts::stage_sys(access)?;
            if self.confined {
                confine::confine_sys(access, mounts::STAGE)?;
            }
        }
        let devices = confine::machine_devices(access);
        let clones = Clones::take(setup, self.files.as_ref().map(AsFd::as_fd))?;
        rootfs::attach(self.root.as_fd())?;
        mounts::move_system(rootfs::ROOT)?;
        rootfs::move_in()?;
        mounts::size_shm(setup.shm_size_bytes)?;
        clones.place_all(setup, tmpfs::mount)?;
        self.names.place(setup, setup.rootfs.read_only)?;
        mounts::write_machine_id(setup)?;
        confine::make_devices(&devices)?;
        confine::make_devices(&access.devices)?;
        if self.confined {
            return Ok(());
        }
        confine::confine(access, "")
    }

    fn filter(&self) -> &[u8] {
        &self.setup.access.filter
    }

    fn init(&self) -> bool {
        self.setup.init
    }

    fn timed(&self) -> bool {
        self.setup.timed
    }

    fn console(&self) -> bool {
        true
    }

    fn seal(&self) -> Result<(), Failure> {
        if self.setup.rootfs.read_only {
            rootfs::make_read_only()?;
        }
        Ok(())
    }
}

/// That of a builtin in a container that does not run.
pub(super) struct Errand<'a> {
    pub(super) setup: &'a Setup,
}

impl Root for Errand<'_> {
    fn place(&self, builtin: &Builtin) -> Result<Place, Failure> {
        let setup = self.setup;
        if hullbox_archive::needs_layers(builtin) {
            return rootfs::layers(setup).map(Place::Layers);
        }
        // As Docker has a container that does not run: its files and names, volumes and nothing else
        // mounted.
        let names = mounts::Names::prepare()?;
        let clones = Clones::take(setup, None)?;
        rootfs::stack(setup)?;
        rootfs::move_in()?;
        clones.place_all(setup, |_| Ok(()))?;
        names.place(setup, false)?;
        own_root()
    }
}

/// That of a process that joins a running container.
pub(super) struct Joined<'a> {
    pub(super) workload: BorrowedFd<'a>,
    pub(super) setup: &'a Setup,
}

impl Root for Joined<'_> {
    fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        vec![self.workload]
    }

    fn enter(&self, _: &ProcessSpec) -> Result<(), Failure> {
        let kinds = ThreadNameSpaceType::MOUNT
            | ThreadNameSpaceType::CONTROL_GROUP
            | ThreadNameSpaceType::NETWORK;
        rustix::thread::move_into_thread_name_spaces(self.workload, kinds)
            .map_err(failed("cannot join the container"))
    }

    fn place(&self, builtin: &Builtin) -> Result<Place, Failure> {
        if hullbox_archive::needs_layers(builtin) {
            // The layers a second time, seen by nobody else.
            sys::unshare_mounts().map_err(failed("cannot look at the layers"))?;
            return rootfs::layers(self.setup).map(Place::Layers);
        }
        rustix::thread::move_into_thread_name_spaces(self.workload, ThreadNameSpaceType::MOUNT)
            .map_err(failed("cannot join the container"))?;
        own_root()
    }

    fn filter(&self) -> &[u8] {
        &self.setup.access.filter
    }

    fn makes_cwd(&self) -> bool {
        false
    }

    /// As Docker has it for `exec`.
    fn lacks_cwd(&self) -> FailureKind {
        FailureKind::NotFound
    }
}

/// The root that a process is in by now.
fn own_root() -> Result<Place, Failure> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open("/", flags, Mode::empty())
        .map(Place::Root)
        .map_err(failed("cannot open the root filesystem"))
}
