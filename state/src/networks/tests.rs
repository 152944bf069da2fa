use super::*;
use crate::lock::{LifeLock, Starter};
use crate::record::{End, NewContainer, Phase};
use hullbox_host::paths::Roots;
use hullbox_plan::ipam::{PoolRequest, pools};
use hullbox_plan::network::{Attachment, Known};
use hullbox_plan::{HostFacts, ImageDefaults, RunRequest, plan};
use std::fs;

struct Bed {
    roots: Roots,
    state: State,
    _dir: tempfile::TempDir,
}

impl Bed {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let roots = Roots {
            data: dir.path().join("data"),
            runtime: dir.path().join("run"),
        };
        roots.create().unwrap();
        let state = State::open(&roots).unwrap();
        Self {
            roots,
            state,
            _dir: dir,
        }
    }

    /// Makes a network with this subnet, or the next default one.
    fn network(&self, name: &str, subnet: Option<&str>) -> Result<NetworkRecord, StateError> {
        let request = PoolRequest {
            subnets: subnet.into_iter().map(str::to_owned).collect(),
            ..PoolRequest::default()
        };
        self.state.create_network(name, |taken| {
            let (ipv4, ipv6) = pools(&request, taken, &[], [0; 7])?;
            Ok(SharedNetwork {
                ipv4,
                ipv6,
                internal: false,
                attachable: false,
                labels: [("a".to_owned(), "b".to_owned())].into(),
                options: Default::default(),
            })
        })
    }

    /// What is to be a container in these networks: `NETWORK` or `name=NETWORK,ip=…`.
    fn new_container(&self, networks: &[&str], auto_remove: bool) -> NewContainer {
        let id = new_id().unwrap();
        let mut request = RunRequest {
            args: vec![b"true".to_vec()],
            auto_remove,
            ..RunRequest::default()
        };
        for text in networks {
            let attachment: Attachment = text.parse().unwrap();
            let found = self.state.resolve_network(&attachment.mode.to_string());
            let found = self.state.network(&found.unwrap()).unwrap();
            request.network.known.push(known(&found));
            request.network.attachments.push(attachment);
        }
        let image = ImageDefaults::default();
        let spec = plan(&id, request, image, HostFacts { cpus: 1 }).unwrap();
        NewContainer {
            id,
            name: None,
            image_id: "sha256:00".into(),
            image_ref: "busybox".into(),
            spec,
        }
    }

    /// A container that holds its lock.
    fn started(&mut self, networks: &[&str]) -> Result<(Record, LifeLock), StateError> {
        let new = self.new_container(networks, false);
        let lock = LifeLock::open(&self.roots)?;
        let record = self.state.create(&new, Some(starter(&lock)))?;
        self.state.set_running(&record.id, None, None)?;
        Ok((self.state.get(&record.id)?, lock))
    }

    fn end(&self, record: &Record, lock: LifeLock) {
        self.state.finish(&record.id, &End::default()).unwrap();
        drop(lock);
    }

    fn attached(&self, text: &str) -> Attached {
        let attachment: Attachment = text.parse().unwrap();
        let id = self
            .state
            .resolve_network(&attachment.mode.to_string())
            .unwrap();
        let found = self.state.network(&id).unwrap();
        Attached::new(&known(&found), &attachment).unwrap()
    }
}

fn known(record: &NetworkRecord) -> Known {
    Known {
        id: record.id.clone(),
        name: record.name.clone(),
        network: record.network.clone(),
    }
}

fn starter(lock: &LifeLock) -> Starter<'_> {
    Starter {
        lock,
        monitor_pid: 1,
    }
}

fn addresses(record: &Record) -> Vec<String> {
    let endpoints = record.endpoints.iter();
    endpoints
        .map(|endpoint| endpoint.interface.ipv4.unwrap().address.to_string())
        .collect()
}

fn fails<T: std::fmt::Debug>(result: Result<T, StateError>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn a_network_is_found_by_name_and_id() {
    let bed = Bed::new();
    let made = bed.network("shop", None).unwrap();
    let other = bed.network("other", None).unwrap();
    assert_eq!(made.network.ipv4.subnet.to_string(), "172.17.0.0/16");
    assert_eq!(other.network.ipv4.subnet.to_string(), "172.18.0.0/16");
    for text in ["shop", &made.id, &made.id[..12]] {
        assert_eq!(bed.state.resolve_network(text).unwrap(), made.id);
    }
    assert_eq!(bed.state.network(&made.id).unwrap(), made);
    let names: Vec<_> = bed
        .state
        .networks()
        .unwrap()
        .into_iter()
        .map(|one| one.name)
        .collect();
    assert_eq!(names, ["shop", "other"]);
    assert_eq!(
        fails(bed.network("shop", None)),
        "network with name shop already exists"
    );
    assert_eq!(
        fails(bed.network("third", Some("172.16.0.0/12"))),
        "Pool overlaps with other one on this address space"
    );
    for text in ["", "sho", "%", "_hop"] {
        assert_eq!(
            fails(bed.state.resolve_network(text)),
            format!("network {text} not found")
        );
    }
    // A name that is the beginning of an id is a name.
    let prefix = made.id[..4].to_owned();
    let named = bed.network(&prefix, None).unwrap();
    assert_eq!(bed.state.resolve_network(&prefix).unwrap(), named.id);
    let another = State::open(&bed.roots).unwrap();
    assert_eq!(another.remove_network(&made.id).unwrap(), "shop");
    assert_eq!(
        fails(bed.state.remove_network(&made.id)),
        format!("network {} not found", made.id)
    );
    // Its range is free again.
    let again = bed.network("shop", None).unwrap();
    assert_eq!(again.network.ipv4.subnet, made.network.ipv4.subnet);
}

#[test]
fn ids_that_fit_several_networks_are_ambiguous() {
    let bed = Bed::new();
    // Beside them are two with ids at random.
    for (id, name) in [("abcd0".repeat(12), "one"), ("abcd1".repeat(12), "two")] {
        let id = format!("{id}0000");
        let spec = to_json(&bed.network(&format!("made-{name}"), None).unwrap().network);
        let sql = "INSERT INTO networks (id, name, created_ns, spec) VALUES (?1, ?2, 0, ?3)";
        bed.state
            .database
            .execute(sql, params![id, name, spec])
            .unwrap();
    }
    assert_eq!(
        fails(bed.state.resolve_network("abcd")),
        "network abcd is ambiguous (2 matches found based on ID prefix)"
    );
    assert_eq!(
        bed.state.resolve_network("abcd1").unwrap(),
        format!("{}0000", "abcd1".repeat(12))
    );
}

#[test]
fn members_have_addresses_while_they_run() {
    let mut bed = Bed::new();
    bed.network("shop", None).unwrap();
    let (first, first_lock) = bed.started(&["shop"]).unwrap();
    let (second, second_lock) = bed.started(&["shop"]).unwrap();
    assert_eq!(addresses(&first), ["172.17.0.2"]);
    assert_eq!(addresses(&second), ["172.17.0.3"]);
    assert_ne!(first.endpoints[0].id, second.endpoints[0].id);
    assert_eq!(
        bed.state
            .members(&first.endpoints[0].network)
            .unwrap()
            .len(),
        2
    );
    bed.end(&first, first_lock);
    // What has ended has given its address back.
    let (third, _third_lock) = bed.started(&["shop"]).unwrap();
    assert_eq!(addresses(&third), ["172.17.0.2"]);
    let lock = LifeLock::open(&bed.roots).unwrap();
    let again = bed.state.take_for_start(&first.id, starter(&lock)).unwrap();
    assert_eq!(addresses(&again), ["172.17.0.4"]);
    assert_ne!(again.endpoints[0].id, first.endpoints[0].id);
    // One that rests between two runs keeps it.
    bed.state
        .set_restarting(&second.id, &End::default(), 1)
        .unwrap();
    let (fifth, _fifth_lock) = bed.started(&["shop"]).unwrap();
    assert_eq!(addresses(&fifth), ["172.17.0.5"]);
    drop(second_lock);
}

#[test]
fn an_address_of_ones_own_is_kept_while_one_does_not_run() {
    let mut bed = Bed::new();
    bed.network("shop", Some("10.9.0.0/24")).unwrap();
    let new = bed.new_container(
        &["name=shop,ip=10.9.0.2,mac-address=02:42:0a:09:00:03"],
        false,
    );
    let made = bed.state.create(&new, None).unwrap();
    assert!(made.endpoints.is_empty());
    let (other, _other_lock) = bed.started(&["shop"]).unwrap();
    assert_eq!(addresses(&other), ["10.9.0.3"]);
    assert_eq!(other.endpoints[0].interface.mac, [0x02, 0x43, 10, 9, 0, 3]);
    for text in ["name=shop,ip=10.9.0.2", "name=shop,ip=10.9.0.3"] {
        assert_eq!(
            fails(bed.started(&[text]).map(drop)),
            "Address already in use",
            "{text}"
        );
    }
    assert_eq!(
        fails(
            bed.started(&["name=shop,mac-address=02:42:0a:09:00:03"])
                .map(drop)
        ),
        "MAC address 02:42:0a:09:00:03 is already in use on this network"
    );
    // Of what failed nothing is left.
    assert_eq!(bed.state.list().unwrap().len(), 2);
    let lock = LifeLock::open(&bed.roots).unwrap();
    let begun = bed.state.take_for_start(&made.id, starter(&lock)).unwrap();
    assert_eq!(addresses(&begun), ["10.9.0.2"]);
    bed.end(&begun, lock);
    bed.state.remove(&made.id, false, &|_| Ok(())).unwrap();
    assert_eq!(
        addresses(&bed.started(&["name=shop,ip=10.9.0.2"]).unwrap().0),
        ["10.9.0.2"]
    );
}

#[test]
fn a_full_network_starts_nobody_and_leaves_nothing() {
    let mut bed = Bed::new();
    let network = bed.network("small", Some("10.9.0.0/30")).unwrap();
    let (only, _lock) = bed.started(&["small"]).unwrap();
    assert_eq!(addresses(&only), ["10.9.0.2"]);
    let why = format!(
        "no available IPv4 addresses on this network's address pools: small ({})",
        &network.id[..12]
    );
    assert_eq!(fails(bed.started(&["small"]).map(drop)), why);
    let waiting = bed
        .state
        .create(&bed.new_container(&["small"], false), None)
        .unwrap();
    let lock = LifeLock::open(&bed.roots).unwrap();
    assert_eq!(
        fails(bed.state.take_for_start(&waiting.id, starter(&lock))),
        why
    );
    drop(lock);
    assert_eq!(bed.state.get(&waiting.id).unwrap().phase, Phase::Created);
    // Nobody holds it: it can be removed.
    bed.state.remove(&waiting.id, false, &|_| Ok(())).unwrap();
    assert_eq!(bed.state.list().unwrap().len(), 1);
}

#[test]
fn who_runs_holds_a_network_and_who_does_not_loses_it() {
    let mut bed = Bed::new();
    let network = bed.network("shop", None).unwrap();
    let (record, lock) = bed.started(&["shop"]).unwrap();
    assert_eq!(
        fails(bed.state.remove_network(&network.id)),
        format!(
            "error while removing network: network shop id {} has active endpoints",
            network.id
        )
    );
    bed.end(&record, lock);
    bed.state.remove_network(&network.id).unwrap();
    let lock = LifeLock::open(&bed.roots).unwrap();
    let start = |bed: &mut Bed| fails(bed.state.take_for_start(&record.id, starter(&lock)));
    assert_eq!(start(&mut bed), "network shop not found");
    // Another one of the same name is another one.
    bed.network("shop", None).unwrap();
    assert_eq!(start(&mut bed), format!("network {} not found", network.id));
    let ended = bed.state.get(&record.id).unwrap();
    assert_eq!((ended.phase, ended.endpoints.len()), (Phase::Exited, 0));
    drop(lock);
    bed.state.disconnect(&record.id, &network.id).unwrap();
    let lock = LifeLock::open(&bed.roots).unwrap();
    assert!(bed.state.take_for_start(&record.id, starter(&lock)).is_ok());
}

#[test]
fn interfaces_are_in_the_order_of_the_networks() {
    let mut bed = Bed::new();
    for name in ["c", "a", "b"] {
        bed.network(name, None).unwrap();
    }
    let (record, _lock) = bed.started(&["b", "c", "a"]).unwrap();
    assert_eq!(
        addresses(&record),
        ["172.19.0.2", "172.17.0.2", "172.18.0.2"]
    );
    assert_eq!(record.spec.networks[0].name, "b");
}

#[test]
fn containers_come_and_go_while_they_do_not_run() {
    let mut bed = Bed::new();
    let (shop, other) = (
        bed.network("shop", Some("10.9.0.0/24")).unwrap(),
        bed.network("other", None).unwrap(),
    );
    let made = bed
        .state
        .create(&bed.new_container(&["shop"], false), None)
        .unwrap();
    bed.state.connect(&made.id, &bed.attached("other")).unwrap();
    assert_eq!(
        fails(bed.state.connect(&made.id, &bed.attached("other"))),
        format!(
            "endpoint with name {} already exists in network other",
            made.name
        )
    );
    let (taken, _lock) = bed.started(&["name=shop,ip=10.9.0.9"]).unwrap();
    let plain = bed
        .state
        .create(&bed.new_container(&[], false), None)
        .unwrap();
    assert_eq!(
        fails(
            bed.state
                .connect(&plain.id, &bed.attached("name=shop,ip=10.9.0.9"))
        ),
        "Address already in use"
    );
    bed.state
        .connect(&plain.id, &bed.attached("name=shop,ip=10.9.0.8,alias=x"))
        .unwrap();
    let lock = LifeLock::open(&bed.roots).unwrap();
    let begun = bed.state.take_for_start(&plain.id, starter(&lock)).unwrap();
    assert_eq!(addresses(&begun), ["10.9.0.8"]);
    assert_eq!(begun.spec.networks[0].aliases, ["x"]);
    // What runs is changed by its monitor's leave only.
    assert!(matches!(
        bed.state.connect(&plain.id, &bed.attached("other")),
        Err(StateError::Running(_))
    ));
    assert!(matches!(
        bed.state.disconnect(&taken.id, &shop.id),
        Err(StateError::Running(_))
    ));
    bed.state.disconnect(&made.id, &shop.id).unwrap();
    let made = bed.state.get(&made.id).unwrap();
    assert_eq!(made.spec.networks.len(), 1);
    assert_eq!(
        fails(bed.state.disconnect(&made.id, &shop.id)),
        format!(
            "container {} is not connected to network {}",
            made.id, shop.id
        )
    );
    assert_eq!(bed.state.members(&other.id).unwrap().len(), 1);
    let endpoint = bed
        .state
        .connect_running(&plain.id, &bed.attached("other"))
        .unwrap();
    assert_eq!(endpoint.network, other.id);
    assert_eq!(bed.state.get(&plain.id).unwrap().endpoints.len(), 2);
    bed.state.disconnect_running(&plain.id, &shop.id).unwrap();
    assert_eq!(
        bed.state.get(&plain.id).unwrap().endpoints[0].network,
        other.id
    );
}

#[test]
fn what_is_left_over_is_found_and_removed() {
    let mut bed = Bed::new();
    let network = bed.network("shop", None).unwrap();
    let (record, lock) = bed.started(&["shop"]).unwrap();
    assert!(bed.state.stray_networks(true).unwrap().is_empty());
    let insert = "INSERT INTO endpoints (network, container, asked) VALUES (?1, ?2, '{}')";
    let database = &bed.state.database;
    database
        .execute(insert, ["gone", record.id.as_str()])
        .unwrap();
    database
        .execute(insert, [network.id.as_str(), "gone"])
        .unwrap();
    let spoil = "UPDATE networks SET spec = 'x' WHERE name = 'broken'";
    let broken = bed.network("broken", None).unwrap();
    database.execute(spoil, []).unwrap();
    assert_eq!(
        fails(bed.state.networks()),
        "the record of network broken is damaged"
    );
    // It stands in nobody's way, and can be removed.
    assert!(bed.network("another", None).is_ok());
    let found = bed.state.stray_networks(false).unwrap();
    assert_eq!(
        found[0],
        Stray::Network(broken.id.clone(), "broken".to_owned())
    );
    assert_eq!(found.len(), 3);
    assert_eq!(bed.state.stray_networks(true).unwrap(), found);
    assert!(bed.state.stray_networks(false).unwrap().is_empty());
    assert_eq!(bed.state.networks().unwrap().len(), 2);
    // A container and a network take theirs with them.
    bed.end(&record, lock);
    bed.state.remove(&record.id, false, &|_| Ok(())).unwrap();
    bed.state
        .create(&bed.new_container(&["another"], false), None)
        .unwrap();
    let count = |bed: &Bed| -> i64 {
        let sql = "SELECT count(*) FROM endpoints";
        bed.state
            .database
            .query_row(sql, [], |row| row.get(0))
            .unwrap()
    };
    assert_eq!(count(&bed), 1);
    let id = bed.state.resolve_network("another").unwrap();
    bed.state.remove_network(&id).unwrap();
    assert_eq!(count(&bed), 0);
}

#[test]
fn a_killed_monitors_addresses_are_free_once_it_is_found() {
    let mut bed = Bed::new();
    bed.network("shop", None).unwrap();
    let (record, lock) = bed.started(&["shop"]).unwrap();
    drop(lock);
    let mut dead = Vec::new();
    let release = |_: &Record| Ok(());
    bed.state
        .recover(&release, &mut |record| dead.push(record.id))
        .unwrap();
    assert_eq!(dead, [record.id]);
    assert_eq!(
        addresses(&bed.started(&["shop"]).unwrap().0),
        ["172.17.0.2"]
    );
}

#[test]
fn a_database_of_before_networks_gets_them() {
    let mut bed = Bed::new();
    let made = bed
        .state
        .create(&bed.new_container(&[], false), None)
        .unwrap();
    bed.state
        .database
        .execute_batch(
            "DROP TRIGGER endpoints_of_container; DROP TRIGGER endpoints_of_network;
             DROP TABLE endpoints; DROP TABLE networks;
             DROP TRIGGER volume_uses_of_container; DROP TABLE volume_uses; DROP TABLE volumes; PRAGMA user_version = 6;",
        )
        .unwrap();
    bed.state = State::open(&bed.roots).unwrap();
    assert_eq!(bed.state.get(&made.id).unwrap().id, made.id);
    assert!(bed.network("shop", None).is_ok());
    assert!(fs::metadata(bed.roots.data.join("containers.db")).is_ok());
}
