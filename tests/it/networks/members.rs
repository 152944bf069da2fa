//! Containers in networks: addresses that are asked for, given and taken, names, and what is refused.

use super::{Net, lines, ls, named, subnet};
use crate::life::Kept;
use hullbox_tests::{Mode, both_modes, hullbox};

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
            "192.0.2.9\tdb", &format!("{b}.2\tbox"), &format!("{a}.9\tbox"),
        ]);
        assert_eq!(box_.inspect("{{.HostConfig.NetworkMode}} {{len .NetworkSettings.Networks}}"), format!("{two} 2"));
        assert_eq!(hullbox(["network", "inspect", "-f", "{{.Internal}} {{len .Containers}}", &two]).exits(0).text(), "true 1");
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
