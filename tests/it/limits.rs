//! The edges: as many layers and CPUs as there may be, disks that are full, forks without end.

use crate::archives::archive::{config, docker};
use crate::archives::testing::TarBuilder;
use hullbox_tests::{Mode, both_modes, command, hullbox, on_the_machine, run};
use serde_json::json;
use std::fs;
use std::io::Read;
use std::process::Stdio;

/// An image of a busybox under `layers - 1` layers of a file each; every layer changes `last`.
fn many_layers(layers: usize) -> Vec<u8> {
    let busybox = fs::read("/bin/busybox").unwrap();
    let mut base = TarBuilder::default();
    base.dir("bin")
        .entry(b'0', "bin/busybox", &busybox)
        .mode(0o755)
        .done();
    base.symlink("bin/sh", "busybox");
    let mut tars = vec![base.finish()];
    tars.extend((1..layers).map(|i| {
        let mut tar = TarBuilder::default();
        tar.file(&format!("files/{i}"), format!("{i}\n").as_bytes());
        tar.file("last", format!("{i}\n").as_bytes()).finish()
    }));
    let tars: Vec<_> = tars.iter().map(Vec::as_slice).collect();
    let mut settings = config(&tars);
    settings["config"] = json!({"Env": ["PATH=/bin"]});
    docker(
        settings.to_string().as_bytes(),
        &tars,
        &["many:layers"],
        true,
    )
}

#[test]
#[ignore = "needs the built program: make test"]
fn an_image_may_have_127_layers() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("image.tar");
    let load = || hullbox(["load", "-q", "-i", file.to_str().unwrap()]);
    fs::write(&file, many_layers(128)).unwrap();
    load().fails_saying("more than 127 layers");
    fs::write(&file, many_layers(127)).unwrap();
    let _ = load().exits(0);
    for mode in [Mode::Vm, Mode::Container] {
        let script = "busybox ls /files | busybox wc -l; busybox cat /files/1 /files/126 /last";
        let text = run(mode, ["many:layers", "sh", "-c", script])
            .exits(0)
            .text();
        assert_eq!(text, "126\n1\n126\n126", "{mode:?}");
    }
    let _ = hullbox(["rmi", "many:layers"]).exits(0);
}

#[test]
#[ignore = "needs the built program: make test"]
fn a_guest_has_the_cpus_it_was_promised() {
    for cpus in ["1", "4", "16"] {
        // Every one of them is asked to do something.
        let script = "nproc; for i in $(seq 0 $(($(nproc) - 1))); do taskset -c $i true || echo not $i; done";
        let text = run(Mode::Vm, ["--cpus", cpus, "busybox", "sh", "-c", script])
            .exits(0)
            .text();
        assert_eq!(text, cpus);
    }
    hullbox(["run", "--rm", "--cpus", "33", "busybox", "true"]).fails_saying("32 CPUs");
}

/// A guest's disk is 16 GiB. Allocating without writing fills it in no time, and costs the host
/// nothing but the metadata.
#[test]
#[ignore = "needs the built program: make test"]
fn a_guest_that_fills_its_disk_is_told_so() {
    let script = r#"
        for size in 4G 1G 100M 10M 1M; do
            n=0; while fallocate -l $size /fill.$size.$n 2>/dev/null; do n=$((n+1)); done; rm -f /fill.$size.$n
        done
        dd if=/dev/zero of=/rest bs=64k 2>&1 | grep -o 'No space left on device'
        rm -f /fill.1M.* /fill.10M.* /rest; echo again >/file && sync && cat /file
        df -m / | awk 'END { print ($2 > 15000) }'
    "#;
    let text = run(Mode::Vm, ["busybox", "sh", "-c", script])
        .exits(0)
        .text();
    assert_eq!(text, "No space left on device\nagain\n1");
}

/// `--storage-opt size=`: what a container may write, on its own disk and over its whole life.
#[test]
#[ignore = "needs the built program: make test"]
fn a_writable_layer_is_no_larger_than_was_asked_for() {
    let script = r#"
        free=$(df -m / | awk 'END { print $4 }'); rm -f /big
        dd if=/dev/zero of=/big bs=64k 2>&1 | grep -o 'No space left on device'
        size=$(stat -c %s /big); echo $(( size >> 20 )) $free
        # To the last block, whatever the file above left.
        dd if=/dev/zero of=/rest bs=4k 2>/dev/null; sync
        df -k / | awk 'END { print $4 }'
    "#;
    let sized = |size: &str, args: &[&str]| {
        let mut all = vec!["create", "--name", "sized", "--storage-opt", size];
        all.extend(args);
        hullbox(all)
    };
    for (size, mib) in [("size=20m", 20), ("size=300m", 300)] {
        let _ = sized(size, &["busybox", "sh", "-c", script]).exits(0);
        // Full is full after a stop, too, and can be written to once something was removed, however
        // often.
        for round in 0..4 {
            let text = hullbox(["start", "-a", "sized"]).exits(0).text();
            let lines: Vec<_> = text.lines().collect();
            let &[full, numbers, left] = &lines[..] else {
                panic!("{size}, start {round}: {text}");
            };
            assert_eq!(full, "No space left on device");
            assert_eq!(left, "0", "{size}: {text}");
            let numbers: Vec<u64> = numbers.split(' ').map(|n| n.parse().unwrap()).collect();
            // A file's extents and the directories take some blocks themselves.
            assert!((mib - 1..=mib).contains(&numbers[0]), "{size}: {text}");
            let free = if round == 0 { mib - 1..=mib } else { 0..=0 };
            assert!(free.contains(&numbers[1]), "{size}: {text}");
        }
        let _ = hullbox(["rm", "sized"]).exits(0);
    }
    sized("size=1k", &["busybox"]).fails_saying("the least size is 1m");
    sized("size=20g", &["busybox"]).fails_saying("the most is 16g");
    sized("inodes=5", &["busybox"]).refuses_flags_saying("expected size=SIZE");
    sized("size=20m", &["--isolation=container", "busybox"]).fails_saying("--isolation=vm");
}

/// A data directory on a small filesystem: the kernel, the image, and not much more. Where guests
/// begin at templates, these are there already, and nobody makes any meanwhile.
fn on_a_small_disk(script: &str) -> String {
    let bin = std::env::var("HULLBOX_BIN").unwrap();
    let text = format!(
        r#"
        set -e
        export HULLBOX_MACHINE=never
        small=$(mktemp -d /run/small.XXXXXX)
        size=96m; [ "${{HULLBOX_TEMPLATES-}}" = never ] || size=192m
        mount -t tmpfs -o size=$size small "$small"
        # A monitor that has told everything is still giving a guest's memory back, and has no name by
        # then that could be looked for. What never ends is noticed as a command that does not.
        finish() {{
            until umount "$small" 2>/dev/null; do sleep 0.05; done
            rmdir "$small"
        }}
        trap finish EXIT
        export HULLBOX_ROOT="$small/data"
        HULLBOX_RUNTIME=$(mktemp -d "$small/run.XXXXXX"); export HULLBOX_RUNTIME
        hullbox() {{ '{bin}' "$@"; }}
        used() {{ df -k "$small" | awk 'END {{ print $3 }}'; }}
        hullbox load -q -i "$HULLBOX_TEST_FIXTURES/busybox.tar"
        if [ $size = 192m ]; then
            hullbox template build; hullbox template build -m 128m; hullbox template build -m 128m --cpus 1
        fi >/dev/null
        {script}
        "#
    );
    on_the_machine(&text).exits(0).text()
}

both_modes! {
    fn a_full_host_disk_is_an_error_inside_and_nothing_is_left(mode) {
        // The first run unpacks what later ones share.
        let text = on_a_small_disk(&format!(r#"
            hullbox run --rm {flag} busybox true
            before=$(used)
            # Little memory: a guest with more might end before it writes anything back.
            hullbox run --rm -m 128m {flag} busybox sh -c 'dd if=/dev/zero of=/big bs=1M count=160 conv=fsync 2>&1; echo over' || echo "code $?"
            hullbox run --rm {flag} busybox echo well
            echo "grown by $(( ($(used) - before) / 1024 )) MiB"
            hullbox ps -aq
        "#, flag = mode.flag()));
        let lines: Vec<_> = text.lines().collect();
        assert!(text.contains("No space left on device") || text.contains("I/O error") || text.contains("Input/output error"), "{text}");
        assert_eq!(lines[lines.len() - 3..], ["over", "well", "grown by 0 MiB"], "{text}");
    }
}

/// A load that fills the disk leaves the store as it was.
#[test]
#[ignore = "needs the built program: make test"]
fn a_load_without_room_changes_nothing() {
    let text = on_a_small_disk(
        r#"
        before=$(hullbox images; find "$HULLBOX_ROOT" -type f ! -name '*.db*' | sort)
        free=$(df -k "$small" | awk 'END { print $4 }')
        head -c $((free - 1024))k /dev/zero >"$small/ballast"
        hullbox load -q -i "$HULLBOX_TEST_FIXTURES/three.tar" 2>"$small/error" && echo loaded || echo "code $?"
        cat "$small/error"
        rm "$small/ballast"
        after=$(hullbox images; find "$HULLBOX_ROOT" -type f ! -name '*.db*' | sort)
        [ "$before" = "$after" ] && echo same
        hullbox load -q -i "$HULLBOX_TEST_FIXTURES/three.tar"
        "#,
    );
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[1], "code 1", "{text}");
    assert!(
        lines[2].starts_with("hullbox: ") && lines[2].contains("No space left"),
        "{text}"
    );
    assert_eq!(lines[3..], ["same", "Loaded image: three:latest"], "{text}");
}

both_modes! {
    fn a_commit_without_room_changes_nothing(mode) {
        let text = on_a_small_disk(&format!(r#"
            ballast() {{ head -c $(( $(df -k "$small" | awk 'END {{ print $4 }}') - 3072 ))k /dev/zero >"$small/ballast"; }}
            files() {{ hullbox images -q; find "$HULLBOX_ROOT" -type f ! -name '*.db*' ! -name 'touched*' ! -name events.jsonl ! -path '*/containers/*' | sort; }}
            # Fails, and leaves everything as it was.
            refused() {{
                before=$(files)
                ballast
                code=0; hullbox commit full too-large 2>"$small/error" || code=$?
                echo "$1: code $code"; cat "$small/error"
                hullbox system check >"$small/check" 2>&1 || cat "$small/check"
                [ "$(files)" = "$before" ] || {{ echo "not the same:"; echo "$before"; files; }}
            }}
            hullbox run -d --name full -m 128m --cpus 1 {flag} busybox sh -c 'sleep 1000' >/dev/null
            hullbox exec full sh -c 'head -c 8388608 /dev/urandom >/big; md5sum /big >/sum; sync'
            refused running
            hullbox exec full sh -c 'md5sum -c /sum'
            rm "$small/ballast"
            hullbox stop -t 0 full >/dev/null
            refused stopped
            rm "$small/ballast"
            hullbox start full >/dev/null
            hullbox exec full sh -c 'md5sum -c /sum'
            hullbox commit full fits >/dev/null
            hullbox run --rm -m 128m --cpus 1 {flag} fits md5sum -c /sum
            hullbox rm -f full >/dev/null
            hullbox system check >/dev/null && echo sound
        "#, flag = mode.flag()));
        // The first line is the image's.
        let lines: Vec<_> = text.lines().skip(1).collect();
        assert_eq!(lines.len(), 8, "{text}");
        for (at, code) in [(0, "running: code 1"), (3, "stopped: code 1")] {
            assert_eq!(lines[at], code, "{text}");
            assert!(lines[at + 1].starts_with("hullbox: ") && lines[at + 1].contains("No space left"), "{text}");
        }
        assert_eq!([lines[2], lines[5], lines[6], lines[7]], ["/big: OK", "/big: OK", "/big: OK", "sound"], "{text}");
    }
}

/// No `--pids-limit`: the guest's small memory is all that stops it. From outside it still ends.
#[test]
#[ignore = "needs the built program: make test"]
fn an_unlimited_fork_bomb_can_be_removed() {
    let mut run = command(["run", "--name", "bomb", "-m", "96m", "--cpus", "1"]);
    run.args([
        "busybox",
        "sh",
        "-c",
        "echo lit; f() { f | f & }; f; while :; do :; done",
    ]);
    let mut child = run
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lit = [0; 4];
    child.stdout.as_mut().unwrap().read_exact(&mut lit).unwrap();
    assert_eq!(hullbox(["rm", "-f", "bomb"]).exits(0).text(), "bomb");
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(137), "{output:?}");
    assert_eq!(hullbox(["ps", "-aq"]).exits(0).text(), "");
    assert_eq!(run_true(), 0);
}

fn run_true() -> i32 {
    run(Mode::Vm, ["busybox", "true"]).code
}
