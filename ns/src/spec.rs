//! The OCI runtime specification of a container, with Docker's defaults.
//!
//! It asks libcontainer for namespaces, mounts, devices, masked paths and the entry into the
//! root. The process in it is a stand-in with full privileges: what runs, as whom and under
//! which filter is [`super::executor`]'s, and limits and device rules are
//! [`super::cgroup`]'s. So neither arguments nor environment are written to disk here.

use super::cgroup::Cgroup;
use super::inroot::Root;
use super::mounts::is_inner;
use super::network;
use hullbox_backend::bundle::Bundle;
use hullbox_backend::network::Network;
use hullbox_protocol::{Access, CONSOLE_SIZE, DeviceKind, DeviceNode, TerminalSize, TmpfsMount};
use oci_spec::OciSpecError;
use oci_spec::runtime::{
    LinuxBuilder, LinuxDevice, LinuxDeviceBuilder, LinuxDeviceType, LinuxNamespace,
    LinuxNamespaceBuilder, LinuxNamespaceType, Mount, MountBuilder, ProcessBuilder, RootBuilder,
    Spec, SpecBuilder, UserBuilder,
};
use rustix::io::Errno;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// Why a container cannot be described.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpecError {
    /// An option that tmpfs does not have.
    #[error("invalid tmpfs option \"{0}\"")]
    TmpfsOption(String),
    /// A relative path to mount at.
    #[error("cannot mount a tmpfs at {0}: the path must be absolute")]
    RelativeTmpfs(String),
    /// A path that leads nowhere.
    #[error("cannot mount a tmpfs at {0}")]
    TmpfsPath(String, #[source] Errno),
    /// The specification is not a whole.
    #[error("cannot describe the container")]
    Oci(#[from] OciSpecError),
}

/// Size of /dev/shm where none is given, in bytes.
const DEFAULT_SHM_SIZE: u64 = 64 * 1024 * 1024;

/// The specification for a bundle whose root is mounted at `rootfs`.
pub(super) fn build(
    bundle: &Bundle,
    rootfs: &Path,
    root: Root<'_>,
    devices: &[DeviceNode],
) -> Result<Spec, SpecError> {
    let setup = &bundle.setup;
    let access = &setup.access;
    let mut process = ProcessBuilder::default()
        .terminal(console(bundle).is_some())
        .user(UserBuilder::default().uid(0u32).gid(0u32).build()?)
        .args(vec!["(workload)".to_owned()])
        .env(Vec::new())
        .cwd("/")
        .build()?;
    // The builder has opinions of its own on these.
    process
        .set_capabilities(None)
        .set_no_new_privileges(None)
        .set_rlimits(None);
    let mut linux = LinuxBuilder::default()
        .namespaces(namespaces(access, has_new_network(bundle))?)
        .masked_paths(access.masked_paths.clone())
        .readonly_paths(access.read_only_paths.clone())
        .devices(nodes(devices)?)
        .cgroups_path(Cgroup::oci_path(&bundle.id))
        .sysctl(sysctls(&setup.sysctls, has_new_network(bundle)))
        .build()?;
    linux.set_resources(None);
    let mut spec = SpecBuilder::default()
        .version("1.0.2")
        .root(
            RootBuilder::default()
                .path(rootfs)
                .readonly(setup.rootfs.read_only)
                .build()?,
        )
        .process(process)
        .mounts(mounts(bundle, root)?)
        .linux(linux)
        .build()?;
    spec.set_hostname((!setup.hostname.is_empty()).then(|| setup.hostname.clone()));
    Ok(spec)
}

/// The terminal of the first process. An init system has one in any case, which is its console: what
/// it has to say it says nowhere else.
pub(super) fn console(bundle: &Bundle) -> Option<TerminalSize> {
    let own = bundle.setup.access.runs_systemd.then_some(CONSOLE_SIZE);
    bundle.process.terminal.or(own)
}

/// The runtime makes nodes there and nowhere else.
pub(super) fn is_in_dev(device: &DeviceNode) -> bool {
    device.path.starts_with("/dev/")
}

/// The nodes to make in /dev, but for those that the runtime makes anyway.
fn nodes(devices: &[DeviceNode]) -> Result<Vec<LinuxDevice>, OciSpecError> {
    const USUAL: [&str; 6] = [
        "/dev/null",
        "/dev/zero",
        "/dev/full",
        "/dev/tty",
        "/dev/random",
        "/dev/urandom",
    ];
    let own = devices
        .iter()
        .filter(|device| is_in_dev(device) && !USUAL.contains(&&*device.path));
    let node = |device: &DeviceNode| {
        LinuxDeviceBuilder::default()
            .path(&device.path)
            .typ(match device.kind {
                DeviceKind::Char => LinuxDeviceType::C,
                DeviceKind::Block => LinuxDeviceType::B,
            })
            .major(i64::from(device.major))
            .minor(i64::from(device.minor))
            .file_mode(device.mode)
            .uid(device.uid)
            .gid(device.gid)
            .build()
    };
    own.map(node).collect()
}

/// Whether the runtime makes the container's network namespace. Otherwise its parent is in the one that
/// the container is to have (see [`network`]).
pub(super) fn has_new_network(bundle: &Bundle) -> bool {
    bundle.network == Network::None
}

fn namespaces(access: &Access, new_network: bool) -> Result<Vec<LinuxNamespace>, OciSpecError> {
    let network = new_network.then_some(LinuxNamespaceType::Network);
    let cgroup = (!access.sees_all_cgroups).then_some(LinuxNamespaceType::Cgroup);
    [
        LinuxNamespaceType::Pid,
        LinuxNamespaceType::Mount,
        LinuxNamespaceType::Uts,
        LinuxNamespaceType::Ipc,
    ]
    .into_iter()
    .chain(network)
    .chain(cgroup)
    .map(|kind| LinuxNamespaceBuilder::default().typ(kind).build())
    .collect()
}

/// Those that the runtime sets. What belongs to a network namespace that it does not make is set by
/// whoever makes that.
fn sysctls(asked: &[(String, String)], new_network: bool) -> HashMap<String, String> {
    let asked = asked.iter();
    if !new_network {
        let others = asked.filter(|(name, _)| !network::is_parameter(name));
        return others.cloned().collect();
    }
    let exists = |name: &str| Path::new("/proc/sys").join(name.replace('.', "/")).exists();
    let defaults = network::PARAMETERS.iter().filter(|(name, _)| exists(name));
    let mut all: HashMap<_, _> = defaults
        .map(|&(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    all.extend(asked.cloned());
    all
}

/// Docker's mounts, but for those whose places are taken by `--tmpfs`.
fn mounts(bundle: &Bundle, root: Root<'_>) -> Result<Vec<Mount>, SpecError> {
    let setup = &bundle.setup;
    let shm_bytes = match setup.shm_size_bytes {
        0 => DEFAULT_SHM_SIZE,
        size => size,
    };
    let shm = format!("size={shm_bytes}");
    let nothing = ["nosuid", "noexec", "nodev"];
    let access = &setup.access;
    let unless = |writable: bool| -> &[&str] { if writable { &[] } else { &["ro"] } };
    let table: [(&str, &str, &str, Vec<&str>); 7] = [
        ("/proc", "proc", "proc", nothing.to_vec()),
        (
            "/dev",
            "tmpfs",
            "tmpfs",
            vec!["nosuid", "strictatime", "mode=755", "size=65536k"],
        ),
        (
            "/dev/pts",
            "devpts",
            "devpts",
            vec![
                "nosuid",
                "noexec",
                "newinstance",
                "ptmxmode=0666",
                "mode=0620",
                "gid=5",
            ],
        ),
        (
            "/sys",
            "sysfs",
            "sysfs",
            [nothing.as_slice(), unless(access.privileged)].concat(),
        ),
        (
            "/sys/fs/cgroup",
            "cgroup",
            "cgroup",
            [nothing.as_slice(), unless(access.manages_cgroups)].concat(),
        ),
        ("/dev/mqueue", "mqueue", "mqueue", nothing.to_vec()),
        (
            "/dev/shm",
            "tmpfs",
            "shm",
            [nothing.as_slice(), &["mode=1777", &shm]].concat(),
        ),
    ];
    let mut asked = Vec::with_capacity(setup.tmpfs.len());
    // What lies in files from outside comes behind those.
    for tmpfs in setup.tmpfs.iter().filter(|one| !is_inner(bundle, one)) {
        let options = tmpfs_options(tmpfs, root)?;
        let path = root.resolve(Path::new(&tmpfs.path));
        let path = path.map_err(|e| SpecError::TmpfsPath(tmpfs.path.clone(), e))?;
        asked.push(mount(&path, "tmpfs", "tmpfs", options)?);
    }
    let mut mounts = Vec::with_capacity(table.len() + asked.len());
    for (destination, kind, source, options) in table {
        let destination = Path::new(destination);
        if !asked.iter().any(|mount| mount.destination() == destination) {
            let options = options.into_iter().map(str::to_owned).collect();
            mounts.push(mount(destination, kind, source, options)?);
        }
    }
    mounts.extend(asked);
    Ok(mounts)
}

fn mount(
    destination: &Path,
    kind: &str,
    source: &str,
    options: Vec<String>,
) -> Result<Mount, OciSpecError> {
    MountBuilder::default()
        .destination(destination)
        .typ(kind)
        .source(PathBuf::from(source))
        .options(options)
        .build()
}

/// Docker's defaults for `--tmpfs`, which the user's options come after and so override. The
/// mode is that of the directory which is covered, if there is one.
fn tmpfs_options(tmpfs: &TmpfsMount, root: Root<'_>) -> Result<Vec<String>, SpecError> {
    if !tmpfs.path.starts_with('/') {
        return Err(SpecError::RelativeTmpfs(tmpfs.path.clone()));
    }
    let mut options: Vec<String> = ["nosuid", "nodev", "noexec"].map(str::to_owned).to_vec();
    let covered = root
        .find(Path::new(&tmpfs.path))
        .and_then(|found| rustix::fs::fstat(&found));
    if let Ok(stat) = covered {
        options.push(format!("mode={:o}", stat.st_mode & 0o7777));
    }
    for option in tmpfs.options.split(',').filter(|option| !option.is_empty()) {
        let known = match option.split_once('=') {
            Some((name, value)) => TmpfsMount::OWN_OPTIONS.contains(&name) && !value.is_empty(),
            None => TmpfsMount::FLAGS.contains(&option),
        };
        if !known {
            return Err(SpecError::TmpfsOption(option.to_owned()));
        }
        options.push(option.to_owned());
    }
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hullbox_protocol::{ProcessSpec, Setup};
    use rustix::fd::AsFd;

    fn bundle(setup: Setup) -> Bundle {
        Bundle {
            id: "0123".into(),
            isolation: hullbox_model::isolation::Isolation::Container,
            dir: "/nowhere".into(),
            runtime_dir: "/nowhere".into(),
            layers: Vec::new(),
            setup,
            mounts: Vec::new(),
            devices: Vec::new(),
            process: ProcessSpec::default(),
            vcpus: 1,
            memory_mib: 0,
            disk_bytes: None,
            serial_log: None,
            network: Default::default(),
        }
    }

    fn built(setup: Setup) -> Spec {
        let dir =
            rustix::fs::open("/", rustix::fs::OFlags::PATH, rustix::fs::Mode::empty()).unwrap();
        build(
            &bundle(setup),
            Path::new("/root"),
            Root::new(dir.as_fd()),
            &[],
        )
        .unwrap()
    }

    #[test]
    fn a_tmpfs_takes_the_place_of_a_default_mount() {
        let tmpfs = |path: &str, options: &str| TmpfsMount {
            path: path.into(),
            options: options.into(),
        };
        let spec = built(Setup {
            tmpfs: vec![tmpfs("/dev/shm/", "size=1m,exec"), tmpfs("/no/such", "")],
            ..Setup::default()
        });
        let mounts = spec.mounts().as_ref().unwrap();
        let shm: Vec<_> = mounts
            .iter()
            .filter(|m| m.destination() == Path::new("/dev/shm"))
            .collect();
        assert_eq!(shm.len(), 1);
        let options = shm[0].options().as_ref().unwrap();
        assert!(
            options.ends_with(&["size=1m".into(), "exec".into()]),
            "{options:?}"
        );
        let other = mounts.last().unwrap().options().as_ref().unwrap();
        assert_eq!(other, &["nosuid", "nodev", "noexec"]);
    }

    #[test]
    fn a_network_namespace_is_made_by_the_runtime_or_by_none() {
        let described = |network: Network| {
            let mut bundle = bundle(Setup {
                sysctls: vec![
                    ("net.ipv4.ip_forward".into(), "1".into()),
                    ("kernel.shmmax".into(), "4096".into()),
                ],
                ..Setup::default()
            });
            bundle.network = network;
            let dir = rustix::fs::open("/", rustix::fs::OFlags::PATH, rustix::fs::Mode::empty());
            let dir = dir.unwrap();
            let spec = build(&bundle, Path::new("/root"), Root::new(dir.as_fd()), &[]).unwrap();
            let linux = spec.linux().clone().unwrap();
            let kinds = linux.namespaces().clone().unwrap();
            let kinds: Vec<_> = kinds.iter().map(LinuxNamespace::typ).collect();
            let sysctls = linux.sysctl().clone().unwrap();
            let network = sysctls.keys().any(|name| name.starts_with("net."));
            assert_eq!(sysctls["kernel.shmmax"], "4096");
            (kinds.contains(&LinuxNamespaceType::Network), network)
        };
        assert_eq!(described(Network::None), (true, true));
        for network in [
            Network::Host,
            Network::Container("0123".into()),
            Network::User(Default::default()),
        ] {
            assert_eq!(described(network), (false, false));
        }
    }

    #[test]
    fn nothing_secret_is_in_the_specification() {
        let mut bundle = bundle(Setup::default());
        bundle.process.env = vec![b"SECRET=hunter2".to_vec()];
        bundle.process.argv = vec![b"hunter2".to_vec()];
        let dir =
            rustix::fs::open("/", rustix::fs::OFlags::PATH, rustix::fs::Mode::empty()).unwrap();
        let spec = build(&bundle, Path::new("/root"), Root::new(dir.as_fd()), &[]).unwrap();
        assert!(!serde_json::to_string(&spec).unwrap().contains("hunter2"));
    }
}
