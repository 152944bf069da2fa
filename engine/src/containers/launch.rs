//! Making and starting.

use super::{ContainerError, Engine, RunOrder, check_name, defaults, find_image};
use crate::bundle::{Bundle, Isolation};
use crate::monitor::{self, Mode, Monitor, Waiting};
use crate::networks;
use crate::paths::Roots;
use crate::plan::mounts::MountsRequest;
use crate::plan::{self, GuestSize, HostFacts};
use crate::snapshots;
use crate::state::{self, LifeLock, NewContainer, Record, Starter, StateError};
use crate::templates::Policy;
use crate::timing::Timing;
use crate::volumes;
use hullbox_backend::factory::Prospect;
use hullbox_model::event::Verb;
use hullbox_protocol::StreamSet;
use hullbox_session::direct::Descriptors;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// A monitor that waits for the container it is to run.
///
/// Made first of all, so that its process starts while this one looks up the image. Dropped
/// without a container, it ends.
#[derive(Debug)]
pub struct Launch {
    id: String,
    pub(super) lock: LifeLock,
    monitor: Waiting,
    debug: bool,
}

impl Launch {
    /// Starts a monitor for a container that has an id already and nothing else. The monitor
    /// prepares itself for the request.
    ///
    /// # Errors
    /// [`ContainerError`].
    pub fn prepare(
        roots: &Roots,
        order: &RunOrder,
        debug: bool,
        timing: &Timing,
    ) -> Result<Self, ContainerError> {
        let id = order.new_id()?;
        let snapshot = order.snapshot.as_deref();
        let snapshot = snapshot.map(|name| snapshots::find(name, &roots.data));
        let prospect = Prospect {
            guest: plan::guest_size(&order.request, HostFacts::probe()),
            snapshot: snapshot.transpose()?,
            data: roots.data.clone(),
            templates: Policy::of(order.request.cold)? == Policy::Auto,
            timing: timing.clone(),
        };
        Self::spawn(roots, id, &prospect, debug)
    }

    /// Starts a monitor for this container, and lets it prepare itself.
    ///
    /// # Errors
    /// [`ContainerError`].
    pub fn prepare_for(
        roots: &Roots,
        record: &Record,
        debug: bool,
        timing: &Timing,
    ) -> Result<Self, ContainerError> {
        let spec = &record.spec;
        let guest = (spec.isolation == Isolation::Vm).then_some(GuestSize {
            vcpus: spec.vcpus,
            memory_mib: spec.memory_mib,
            disks: 0,
        });
        let prospect = Prospect {
            guest,
            snapshot: None,
            data: roots.data.clone(),
            templates: Policy::of(spec.cold)? == Policy::Auto,
            timing: timing.clone(),
        };
        Self::spawn(roots, record.id.clone(), &prospect, debug)
    }

    fn spawn(
        roots: &Roots,
        id: String,
        prospect: &Prospect,
        debug: bool,
    ) -> Result<Self, ContainerError> {
        roots.create()?;
        let lock = LifeLock::open(roots)?;
        let monitor = monitor::spawn(&id, &lock, prospect, debug)?;
        Ok(Self {
            id,
            lock,
            monitor,
            debug,
        })
    }

    pub(super) fn starter(&self) -> Starter<'_> {
        Starter {
            lock: &self.lock,
            monitor_pid: self.monitor.pid(),
        }
    }
}

impl RunOrder {
    fn new_id(&self) -> Result<String, ContainerError> {
        match &self.id {
            Some(id) => Ok(id.clone()),
            None => state::new_id().map_err(ContainerError::Random),
        }
    }
}

/// A container that holds its lock, to be started at once.
#[derive(Debug)]
pub struct Created {
    /// Its record.
    pub record: Record,
    pub(super) launch: Launch,
    pub(super) bundle: Bundle,
}

impl Engine {
    /// Makes a container and holds its lock.
    ///
    /// # Errors
    /// [`ContainerError`]; nothing is left of it then.
    pub fn create(&mut self, launch: Launch, order: RunOrder) -> Result<Created, ContainerError> {
        let id = launch.id.clone();
        let (record, layers) = self.make(id, order, Some(launch.starter()))?;
        let bundle = match self.bundle(&record, layers) {
            Ok(bundle) => bundle,
            Err(error) => {
                drop(launch);
                // The first error is the one to report.
                let _ = self.recover();
                return Err(error);
            }
        };
        Ok(Created {
            record,
            launch,
            bundle,
        })
    }

    /// What is started, with the network as it is now, and its files from outside.
    fn bundle(&self, record: &Record, layers: Vec<PathBuf>) -> Result<Bundle, ContainerError> {
        let mut bundle = record.spec.bundle(&record.id, self.roots(), layers);
        bundle.mounts = volumes::resolve(self, &record.id, &record.spec)?;
        self.share_network(&mut bundle, record);
        networks::attach(&mut bundle, record);
        Ok(bundle)
    }

    /// Makes a container that is not to be started yet.
    ///
    /// # Errors
    /// [`ContainerError`]; nothing is left of it then.
    pub fn create_only(&mut self, order: RunOrder) -> Result<Record, ContainerError> {
        let id = order.new_id()?;
        Ok(self.make(id, order, None)?.0)
    }

    fn make(
        &mut self,
        id: String,
        mut order: RunOrder,
        starter: Option<Starter<'_>>,
    ) -> Result<(Record, Vec<PathBuf>), ContainerError> {
        order.name.as_deref().map(check_name).transpose()?;
        if order.snapshot.is_none() {
            self.look_up_network(&mut order.request.network, starter.is_some())?;
            self.look_up_mounts(&mut order.request.mounts)?;
        }
        let store = self.images()?;
        // Until the container is on record, nobody may remove the image.
        let _lease = store.lease()?;
        let about = match &order.snapshot {
            Some(name) => Some(snapshots::about(&snapshots::find(name, &self.roots.data)?)?),
            None => None,
        };
        let image = match &about {
            Some(about) => store.resolve(&about.image_id)?,
            None => find_image(&store, &order.image, order.platform.as_ref())?,
        };
        let layers = image
            .layers
            .iter()
            .map(|layer| layer.path.clone())
            .collect();
        let mut image_ref = order.image;
        let mut spec = match about {
            Some(about) => {
                image_ref.clone_from(&about.image_ref);
                plan::copy(&id, order.request, about.spec, &about.container_id)?
            }
            None => plan::plan(&id, order.request, defaults(&image), HostFacts::probe())?,
        };
        volumes::settle(self, &mut spec)?;
        let new = NewContainer {
            id,
            name: order.name,
            image_id: image.id.to_string(),
            image_ref,
            spec,
        };
        let record = self.state.create(&new, starter)?;
        for volume in &record.changed_volumes {
            self.note_volume(volume, Verb::Create);
        }
        self.note(&record, Verb::Create);
        Ok((record, layers))
    }

    /// The mounts of the containers that `--volumes-from` names.
    fn look_up_mounts(&self, request: &mut MountsRequest) -> Result<(), ContainerError> {
        for from in &request.from {
            let other = self.find(&from.container)?;
            request.inherited.extend(from.inherit(&other.spec.mounts));
        }
        Ok(())
    }

    /// Takes a container that does not run, to start it again.
    ///
    /// # Errors
    /// [`ContainerError::RunningAlready`] among others.
    pub fn take(&mut self, launch: Launch) -> Result<Created, ContainerError> {
        let id = launch.id.clone();
        self.check_network(&self.state.get(&id)?)?;
        let record = match self.state.take_for_start(&id, launch.starter()) {
            Err(StateError::Running(short)) => return Err(ContainerError::RunningAlready(short)),
            other => other?,
        };
        let layers = self.layers_of(&record);
        let bundle = match layers.and_then(|layers| self.bundle(&record, layers)) {
            Ok(bundle) => bundle,
            Err(error) => {
                drop(launch);
                // The first error is the one to report.
                let _ = self.recover();
                return Err(error);
            }
        };
        Ok(Created {
            record,
            launch,
            bundle,
        })
    }

    pub(super) fn layers_of(&self, record: &Record) -> Result<Vec<PathBuf>, ContainerError> {
        let image = self.images()?.resolve(&record.image_id)?;
        Ok(image.layers.into_iter().map(|layer| layer.path).collect())
    }

    /// Starts a container that was just made or taken. Its monitor sends the rest. `own` are the
    /// caller's standard streams, of those that the workload's may be joined to without frames:
    /// which were is in [`Monitor::direct`].
    ///
    /// # Errors
    /// [`ContainerError::Spawn`]; the container is finished or removed then.
    pub fn start(
        &self,
        created: Created,
        mode: Mode,
        own: Descriptors,
    ) -> Result<Monitor, ContainerError> {
        let Created {
            record,
            launch,
            bundle,
        } = created;
        let mut config = monitor::Config {
            bundle,
            data: self.roots().data.clone(),
            runtime: self.roots().runtime.clone(),
            mode,
            about: about(&record),
            auto_remove: record.spec.auto_remove,
            stop_signal: record.spec.stop_signal,
            life: record.spec.life,
            debug: launch.debug,
            streams: StreamSet::default(),
        };
        let own = Some(own).filter(|_| config.may_be_direct());
        let own = fit(own.unwrap_or_default(), config.bundle.isolation);
        config.streams = own.streams();
        let started = launch.monitor.order(&config, &own);
        // The monitor alone holds the lock now.
        drop(launch.lock);
        Ok(started.inspect_err(|_| {
            // The first error is the one to report; the next command tries this again.
            let _ = self.recover();
        })?)
    }
}

/// Those of a caller's streams that a process behind this wall can have without frames to the caller.
pub(super) fn fit(own: Descriptors, isolation: Isolation) -> Descriptors {
    match isolation {
        // Moved by the container's parent alone.
        Isolation::Container => own,
        // The monitor writes and reads them, and must wait for none.
        Isolation::Vm => own.non_blocking(),
    }
}

/// A container's attributes in events.
pub(super) fn about(record: &Record) -> BTreeMap<String, String> {
    let mut about = record.spec.labels.clone();
    about.insert("name".to_owned(), record.name.clone());
    about.insert("image".to_owned(), record.image_ref.clone());
    about
}
