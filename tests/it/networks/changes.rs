//! Containers that are put into networks and taken out, while they run and while they do not.

use super::{Net, lines, named, subnet};
use crate::life::Kept;
use hullbox_tests::{both_modes, hullbox};

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
