//! A container's network, in the model's terms.

use crate::networks::Builtin;
use crate::plan::ContainerSpec;
use crate::plan::network::{Attached, MacAddress};
use crate::plan::ports::{Port, Transport};
use crate::state::{Phase, Record};
use hullbox_backend::network::{Network, OpenPort, PublishedPort, Rate};
use hullbox_model::container::{
    Endpoint, Network as Joined, NetworkRate, NetworkSettings, Port as ListedPort, PortBinding,
    Refused,
};
use hullbox_protocol::Interface;
use serde_json::Value;
use std::collections::BTreeMap;

/// Docker's name of a network of its own.
pub(crate) const BRIDGE: &str = "bridge";

/// By the name of a port: `80/tcp`.
type Bindings = BTreeMap<String, Option<Vec<PortBinding>>>;

/// `HostConfig.NetworkMode`. Docker 26.1 says `bridge` of a container that was made without
/// `--network`.
pub(crate) fn mode(spec: &ContainerSpec) -> String {
    match &spec.network {
        Network::None => "none".to_owned(),
        Network::User(_) => match &spec.typed.network_mode {
            Some(name) => name.clone(),
            None => BRIDGE.to_owned(),
        },
        Network::Host => "host".to_owned(),
        Network::Container(id) => format!("container:{id}"),
    }
}

/// Where it may connect to, if not everywhere.
pub(super) fn egress(spec: &ContainerSpec) -> Option<String> {
    match &spec.network {
        Network::User(network) => network.egress.clone(),
        _ => None,
    }
}

/// How fast its frames may come and go, if there is a bound.
pub(super) fn rate(spec: &ContainerSpec) -> Option<NetworkRate> {
    let rate = match &spec.network {
        Network::User(network) => network.rate,
        _ => Rate::default(),
    };
    (rate != Rate::default()).then_some(NetworkRate {
        inbound: rate.inbound,
        outbound: rate.outbound,
    })
}

/// `HostConfig.PortBindings`: what was typed.
pub(super) fn typed(spec: &ContainerSpec) -> Bindings {
    let mut bindings = Bindings::new();
    for port in &spec.typed.publish {
        let binding = PortBinding {
            host_ip: port.host_ip.map(|ip| ip.to_string()).unwrap_or_default(),
            host_port: typed_port(port),
        };
        let name = name(port.container_port, port.protocol.into());
        let of_port = bindings.entry(name).or_default();
        of_port.get_or_insert_default().push(binding);
    }
    bindings
}

fn typed_port(port: &PublishedPort) -> String {
    match port.host_ports {
        (0, _) => String::new(),
        (first, last) if first == last => first.to_string(),
        (first, last) => format!("{first}-{last}"),
    }
}

fn name(number: u16, transport: Transport) -> String {
    Port { number, transport }.to_string()
}

/// Whether a container is in a network of its own at this moment: as in Docker, one that does not run
/// has neither ports nor addresses.
fn is_connected(record: &Record) -> bool {
    let runs = matches!(record.phase, Phase::Running | Phase::Paused);
    runs && matches!(record.spec.network, Network::User(_))
}

/// All of it. Addresses beside its networks' are those of a network of its own, as in Docker.
pub(super) fn settings(record: &Record) -> NetworkSettings {
    NetworkSettings {
        ports: open(record),
        endpoint: own(record).map(endpoint).unwrap_or_default(),
        networks: networks(record),
        ..NetworkSettings::default()
    }
}

/// The networks it is in.
pub(crate) fn networks(record: &Record) -> BTreeMap<String, Joined> {
    let spec = &record.spec;
    let own = match &spec.network {
        Network::Container(_) => return BTreeMap::new(),
        // Made in others, or taken out of its own.
        Network::User(_) if spec.setup.interfaces.is_empty() => None,
        Network::User(_) => Some(BRIDGE.to_owned()),
        Network::None | Network::Host => Some(mode(spec)),
    };
    let own = own.map(|name| {
        let joined = Joined {
            endpoint: self::own(record).map(endpoint).unwrap_or_default(),
            ..Joined::default()
        };
        (name, joined)
    });
    let others = spec.networks.iter();
    let others = others.map(|attached| (attached.name.clone(), shared(record, attached)));
    own.into_iter().chain(others).collect()
}

/// What it was refused, if anything, with its networks' names in place of their ids.
pub(super) fn named(mut refused: Refused, record: &Record) -> Option<Refused> {
    for target in &mut refused.targets {
        let networks = &record.spec.networks;
        let its = networks.iter().find(|one| one.id == target.network);
        match its {
            Some(attached) => target.network.clone_from(&attached.name),
            None if target.network.is_empty() => BRIDGE.clone_into(&mut target.network),
            None => {}
        }
    }
    (refused != Refused::default()).then_some(refused)
}

/// Its place in a network that it shares.
fn shared(record: &Record, attached: &Attached) -> Joined {
    let spec = &record.spec;
    let mut places = record.endpoints.iter();
    let place = places.find(|place| place.network == attached.id && is_connected(record));
    let mut ipam = BTreeMap::new();
    let asked = [
        ("IPv4Address", attached.ipv4.map(|ip| ip.to_string())),
        ("IPv6Address", attached.ipv6.map(|ip| ip.to_string())),
    ];
    for (key, address) in asked {
        if let Some(address) = address {
            ipam.insert(key.to_owned(), Value::String(address));
        }
    }
    Joined {
        ipam_config: (!ipam.is_empty()).then_some(ipam),
        aliases: (!attached.aliases.is_empty()).then(|| attached.aliases.clone()),
        network_id: attached.id.clone(),
        endpoint: place.map_or_else(Endpoint::default, |place| Endpoint {
            endpoint_id: place.id.clone(),
            ..endpoint(&place.interface)
        }),
        dns_names: Some(attached.dns_names(&record.name, &record.id, &spec.setup.hostname)),
        ..Joined::default()
    }
}

/// Whether it is in a network of this name or id.
pub(crate) fn is_in(record: &Record, network: &str) -> bool {
    let by_id = || record.spec.networks.iter().any(|one| one.id == network);
    let name = match Builtin::exactly(network) {
        Some(builtin) => builtin.name(),
        None => network,
    };
    networks(record).contains_key(name) || by_id()
}

/// Its interface in a network of its own, while it runs there.
pub(crate) fn own(record: &Record) -> Option<&Interface> {
    let interface = record.spec.setup.interfaces.first();
    interface.filter(|_| is_connected(record))
}

fn endpoint(interface: &Interface) -> Endpoint {
    let mut endpoint = Endpoint {
        mac_address: MacAddress(interface.mac).to_string(),
        ..Endpoint::default()
    };
    if let Some(ipv4) = interface.ipv4 {
        endpoint.ip_address = ipv4.address.to_string();
        endpoint.ip_prefix_len = ipv4.prefix;
        endpoint.gateway = ipv4.gateway.map(|ip| ip.to_string()).unwrap_or_default();
    }
    if let Some(ipv6) = interface.ipv6 {
        endpoint.global_ipv6_address = ipv6.address.to_string();
        endpoint.global_ipv6_prefix_len = ipv6.prefix;
        endpoint.ipv6_gateway = ipv6.gateway.map(|ip| ip.to_string()).unwrap_or_default();
    }
    endpoint
}

/// `NetworkSettings.Ports`: what leads to each exposed port, nothing to most.
fn open(record: &Record) -> Bindings {
    if !is_connected(record) {
        return Bindings::new();
    }
    let exposed = record.spec.exposed.iter();
    let mut bindings: Bindings = exposed.map(|port| (port.to_string(), None)).collect();
    for port in &record.open_ports {
        let binding = PortBinding {
            host_ip: port.host_ip.to_string(),
            host_port: port.host_port.to_string(),
        };
        let of_port = bindings.entry(name(port.container_port, port.protocol.into()));
        of_port.or_default().get_or_insert_default().push(binding);
    }
    bindings
}

/// The same as a listing tells it, in the order of the container's ports.
pub(crate) fn listed(record: &Record) -> Vec<ListedPort> {
    if !is_connected(record) {
        return Vec::new();
    }
    let listed_open = |port: &OpenPort| ListedPort {
        ip: port.host_ip.to_string(),
        private_port: port.container_port,
        public_port: Some(port.host_port),
        kind: Transport::from(port.protocol).as_str().to_owned(),
    };
    let leads_to = |port: &Port, open: &OpenPort| {
        open.container_port == port.number && Transport::from(open.protocol) == port.transport
    };
    let open = &record.open_ports;
    let exposed = record.spec.exposed.iter();
    let exposed = exposed
        .filter(|port| !open.iter().any(|open| leads_to(port, open)))
        .map(|port| ListedPort {
            private_port: port.number,
            kind: port.transport.as_str().to_owned(),
            ..ListedPort::default()
        });
    let mut ports: Vec<_> = exposed.chain(open.iter().map(listed_open)).collect();
    ports.sort_by(|a, b| {
        let key = |port: &ListedPort| (port.private_port, port.public_port);
        (key(a), &a.ip, &a.kind).cmp(&(key(b), &b.ip, &b.kind))
    });
    ports
}

#[cfg(test)]
mod tests {
    use super::super::inspect;
    use super::super::tests::{record, roots};
    use super::*;
    use crate::bundle::Isolation;
    use crate::plan::RunRequest;
    use hullbox_backend::network::PortProtocol;
    use hullbox_model::container::{Config, Inspect};

    fn open_port(ip: &str, host_port: u16, container_port: u16) -> OpenPort {
        OpenPort {
            protocol: PortProtocol::Tcp,
            host_ip: ip.parse().unwrap(),
            host_port,
            container_port,
        }
    }

    fn published(change: fn(&mut RunRequest)) -> Record {
        let mut record = record(Isolation::Vm, |request| {
            request.network.publish = ["8080:80", "127.0.0.1::81", "[::1]:9000-9005:82/udp"]
                .map(|text| text.parse().unwrap())
                .to_vec();
            request.network.expose = vec!["53/udp".parse().unwrap()];
            change(request);
        });
        record.open_ports = vec![
            open_port("0.0.0.0", 8080, 80),
            open_port("::", 8080, 80),
            open_port("127.0.0.1", 40_000, 81),
        ];
        record
    }

    fn of(record: &Record) -> Inspect {
        inspect(record, &Config::default(), &roots())
    }

    #[test]
    fn what_is_published_is_told_as_docker_tells_it() {
        let record = published(|request| {
            request.network.egress = Some("none".parse().unwrap());
            request.network.rate = Some("in=2k".parse().unwrap());
        });
        let inspect = of(&record);
        let json = |value: &Bindings| serde_json::to_string(value).unwrap();
        assert_eq!(
            json(&inspect.network_settings.ports),
            r#"{"53/udp":null,"80/tcp":[{"HostIp":"0.0.0.0","HostPort":"8080"},{"HostIp":"::","HostPort":"8080"}],"81/tcp":[{"HostIp":"127.0.0.1","HostPort":"40000"}],"82/udp":null}"#
        );
        assert_eq!(
            json(&inspect.host_config.port_bindings),
            r#"{"80/tcp":[{"HostIp":"","HostPort":"8080"}],"81/tcp":[{"HostIp":"127.0.0.1","HostPort":""}],"82/udp":[{"HostIp":"::1","HostPort":"9000-9005"}]}"#
        );
        assert_eq!(inspect.host_config.network_mode, "bridge");
        assert!(!inspect.host_config.publish_all_ports);
        assert_eq!(inspect.egress.as_deref(), Some("none"));
        assert_eq!(
            serde_json::to_string(&inspect.network_rate).unwrap(),
            r#"{"In":2048,"Out":null}"#
        );
        let exposed: Vec<_> = inspect.config.exposed_ports.unwrap().into_keys().collect();
        assert_eq!(exposed, ["53/udp", "80/tcp", "81/tcp", "82/udp"]);
        let settings = inspect.network_settings;
        let bridge = &settings.networks["bridge"].endpoint;
        assert_eq!(bridge, &settings.endpoint);
        assert_eq!(
            (&*bridge.ip_address, bridge.ip_prefix_len, &*bridge.gateway),
            ("10.0.2.2", 24, "10.0.2.1")
        );
        assert_eq!(bridge.global_ipv6_address, "fd48:554c:4c42::2");
        assert_eq!(bridge.mac_address, "02:01:23:45:67:89");
        let listed: Vec<_> = listed(&record)
            .into_iter()
            .map(|port| (port.ip, port.public_port, port.private_port, port.kind))
            .collect();
        let line = |ip: &str, public, private, kind: &str| {
            (ip.to_owned(), public, private, kind.to_owned())
        };
        assert_eq!(
            listed,
            [
                line("", None, 53, "udp"),
                line("0.0.0.0", Some(8080), 80, "tcp"),
                line("::", Some(8080), 80, "tcp"),
                line("127.0.0.1", Some(40_000), 81, "tcp"),
                line("", None, 82, "udp"),
            ]
        );
    }

    #[test]
    fn what_does_not_run_has_no_address() {
        let mut record = published(|_| {});
        for phase in [Phase::Created, Phase::Restarting, Phase::Exited] {
            record.phase = phase;
            let settings = of(&record).network_settings;
            assert!(settings.ports.is_empty() && listed(&record).is_empty());
            assert_eq!(settings.endpoint, Endpoint::default());
            assert_eq!(settings.networks["bridge"], Joined::default());
        }
    }

    #[test]
    fn networks_that_it_shares_are_told_as_docker_tells_them() {
        let mut record = published(|_| {});
        let id = "ab".repeat(32);
        record.spec.networks = vec![Attached {
            id: id.clone(),
            name: "shop".to_owned(),
            aliases: vec!["www".to_owned()],
            ipv4: Some([10, 9, 0, 9].into()),
            ..Attached::default()
        }];
        record.spec.typed.network_mode = Some("shop".to_owned());
        let mut interface = record.spec.setup.interfaces.remove(0);
        interface.ipv4 = interface.ipv4.map(|mut ipv4| {
            ipv4.address = [10, 9, 0, 9].into();
            ipv4
        });
        record.endpoints = vec![crate::state::Endpoint {
            network: id.clone(),
            id: "cd".repeat(32),
            internal: false,
            interface: interface.clone(),
        }];
        let shown = of(&record);
        assert_eq!(shown.host_config.network_mode, "shop");
        // What is beside the networks is of a network of its own.
        let settings = shown.network_settings;
        assert_eq!(settings.endpoint, Endpoint::default());
        assert_eq!(settings.networks.len(), 1);
        let shop = &settings.networks["shop"];
        assert_eq!(
            (&shop.network_id, &*shop.endpoint.ip_address),
            (&id, "10.9.0.9")
        );
        assert_eq!(shop.endpoint.endpoint_id, "cd".repeat(32));
        assert_eq!(shop.aliases.as_deref(), Some(&["www".to_owned()][..]));
        let names = ["web", "www", "0123456789ab"].map(str::to_owned);
        assert_eq!(shop.dns_names.as_deref(), Some(&names[..]));
        let asked = serde_json::to_string(&shop.ipam_config).unwrap();
        assert_eq!(asked, r#"{"IPv4Address":"10.9.0.9"}"#);
        assert!(is_in(&record, "shop") && is_in(&record, &id) && !is_in(&record, "bridge"));
        // With both.
        record.spec.setup.interfaces = vec![interface];
        assert_eq!(networks(&record).len(), 2);
        assert!(is_in(&record, "bridge") && is_in(&record, Builtin::Bridge.id()));
        record.phase = Phase::Exited;
        let shop = &networks(&record)["shop"];
        assert_eq!(
            (shop.endpoint.clone(), &shop.network_id),
            (Endpoint::default(), &id)
        );
        record.spec.setup.interfaces.clear();
        record.spec.networks.clear();
        assert!(networks(&record).is_empty());
    }

    #[test]
    fn other_networks_have_neither_ports_nor_addresses() {
        let mut record = published(|request| {
            request.network.attachments = vec!["none".parse().unwrap()];
        });
        assert_eq!(of(&record).network_settings.networks.len(), 1);
        for (network, name) in [
            (Network::None, "none"),
            (Network::Host, "host"),
            (Network::Container("ab".to_owned()), "container:ab"),
        ] {
            record.spec.network = network;
            let inspect = of(&record);
            assert_eq!(inspect.host_config.network_mode, name);
            assert!(inspect.network_settings.ports.is_empty());
            let networks = inspect.network_settings.networks;
            let joins = name.starts_with("container:");
            assert_eq!(networks.contains_key(name), !joins);
        }
        // As typed, all the same.
        assert_eq!(of(&record).host_config.port_bindings.len(), 3);
    }
}
