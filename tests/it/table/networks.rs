//! Networks: published ports, `network`, /etc/hosts and /etc/resolv.conf.

use super::{Case, Table, case};
use hullbox_tests::{Mode, both_modes};

const TABLE: Table = Table {
    setup: SETUP,
    verb: "",
    cases: CASES,
    cleanup: CLEANUP,
};

/// A network with a container in it, and one that is in none of its kind. `b` tells what was published of a
/// container that is made with its arguments, `r` runs one, and `n` is `network`.
const SETUP: &str = r#"
case $P in tv) D=1 ;; tc) D=2 ;; td) D=3 ;; tp) D=4 ;; esac
Q=1814$D
n() { h network "$@"; }
b() { h create $R --name $P-b "$@" busybox true >/dev/null && h inspect -f '{{json .HostConfig.PortBindings}}' $P-b; c=$?; h rm $P-b >/dev/null 2>&1; return $c; }
r() { h run --rm $R "$@"; }
for c in b up web; do h rm -f $P-$c; done >/dev/null 2>&1
for c in net other in; do n rm -f $P-$c; done >/dev/null 2>&1
n create --subnet 10.14$D.0.0/24 --label a=1 $P-net >/dev/null
h run -d $R --name $P-web --network $P-net --ip 10.14$D.0.20 --network-alias www -h webhost -p 127.0.0.1:$Q:80 -p 127.0.0.1:$Q:53/udp --expose 90 busybox sleep 1000 >/dev/null
h run -d $R --name $P-up busybox sleep 1000 >/dev/null
"#;

const CLEANUP: &str = r"
for c in b up web; do h rm -f $P-$c; done >/dev/null 2>&1
for c in net other in; do n rm -f $P-$c; done >/dev/null 2>&1
";

const CASES: &[Case] = &[
    // What -p means.
    case("b -p 80", ""),
    case("b -p 8080:80", ""),
    case("b -p 127.0.0.1:8080:80/udp", ""),
    case("b -p 127.0.0.1::80", ""),
    case("b -p '[::1]:8080:80'", ""),
    case("b -p 8080-8082:80-82", ""),
    case("b -p 8080-8090:80", ""),
    case("b -p 8080:80 -p 8081:80", ""),
    case("b -p published=8080,target=80,protocol=udp", ""),
    case("b -p 8080:80/sctp", ""),
    case("b -p 8080-8082:80-81", ""),
    case("b -p 8080:x", ""),
    case("b -p host:8080:80", ""),
    case("b -p 99999:80", ""),
    case("b -p 8080:80/icmp", ""),
    case("b -p 8080:", ""),
    case("b -p 1.2.3:8080:80", ""),
    case("b --expose 80:80", ""),
    // What is published.
    case("h port $P-web", ""),
    case("h port $P-web 80", ""),
    case("h port $P-web 53/udp", ""),
    case("h port $P-web 53", ""),
    case("h port $P-web http", ""),
    case("h port $P-up", ""),
    case("h port no-such-thing", ""),
    case("h ps --filter name=$P-web --format '{{.Ports}}'", ""),
    case("h inspect -f '{{json .NetworkSettings.Ports}}' $P-web", ""),
    case("r -p 127.0.0.1:$Q:81 busybox true", ""),
    // Networks.
    case("n create --subnet 10.14$D.1.0/24 $P-other", ""),
    case("n create $P-net", ""),
    case("n create --subnet 10.14$D.0.0/25 $P-in", ""),
    case("n create --subnet 10.14$D.9.1/24 $P-in", ""),
    case("n create --gateway 10.14$D.9.1 $P-in", ""),
    case(
        "n create --subnet 10.14$D.9.0/24 --gateway 10.14$D.8.1 $P-in",
        "",
    ),
    case("n create --driver frob $P-in", ""),
    case(
        "n create --internal --subnet 10.14$D.2.0/24 $P-in >/dev/null; n inspect -f '{{.Name}} {{.Internal}}' $P-in",
        "",
    ),
    case("n create bridge", ""),
    case("n inspect -f '{{.Name}} {{.Driver}}' $P-net", ""),
    case(
        "n inspect -f '{{.Scope}} {{.EnableIPv6}} {{json .Labels}} {{range .IPAM.Config}}{{.Subnet}} {{.Gateway}}{{end}}' $P-net",
        "",
    ),
    case(
        "n inspect -f '{{range .Containers}}{{.Name}} {{.IPv4Address}}{{end}}' $P-net",
        "",
    ),
    case("n inspect no-such-thing", ""),
    case(
        "n ls --filter name=$P-n --format '{{.Name}} {{.Driver}}'",
        "",
    ),
    case(
        "n ls --filter label=a=1 --filter name=$P- --format {{.Name}}",
        "",
    ),
    case("n ls --filter driver=frob -q", ""),
    case("n ls --filter frob=1", ""),
    case("n rm $P-net", ""),
    case("n rm no-such-thing", ""),
    case("n rm -f no-such-thing", ""),
    case("n rm host", ""),
    case("n prune -f --filter label=no-such-label", ""),
    // Who is in them.
    case(
        "h inspect -f '{{range $name, $net := .NetworkSettings.Networks}}{{$name}} {{$net.IPAddress}}/{{$net.IPPrefixLen}} {{$net.Gateway}} {{json $net.IPAMConfig}}{{end}}' $P-web",
        "",
    ),
    case(
        "h inspect -f '{{range .NetworkSettings.Networks}}{{.Aliases}}{{end}} {{.HostConfig.NetworkMode}}' $P-web",
        "",
    ),
    case(
        "h inspect -f '{{range .NetworkSettings.Networks}}{{.MacAddress}}{{end}}' $P-web | cut -d : -f 1-3",
        "",
    ),
    case("n connect --ip 10.14$D.1.9 --alias x $P-other $P-up", ""),
    case("n connect $P-other $P-up", ""),
    case(
        "h exec $P-up ip -o -4 addr show dev eth1 | grep -o '10[0-9./]*'",
        "",
    ),
    case("n disconnect $P-other $P-up", ""),
    case("n disconnect $P-other $P-up", ""),
    case("n connect no-such-thing $P-up", ""),
    case("n connect $P-other no-such-thing", ""),
    case("n connect host $P-up", ""),
    case("r --network no-such-thing busybox true", ""),
    case("r --network $P-net --ip 10.14$D.0.20 busybox true", ""),
    case("r --network $P-net --ip 10.99.0.1 busybox true", ""),
    case("r --ip 10.99.0.1 busybox true", ""),
    case("r --network $P-net --network-alias 'a b' busybox true", ""),
    case("r --network none busybox ls /sys/class/net", ""),
    case(
        "r --network $P-net --mac-address 02:42:ac:11:00:99 busybox cat /sys/class/net/eth0/address",
        "",
    ),
    // Names.
    case(
        "r --network $P-net --ip 10.14$D.0.30 -h box --add-host db:10.1.2.3 busybox cat /etc/hosts",
        "",
    ),
    case("r --network none -h box busybox cat /etc/hosts", ""),
    case("r -h box busybox cat /etc/hostname", ""),
    case(
        "r --add-host db:10.1.2.3 --add-host db:10.1.2.4 busybox grep db /etc/hosts",
        "",
    ),
    case(
        "r --add-host 'db:[2001:db8::1]' busybox grep db /etc/hosts",
        "",
    ),
    case("r --add-host db busybox true", ""),
    case("r --add-host db:300.1.2.3 busybox true", ""),
    case(
        "r --network $P-net busybox grep -v '^#' /etc/resolv.conf | grep -v '^search'",
        "",
    ),
    case(
        "r --network $P-net --dns 192.0.2.53 --dns-search corp.example --dns-option timeout:3 busybox grep -v '^#' /etc/resolv.conf",
        "",
    ),
    case(
        "r --dns 192.0.2.53 --dns-search corp.example --dns-option timeout:3 busybox grep -v '^#' /etc/resolv.conf",
        "",
    ),
    case(
        "r --dns 192.0.2.53 --dns-search . busybox grep -v '^#' /etc/resolv.conf",
        "",
    ),
    case("r --dns x busybox true", ""),
    case(
        "for name in $P-web www WWW webhost nobody; do r --network $P-net busybox nslookup -type=a $name 2>&1 | sed -n '/^Name:/,$s/^Address[^:]*: //p'; done",
        "",
    ),
];

both_modes! {
    fn thirty_commands_and_more_are_answered_as_docker_does(mode) {
        match mode {
            Mode::Vm => TABLE.compare_ours("--isolation=vm -m 128m", "tv"),
            Mode::Container => TABLE.compare_ours("--isolation=container", "tc"),
        }
    }
}

#[test]
fn docker_answers_as_the_table_says() {
    TABLE.compare_docker("");
}

#[test]
fn podman_answers_as_the_table_says() {
    TABLE.compare_podman("");
}
