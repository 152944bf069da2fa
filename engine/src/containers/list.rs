//! What a listing tells of containers.

use super::filters::Wanted;
use super::inspect::{isolation, strings};
use super::{ContainerError, Engine};
use crate::monitor::health::HealthStatus;
use crate::state::{Phase, Record};
use hullbox_model::container::{NetworkSettings, Summary, SummaryHostConfig, SummaryNetworks};
use hullbox_model::filter::Filters;
use hullbox_model::time;

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
        let records = self.state.list()?.into_iter();
        records
            .filter(|record| (all || record.is_active()) && wanted.fits(record))
            .take(listing.limit.unwrap_or(usize::MAX))
            .map(|record| self.summary(&record, listing.size))
            .collect()
    }

    /// What a listing tells of a container; with `size`, what it takes on the disk too.
    ///
    /// # Errors
    /// [`ContainerError::Store`].
    pub fn summary(&self, record: &Record, size: bool) -> Result<Summary, ContainerError> {
        let mut summary = summary(record, crate::events::now_ns());
        if size {
            let written = self.written_bytes(record);
            // An image that cannot be read any more takes nothing that anybody could tell.
            let image = self.images()?.inspect(&record.image_id);
            let image = image.map_or(0, |image| image.size);
            summary.size_rw = Some(written);
            summary.size_root_fs = Some(image.saturating_add(written));
        }
        Ok(summary)
    }
}

pub(super) fn summary(record: &Record, now_ns: i64) -> Summary {
    Summary {
        id: record.id.clone(),
        names: vec![format!("/{}", record.name)],
        image: record.image_ref.clone(),
        image_id: record.image_id.clone(),
        command: quoted_command_line(record),
        created: seconds(record.created_ns),
        labels: record.spec.labels.clone(),
        state: record.phase.word().to_owned(),
        status: status(record, now_ns),
        host_config: SummaryHostConfig {
            network_mode: "none".to_owned(),
        },
        network_settings: SummaryNetworks {
            networks: NetworkSettings::none().networks,
        },
        isolation: isolation(&record.spec).to_owned(),
        ..Summary::default()
    }
}

const fn seconds(ns: i64) -> i64 {
    ns.div_euclid(1_000_000_000)
}

/// What a container runs, as one line that is fit for a terminal.
#[must_use]
pub fn command_line(record: &Record) -> String {
    let words = strings(&record.spec.process.argv);
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    words.join(" ").chars().map(plain).collect()
}

/// The same as Docker lists it: arguments with a blank are quoted, whatever else is in them.
fn quoted_command_line(record: &Record) -> String {
    let mut words = strings(&record.spec.process.argv);
    for word in words.iter_mut().skip(1).filter(|word| word.contains(' ')) {
        *word = format!("'{word}'");
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
