use super::*;
use hullbox_model::event::{EventFilter, Verb};
use std::fs::{self, File};
use std::io::Write;
use std::thread;

struct Scratch(Roots);

impl Scratch {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("hullbox-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        Self(Roots {
            data: dir.clone(),
            runtime: dir,
        })
    }

    fn emit(&self, id: &str) {
        let filler = BTreeMap::from([("filler".to_owned(), "x".repeat(1000))]);
        emit(&self.0, Kind::Container, Verb::Start, id, filler);
    }

    fn follow(&self) -> Subscription {
        Subscription::open(&self.0, Query::default()).unwrap()
    }

    fn size(&self, file: &str) -> u64 {
        fs::metadata(self.0.data.join(file)).map_or(0, |file| file.len())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0.data);
    }
}

fn ids(subscription: &mut Subscription) -> Vec<String> {
    std::iter::from_fn(|| subscription.try_next().unwrap())
        .map(|event| event.actor.id)
        .collect()
}

#[test]
fn the_log_is_bounded() {
    let scratch = Scratch::new("events-bounded");
    for _ in 0..20_000 {
        scratch.emit("abc");
    }
    assert!(scratch.size("events.log") <= log::MAX_SIZE + 2000);
    assert!(scratch.size("events.log.3") > log::MAX_SIZE);
    assert_eq!(scratch.size("events.log.4"), 0);
}

#[test]
fn a_subscriber_sees_each_event_once_across_files() {
    const WRITERS: usize = 4;
    const EACH: usize = 2500;
    let scratch = Scratch::new("events-once");
    scratch.emit("before");
    let mut subscription = scratch.follow();
    let mut seen = Vec::new();
    thread::scope(|scope| {
        for writer in 0..WRITERS {
            let scratch = &scratch;
            scope.spawn(move || {
                for n in 0..EACH {
                    scratch.emit(&format!("{writer}-{n}"));
                }
            });
        }
        while seen.len() < WRITERS * EACH {
            let event = subscription.next_event().unwrap().unwrap();
            seen.push(event.actor.id);
        }
    });
    assert!(scratch.size("events.log.1") > 0, "no file was full");
    assert!(ids(&mut subscription).is_empty());
    for writer in 0..WRITERS {
        let prefix = format!("{writer}-");
        let of_one: Vec<_> = seen
            .iter()
            .filter_map(|id| id.strip_prefix(&prefix))
            .collect();
        let expected: Vec<_> = (0..EACH).map(|n| n.to_string()).collect();
        assert_eq!(of_one, expected);
    }
}

#[test]
fn one_that_sleeps_while_several_files_fill_misses_nothing_that_is_kept() {
    let scratch = Scratch::new("events-slept");
    let mut subscription = scratch.follow();
    for n in 0..10_000 {
        scratch.emit(&n.to_string());
    }
    assert!(scratch.size("events.log.2") > 0);
    let expected: Vec<_> = (0..10_000).map(|n| n.to_string()).collect();
    assert_eq!(ids(&mut subscription), expected);
}

#[test]
fn a_snapshot_goes_on_as_what_follows() {
    let scratch = Scratch::new("events-since");
    scratch.emit("one");
    let between = now_ns();
    scratch.emit("two");
    let query = Query {
        since_ns: Some(between),
        ..Query::default()
    };
    let mut subscription = Subscription::open(&scratch.0, query).unwrap();
    scratch.emit("three");
    assert_eq!(ids(&mut subscription), ["two", "three"]);
    scratch.emit("four");
    assert_eq!(ids(&mut subscription), ["four"]);
    let query = Query {
        since_ns: Some(0),
        until_ns: Some(between),
        filter: EventFilter::of_container("one"),
    };
    let mut past = Subscription::open(&scratch.0, query).unwrap();
    assert_eq!(past.next_event().unwrap().unwrap().actor.id, "one");
    assert!(past.next_event().unwrap().is_none());
}

#[test]
fn a_torn_line_costs_one_event() {
    let scratch = Scratch::new("events-torn");
    let mut subscription = scratch.follow();
    scratch.emit("whole");
    let path = scratch.0.data.join("events.log");
    let mut file = File::options().append(true).open(&path).unwrap();
    file.write_all(br#"{"Type":"container","Action":"start","Actor":{"ID":"torn","Attr"#)
        .unwrap();
    assert_eq!(ids(&mut subscription), ["whole"]);
    let labels = BTreeMap::from([("label".to_owned(), r#"{"Type":"x"#.to_owned())]);
    emit(&scratch.0, Kind::Container, Verb::Start, "behind", labels);
    scratch.emit("next");
    assert_eq!(ids(&mut subscription), ["behind", "next"]);
    file.write_all(b"no event at all\n").unwrap();
    scratch.emit("last");
    assert_eq!(ids(&mut subscription), ["last"]);
}

#[test]
fn a_line_without_bound_loses_its_labels() {
    let scratch = Scratch::new("events-long");
    let mut subscription = scratch.follow();
    let long = |name: &str, len| (name.to_owned(), "x".repeat(len));
    let attributes = BTreeMap::from([long("label", 1 << 20), long("name", 10)]);
    emit(&scratch.0, Kind::Container, Verb::Start, "long", attributes);
    let event = subscription.try_next().unwrap().unwrap();
    assert_eq!(event.attribute("name"), Some("xxxxxxxxxx"));
    assert!(event.attribute("label").is_none());
}

#[test]
fn whoever_is_stopped_with_the_lock_stops_nobody() {
    let scratch = Scratch::new("events-locked");
    scratch.emit("one");
    let path = scratch.0.data.join("events.log");
    let stopped = File::open(&path).unwrap();
    rustix::fs::flock(&stopped, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let mut subscription = scratch.follow();
    scratch.emit("two");
    assert_eq!(ids(&mut subscription), ["two"]);
}
