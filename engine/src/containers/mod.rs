//! What front ends do with containers: make and start, talk to, remove, and tidy up after the dead.

mod check;
mod end;
mod errand;
mod execs;
mod files;
mod filters;
mod images;
mod inspect;
mod launch;
mod list;
mod logs;
mod network;
mod note;
mod prune;
mod snapshot;
mod stats;
mod talk;
mod usage;
mod wait;

pub use check::Finding;
pub use errand::Errand;
pub use files::{Change, ChangeKind, Commit, FilesError, Look};
pub use filters::CONTAINER_FILTERS;
pub use images::{IMAGE_FILTERS, IMAGE_PRUNE_FILTERS, prune_options};
pub(crate) use inspect::network::own as own_endpoint;
pub use launch::{Created, Launch};
pub use list::Listing;
pub use prune::{PRUNE_FILTERS, disk_use};
pub use talk::{ExecOrder, Held, Joined};
pub use wait::{Armed, Condition};

use crate::bundle::Isolation;
use crate::monitor::SpawnError;
use crate::paths::{PathError, Roots};
use crate::plan::names;
use crate::plan::ports::PortRange;
use crate::plan::units::ValueError;
use crate::plan::{ImageDefaults, PlanError, RunRequest};
use crate::registry::{self, Platform};
use crate::snapshots;
use crate::state::{Record, State, StateError};
use hullbox_image::{Image, ImageId, ImageUse, Reference, ReferenceError, ResolveError, Store};
use hullbox_model::event::Verb;
use std::io;

/// Why a container was not made, found or removed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ContainerError {
    /// Whether templates may be used.
    #[error(transparent)]
    Templates(#[from] crate::templates::PolicyError),
    /// The data or runtime directory.
    #[error(transparent)]
    Path(#[from] PathError),
    /// The templates cannot be listed.
    #[error(transparent)]
    TemplateList(#[from] crate::templates::ListError),
    /// The configuration file.
    #[error(transparent)]
    Config(#[from] crate::config::FileError),
    /// A snapshot.
    #[error(transparent)]
    Snapshot(#[from] crate::snapshots::SnapshotsError),
    /// Not the name of any image.
    #[error("invalid reference {text:?}")]
    Reference {
        /// As typed.
        text: String,
        /// Why.
        #[source]
        source: ReferenceError,
    },
    /// Docker's words, because people look for them.
    #[error("Unable to find image '{0}' locally")]
    NoImage(String),
    /// It is there, for another platform.
    #[error("image {name} is for {is} and not for {wanted}")]
    OtherPlatform {
        /// The image as typed.
        name: String,
        /// What it is for.
        is: String,
        /// `--platform`.
        wanted: String,
    },
    /// The image store.
    #[error(transparent)]
    Image(#[from] ResolveError),
    /// An image is not removed.
    #[error(transparent)]
    RemoveImage(#[from] hullbox_image::RemoveError),
    /// A filter.
    #[error(transparent)]
    Filter(#[from] hullbox_model::filter::FilterError),
    /// A filter's time.
    #[error(transparent)]
    Time(#[from] hullbox_model::time::TimeError),
    /// The image store cannot be opened.
    #[error("cannot use the image store")]
    Store(#[from] hullbox_image::StoreError),
    /// A name that somebody typed.
    #[error("invalid container name {name:?}")]
    Name {
        /// As typed.
        name: String,
        /// Why.
        #[source]
        source: ValueError,
    },
    /// The request.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The containers' state.
    #[error(transparent)]
    State(#[from] StateError),
    /// A network.
    #[error(transparent)]
    Network(#[from] crate::networks::NetworksError),
    /// A volume, or another mount.
    #[error(transparent)]
    Volume(#[from] crate::volumes::VolumesError),
    /// The monitor.
    #[error(transparent)]
    Spawn(#[from] SpawnError),
    /// The kernel gives no random bytes.
    #[error("cannot make a container id")]
    Random(#[source] io::Error),
    /// A running container, and no force.
    #[error("container {0} is running: stop it first, or use --force")]
    Running(String),
    /// Its network is to be joined.
    #[error("cannot join network of a non running container: {0}")]
    JoinStopped(String),
    /// The same.
    #[error("container {0} is restarting, wait until the container is running")]
    JoinRestarting(String),
    /// It runs already.
    #[error("container {0} is running already")]
    RunningAlready(String),
    /// It does not run.
    #[error("container {0} is not running")]
    NotRunning(String),
    /// No container has such an exec.
    #[error("No such exec instance: {0}")]
    NoExec(String),
    /// Nothing is kept of what it says.
    #[error("nothing is kept of the output of container {0}: it was made with --log-driver=none")]
    NoLog(String),
    /// Its log.
    #[error(transparent)]
    Log(#[from] crate::logs::LogError),
    /// The log of events.
    #[error(transparent)]
    Events(#[from] crate::events::EventsError),
    /// The monitor said no.
    #[error("{0}")]
    Refused(String),
    /// The monitor was told something and says nothing.
    #[error("the monitor of container {0} does not answer")]
    NoAnswer(String),
    /// The monitor cannot be talked to.
    #[error("cannot talk to the monitor of container {id}")]
    Talk {
        /// Of which container.
        id: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A monitor that does not end.
    #[error("cannot stop container {id}")]
    Stop {
        /// Which.
        id: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// One data directory: its images and containers.
#[derive(Debug)]
pub struct Engine {
    roots: Roots,
    pub(crate) state: State,
    unfinished: Option<StateError>,
}

/// What `run` is asked for.
#[derive(Debug, Clone, Default)]
pub struct RunOrder {
    /// Image as typed.
    pub image: String,
    /// The container's id, if its maker has chosen it: see [`crate::state::new_id`].
    pub id: Option<String>,
    /// `--name`.
    pub name: Option<String>,
    /// The snapshot to go on from, in place of an image.
    pub snapshot: Option<String>,
    /// `--platform`: the image has to be for it.
    pub platform: Option<Platform>,
    /// Everything else.
    pub request: RunRequest,
}

impl Engine {
    /// Opens the data directory, making it when there is none, and finishes what killed commands
    /// and monitors left half done; when that fails, see [`Self::unfinished`].
    ///
    /// # Errors
    /// [`ContainerError`].
    pub fn open(roots: Roots) -> Result<Self, ContainerError> {
        roots.create()?;
        let state = State::open(&roots)?;
        let mut engine = Self {
            roots,
            state,
            unfinished: None,
        };
        engine.unfinished = engine.tidy().err();
        Ok(engine)
    }

    /// Why the remains of a killed container could not be cleaned up. One such container is no
    /// reason to refuse the others; the next command tries again.
    #[must_use]
    pub const fn unfinished(&self) -> Option<&StateError> {
        self.unfinished.as_ref()
    }

    /// Opens the image store, within the limits that the configuration file sets.
    ///
    /// # Errors
    /// [`ContainerError::Store`], [`ContainerError::Config`].
    pub fn images(&self) -> Result<Store, ContainerError> {
        crate::images::open(&self.roots)
    }

    /// The containers' records.
    #[must_use]
    pub const fn state(&self) -> &State {
        &self.state
    }

    /// Where things are.
    #[must_use]
    pub const fn roots(&self) -> &Roots {
        &self.roots
    }

    /// Cleans up after a monitor that broke off without a word.
    ///
    /// # Errors
    /// [`ContainerError::State`].
    pub fn recover(&self) -> Result<(), ContainerError> {
        Ok(self.tidy()?)
    }

    fn tidy(&self) -> Result<(), StateError> {
        let mut dead = Vec::new();
        let release = |record: &Record| release(record, &self.roots);
        let recovered = self
            .state
            .recover(&release, &mut |record| dead.push(record));
        self.note_deaths(&dead);
        recovered
    }

    /// Finds a container by name, id, or the beginning of an id.
    ///
    /// # Errors
    /// [`ContainerError::State`].
    pub fn find(&self, text: &str) -> Result<Record, ContainerError> {
        let id = self.state.resolve(text)?.id;
        Ok(self.state.get(&id)?)
    }

    /// Removes a container by name or id; a running one only by force, which kills it. With `volumes` those of
    /// its volumes go too that nobody named.
    ///
    /// # Errors
    /// [`ContainerError`].
    pub fn remove(&self, text: &str, force: bool, volumes: bool) -> Result<(), ContainerError> {
        let record = self.find(text)?;
        let id = &record.id;
        let release = |record: &Record| release(record, &self.roots);
        let removed = match self.state.remove(id, volumes, &release) {
            Err(StateError::Running(_)) if force => {
                self.kill(&record)?;
                match self.state.remove(id, volumes, &release) {
                    // Its monitor was faster: the container was to go when it ended.
                    Err(StateError::NotFound(_)) => return Ok(()),
                    other => Ok(other?),
                }
            }
            Err(StateError::Running(short)) => Err(ContainerError::Running(short)),
            other => Ok(other?),
        };
        let gone = removed?;
        self.note(&record, Verb::Destroy);
        for volume in gone {
            self.note_volume(&volume, Verb::Destroy);
        }
        Ok(())
    }

    /// Whether a container is made from an image: for [`Store::remove`].
    #[must_use]
    pub fn image_use(&self, id: &ImageId) -> Option<ImageUse> {
        let Ok(users) = self.state.users_of_image(&id.to_string()) else {
            // When nobody knows, nothing is removed.
            let container = "(unknown: the container database failed)".to_owned();
            return Some(ImageUse::Running { container });
        };
        // A copy of what was saved needs the image as a stopped container does.
        let saved = snapshots::of_image(&id.to_string(), &self.roots.data).pop();
        let mut stopped = saved.map(|name| ImageUse::Stopped {
            container: format!("in snapshot {name}"),
        });
        for user in users {
            let container = crate::paths::short_id(&user).to_owned();
            let alive = self
                .state
                .get(&user)
                .and_then(|record| self.state.is_alive(&record));
            match alive {
                Ok(true) => return Some(ImageUse::Running { container }),
                _ => stopped = Some(ImageUse::Stopped { container }),
            }
        }
        stopped
    }
}

/// Frees what outlives a dead monitor.
fn release(record: &Record, roots: &Roots) -> io::Result<()> {
    match record.spec.isolation {
        // A microVM lives in its monitor and dies with it.
        Isolation::Vm => Ok(()),
        Isolation::Container => {
            let bundle = record.spec.bundle(&record.id, roots, Vec::new());
            crate::ns::cleanup(&bundle).map_err(io::Error::other)
        }
    }
}

fn check_name(name: &str) -> Result<(), ContainerError> {
    names::check(name).map_err(|source| ContainerError::Name {
        name: name.to_owned(),
        source,
    })
}

fn find_image(
    store: &Store,
    text: &str,
    platform: Option<&Platform>,
) -> Result<Image, ContainerError> {
    let found = store.resolve(text);
    if let (Ok(image), Some(wanted)) = (&found, platform) {
        let is = registry::platform_of(&image.config);
        if wanted.distance(&is).is_none() {
            return Err(ContainerError::OtherPlatform {
                name: text.to_owned(),
                is: is.to_string(),
                wanted: wanted.to_string(),
            });
        }
    }
    match found {
        Err(ResolveError::NotFound(_)) => Err(match Reference::parse(text) {
            Ok(reference) => ContainerError::NoImage(full_name(&reference)),
            Err(source) => ContainerError::Reference {
                text: text.to_owned(),
                source,
            },
        }),
        other => Ok(other?),
    }
}

fn full_name(reference: &Reference) -> String {
    let name = reference.familiar();
    if reference.tag().is_some() || reference.digest().is_some() {
        name
    } else {
        format!("{name}:latest")
    }
}

fn defaults(image: &Image) -> ImageDefaults {
    let Some(config) = image.config.config() else {
        return ImageDefaults::default();
    };
    let bytes = |list: &Option<Vec<String>>| -> Vec<Vec<u8>> {
        list.iter()
            .flatten()
            .map(|item| item.clone().into_bytes())
            .collect()
    };
    // What means nothing was never a port of anything.
    let exposed = config.exposed_ports().iter().flatten();
    let exposed = exposed.filter_map(|text| text.parse::<PortRange>().ok());
    ImageDefaults {
        exposed: exposed.flat_map(PortRange::ports).collect(),
        entrypoint: bytes(config.entrypoint()),
        cmd: bytes(config.cmd()),
        env: bytes(config.env()),
        user: config.user().clone().unwrap_or_default(),
        workdir: config.working_dir().clone().unwrap_or_default(),
        stop_signal: config.stop_signal().clone(),
        health: image.health.clone(),
        volumes: config.volumes().clone().unwrap_or_default(),
        labels: config
            .labels()
            .iter()
            .flatten()
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect(),
    }
}
