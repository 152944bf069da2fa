//! Networks that containers share, as far as no traffic is needed: made, listed, removed; addresses that are
//! asked for, given and taken; names; and what is refused.

use crate::life::Kept;
use hullbox_tests::{Done, Mode, both_modes, hullbox};

/// A network that is removed with its test.
struct Net {
    name: String,
    id: String,
}

impl Net {
    fn new(name: &str, flags: &[&str]) -> Self {
        let _ = hullbox(["network", "rm", "-f", name]);
        let id = create(name, flags).exits(0).text();
        assert_eq!(id.len(), 64, "{id}");
        let name = name.to_owned();
        Self { name, id }
    }

    fn inspect(&self, template: &str) -> String {
        hullbox(["network", "inspect", "-f", template, &self.name])
            .exits(0)
            .text()
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        let _ = hullbox(["network", "rm", "-f", &self.name]);
    }
}

fn create(name: &str, flags: &[&str]) -> Done {
    let mut args = vec!["network", "create"];
    args.extend(flags);
    args.push(name);
    hullbox(args)
}

/// A name of the test's own behind this wall.
fn named(name: &str, mode: Mode) -> String {
    format!("{name}-{}", if mode == Mode::Vm { "vm" } else { "ns" })
}

/// A subnet of the test's own behind this wall: the walls may be tested on one data directory.
fn subnet(third: u8, mode: Mode) -> String {
    format!("10.{}.{third}", if mode == Mode::Vm { 201 } else { 202 })
}

fn lines(done: Done) -> Vec<String> {
    done.exits(0).text().lines().map(str::to_owned).collect()
}

fn ls(filters: &[&str]) -> Vec<String> {
    let mut args = vec!["network", "ls", "--format", "{{.Name}}"];
    for filter in filters {
        args.extend(["--filter", filter]);
    }
    lines(hullbox(args))
}

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
    fn members_are_told_apart(mode) {
        let (name, base) = (named("members", mode), subnet(1, mode));
        let net = Net::new(&name, &["--subnet", &format!("{base}.0/24"), "--ip-range", &format!("{base}.64/26")]);
        let first = Kept::new("member-first", mode);
        let second = Kept::new("member-second", mode);
        let id = first.run(&["--network", &format!("name={name},alias=Web,alias=www"), "-h", "box", "busybox", "sleep", "1000"]);
        second.run(&["--network", &name, "--ip", &format!("{base}.200"), "--network-alias", "db", "busybox", "sleep", "1000"]);

        // What it sees of it itself.
        let look = "ip -o -4 addr show dev eth0 | grep -o 'inet [0-9./]*'; ip route | grep -o 'default via [0-9.]*'; cat /etc/resolv.conf; grep box /etc/hosts; cat /sys/class/net/eth0/mtu";
        let seen = lines(first.exec(&["sh", "-c", look]));
        assert_eq!(seen, [
            &*format!("inet {base}.64/24"), &format!("default via {base}.1"), &format!("nameserver {base}.1"),
            "options ndots:0", &format!("{base}.64\tbox"), "65520",
        ]);
        assert_eq!(lines(second.exec(&["sh", "-c", "ip -o -4 addr show dev eth0 | grep -o 'inet [0-9./]*'"])), [format!("inet {base}.200/24")]);

        // What is told of it.
        let template = format!("{{{{with index .NetworkSettings.Networks \"{name}\"}}}}{{{{.IPAddress}}}} {{{{.IPPrefixLen}}}} {{{{.Gateway}}}} {{{{.NetworkID}}}} {{{{.Aliases}}}} {{{{.DNSNames}}}} {{{{json .IPAMConfig}}}} {{{{len .EndpointID}}}}{{{{end}}}} {{{{.HostConfig.NetworkMode}}}} [{{{{.NetworkSettings.IPAddress}}}}]");
        let short = &id[..12];
        assert_eq!(first.inspect(&template), format!(
            "{base}.64 24 {base}.1 {} [Web www] [{} Web www {short} box] null 64 {name} []", net.id, first.name
        ));
        assert_eq!(second.inspect(&template.replace("{{.DNSNames}} ", "")), format!(
            "{base}.200 24 {base}.1 {} [db] {{\"IPv4Address\":\"{base}.200\"}} 64 {name} []", net.id
        ));
        let members = net.inspect("{{range .Containers}}{{.Name}} {{.IPv4Address}} {{.MacAddress}} [{{.IPv6Address}}] {{len .EndpointID}},{{end}}");
        let mac = |last: &str| {
            let hex = |text: &str| format!("{:02x}", text.parse::<u8>().unwrap());
            let bytes: Vec<_> = base.split('.').chain([last]).map(hex).collect();
            format!("02:42:{}", bytes.join(":"))
        };
        let mut wanted = [
            format!("{} {base}.64/24 {} [] 64", first.name, mac("64")),
            format!("{} {base}.200/24 {} [] 64", second.name, mac("200")),
        ];
        wanted.sort();
        let mut members: Vec<_> = members.split_terminator(',').map(str::to_owned).collect();
        members.sort();
        assert_eq!(members, wanted);
        for filter in [&name, &net.id] {
            let listed = hullbox(["ps", "--filter", &format!("network={filter}"), "--format", "{{.Names}} {{.Networks}}"]);
            let mut listed = lines(listed);
            listed.sort();
            assert_eq!(listed, [format!("{} {name}", first.name), format!("{} {name}", second.name)]);
        }
        assert!(ls(&["dangling=true"]).iter().all(|other| *other != name));

        // Who runs holds the network.
        hullbox(["network", "rm", &name]).fails_saying(&format!("network {name} id {} has active endpoints", net.id));
        let pruned = hullbox(["network", "prune", "-f"]).exits(0).text();
        assert!(!pruned.lines().any(|line| line == name), "{pruned}");
        let _ = hullbox(["rm", "-f", &first.name]).exits(0);
        assert!(net.inspect("{{len .Containers}}") == "1");
        let _ = hullbox(["stop", "-t", "0", &second.name]).exits(0);
        assert_eq!(net.inspect("{{len .Containers}}"), "0");
        let _ = hullbox(["network", "rm", &name]).exits(0);
        hullbox(["start", &second.name]).fails_saying(&format!("network {name} not found"));
        assert_eq!(second.inspect("{{.State.Status}}"), "exited");
    }
}

both_modes! {
    fn addresses_are_kept_by_who_asked_and_given_back_by_others(mode) {
        let (name, base) = (named("kept", mode), subnet(2, mode));
        let _net = Net::new(&name, &["--subnet", &format!("{base}.0/29")]);
        let address = |box_: &Kept| box_.inspect("{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}");
        let fixed = Kept::new("fixed", mode);
        let _ = fixed.make(&["create"], &["--network", &name, "--ip", &format!("{base}.2"), "busybox", "sleep", "1000"]).exits(0);
        assert_eq!(address(&fixed), "");
        let moving = Kept::new("moving", mode);
        moving.run(&["--network", &name, "busybox", "sleep", "1000"]);
        assert_eq!(address(&moving), format!("{base}.3"));
        let other = Kept::new("other", mode);
        let run = |flags: &[&str]| {
            let mut args = flags.to_vec();
            args.extend(["--network", &*name, "busybox", "sleep", "1000"]);
            other.make(&["run", "-d"], &args)
        };
        for taken in [2, 3, 1, 0, 7] {
            run(&["--ip", &format!("{base}.{taken}")]).fails_saying("Address already in use");
        }
        run(&["--ip", "10.1.2.3"]).fails_saying("Invalid address 10.1.2.3: It does not belong to any of this network's subnets");
        run(&["--ip6", "fd00::3"]).fails_saying("user specified IP address is supported only when connecting to networks with user configured subnets");
        hullbox(["inspect", "--type", "container", &other.name]).fails_saying("no such container");

        // It ends, and another one gets what it had.
        let _ = hullbox(["stop", "-t", "0", &moving.name]).exits(0);
        assert_eq!(address(&moving), "");
        let _ = run(&[]).exits(0);
        assert_eq!(address(&other), format!("{base}.3"));
        let _ = hullbox(["start", &moving.name]).exits(0);
        assert_eq!(address(&moving), format!("{base}.4"));
        let hosts = moving.exec(&["sh", "-c", "grep $(hostname) /etc/hosts"]).exits(0).text();
        assert!(hosts.starts_with(&format!("{base}.4\t")), "{hosts}");
        let _ = hullbox(["start", &fixed.name]).exits(0);
        assert_eq!(address(&fixed), format!("{base}.2"));
        let _ = hullbox(["restart", "-t", "0", &fixed.name]).exits(0);
        assert_eq!(address(&fixed), format!("{base}.2"));

        // Five addresses, and five who have them.
        let crowd: Vec<_> = ["a", "b"].map(|last| Kept::new(&format!("crowd-{last}"), mode)).into();
        for one in &crowd {
            one.run(&["--network", &name, "busybox", "sleep", "1000"]);
        }
        let late = Kept::new("crowd-late", mode);
        let done = late.make(&["run", "-d"], &["--network", &name, "busybox", "true"]);
        done.fails_saying(&format!("no available IPv4 addresses on this network's address pools: {name}"));
    }
}

both_modes! {
    fn several_networks_are_several_interfaces(mode) {
        let (one, two) = (named("several-a", mode), named("several-b", mode));
        let (a, b) = (subnet(3, mode), subnet(4, mode));
        let _one = Net::new(&one, &["--subnet", &format!("{a}.0/24")]);
        let _two = Net::new(&two, &["--subnet", &format!("{b}.0/24"), "--internal", "-o", "com.docker.network.driver.mtu=1400"]);
        let box_ = Kept::new("several", mode);
        box_.run(&["--network", &two, "--network", &format!("name={one},ip={a}.9"), "-h", "box", "--dns-search", "corp.example", "--dns-option", "timeout:3", "--add-host", "db:192.0.2.9", "busybox", "sleep", "1000"]);
        // A VM's further interfaces are on its card, whose MTU bounds theirs.
        let second_mtu = if mode == Mode::Vm { "1400" } else { "65520" };
        let look = "for i in 0 1; do ip -o -4 addr show dev eth$i | grep -o 'inet [0-9./]*'; cat /sys/class/net/eth$i/mtu; done; ip route | grep -o 'default via [0-9.]*'; cat /etc/resolv.conf; tail -n 3 /etc/hosts";
        assert_eq!(lines(box_.exec(&["sh", "-c", look])), [
            &*format!("inet {b}.2/24"), "1400", &format!("inet {a}.9/24"), second_mtu, &format!("default via {a}.1"),
            &format!("nameserver {b}.1"), &format!("nameserver {a}.1"), "search corp.example", "options timeout:3 ndots:0",
            &format!("{b}.2\tbox"), &format!("{a}.9\tbox"), "192.0.2.9\tdb",
        ]);
        assert_eq!(box_.inspect("{{.HostConfig.NetworkMode}} {{len .NetworkSettings.Networks}}"), format!("{two} 2"));
        assert_eq!(hullbox(["network", "inspect", "-f", "{{.Internal}} {{len .Containers}}", &two]).exits(0).text(), "true 1");
    }
}

both_modes! {
    fn stopped_containers_are_connected_and_disconnected(mode) {
        let (one, two) = (named("connect-a", mode), named("connect-b", mode));
        let base = subnet(5, mode);
        let _one = Net::new(&one, &["--subnet", &format!("{base}.0/24")]);
        let two_net = Net::new(&two, &[]);
        let box_ = Kept::new("connected", mode);
        let _ = box_.make(&["create"], &["busybox", "sleep", "1000"]).exits(0);
        let networks = || box_.inspect("{{range $name, $_ := .NetworkSettings.Networks}}{{$name}} {{end}}");
        let change = |args: &[&str]| hullbox(["network"].iter().chain(args));
        assert_eq!(networks(), "bridge ");
        assert_eq!(change(&["connect", "--ip", &format!("{base}.7"), "--alias", "x", "--alias", "y,z", &one, &box_.name]).exits(0).text(), "");
        change(&["connect", &one, &box_.name]).fails_saying(&format!("endpoint with name {} already exists in network {one}", box_.name));
        let _ = change(&["connect", &two_net.id[..12], &box_.name]).exits(0);
        assert_eq!(networks(), format!("bridge {one} {two} "));
        assert_eq!(box_.inspect(&format!("{{{{(index .NetworkSettings.Networks \"{one}\").Aliases}}}}")), "[x y z]");
        let _ = hullbox(["start", &box_.name]).exits(0);
        assert_eq!(lines(box_.exec(&["sh", "-c", "ip -o -4 addr show dev eth1 | grep -o 'inet [0-9./]*'; ip route | grep -c default"])), [&*format!("inet {base}.7/24"), "3"]);
        let _ = hullbox(["stop", "-t", "0", &box_.name]).exits(0);
        let _ = change(&["disconnect", &one, &box_.name]).exits(0);
        let _ = change(&["disconnect", "-f", &two, &box_.name]).exits(0);
        let id = box_.inspect("{{.Id}}");
        change(&["disconnect", &one, &box_.name]).fails_saying(&format!("container {id} is not connected to network {one}"));
        assert_eq!(networks(), "bridge ");
        let _ = change(&["disconnect", "bridge", &box_.name]).exits(0);
        assert_eq!(networks(), "");
        let _ = hullbox(["start", &box_.name]).exits(0);
        assert_eq!(lines(box_.exec(&["sh", "-c", "ls /sys/class/net"])), ["lo"]);
        let _ = hullbox(["stop", "-t", "0", &box_.name]).exits(0);
        let _ = change(&["connect", "bridge", &box_.name]).exits(0);
        change(&["connect", "bridge", &box_.name]).fails_saying("already exists in network bridge");
        assert_eq!(networks(), "bridge ");

        change(&["connect", "--ip", "10.0.2.9", "bridge", &box_.name]).fails_saying("user specified IP address is supported on user defined networks only");
        change(&["connect", "--ip", "x", &one, &box_.name]).refuses_flags_saying("invalid IPv4 address: x");
        change(&["connect", "host", &box_.name]).fails_saying("container cannot be disconnected from host network or connected to host network");
        change(&["connect", "none", &box_.name]).fails_saying("private (none) mode");
        change(&["connect", "no-such", &box_.name]).fails_saying("network no-such not found");
        change(&["connect", &one, "no-such"]).fails_saying("no such container: no-such");
        change(&["disconnect", "no-such", &box_.name]).fails_saying("network no-such not found");
        let alone = Kept::new("unconnected", mode);
        let _ = alone.make(&["create"], &["--network", "none", "busybox", "true"]).exits(0);
        change(&["connect", &one, &alone.name]).fails_saying("private (none) mode");
    }
}

both_modes! {
    fn running_containers_are_connected_and_disconnected(mode) {
        let name = named("running", mode);
        let base = subnet(8, mode);
        let net = Net::new(&name, &["--subnet", &format!("{base}.0/24")]);
        let box_ = Kept::new("running", mode);
        let id = box_.run(&["busybox", "sleep", "1000"]);
        let change = |args: &[&str]| hullbox(["network"].iter().chain(args));
        let interfaces = || lines(box_.exec(&["sh", "-c", "ip -o -4 addr | grep -v ' lo ' | grep -o 'eth[0-9] *inet [0-9./]*' | tr -s ' '"]));
        let _ = change(&["connect", "--ip", &format!("{base}.7"), "--alias", "x", &name, &box_.name]).exits(0);
        assert_eq!(interfaces(), ["eth0 inet 10.0.2.2/24", &*format!("eth1 inet {base}.7/24")]);
        assert_eq!(net.inspect("{{range $id, $_ := .Containers}}{{$id}}{{end}}"), id);
        change(&["connect", &name, &box_.name]).fails_saying(&format!("endpoint with name {} already exists in network {name}", box_.name));
        hullbox(["network", "rm", &name]).fails_saying("has active endpoints");
        let _ = change(&["disconnect", "bridge", &box_.name]).exits(0);
        assert_eq!(interfaces(), [format!("eth1 inet {base}.7/24")]);
        let _ = hullbox(["restart", "-t", "0", &box_.name]).exits(0);
        assert_eq!(interfaces(), [format!("eth0 inet {base}.7/24")]);
        let _ = change(&["disconnect", &name, &box_.name]).exits(0);
        assert!(interfaces().is_empty());
        change(&["disconnect", &name, &box_.name]).fails_saying(&format!("container {id} is not connected to network {name}"));
        let _ = hullbox(["network", "rm", &name]).exits(0);
        let _ = change(&["connect", "bridge", &box_.name]).exits(0);
        assert_eq!(interfaces(), ["eth0 inet 10.0.2.2/24"]);
    }
}

both_modes! {
    fn what_is_typed_of_networks_is_dockers(mode) {
        let (name, base) = (named("typed", mode), subnet(6, mode));
        let _net = Net::new(&name, &["--subnet", &format!("{base}.0/24")]);
        let box_ = Kept::new("typed", mode);
        let fails = |flags: &[&str], why: &str| {
            let mut args = flags.to_vec();
            args.extend(["busybox", "true"]);
            box_.make(&["run", "-d"], &args).fails_saying(why);
        };
        fails(&["--network", "no-such"], "network no-such not found");
        fails(&["--network", &name, "--network", "no-such"], "network no-such not found");
        fails(&["--network", &name, "--network", "bridge"], "cannot attach both user-defined and non-user-defined network-modes");
        fails(&["--network", &name, "--network", &name], "is specified multiple times");
        let alias = format!("name={name},alias=a");
        fails(&["--network", &alias, "--network-alias", "b"], "cannot specify both --network-alias and per-network alias");
        let address = format!("name={name},ip={base}.5");
        fails(&["--network", &address, "--ip", &format!("{base}.6")], "cannot specify both --ip and per-network IPv4 address");
        fails(&["--ip", &format!("{base}.6")], "user specified IP address is supported on user defined networks only");
        fails(&["--network-alias", "a"], "network-scoped aliases are only supported for user-defined networks");
        fails(&["--network", &name, "--network-alias", "a b"], "invalid network-scoped alias \"a b\"");
        box_.make(&["run", "-d"], &["--ip", "x", "busybox", "true"]).refuses_flags_saying("invalid IPv4 address: x");
        box_.make(&["run", "-d"], &["--network", "name=n,ip6=1.2.3.4", "busybox", "true"]).refuses_flags_saying("invalid IPv6 address: 1.2.3.4");
        box_.make(&["create"], &["--network", "no-such", "busybox", "true"]).fails_saying("network no-such not found");
        hullbox(["inspect", "--type", "container", &box_.name]).fails_saying("no such container");
    }
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

both_modes! {
    fn a_container_that_is_killed_gives_its_address_back(mode) {
        let (name, base) = (named("slain", mode), subnet(7, mode));
        let _net = Net::new(&name, &["--subnet", &format!("{base}.0/24")]);
        let box_ = Kept::new("slain", mode);
        box_.run(&["--network", &name, "--rm", "busybox", "sleep", "1000"]);
        let _ = hullbox(["kill", &box_.name]).exits(0);
        while hullbox(["inspect", "--type", "container", &box_.name]).code == 0 {}
        let next = Kept::new("slain-next", mode);
        next.run(&["--network", &name, "busybox", "sleep", "1000"]);
        assert_eq!(next.inspect("{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"), format!("{base}.2"));
        let checked = hullbox(["system", "check", "--quick"]);
        assert!(!checked.text().contains("network"), "{}", checked.text());
    }
}
