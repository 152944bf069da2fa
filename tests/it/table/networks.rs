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
/// container that is made with its arguments, `w` makes a network for a moment, `r` runs a container, and `n` is `network`.
const SETUP: &str = r#"
case $P in nv) D=1 ;; nc) D=2 ;; nd) D=3 ;; np) D=4 ;; esac
Q=1814$D
n() { h network "$@"; }
b() { h create $R --name $P-b "$@" busybox true >/dev/null && h inspect -f '{{json .HostConfig.PortBindings}}' $P-b | sed -E 's/"[3-6][0-9]{4}"/"ANY"/g'; c=$?; h rm $P-b >/dev/null 2>&1; return $c; }
w() { n create "$@" $P-bad; c=$?; n rm -f $P-bad >/dev/null 2>&1; return $c; }
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
    case("b -p 80", r#"{"80/tcp":[{"HostIp":"","HostPort":""}]} rc=0"#)
    .podman(r#"{"80/tcp":[{"HostIp":"0.0.0.0","HostPort":"ANY"}]} rc=0"#),
    case("b -p 8080:80", r#"{"80/tcp":[{"HostIp":"","HostPort":"8080"}]} rc=0"#)
    .podman(r#"{"80/tcp":[{"HostIp":"0.0.0.0","HostPort":"8080"}]} rc=0"#),
    case("b -p 127.0.0.1:8080:80/udp", r#"{"80/udp":[{"HostIp":"127.0.0.1","HostPort":"8080"}]} rc=0"#),
    case("b -p 127.0.0.1::80", r#"{"80/tcp":[{"HostIp":"127.0.0.1","HostPort":""}]} rc=0"#)
    .podman(r#"{"80/tcp":[{"HostIp":"127.0.0.1","HostPort":"ANY"}]} rc=0"#),
    case("b -p '[::1]:8080:80'", r#"{"80/tcp":[{"HostIp":"::1","HostPort":"8080"}]} rc=0"#),
    case(
        "b -p 8080-8082:80-82",
        r#"{"80/tcp":[{"HostIp":"","HostPort":"8080"}],"81/tcp":[{"HostIp":"","HostPort":"8081"}],"82/tcp":[{"HostIp":"","HostPort":"8082"}]} rc=0"#,
    )
    .podman(r#"{"80/tcp":[{"HostIp":"0.0.0.0","HostPort":"8080"}],"81/tcp":[{"HostIp":"0.0.0.0","HostPort":"8081"}],"82/tcp":[{"HostIp":"0.0.0.0","HostPort":"8082"}]} rc=0"#),
    case("b -p 8080-8090:80", r#"{"80/tcp":[{"HostIp":"","HostPort":"8080-8090"}]} rc=0"#)
    .podman("rc=125"),
    case(
        "b -p 8080:80 -p 8081:80",
        r#"{"80/tcp":[{"HostIp":"","HostPort":"8080"},{"HostIp":"","HostPort":"8081"}]} rc=0"#,
    )
    .podman(r#"{"80/tcp":[{"HostIp":"0.0.0.0","HostPort":"8080"},{"HostIp":"0.0.0.0","HostPort":"8081"}]} rc=0"#),
    case("b -p published=8080,target=80,protocol=udp", r#"{"80/udp":[{"HostIp":"","HostPort":"8080"}]} rc=0"#)
    .podman("rc=125"),
    case("b -p 8080:80/sctp", r#"{"80/sctp":[{"HostIp":"","HostPort":"8080"}]} rc=0"#)
    .podman(r#"{"80/sctp":[{"HostIp":"0.0.0.0","HostPort":"8080"}]} rc=0"#)
    .ours("rc=125", "SCTP is not there"),
    case("b -p 8080-8082:80-81", "rc=125"),
    case("b -p 8080:x", "rc=125"),
    case("b -p host:8080:80", "rc=125"),
    case("b -p 99999:80", "rc=125"),
    case("b -p 8080:80/icmp", "rc=125"),
    case("b -p 8080:", "rc=125"),
    case("b -p 1.2.3:8080:80", "rc=125"),
    case("b --expose 80:80", "rc=125"),
    // What is published.
    case("h port $P-web", "53/udp -> 127.0.0.1:PORT~80/tcp -> 127.0.0.1:PORT rc=0")
    .podman("80/tcp -> 127.0.0.1:PORT~53/udp -> 127.0.0.1:PORT rc=0"),
    case("h port $P-web 80", "127.0.0.1:PORT rc=0"),
    case("h port $P-web 53/udp", "127.0.0.1:PORT rc=0"),
    case("h port $P-web 53", "rc=1").podman("rc=125"),
    case("h port $P-web http", "rc=1").podman("rc=125"),
    case("h port $P-up", "rc=0"),
    case("h port no-such-thing", "rc=1").podman("rc=125"),
    case(
        "h ps --filter name=$P-web --format '{{.Ports}}'",
        "90/tcp, 127.0.0.1:PORT->53/udp, 127.0.0.1:PORT->80/tcp rc=0",
    ).podman("127.0.0.1:PORT->80/tcp, 127.0.0.1:PORT->53/udp, 90/tcp rc=0"),
    case(
        "h inspect -f '{{json .NetworkSettings.Ports}}' $P-web",
        r#"{"53/udp":[{"HostIp":"127.0.0.1","HostPort":"PORT"}],"80/tcp":[{"HostIp":"127.0.0.1","HostPort":"PORT"}],"90/tcp":null} rc=0"#,
    ),
    case("r -p 127.0.0.1:$Q:81 busybox true", "rc=125").podman("rc=126"),
    // Networks.
    case("n create --subnet 10.14$D.1.0/24 $P-other", "ID rc=0").podman("t-other rc=0"),
    case("n create $P-net", "rc=1").podman("rc=125"),
    case("w --subnet 10.14$D.0.0/25", "rc=1").podman("rc=125"),
    case("w --subnet 10.14$D.9.1/24", "rc=1").podman("t-bad rc=0"),
    case("w --gateway 10.14$D.9.1", "rc=1").podman("rc=125"),
    case("w --subnet 10.14$D.9.0/24 --gateway 10.14$D.8.1", "rc=1").podman("rc=125"),
    case("w --driver frob", "rc=1").podman("rc=125"),
    case(
        "n create --internal --subnet 10.14$D.2.0/24 $P-in >/dev/null; n inspect -f '{{.Name}} {{.Internal}}' $P-in",
        "t-in true rc=0",
    ),
    case("n create bridge", "rc=1").podman("rc=125"),
    case("n inspect -f '{{.Name}} {{.Driver}}' $P-net", "t-net bridge rc=0"),
    case(
        "n inspect -f '{{.Scope}} {{.EnableIPv6}} {{json .Labels}} {{range .IPAM.Config}}{{.Subnet}} {{.Gateway}}{{end}}' $P-net",
        r#"local false {"a":"1"} 10.N.0.0/24 rc=0"#,
    ).podman("rc=125"),
    case(
        "n inspect -f '{{range .Containers}}{{.Name}} {{.IPv4Address}}{{end}}' $P-net",
        "t-web 10.N.0.20/24 rc=0",
    ).podman("t-web rc=125"),
    case("n inspect no-such-thing", "[] rc=1").podman("[] rc=125"),
    case("n ls --filter name=$P-n --format '{{.Name}} {{.Driver}}'", "t-net bridge rc=0"),
    case("n ls --filter label=a=1 --filter name=$P- --format {{.Name}}", "t-net rc=0"),
    case("n ls --filter driver=frob -q", "rc=0"),
    case("n ls --filter frob=1", "rc=1").podman("rc=125"),
    case("n rm $P-net", "rc=1").podman("rc=2"),
    case("n rm no-such-thing", "rc=1"),
    case("n rm -f no-such-thing", "rc=0"),
    case("n rm host", "rc=1"),
    case("n prune -f --filter label=no-such-label", "rc=0"),
    // Who is in them.
    case(
        "h inspect -f '{{range $name, $net := .NetworkSettings.Networks}}{{$name}} {{$net.IPAddress}}/{{$net.IPPrefixLen}} {{$net.Gateway}} {{json $net.IPAMConfig}}{{end}}' $P-web",
        r#"t-net 10.N.0.20/24 10.N.0.1 {"IPv4Address":"10.N.0.20"} rc=0"#,
    ).podman("t-net 10.N.0.20/24 10.N.0.1 null rc=0"),
    case(
        "h inspect -f '{{range .NetworkSettings.Networks}}{{.Aliases}}{{end}} {{.HostConfig.NetworkMode}}' $P-web | sed -E 's/ [0-9a-f]{12}//'",
        "[www] t-net rc=0",
    ).podman("[www webhost] bridge rc=0"),
    case(
        "h inspect -f '{{range .NetworkSettings.Networks}}{{.MacAddress}}{{end}}' $P-web | grep -c ^02:42:0a",
        "1 rc=0",
    ).podman("0 rc=1"),
    case("n connect --ip 10.14$D.1.9 --alias x $P-other $P-up", "rc=0"),
    case("n connect $P-other $P-up", "rc=1").podman("rc=125"),
    case("h exec $P-up ip -o -4 addr show dev eth1 | grep -o 'inet [0-9./]*'", "inet 10.N.1.9/24 rc=0"),
    case("n disconnect $P-other $P-up", "rc=0"),
    case("n disconnect $P-other $P-up", "rc=1").podman("rc=125"),
    case("n connect no-such-thing $P-up", "rc=1").podman("rc=125"),
    case("n connect $P-other no-such-thing", "rc=1").podman("rc=125"),
    case("n connect host $P-up", "rc=1").podman("rc=125"),
    case("r --network no-such-thing busybox true", "rc=125"),
    case("r --network $P-net --ip 10.14$D.0.20 busybox true", "rc=125").podman("rc=126"),
    case("r --network $P-net --ip 10.99.0.1 busybox true", "rc=125").podman("rc=126"),
    case("r --ip 10.99.0.1 busybox true", "rc=125").podman("rc=126"),
    case("r --network $P-net --network-alias 'a b' busybox true", "rc=0")
    .ours("rc=125", "nobody can ask for a name with a blank"),
    case("r --network none busybox ls /sys/class/net", "lo rc=0"),
    case(
        "r --network $P-net --mac-address 02:42:ac:11:00:99 busybox cat /sys/class/net/eth0/address",
        "02:42:ac:11:00:99 rc=0",
    ),
    // Names.
    case(
        "r --name $P-b --network $P-net --ip 10.14$D.0.30 -h box --add-host db:10.1.2.3 busybox cat /etc/hosts",
        "127.0.0.1 localhost~::1 localhost ip6-localhost ip6-loopback~fe00::0 ip6-localnet~ff00::0 ip6-mcastprefix~ff02::1 ip6-allnodes~ff02::2 ip6-allrouters~10.1.2.3 db~10.N.0.30 box rc=0",
    )
    .podman("10.1.2.3 db~127.0.0.1 localhost~::1 localhost ip6-localhost ip6-loopback~ff02::1 ip6-allnodes~ff02::2 ip6-allrouters~10.N.0.1 host.containers.internal host.docker.internal~10.N.0.30 box t-b rc=0"),
    case(
        "r --name $P-b --network none -h box busybox cat /etc/hosts",
        "127.0.0.1 localhost~::1 localhost ip6-localhost ip6-loopback~fe00::0 ip6-localnet~ff00::0 ip6-mcastprefix~ff02::1 ip6-allnodes~ff02::2 ip6-allrouters rc=0",
    )
    .podman("127.0.0.1 localhost~::1 localhost ip6-localhost ip6-loopback~ff02::1 ip6-allnodes~ff02::2 ip6-allrouters~10.N.0.1 host.containers.internal host.docker.internal~127.0.0.1 box t-b rc=0")
    .ours("127.0.0.1 localhost~::1 localhost ip6-localhost ip6-loopback~fe00::0 ip6-localnet~ff00::0 ip6-mcastprefix~ff02::1 ip6-allnodes~ff02::2 ip6-allrouters~127.0.1.1 box rc=0", "a program that looks its own name up finds it, as on Debian"),
    case("r -h box busybox cat /etc/hostname", "box rc=0"),
    case(
        "r --add-host db:10.1.2.3 --add-host db:10.1.2.4 busybox grep -w db /etc/hosts",
        "10.1.2.3 db~10.1.2.4 db rc=0",
    ),
    case("r --add-host 'db:[2001:db8::1]' busybox grep -w db /etc/hosts", "2001:db8::1 db rc=0")
    .podman("rc=125"),
    case("r --add-host db busybox true", "rc=125"),
    case("r --add-host db:300.1.2.3 busybox true", "rc=125"),
    case(
        "r --network $P-net busybox grep '^[a-z]' /etc/resolv.conf | grep -v '^search'",
        "nameserver 127.0.0.11~options ndots:0 rc=0",
    ).podman("nameserver 10.N.0.1 rc=0")
    .ours("nameserver 10.N.0.1~options ndots:0 rc=0", "the gateway is the name server: it asks those that were typed, or the host's"),
    case(
        "r --network $P-net --dns 192.0.2.53 --dns-search corp.example --dns-option timeout:3 busybox grep '^[a-z]' /etc/resolv.conf",
        "nameserver 127.0.0.11~search corp.example~options timeout:3 ndots:0 rc=0",
    ).podman("search corp.example~nameserver 10.N.0.1~options timeout:3 rc=0")
    .ours("nameserver 10.N.0.1~search corp.example~options timeout:3 ndots:0 rc=0", "the gateway is the name server: it asks those that were typed, or the host's"),
    case(
        "r --dns 192.0.2.53 --dns-search corp.example --dns-option timeout:3 busybox grep '^[a-z]' /etc/resolv.conf",
        "nameserver 192.0.2.53~search corp.example~options timeout:3 rc=0",
    ).podman("search corp.example~nameserver 192.0.2.53~options timeout:3 rc=0")
    .ours("nameserver 10.0.2.1~search corp.example~options timeout:3 rc=0", "the gateway is the name server: it asks those that were typed, or the host's"),
    case(
        "r --dns 192.0.2.53 --dns-search . busybox grep '^[a-z]' /etc/resolv.conf",
        "nameserver 192.0.2.53 rc=0",
    )
    .ours("nameserver 10.0.2.1 rc=0", "the gateway is the name server: it asks those that were typed, or the host's"),
    case("r --dns x busybox true", "rc=125"),
    case(
        "for name in $P-web www WWW webhost nobody; do r --network $P-net busybox nslookup -type=a $name 2>&1 | sed -n '/^Name:/,$s/^Address[^:]*: //p'; done",
        "10.N.0.20~10.N.0.20~10.N.0.20~10.N.0.20 rc=0",
    ),
];

both_modes! {
    fn thirty_commands_and_more_are_answered_as_docker_does(mode) {
        match mode {
            Mode::Vm => TABLE.compare_ours("--isolation=vm -m 128m", "nv"),
            Mode::Container => TABLE.compare_ours("--isolation=container", "nc"),
        }
    }
}

#[test]
fn docker_answers_as_the_table_says() {
    TABLE.compare_docker("", "nd");
}

#[test]
fn podman_answers_as_the_table_says() {
    TABLE.compare_podman("", "np");
}
