//! The machine's initramfs: the guest agent, the kernel modules it loads, and its configuration.
//!
//! The layout is a contract with the agent; see `guest-agent/src/machine.rs`.

use super::cpio::CpioWriter;
use super::kernel::MachineKernel;
use super::modules::{ModuleError, ModuleTree};
use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// What the boot needs, and what containers use so soon that loading it late would only be slower.
const MODULES: [&str; 10] = [
    "virtio_pci",
    "virtio_blk",
    "virtiofs",
    "overlay",
    "vmw_vsock_virtio_transport",
    "ext4",
    "kvm-amd",
    "loop",
    "erofs",
    "tun",
];
/// Loaded when the kernel has them.
const OPTIONAL_MODULES: [&str; 1] = ["crc32c-intel"];

/// Where the agent comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AgentSource {
    /// A whole initramfs whose `/init` is the agent, uncompressed.
    Initramfs(PathBuf),
    /// The agent's program.
    Program(PathBuf),
}

/// What the agent is told (its contract explains each).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestConfig {
    /// Tag of the share with the host's root.
    pub root_tag: String,
    /// Host name.
    pub hostname: String,
    /// The modules' directory on the host.
    pub modules: PathBuf,
    /// Where the data disk is mounted.
    pub data: PathBuf,
    /// What is written through.
    pub volumes: Vec<PathBuf>,
    /// Seconds without work until power-off; 0 is never.
    pub idle_s: u64,
}

/// Why the initramfs cannot be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InitramfsError {
    /// The agent cannot be read.
    #[error("cannot read the guest agent from {}", path.display())]
    Agent {
        /// Where it should be.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The kernel's modules are not as they should be.
    #[error(transparent)]
    Modules(#[from] ModuleError),
    /// A path that the configuration cannot hold.
    #[error("the path {} contains a line break", .0.display())]
    LineBreak(PathBuf),
    /// The archive cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The archive.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Writes the archive for this kernel and configuration to `target`.
///
/// # Errors
/// [`InitramfsError`].
pub fn write(
    target: &Path,
    agent: &AgentSource,
    kernel: &MachineKernel,
    config: &GuestConfig,
) -> Result<(), InitramfsError> {
    let agent_path = match agent {
        AgentSource::Initramfs(path) | AgentSource::Program(path) => path,
    };
    let agent_bytes = fs::read(agent_path).map_err(|source| InitramfsError::Agent {
        path: agent_path.clone(),
        source,
    })?;
    let config = config.to_bytes()?;
    let tree = ModuleTree::open(&kernel.modules)?;
    let mut wanted = MODULES.to_vec();
    wanted.extend(OPTIONAL_MODULES.iter().filter(|name| tree.has(name)));
    let modules = tree.load_order(&wanted)?;

    let mut list = String::new();
    let mut archive = || -> io::Result<()> {
        let mut out = BufWriter::new(File::create(target)?);
        if let AgentSource::Initramfs(_) = agent {
            out.write_all(&agent_bytes)?;
            // Each archive starts at a multiple of four.
            out.write_all(&[0; 3][..agent_bytes.len().wrapping_neg() % 4])?;
        }
        let mut cpio = CpioWriter::new(out);
        if let AgentSource::Program(_) = agent {
            cpio.file("init", 0o755, &agent_bytes)?;
            // Opened by the kernel and by the Rust runtime before anything is mounted.
            cpio.directory("dev", 0o755)?;
            cpio.device("dev/console", 0o600, (5, 1))?;
            cpio.device("dev/null", 0o666, (1, 3))?;
        }
        cpio.directory("machine", 0o755)?;
        for module in &modules {
            let file = format!("{}.ko", module.name);
            cpio.file(&format!("machine/{file}"), 0o644, &module.bytes)?;
            let _ = writeln!(list, "{file}");
        }
        cpio.file("machine/modules", 0o644, list.as_bytes())?;
        cpio.file("machine/config", 0o644, &config)?;
        cpio.finish()?;
        Ok(())
    };
    archive().map_err(|source| InitramfsError::Write {
        path: target.to_owned(),
        source,
    })
}

impl GuestConfig {
    fn to_bytes(&self) -> Result<Vec<u8>, InitramfsError> {
        let mut lines: Vec<(&str, OsString)> = vec![
            ("root", self.root_tag.clone().into()),
            ("hostname", self.hostname.clone().into()),
            ("modules", self.modules.clone().into()),
        ];
        for volume in &self.volumes {
            lines.push(("volume", volume.clone().into()));
        }
        lines.push(("data", self.data.clone().into()));
        lines.push(("idle_s", self.idle_s.to_string().into()));
        let mut bytes = Vec::new();
        for (key, value) in lines {
            if value.as_bytes().contains(&b'\n') {
                return Err(InitramfsError::LineBreak(value.into()));
            }
            bytes.extend_from_slice(key.as_bytes());
            bytes.push(b'=');
            bytes.extend_from_slice(value.as_bytes());
            bytes.push(b'\n');
        }
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configuration_is_lines() {
        let mut config = GuestConfig {
            root_tag: "host".into(),
            hostname: "m".into(),
            modules: "/lib/modules/x".into(),
            data: "/var/lib/hullbox".into(),
            volumes: vec!["/srv/a b".into()],
            idle_s: 60,
        };
        assert_eq!(
            String::from_utf8(config.to_bytes().unwrap()).unwrap(),
            "root=host\nhostname=m\nmodules=/lib/modules/x\nvolume=/srv/a b\n\
             data=/var/lib/hullbox\nidle_s=60\n"
        );
        config.volumes = vec!["/srv/a\nroot=b".into()];
        assert!(matches!(
            config.to_bytes(),
            Err(InitramfsError::LineBreak(_))
        ));
    }
}
