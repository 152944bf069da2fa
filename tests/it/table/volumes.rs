//! Volumes: words, what an empty one gets, owners, what stays and what goes.

use super::{Case, Table, case};
use hullbox_tests::{Mode, both_modes};

const TABLE: Table = Table {
    setup: SETUP,
    verb: "",
    cases: CASES,
    cleanup: CLEANUP,
};

/// An image in which `/data` is a volume with a file of user 70, and a directory `$D` of the host. `r` runs a
/// container, `b` tells of a container that is made with its arguments, `v` is `volume`.
const SETUP: &str = r#"
v() { h volume "$@"; }
r() { h run --rm $R "$@"; }
b() { f=$1; shift; h create $R --name $P-b "$@" busybox true >/dev/null && h inspect -f "$f" $P-b | sed "s,$D,DIR,g"; c=$?; h rm -v $P-b >/dev/null 2>&1; return $c; }
M='{{range .Mounts}}{{.Type}} {{.Name}} {{.Destination}} {{.Mode}} {{.RW}} {{.Propagation}};{{end}}'
D=/tmp/$P-dir; rm -rf $D; mkdir -p $D/sub; echo host >$D/file; chown 1234:5678 $D/file
for c in b i up; do h rm -fv $P-$c; done >/dev/null 2>&1
for c in one two new; do v rm -f $P-$c; done >/dev/null 2>&1
h run --name $P-i $R busybox sh -c 'mkdir -p /data/dir; echo image >/data/file; chown -R 70:71 /data; chmod 1750 /data; ln -s file /data/link' >/dev/null 2>&1
h commit -c 'VOLUME /data' $P-i $P-img >/dev/null 2>&1; h rm -v $P-i >/dev/null 2>&1
v create --label a=1 $P-one >/dev/null
"#;

const CLEANUP: &str = r"
for c in b i up; do h rm -fv $P-$c; done >/dev/null 2>&1
for c in one two new; do v rm -f $P-$c; done >/dev/null 2>&1
h rmi -f $P-img >/dev/null 2>&1; rm -rf $D
";

const CASES: &[Case] = &[
];

both_modes! {
    fn volumes_are_as_dockers(mode) {
        let (flags, prefix) = match mode {
            Mode::Vm => ("--isolation=vm -m 128m", "vv"),
            Mode::Container => ("--isolation=container", "vc"),
        };
        TABLE.compare_ours(flags, prefix);
    }
}

#[test]
#[ignore = "needs the built program: make test"]
fn what_is_on_record_is_what_docker_and_podman_answer() {
    TABLE.compare_docker("", "vd");
    TABLE.compare_podman("", "vp");
}
