//! The files of a benchmark: a data directory of its own with the image in it, and the same files as OCI
//! bundles for the peers. All of it is one directory, removed at the end; that of a killed benchmark is
//! removed by the next one.

use crate::error::BenchError;
use crate::veth;
use crate::workload::{HELLO, HOLD, MEMORY_MIB, NETWORKED, PROBE};
use hullbox_image::{ImportOptions, Reference, Source, Store};
use hullbox_tar::{Entry, Kind, TarWriter};
use rustix::fs::{FlockOperation, flock};
use serde_json::{Value, json};
use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Beginning of the names of such directories, in the data and in the runtime directory.
const PREFIX: &str = "bench-";
const IMAGE: &str = "hullbox-bench:probe";
const PASSWD: &[u8] = b"root:x:0:0:root:/:/probe\n";
const GROUP: &[u8] = b"root:x:0:\n";

/// The image that was imported.
#[derive(Debug, Clone, Default)]
pub(crate) struct Made {
    pub(crate) image: String,
    pub(crate) layers: Vec<String>,
}

/// The directories, locked while they are used.
#[derive(Debug)]
pub(crate) struct Scratch {
    name: String,
    data: PathBuf,
    runtime: PathBuf,
    _lock: File,
}

impl Scratch {
    /// Makes the directories inside the given ones, after removing what killed benchmarks left.
    pub(crate) fn create(data: &Path, runtime: &Path, hullbox: &Path) -> Result<Self, BenchError> {
        remove_stale(data, runtime, hullbox);
        let name = format!("{PREFIX}{}", std::process::id());
        let (data, runtime) = (data.join(&name), runtime.join(&name));
        for dir in [&data, &runtime] {
            make_dir(dir)?;
        }
        let lock = lock(&data).map_err(BenchError::file("lock", &data))?;
        let scratch = Self {
            name,
            data,
            runtime,
            _lock: lock.ok_or(BenchError::Nothing("another benchmark has its directory"))?,
        };
        for dir in ["root", "peers"] {
            make_dir(&scratch.data.join(dir))?;
        }
        Ok(scratch)
    }

    /// Imports the image and writes the bundles.
    pub(crate) fn fill(&self, probe: &[u8], created_s: i64) -> Result<Made, BenchError> {
        let tar = rootfs_tar(probe).map_err(BenchError::file("write", &self.data))?;
        let mut store = Store::open(self.data.join("root"))?;
        let options = ImportOptions {
            name: Reference::parse(IMAGE).ok(),
            changes: vec![format!("CMD [\"{PROBE}\", \"hello\"]")],
            message: Some("hullbox bench".to_owned()),
            created: created_s,
        };
        store.import(Source::Stream(&mut &tar[..]), &options, &mut |_| {})?;
        let image = store.resolve(IMAGE)?;
        self.write_rootfs(probe)?;
        for job in [HELLO, HOLD] {
            self.write_bundle(job, &self.bundle_config(job))?;
        }
        Ok(Made {
            image: image.id.to_string(),
            layers: image
                .layers
                .iter()
                .map(|layer| layer.diff_id.to_string())
                .collect(),
        })
    }

    fn write_bundle(&self, name: &str, config: &Value) -> Result<(), BenchError> {
        let dir = self.bundle(name);
        make_dir(&dir)?;
        let file = dir.join("config.json");
        fs::write(&file, config.to_string()).map_err(BenchError::file("write", &file))
    }

    /// The bundle of a container that waits in this network namespace.
    pub(crate) fn write_networked(&self, namespace: &Path) -> Result<(), BenchError> {
        let mut config = self.bundle_config(HOLD);
        let all = config.pointer_mut("/linux/namespaces");
        for one in all.and_then(Value::as_array_mut).into_iter().flatten() {
            if one["type"] == "network" {
                one["path"] = json!(namespace);
            }
        }
        self.write_bundle(NETWORKED, &config)
    }

    /// The same files as a directory: all ours, so that they may be written to a path.
    fn write_rootfs(&self, probe: &[u8]) -> Result<(), BenchError> {
        let root = self.rootfs();
        for dir in ["", "dev", "etc", "proc", "sys", "tmp"] {
            let dir = root.join(dir);
            make_dir(&dir)?;
            fs::set_permissions(&dir, fs::Permissions::from_mode(0o755))
                .map_err(BenchError::file("open up", &dir))?;
        }
        for (name, bytes, mode) in files(probe) {
            let path = root.join(name);
            fs::write(&path, bytes)
                .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(mode.into())))
                .map_err(BenchError::file("write", &path))?;
        }
        Ok(())
    }

    /// An OCI configuration like that of our own container mode, without its seccomp filter.
    fn bundle_config(&self, job: &str) -> Value {
        let mount = |to: &str, kind: &str, options: &[&str]| json!({ "destination": to, "type": kind, "source": kind, "options": options });
        let quiet = ["nosuid", "noexec", "nodev"];
        let mounts = [
            mount("/proc", "proc", &quiet),
            mount("/dev", "tmpfs", &["nosuid", "mode=755", "size=65536k"]),
            mount(
                "/dev/pts",
                "devpts",
                &["nosuid", "noexec", "newinstance", "ptmxmode=0666"],
            ),
            mount(
                "/dev/shm",
                "tmpfs",
                &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"],
            ),
            mount("/dev/mqueue", "mqueue", &quiet),
            mount("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
        ];
        let rights = [
            "CHOWN",
            "DAC_OVERRIDE",
            "FSETID",
            "FOWNER",
            "MKNOD",
            "NET_RAW",
            "SETGID",
            "SETUID",
            "SETFCAP",
            "SETPCAP",
            "NET_BIND_SERVICE",
            "SYS_CHROOT",
            "KILL",
            "AUDIT_WRITE",
        ]
        .map(|right| format!("CAP_{right}"));
        let namespaces = ["pid", "network", "ipc", "uts", "mount", "cgroup"];
        json!({
            "ociVersion": "1.0.2",
            "process": {
                "terminal": false,
                "user": { "uid": 0, "gid": 0 },
                "args": [PROBE, job],
                "env": ["PATH=/", "HOME=/"],
                "cwd": "/",
                "capabilities": { "bounding": rights, "effective": rights, "permitted": rights },
            },
            "root": { "path": self.rootfs(), "readonly": false },
            "hostname": "bench",
            "mounts": mounts,
            "linux": {
                "resources": { "memory": { "limit": MEMORY_MIB << 20 } },
                "namespaces": namespaces.map(|kind| json!({ "type": kind })),
            },
        })
    }

    /// A command of Hullbox on this data directory.
    pub(crate) fn hullbox(&self, program: &Path) -> Command {
        hullbox(program, &self.data, &self.runtime)
    }

    #[expect(clippy::unused_self, reason = "it is this directory's image")]
    pub(crate) const fn image(&self) -> &'static str {
        IMAGE
    }

    /// A container name that is unique on the host: names of control groups are shared.
    pub(crate) fn container(&self, name: &str) -> String {
        format!("{}-{name}", self.name)
    }

    /// Name of a network namespace of its own.
    pub(crate) fn namespace(&self) -> String {
        namespace_of(&self.name)
    }

    pub(crate) fn rootfs(&self) -> PathBuf {
        self.data.join("rootfs")
    }

    pub(crate) fn bundle(&self, job: &str) -> PathBuf {
        self.data.join(format!("bundle-{job}"))
    }

    pub(crate) fn peer_dir(&self, name: &str) -> PathBuf {
        self.data.join("peers").join(name)
    }

    /// A peer's runtime directory. Podman takes no path of more than 50 bytes for it.
    pub(crate) fn peer_runtime(&self, name: &str) -> PathBuf {
        self.runtime.join(name)
    }

    /// Removes everything. Whatever used it must have ended.
    pub(crate) fn remove(self) -> Result<(), BenchError> {
        remove_cgroups(&self.container(""));
        unmount_below(&self.data);
        unmount_below(&self.runtime);
        remove_tree(&self.runtime).map_err(BenchError::file("remove", &self.runtime))?;
        remove_tree(&self.data).map_err(BenchError::file("remove", &self.data))
    }
}

/// Name of the network namespace of a benchmark with this name.
fn namespace_of(name: &str) -> String {
    format!("hullbox-{name}")
}

fn hullbox(program: &Path, data: &Path, runtime: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .env("HULLBOX_ROOT", data.join("root"))
        .env("HULLBOX_RUNTIME", runtime)
        .env("HULLBOX_MACHINE", "never")
        .env_remove("HULLBOX_TEMPLATES")
        .env_remove("HULLBOX_DEBUG");
    command
}

fn files(probe: &[u8]) -> [(&'static str, &[u8], u16); 3] {
    [
        ("etc/group", GROUP, 0o644),
        ("etc/passwd", PASSWD, 0o644),
        ("probe", probe, 0o755),
    ]
}

/// The image's only layer.
fn rootfs_tar(probe: &[u8]) -> io::Result<Vec<u8>> {
    let mut tar = TarWriter::new(Vec::new());
    for dir in ["dev", "etc", "proc", "sys", "tmp"] {
        tar.entry(&Entry {
            path: dir.into(),
            mode: 0o755,
            ..Entry::of(Kind::Dir)
        })?;
    }
    for (name, bytes, mode) in files(probe) {
        tar.entry(&Entry {
            path: name.into(),
            mode,
            size: bytes.len() as u64,
            ..Entry::of(Kind::File)
        })?;
        tar.write_all(bytes)?;
    }
    tar.finish()
}

fn make_dir(path: &Path) -> Result<(), BenchError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(BenchError::file("make", path))
}

/// `None` while another process holds the lock.
fn lock(dir: &Path) -> io::Result<Option<File>> {
    let file = File::open(dir)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Removes the containers and directories of killed benchmarks. What cannot be removed is left to the
/// next benchmark.
fn remove_stale(data: &Path, runtime: &Path, program: &Path) {
    let entries = fs::read_dir(data).into_iter().flatten().flatten();
    for entry in entries {
        let name = entry.file_name();
        if !name.to_string_lossy().starts_with(PREFIX) {
            continue;
        }
        let (data, runtime) = (entry.path(), runtime.join(&name));
        let Ok(Some(_lock)) = lock(&data) else {
            continue;
        };
        if make_dir(&runtime).is_ok() {
            remove_containers(program, &data, &runtime);
        }
        veth::remove_stale(&namespace_of(&name.to_string_lossy()));
        unmount_below(&runtime);
        let _ = remove_tree(&runtime);
        let _ = remove_tree(&data);
    }
}

/// Control groups that a killed peer left: empty ones can be removed, and others are not ours.
fn remove_cgroups(prefix: &str) {
    let below = |dir: &Path| -> Vec<PathBuf> {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect()
    };
    let top = below(Path::new("/sys/fs/cgroup"));
    // One level further down, where each controller has a hierarchy of its own.
    let all = top.iter().flat_map(|dir| below(dir)).chain(top.clone());
    for dir in all {
        let name = dir.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with(prefix) {
            let _ = fs::remove_dir(&dir);
        }
    }
}

/// Mounts that a killed peer left.
fn unmount_below(dir: &Path) {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(1));
    // The latest first: one may lie within another.
    for point in points.map(Path::new).collect::<Vec<_>>().into_iter().rev() {
        if point.starts_with(dir) {
            let _ = rustix::mount::unmount(point, rustix::mount::UnmountFlags::DETACH);
        }
    }
}

fn remove_containers(program: &Path, data: &Path, runtime: &Path) {
    let listed = hullbox(program, data, runtime)
        .args(["ps", "-aq"])
        .stdin(Stdio::null())
        .output();
    let ids = listed.map(|output| output.stdout).unwrap_or_default();
    let ids = String::from_utf8_lossy(&ids).into_owned();
    if ids.trim().is_empty() {
        return;
    }
    // Their directories go in any case.
    let _ = hullbox(program, data, runtime)
        .args(["rm", "-f"])
        .args(ids.split_whitespace())
        .stdin(Stdio::null())
        .output();
}

fn remove_tree(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_image_and_the_bundles_hold_the_same_files_and_all_goes() {
        let dir = tempfile::tempdir().unwrap();
        let (data, runtime) = (dir.path().join("data"), dir.path().join("run"));
        for dir in [&data, &runtime] {
            fs::create_dir(dir).unwrap();
        }
        let stale = data.join("bench-1");
        fs::create_dir_all(stale.join("root/containers")).unwrap();
        let scratch = Scratch::create(&data, &runtime, Path::new("/bin/false")).unwrap();
        assert!(!stale.exists(), "what a killed one left is removed");
        let made = scratch.fill(b"a program", 0).unwrap();
        assert!(made.image.starts_with("sha256:"), "{made:?}");
        assert_eq!(made.layers.len(), 1);
        assert_eq!(
            fs::read(scratch.rootfs().join("probe")).unwrap(),
            b"a program"
        );
        let config = fs::read(scratch.bundle("hold").join("config.json")).unwrap();
        let config: Value = serde_json::from_slice(&config).unwrap();
        assert_eq!(config["process"]["args"], json!(["/probe", "hold"]));
        remove_stale(&data, &runtime, Path::new("/bin/false"));
        assert!(scratch.rootfs().exists(), "one in use is left alone");
        scratch.remove().unwrap();
        for dir in [&data, &runtime] {
            assert_eq!(fs::read_dir(dir).unwrap().count(), 0);
        }
    }

    #[test]
    fn the_same_probe_makes_the_same_layer() {
        assert_eq!(rootfs_tar(b"x").unwrap(), rootfs_tar(b"x").unwrap());
    }
}
