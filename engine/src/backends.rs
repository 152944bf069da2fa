//! The backends that there are, for the monitor, which knows none of them.

use hullbox_backend::backend::Backend;
use hullbox_backend::bundle::{Bundle, GuestSize, Isolation};
use hullbox_backend::factory::{Factory, Prospect, Start};
use hullbox_host::error::chain;
use hullbox_host::timing::Timing;
use hullbox_microvm::templates::{self, Policy};
use hullbox_microvm::{self as microvm, Ahead, Guest};
use hullbox_ns::Container;
use hullbox_protocol::{Failure, FailureKind};
use std::cell::Cell;
use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};

/// Runs a monitor to its end: what [`hullbox_monitor::spawn`] starts.
///
/// # Errors
/// As [`hullbox_monitor::main`].
pub fn run_monitor() -> io::Result<()> {
    hullbox_monitor::main(&Backends::default())
}

/// A microVM or namespaces, as the bundle says.
#[derive(Default)]
struct Backends {
    /// For the first start.
    ahead: Cell<Option<Ahead>>,
    /// Whether guests may begin at a template.
    templates: Cell<bool>,
    /// The template to make in the end.
    wanted: Cell<Option<Wanted>>,
}

/// A template of this size, which guests may begin at and which there may not be.
#[derive(Clone)]
struct Wanted {
    size: GuestSize,
    data: PathBuf,
    /// There is none.
    missed: bool,
    /// There is one, and it was of no use.
    useless: bool,
}

impl Backends {
    /// Prepares for a guest of this size, and notes what template it would have begun at.
    fn prepare_for(&self, size: GuestSize, data: &Path, timing: &Timing) -> Ahead {
        let templates = self.templates.get();
        let ahead = microvm::prepare(size, data, policy(templates), timing);
        let before = self.wanted.take().filter(|wanted| wanted.size == size);
        self.wanted.set(before.or_else(|| {
            Some(Wanted {
                size,
                data: data.to_owned(),
                missed: templates && ahead.found_no_template(),
                useless: ahead.found_useless_template(),
            })
        }));
        ahead
    }
}

const fn policy(templates: bool) -> Policy {
    match templates {
        true => Policy::Auto,
        false => Policy::Never,
    }
}

fn failure(error: &dyn Error) -> Failure {
    Failure {
        kind: FailureKind::Setup,
        message: chain(error),
    }
}

impl Factory for Backends {
    fn prepare(&self, prospect: &Prospect) {
        let (data, timing) = (&prospect.data, &prospect.timing);
        let ahead = match (&prospect.snapshot, prospect.guest) {
            (Some(dir), _) => microvm::revive(dir, data, timing),
            (None, Some(size)) => microvm::prepare(size, data, policy(prospect.templates), timing),
            (None, None) => Ahead::default(),
        };
        self.templates.set(prospect.templates);
        self.wanted.set(prospect.guest.map(|size| Wanted {
            size,
            data: data.clone(),
            missed: prospect.snapshot.is_none() && prospect.templates && ahead.found_no_template(),
            useless: ahead.found_useless_template(),
        }));
        self.ahead.set(Some(ahead));
    }

    fn start(&self, bundle: &mut Bundle, start: Start<'_>) -> Result<Box<dyn Backend>, Failure> {
        match bundle.isolation {
            Isolation::Vm => {
                let Start {
                    data,
                    debug,
                    timing,
                    ..
                } = start;
                let size = GuestSize {
                    vcpus: bundle.vcpus,
                    memory_mib: bundle.memory_mib,
                    disks: microvm::volume_disks(&bundle.mounts),
                };
                let ahead = self.ahead.take().filter(|ahead| ahead.fits(size.disks));
                // A second run begins like the first. A first one may turn out to have other disks.
                let ahead = ahead.unwrap_or_else(|| self.prepare_for(size, data, timing));
                let guest = Guest::start(bundle, data, ahead, debug, timing);
                Ok(Box::new(guest.map_err(|error| failure(&error))?))
            }
            Isolation::Container => {
                let container = Container::start(bundle, &[start.lock], start.streams);
                Ok(Box::new(container.map_err(|error| failure(&error))?))
            }
        }
    }

    fn finish(&self, found_useless_template: bool) {
        let Some(wanted) = self.wanted.take() else {
            return;
        };
        let useless = wanted.useless || found_useless_template;
        if wanted.missed || useless {
            // For the next one. If it cannot be, that one boots, too.
            let _ = templates::build_in_background(wanted.size, &wanted.data, useless);
        }
    }
}
