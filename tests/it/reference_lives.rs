//! The lifecycle's exit codes and words beside podman's: one script, run with each of them.
//!
//! As in `reference`, podman runs an unpacked root filesystem where the containers run, without a
//! network, and has no init: a workload that must not be process 1 runs among the machine's own.

use hullbox_tests::{both_modes, on_the_machine};
use std::collections::BTreeMap;
use std::sync::OnceLock;

/// Every script's. `h` is the program, `$R` names the image, `$INIT` keeps the workload from being process 1. Each
/// line that is printed is a case and what came of it: what was said, or the exit code.
const WORDS: &str = r#"
    code() { name=$1; shift; c=0; "$@" >/dev/null 2>>"$errors" || c=$?; echo "$name: $c"; }
    says() { name=$1; shift; echo "$name: $("$@" 2>>"$errors" | tr '\n' ' ')"; }
    state() { says "$1" h inspect --format '{{.State.Status}} {{.State.ExitCode}}' "$2"; }
    # The workload has set its traps when it says so.
    up() { until h logs "$1" 2>/dev/null | grep -q up; do :; done; }
"#;

/// A life, and what can be asked of it.
const LIVES: &str = r#"
    code create h create --name one $R sh -c "trap 'exit 3' TERM; trap 'echo usr' USR1; echo up; while :; do sleep 1000 & wait; done"
    state created one
    code create-taken h create --name one $R true
    code exec-created h exec one true
    says start h start one
    up one
    code start-running h start one
    code exec-code h exec one sh -c 'exit 9'
    code exec-not-found h exec one no-such-program
    code exec-directory h exec one /etc
    code exec-killed h exec one sh -c 'kill -KILL $$'
    code exec-terminated h exec one sh -c 'kill -TERM $$'
    says exec-says h exec -e A=1 -w /tmp one sh -c 'echo $A; pwd'
    code rm-running h rm one
    code rename h rename one other
    code kill-handled h kill -s USR1 other
    state running other
    code kill-unknown-signal h kill -s NOSUCH other
    code pause h pause other
    state paused other
    code exec-paused h exec other true
    code unpause h unpause other
    says stop-handled h stop -t 60 other
    state stopped-by-its-handler other
    says wait-stopped h wait other
    code stop-stopped h stop other
    code exec-stopped h exec other true
    code kill-stopped h kill other
    says rm-stopped h rm other
"#;

/// The same, of ends by force and by themselves.
const ENDS: &str = r#"
    code run h run -d --name one $R sleep 1000
    (says wait-running h wait one) & waiting=$!
    says stop-unhandled h stop -t 0 one
    wait $waiting
    state stopped-by-force one
    code start-again h start one
    says kill h kill one
    says wait-killed h wait one
    code rm-killed h rm one

    code run-init h run -d --name one $INIT $R sleep 1000
    code kill-term h kill -s TERM one
    says wait-terminated h wait one
    state terminated one
    code rm-forced h rm -f one

    code create-short h create --name one $R sh -c 'echo said; exit 7'
    says start-attached h start -a one
    code start-attached-code h start -a one
    says logs h logs one
    state ended one
    code rm-ended h rm one

    for verb in start stop rm wait; do code absent-$verb h $verb no-such; done
    code absent-exec h exec no-such true
"#;

/// Where Hullbox is not podman, on purpose: the case, podman's, Hullbox's, the reason.
const DIFFERENT: [(&str, &str, &str, &str); 10] = [
    ("create-taken", "125", "1", DOCKERS),
    ("exec-created", "255", "1", DOCKERS),
    ("exec-paused", "255", "1", DOCKERS),
    ("exec-stopped", "255", "1", DOCKERS),
    ("kill-stopped", "125", "1", DOCKERS),
    ("rm-running", "2", "1", DOCKERS),
    ("absent-start", "125", "1", DOCKERS),
    ("absent-stop", "125", "1", DOCKERS),
    ("absent-wait", "125", "1", DOCKERS),
    ("absent-exec", "125", "1", DOCKERS),
];

const DOCKERS: &str =
    "Docker says 1 to whatever it refuses or cannot find, except to `run` and to its flags.";

fn lives(before: &str, after: &str) -> (BTreeMap<String, String>, String) {
    let (mut cases, mut errors) = (BTreeMap::new(), String::new());
    // Two scripts: neither takes too long for a command on a slow machine.
    for script in [LIVES, ENDS] {
        let done = on_the_machine(&format!("{before}\n{WORDS}\n{script}\n{after}")).exits(0);
        let said = done.text();
        let lines = said.lines().filter_map(|line| line.split_once(": "));
        cases.extend(lines.map(|(case, result)| (case.to_owned(), result.trim().to_owned())));
        errors += &done.stderr;
    }
    (cases, errors)
}

/// What came of each case with podman, which is asked once for both walls.
fn podmans() -> &'static BTreeMap<String, String> {
    static CASES: OnceLock<BTreeMap<String, String>> = OnceLock::new();
    CASES.get_or_init(|| {
        let before = r#"
            ref=$(mktemp -d /run/reference.XXXXXX) && mkdir "$ref/archive" "$ref/root" || exit
            tar -xf "$HULLBOX_TEST_FIXTURES/busybox.tar" -C "$ref/archive" || exit
            for layer in "$ref"/archive/*.tar; do tar -xf "$layer" -C "$ref/root" || exit; done
            R="--rootfs $ref/root" INIT=--pid=host errors=$ref/errors
            h() {
                verb=$1; shift
                case $verb in create|run) set -- --network=none --log-driver=k8s-file "$@" ;; esac
                podman --root "$ref/store" --runroot "$ref/run" --tmpdir "$ref/tmp" \
                    --storage-driver vfs --cgroup-manager cgroupfs --events-backend none "$verb" "$@"
            }
        "#;
        let after = "cat \"$errors\" >&2; rm -rf \"$ref\"";
        let (cases, errors) = lives(before, after);
        eprintln!("podman's errors:\n{errors}");
        cases
    })
}

both_modes! {
    fn lives_are_those_of_podmans_containers(mode) {
        let before = format!(
            r#"
            R=busybox INIT=--init errors=$(mktemp /run/errors.XXXXXX)
            h() {{
                verb=$1; shift
                case $verb in create|run) set -- {} -m 128m "$@" ;; esac
                "$HULLBOX_BIN" "$verb" "$@"
            }}
            "#,
            mode.flag()
        );
        let (ours, errors) = lives(&before, "cat \"$errors\" >&2; rm \"$errors\"");
        eprintln!("our errors:\n{errors}");
        let mut wrong = String::new();
        for (case, theirs) in podmans() {
            let expected = match DIFFERENT.iter().find(|(name, ..)| name == case) {
                Some((_, podmans, hullboxs, reason)) => {
                    assert_eq!(theirs, podmans, "podman itself, {case}: {reason}");
                    hullboxs
                }
                None => theirs.as_str(),
            };
            let our = ours.get(case).map_or("nothing", String::as_str);
            if our != expected {
                wrong += &format!("{case}: podman {theirs:?}, expected {expected:?}, ours {our:?}\n");
            }
        }
        assert!(wrong.is_empty(), "{wrong}");
        assert_eq!(ours.len(), podmans().len(), "{ours:?}\n{:?}", podmans());
    }
}
