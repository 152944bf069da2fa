//! Files from outside: paths of the host and volumes, what becomes of them, and what is refused.

mod binds;
mod copies;
mod named;
mod words;

use hullbox_tests::{Done, Mode, hullbox, run};
use std::path::PathBuf;

/// A directory of the host, removed with the test.
struct Host(PathBuf);

impl Host {
    fn new(test: &str, mode: Mode) -> Self {
        let wall = if mode == Mode::Vm { "vm" } else { "ns" };
        let name = format!("hullbox-volumes-{test}-{wall}-{}", std::process::id());
        let dir = std::env::temp_dir().join(name);
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).expect("a directory");
        Self(dir)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_string_lossy().into_owned()
    }

    fn write(&self, name: &str, text: &str) -> String {
        let path = self.0.join(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("its directory");
        std::fs::write(&path, text).expect("a file");
        self.path(name)
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.0.join(name)).expect("a file")
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A named volume, removed with the test.
struct Named(String);

impl Named {
    /// A name that nothing has.
    fn free(test: &str, mode: Mode) -> Self {
        let wall = if mode == Mode::Vm { "vm" } else { "ns" };
        let name = format!("v-{test}-{wall}");
        let _ = hullbox(["volume", "rm", "-f", &name]);
        Self(name)
    }

    fn at(&self, target: &str) -> String {
        format!("{}:{target}", self.0)
    }

    fn inspect(&self, template: &str) -> Done {
        hullbox(["volume", "inspect", "-f", template, &self.0])
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        let _ = hullbox(["volume", "rm", "-f", &self.0]);
    }
}

/// `run --rm FLAGS busybox sh -c SCRIPT`.
fn sh(mode: Mode, flags: &[&str], script: &str) -> Done {
    let mut args = vec!["-m", "128m"];
    args.extend(flags);
    args.extend(["busybox", "sh", "-c", script]);
    run(mode, args)
}

/// An image in which `/data` is a volume: of user 70 and group 71, mode 1750, with a file, a link to it, a
/// directory and a hole.
struct Image(String);

impl Image {
    fn new(test: &str, mode: Mode) -> Self {
        let wall = if mode == Mode::Vm { "vm" } else { "ns" };
        let (name, tag) = (
            format!("i-{test}-{wall}"),
            format!("volumes-{test}-{wall}:1"),
        );
        let _ = hullbox(["rm", "-f", &name]);
        let script = "mkdir -p /data/dir /data/empty; echo image >/data/file; ln /data/file /data/dir/hard; \
            ln -s file /data/link; chmod 640 /data/file; chown 70:71 /data/file; \
            truncate -s 64M /data/holes; chown 70:71 /data; chmod 1750 /data";
        let made = hullbox([
            "run",
            "--name",
            &name,
            mode.flag(),
            "-m",
            "128m",
            "busybox",
            "sh",
            "-c",
            script,
        ]);
        let _ = made.exits(0);
        let _ = hullbox(["commit", "-c", "VOLUME /data", &name, &tag]).exits(0);
        let _ = hullbox(["rm", "-v", &name]).exits(0);
        Self(tag)
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        let _ = hullbox(["rmi", "-f", &self.0]);
    }
}

/// The names of the volumes that fit.
fn volumes(filter: &str) -> Vec<String> {
    let listed = hullbox(["volume", "ls", "-q", "--filter", filter]).exits(0);
    listed.text().lines().map(str::to_owned).collect()
}
