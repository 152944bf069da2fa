//! Exit codes beside those of `podman run`, for the same root filesystem and the same command.
//!
//! Podman runs where the containers run. It has no pause image, network or registry there, so it
//! runs an unpacked root filesystem (`--rootfs`) without a network. Where a process ends itself by
//! a signal it must not be process 1 of its namespace, which is immune to its own signals: ours
//! runs under `--init`, podman's, whose package brings no init, among the machine's processes.
//! Two cases have no reference: a file that is no valid program (podman with crun says 1, with
//! runc 126) and an unknown user (podman says 126, `docker run` 125); `basics` states ours.

use hullbox_tests::{both_modes, on_the_machine, run};
use std::collections::BTreeMap;
use std::sync::OnceLock;

struct Case {
    name: &'static str,
    ours: &'static [&'static str],
    podmans: &'static str,
    expected: i32,
}

const fn case(
    name: &'static str,
    ours: &'static [&'static str],
    podmans: &'static str,
    expected: i32,
) -> Case {
    Case {
        name,
        ours,
        podmans,
        expected,
    }
}

const CASES: [Case; 11] = [
    case("success", &["busybox", "true"], "$R true", 0),
    case(
        "its-own-code",
        &["busybox", "sh", "-c", "exit 7"],
        "$R sh -c 'exit 7'",
        7,
    ),
    case(
        "the-highest-code",
        &["busybox", "sh", "-c", "exit 255"],
        "$R sh -c 'exit 255'",
        255,
    ),
    case(
        "unknown-flag",
        &["--no-such-flag", "busybox", "true"],
        "--no-such-flag $R true",
        125,
    ),
    case(
        "absent-image",
        &["no-such-image", "true"],
        "--pull=never no-such-image true",
        125,
    ),
    case(
        "not-executable",
        &["busybox", "/bin/plain-text"],
        "$R /bin/plain-text",
        126,
    ),
    case("a-directory", &["busybox", "/etc"], "$R /etc", 126),
    case(
        "not-found",
        &["busybox", "no-such-program"],
        "$R no-such-program",
        127,
    ),
    case(
        "interrupted",
        &["--init", "busybox", "sh", "-c", "kill -INT $$"],
        "--pid=host $R sh -c 'kill -INT $$'",
        130,
    ),
    case(
        "killed",
        &["--init", "busybox", "sh", "-c", "kill -KILL $$"],
        "--pid=host $R sh -c 'kill -KILL $$'",
        137,
    ),
    case(
        "terminated",
        &["--init", "busybox", "sh", "-c", "kill -TERM $$"],
        "--pid=host $R sh -c 'kill -TERM $$'",
        143,
    ),
];

/// What podman exits with, by the case's name. It is asked once for both walls.
fn reference() -> &'static BTreeMap<String, i32> {
    static CODES: OnceLock<BTreeMap<String, i32>> = OnceLock::new();
    CODES.get_or_init(|| {
        let mut script = String::from(
            r#"
            ref=$(mktemp -d /run/reference.XXXXXX) && mkdir "$ref/archive" "$ref/root" || exit
            tar -xf "$HULLBOX_TEST_FIXTURES/busybox.tar" -C "$ref/archive" || exit
            for layer in "$ref"/archive/*.tar; do tar -xf "$layer" -C "$ref/root" 2>&1 || exit; done
            R="--rootfs $ref/root"
            podman() {
                command podman --root "$ref/store" --runroot "$ref/run" --tmpdir "$ref/tmp" \
                    --storage-driver vfs --cgroup-manager cgroupfs --events-backend none \
                    run --rm --network=none --log-driver=none "$@"
            }
            "#,
        );
        for case in &CASES {
            script += &format!(
                "podman {} >/dev/null 2>\"$ref/error\"; echo \"{} $?\"; cat \"$ref/error\" >&2\n",
                case.podmans, case.name
            );
        }
        script += "rm -rf \"$ref\"\n";
        let done = on_the_machine(&script).exits(0);
        let codes: BTreeMap<_, _> = done
            .text()
            .lines()
            .filter_map(|line| line.split_once(' '))
            .filter_map(|(name, code)| Some((name.to_owned(), code.parse().ok()?)))
            .collect();
        for case in &CASES {
            assert_eq!(
                codes.get(case.name),
                Some(&case.expected),
                "podman itself, {}: {}",
                case.name,
                done.stderr
            );
        }
        codes
    })
}

both_modes! {
    fn exit_codes_are_those_of_podman_run(mode) {
        for case in &CASES {
            let done = run(mode, case.ours);
            assert_eq!(Some(&done.code), reference().get(case.name), "{}: {}", case.name, done.stderr);
        }
    }
}
