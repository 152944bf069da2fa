//! What the tests against other programs share: fixtures, mounts, and comparing trees.

#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "helpers of tests, each of which uses some of them"
)]

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::Metadata;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;

pub mod archive;
pub mod kills;
pub mod pull;
pub mod store;
#[path = "../../src/testing.rs"]
pub mod testing;

/// Runs a program; panics with its output if it fails.
pub fn run(program: &str, args: &[&OsStr]) {
    let output = Command::new(program).args(args).output().unwrap();
    assert!(
        output.status.success(),
        "{program} {args:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

pub fn have(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .any(|dir| dir.join(program).exists())
}

/// Whether this process can mount our images: root, with loop devices and EROFS.
pub fn can_mount() -> bool {
    let filesystems = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
    rustix::process::geteuid().is_root()
        && Path::new("/dev/loop-control").exists()
        && filesystems.contains("erofs")
        && filesystems.contains("overlay")
}

/// The fixtures that `tests/fixtures/make` makes, if they are there or can be made here.
pub fn fixtures() -> Option<PathBuf> {
    if let Some(dir) = std::env::var_os("HULLBOX_TEST_FIXTURES") {
        return Some(dir.into());
    }
    let able = rustix::process::geteuid().is_root() && have("umoci") && have("skopeo");
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("fixtures");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/make");
    able.then(|| {
        run(script.to_str().unwrap(), &[dir.as_os_str()]);
        dir
    })
}

/// A mount that ends with its value.
pub struct Mount(PathBuf);

impl Mount {
    pub fn new(args: &[&OsStr], at: &Path) -> Self {
        std::fs::create_dir_all(at).unwrap();
        let args: Vec<_> = args.iter().copied().chain([at.as_os_str()]).collect();
        run("mount", &args);
        Self(at.to_owned())
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Lazily: a child of another test has copies of what this process has open until it execs,
        // and while it does an ordinary umount is refused.
        let status = Command::new("umount").arg("-l").arg(&self.0).status();
        assert!(
            std::thread::panicking() || status.is_ok_and(|status| status.success()),
            "{} stays mounted",
            self.0.display()
        );
    }
}

/// Mounts layers, lowest first, as a container would see them.
pub fn mount_layers(layers: &[PathBuf], at: &Path) -> (PathBuf, Vec<Mount>) {
    let mut mounts = Vec::new();
    let mut lower = Vec::new();
    for (i, layer) in layers.iter().enumerate() {
        let dir = at.join(i.to_string());
        let options = ["-t", "erofs", "-o", "loop,ro"].map(OsStr::new);
        mounts.push(Mount::new(
            &[&options[..], &[layer.as_os_str()]].concat(),
            &dir,
        ));
        lower.insert(0, dir.to_str().unwrap().to_owned());
    }
    // overlayfs wants two directories where nothing is to be written.
    let empty = at.join("empty");
    std::fs::create_dir_all(&empty).unwrap();
    lower.push(empty.to_str().unwrap().to_owned());
    let merged = at.join("merged");
    let options = format!("lowerdir={}", lower.join(":"));
    let args = ["-t", "overlay", "-o", &options, "overlay"].map(OsStr::new);
    mounts.push(Mount::new(&args, &merged));
    mounts.reverse();
    (merged, mounts)
}

/// What is compared of a file, as text, so that a difference can be read.
fn describe(path: &Path, metadata: &Metadata) -> String {
    let kind = metadata.file_type();
    let content = if kind.is_file() {
        format!(
            "{:?}",
            hullbox_image::Digest::of(&std::fs::read(path).unwrap())
        )
    } else if kind.is_symlink() {
        format!("{:?}", std::fs::read_link(path).unwrap())
    } else {
        String::new()
    };
    let device = if kind.is_char_device() || kind.is_block_device() {
        metadata.rdev()
    } else {
        0
    };
    // Directories' link counts are the filesystem's business, and overlayfs shows 1.
    let links = if kind.is_dir() { 0 } else { metadata.nlink() };
    format!(
        "mode {:o} owner {}:{} mtime {}.{:09} size {} device {device:x} links {links} xattrs {:?} {content}",
        metadata.mode(),
        metadata.uid(),
        metadata.gid(),
        metadata.mtime(),
        metadata.mtime_nsec(),
        if kind.is_dir() { 0 } else { metadata.len() },
        xattrs(path),
    )
}

fn xattrs(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut names = vec![0; 64 * 1024];
    let len = rustix::fs::llistxattr(path, &mut names[..]).unwrap_or(0);
    names[..len]
        .split(|&b| b == 0)
        .filter(|name| !name.is_empty() && *name != b"security.selinux")
        .map(|name| {
            let mut value = vec![0; 64 * 1024];
            let name = OsStr::from_bytes(name);
            let len = rustix::fs::lgetxattr(path, name, &mut value[..]).unwrap();
            value.truncate(len);
            (name.to_string_lossy().into_owned(), value)
        })
        .collect()
}

/// Every path of a tree with its description. The root itself is left out: tools make it their own.
pub fn survey(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut dirs = vec![root.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let metadata = path.symlink_metadata().unwrap();
            let relative = path.strip_prefix(root).unwrap().to_owned();
            found.insert(relative, describe(&path, &metadata));
            if metadata.is_dir() {
                dirs.push(path);
            }
        }
    }
    found
}

/// Fails, naming the first differences, unless two surveys are equal.
pub fn assert_same(ours: &BTreeMap<PathBuf, String>, theirs: &BTreeMap<PathBuf, String>) {
    assert!(ours.len() > 3, "there is something to compare");
    let mut differences = Vec::new();
    for path in ours
        .keys()
        .chain(theirs.keys().filter(|p| !ours.contains_key(*p)))
    {
        if ours.get(path) != theirs.get(path) {
            differences.push(format!(
                "{}\n  ours   {:?}\n  theirs {:?}",
                path.display(),
                ours.get(path),
                theirs.get(path)
            ));
        }
    }
    assert!(
        differences.is_empty(),
        "{} differences:\n{}",
        differences.len(),
        differences[..differences.len().min(20)].join("\n")
    );
}
