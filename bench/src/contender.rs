//! The contenders, and the command line with which each runs, starts, enters and removes a container.

use crate::error::BenchError;
use crate::runner::Streams;
use crate::scratch::Scratch;
use crate::workload::{DRAIN, HELLO, HOLD, MEMORY_MIB, NETWORKED, PROBE};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A contender of ours. A further way to start a container is one more entry of [`OWN`].
struct Own {
    id: &'static str,
    label: &'static str,
    isolation: &'static str,
    flags: &'static [&'static str],
    origin: Origin,
}

/// What is prepared before anything is measured, and what its containers are restored from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// Nothing.
    Nothing,
    /// A template: a guest whose agent is ready.
    Template,
    /// A snapshot: a container whose program runs.
    Snapshot,
}

/// Without a network, as most is measured; and with one of its own, from which the gateway leads to the
/// host's loopback.
const WITHOUT_NETWORK: &str = "--network=none";
const WITH_NETWORK: &str = "--add-host=bench:host-gateway";

/// How a container reaches the server that its network is measured with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// Through a user-mode network, whose gateway is the host.
    HostGateway,
    /// Through a pair of devices, made for it.
    Veth,
}

/// What the program does when it is saved: its copies go on with that.
const SAVED: [&str; 2] = [HOLD, DRAIN];
const OWN: [Own; 4] = [
    Own {
        id: "vm",
        label: "VM, template",
        isolation: "vm",
        flags: &["--cpus=1"],
        origin: Origin::Template,
    },
    Own {
        id: "vm-clone",
        label: "VM, clone",
        isolation: "vm",
        flags: &["--cpus=1"],
        origin: Origin::Snapshot,
    },
    Own {
        id: "vm-cold",
        label: "VM, cold",
        isolation: "vm",
        flags: &["--cpus=1", "--cold"],
        origin: Origin::Nothing,
    },
    Own {
        id: "container",
        label: "container",
        isolation: "container",
        flags: &[],
        origin: Origin::Nothing,
    },
];

/// Another program that runs containers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// The C OCI runtime.
    Crun,
    /// The reference OCI runtime.
    Runc,
    /// A whole engine, with its own default OCI runtime.
    Podman,
}

impl Peer {
    /// All that are known.
    pub const ALL: [Self; 3] = [Self::Crun, Self::Runc, Self::Podman];

    /// The program's name.
    #[must_use]
    pub const fn program(self) -> &'static str {
        match self {
            Self::Crun => "crun",
            Self::Runc => "runc",
            Self::Podman => "podman",
        }
    }

    fn find(self) -> Option<PathBuf> {
        let path = std::env::var_os("PATH")?;
        std::env::split_paths(&path)
            .map(|dir| dir.join(self.program()))
            .find(|file| file.is_file())
    }
}

/// How one of our containers is isolated, as of `--isolation`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    /// A microVM.
    Vm,
    /// Namespaces.
    Container,
}

impl Isolation {
    const fn name(self) -> &'static str {
        match self {
            Self::Vm => "vm",
            Self::Container => "container",
        }
    }
}

/// A contender, as the report names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Named {
    /// For scripts; stays.
    pub id: String,
    /// For people.
    pub label: String,
    /// What the program prints as its version.
    pub version: String,
    /// The flags it was started with, where it is one of ours.
    pub flags: Vec<String>,
}

#[derive(Debug)]
enum Program {
    Hullbox(PathBuf),
    Oci(PathBuf),
    Podman(PathBuf),
}

/// A contender.
#[derive(Debug)]
pub(crate) struct Contender {
    pub(crate) named: Named,
    origin: Origin,
    program: Program,
}

/// The contenders: ours with these isolations (all if empty), and these peers (`None`: those that are
/// installed).
pub(crate) fn choose(
    hullbox: &Path,
    isolations: &[Isolation],
    peers: Option<&[Peer]>,
) -> Result<Vec<Contender>, BenchError> {
    let mut chosen: Vec<Contender> = OWN
        .iter()
        .filter(|own| {
            isolations.is_empty() || isolations.iter().any(|one| one.name() == own.isolation)
        })
        .map(|own| Contender {
            named: Named {
                id: own.id.to_owned(),
                label: own.label.to_owned(),
                version: format!("hullbox {}", env!("CARGO_PKG_VERSION")),
                flags: std::iter::once(format!("--isolation={}", own.isolation))
                    .chain(own.flags.iter().map(|&flag| flag.to_owned()))
                    // As the peers: what a network costs is measured apart.
                    .chain([
                        format!("--memory={MEMORY_MIB}m"),
                        WITHOUT_NETWORK.to_owned(),
                    ])
                    .collect(),
            },
            origin: own.origin,
            program: Program::Hullbox(hullbox.to_owned()),
        })
        .collect();
    for &peer in peers.unwrap_or(&Peer::ALL) {
        let Some(path) = peer.find() else {
            if peers.is_some() {
                return Err(BenchError::NoPeer(peer.program().to_owned()));
            }
            continue;
        };
        chosen.push(Contender::peer(peer, path));
    }
    Ok(chosen)
}

impl Contender {
    fn peer(peer: Peer, path: PathBuf) -> Self {
        let name = peer.program().to_owned();
        Self {
            named: Named {
                id: name.clone(),
                label: name,
                version: version(&path),
                flags: Vec::new(),
            },
            origin: Origin::Nothing,
            program: match peer {
                Peer::Crun | Peer::Runc => Program::Oci(path),
                Peer::Podman => Program::Podman(path),
            },
        }
    }

    /// Whether its containers are Hullbox's.
    pub(crate) const fn is_ours(&self) -> bool {
        matches!(self.program, Program::Hullbox(_))
    }

    /// Commands that prepare it, once, before any container is started.
    pub(crate) fn prepare(&self, scratch: &Scratch) -> Vec<Command> {
        let command = |args: &[&str]| {
            let mut command = self.base(scratch);
            command.args(args);
            command
        };
        match self.origin {
            Origin::Nothing => Vec::new(),
            Origin::Template => {
                let memory = format!("--memory={MEMORY_MIB}m");
                vec![command(&["template", "build", "--cpus=1", &memory])]
            }
            Origin::Snapshot => {
                let seed = scratch.container("seed");
                let saved = SAVED.iter().flat_map(|job| {
                    let mut run = command(&["run", "-d", "-i", "--log-driver=none"]);
                    run.args(&self.named.flags);
                    run.args(["--name", &seed, scratch.image(), PROBE, job]);
                    let save = command(&["snapshot", "create", &seed, job]);
                    [run, save, command(&["rm", "-f", &seed])]
                });
                saved.collect()
            }
        }
    }

    /// How its containers get a network, if that can be compared.
    pub(crate) const fn way(&self) -> Option<Way> {
        match self.program {
            Program::Hullbox(_) => Some(Way::HostGateway),
            Program::Oci(_) => Some(Way::Veth),
            // Its networks need a daemon's configuration.
            Program::Podman(_) => None,
        }
    }

    /// The flags of a container with a network.
    fn networked_flags(&self) -> impl Iterator<Item = &str> {
        let flags = self.named.flags.iter().map(String::as_str);
        flags.map(|flag| match flag {
            WITHOUT_NETWORK => WITH_NETWORK,
            flag => flag,
        })
    }

    /// Commands that prepare [`Self::start_networked`].
    pub(crate) fn prepare_networked(&self, scratch: &Scratch) -> Vec<Command> {
        if self.origin != Origin::Snapshot {
            return Vec::new();
        }
        let seed = scratch.container("seed");
        let command = |args: &[&str]| {
            let mut command = self.base(scratch);
            command.args(args);
            command
        };
        let mut run = command(&["run", "-d", "--log-driver=none"]);
        run.args(self.networked_flags());
        run.args(["--name", &seed, scratch.image(), PROBE, HOLD]);
        let save = command(&["snapshot", "create", &seed, NETWORKED]);
        vec![run, save, command(&["rm", "-f", &seed])]
    }

    /// As [`Self::start`], with a network.
    pub(crate) fn start_networked(&self, scratch: &Scratch, name: &str) -> Command {
        let mut command = self.base(scratch);
        match &self.program {
            Program::Hullbox(_) if self.origin == Origin::Snapshot => {
                command.args(["run", "-d", "--from-snapshot", NETWORKED, "--name", name]);
            }
            Program::Hullbox(_) => {
                command.args(["run", "-d"]).args(self.networked_flags());
                command.args(["--log-driver=none", "--name", name, scratch.image()]);
                command.args([PROBE, HOLD]);
            }
            Program::Oci(_) => {
                command.args(["run", "--detach", "--bundle"]);
                command.arg(scratch.bundle(NETWORKED)).arg(name);
            }
            // It has no [`Self::way`].
            Program::Podman(_) => return self.start(scratch, name),
        }
        command
    }

    /// What [`Self::run`] gets on standard input.
    pub(crate) const fn input(&self) -> Streams {
        match self.origin {
            Origin::Snapshot => Streams::Input(1),
            _ => Streams::Output,
        }
    }

    /// Runs the probe in a new container, which is removed when it exits.
    pub(crate) fn run(&self, scratch: &Scratch, name: &str) -> Command {
        let mut command = self.base(scratch);
        match &self.program {
            Program::Hullbox(_) if self.origin == Origin::Snapshot => {
                command.args(["run", "--rm", "-i", "--from-snapshot", DRAIN]);
                command.args(["--name", name]);
            }
            Program::Hullbox(_) => {
                command.args(["run", "--rm"]).args(&self.named.flags);
                command.args(["--name", name, scratch.image(), PROBE, HELLO]);
            }
            Program::Oci(_) => {
                command.arg("run").arg("--bundle");
                command.arg(scratch.bundle(HELLO)).arg(name);
            }
            Program::Podman(_) => {
                command.args(["run", "--rm"]).args(podman_flags(name));
                command.arg(scratch.rootfs()).args([PROBE, HELLO]);
            }
        }
        command
    }

    /// Starts a container in the background, whose first process waits.
    pub(crate) fn start(&self, scratch: &Scratch, name: &str) -> Command {
        let mut command = self.base(scratch);
        match &self.program {
            Program::Hullbox(_) if self.origin == Origin::Snapshot => {
                command.args(["run", "-d", "--from-snapshot", HOLD, "--name", name]);
            }
            Program::Hullbox(_) => {
                command.args(["run", "-d"]).args(&self.named.flags);
                command.args(["--log-driver=none", "--name", name, scratch.image()]);
                command.args([PROBE, HOLD]);
            }
            Program::Oci(_) => {
                command.args(["run", "--detach", "--bundle"]);
                command.arg(scratch.bundle(HOLD)).arg(name);
            }
            Program::Podman(_) => {
                command.args(["run", "-d"]).args(podman_flags(name));
                command.arg(scratch.rootfs()).args([PROBE, HOLD]);
            }
        }
        command
    }

    /// Runs the probe in a running container.
    pub(crate) fn exec(
        &self,
        scratch: &Scratch,
        name: &str,
        reads_input: bool,
        args: &[&str],
    ) -> Command {
        let mut command = self.base(scratch);
        command.arg("exec");
        // The OCI runtimes' exec has its standard input without being asked for it.
        if reads_input && !matches!(self.program, Program::Oci(_)) {
            command.arg("-i");
        }
        command.args([name, PROBE]).args(args);
        command
    }

    /// Ends a container and removes it.
    pub(crate) fn remove(&self, scratch: &Scratch, name: &str) -> Command {
        let mut command = self.base(scratch);
        match &self.program {
            Program::Hullbox(_) => command.args(["rm", "-f", name]),
            Program::Oci(_) => command.args(["delete", "-f", name]),
            Program::Podman(_) => command.args(["rm", "-f", "-t", "0", name]),
        };
        command
    }

    /// The program with its state in the scratch directory.
    fn base(&self, scratch: &Scratch) -> Command {
        match &self.program {
            Program::Hullbox(path) => scratch.hullbox(path),
            Program::Oci(path) => {
                let mut command = Command::new(path);
                command.arg("--root").arg(scratch.peer_dir(&self.named.id));
                command
            }
            Program::Podman(path) => {
                let mut command = Command::new(path);
                command.arg("--root").arg(scratch.peer_dir("podman"));
                for (flag, dir) in [("--runroot", "podman-run"), ("--tmpdir", "podman-tmp")] {
                    command.arg(flag).arg(scratch.peer_runtime(dir));
                }
                // Settings that need neither a daemon nor a journal.
                command.args([
                    "--storage-driver=vfs",
                    "--cgroup-manager=cgroupfs",
                    "--events-backend=none",
                ]);
                command
            }
        }
    }
}

fn podman_flags(name: &str) -> Vec<String> {
    vec![
        "--network=none".to_owned(),
        "--log-driver=none".to_owned(),
        format!("--memory={MEMORY_MIB}m"),
        format!("--name={name}"),
        "--rootfs".to_owned(),
    ]
}

/// The first line of a program's `--version`.
fn version(path: &Path) -> String {
    let said = Command::new(path).arg("--version").output();
    let text = said.map(|output| output.stdout).unwrap_or_default();
    let first = text.split(|byte| *byte == b'\n').next().unwrap_or(&[]);
    let line = crate::runner::one_line(first.get(..first.len().min(100)).unwrap_or(&[]));
    if line.is_empty() {
        "unknown".to_owned()
    } else {
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn isolations_and_peers_are_chosen() {
        let ids = |isolations: &[Isolation], peers: Option<&[Peer]>| -> Vec<String> {
            let chosen = choose(Path::new("/bin/hullbox"), isolations, peers).unwrap();
            chosen.into_iter().map(|one| one.named.id).collect()
        };
        assert_eq!(
            ids(&[], Some(&[])),
            ["vm", "vm-clone", "vm-cold", "container"]
        );
        assert_eq!(ids(&[Isolation::Container], Some(&[])), ["container"]);
        assert_eq!(
            ids(&[Isolation::Vm], Some(&[])),
            ["vm", "vm-clone", "vm-cold"]
        );
    }
}
