use super::*;

/// Docker 26.1's keys of a container, in its order.
const INSPECT: [&str; 24] = [
    "Id",
    "Created",
    "Path",
    "Args",
    "State",
    "Image",
    "ResolvConfPath",
    "HostnamePath",
    "HostsPath",
    "LogPath",
    "Name",
    "RestartCount",
    "Driver",
    "Platform",
    "MountLabel",
    "ProcessLabel",
    "AppArmorProfile",
    "ExecIDs",
    "HostConfig",
    "GraphDriver",
    "Mounts",
    "Config",
    "NetworkSettings",
    "Isolation",
];

#[test]
fn the_keys_come_in_dockers_order() {
    let text = serde_json::to_string(&Inspect::default()).unwrap();
    let mut rest = &text[..];
    for key in INSPECT {
        let at = rest.find(&format!("\"{key}\":"));
        let at = at.unwrap_or_else(|| panic!("{key} is missing or out of order"));
        rest = &rest[at..];
    }
}

#[test]
fn what_json_leaves_out_is_nothing_in_a_template() {
    let inspect = Inspect::default();
    let json = serde_json::to_value(&inspect).unwrap();
    let template = inspect.to_template().unwrap();
    for (above, name) in [
        ("State", "Health"),
        ("HostConfig", "StorageOpt"),
        ("HostConfig", "Init"),
        ("Config", "StopTimeout"),
    ] {
        assert!(json[above].get(name).is_none(), "{name}");
        assert_eq!(template[above].get(name), Some(&Value::Null), "{name}");
    }
}

#[test]
fn our_own_json_is_read_again() {
    let inspect = Inspect {
        network_settings: NetworkSettings {
            networks: BTreeMap::from([("none".to_owned(), Network::default())]),
            ..NetworkSettings::default()
        },
        start: Some(Start::default()),
        ..Inspect::default()
    };
    let text = serde_json::to_string(&inspect).unwrap();
    assert_eq!(serde_json::from_str::<Inspect>(&text).unwrap(), inspect);
}
