//! Volumes and paths of the host: what is told of them, what is refused, what an empty volume gets, and what stays
//! and goes.
//!
//! Podman's answers are those where nothing runs: where they were recorded it could run no container.

use super::{Case, Table, case};
use hullbox_tests::{Mode, both_modes};

const TABLE: Table = Table {
    setup: SETUP,
    verb: "",
    cases: CASES,
    cleanup: CLEANUP,
};

/// Why `create` ends with another code than Docker's, whose engine finds what our command line does. Of `run` both are 125.
const VALUE: &str = "a flag's value that makes no sense is 125 of every command";

/// An image in which `/data` is a volume, a directory `$D` of the host, a volume that is free and one that is not. `r` runs
/// a container, `b` tells of one that is made with its arguments, `v` is `volume`.
const SETUP: &str = r#"
v() { h volume "$@"; }
r() { h run --rm $R "$@"; }
b() { f=$1; shift; h create $R --name $P-b "$@" busybox true >/dev/null && h inspect -f "$f" $P-b | sed "s,$D,DIR,g"; c=$?; h rm -v $P-b >/dev/null 2>&1; return $c; }
M='{{range .Mounts}}{{.Type}} {{.Name}} {{.Destination}} {{.Mode}} {{.RW}} {{.Propagation}};{{end}}'
D=/tmp/$P-dir; rm -rf $D; mkdir -p $D/sub; echo host >$D/file; chown 1234:5678 $D/file
for c in b i up; do h rm -fv $P-$c; done >/dev/null 2>&1
for c in one two new keep; do v rm -f $P-$c; done >/dev/null 2>&1
h run --name $P-i $R busybox sh -c 'mkdir -p /data/dir; echo image >/data/file; chown -R 70:71 /data; chmod 1750 /data; ln -s file /data/link' >/dev/null 2>&1
h commit -c 'VOLUME /data' $P-i $P-img >/dev/null 2>&1; h rm -v $P-i >/dev/null 2>&1
v create --label a=1 $P-one >/dev/null
h run -d --name $P-up -v $P-keep:/x $R busybox sh -c 'touch /x/kept; sleep 1000' >/dev/null
"#;

const CLEANUP: &str = r"
for c in b i up; do h rm -fv $P-$c; done >/dev/null 2>&1
for c in one two new keep; do v rm -f $P-$c; done >/dev/null 2>&1
h rmi -f $P-img >/dev/null 2>&1; rm -rf $D
";

const CASES: &[Case] = &[
    // What is mounted, as inspect tells it.
    case(r#"b "$M" -v $D:/x"#, "bind /x true rprivate; rc=0"),
    case(r#"b "$M" -v $D:/x:ro"#, "bind /x ro false rprivate; rc=0")
    .podman("bind /x false rprivate; rc=0"),
    case(r#"b "$M" -v $D:/x:rslave,z"#, "bind /x rslave,z true rslave; rc=0")
    .podman("bind /x z true rslave; rc=0"),
    case(r#"b "$M" -v $P-one:/x"#, "volume t-one /x z true ; rc=0")
    .podman("volume t-one /x true rprivate; rc=0"),
    case(r#"b "$M" -v $P-one:/x:ro,nocopy"#, "volume t-one /x ro,nocopy false ; rc=0")
    .podman("volume t-one /x false rprivate; rc=0"),
    case(r#"b "$M" -v $P-one:/x//y/../z/"#, "volume t-one /x/z z true ; rc=0")
    .podman("volume t-one /x//y/../z/ true rprivate; rc=0"),
    case(r#"b "$M" -v /x"#, "volume ID /x true ; rc=0")
    .podman("volume ID /x true rprivate; rc=0"),
    case(r#"b "$M" --mount type=bind,src=$D,dst=/x,ro"#, "bind /x false rprivate; rc=0"),
    case(r#"b "$M" --mount src=$P-one,dst=/x"#, "volume t-one /x z true ; rc=0")
    .podman("rc=125"),
    case(r#"b "$M" --mount type=tmpfs,dst=/x,tmpfs-size=1m"#, "tmpfs /x true ; rc=0")
    .podman("rc=0"),
    case("b '{{json .HostConfig.Binds}}' -v $D:/x -v $P-one:/y:ro -v /z", r#"["DIR:/x","t-one:/y:ro"] rc=0"#)
    .podman(r#"["45bb2119d0c5420a501f04cb73695f75357b1518180f84e23b13f33c058b85c3:/z:rw,rprivate,nosuid,nodev,rbind","t-one:/y:ro,rprivate,nosuid,nodev,rbind","DIR:/x:rw,rprivate,rbind"] rc=0"#),
    case("b '{{json .Config.Volumes}}' -v /z -v $D:/x", r#"{"/z":{}} rc=0"#)
    .podman("null rc=0"),
    case("b '{{json .HostConfig.Tmpfs}}' --tmpfs /t:size=1m", r#"{"/t":"size=1m"} rc=0"#)
    .podman(r#"{"/t":"size=1m,rw,rprivate,nosuid,nodev,tmpcopyup"} rc=0"#),
    case("b '{{json .HostConfig.VolumesFrom}}' --volumes-from $P-up:ro", r#"["t-up:ro"] rc=0"#),
    // What is refused.
    case(r#"b "$M" -v ''"#, "rc=125"),
    case(r#"b "$M" -v :/x"#, "rc=125"),
    case(r#"b "$M" -v $D:/x:ro:z"#, "rc=125"),
    case(r#"b "$M" -v $D:/"#, "rc=1")
    .podman("bind / true rprivate; rc=0")
    .ours("rc=125", VALUE),
    case(r#"b "$M" -v $D:x"#, "rc=1")
    .podman("rc=125")
    .ours("rc=125", VALUE),
    case(r#"b "$M" -v $D:ro"#, "rc=1")
    .podman("rc=125")
    .ours("rc=125", VALUE),
    case(r#"b "$M" -v $D:/x:rx"#, "rc=1")
    .podman("rc=125")
    .ours("rc=125", VALUE),
    case(r#"b "$M" -v $D:/x:ro,rw"#, "rc=1")
    .podman("rc=125")
    .ours("rc=125", VALUE),
    case(r#"b "$M" -v $D:/x:nocopy"#, "rc=1")
    .podman("bind /x true rprivate; rc=0")
    .ours("rc=125", VALUE),
    case(r#"b "$M" -v $P-one:/x:shared"#, "rc=1")
    .podman("volume t-one /x true shared; rc=0")
    .ours("rc=125", VALUE),
    case(r#"b "$M" -v a/b:/x"#, "rc=1")
    .podman("rc=125")
    .ours("rc=125", VALUE),
    case(r#"b "$M" --mount x"#, "rc=125"),
    case(r#"b "$M" --mount foo=bar,dst=/x"#, "rc=125"),
    case(r#"b "$M" --mount type=volume"#, "rc=125"),
    case(r#"b "$M" --mount type=bind,src=/no/such,dst=/x"#, "rc=1")
    .podman("rc=125"),
    case(r#"b "$M" --mount type=bind,src=$D,dst=/x,volume-nocopy"#, "rc=125"),
    case(r#"b "$M" --mount type=tmpfs,src=x,dst=/x"#, "rc=1")
    .podman("rc=125")
    .ours("rc=125", VALUE),
    case(r#"b "$M" --mount dst=/x,ro"#, "rc=1")
    .podman("rc=125")
    .ours("rc=125", VALUE),
    case(r#"b "$M" -v $D:/x -v $P-one:/x"#, "rc=1")
    .podman("rc=125"),
    case(r#"b "$M" --volumes-from $P-none"#, "rc=1")
    .podman("rc=125"),
    case("r --tmpfs /x:nonsense busybox true", "rc=125"),
    // Paths of the host.
    case("r -v $D:/x busybox cat /x/file", "host rc=0"),
    case("r -v $D:/x busybox stat -c %u:%g /x/file", "1234:5678 rc=0"),
    case("r -v $D/new/dir:/x busybox touch /x/f && ls $D/new/dir", "f rc=0"),
    case("r -v $D:/x:ro busybox touch /x/f", "rc=1"),
    case("r -v $D/file:/etc/file busybox cat /etc/file", "host rc=0"),
    case("r -v $P-one:/w/sub -v $D:/w busybox sh -c 'touch /w/sub/v; ls /w; ls /w/sub'", "file~new~sub~v rc=0"),
    case("r -v $D/file:/x/ busybox cat /x", "host rc=0"),
    // What an empty volume gets.
    case("r -v $P-new:/data $P-img sh -c 'stat -c %u:%g:%a /data /data/file; ls /data'", "70:71:1750~70:71:644~dir~file~link rc=0"),
    case("r -v $P-new:/y busybox sh -c 'cat /y/file; stat -c %u:%a /y'", "image~70:1750 rc=0"),
    case("r $P-img sh -c 'ls /data; stat -c %u:%a /data'", "dir~file~link~70:1750 rc=0"),
    case("r -v $P-two:/data:nocopy $P-img sh -c 'ls -A /data; stat -c %u:%a /data'", "0:755 rc=0"),
    case("r -v $P-two:/data:ro $P-img cat /data/file", "image rc=0"),
    case("r -v $D:/data $P-img cat /data/file", "host rc=0"),
    case("r --tmpfs /data $P-img ls -A /data", "rc=0"),
    case("r --mount type=volume,dst=/data $P-img cat /data/file", "image rc=0"),
    // What stays, and what goes.
    case("r --volumes-from $P-up busybox cat /x/kept", "rc=0"),
    case("r --volumes-from $P-up:ro busybox touch /x/f", "rc=1"),
    case("h ps --filter volume=$P-keep --format '{{.Names}} {{.LocalVolumes}}'", "t-up 1 rc=0"),
    case("v rm $P-keep", "rc=1"),
    case("v rm $P-none", "rc=1"),
    case("v rm -f $P-none", "t-none rc=0"),
    case("v create $P-one", "t-one rc=0"),
    case("v create -o foo=bar $P-bad", "rc=1"),
    case("v create a/b", "rc=1"),
    case("v inspect -f '{{json .Labels}} {{json .Options}} {{.Driver}} {{.Scope}}' $P-one", r#"{"a":"1"} null local local rc=0"#),
    case("v ls -q --filter name=$P-one", "t-one rc=0"),
    case("v ls -q --filter label=a=1 --filter name=$P", "t-one rc=0"),
    case("v ls --format '{{.Driver}} {{.Scope}} {{.Labels}}' --filter name=$P-one", "local local a=1 rc=0"),
    case("h run --name $P-b -v /x $R busybox true && n=$(h inspect -f '{{range .Mounts}}{{.Name}}{{end}}' $P-b) && h rm -v $P-b >/dev/null && v inspect $n >/dev/null", "rc=1"),
    case("h run --name $P-b -v /x $R busybox true && n=$(h inspect -f '{{range .Mounts}}{{.Name}}{{end}}' $P-b) && h rm $P-b >/dev/null && v rm $n", "ID rc=0"),
    case("h run --name $P-b -v $P-two:/x $R busybox true && h rm -v $P-b >/dev/null && v inspect -f '{{.Driver}}' $P-two", "local rc=0"),
];

both_modes! {
    fn sixty_commands_are_answered_as_docker_does(mode) {
        match mode {
            Mode::Vm => TABLE.compare_ours("--isolation=vm -m 128m", "vv"),
            Mode::Container => TABLE.compare_ours("--isolation=container", "vc"),
        }
    }
}

#[test]
fn docker_answers_as_the_table_says() {
    TABLE.compare_docker("--network none", "vd");
}
