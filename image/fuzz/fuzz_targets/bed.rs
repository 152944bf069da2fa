//! What the targets share: one store for the whole run, in memory.

use hullbox_image::{Limits, LoadOptions, Source, Store};
use std::cell::RefCell;

struct Bed {
    dir: tempfile::TempDir,
    store: Store,
}

thread_local! {
    static BED: RefCell<Option<Bed>> = const { RefCell::new(None) };
}

/// Runs `work` on the store and takes out whatever it put in.
pub fn with_store(work: impl FnOnce(&mut Store)) {
    BED.with_borrow_mut(|bed| {
        let bed = bed.get_or_insert_with(|| {
            let dir = tempfile::tempdir_in("/dev/shm").expect("a place in memory");
            let limits = Limits {
                max_file_bytes: 1 << 30,
                max_layer_bytes: 1 << 26,
                max_total_layer_bytes: 1 << 26,
                ..Limits::default()
            };
            let store = Store::open(dir.path())
                .expect("a store")
                .with_limits(limits);
            Bed { dir, store }
        });
        work(&mut bed.store);
        for image in bed.store.list().expect("a list") {
            let id = image.id.hex();
            let _ = bed.store.remove(&id, true, &mut |_| None);
        }
        for part in ["layers", "staging", "blobs/sha256"] {
            let mut left = std::fs::read_dir(bed.dir.path().join(part)).expect("a directory");
            assert!(left.next().is_none(), "something is left in {part}");
        }
    });
}

#[allow(dead_code, reason = "not every target loads")]
pub fn load(store: &mut Store, mut archive: &[u8]) {
    let source = Source::Stream(&mut archive);
    let _ = store.load(source, &LoadOptions::default(), &mut |_| {});
}
