//! A store killed at any moment of a pull or of what a push does in it. Alone in its program: a
//! process that is being started holds copies of its parent's locks for a moment.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use common::kills;
use common::pull::Remote;
use common::store::{count, unused};
use common::testing::TarBuilder;
use hullbox_image::{
    CheckOptions, LayerCompression, LayerStep, PruneOptions, PushOptions, Reference, Severity,
    Store,
};
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// What is pulled: layers large enough to be killed in, one of which needs the others.
fn remote() -> Remote {
    let big: Vec<u8> = (0..50_000u32)
        .flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes())
        .collect();
    let layers: Vec<_> = (0..3)
        .map(|n| {
            let mut tar = TarBuilder::default();
            tar.file(&format!("big{n}"), &big[n..]).finish()
        })
        .collect();
    let top = TarBuilder::default()
        .file("d/.wh.x", b"")
        .hard_link("again", "big0")
        .finish();
    Remote::new(&[&layers[0], &layers[1], &layers[2], &top], "victim")
}

/// Tells the parent that another step is done.
fn mark() {
    let mut out = std::io::stderr();
    out.write_all(b".").unwrap();
}

/// A connection that gives a little at a time.
struct Slow<'a>(&'a [u8]);

impl Read for Slow<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        mark();
        let len = buffer.len().min(8 * 1024);
        self.0.read(&mut buffer[..len])
    }
}

/// Not a test: what the next one runs and kills. It pulls, compresses as a push does, and removes.
#[test]
#[ignore = "a child process of another test"]
fn child_that_pulls_and_pushes() {
    let Some(root) = std::env::var_os(kills::STORE) else {
        return;
    };
    let remote = remote();
    loop {
        let mut store = Store::open(&root).unwrap();
        let pull = store.begin_pull(remote.request.clone()).unwrap();
        std::thread::scope(|scope| {
            for index in 0..pull.layers().len() {
                let (pull, remote) = (&pull, &remote);
                scope.spawn(move || {
                    if let LayerStep::Fetch(task) = pull.layer(index).unwrap() {
                        let rest = remote.rest(&task);
                        task.feed(Slow(rest)).unwrap();
                    }
                });
            }
        });
        mark();
        pull.finish(&mut store).unwrap();
        mark();
        let options = PushOptions {
            compression: Some(LayerCompression::Zstd(1)),
        };
        let plan = store.push_plan("victim", options).unwrap();
        let layers: Vec<_> = (0..plan.layers.len())
            .map(|index| {
                mark();
                store.layer_blob(&plan, index).unwrap().info().clone()
            })
            .collect();
        let manifest = plan.manifest_for(&layers).unwrap();
        let name = Reference::parse("quay.io/pushed:1").unwrap();
        store.pushed(&plan, &name, &manifest, &layers).unwrap();
        store.remove("victim", true, &mut unused).unwrap();
        store.prune(&PruneOptions::default(), &mut unused).unwrap();
    }
}

/// Runs the child and kills it when it has done so many steps, or a moment later.
fn kill_after(steps: u64, root: &Path) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_that_pulls_and_pushes", "--ignored"])
        .arg("--nocapture")
        .env(kills::STORE, root)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut marks = child.stderr.take().unwrap().take(steps);
    let seen = std::io::copy(&mut marks, &mut std::io::sink()).unwrap();
    assert_eq!(seen, steps, "the child ended by itself");
    // Between two steps too.
    std::thread::sleep(Duration::from_micros(steps * 379 % 4001));
    child.kill().unwrap();
    child.wait().unwrap();
}

fn is_sound(store: &mut Store) {
    let report = store.check(CheckOptions::default(), &mut unused).unwrap();
    let bad = |finding: &&hullbox_image::Finding| finding.severity > Severity::Note;
    assert_eq!(report.findings.iter().find(bad), None);
}

#[test]
fn a_killed_pull_leaves_a_sound_store_and_the_next_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("store");
    drop(Store::open(&root).unwrap());
    let remote = remote();
    let all: usize = remote.blobs.values().map(Vec::len).sum();
    let (mut resumed, mut complete) = (0, 0);
    for moment in 0..40 {
        kill_after(1 + moment * 3, &root);
        let mut store = Store::open(&root).unwrap();
        assert_eq!(count(&root, "staging"), 0, "swept at open");
        is_sound(&mut store);
        let was_there = store.resolve("victim").is_ok();
        complete += u32::from(was_there);
        // Every other time the next child goes on with what is there.
        if moment % 2 == 0 {
            continue;
        }
        let (_, fed) = remote.pull(&mut store).unwrap();
        resumed += u32::from(!was_there && fed < all as u64);
        is_sound(&mut store);
        assert_eq!(count(&root, "partial"), 0);
        let options = PruneOptions {
            all: true,
            ..PruneOptions::default()
        };
        store.prune(&options, &mut unused).unwrap();
        for part in ["layers", "recipes", "blobs/sha256", "partial"] {
            assert_eq!(count(&root, part), 0, "nothing without an owner in {part}");
        }
    }
    eprintln!("{resumed} pulls went on where another was killed, {complete} were complete");
    assert!(resumed > 5, "{resumed}");
}
