//! Which containers a listing shows, with Docker's meaning.

use super::inspect::{isolation, network};
use super::{ContainerError, Engine};
use crate::monitor::health::HealthStatus;
use crate::plan::mounts::Source;
use crate::plan::ports::{Port, PortRange, PortSet};
use crate::state::{Phase, Record};
use hullbox_image::Store;
use hullbox_model::filter::{FilterError, Filters};

/// Keys of a listing's filters.
pub const CONTAINER_FILTERS: &[&str] = &[
    "ancestor",
    "before",
    "exited",
    "expose",
    "health",
    "id",
    "is-task",
    "isolation",
    "label",
    "name",
    "network",
    "publish",
    "since",
    "status",
    "volume",
];
const STATUSES: [&str; 7] = [
    "created",
    "dead",
    "exited",
    "paused",
    "removing",
    "restarting",
    "running",
];
const HEALTHS: [&str; 4] = ["healthy", "none", "starting", "unhealthy"];

/// What a listing is asked for.
pub(super) struct Wanted<'a> {
    filters: &'a Filters,
    /// Created before this, in nanoseconds since 1970.
    before_ns: Option<i64>,
    /// Created after this.
    since_ns: Option<i64>,
    /// Ids of the images that `ancestor` means, and of those that are made from them.
    images: Vec<String>,
    /// Ports of the host, where `publish` is asked for.
    published: PortSet,
    /// Ports of the container, where `expose` is.
    exposed: PortSet,
}

impl<'a> Wanted<'a> {
    pub(super) fn new(engine: &Engine, filters: &'a Filters) -> Result<Self, ContainerError> {
        one_of_these(filters, "status", &STATUSES)?;
        one_of_these(filters, "health", &HEALTHS)?;
        for value in filters.get("exited") {
            if value.parse::<i64>().is_err() {
                return Err(invalid("exited", value, "expected an exit code").into());
            }
        }
        filters.boolean("is-task")?;
        let created = |key: &str| -> Result<Option<i64>, ContainerError> {
            let name = filters.get(key).last();
            let record = name.map(|name| engine.find(name)).transpose()?;
            Ok(record.map(|record| record.created_ns))
        };
        let (before_ns, since_ns) = (created("before")?, created("since")?);
        let images = match filters.get("ancestor") {
            [] => Vec::new(),
            names => descendants(&engine.images()?, names)?,
        };
        Ok(Self {
            filters,
            before_ns,
            since_ns,
            images,
            published: ports(filters, "publish")?,
            exposed: ports(filters, "expose")?,
        })
    }

    /// Whether containers that do not run are meant without being asked for.
    pub(super) fn of_all(&self) -> bool {
        self.filters.contains("status") || self.filters.contains("exited")
    }

    pub(super) fn fits(&self, record: &Record) -> bool {
        let filters = self.filters;
        let health = record.health_status().map_or("none", HealthStatus::as_str);
        let ended = record.phase == Phase::Exited;
        let code = record.exit_code.filter(|_| ended);
        filters.prefix("id", &record.id)
            && name_fits(filters, &record.name)
            && filters.exact("status", record.phase.word())
            && filters.exact("health", health)
            && filters.exact("isolation", isolation(&record.spec))
            && filters.any("exited", |value| {
                code.is_some_and(|code| value.parse() == Ok(i64::from(code)))
            })
            && filters.labels("label", |name| {
                record.spec.labels.get(name).map(String::as_str)
            })
            && filters.any("ancestor", |value| {
                record.image_ref == value || self.images.contains(&record.image_id)
            })
            && self.before_ns.is_none_or(|ns| record.created_ns < ns)
            && self.since_ns.is_none_or(|ns| record.created_ns > ns)
            && filters.any("network", |name| network::is_in(record, name))
            && filters.any("volume", |text| has_volume(record, text))
            && self.has_port(record)
            && filters
                .boolean("is-task")
                .is_ok_and(|task| task != Some(true))
    }

    /// As Docker: one of the host's ports that `publish` names, or one of the container's that `expose`
    /// does.
    fn has_port(&self, record: &Record) -> bool {
        if self.published.is_empty() && self.exposed.is_empty() {
            return true;
        }
        network::listed(record).iter().any(|listed| {
            let Ok(transport) = listed.kind.parse() else {
                return false;
            };
            let port = |number| Port { number, transport };
            let public = listed.public_port.map(port);
            public.is_some_and(|public| self.published.contains(public))
                || self.exposed.contains(port(listed.private_port))
        })
    }
}

/// The ports that a filter names: `80`, `53/udp`, `8000-8080/tcp`.
fn ports(filters: &Filters, key: &str) -> Result<PortSet, FilterError> {
    let mut set = PortSet::default();
    for value in filters.get(key) {
        if value.contains(':') {
            return Err(invalid(key, value, "it should not contain ':'"));
        }
        let range: PortRange = value
            .parse()
            .map_err(|error| invalid(key, value, &format!("{error}")))?;
        set.extend(range.ports());
    }
    Ok(set)
}

/// Whether a container has this volume, or something mounted at this place.
fn has_volume(record: &Record, text: &str) -> bool {
    record.spec.mounts.iter().any(|mount| {
        let source = match &mount.source {
            Source::Bind { path, .. } => path,
            Source::Volume(volume) => &volume.name,
        };
        source == text || mount.target == text
    })
}

/// Docker keeps names with a slash before them, and takes an expression with or without it.
fn name_fits(filters: &Filters, name: &str) -> bool {
    filters.matches("name", name) || filters.matches("name", &format!("/{name}"))
}

fn invalid(key: &str, value: &str, why: &str) -> FilterError {
    FilterError::Value {
        key: key.to_owned(),
        value: value.to_owned(),
        why: why.to_owned(),
    }
}

fn one_of_these(filters: &Filters, key: &str, known: &[&str]) -> Result<(), FilterError> {
    match filters
        .get(key)
        .iter()
        .find(|value| !known.contains(&value.as_str()))
    {
        Some(value) => Err(invalid(
            key,
            value,
            &format!("possible values are {}", known.join(", ")),
        )),
        None => Ok(()),
    }
}

/// Ids of the images with these names or ids, and of all whose layers begin with theirs.
fn descendants(store: &Store, names: &[String]) -> Result<Vec<String>, ContainerError> {
    let layers = |text: &str| {
        let image = store.resolve(text).ok()?;
        let layers = image.layers.into_iter().map(|layer| layer.diff_id);
        Some((image.id.to_string(), layers.collect::<Vec<_>>()))
    };
    let ancestors: Vec<_> = names.iter().filter_map(|name| layers(name)).collect();
    let mut found = Vec::new();
    for image in store.list()? {
        let Some((id, own)) = layers(&image.id.to_string()) else {
            continue;
        };
        let fits = ancestors.iter().any(|(ancestor, below)| {
            *ancestor == id
                || (!below.is_empty() && own.len() > below.len() && own.starts_with(below))
        });
        if fits && !found.contains(&id) {
            found.push(id);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_with_and_without_their_slash() {
        let filters = |text: &str| Filters::parse(&[text], CONTAINER_FILTERS).unwrap();
        for (text, fits) in [
            ("name=web", true),
            ("name=^web-1$", true),
            ("name=^/web-1$", true),
            ("name=/web-1", true),
            ("name=^eb", false),
            ("name=w.b-[0-9]", true),
        ] {
            assert_eq!(name_fits(&filters(text), "web-1"), fits, "{text}");
        }
    }

    #[test]
    fn values_that_mean_nothing_are_refused() {
        let filters = Filters::parse(&["status=gone"], CONTAINER_FILTERS).unwrap();
        assert!(one_of_these(&filters, "status", &STATUSES).is_err());
        assert!(one_of_these(&filters, "health", &HEALTHS).is_ok());
    }
}
