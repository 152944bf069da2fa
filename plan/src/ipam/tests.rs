use super::*;
use std::net::{Ipv4Addr, Ipv6Addr};

fn subnets(texts: &[&str]) -> Vec<Subnet> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

/// Of `--subnet`, `--ip-range`, `--gateway` and `--aux-address`.
fn typed(subnets: &[&str], ranges: &[&str], gateways: &[&str], aux: &[&str]) -> PoolRequest {
    let aux = aux.iter().map(|text| {
        let (name, address) = text.split_once('=').unwrap();
        (name.to_owned(), address.to_owned())
    });
    PoolRequest {
        subnets: strings(subnets),
        ranges: strings(ranges),
        gateways: strings(gateways),
        auxiliary: aux.collect(),
        ipv6: false,
    }
}

fn made(request: &PoolRequest, taken: &[&str]) -> Result<SharedNetwork, String> {
    let made = pools(request, &subnets(taken), &[], [1, 2, 3, 4, 5, 6, 7]);
    let (ipv4, ipv6) = made.map_err(|error| error.to_string())?;
    Ok(network(ipv4, ipv6))
}

fn network(ipv4: Pool, ipv6: Option<Pool>) -> SharedNetwork {
    SharedNetwork {
        ipv4,
        ipv6,
        internal: false,
        attachable: false,
        labels: BTreeMap::new(),
        options: BTreeMap::new(),
    }
}

fn subnet_of(taken: &[&str]) -> Result<String, String> {
    made(&PoolRequest::default(), taken).map(|network| network.ipv4.subnet.to_string())
}

#[test]
fn default_ranges_are_dockers_and_overlap_nothing() {
    assert_eq!(subnet_of(&[]).unwrap(), "172.17.0.0/16");
    assert_eq!(subnet_of(&["172.17.0.0/16"]).unwrap(), "172.18.0.0/16");
    // Whatever is in it.
    assert_eq!(
        subnet_of(&["172.17.9.0/24", "172.18.0.0/15"]).unwrap(),
        "172.20.0.0/16"
    );
    assert_eq!(subnet_of(&["172.16.0.0/12"]).unwrap(), "192.168.0.0/20");
    assert_eq!(
        subnet_of(&["172.16.0.0/12", "192.168.0.0/19"]).unwrap(),
        "192.168.32.0/20"
    );
    assert_eq!(
        subnet_of(&["172.16.0.0/12", "192.168.0.0/16"]).unwrap_err(),
        "could not find an available, non-overlapping IPv4 address pool among the defaults to assign to the network"
    );
    // All of them, one after the other.
    let mut taken = Vec::new();
    while let Ok((pool, _)) = pools(&PoolRequest::default(), &taken, &[], [0; 7]) {
        assert_eq!(pool.gateway, pool.subnet.addresses().nth(1).unwrap());
        taken.push(pool.subnet);
    }
    assert_eq!(taken.len(), 31);
    assert_eq!(taken[30].to_string(), "192.168.240.0/20");
    // What the host reaches is left alone, unless it is asked for.
    let avoided = subnets(&["172.17.0.0/16"]);
    let (pool, _) = pools(&PoolRequest::default(), &[], &avoided, [0; 7]).unwrap();
    assert_eq!(pool.subnet.to_string(), "172.18.0.0/16");
    let asked = typed(&["172.17.0.0/24"], &[], &[], &[]);
    assert!(pools(&asked, &[], &avoided, [0; 7]).is_ok());
}

#[test]
fn ipv6_without_a_subnet_is_a_range_of_its_own() {
    let request = PoolRequest {
        ipv6: true,
        ..PoolRequest::default()
    };
    let pool = made(&request, &[]).unwrap().ipv6.unwrap();
    assert_eq!(pool.subnet.to_string(), "fd01:203:405:607::/64");
    assert_eq!(pool.gateway.to_string(), "fd01:203:405:607::1");
    assert_eq!(made(&PoolRequest::default(), &[]).unwrap().ipv6, None);
    // A subnet of IPv6 says it, too.
    let both = made(&typed(&["fd00:9::/64"], &[], &["fd00:9::9"], &[]), &[]).unwrap();
    let pool = both.ipv6.unwrap();
    assert_eq!(
        (pool.subnet.to_string(), pool.gateway.to_string()),
        ("fd00:9::/64".to_owned(), "fd00:9::9".to_owned())
    );
    assert_eq!(both.ipv4.subnet.to_string(), "172.17.0.0/16");
}

#[test]
fn what_is_typed_is_taken() {
    let all = typed(
        &["10.9.0.0/16"],
        &["10.9.5.0/24"],
        &["10.9.5.254"],
        &["printer=10.9.5.7"],
    );
    let pool = made(&all, &[]).unwrap().ipv4;
    assert_eq!(pool.range.unwrap().to_string(), "10.9.5.0/24");
    assert_eq!(pool.gateway.to_string(), "10.9.5.254");
    assert_eq!(pool.auxiliary["printer"].to_string(), "10.9.5.7");
    assert_eq!(
        pool.typed,
        TypedPool {
            subnet: true,
            gateway: true
        }
    );
    let config = network(pool, None).ipam();
    assert_eq!(
        serde_json::to_string(&config).unwrap(),
        r#"{"Driver":"default","Options":{},"Config":[{"Subnet":"10.9.0.0/16","IPRange":"10.9.5.0/24","Gateway":"10.9.5.254","AuxiliaryAddresses":{"printer":"10.9.5.7"}}]}"#
    );
    // As in Docker a gateway is told that was typed, or whose subnet was not.
    let config = |request: &PoolRequest| {
        let config = made(request, &[]).unwrap().ipam().config.unwrap();
        (config[0].subnet.clone(), config[0].gateway.clone())
    };
    assert_eq!(config(&typed(&["10.9.0.0/16"], &[], &[], &[])).1, "");
    assert_eq!(config(&PoolRequest::default()).1, "172.17.0.1");
    assert_eq!(
        made(&PoolRequest::default(), &[]).unwrap().ipam().options,
        None
    );
    let small = made(&typed(&["10.9.0.0/30"], &[], &[], &[]), &[]).unwrap();
    assert_eq!(small.ipv4.gateway.to_string(), "10.9.0.1");
}

#[test]
fn what_does_not_fit_together_is_refused_in_dockers_words() {
    let fails = |request: &PoolRequest| made(request, &["10.0.0.0/24"]).unwrap_err();
    for (subnets, ranges, gateways, aux, why) in [
        (
            &["10.0.0.0"][..],
            &[][..],
            &[][..],
            &[][..],
            "invalid subnet 10.0.0.0: invalid CIDR block notation",
        ),
        (
            &["x"],
            &[],
            &[],
            &[],
            "invalid subnet x: invalid CIDR block notation",
        ),
        (
            &["10.9.1.2/16"],
            &[],
            &[],
            &[],
            "invalid subnet 10.9.1.2/16: it should be 10.9.0.0/16",
        ),
        (
            &[],
            &["10.9.0.0/24"],
            &[],
            &[],
            "every ip-range or gateway must have a corresponding subnet",
        ),
        (
            &[],
            &[],
            &["10.9.0.1"],
            &[],
            "every ip-range or gateway must have a corresponding subnet",
        ),
        (
            &["10.9.0.0/16", "10.9.8.0/24"],
            &[],
            &[],
            &[],
            "multiple overlapping subnet configuration is not supported",
        ),
        (
            &["10.9.0.0/16", "10.8.0.0/16"],
            &[],
            &[],
            &[],
            "bridge driver does not support multiple subnets",
        ),
        (
            &["fd01::/64", "fd02::/64"],
            &[],
            &[],
            &[],
            "bridge driver does not support multiple subnets",
        ),
        (
            &["10.9.0.0/16"],
            &["10.8.0.0/24"],
            &[],
            &[],
            "no matching subnet for range 10.8.0.0/24",
        ),
        (
            &["10.9.0.0/24"],
            &["10.9.0.0/16"],
            &[],
            &[],
            "invalid ip-range 10.9.0.0/16: CIDR block is bigger than its parent subnet 10.9.0.0/24",
        ),
        (
            &["10.9.0.0/16"],
            &["10.9.1.2/24"],
            &[],
            &[],
            "invalid ip-range 10.9.1.2/24: it should be 10.9.1.0/24",
        ),
        (
            &["10.9.0.0/16"],
            &[],
            &["10.8.0.1"],
            &[],
            "no matching subnet for gateway 10.8.0.1",
        ),
        (
            &["10.9.0.0/16"],
            &[],
            &["fd00::1"],
            &[],
            "no matching subnet for gateway fd00::1",
        ),
        (
            &["10.9.0.0/16"],
            &[],
            &["gate"],
            &[],
            "invalid gateway gate: invalid address",
        ),
        (
            &["10.9.0.0/16", "fd01::/64"],
            &[],
            &["10.9.0.2", "10.9.0.3"],
            &[],
            "cannot configure multiple gateways (10.9.0.3, 10.9.0.2) on the same subnet (10.9.0.0/16)",
        ),
        (
            &["10.9.0.0/16"],
            &[],
            &["10.9.0.0"],
            &[],
            "failed to allocate gateway (10.9.0.0): Address already in use",
        ),
        (
            &["10.9.0.0/16"],
            &[],
            &["10.9.255.255"],
            &[],
            "failed to allocate gateway (10.9.255.255): Address already in use",
        ),
        (
            &["10.9.0.0/16"],
            &[],
            &[],
            &["a=10.8.0.9"],
            "no matching subnet for aux-address 10.8.0.9",
        ),
        (
            &["10.9.0.0/16"],
            &[],
            &[],
            &["a=10.9.0.1"],
            "failed to allocate secondary ip address (a:10.9.0.1): Address already in use",
        ),
        (
            &["10.9.0.0/16"],
            &[],
            &[],
            &["a=10.9.0.2", "b=10.9.0.2"],
            "failed to allocate secondary ip address (b:10.9.0.2): Address already in use",
        ),
        (
            &["10.0.0.0/8"],
            &[],
            &[],
            &[],
            "Pool overlaps with other one on this address space",
        ),
        (
            &["10.0.0.128/25"],
            &[],
            &[],
            &[],
            "Pool overlaps with other one on this address space",
        ),
        (
            &["10.9.0.1/32"],
            &[],
            &[],
            &[],
            "no available IPv4 addresses on this network's address pools",
        ),
        (
            &["10.9.0.0/31"],
            &[],
            &[],
            &[],
            "failed to allocate gateway (10.9.0.1): Address already in use",
        ),
        (
            &["fd00::/128"],
            &[],
            &[],
            &[],
            "no available IPv6 addresses on this network's address pools",
        ),
        (
            &["127.0.0.0/24"],
            &[],
            &[],
            &[],
            "invalid subnet 127.0.0.0/24: hosts have no addresses in 127.0.0.0/8",
        ),
        (
            &["0.0.0.0/0"],
            &[],
            &[],
            &[],
            "invalid subnet 0.0.0.0/0: hosts have no addresses in 0.0.0.0/8",
        ),
        (
            &["239.0.0.0/8"],
            &[],
            &[],
            &[],
            "invalid subnet 239.0.0.0/8: hosts have no addresses in 224.0.0.0/3",
        ),
        (
            &["ff02::/64"],
            &[],
            &[],
            &[],
            "invalid subnet ff02::/64: hosts have no addresses in ff00::/8",
        ),
        (
            &["::ffff:10.9.0.0/112"],
            &[],
            &[],
            &[],
            "invalid subnet ::ffff:10.9.0.0/112: hosts have no addresses in ::/8",
        ),
    ] {
        assert_eq!(fails(&typed(subnets, ranges, gateways, aux)), why);
    }
}

#[test]
fn options_that_are_not_followed_are_refused() {
    let check = |name: &str, value: &str, ipv6: bool| {
        let request = PoolRequest {
            ipv6,
            ..PoolRequest::default()
        };
        let mut network = made(&request, &[]).unwrap();
        network.options.insert(name.to_owned(), value.to_owned());
        network
            .check_options()
            .map(|()| network.mtu())
            .map_err(|error| error.to_string())
    };
    assert_eq!(check("anything", "x", false), Ok(65520));
    assert_eq!(check(MTU_OPTION, "1400", false), Ok(1400));
    assert_eq!(check(MTU_OPTION, "68", false), Ok(68));
    assert_eq!(
        check("com.docker.network.bridge.name", "br0", false),
        Ok(65520)
    );
    assert_eq!(
        check("com.docker.network.bridge.enable_icc", "true", false),
        Ok(65520)
    );
    for (value, ipv6) in [
        ("67", false),
        ("65521", false),
        ("x", false),
        ("", false),
        ("1279", true),
    ] {
        assert!(check(MTU_OPTION, value, ipv6).is_err(), "{value}");
    }
    assert_eq!(
        check("com.docker.network.bridge.enable_icc", "false", false).unwrap_err(),
        "invalid driver option com.docker.network.bridge.enable_icc: it is not supported yet"
    );
    assert!(
        check(
            "com.docker.network.bridge.gateway_mode_ipv6",
            "routed",
            false
        )
        .is_err()
    );
}

/// The addresses of a new member.
fn member(
    network: &SharedNetwork,
    asked: Asked,
    taken: &Taken,
) -> Result<(String, String), String> {
    let lease = lease(network, &asked, taken).map_err(|error| error.to_string())?;
    let ipv6 = lease.ipv6.map(|ipv6| ipv6.address.to_string());
    Ok((
        lease.ipv4.unwrap().address.to_string(),
        ipv6.unwrap_or_default(),
    ))
}

fn taken(addresses: &[&str]) -> Taken {
    Taken {
        addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
        macs: std::collections::HashSet::new(),
    }
}

#[test]
fn members_get_the_lowest_free_addresses() {
    let request = PoolRequest {
        ipv6: true,
        ..PoolRequest::default()
    };
    let network = made(&request, &[]).unwrap();
    let nothing = Taken::default();
    let lease = lease(&network, &Asked::default(), &nothing).unwrap();
    let ipv4 = lease.ipv4.unwrap();
    assert_eq!(ipv4.address.to_string(), "172.17.0.2");
    assert_eq!(
        (ipv4.prefix, ipv4.gateway.unwrap().to_string()),
        (16, "172.17.0.1".to_owned())
    );
    let ipv6 = lease.ipv6.unwrap();
    assert_eq!(ipv6.address.to_string(), "fd01:203:405:607::2");
    assert_eq!(
        (ipv6.prefix, ipv6.gateway.unwrap().to_string()),
        (64, "fd01:203:405:607::1".to_owned())
    );
    assert_eq!(lease.mac, [0x02, 0x42, 172, 17, 0, 2]);
    assert_eq!(
        (lease.mtu, lease.gateway_mac),
        (65520, crate::network::GATEWAY_MAC)
    );
    let next = |addresses: &[&str]| member(&network, Asked::default(), &taken(addresses)).unwrap();
    assert_eq!(next(&["172.17.0.2"]).0, "172.17.0.3");
    assert_eq!(next(&["172.17.0.3", "fd01:203:405:607::2"]).0, "172.17.0.2");
    assert_eq!(
        next(&["172.17.0.3", "fd01:203:405:607::2"]).1,
        "fd01:203:405:607::3"
    );
}

#[test]
fn a_range_is_for_those_that_ask_for_nothing() {
    let request = typed(
        &["10.9.0.0/24"],
        &["10.9.0.0/29"],
        &["10.9.0.3"],
        &["a=10.9.0.2"],
    );
    let network = made(&request, &[]).unwrap();
    let mut had = Vec::new();
    loop {
        let addresses: Vec<&str> = had.iter().map(String::as_str).collect();
        match member(&network, Asked::default(), &taken(&addresses)) {
            Ok((address, _)) => had.push(address),
            Err(why) => {
                assert_eq!(
                    why,
                    "no available IPv4 addresses on this network's address pools"
                );
                break;
            }
        }
    }
    // Neither the network's own nor what was set apart; the last of the range is no broadcast address.
    assert_eq!(
        had,
        ["10.9.0.1", "10.9.0.4", "10.9.0.5", "10.9.0.6", "10.9.0.7"]
    );
    let asked = |text: &str| Asked {
        ipv4: Some(text.parse().unwrap()),
        ..Asked::default()
    };
    assert_eq!(
        member(&network, asked("10.9.0.200"), &Taken::default())
            .unwrap()
            .0,
        "10.9.0.200"
    );
    let small = made(&typed(&["10.9.0.0/30"], &[], &[], &[]), &[]).unwrap();
    assert_eq!(
        member(&small, Asked::default(), &Taken::default())
            .unwrap()
            .0,
        "10.9.0.2"
    );
    assert!(member(&small, Asked::default(), &taken(&["10.9.0.2"])).is_err());
}

#[test]
fn addresses_that_are_asked_for_are_the_networks_and_nobodys() {
    let request = typed(&["10.9.0.0/24", "fd00:9::/64"], &[], &[], &["a=10.9.0.2"]);
    let network = made(&request, &[]).unwrap();
    let others = taken(&["10.9.0.9"]);
    let v4 = |text: &str| {
        let asked = Asked {
            ipv4: Some(text.parse::<Ipv4Addr>().unwrap()),
            ..Asked::default()
        };
        member(&network, asked, &others)
    };
    assert_eq!(v4("10.9.0.8").unwrap().0, "10.9.0.8");
    for address in ["10.9.0.9", "10.9.0.1", "10.9.0.0", "10.9.0.255", "10.9.0.2"] {
        assert_eq!(
            v4(address).unwrap_err(),
            "Address already in use",
            "{address}"
        );
    }
    assert_eq!(
        v4("10.8.0.8").unwrap_err(),
        "Invalid address 10.8.0.8: It does not belong to any of this network's subnets"
    );
    let v6 = |network: &SharedNetwork, text: &str| {
        let asked = Asked {
            ipv6: Some(text.parse::<Ipv6Addr>().unwrap()),
            ..Asked::default()
        };
        member(network, asked, &others)
    };
    assert_eq!(v6(&network, "fd00:9::8").unwrap().1, "fd00:9::8");
    assert!(
        v6(&network, "fd00:8::8")
            .unwrap_err()
            .starts_with("Invalid address fd00:8::8")
    );
    let not_configured = "user specified IP address is supported only when connecting to networks with user configured subnets";
    let plain = made(
        &PoolRequest {
            ipv6: true,
            ..PoolRequest::default()
        },
        &[],
    )
    .unwrap();
    assert_eq!(
        v6(&plain, "fd01:203:405:607::9").unwrap_err(),
        not_configured
    );
    let asked = Asked {
        ipv4: Some(Ipv4Addr::new(172, 17, 0, 9)),
        ..Asked::default()
    };
    assert_eq!(member(&plain, asked, &others).unwrap_err(), not_configured);
    let only_v4 = made(&typed(&["10.9.0.0/24"], &[], &[], &[]), &[]).unwrap();
    assert_eq!(v6(&only_v4, "fd00:9::8").unwrap_err(), not_configured);
}

#[test]
fn no_two_members_have_one_hardware_address() {
    let network = made(&PoolRequest::default(), &[]).unwrap();
    let mac = |text: &str| Some(text.parse().unwrap());
    let first = lease(
        &network,
        &Asked {
            mac: mac("02:42:ac:11:00:03"),
            ..Asked::default()
        },
        &Taken::default(),
    )
    .unwrap();
    assert_eq!(first.mac, [0x02, 0x42, 172, 17, 0, 3]);
    let others = Taken {
        addresses: taken(&["172.17.0.2"]).addresses,
        macs: [first.mac].into(),
    };
    let second = lease(&network, &Asked::default(), &others).unwrap();
    assert_eq!(second.ipv4.unwrap().address.to_string(), "172.17.0.3");
    assert_eq!(second.mac, [0x02, 0x43, 172, 17, 0, 3]);
    let third = lease(
        &network,
        &Asked {
            mac: mac("02:42:ac:11:00:03"),
            ..Asked::default()
        },
        &others,
    );
    assert_eq!(
        third.unwrap_err().to_string(),
        "MAC address 02:42:ac:11:00:03 is already in use on this network"
    );
}

#[test]
fn a_network_is_kept_as_it_is() {
    let network = made(
        &typed(
            &["10.9.0.0/16", "fd00::/64"],
            &["10.9.5.0/24"],
            &[],
            &["a=10.9.0.2"],
        ),
        &[],
    )
    .unwrap();
    let kept = serde_json::to_string(&network).unwrap();
    assert_eq!(
        serde_json::from_str::<SharedNetwork>(&kept).unwrap(),
        network
    );
}

#[test]
fn a_containers_own_network_is_shown_like_one() {
    let config = own();
    assert_eq!(
        (config[0].subnet.as_str(), config[0].gateway.as_str()),
        ("10.0.2.0/24", "10.0.2.1")
    );
    assert_eq!(config[1].subnet, "fd48:554c:4c42::/64");
}
