//! What a listing tells of containers.

use super::filters::Wanted;
use super::inspect::{isolation, mounts, network, strings};
use super::{ContainerError, Engine};
use crate::monitor::health::HealthStatus;
use crate::paths::Roots;
use crate::state::{Phase, Record};
use hullbox_image::Store;
use hullbox_model::container::{Summary, SummaryHostConfig, SummaryNetworks};
use hullbox_model::filter::Filters;
use hullbox_model::time;
use std::collections::HashMap;

/// What a listing is asked for.
#[derive(Debug, Clone, Default)]
pub struct Listing {
    /// Those that do not run, too.
    pub all: bool,
    /// Only so many of the newest, running or not.
    pub limit: Option<usize>,
    /// Their sizes, too.
    pub size: bool,
    /// Of them, which: see [`super::CONTAINER_FILTERS`].
    pub filters: Filters,
}

impl Engine {
    /// The containers that fit, newest first.
    ///
    /// # Errors
    /// [`ContainerError`].
    pub fn list(&self, listing: &Listing) -> Result<Vec<Summary>, ContainerError> {
        let wanted = Wanted::new(self, &listing.filters)?;
        // Whoever asks for a status wants those that have it, running or not.
        let all = listing.all || listing.limit.is_some() || wanted.of_all();
        let store = listing.size.then(|| self.images()).transpose()?;
        let mut sizes = store.as_ref().map(ImageSizes::new);
        let now_ns = crate::events::now_ns();
        let records = self.state.list()?.into_iter();
        let summaries = records
            .filter(|record| (all || record.is_active()) && wanted.fits(record))
            .take(listing.limit.unwrap_or(usize::MAX))
            .map(|record| match &mut sizes {
                Some(sizes) => self.summary_with_sizes(&record, now_ns, sizes),
                None => summary(&record, now_ns, &self.roots),
            });
        Ok(summaries.collect())
    }

    /// What a listing tells of a container, and what it takes on the disk.
    pub(super) fn summary_with_sizes(
        &self,
        record: &Record,
        now_ns: i64,
        images: &mut ImageSizes<'_>,
    ) -> Summary {
        let written = self.written_bytes(record);
        Summary {
            size_rw: Some(written),
            size_root_fs: Some(images.of(&record.image_id).saturating_add(written)),
            ..summary(record, now_ns, &self.roots)
        }
    }
}

/// Sizes of images by their ids. Each image is looked up once, however many containers it has.
pub(super) struct ImageSizes<'a> {
    store: &'a Store,
    known: HashMap<String, u64>,
}

impl<'a> ImageSizes<'a> {
    pub(super) fn new(store: &'a Store) -> Self {
        Self {
            store,
            known: HashMap::new(),
        }
    }

    /// In bytes; none of an image that cannot be read any more.
    fn of(&mut self, id: &str) -> u64 {
        if let Some(size) = self.known.get(id) {
            return *size;
        }
        let size = self.store.inspect(id).map_or(0, |image| image.size);
        self.known.insert(id.to_owned(), size);
        size
    }
}

pub(super) fn summary(record: &Record, now_ns: i64, roots: &Roots) -> Summary {
    Summary {
        id: record.id.clone(),
        names: vec![format!("/{}", record.name)],
        image: record.image_ref.clone(),
        image_id: record.image_id.clone(),
        command: command_line(record, Quoting::Blanks),
        created: seconds(record.created_ns),
        labels: record.spec.labels.clone(),
        state: record.phase.word().to_owned(),
        status: status(record, now_ns),
        host_config: SummaryHostConfig {
            network_mode: network::mode(&record.spec),
        },
        network_settings: SummaryNetworks {
            networks: network::networks(record),
        },
        ports: network::listed(record),
        mounts: mounts::points(&record.spec, roots),
        isolation: isolation(&record.spec).to_owned(),
        ..Summary::default()
    }
}

const fn seconds(ns: i64) -> i64 {
    ns.div_euclid(1_000_000_000)
}

/// Which arguments of a command line are quoted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Quoting {
    /// None, as Docker has it in `history`.
    None,
    /// Those with a blank, whatever else is in them, as Docker has it in `ps`.
    Blanks,
}

/// What a container runs as one line without control characters.
pub(super) fn command_line(record: &Record, quoting: Quoting) -> String {
    let mut words = strings(&record.spec.process.argv);
    if quoting == Quoting::Blanks {
        for argument in words.iter_mut().skip(1).filter(|word| word.contains(' ')) {
            *argument = format!("'{argument}'");
        }
    }
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    words.join(" ").chars().map(plain).collect()
}

/// Where in its life a container is, in Docker's words.
fn status(record: &Record, now_ns: i64) -> String {
    let past = |ns: Option<i64>| {
        let past = seconds(now_ns).saturating_sub(ns.map_or(0, seconds));
        time::words(u64::try_from(past).unwrap_or(0))
    };
    let code = record.exit_code.unwrap_or(0);
    match record.phase {
        Phase::Created | Phase::Starting => "Created".to_owned(),
        Phase::Running => {
            let health = record.health_status().map(|status| match status {
                HealthStatus::Starting => " (health: starting)".to_owned(),
                status => format!(" ({})", status.as_str()),
            });
            let health = health.unwrap_or_default();
            format!("Up {}{health}", past(record.started_ns))
        }
        Phase::Paused => format!("Up {} (Paused)", past(record.started_ns)),
        Phase::Restarting => format!("Restarting ({code}) {} ago", past(record.finished_ns)),
        Phase::Exited => format!("Exited ({code}) {} ago", past(record.finished_ns)),
    }
}
