//! What every hostile image is tried on.

use crate::common::archive::image;
use crate::common::testing::TarBuilder;
use hullbox_image::{Digest, LoadError, LoadOptions, Loaded, Source, Store};
use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};

/// A store with an image in it, and a canary where escapes would hit it.
pub struct Bed {
    pub dir: tempfile::TempDir,
    pub store: Store,
    before: BTreeMap<PathBuf, Digest>,
}

impl Bed {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("canary"), "alive").unwrap();
        let store = Store::open(dir.path().join("store")).unwrap();
        let mut bed = Self {
            dir,
            store,
            before: BTreeMap::new(),
        };
        let layer = TarBuilder::default().file("first", b"1").finish();
        bed.load(&image(&[&layer])).unwrap();
        bed.before = snapshot(bed.dir.path());
        bed
    }

    pub fn load(&mut self, archive: &[u8]) -> Result<Vec<Loaded>, LoadError> {
        let mut stream = archive;
        let source = Source::Stream(&mut stream);
        self.store
            .load(source, &LoadOptions::default(), &mut |_| {})
    }

    /// The load fails, says this, and nothing has changed.
    #[track_caller]
    pub fn refuses(&mut self, archive: &[u8], message: &str) {
        let error = match self.load(archive) {
            Err(error) => chain(&error),
            Ok(loaded) => panic!("accepted: {loaded:?}, but should say {message:?}"),
        };
        assert!(error.contains(message), "{message:?} is not in: {error}");
        self.is_unchanged();
    }

    #[track_caller]
    pub fn refuses_layer(&mut self, layer: &[u8], message: &str) {
        self.refuses(&image(&[layer]), message);
    }

    #[track_caller]
    pub fn is_unchanged(&self) {
        assert_eq!(snapshot(self.dir.path()), self.before);
    }
}

/// An error with its causes, as the program shows it.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

/// Every file's digest, directories too; SQLite's shared memory is not content.
pub fn snapshot(root: &Path) -> BTreeMap<PathBuf, Digest> {
    let mut found = BTreeMap::new();
    let mut dirs = vec![root.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                found.insert(path.clone(), Digest::of(b"directory"));
                dirs.push(path);
            } else if !path.ends_with("images.db-shm") {
                let digest = Digest::of(&std::fs::read(&path).unwrap());
                found.insert(path, digest);
            }
        }
    }
    found
}

pub fn layer_with(name: &str) -> Vec<u8> {
    TarBuilder::default().file(name, b"evil").finish()
}

pub fn layer_with_pax(records: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = TarBuilder::default();
    tar.pax(records).file("f", b"evil").finish()
}
