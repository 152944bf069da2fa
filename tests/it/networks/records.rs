//! Networks themselves: made, shown, filtered, pruned and removed, and what events tell of them.

use super::{Net, create, lines, ls, named};
use crate::life::Kept;
use hullbox_tests::{both_modes, hullbox};

#[test]
#[ignore = "needs the built program: make test"]
fn a_network_is_made_shown_and_removed() {
    let net = Net::new(
        "made",
        &[
            "--label",
            "a=1",
            "--label",
            "b",
            "-o",
            "x=y",
            "--attachable",
        ],
    );
    let wanted = format!(
        "made {} local bridge false false true map[a:1 b:] map[x:y] map[]",
        net.id
    );
    let template = "{{.Name}} {{.Id}} {{.Scope}} {{.Driver}} {{.EnableIPv6}} {{.Internal}} {{.Attachable}} {{.Labels}} {{.Options}} {{.Containers}}";
    assert_eq!(net.inspect(template), wanted);
    // A range and its first address.
    let pool = net.inspect("{{range .IPAM.Config}}{{.Subnet}} {{.Gateway}}{{end}}");
    let (range, gateway) = pool.split_once(' ').unwrap();
    assert!(
        range.starts_with("172.") || range.starts_with("192.168."),
        "{pool}"
    );
    assert!(gateway.ends_with(".1"), "{pool}");

    // Found by whatever names it, by either command.
    for text in ["made", &net.id, &net.id[..12]] {
        for args in [
            vec!["network", "inspect", "-f", "{{.Id}}", text],
            vec!["inspect", "--type", "network", "-f", "{{.Id}}", text],
            vec!["inspect", "-f", "{{.Id}}", text],
        ] {
            assert_eq!(hullbox(args).exits(0).text(), net.id);
        }
    }
    let whole = hullbox(["network", "inspect", "made"]).exits(0).text();
    assert!(
        whole.starts_with("[\n    {\n        \"Name\": \"made\",\n        \"Id\": \""),
        "{whole}"
    );
    create("made", &[]).fails_saying("network with name made already exists");

    let row = lines(hullbox(["network", "ls", "--filter", "name=^made$"]));
    assert_eq!(
        row[0].split_whitespace().collect::<Vec<_>>(),
        ["NETWORK", "ID", "NAME", "DRIVER", "SCOPE"]
    );
    assert_eq!(
        row[1].split_whitespace().collect::<Vec<_>>(),
        [&net.id[..12], "made", "bridge", "local"]
    );
    let json = hullbox([
        "network",
        "ls",
        "--no-trunc",
        "--filter",
        "id=",
        "--filter",
        "name=^made$",
        "--format",
        "json",
    ])
    .exits(0)
    .text();
    for part in [
        "\"Driver\":\"bridge\"",
        "\"IPv6\":\"false\"",
        "\"Internal\":\"false\"",
        "\"Labels\":\"a=1,b=\"",
        "\"Name\":\"made\"",
        "\"Scope\":\"local\"",
        &format!("\"ID\":\"{}\"", net.id),
        "+0000 UTC\"",
    ] {
        assert!(json.contains(part), "{part} not in {json}");
    }
    assert_eq!(
        lines(hullbox(["network", "list", "-q", "-f", "name=^made$"])),
        [&net.id[..12]]
    );
    assert_eq!(
        lines(hullbox([
            "network",
            "ls",
            "-f",
            "name=^made$",
            "--format",
            "{{.Label \"a\"}}"
        ])),
        ["1"]
    );

    let removed = hullbox(["network", "rm", "made", "no-such", "neither"]);
    assert_eq!((removed.code, removed.text().as_str()), (1, "made"));
    assert!(
        removed.stderr.contains("network no-such not found")
            && removed.stderr.contains("network neither not found")
    );
    hullbox(["network", "rm", "made"]).fails_saying("network made not found");
    assert_eq!(
        hullbox(["network", "remove", "-f", "made"]).exits(0).text(),
        ""
    );
    let missing = hullbox(["network", "inspect", "made"]);
    assert_eq!(missing.text(), "[]");
    missing.fails_saying("network made not found");
}

#[test]
#[ignore = "needs the built program: make test"]
fn every_installation_has_dockers_networks() {
    let builtin = ls(&["type=builtin"]);
    assert_eq!(builtin, ["bridge", "host", "none"]);
    let drivers = "{{.Name}} {{.Driver}} {{.Scope}}";
    let shown = lines(hullbox([
        "network",
        "ls",
        "--filter",
        "type=builtin",
        "--format",
        drivers,
    ]));
    assert_eq!(
        shown,
        ["bridge bridge local", "host host local", "none null local"]
    );
    for name in builtin {
        let id = hullbox(["network", "inspect", "-f", "{{.Id}}", &name])
            .exits(0)
            .text();
        assert_eq!(
            lines(hullbox([
                "network",
                "ls",
                "-q",
                "--no-trunc",
                "--filter",
                &format!("id={}", &id[..20])
            ])),
            [&*id]
        );
        hullbox(["network", "rm", &name]).fails_saying(&format!(
            "{name} is a pre-defined network and cannot be removed"
        ));
        hullbox(["network", "rm", &id]).fails_saying("pre-defined network");
        create(&name, &[]).fails_saying(&format!(
            "operation is not permitted on predefined {name} network"
        ));
    }
    let pools = hullbox([
        "network",
        "inspect",
        "-f",
        "{{range .IPAM.Config}}{{.Subnet}} {{end}}",
        "bridge",
    ]);
    assert_eq!(pools.exits(0).text(), "10.0.2.0/24 fd48:554c:4c42::/64 ");
    for name in ["default", "user", "container"] {
        create(name, &[]).fails_saying("operation is not permitted on predefined");
    }
}

#[test]
#[ignore = "needs the built program: make test"]
fn addresses_are_as_they_are_asked_for() {
    let net = Net::new(
        "asked",
        &[
            "--subnet",
            "10.203.0.0/16",
            "--ip-range",
            "10.203.5.0/24",
            "--gateway",
            "10.203.5.254",
            "--aux-address",
            "printer=10.203.5.7",
            "--subnet",
            "fd00:203::/64",
        ],
    );
    assert_eq!(
        net.inspect("{{json .IPAM.Config}} {{.EnableIPv6}}"),
        r#"[{"AuxiliaryAddresses":{"printer":"10.203.5.7"},"Gateway":"10.203.5.254","IPRange":"10.203.5.0/24","Subnet":"10.203.0.0/16"},{"Subnet":"fd00:203::/64"}] true"#
    );
    create("over", &["--subnet", "10.203.9.0/24"])
        .fails_saying("Pool overlaps with other one on this address space");
    create("over", &["--subnet", "10.200.0.0/14"]).fails_saying("Pool overlaps");
    create("over", &["--subnet", "fd00:203::/48"]).fails_saying("Pool overlaps");
    let own = Net::new("ula", &["--ipv6"]);
    let range = own.inspect("{{(index .IPAM.Config 1).Subnet}} {{(index .IPAM.Config 1).Gateway}}");
    assert!(
        range.starts_with("fd") && range.contains("::/64 ") && range.ends_with("::1"),
        "{range}"
    );
    for (flags, why) in [
        (
            &["--subnet", "10.204.0.0"][..],
            "invalid subnet 10.204.0.0: invalid CIDR block notation",
        ),
        (
            &["--subnet", "10.204.1.0/16"],
            "invalid subnet 10.204.1.0/16: it should be 10.204.0.0/16",
        ),
        (
            &["--gateway", "10.204.0.1"],
            "every ip-range or gateway must have a corresponding subnet",
        ),
        (
            &["--subnet", "10.204.0.0/16", "--gateway", "10.205.0.1"],
            "no matching subnet for gateway 10.205.0.1",
        ),
        (
            &["--subnet", "10.204.0.0/16", "--ip-range", "10.205.0.0/24"],
            "no matching subnet for range 10.205.0.0/24",
        ),
        (
            &["--subnet", "10.204.0.0/16,10.205.0.0/16"],
            "bridge driver does not support multiple subnets",
        ),
        (
            &["--subnet", "127.1.0.0/16"],
            "hosts have no addresses in 127.0.0.0/8",
        ),
        (&["-d", "overlay"], "plugin \"overlay\" not found"),
        (
            &["-o", "com.docker.network.bridge.enable_icc=false"],
            "it is not supported yet",
        ),
        (
            &["-o", "com.docker.network.driver.mtu=1"],
            "is not a number from 68 to 65520",
        ),
    ] {
        create("refused", flags).fails_saying(why);
    }
    for name in ["", ".x", "a b", "a/b", "a:b", &"x".repeat(129)] {
        create(name, &[]).fails_saying("invalid network name");
    }
    create("refused", &["--no-such-flag"]).refuses_flags_saying("unknown flag: --no-such-flag");
    assert!(ls(&["name=refused"]).is_empty() && ls(&["name=over"]).is_empty());
}

#[test]
#[ignore = "needs the built program: make test"]
fn networks_are_filtered_as_docker_filters_them() {
    let _one = Net::new("filter-one", &["--label", "tier=web", "--label", "x"]);
    let _two = Net::new("filter-two", &["--label", "tier=db"]);
    for (filters, wanted) in [
        (&["name=filter-"][..], &["filter-one", "filter-two"][..]),
        (
            &["name=filter-one", "name=^filter-t"],
            &["filter-one", "filter-two"],
        ),
        (
            &["name=filter-", "label=tier"],
            &["filter-one", "filter-two"],
        ),
        (&["name=filter-", "label=tier=web"], &["filter-one"]),
        (&["label=tier=db", "label=x"], &[]),
        (
            &["name=filter-", "driver=bridge"],
            &["filter-one", "filter-two"],
        ),
        (&["name=filter-", "driver=host"], &[]),
        (
            &["name=filter-", "type=custom", "scope=local"],
            &["filter-one", "filter-two"],
        ),
        (&["name=filter-", "scope=swarm"], &[]),
        (
            &["name=filter-", "dangling=true"],
            &["filter-one", "filter-two"],
        ),
        (&["name=filter-", "dangling=false"], &[]),
        (&["name=bridge", "dangling=true"], &[]),
    ] {
        assert_eq!(ls(filters), wanted, "{filters:?}");
    }
    hullbox(["network", "ls", "--filter", "type=own"])
        .fails_saying("possible values are builtin, custom");
    hullbox(["network", "ls", "--filter", "dangling=perhaps"])
        .fails_saying("expected true or false");
    hullbox(["network", "ls", "--filter", "colour=red"]).fails_saying("invalid filter \"colour\"");
    hullbox(["network", "ls", "--filter", "colour"]).refuses_flags_saying("expected KEY=VALUE");
}

#[test]
#[ignore = "needs the built program: make test"]
fn networks_that_nobody_uses_are_pruned() {
    let _one = Net::new("prune-one", &["--label", "prune-me=1"]);
    let _two = Net::new("prune-two", &["--label", "prune-me=2"]);
    let prune = |filters: &[&str]| {
        let mut args = vec!["network", "prune", "-f", "--filter", "label=prune-me"];
        filters
            .iter()
            .for_each(|filter| args.extend(["--filter", filter]));
        hullbox(args).exits(0).text()
    };
    assert_eq!(prune(&["until=1h"]), "");
    assert_eq!(
        prune(&["label!=prune-me=2"]),
        "Deleted Networks:\nprune-one\n"
    );
    assert_eq!(prune(&[]), "Deleted Networks:\nprune-two\n");
    assert_eq!(prune(&[]), "");
    let asked = hullbox(["network", "prune"]).exits(1).stderr;
    assert!(asked.contains("nobody is there to confirm"), "{asked}");
    hullbox(["network", "prune", "-f", "--filter", "name=x"]).fails_saying("filters are label");
    // What the whole installation prunes.
    let _three = Net::new("prune-three", &["--label", "prune-me=3"]);
    let all = hullbox(["system", "prune", "-f", "--filter", "label=prune-me=3"])
        .exits(0)
        .text();
    assert!(
        all.starts_with("Deleted Networks:\nprune-three\n\n"),
        "{all}"
    );
}

both_modes! {
    fn events_tell_of_networks(mode) {
        let name = named("told", mode);
        let net = Net::new(&name, &[]);
        let box_ = Kept::new("told", mode);
        let id = box_.run(&["--network", &name, "busybox", "sleep", "1000"]);
        let _ = hullbox(["kill", &box_.name]).exits(0);
        let _ = hullbox(["wait", &box_.name]).exits(0);
        let _ = hullbox(["network", "rm", &name]).exits(0);
        let events = |filter: &str, format: &str| {
            lines(hullbox(["events", "--since", "20m", "--until", "0s", "--filter", filter, "--format", format]))
        };
        let about = "{{.Type}} {{.Action}} {{.Actor.ID}} {{.Actor.Attributes.name}} {{.Actor.Attributes.type}} {{.Actor.Attributes.container}}";
        let of = |action: &str, container: &str| format!("network {action} {} {name} bridge {container}", net.id);
        assert_eq!(events(&format!("network={}", net.id), about), [
            of("create", "<no value>"), of("connect", &id), of("disconnect", &id), of("destroy", "<no value>"),
        ]);
        // Between what happens to the container.
        let all = lines(hullbox(["events", "--since", "20m", "--until", "0s", "--format", "{{.Action}} {{.Actor.Attributes.name}} {{.Actor.ID}} {{.Actor.Attributes.container}}"]));
        let its: Vec<_> = all.iter().filter(|line| line.contains(&id)).map(|line| line.split(' ').next().unwrap()).collect();
        assert_eq!(its, ["create", "connect", "start", "kill", "die", "disconnect"]);
    }
}
