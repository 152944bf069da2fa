//! What the user wants of the helper machine: a configuration file, and the environment over it.

use hullbox_host::config::{self, File, FileError};
use serde::Deserialize;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

/// Environment variable of the policy.
pub const POLICY_VARIABLE: &str = "HULLBOX_MACHINE";

/// When commands go to the helper machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Policy {
    /// When this host's KVM cannot run a guest.
    #[default]
    Auto,
    /// Whatever KVM can do.
    Always,
    /// Not at all.
    Never,
}

/// The machine's settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MachineConfig {
    /// When it is used.
    pub policy: Policy,
    /// Its memory, in MiB, where that is set: see [`Self::memory_mib`].
    pub(crate) memory_mib: Option<u32>,
    /// Its virtual CPUs, where that is set: see [`Self::cpus`].
    pub(crate) cpus: Option<u8>,
    /// Seconds without work until it stops; 0 is never.
    pub idle_s: u64,
    /// How long it may be silent while it starts, in seconds, before it is started once more.
    pub start_s: u64,
    /// Size of its sparse data disk when that is made, in GiB.
    pub disk_gib: u32,
    /// Files and directories of the host that are written through.
    pub volumes: Vec<PathBuf>,
    /// A directory with `boot/vmlinuz-*` and `lib/modules` to take the kernel from.
    pub kernel_dir: Option<PathBuf>,
    /// The QEMU program, where it is not the one in PATH.
    pub qemu: Option<PathBuf>,
}

/// Why settings cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The configuration file.
    #[error(transparent)]
    File(#[from] FileError),
    /// The environment says something unknown.
    #[error("{POLICY_VARIABLE} is `{0}`; it can be never, auto or always")]
    Policy(String),
    /// A number out of range.
    #[error("machine.{key} is {value}; it must be between {least} and {most}")]
    Range {
        /// Its key.
        key: &'static str,
        /// Its value.
        value: u64,
        /// The least that is possible.
        least: u64,
        /// The most.
        most: u64,
    },
    /// A path that is not absolute and plain.
    #[error("machine.{key} is {}; it must be an absolute path without `..`", path.display())]
    Path {
        /// Its key.
        key: &'static str,
        /// Its value.
        path: PathBuf,
    },
}

/// What the configuration file says about the machine.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Section {
    policy: Option<Policy>,
    memory_mib: Option<u32>,
    cpus: Option<u8>,
    idle_s: Option<u64>,
    start_s: Option<u64>,
    disk_gib: Option<u32>,
    volumes: Vec<PathBuf>,
    kernel_dir: Option<PathBuf>,
    qemu: Option<PathBuf>,
}

impl MachineConfig {
    /// Reads the user's configuration file, else the system's, and the environment over it.
    ///
    /// # Errors
    /// [`ConfigError`]; a file that is not there is none.
    pub fn load() -> Result<Self, ConfigError> {
        Self::load_with(config::file()?, config::variable(POLICY_VARIABLE))
    }

    fn load_with(file: &File, policy: Option<OsString>) -> Result<Self, ConfigError> {
        let mut config = Self::from_section(file.table("machine")?)?;
        if let Some(value) = policy {
            config.policy = parse_policy(&value)?;
        }
        Ok(config)
    }

    fn from_section(section: Section) -> Result<Self, ConfigError> {
        let config = Self {
            policy: section.policy.unwrap_or_default(),
            memory_mib: section.memory_mib,
            cpus: section.cpus,
            idle_s: section.idle_s.unwrap_or(15 * 60),
            start_s: section.start_s.unwrap_or(120),
            disk_gib: section.disk_gib.unwrap_or(64),
            volumes: section.volumes,
            kernel_dir: section.kernel_dir,
            qemu: section.qemu,
        };
        let range = |key, value: u64, least, most| {
            if (least..=most).contains(&value) {
                return Ok(());
            }
            Err(ConfigError::Range {
                key,
                value,
                least,
                most,
            })
        };
        if let Some(memory_mib) = config.memory_mib {
            range("memory_mib", memory_mib.into(), 512, 1024 * 1024)?;
        }
        if let Some(cpus) = config.cpus {
            range("cpus", cpus.into(), 1, 64)?;
        }
        range("disk_gib", config.disk_gib.into(), 1, 16 * 1024)?;
        let plain = |key, path: &Path| {
            let dots = path
                .components()
                .any(|part| part == std::path::Component::ParentDir);
            if path.is_absolute() && !dots {
                return Ok(());
            }
            Err(ConfigError::Path {
                key,
                path: path.to_owned(),
            })
        };
        for volume in &config.volumes {
            plain("volumes", volume)?;
        }
        if let Some(dir) = &config.kernel_dir {
            plain("kernel_dir", dir)?;
        }
        if let Some(program) = &config.qemu {
            plain("qemu", program)?;
        }
        Ok(config)
    }

    /// Its memory, in MiB. Without a setting the host is asked, which most commands need not do.
    #[must_use]
    pub fn memory_mib(&self) -> u32 {
        self.memory_mib.unwrap_or_else(default_memory_mib)
    }

    /// Its virtual CPUs: as many as the host has, up to eight, without a setting.
    #[must_use]
    pub fn cpus(&self) -> u8 {
        self.cpus.unwrap_or_else(|| {
            std::thread::available_parallelism()
                .map_or(1, |count| u8::try_from(count.get()).unwrap_or(u8::MAX))
                .min(8)
        })
    }
}

fn parse_policy(value: &std::ffi::OsStr) -> Result<Policy, ConfigError> {
    match value.to_str() {
        Some("never") => Ok(Policy::Never),
        Some("auto") => Ok(Policy::Auto),
        Some("always") => Ok(Policy::Always),
        _ => Err(ConfigError::Policy(value.to_string_lossy().into_owned())),
    }
}

/// An eighth of the host's memory, between 2 and 8 GiB: it is taken only as the machine uses it.
fn default_memory_mib() -> u32 {
    let total_mib = fs::read_to_string("/proc/meminfo")
        .ok()
        .and_then(|text| {
            let line = text.lines().find(|line| line.starts_with("MemTotal:"))?;
            let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
            u32::try_from(kib / 1024).ok()
        })
        .unwrap_or(0);
    (total_mib / 8).clamp(2048, 8192)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str, policy: Option<&str>) -> Result<MachineConfig, ConfigError> {
        let file = File::new("/c".into(), text.to_owned());
        MachineConfig::load_with(&file, policy.map(OsString::from))
    }

    #[test]
    fn the_file_sets_and_the_environment_overrides() {
        let text = "[machine]\npolicy = \"never\"\nmemory_mib = 1024\ncpus = 3\nidle_s = 5\n\
                    volumes = [\"/srv/a\"]\n[other]\nkey = 1\n";
        let config = load(text, None).unwrap();
        assert_eq!(config.policy, Policy::Never);
        assert_eq!(
            (config.memory_mib(), config.cpus(), config.idle_s),
            (1024, 3, 5)
        );
        assert_eq!(config.volumes, [PathBuf::from("/srv/a")]);
        assert_eq!(load(text, Some("always")).unwrap().policy, Policy::Always);
        let defaults = load("", None).unwrap();
        assert_eq!(defaults.policy, Policy::Auto);
        assert!(defaults.memory_mib() >= 2048 && defaults.cpus() >= 1);
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(matches!(
            load("[machine]\ncpuz = 1\n", None),
            Err(ConfigError::File(FileError::Parse { .. }))
        ));
        assert!(matches!(
            load("[machine]\nmemory_mib = 1\n", None),
            Err(ConfigError::Range { .. })
        ));
        assert!(matches!(
            load("[machine]\nvolumes = [\"a/../b\"]\n", None),
            Err(ConfigError::Path { .. })
        ));
        assert!(matches!(
            load("", Some("sometimes")),
            Err(ConfigError::Policy(_))
        ));
    }
}
