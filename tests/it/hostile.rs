//! Hostile images, as a person meets them: one clear line, Docker's exit code, and a store that is the
//! same to the byte. What each lie is and every variant of it: `image/tests/hostile/`.

use crate::archives::archive::{self, Layout, config, docker, gzip, image, small_layer, zstd};
use crate::archives::testing::TarBuilder;
use hullbox_tests::{Done, both_modes, hullbox, on_the_machine, run};
use serde_json::json;
use std::fs;
use std::path::Path;

/// All that the data directory says about images, and a canary that traversals would hit.
pub(crate) fn store() -> String {
    let script = r#"
        cd "$HULLBOX_ROOT" || exit
        [ -e canary ] || echo alive >canary
        find . \( -path ./machine -o -path ./artifacts -o -path ./containers -o -path './templates/*/touched*' -o -name '*.db' -o -name '*.db-*' \
            -o -name 'events.log*' -o -path ./lost+found \) -prune -o -printf '%p %y %m %s\n' | sort
        # What the database says is in the listing; its file may be written anew at any time.
        find canary blobs layers staging -type f -exec sha256sum {} + | sort
        ls -d /canary* ../canary* 2>/dev/null
        true
    "#;
    let text = on_the_machine(script).exits(0).text();
    assert!(text.contains("layers/"), "{text}");
    format!(
        "{text}\n{}",
        // Not the column that says how long ago.
        hullbox([
            "images",
            "--no-trunc",
            "--format",
            "{{.Repository}} {{.Tag}} {{.ID}} {{.Size}}"
        ])
        .exits(0)
        .text()
    )
}

/// `load` refuses these bytes with one line that holds `part`.
#[track_caller]
fn refuses(dir: &Path, bytes: &[u8], part: &str) {
    let file = dir.join("hostile");
    fs::write(&file, bytes).unwrap();
    is_one_line(&hullbox(["load", "-i", file.to_str().unwrap()]), part);
}

#[track_caller]
fn is_one_line(done: &Done, part: &str) {
    assert_eq!(done.code, done.failure_code, "{done:?}");
    assert!(done.stdout.is_empty(), "{done:?}");
    let mut lines = done.stderr.lines();
    let line = lines.next().unwrap_or_default();
    assert!(
        line.starts_with("hullbox: ") && line.contains(part),
        "{part:?} is not in {}",
        done.stderr
    );
    // A hint may follow, nothing else.
    assert!(
        lines.all(|line| line.starts_with("hint: ")),
        "{}",
        done.stderr
    );
}

fn entry(set: impl FnOnce(&mut TarBuilder)) -> Vec<u8> {
    let mut tar = TarBuilder::default();
    set(&mut tar);
    image(&[&tar.finish()])
}

fn hostile_layers() -> Vec<(Vec<u8>, &'static str)> {
    vec![
        // Rows 1 to 5.
        (
            entry(|tar| _ = tar.file("../canary", b"dead")),
            "\"..\" in its name",
        ),
        (
            entry(|tar| _ = tar.file(&format!("{}canary", "../".repeat(20)), b"dead")),
            "\"..\" in its name",
        ),
        (
            entry(|tar| {
                _ = tar
                    .symlink("up", "/../..")
                    .hard_link("stolen", "up/etc/shadow")
            }),
            "is a hard link to",
        ),
        (
            entry(|tar| _ = tar.symlink("a", "b").symlink("b", "a").file("a/x", b"")),
            "symbolic links",
        ),
        (
            entry(|tar| _ = tar.file(".wh...", b"")),
            "is a whiteout of nothing",
        ),
        (
            entry(|tar| _ = tar.entry(b'3', "etc/shadow", b"").device(0, 0)),
            "only a whiteout may be",
        ),
        // Row 6. The name is shown, and moves nobody's cursor.
        (
            entry(|tar| _ = tar.entry(b'0', "\x1b[2Jhuge", b"").size(0o77_777_777_777)),
            "cut off",
        ),
        (
            entry(|tar| _ = tar.pax(&[("size", b"-1")]).file("f", b"")),
            "PAX header is malformed",
        ),
    ]
}

fn hostile_archives() -> Vec<(Vec<u8>, &'static str)> {
    let layer = small_layer();
    let honest = config(&[&layer]).to_string();
    let other = TarBuilder::default().file("other", b"dead").finish();
    let whole = image(&[&layer]);
    let spoiled = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut layout = Layout::new();
        let image = layout.image(&[&layer], change);
        layout.index(&[image]);
        layout.tar()
    };
    let tampered = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut layout = Layout::new();
        let image = layout.image(&[&layer], |_| {});
        layout.index(&[image]);
        let packed = |(_, bytes): &&mut (String, Vec<u8>)| bytes.starts_with(b"\x1f\x8b");
        change(&mut layout.files.iter_mut().find(packed).unwrap().1);
        layout.tar()
    };
    vec![
        // Row 7.
        (whole[..700].to_vec(), "cut off"),
        (whole[..whole.len() - 2048].to_vec(), ""),
        (gzip(&whole)[..200].to_vec(), ""),
        (tampered(&|blob| blob[20] ^= 1), "cannot be"),
        (
            tampered(&|blob| *blob = gzip(b"another layer")),
            "cannot be",
        ),
        // The time in gzip's header: the same layer from other bytes.
        (tampered(&|blob| blob[4] ^= 1), "was changed or damaged"),
        (
            docker(honest.as_bytes(), &[&other], &[], true),
            "its DiffID is",
        ),
        (
            docker(honest.as_bytes(), &[], &[], true),
            "another number of layers",
        ),
        (
            spoiled(&|m| m["layers"][0]["size"] = json!(-1)),
            "cannot be understood",
        ),
        (
            spoiled(&|m| m["manifests"] = json!([])),
            "both a manifest and an index",
        ),
        (
            spoiled(&|m| m["layers"][0]["digest"] = json!("sha256:../../canary")),
            "cannot be understood",
        ),
        (
            spoiled(&|m| m["layers"][0]["mediaType"] = json!(archive::CONFIG)),
            "not a layer's",
        ),
        (b"hello".repeat(1000), "not an image"),
        (Vec::new(), "not an image"),
    ]
}

#[test]
#[ignore = "needs the built program: make test"]
fn hostile_archives_get_one_line_and_change_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let before = store();
    for (bytes, part) in hostile_layers().into_iter().chain(hostile_archives()) {
        refuses(dir.path(), &bytes, part);
    }
    assert_eq!(store(), before);
}

#[test]
#[ignore = "needs the built program: make test"]
fn bombs_get_one_line_and_change_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let before = store();
    // Just over what a stream may yield before its growth is looked at.
    let bomb = TarBuilder::default()
        .file("zeros", &vec![0; 260 << 20])
        .finish();
    let config = config(&[&bomb]).to_string();
    for packed in [gzip(&bomb), zstd(&bomb)] {
        let archive = docker(config.as_bytes(), &[&packed], &[], true);
        refuses(dir.path(), &archive, "grows more than 200 times");
    }
    assert_eq!(store(), before);
}

/// The image of a busybox and of what `change` makes of its configuration.
fn load_busybox(
    name: &str,
    more: impl FnOnce(&mut TarBuilder),
    change: impl FnOnce(&mut serde_json::Value),
) {
    let mut tar = TarBuilder::default();
    more(&mut tar);
    let busybox = fs::read("/bin/busybox").unwrap();
    tar.dir("bin")
        .entry(b'0', "bin/busybox", &busybox)
        .mode(0o755)
        .done();
    tar.symlink("bin/sh", "busybox");
    let layer = tar.finish();
    let mut settings = config(&[&layer]);
    settings["config"] = json!({"Cmd": ["/bin/busybox", "true"]});
    change(&mut settings);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("image");
    fs::write(
        &file,
        docker(settings.to_string().as_bytes(), &[&layer], &[name], true),
    )
    .unwrap();
    let _ = hullbox(["load", "-q", "-i", file.to_str().unwrap()]).exits(0);
}

// Row 8: what only shows when a container is made.
both_modes! {
    fn hostile_settings_are_errors_and_never_root(mode) {
        for (user, part) in [("nobody-there", "nobody-there"), ("4294967296", "in range"), ("-1", "in range"), ("0:no-group", "no-group")] {
            load_busybox("odd:user", |_| {}, |c| c["config"]["User"] = json!(user));
            is_one_line(&run(mode, ["odd:user"]), part);
        }
        load_busybox("odd:nothing", |_| {}, |c| c["config"] = json!(null));
        is_one_line(&run(mode, ["odd:nothing"]), "command");
        load_busybox("odd:dir", |_| {}, |c| c["config"]["WorkingDir"] = json!("/bin/busybox/x"));
        is_one_line(&run(mode, ["odd:dir"]), "/bin/busybox");
        let _ = hullbox(["rmi", "odd:user", "odd:nothing", "odd:dir"]).exits(0);
    }
}

both_modes! {
    fn an_image_whose_proc_is_a_link_leads_nowhere(mode) {
        let links = |tar: &mut TarBuilder| {
            for name in ["proc", "sys", "dev", "etc"] {
                tar.symlink(name, "/../../../../../../../run/led-out");
            }
        };
        load_busybox("odd:links", links, |_| {});
        let look = "mkdir -p /run/led-out; ls -la /run/led-out; grep led-out /proc/mounts";
        let before = on_the_machine(look).text();
        let done = run(mode, ["odd:links", "/bin/busybox", "cat", "/proc/self/comm"]);
        if done.code == 125 {
            is_one_line(&done, "");
        } else {
            assert_eq!(done.exits(0).text(), "busybox");
        }
        assert_eq!(on_the_machine(look).text(), before);
        let _ = hullbox(["rmi", "odd:links"]).exits(0);
    }
}
