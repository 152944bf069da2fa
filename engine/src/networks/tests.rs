use super::*;
use crate::plan::network::Attachment;
use crate::state::events::{Query, Subscription};
use hullbox_host::paths::Roots;
use hullbox_model::event::EventFilter;
use hullbox_state::events::now_ns;

struct Bed {
    engine: Engine,
    _dir: tempfile::TempDir,
}

impl Bed {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let roots = Roots {
            data: dir.path().join("data"),
            runtime: dir.path().join("run"),
        };
        let engine = Engine::open(roots).unwrap();
        Self { engine, _dir: dir }
    }

    fn create(&self, name: &str, change: impl FnOnce(&mut NetworkOrder)) -> Result<String, String> {
        let mut order = NetworkOrder {
            name: name.to_owned(),
            ..NetworkOrder::default()
        };
        change(&mut order);
        self.engine
            .create_network(order)
            .map_err(|error| error.to_string())
    }

    fn list(&self, filters: &[&str]) -> Result<Vec<String>, String> {
        let filters = Filters::parse(filters, NETWORK_FILTERS).unwrap();
        let found = self.engine.list_networks(&filters);
        let found = found.map_err(|error| error.to_string())?;
        Ok(found.into_iter().map(|network| network.name).collect())
    }
}

#[test]
fn networks_are_made_found_and_removed() {
    let bed = Bed::new();
    let id = bed.create("shop", |order| {
        order.labels.insert("tier".to_owned(), "web".to_owned());
        order.pools.subnets = vec!["10.9.0.0/24".to_owned()];
        order.internal = true;
    });
    let id = id.unwrap();
    let shown = bed.engine.inspect_network(&id[..9]).unwrap();
    assert_eq!(
        (shown.name.as_str(), shown.id.as_str(), shown.internal),
        ("shop", id.as_str(), true)
    );
    assert_eq!(
        (shown.driver.as_str(), shown.scope.as_str()),
        ("bridge", "local")
    );
    assert!(shown.containers.is_empty() && !shown.enable_ipv6);
    assert_eq!(bed.list(&[]).unwrap(), ["bridge", "host", "none", "shop"]);
    assert_eq!(bed.list(&["type=custom", "label=tier"]).unwrap(), ["shop"]);
    assert_eq!(bed.list(&["dangling=true"]).unwrap(), ["shop"]);
    assert_eq!(
        bed.list(&["dangling=false"]).unwrap(),
        ["bridge", "host", "none"]
    );
    assert_eq!(bed.list(&["driver=null"]).unwrap(), ["none"]);
    assert!(bed.list(&["type=x"]).is_err());
    bed.engine.remove_network("shop").unwrap();
    assert_eq!(
        bed.engine.remove_network("shop").unwrap_err().to_string(),
        "network shop not found"
    );
}

#[test]
fn names_that_mean_something_are_nobodys() {
    let bed = Bed::new();
    for name in ["bridge", "default", "user", "host", "none", "container"] {
        let why = format!("operation is not permitted on predefined {name} network");
        assert_eq!(bed.create(name, |_| {}).unwrap_err(), why);
    }
    for name in ["", "-x", "a b", "a/b", "a:b", "ä", &"x".repeat(129)] {
        assert!(
            bed.create(name, |_| {})
                .unwrap_err()
                .starts_with("invalid network name"),
            "{name}"
        );
    }
    for name in ["a", "0", "a-b_c.d", &"x".repeat(128)] {
        assert!(bed.create(name, |_| {}).is_ok(), "{name}");
    }
    assert_eq!(
        bed.create("x", |order| order.driver = "macvlan".to_owned())
            .unwrap_err(),
        "plugin \"macvlan\" not found"
    );
    for builtin in Builtin::ALL {
        let why = format!(
            "{} is a pre-defined network and cannot be removed",
            builtin.name()
        );
        for text in [builtin.name(), builtin.id(), &builtin.id()[..12]] {
            assert_eq!(
                bed.engine.remove_network(text).unwrap_err().to_string(),
                why
            );
            assert_eq!(bed.engine.inspect_network(text).unwrap().id, builtin.id());
        }
    }
}

#[test]
fn what_is_pruned_fits_the_filters() {
    let bed = Bed::new();
    for (name, label) in [("one", "1"), ("two", "2")] {
        bed.create(name, |order| {
            order.labels.insert("n".to_owned(), label.to_owned());
        })
        .unwrap();
    }
    let prune = |filters: &[&str]| {
        let filters = Filters::parse(filters, NETWORK_PRUNE_FILTERS).unwrap();
        bed.engine
            .prune_networks(&filters)
            .unwrap()
            .networks_deleted
    };
    assert!(prune(&["label=n=3"]).is_empty() && prune(&["until=1h"]).is_empty());
    assert_eq!(prune(&["label!=n=1"]), ["two"]);
    assert_eq!(prune(&[]), ["one"]);
    let query = Query {
        since_ns: Some(0),
        until_ns: Some(now_ns()),
        filter: EventFilter::parse(&["type=network"]).unwrap(),
    };
    let mut events = Subscription::open(bed.engine.roots(), query).unwrap();
    let mut seen = Vec::new();
    while let Some(event) = events.next_event().unwrap() {
        seen.push(event.action.to_string());
    }
    assert_eq!(
        seen,
        [
            "create", "create", "prune", "prune", "destroy", "prune", "destroy", "prune"
        ]
    );
}

#[test]
fn nothing_is_connected_to_what_is_not_there() {
    let mut bed = Bed::new();
    bed.create("shop", |_| {}).unwrap();
    let typed = Attachment::default();
    let connected = bed.engine.connect_network("shop", "web", &typed);
    assert_eq!(connected.unwrap_err().to_string(), "no such container: web");
    let left = bed.engine.disconnect_network("shop", "web");
    assert_eq!(left.unwrap_err().to_string(), "no such container: web");
}
