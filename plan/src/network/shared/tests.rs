use super::*;
use crate::ipam::{PoolRequest, lease, pools};
use crate::spec::ContainerSpec;
use crate::{HostFacts, ImageDefaults, PlanError, RunRequest, copy, join_shared, plan};
use hullbox_backend::network::Network;
use std::collections::BTreeMap;

const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// A network of 10.9.N.0/24 and fd00:N::/64.
fn known(name: &str, number: u8) -> Known {
    let request = PoolRequest {
        subnets: vec![format!("10.9.{number}.0/24"), format!("fd00:{number}::/64")],
        ..PoolRequest::default()
    };
    let (ipv4, ipv6) = pools(&request, &[], &[], [0; 7]).unwrap();
    Known {
        id: format!("{number:02x}").repeat(32),
        name: name.to_owned(),
        network: SharedNetwork {
            ipv4,
            ipv6,
            internal: number == 2,
            attachable: false,
            labels: BTreeMap::new(),
            options: BTreeMap::new(),
        },
    }
}

fn make(
    typed: &[&str],
    networks: &[Known],
    change: impl FnOnce(&mut RunRequest),
) -> Result<ContainerSpec, PlanError> {
    let mut request = RunRequest {
        args: vec![b"true".to_vec()],
        hostname: Some("box".to_owned()),
        ..RunRequest::default()
    };
    request.network.attachments = typed.iter().map(|text| text.parse().unwrap()).collect();
    request.network.known = networks.to_vec();
    change(&mut request);
    plan(ID, request, ImageDefaults::default(), HostFacts { cpus: 1 })
}

/// The interfaces that a start gives.
fn started(spec: &ContainerSpec, networks: &[Known]) -> Vec<Interface> {
    let all = spec.networks.iter().zip(networks);
    let lease = |(attached, known): (&Attached, &Known)| {
        lease(&known.network, &attached.asked(), &Taken::default()).unwrap()
    };
    all.map(lease).collect()
}

#[test]
fn a_container_is_in_the_networks_that_it_names() {
    let networks = [known("shop", 1), known("other", 2)];
    let typed = [
        "name=shop,alias=Web,ip=10.9.1.9",
        "name=other,ip6=fd00:2::9,mac-address=02:42:00:00:00:09",
    ];
    let spec = make(&typed, &networks, |request| {
        request.network.publish = vec!["80".parse().unwrap()];
        request.network.egress = Some("none".parse().unwrap());
    });
    let spec = spec.unwrap();
    let [shop, other] = &spec.networks[..] else {
        panic!("two")
    };
    assert_eq!(
        (&shop.id, &*shop.name, shop.aliases.as_slice()),
        (&networks[0].id, "shop", &["Web".to_owned()][..])
    );
    assert_eq!(shop.ipv4, Some(Ipv4Addr::new(10, 9, 1, 9)));
    assert_eq!(other.ipv6.unwrap().to_string(), "fd00:2::9");
    assert_eq!(other.mac.unwrap().0[5], 9);
    assert!(spec.setup.interfaces.is_empty());
    assert_eq!(spec.typed.network_mode.as_deref(), Some("shop"));
    let Network::User(network) = &spec.network else {
        panic!("user")
    };
    assert_eq!(
        (network.ports.len(), network.egress.as_deref()),
        (1, Some("none"))
    );
    // Kept as it is, and an older record has none.
    let mut kept = serde_json::to_value(&spec).unwrap();
    assert_eq!(
        serde_json::from_value::<ContainerSpec>(kept.clone())
            .unwrap()
            .networks,
        spec.networks
    );
    kept.as_object_mut().unwrap().remove("networks");
    assert!(
        serde_json::from_value::<ContainerSpec>(kept)
            .unwrap()
            .networks
            .is_empty()
    );
    assert!(make(&[], &[], |_| {}).unwrap().networks.is_empty());
}

#[test]
fn flags_without_a_network_mean_the_first_one() {
    let networks = [known("shop", 1), known("other", 2)];
    let spec = make(&["shop", "other"], &networks, |request| {
        request.network.aliases = vec!["a".to_owned(), "b".to_owned()];
        request.network.ipv4 = Some(Ipv4Addr::new(10, 9, 1, 7));
        request.network.ipv6 = Some("fd00:1::7".parse().unwrap());
        request.network.mac_address = Some("02:42:00:00:00:07".parse().unwrap());
    });
    let spec = spec.unwrap();
    let first = &spec.networks[0];
    assert_eq!(
        (
            first.aliases.len(),
            first.ipv4.is_some(),
            first.ipv6.is_some(),
            first.mac.is_some()
        ),
        (2, true, true, true)
    );
    assert_eq!(
        spec.networks[1],
        Attached {
            id: networks[1].id.clone(),
            name: "other".to_owned(),
            ..Attached::default()
        }
    );
    assert_eq!(spec.typed.mac_address.as_deref(), Some("02:42:00:00:00:07"));
}

#[test]
fn what_a_network_cannot_give_is_refused() {
    let networks = [known("shop", 1), known("other", 2)];
    let fails = |typed: &[&str], known: usize, change: fn(&mut RunRequest)| {
        make(typed, &networks[..known], change)
            .unwrap_err()
            .to_string()
    };
    let nothing: fn(&mut RunRequest) = |_| {};
    for (typed, known, change, why) in [
        (&["shop"][..], 0, nothing, "network shop not found"),
        (&["shop", "gone"], 1, nothing, "network gone not found"),
        (
            &["shop", "bridge"],
            1,
            nothing,
            "conflicting options: cannot attach both user-defined and non-user-defined network-modes",
        ),
        (
            &["name=shop,ip=10.9.2.9"],
            1,
            nothing,
            "Invalid address 10.9.2.9: It does not belong to any of this network's subnets",
        ),
        (
            &["name=shop,ip=10.9.1.1"],
            1,
            nothing,
            "Address already in use",
        ),
        (
            &["name=shop,ip=10.9.1.5"],
            1,
            |request| request.network.ipv4 = Some(Ipv4Addr::new(10, 9, 1, 6)),
            "conflicting options: cannot specify both --ip and per-network IPv4 address",
        ),
        (
            &["name=shop,ip6=fd00:1::5"],
            1,
            |request| request.network.ipv6 = Some("fd00:1::6".parse().unwrap()),
            "conflicting options: cannot specify both --ip6 and per-network IPv6 address",
        ),
        (
            &["name=shop,mac-address=02:42:00:00:00:05"],
            1,
            |request| request.network.mac_address = Some("02:42:00:00:00:06".parse().unwrap()),
            "conflicting options: cannot specify both --mac-address and per-network MAC address",
        ),
        (
            &["name=shop,alias="],
            1,
            nothing,
            "invalid network-scoped alias \"\"",
        ),
        (
            &["name=shop,alias=a\tb"],
            1,
            nothing,
            "invalid network-scoped alias \"a\\tb\"",
        ),
        (
            &["shop"],
            1,
            |request| request.network.aliases = vec!["x".to_owned(); 65],
            "too many network-scoped aliases",
        ),
        (
            &["shop"],
            1,
            |request| request.network.aliases = vec!["x".repeat(254)],
            &format!("invalid network-scoped alias {:?}", "x".repeat(254)),
        ),
    ] {
        assert_eq!(fails(typed, known, change), why, "{typed:?}");
    }
    // Two names of one network.
    let twice = [known("shop", 1), known("shop", 1)];
    assert_eq!(
        make(&["shop", "0101"], &twice, |_| {})
            .unwrap_err()
            .to_string(),
        "network \"shop\" is specified multiple times"
    );
    let many: Vec<_> = (1..=32)
        .map(|number| known(&format!("n{number}"), number))
        .collect();
    let names: Vec<_> = many.iter().map(|known| known.name.as_str()).collect();
    assert_eq!(
        make(&names, &many, |_| {}).unwrap_err().to_string(),
        "too many networks: the most is 31"
    );
    assert!(make(&names[..31], &many[..31], |_| {}).is_ok());
}

#[test]
fn files_go_with_the_addresses_of_a_start() {
    let networks = [known("shop", 1), known("other", 2)];
    let spec = make(&["shop", "name=other,ip=10.9.2.9"], &networks, |request| {
        request.add_host = vec![
            "db:192.0.2.1".parse().unwrap(),
            "me:host-gateway".parse().unwrap(),
        ];
        request.dns_search = vec!["a.example".to_owned()];
        request.dns_option = vec!["timeout:3".to_owned()];
    });
    let spec = spec.unwrap();
    let mut setup = spec.setup.clone();
    let mut interfaces = started(&spec, &networks);
    join_shared(&mut setup, &spec.typed, &interfaces);
    let hosts = "ff02::2\tip6-allrouters\n192.0.2.1\tdb\n10.9.1.1\tme\n10.9.1.2\tbox\nfd00:1::2\tbox\n10.9.2.9\tbox\nfd00:2::2\tbox\n";
    assert!(setup.etc_hosts.ends_with(hosts), "{}", setup.etc_hosts);
    assert_eq!(
        setup.etc_resolv_conf,
        "nameserver 10.9.1.1\nnameserver 10.9.2.1\nsearch a.example\noptions timeout:3 ndots:0\n"
    );
    // Whoever says how many dots decides.
    let mut typed = spec.typed.clone();
    typed.dns_options = vec!["ndots:2".to_owned()];
    typed.dns_search = vec![".".to_owned()];
    join_shared(&mut setup, &typed, &interfaces[..1]);
    assert_eq!(
        setup.etc_resolv_conf,
        "nameserver 10.9.1.1\noptions ndots:2\n"
    );
    // Of an interface without IPv6 there is no such address.
    let sysctls = [("net.ipv6.conf.eth1.disable_ipv6".to_owned(), "1".to_owned())];
    fit_sysctls(&mut interfaces, &sysctls);
    assert!(interfaces[0].ipv6.is_some() && interfaces[1].ipv6.is_none());
    join_shared(&mut setup, &spec.typed, &interfaces);
    assert!(!setup.etc_hosts.contains("fd00:2::2") && setup.etc_hosts.contains("fd00:1::2"));
    // The first one that leads out is the way out.
    order_routes(&mut interfaces);
    let metrics = interfaces.iter().map(|interface| interface.route_metric);
    assert_eq!(metrics.collect::<Vec<_>>(), [Some(0), None]);
    let all = [("net.ipv6.conf.all.disable_ipv6".to_owned(), "1".to_owned())];
    fit_sysctls(&mut interfaces, &all);
    assert!(interfaces.iter().all(|interface| interface.ipv6.is_none()));
}

#[test]
fn others_find_a_container_by_each_of_its_names() {
    let attached = Attached {
        id: "ab".repeat(32),
        aliases: vec!["DB".to_owned(), "web".to_owned(), "db".to_owned()],
        ..Attached::default()
    };
    let names = attached.dns_names("web", ID, "0123456789ab");
    assert_eq!(names, ["web", "DB", "db", "0123456789ab"]);
    assert_eq!(
        attached.dns_names("web", ID, "box"),
        ["web", "DB", "db", "0123456789ab", "box"]
    );
    let membership = attached.membership(true, &names);
    assert_eq!(membership.names, ["web", "db", "0123456789ab"]);
    assert_eq!(
        (membership.id, membership.internal),
        ("ab".repeat(32), true)
    );
}

#[test]
fn a_copy_asks_for_no_address_of_its_original() {
    let networks = [known("shop", 1)];
    let typed = ["name=shop,alias=a,ip=10.9.1.9,ip6=fd00:1::9,mac-address=02:42:00:00:00:09"];
    let saved = make(&typed, &networks, |_| {}).unwrap();
    let copied = copy(&"ab".repeat(32), RunRequest::default(), saved, ID).unwrap();
    let attached = &copied.networks[0];
    assert_eq!(attached.asked(), Asked::default());
    assert_eq!(
        (attached.name.as_str(), attached.aliases.len()),
        ("shop", 1)
    );
}
