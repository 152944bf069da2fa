//! Where a guest begins: at a template, where it was saved, or at the kernel's entry.

use crate::disks::OwnDisk;
use crate::error::GuestError;
use crate::files::Files;
use crate::network::Links;
use crate::shape::{arranged, shape};
use crate::snapshots::{self, SavedGuestError};
use crate::templates;
use hullbox_backend::backend::BegunFrom;
use hullbox_backend::bundle::GuestSize;
use hullbox_host::clock::wall_clock_ns;
use hullbox_host::error::chain;
use hullbox_host::timing::{Phase, Timing};
use hullbox_protocol::Setup;
use hullbox_vmm::{DiskConfig, Foundation, RunningVm, SerialConfig, Step, Vm, VmConfig};
use std::path::{Path, PathBuf};

/// What was prepared for a guest before it was known what runs in it.
#[derive(Debug, Default)]
pub struct Ahead {
    foundation: Option<Foundation>,
    /// Of how many disks besides the usual.
    disks: u8,
    /// The id of the template it begins at.
    template: Option<String>,
    /// It goes on from a snapshot, or from nowhere.
    revived: Option<Result<Revived, SavedGuestError>>,
    /// What the user should hear about it.
    warning: Option<String>,
}

/// A guest that goes on from a snapshot.
#[derive(Debug)]
struct Revived {
    dir: PathBuf,
    both_disks: bool,
    foundation: Foundation,
}

impl Ahead {
    /// Where the snapshot is that it goes on from, if it does.
    pub(crate) fn snapshot(&mut self) -> Result<Option<&Path>, GuestError> {
        match self.revived.take_if(|revived| revived.is_err()) {
            Some(Err(error)) => Err(GuestError::Snapshot(Box::new(error))),
            _ => Ok(self.revived.as_ref().and_then(|revived| {
                let revived = revived.as_ref().ok()?;
                Some(revived.dir.as_path())
            })),
        }
    }

    /// Whether it will do for a guest with so many disks besides the usual.
    #[must_use]
    pub const fn fits(&self, disks: u8) -> bool {
        self.disks == disks || self.revived.is_some()
    }

    /// There was a template, and it could not be used.
    #[must_use]
    pub const fn found_useless_template(&self) -> bool {
        self.warning.is_some()
    }

    /// There was no template, or none that can be used.
    #[must_use]
    pub const fn found_no_template(&self) -> bool {
        self.template.is_none()
    }
}

/// What of a guest can be made before it is known what runs in it: one that begins at a template,
/// if it may and there is one, or what of one that boots does not depend on its disks.
#[must_use]
pub fn prepare(size: GuestSize, data: &Path, policy: templates::Policy, timing: &Timing) -> Ahead {
    let mut ahead = Ahead {
        disks: size.disks,
        ..Ahead::default()
    };
    if policy == templates::Policy::Auto {
        match templates::restore(size, data, timing) {
            Ok(Some((foundation, id))) => {
                (ahead.foundation, ahead.template) = (Some(foundation), Some(id));
            }
            Ok(None) => {}
            Err(error) => ahead.warning = Some(cold_because(&chain(&error))),
        }
    }
    if ahead.foundation.is_none() {
        // Whatever goes wrong here goes wrong once more, and is told, when the guest is to start.
        let foundation = shape(size, data).map(Foundation::new);
        ahead.foundation = foundation.ok().and_then(Result::ok);
    }
    if let Some(foundation) = &ahead.foundation {
        mark_steps(foundation, timing);
    }
    ahead
}

/// The same of a guest that goes on from a snapshot.
#[must_use]
pub fn revive(dir: &Path, data: &Path, timing: &Timing) -> Ahead {
    let revived = snapshots::restore(dir, data, timing).map(|(saved, foundation)| Revived {
        dir: dir.to_owned(),
        both_disks: saved.both_disks,
        foundation,
    });
    if let Ok(revived) = &revived {
        mark_steps(&revived.foundation, timing);
    }
    Ahead {
        revived: Some(revived),
        ..Ahead::default()
    }
}

fn mark_steps(foundation: &Foundation, timing: &Timing) {
    for (step, moment) in foundation.steps() {
        let phase = match step {
            Step::MemoryMap => Phase::MemoryMap,
            Step::VmCreate => Phase::VmCreate,
            Step::KernelLoad => Phase::KernelLoad,
            Step::StateRestore => Phase::StateRestore,
        };
        timing.mark_at(phase, *moment);
    }
}

/// What it takes to boot a guest.
#[derive(Debug)]
pub(crate) struct Spare {
    /// Without disks.
    pub(crate) config: VmConfig,
    pub(crate) layers: Option<DiskConfig>,
    pub(crate) own_disk: Option<OwnDisk>,
    pub(crate) files: Files,
    /// What carries its frames.
    pub(crate) links: Links,
    pub(crate) data: PathBuf,
}

impl Spare {
    /// The configuration of a guest that boots: with the disks that there are.
    pub(crate) fn booting(&self) -> VmConfig {
        self.with_disks(false)
    }

    /// That of a guest with such disks.
    fn with_disks(&self, both: bool) -> VmConfig {
        let own = self.own_disk.as_ref().map(OwnDisk::config);
        let mut config = self.config.clone();
        let volumes = &self.files.disks;
        // The agent knows volumes by their places.
        let both = both || !volumes.is_empty();
        config.disks = arranged(self.layers.clone(), own, both);
        config.disks.extend_from_slice(volumes);
        config
    }

    /// Has its guest run.
    pub(crate) fn start(&mut self, vm: Vm) -> Result<RunningVm, GuestError> {
        self.links.connect(&vm)?;
        self.files.connect(&vm)?;
        Ok(vm.start()?)
    }
}

/// A guest whose virtual CPUs run.
pub(crate) struct Launched {
    pub(crate) running: RunningVm,
    /// What the user should hear.
    pub(crate) warning: Option<String>,
    pub(crate) begun: BegunFrom,
    /// It has both disks, whether there is something behind them or not.
    pub(crate) both_disks: bool,
    /// For another try; what was saved with a snapshot is not to be had again by booting.
    pub(crate) spare: Option<Spare>,
    /// There was a template, which could not be used.
    pub(crate) useless: bool,
}

/// Has the guest go on where it, or its template, was saved, or boots it.
pub(crate) fn launch(
    setup: &mut Setup,
    mut spare: Spare,
    ahead: Ahead,
    timing: &Timing,
) -> Result<Launched, GuestError> {
    let Ahead {
        mut foundation,
        template,
        revived,
        mut warning,
        disks: _,
    } = ahead;
    if let Some(Ok(revived)) = revived {
        let name = revived.dir.file_name().unwrap_or_default();
        let both = revived.both_disks;
        return Ok(Launched {
            running: resume(setup, revived.foundation, &mut spare, both, timing)?,
            warning,
            begun: BegunFrom::Snapshot(name.to_string_lossy().into_owned()),
            both_disks: both,
            // What was saved is not to be had by booting.
            spare: None,
            useless: false,
        });
    }
    // A template's guest says nothing on a serial port.
    let silent = spare.config.serial == SerialConfig::Off;
    let restored = foundation.take_if(|foundation| foundation.is_restored());
    if let (Some(foundation), Some(id)) = (restored.filter(|_| silent), template) {
        match resume(setup, foundation, &mut spare, true, timing) {
            Ok(running) => {
                return Ok(Launched {
                    running,
                    warning,
                    begun: BegunFrom::Template(id),
                    both_disks: true,
                    spare: Some(spare),
                    useless: false,
                });
            }
            Err(error) => warning = Some(cold_because(&chain(&error))),
        }
    }
    let config = spare.booting();
    let vm = match foundation {
        Some(foundation) => Vm::on(foundation, config)?,
        None => Vm::new(config)?,
    };
    timing.mark(Phase::Devices);
    let running = spare.start(vm)?;
    timing.mark(Phase::VmStart);
    Ok(Launched {
        running,
        useless: warning.is_some(),
        warning,
        begun: BegunFrom::Boot,
        both_disks: false,
        spare: Some(spare),
    })
}

/// Has a restored guest go on, as one that differs from all others.
fn resume(
    setup: &mut Setup,
    foundation: Foundation,
    spare: &mut Spare,
    both_disks: bool,
    timing: &Timing,
) -> Result<RunningVm, GuestError> {
    let vm = Vm::on(foundation, spare.with_disks(both_disks))?;
    timing.mark(Phase::Devices);
    let now = wall_clock_ns();
    let running = spare.start(vm)?;
    timing.mark(Phase::Resume);
    setup.resumed = true;
    setup.wall_clock_ns = now;
    Ok(running)
}

/// What the user hears when a template was no use.
pub(crate) fn cold_because(why: &str) -> String {
    format!("the template cannot be used, so the guest boots: {why}")
}
