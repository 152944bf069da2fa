//! Planted damage is found, and mended where it can be.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use common::archive::{Layout, config, docker, small_layer};
use common::testing::TarBuilder;
use hullbox_image::{
    ArchiveFormat, CheckOptions, CheckReport, ImageId, ImageUse, LabelFilter, LoadOptions,
    PruneOptions, PushOptions, Severity, Source, Store,
};
use serde_json::json;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

struct Bed {
    dir: tempfile::TempDir,
    store: Store,
    archive: Vec<u8>,
    id: ImageId,
    tar_bytes: u64,
}

/// A store with one image of two layers, the upper one dependent on the lower.
fn bed() -> Bed {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path()).unwrap();
    let base = small_layer();
    let top = TarBuilder::default()
        .file("not/described", &[3; 9000])
        .hard_link("again", "hello")
        .finish();
    let layers = [&base[..], &top];
    let archive = docker(
        config(&layers).to_string().as_bytes(),
        &layers,
        &["a:1"],
        false,
    );
    let id = load(&mut store, &archive);
    Bed {
        dir,
        store,
        archive,
        id,
        tar_bytes: (base.len() + top.len()) as u64,
    }
}

fn load(store: &mut Store, archive: &[u8]) -> ImageId {
    let mut stream = archive;
    let source = Source::Stream(&mut stream);
    let loaded = store.load(source, &LoadOptions::default(), &mut |_| {});
    loaded.unwrap()[0].id
}

impl Bed {
    fn check(&mut self, repair: bool, quick: bool) -> CheckReport {
        let options = CheckOptions { repair, quick };
        self.store.check(options, &mut |_| None).unwrap()
    }

    fn only(&self, part: &str, larger: bool) -> PathBuf {
        let entries = std::fs::read_dir(self.dir.path().join(part)).unwrap();
        let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        files.sort_by_key(|path| path.metadata().unwrap().len());
        if larger {
            files.pop()
        } else {
            files.into_iter().next()
        }
        .unwrap()
    }

    /// The damage is found by one kind of check, mended by a repair, and then the image loads
    /// again and is whole.
    fn damage(&mut self, severity: Severity, word: &str, quick: bool) {
        let found = self.check(false, quick);
        let hit = found.findings.iter().any(|finding| {
            finding.severity == severity && finding.what.contains(word) && !finding.repaired
        });
        assert!(hit && !found.is_sound(), "{word}: {found:?}");
        let mended = self.check(true, quick);
        assert!(mended.findings.iter().all(|f| f.repaired), "{mended:?}");
        let after = self.check(false, false);
        assert!(after.is_sound(), "{word}: {after:?}");
        assert_eq!(load(&mut self.store, &self.archive), self.id);
        let whole = self.check(false, false);
        assert_eq!(whole.findings, [], "{word}");
        let images = ["a:1".to_owned()];
        let mut out = Vec::new();
        self.store
            .save(&images, ArchiveFormat::Docker, &mut out)
            .unwrap();
    }
}

fn flip(path: &Path, at: u64) {
    let file = std::fs::File::options()
        .read(true)
        .write(true)
        .open(path)
        .unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
}

#[test]
fn a_sound_store_has_nothing_to_find() {
    let mut bed = bed();
    let report = bed.check(false, false);
    assert_eq!((report.images, report.layers), (1, 2));
    assert_eq!(report.findings, []);
    assert_eq!(report.verified_bytes, bed.tar_bytes);
    let quick = bed.check(false, true);
    assert_eq!((quick.findings.len(), quick.verified_bytes), (0, 0));
}

#[test]
fn strays_are_found_and_removed() {
    let mut bed = bed();
    let root = bed.dir.path().to_owned();
    for stray in [
        "layers/x.erofs",
        "recipes/x",
        "blobs/sha256/x",
        "staging/1-0",
    ] {
        std::fs::write(root.join(stray), b"x").unwrap();
    }
    bed.damage(Severity::Warning, "belongs to nothing", true);
    assert!(!root.join("layers/x.erofs").exists());
}

#[test]
fn strays_of_commands_at_work_are_let_be() {
    let mut bed = bed();
    let other = Store::open(bed.dir.path()).unwrap();
    let images = ["a:1".to_owned()];
    // While an archive is written out, the other store holds its staging area.
    struct During<'a>(&'a mut dyn FnMut());
    impl std::io::Write for During<'_> {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            (self.0)();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut notes = 0;
    let mut look = || {
        let report = bed.check(true, true);
        assert!(report.is_sound(), "{report:?}");
        notes += report.findings.len();
    };
    other
        .save(&images, ArchiveFormat::Oci, &mut During(&mut look))
        .unwrap();
    assert!(notes > 0);
}

#[test]
fn changed_contents_are_found() {
    let mut bed = bed();
    let layer = bed.only("layers", true);
    // The first block of data of the 9000 bytes.
    flip(&layer, 4096 + 10);
    assert!(
        bed.check(false, true).is_sound(),
        "a quick look does not see it"
    );
    bed.damage(Severity::Error, "contents were changed", false);
}

#[test]
fn changed_metadata_is_found() {
    let mut bed = bed();
    let layer = bed.only("layers", true);
    let at = layer.metadata().unwrap().len() - 4096 + 80;
    flip(&layer, at);
    bed.damage(Severity::Error, "metadata was changed", false);
}

#[test]
fn damaged_superblocks_and_lengths_are_found_quickly() {
    let mut bed = bed();
    flip(&bed.only("layers", true), 1024 + 60);
    bed.damage(Severity::Error, "checksum", true);
    let layer = std::fs::File::options()
        .write(true)
        .open(bed.only("layers", true));
    layer.unwrap().set_len(4096).unwrap();
    bed.damage(Severity::Error, "has 4096 bytes", true);
    std::fs::remove_file(bed.only("layers", false)).unwrap();
    bed.damage(Severity::Error, "cannot be opened", true);
}

#[test]
fn a_damaged_recipe_costs_only_the_saving() {
    let mut bed = bed();
    let recipe = bed.only("recipes", true);
    let middle = recipe.metadata().unwrap().len() / 2;
    flip(&recipe, middle);
    let found = bed.check(false, false);
    assert!(
        found
            .findings
            .iter()
            .all(|f| f.severity == Severity::Warning)
    );
    bed.check(true, false);
    assert!(bed.store.resolve("a:1").is_ok(), "the image stays");
    let images = ["a:1".to_owned()];
    let refused = bed
        .store
        .save(&images, ArchiveFormat::Docker, &mut Vec::new());
    let error = refused.unwrap_err();
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(source.contains("load the image again"), "{source}");
    load(&mut bed.store, &bed.archive.clone());
    std::fs::remove_file(bed.only("recipes", true)).unwrap();
    bed.damage(Severity::Warning, "record of its tar", true);
}

/// Takes away what the third and the fourth version of the index have.
fn without_third_version(db: &rusqlite::Connection) {
    for column in ["manifest", "digest"] {
        let sql = format!("ALTER TABLE names DROP COLUMN {column}");
        db.execute(&sql, []).unwrap();
    }
    for table in ["origins", "blobs", "repo_digests"] {
        db.execute(&format!("DROP TABLE {table}"), []).unwrap();
    }
}

#[test]
fn a_store_from_before_there_were_pulls_loses_nothing() {
    let mut bed = bed();
    let root = bed.dir.path().to_owned();
    let mut layout = Layout::new();
    let layer = TarBuilder::default().file("x", b"x").finish();
    let mut manifest = layout.image(&[&layer], |_| {});
    manifest["annotations"] = json!({"io.containerd.image.name": "quay.io/b:1"});
    layout.index(&[manifest.clone()]);
    load(&mut bed.store, &layout.tar());
    let see = |store: &Store| {
        let inspects = ["a:1", "quay.io/b:1"].map(|name| store.inspect(name).unwrap());
        (store.list().unwrap(), inspects)
    };
    let before = see(&bed.store);
    let db = rusqlite::Connection::open(root.join("images.db")).unwrap();
    without_third_version(&db);
    db.pragma_update(None, "user_version", 2).unwrap();
    drop(db);
    std::fs::remove_dir(root.join("partial")).unwrap();
    bed.store = Store::open(&root).unwrap();
    assert_eq!(see(&bed.store), before);
    let digest = manifest["digest"].as_str().unwrap();
    assert!(bed.store.resolve(&format!("quay.io/b@{digest}")).is_ok());
    assert_eq!(before.1[1].repo_digests, [format!("quay.io/b@{digest}")]);
    let options = PushOptions::default();
    let plan = bed.store.push_plan("quay.io/b:1", options).unwrap();
    assert_eq!(plan.manifest.unwrap().digest.to_string(), digest);
    assert_eq!(bed.check(false, false).findings, []);
    assert_eq!(bed.store.partial_use().unwrap().count, 0);
}

#[test]
fn a_store_of_the_version_before_is_taken_over() {
    let mut bed = bed();
    let root = bed.dir.path().to_owned();
    let db = rusqlite::Connection::open(root.join("images.db")).unwrap();
    for column in ["tar_bytes", "recipe_bytes", "sealed_from", "seal"] {
        let sql = format!("ALTER TABLE layers DROP COLUMN {column}");
        db.execute(&sql, []).unwrap();
    }
    without_third_version(&db);
    db.pragma_update(None, "user_version", 1).unwrap();
    drop(db);
    std::fs::remove_dir_all(root.join("recipes")).unwrap();
    std::fs::remove_dir(root.join("partial")).unwrap();
    bed.store = Store::open(&root).unwrap();
    assert_eq!(bed.store.resolve("a:1").unwrap().layers.len(), 2);
    let report = bed.check(false, false);
    let notes = report
        .findings
        .iter()
        .filter(|f| f.severity == Severity::Note);
    assert_eq!((notes.count(), report.is_sound()), (2, true), "{report:?}");
    let images = ["a:1".to_owned()];
    let save = |store: &Store| store.save(&images, ArchiveFormat::Docker, &mut Vec::new());
    assert!(save(&bed.store).is_err());
    load(&mut bed.store, &bed.archive.clone());
    save(&bed.store).unwrap();
    assert_eq!(bed.check(false, false).findings, []);
}

#[test]
fn changed_configurations_and_dangling_names_are_found() {
    let mut bed = bed();
    flip(&bed.only("blobs/sha256", true), 3);
    bed.damage(
        Severity::Error,
        "configuration is missing or was changed",
        true,
    );
    let db = rusqlite::Connection::open(bed.dir.path().join("images.db")).unwrap();
    db.execute_batch(
        "PRAGMA foreign_keys = OFF; INSERT INTO names (repository, tag, image) VALUES ('x', 'y', zeroblob(32))",
    )
    .unwrap();
    drop(db);
    bed.damage(Severity::Warning, "points at no image", true);
}

#[test]
fn images_in_use_are_not_dropped() {
    let mut bed = bed();
    flip(&bed.only("layers", true), 4096 + 10);
    let options = CheckOptions {
        repair: true,
        quick: false,
    };
    let container = "c0ffee".to_owned();
    let mut in_use = |_: &ImageId| {
        Some(ImageUse::Stopped {
            container: container.clone(),
        })
    };
    let report = bed.store.check(options, &mut in_use).unwrap();
    assert!(!report.is_sound());
    assert!(
        report.findings.iter().any(|f| f.what.contains("c0ffee")),
        "{report:?}"
    );
    assert!(bed.store.resolve("a:1").is_ok());
}

#[test]
fn pruning_takes_what_nothing_needs() {
    let mut bed = bed();
    let other = TarBuilder::default().file("other", &[1; 100]).finish();
    let mut labelled = config(&[&other]);
    labelled["config"]["Labels"] = serde_json::json!({"keep": "yes"});
    let unnamed = docker(labelled.to_string().as_bytes(), &[&other], &[], false);
    let dangling = load(&mut bed.store, &unnamed);
    let named = bed.id;
    let usage = bed.store.usage(&mut |id| {
        (*id == named).then(|| ImageUse::Running {
            container: "c".into(),
        })
    });
    let usage = usage.unwrap();
    assert_eq!((usage.images, usage.active), (2, 1));
    assert_eq!(
        (usage.size_bytes, usage.reclaimable_bytes),
        (9000 + 6 + 6 + 100, 100)
    );
    assert!(usage.disk_bytes > 0);
    let keep = LabelFilter {
        key: "keep".into(),
        value: None,
        is: false,
    };
    for (options, removed, bytes) in [
        (
            PruneOptions {
                labels: vec![keep],
                ..Default::default()
            },
            0,
            0,
        ),
        (
            PruneOptions {
                until: Some(5),
                ..Default::default()
            },
            0,
            0,
        ),
        (PruneOptions::default(), 1, 100),
        (PruneOptions::default(), 0, 0),
        (
            PruneOptions {
                all: true,
                ..Default::default()
            },
            2,
            9012,
        ),
    ] {
        let pruned = bed.store.prune(&options, &mut |_| None).unwrap();
        assert_eq!(
            (pruned.removed.len(), pruned.reclaimed_bytes),
            (removed, bytes),
            "{options:?}"
        );
    }
    assert!(bed.store.resolve(&dangling.hex()).is_err());
    assert_eq!(bed.check(false, false).findings, []);
    let id = load(&mut bed.store, &bed.archive.clone());
    let all = PruneOptions {
        all: true,
        ..Default::default()
    };
    let pruned = bed.store.prune(&all, &mut |_| {
        Some(ImageUse::Stopped {
            container: "c".into(),
        })
    });
    assert!(pruned.unwrap().removed.is_empty());
    assert!(bed.store.resolve(&id.hex()).is_ok());
}
