//! Files from outside in a microVM: what a guest's programs do with them, locks, ends, and databases.
//!
//! What flags say and where files come to be is the room `volumes`'.

mod databases;
mod ends;
mod programs;
mod sqlite;
mod swaps;

use crate::life::Kept;
use crate::servers::import;
use hullbox_tests::{Done, Mode, hullbox, run};
use std::path::PathBuf;

/// How long a test that can be long is to be, by a variable of the environment in seconds.
fn seconds(variable: &str, usual: u64) -> std::time::Duration {
    let given = std::env::var(variable).ok();
    let given = given.and_then(|text| text.parse().ok());
    std::time::Duration::from_secs(given.unwrap_or(usual))
}

/// Debian with perl, which makes system calls that shells do not.
const DEBIAN: &str = "debian:servers";

fn debian() {
    import(DEBIAN, "servers.tar");
}

/// A directory of the host, removed with the test.
struct Host(PathBuf);

impl Host {
    fn new(test: &str) -> Self {
        let name = format!("hullbox-files-{test}-{}", std::process::id());
        let dir = std::env::temp_dir().join(name);
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).expect("a directory");
        Self(dir)
    }

    fn at(&self, target: &str) -> String {
        format!("{}:{target}", self.0.display())
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A named volume, removed with the test.
struct Named(&'static str);

impl Named {
    fn free(name: &'static str) -> Self {
        let _ = hullbox(["volume", "rm", "-f", name]);
        Self(name)
    }

    /// A file system of its own.
    fn block(name: &'static str, size: &str) -> Self {
        let named = Self::free(name);
        let size = format!("size={size}");
        let words = [
            "volume",
            "create",
            "--opt",
            "type=ext4",
            "--opt",
            &size,
            name,
        ];
        let _ = hullbox(words).exits(0);
        named
    }

    fn at(&self, target: &str) -> String {
        format!("{}:{target}", self.0)
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        let _ = hullbox(["volume", "rm", "-f", self.0]);
    }
}

/// `run --rm -v MOUNT IMAGE ARGS` in a microVM.
fn with(mount: &str, image: &str, args: &[&str]) -> Done {
    let mut words = vec!["-m", "256m", "-v", mount, image];
    words.extend(args);
    run(Mode::Vm, words)
}

/// A microVM that stays, with that mounted.
fn keep(name: &str, mount: &str, image: &str, args: &[&str]) -> Kept {
    let kept = Kept::new(name, Mode::Vm);
    let mut words = vec!["-m", "256m", "-v", mount, image];
    words.extend(args);
    kept.run(&words);
    kept
}
