//! Any bytes as requests of a guest's kernel.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::fs;
use std::sync::LazyLock;

static GROUND: LazyLock<tempfile::TempDir> = LazyLock::new(|| {
    let ground = tempfile::tempdir_in("/dev/shm").expect("memory");
    fs::write(ground.path().join("secret"), "secret").expect("memory");
    std::env::set_current_dir("/proc/self/fd").expect("/proc");
    ground
});

fuzz_target!(|data: &[u8]| {
    let root = GROUND.path().join("root");
    fs::create_dir_all(root.join("0/sub")).expect("memory");
    fs::write(root.join("0/file"), "contents").expect("memory");
    hullbox_files::probes::messages(&root, data);
    assert_eq!(fs::read_dir(&root).expect("the root").count(), 1);
    let secret = fs::read_to_string(GROUND.path().join("secret"));
    assert_eq!(secret.expect("the secret"), "secret");
    fs::remove_dir_all(&root).expect("tidy up");
});
