use super::*;
use crate::spec::{ContainerSpec, Typed};
use crate::{HostFacts, ImageDefaults, copy, plan as whole, share_host};
use hullbox_backend::network::PortProtocol;
use hullbox_protocol::Setup;

const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const HOST: HostFacts = HostFacts { cpus: 4 };

fn image(exposed: &[&str]) -> ImageDefaults {
    let exposed: Vec<String> = exposed.iter().map(|text| (*text).to_owned()).collect();
    ImageDefaults {
        cmd: vec![b"true".to_vec()],
        exposed: exposed.try_into().unwrap(),
        ..ImageDefaults::default()
    }
}

fn make(
    exposed: &[&str],
    change: impl FnOnce(&mut RunRequest),
) -> Result<ContainerSpec, PlanError> {
    let mut request = RunRequest::default();
    change(&mut request);
    whole(ID, request, image(exposed), HOST)
}

fn user(spec: &ContainerSpec) -> &UserNetwork {
    match &spec.network {
        Network::User(network) => network,
        other => panic!("{other:?}"),
    }
}

fn attach(text: &str) -> Vec<Attachment> {
    vec![text.parse().unwrap()]
}

fn joined(isolation: Isolation) -> Joined {
    Joined {
        id: "f".repeat(64),
        isolation,
        hostname: "web".to_owned(),
        etc_hosts: "10.0.2.2\tweb\n".to_owned(),
        etc_resolv_conf: "nameserver 10.0.2.1\n".to_owned(),
    }
}

#[test]
fn a_container_has_a_network_of_its_own() {
    let spec = make(&[], |_| {}).unwrap();
    assert_eq!(user(&spec), &UserNetwork::default());
    let [interface] = spec.setup.interfaces.try_into().unwrap();
    assert_eq!(interface.mac, [0x02, 0x01, 0x23, 0x45, 0x67, 0x89]);
    assert_eq!(interface.gateway_mac, [0x02, 0x48, 0x55, 0x4c, 0x4c, 0x01]);
    assert_eq!(interface.mtu, 65520);
    let ipv4 = interface.ipv4.unwrap();
    assert_eq!(
        (ipv4.address.to_string(), ipv4.prefix),
        ("10.0.2.2".to_owned(), 24)
    );
    let ipv6 = interface.ipv6.unwrap();
    assert_eq!(ipv6.gateway.unwrap().to_string(), "fd48:554c:4c42::1");
    assert_eq!(spec.setup.etc_resolv_conf, "nameserver 10.0.2.1\n");
    let hosts =
        "ff02::2\tip6-allrouters\n10.0.2.2\t0123456789ab\nfd48:554c:4c42::2\t0123456789ab\n";
    assert!(
        spec.setup.etc_hosts.ends_with(hosts),
        "{}",
        spec.setup.etc_hosts
    );
    for name in ["bridge", "default", "user", "name=bridge"] {
        let spec = make(&[], |request| request.network.attachments = attach(name)).unwrap();
        assert_eq!(user(&spec), &UserNetwork::default(), "{name}");
    }
}

#[test]
fn without_ipv6_there_is_no_address_of_it() {
    let addresses = |sysctls: &[&str]| {
        let spec = make(&[], |request| {
            request.sysctls = sysctls.iter().map(|text| text.parse().unwrap()).collect();
        });
        let spec = spec.unwrap();
        let in_hosts = spec.setup.etc_hosts.contains("fd48:");
        assert_eq!(in_hosts, spec.setup.interfaces[0].ipv6.is_some());
        in_hosts
    };
    assert!(addresses(&["net.ipv6.conf.all.forwarding=1"]));
    assert!(!addresses(&["net.ipv6.conf.all.disable_ipv6=1"]));
    assert!(!addresses(&["net.ipv6.conf.eth0.disable_ipv6=1"]));
    assert!(addresses(&[
        "net.ipv6.conf.all.disable_ipv6=1",
        "net.ipv6.conf.all.disable_ipv6=0"
    ]));
}

#[test]
fn names_servers_and_policy_are_passed_on() {
    let spec = make(&[], |request| {
        request.dns = vec!["9.9.9.9".parse().unwrap(), "2620:fe::9".parse().unwrap()];
        request.dns_search = vec!["a.example".to_owned(), "b.example".to_owned()];
        request.dns_option = vec!["timeout:3".to_owned()];
        request.add_host = vec![
            "host:host-gateway".parse().unwrap(),
            "db:192.0.2.1".parse().unwrap(),
        ];
        request.network.egress = Some("192.0.2.0/24,all:443".parse().unwrap());
        request.network.rate = Some("out=1m".parse().unwrap());
    })
    .unwrap();
    let network = user(&spec);
    assert!(network.host_gateway);
    assert_eq!(network.egress.as_deref(), Some("192.0.2.0/24,all:443"));
    assert_eq!(network.dns.len(), 2);
    assert_eq!(
        (network.rate.inbound, network.rate.outbound),
        (None, Some(1 << 20))
    );
    assert_eq!(
        spec.setup.etc_resolv_conf,
        "nameserver 10.0.2.1\nsearch a.example b.example\noptions timeout:3\n"
    );
    let hosts = "\n10.0.2.1\thost\n192.0.2.1\tdb\n10.0.2.2\t";
    assert!(spec.setup.etc_hosts.contains(hosts));
    assert_eq!(
        spec.typed.extra_hosts,
        ["host:host-gateway", "db:192.0.2.1"]
    );
    assert!("host".parse::<Egress>().is_err());
    assert!(!user(&make(&[], |_| {}).unwrap()).host_gateway);
}

#[test]
fn without_a_network_nothing_is_published() {
    let spec = make(&["80/tcp"], |request| {
        request.network.attachments = attach("none");
        request.network.publish = vec!["8080:80".parse().unwrap()];
        request.network.publish_all = true;
        request.network.egress = Some("none".parse().unwrap());
        request.dns = vec!["9.9.9.9".parse().unwrap()];
    })
    .unwrap();
    assert_eq!(spec.network, Network::None);
    assert!(spec.setup.interfaces.is_empty());
    assert_eq!(spec.setup.etc_resolv_conf, "nameserver 9.9.9.9\n");
    assert!(
        spec.setup
            .etc_hosts
            .ends_with("\n127.0.1.1\t0123456789ab\n")
    );
    // As typed, for `inspect`.
    assert_eq!(spec.typed.publish.len(), 1);
}

#[test]
fn all_that_is_exposed_is_published_once() {
    let publish_all = |flags: &[&str], exposed: &[&str]| {
        let spec = make(&["80/tcp", "53/udp"], |request| {
            request.network.publish_all = true;
            request.network.publish = flags.iter().map(|text| text.parse().unwrap()).collect();
            request.network.expose = exposed.iter().map(|text| text.parse().unwrap()).collect();
        });
        let spec = spec.map_err(|error| error.to_string())?;
        let ports = user(&spec).ports.iter().map(|port| {
            let (low, high) = port.host_ports;
            let transport = if port.protocol == PortProtocol::Tcp {
                "tcp"
            } else {
                "udp"
            };
            format!("{low}-{high}:{}/{transport}", port.container_port)
        });
        Ok::<_, String>((ports.collect::<Vec<_>>(), Vec::from(spec.exposed)))
    };
    let (ports, exposed) = publish_all(&[], &[]).unwrap();
    assert_eq!(ports, ["0-0:53/udp", "0-0:80/tcp"]);
    assert_eq!(exposed, ["80/tcp", "53/udp"]);
    let (ports, exposed) = publish_all(&["8080:80", "81"], &["7000-7001"]).unwrap();
    assert_eq!(
        ports,
        [
            "8080-8080:80/tcp",
            "0-0:81/tcp",
            "0-0:53/udp",
            "0-0:7000/tcp",
            "0-0:7001/tcp"
        ]
    );
    assert_eq!(exposed, ["80-81/tcp", "7000-7001/tcp", "53/udp"]);
    let sctp = publish_all(&[], &["9/sctp"]).unwrap_err();
    assert_eq!(
        sctp,
        "cannot publish port 9/sctp: only ports of tcp and udp can be published"
    );
    let many = publish_all(&[], &["1-5000"]).unwrap_err();
    assert_eq!(many, "too many published ports: the most is 1024");
}

#[test]
fn hardware_addresses_are_the_containers_own() {
    let mac = |text: &str| match text.parse::<MacAddress>() {
        Ok(mac) => Ok(mac.to_string()),
        Err(error) => Err(error.to_string()),
    };
    for text in [
        "02:42:ac:11:00:02",
        "02-42-AC-11-00-02",
        "0242.ac11.0002",
        " 02:42:ac:11:00:02",
    ] {
        assert_eq!(mac(text), Ok("02:42:ac:11:00:02".to_owned()), "{text}");
    }
    for bad in [
        "",
        "x",
        "02:42:ac:11:00",
        "02:42:ac:11:00:02:03",
        "02:42:ac:11:00:0g",
        "02:42:ac:11:00:+2",
        "02:42-ac:11:00:02",
        "0242ac110002",
        "00:00:00:00:00:00",
        "äö:42:ac:11:00:02",
    ] {
        assert_eq!(mac(bad), Err(format!("{bad} is not a valid mac address")));
    }
    assert!(mac("03:42:ac:11:00:02").unwrap_err().contains("multicast"));
    assert!(mac("02:48:55:4c:4c:01").unwrap_err().contains("gateway"));
    // An id that would lead to the gateway's.
    assert_ne!(own_mac("48554c4c01aa"), GATEWAY_MAC);
    let typed = make(&[], |request| {
        request.network.mac_address = Some("02:42:ac:11:00:02".parse().unwrap());
    });
    let typed = typed.unwrap();
    assert_eq!(typed.setup.interfaces[0].mac[5], 2);
    assert_eq!(
        typed.typed.mac_address.as_deref(),
        Some("02:42:ac:11:00:02")
    );
    let long = make(&[], |request| {
        request.network.attachments = attach("name=bridge,mac-address=02:42:ac:11:00:03");
    });
    assert_eq!(long.unwrap().setup.interfaces[0].mac[5], 3);
}

#[test]
fn what_is_shared_is_not_set() {
    let join = |change: fn(&mut RunRequest)| {
        make(&["80/tcp"], |request| {
            request.isolation = Isolation::Container;
            request.network.attachments = attach("container:web");
            request.network.joined = Some(joined(Isolation::Container));
            change(request);
        })
        .map_err(|error| error.to_string())
    };
    let spec = join(|_| {}).unwrap();
    assert_eq!(spec.network, Network::Container("f".repeat(64)));
    assert_eq!(spec.setup.hostname, "web");
    assert_eq!(spec.setup.etc_hosts, "10.0.2.2\tweb\n");
    assert_eq!(spec.setup.etc_resolv_conf, "nameserver 10.0.2.1\n");
    for (change, why) in [
        (
            (|request| request.hostname = Some("h".to_owned())) as fn(&mut RunRequest),
            "conflicting options: hostname and the network mode",
        ),
        (
            |request| request.dns = vec!["9.9.9.9".parse().unwrap()],
            "conflicting options: dns and the network mode",
        ),
        (
            |request| request.add_host = vec!["a:1.2.3.4".parse().unwrap()],
            "conflicting options: custom host-to-IP mapping and the network mode",
        ),
        (
            |request| request.network.mac_address = Some("02:42:ac:11:00:02".parse().unwrap()),
            "conflicting options: mac-address and the network mode",
        ),
        (
            |request| request.network.publish = vec!["80".parse().unwrap()],
            "conflicting options: port publishing and the container type network mode",
        ),
        (
            |request| request.network.publish_all = true,
            "conflicting options: port publishing and the container type network mode",
        ),
        (
            |request| request.network.expose = vec!["80".parse().unwrap()],
            "conflicting options: port exposing and the container type network mode",
        ),
        (
            |request| request.network.egress = Some("all".parse().unwrap()),
            "conflicting options: egress and the network mode",
        ),
        (
            |request| request.network.rate = Some("in=1m".parse().unwrap()),
            "conflicting options: network-rate and the network mode",
        ),
        (
            |request| request.network.joined = Some(joined(Isolation::Vm)),
            "cannot join the network of container ffffffffffff: it is in a microVM's own kernel",
        ),
        (
            |request| request.isolation = Isolation::Vm,
            "--network container:web needs --isolation=container: a microVM's network is in a kernel of its own",
        ),
    ] {
        assert_eq!(join(change).unwrap_err(), why);
    }
}

#[test]
fn the_hosts_network_has_no_ports_of_its_own() {
    let host = |change: fn(&mut RunRequest)| {
        make(&[], |request| {
            request.isolation = Isolation::Container;
            request.network.attachments = attach("host");
            change(request);
        })
        .map_err(|error| error.to_string())
    };
    let spec = host(|request| request.add_host = vec!["me:host-gateway".parse().unwrap()]);
    let spec = spec.unwrap();
    assert_eq!(spec.network, Network::Host);
    assert!(spec.setup.etc_hosts.contains("\n127.0.0.1\tme\n"));
    assert!(host(|request| request.hostname = Some("h".to_owned())).is_ok());
    assert!(host(|request| request.isolation = Isolation::Vm).is_err());
    assert!(host(|request| request.network.egress = Some("none".parse().unwrap())).is_err());
    assert_eq!(
        host(|request| request.sysctls = vec!["net.core.somaxconn=9".parse().unwrap()])
            .unwrap_err(),
        "sysctl \"net.core.somaxconn\" not allowed in host network namespace"
    );
    assert!(host(|request| request.sysctls = vec!["kernel.shmmax=9".parse().unwrap()]).is_ok());
    assert!(
        host(|request| request.network.mac_address = Some("02:42:ac:11:00:02".parse().unwrap()))
            .is_err()
    );
    // Made from the host's files at each start.
    let mut setup = spec.setup.clone();
    let hosts = "127.0.0.1 localhost\n192.0.2.9 printer";
    let resolver = "# by hand\nnameserver 192.0.2.53\nsearch corp.example\noptions edns0\n";
    share_host(&mut setup, &spec.typed, hosts, resolver);
    assert_eq!(setup.etc_hosts, format!("{hosts}\n127.0.0.1\tme\n"));
    let own = "nameserver 192.0.2.53\nsearch corp.example\noptions edns0\n";
    assert_eq!(setup.etc_resolv_conf, own);
    let typed = Typed {
        dns: vec!["9.9.9.9".to_owned()],
        dns_search: vec![".".to_owned()],
        ..Typed::default()
    };
    share_host(&mut setup, &typed, "", resolver);
    assert_eq!(setup.etc_resolv_conf, "nameserver 9.9.9.9\noptions edns0\n");

    let mut request = NetworkRequest {
        attachments: attach("host"),
        ..NetworkRequest::default()
    };
    assert!(request.warnings(false).is_empty());
    let of_the_machine = request.warnings(true);
    assert!(of_the_machine[0].contains("the helper machine's"));
    request.publish = vec!["80:80".parse().unwrap()];
    let discarded = "Published ports are discarded when using host network mode";
    assert_eq!(request.warnings(false), [discarded]);
    assert_eq!(request.warnings(true), [discarded, of_the_machine[0]]);
    request.attachments = attach("none");
    assert!(request.warnings(true).is_empty());
}

#[test]
fn networks_are_named_as_docker_names_them() {
    let parse = |text: &str| match text.parse::<Attachment>() {
        Ok(one) => Ok(one.mode.to_string()),
        Err(error) => Err(error.to_string()),
    };
    for (text, wanted) in [
        ("none", "none"),
        ("host", "host"),
        ("default", "bridge"),
        ("container:web", "container:web"),
        ("mine", "mine"),
        ("name=mine,alias=a,ip=10.0.0.3", "mine"),
        ("NAME = mine", "mine"),
    ] {
        assert_eq!(parse(text), Ok(wanted.to_owned()), "{text}");
    }
    for (text, why) in [
        ("", "no name set for network"),
        (" ", "no name set for network"),
        (
            "container:",
            "invalid network mode: invalid container format container:<name|id>",
        ),
        (
            "container",
            "invalid network mode: invalid container format container:<name|id>",
        ),
        ("alias=a", "network name/id is not specified"),
        ("name=", "network name/id is not specified"),
        ("name=n,alias", "invalid field alias"),
        ("name=n,=x", "invalid field =x"),
        ("name=n,foo=x", "invalid field key foo"),
        ("name=n,mac-address=x", "x is not a valid mac address"),
        ("name=n,driver-opt=a=b", "driver-opt is not supported yet"),
        (
            "name=n,link-local-ip=169.254.0.9",
            "link-local-ip is not supported yet",
        ),
        ("name=n,ip=x", "invalid IPv4 address: x"),
        ("name=n,ip=fd00::1", "invalid IPv4 address: fd00::1"),
        ("name=n,ip6=1.2.3.4", "invalid IPv6 address: 1.2.3.4"),
    ] {
        assert_eq!(parse(text), Err(why.to_owned()), "{text}");
    }
}

#[test]
fn what_is_typed_of_networks_fits_together() {
    let fails = |typed: &[&str], change: fn(&mut NetworkRequest)| {
        let made = make(&[], |request| {
            request.network.attachments = typed.iter().map(|text| text.parse().unwrap()).collect();
            change(&mut request.network);
        });
        made.unwrap_err().to_string()
    };
    let alias: fn(&mut NetworkRequest) = |asked| asked.aliases = vec!["a".to_owned()];
    let address: fn(&mut NetworkRequest) = |asked| asked.ipv4 = Some(ADDRESS);
    let nothing: fn(&mut NetworkRequest) = |_| {};
    for (typed, change, why) in [
        (&["mine"][..], nothing, "network mine not found"),
        (&["mine", "other"], nothing, "network mine not found"),
        (&["name=mine,alias=a"], nothing, "network mine not found"),
        (&["mine"], alias, "network mine not found"),
        (
            &["mine", "bridge"],
            nothing,
            "conflicting options: cannot attach both user-defined and non-user-defined network-modes",
        ),
        (
            &["none", "bridge"],
            nothing,
            "conflicting options: of none, bridge, host and container networks there can be one",
        ),
        (
            &["bridge", "default"],
            nothing,
            "network \"bridge\" is specified multiple times",
        ),
        (
            &[],
            alias,
            "network-scoped aliases are only supported for user-defined networks",
        ),
        (
            &["none"],
            alias,
            "network-scoped aliases are only supported for user-defined networks",
        ),
        (
            &["name=bridge,alias=b"],
            nothing,
            "network-scoped aliases are only supported for user-defined networks",
        ),
        (
            &["name=mine,alias=b"],
            alias,
            "conflicting options: cannot specify both --network-alias and per-network alias",
        ),
        (
            &[],
            address,
            "user specified IP address is supported on user defined networks only",
        ),
        (
            &["name=bridge,ip=10.0.2.9"],
            nothing,
            "user specified IP address is supported on user defined networks only",
        ),
    ] {
        assert_eq!(fails(typed, change), why, "{typed:?}");
    }
}

#[test]
fn a_copy_has_ports_and_a_hardware_address_of_its_own() {
    let saved = make(&["80/tcp"], |request| {
        request.network.publish = vec!["8080:80".parse().unwrap()];
        request.network.egress = Some("all:443".parse().unwrap());
        request.network.mac_address = Some("02:42:ac:11:00:02".parse().unwrap());
    });
    let saved = saved.unwrap();
    let id = "ab".repeat(32);
    let copied = |change: fn(&mut NetworkRequest)| {
        let mut request = RunRequest::default();
        change(&mut request.network);
        copy(&id, request, saved.clone(), ID).unwrap()
    };
    let plain = copied(|_| {});
    assert!(user(&plain).ports.is_empty() && plain.typed.publish.is_empty());
    assert_eq!(user(&plain).egress.as_deref(), Some("all:443"));
    assert_eq!(
        plain.setup.interfaces[0].mac,
        [0x02, 0xab, 0xab, 0xab, 0xab, 0xab]
    );
    assert_eq!(plain.typed.mac_address, None);
    assert!(
        plain
            .setup
            .etc_hosts
            .ends_with("\n10.0.2.2\tabababababab\nfd48:554c:4c42::2\tabababababab\n")
    );
    let other = copied(|asked| {
        asked.publish_all = true;
        asked.expose = vec!["81".parse().unwrap()];
        asked.egress = Some("none".parse().unwrap());
    });
    assert_eq!(user(&other).ports.len(), 2);
    assert_eq!(user(&other).egress.as_deref(), Some("none"));

    // What never had a network gets none.
    let alone = ContainerSpec {
        network: Network::None,
        ..saved.clone()
    };
    let mut request = RunRequest::default();
    request.network.publish = vec!["8080:80".parse().unwrap()];
    let alone = copy(&id, request, alone, ID).unwrap();
    assert_eq!(alone.network, Network::None);
    assert_eq!(alone.typed.publish.len(), 1);
}

#[test]
fn a_record_of_one_interface_is_one_of_several() {
    let setup = Setup {
        interfaces: vec![own_interface(ID, None)],
        ..Setup::default()
    };
    let mut record = serde_json::to_value(&setup).unwrap();
    assert_eq!(
        serde_json::from_value::<Setup>(record.clone()).unwrap(),
        setup
    );
    let fields = record.as_object_mut().unwrap();
    let mut one = fields.remove("interfaces").unwrap()[0].take();
    one.as_object_mut().unwrap().remove("route_metric");
    record["interface"] = one;
    assert_eq!(
        serde_json::from_value::<Setup>(record.clone()).unwrap(),
        setup
    );
    record["interface"] = serde_json::Value::Null;
    let none = serde_json::from_value::<Setup>(record).unwrap();
    assert_eq!(none, Setup::default());
}
