//! `events --filter`, with the meaning of moby's `daemon/events/filter.go`.

use super::{Event, Kind, Verb, attribute};
use crate::filter::{FilterError, Filters};

/// Keys of `events --filter`.
pub const KEYS: &[&str] = &[
    "container",
    "event",
    "type",
    "image",
    "label",
    "network",
    "scope",
    "volume",
];

/// Actions with a detail: where a filter names one of them without a colon, all of the filter's
/// actions are beginnings.
const DETAILED: [&str; 3] = ["health_status", "exec_create", "exec_start"];

/// Which events are wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EventFilter(Filters);

impl EventFilter {
    /// Filters whose keys are among [`KEYS`].
    #[must_use]
    pub const fn new(filters: Filters) -> Self {
        Self(filters)
    }

    /// Reads `KEY=VALUE` texts.
    ///
    /// # Errors
    /// A text without `=`, or a key that is none of [`KEYS`].
    pub fn parse<S: AsRef<str>>(texts: &[S]) -> Result<Self, FilterError> {
        Filters::parse(texts, KEYS).map(Self)
    }

    /// Only what happened to the container with this id.
    #[must_use]
    pub fn of_container(id: &str) -> Self {
        let texts = ["type=container".to_owned(), format!("container={id}")];
        Self::parse(&texts).unwrap_or_default()
    }

    /// Whether an event is wanted.
    #[must_use]
    pub fn matches(&self, event: &Event) -> bool {
        self.0.exact("type", event.kind.as_str())
            && self.0.exact("scope", &event.scope)
            && self.matches_action(&event.action.to_string())
            && self.matches_container(event)
            && self.matches_network(event)
            && self.matches_volume(event)
            && self.matches_image(event)
            && self.0.labels("label", |name| event.attribute(name))
    }

    fn matches_action(&self, action: &str) -> bool {
        let fuzzy = DETAILED
            .iter()
            .any(|verb| self.0.get("event").iter().any(|value| value == verb));
        match fuzzy {
            true => self.0.prefix("event", action),
            false => self.0.exact("event", action),
        }
    }

    /// By the beginning of the id or of the name, as Docker does: the name at that time, and with
    /// `rename` the one before as well. What a network refuses a container is about that, too.
    fn matches_container(&self, event: &Event) -> bool {
        if !self.0.contains("container") {
            return true;
        }
        let old = event.attribute(attribute::OLD_NAME).unwrap_or_default();
        let names = match (&event.kind, &event.action.verb) {
            (Kind::Container, _) => [
                Some(event.actor.id.as_str()),
                event.attribute(attribute::NAME),
                Some(old.strip_prefix('/').unwrap_or(old)),
            ],
            (Kind::Network, Verb::Refuse) => [
                event.attribute(attribute::CONTAINER),
                event.attribute(attribute::CONTAINER_NAME),
                None,
            ],
            _ => return false,
        };
        names
            .into_iter()
            .flatten()
            .any(|name| !name.is_empty() && self.0.prefix("container", name))
    }

    /// A network's own events, by the beginning of its id or name.
    fn matches_network(&self, event: &Event) -> bool {
        let name = event.attribute(attribute::NAME).unwrap_or_default();
        let found = |name: &str| !name.is_empty() && self.0.prefix("network", name);
        !self.0.contains("network")
            || event.kind == Kind::Network && (found(&event.actor.id) || found(name))
    }

    /// A volume's own events, by the beginning of its name.
    fn matches_volume(&self, event: &Event) -> bool {
        !self.0.contains("volume")
            || event.kind == Kind::Volume && self.0.prefix("volume", &event.actor.id)
    }

    /// By id or name, with or without a tag: an image's own events, and those of its containers.
    fn matches_image(&self, event: &Event) -> bool {
        let name = match event.kind {
            Kind::Image => attribute::NAME,
            _ => attribute::IMAGE,
        };
        let name = event.attribute(name).unwrap_or_default();
        let id = event.actor.id.as_str();
        [id, name, without_tag(id), without_tag(name)]
            .into_iter()
            .any(|text| self.0.exact("image", text))
    }
}

/// An image's name without its tag and digest.
fn without_tag(name: &str) -> &str {
    let name = name.split('@').next().unwrap_or(name);
    match name.rsplit_once(':') {
        // A colon before a slash is a port's.
        Some((before, tag)) if !tag.contains('/') => before,
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Action, Actor};
    use super::*;

    fn event(kind: Kind, action: Action, attributes: &[(&str, &str)]) -> Event {
        let attributes = attributes
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let actor = Actor {
            id: "0123abcd".to_owned(),
            attributes: attributes.collect(),
        };
        Event::new(kind, action, actor, 0)
    }

    fn fits(filters: &[&str], event: &Event) -> bool {
        EventFilter::parse(filters).unwrap().matches(event)
    }

    #[test]
    fn what_a_network_refuses_a_container_is_found_by_the_container() {
        let about = [
            ("name", "bridge"),
            ("container", "feed01"),
            ("containerName", "web"),
        ];
        let refused = event(Kind::Network, Verb::Refuse.into(), &about);
        for filter in ["container=web", "container=feed", "network=bridge"] {
            assert!(fits(&[filter, "event=refuse"], &refused), "{filter}");
        }
        assert!(!fits(&["container=bridge"], &refused));
        assert!(!fits(&["container=0123"], &refused));
        // Its coming and going is the network's alone, as in Docker.
        let connected = event(Kind::Network, Verb::Connect.into(), &about);
        assert!(!fits(&["container=feed"], &connected));
    }

    #[test]
    fn actions_with_a_detail_are_found_by_their_verb() {
        let health = Action::with(Verb::HealthStatus, "healthy");
        let health = event(Kind::Container, health, &[]);
        assert!(fits(&["event=health_status"], &health));
        assert!(fits(&["event=health_status: healthy"], &health));
        assert!(!fits(&["event=health_status: unhealthy"], &health));
        let exec = event(Kind::Container, Action::with(Verb::ExecStart, "ls"), &[]);
        assert!(fits(&["event=exec_start"], &exec) && !fits(&["event=exec_create"], &exec));
        assert!(fits(&["event=start", "event=exec_start"], &exec));
        let start = event(Kind::Container, Verb::Start.into(), &[]);
        assert!(fits(&["event=start"], &start) && !fits(&["event=sta"], &start));
        assert!(fits(&["event=stop", "event=start"], &start));
    }

    #[test]
    fn containers_are_found_by_id_and_by_each_of_their_names() {
        let start = event(Kind::Container, Verb::Start.into(), &[("name", "web")]);
        let rename = [("name", "web2"), ("oldName", "/web")];
        let rename = event(Kind::Container, Verb::Rename.into(), &rename);
        for filter in ["container=0123", "container=0123abcd", "container=web"] {
            assert!(
                fits(&[filter], &start) && fits(&[filter], &rename),
                "{filter}"
            );
        }
        assert!(fits(&["container=web2"], &rename) && !fits(&["container=web2"], &start));
        let image = event(Kind::Image, Verb::Tag.into(), &[("name", "web")]);
        assert!(!fits(&["container=web"], &image) && fits(&["type=image"], &image));
        assert!(!fits(&["type=container"], &image));
    }

    #[test]
    fn networks_are_found_by_id_and_by_name() {
        let about = [("name", "shop"), ("container", "web"), ("type", "bridge")];
        let connect = event(Kind::Network, Verb::Connect.into(), &about);
        for filter in [
            "network=shop",
            "network=0123",
            "type=network",
            "event=connect",
        ] {
            assert!(fits(&[filter], &connect), "{filter}");
        }
        assert!(!fits(&["network=web"], &connect) && !fits(&["container=web"], &connect));
        let start = event(Kind::Container, Verb::Start.into(), &[("name", "shop")]);
        assert!(!fits(&["network=shop"], &start));
    }

    #[test]
    fn labels_add_up_and_images_need_no_tag() {
        let about = [("image", "host:5000/app:v1"), ("a", "1"), ("b", "2")];
        let start = event(Kind::Container, Verb::Start.into(), &about);
        assert!(fits(&["label=a=1", "label=b"], &start));
        assert!(!fits(&["label=a=1", "label=c"], &start));
        for image in ["host:5000/app:v1", "host:5000/app"] {
            assert!(fits(&[&format!("image={image}")], &start), "{image}");
        }
        assert!(!fits(&["image=host"], &start));
        let tag = event(Kind::Image, Verb::Tag.into(), &[("name", "app:v1")]);
        assert!(fits(&["image=app"], &tag) && fits(&["image=0123abcd"], &tag));
        assert!(EventFilter::parse(&["colour=red"]).is_err());
    }
}
