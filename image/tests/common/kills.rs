//! A process that works on a store and is killed again and again.

use hullbox_image::Store;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The variable in which a child finds its store.
pub const STORE: &str = "STORE_UNDER_TEST";

/// Runs an ignored test of this program as a child, which works on the store in `root` for ever, and
/// kills it after various times, for ten seconds. After each, `look` sees the store, and says whether
/// what the child makes was there.
pub fn at_many_moments(child: &str, root: &Path, mut look: impl FnMut(&mut Store) -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut delay = 20;
    let mut found = 0;
    while Instant::now() < deadline {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", child, "--ignored"])
            .env(STORE, root)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(delay));
        child.kill().unwrap();
        child.wait().unwrap();
        delay = delay * 17 % 331 + 10;
        found += u32::from(look(&mut Store::open(root).unwrap()));
    }
    eprintln!("what the child makes was there {found} times");
}
