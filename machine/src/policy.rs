//! Whether a command runs here or in the helper machine.

use super::config::{MachineConfig, Policy};
use hullbox_host::paths::{Roots, ensure_private_dir};
use hullbox_vmm::probe::{Verdict, probe};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

const KVM: &str = "/dev/kvm";

/// Where a command should run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// Here.
    Direct,
    /// In the helper machine; with the reason, when it was not simply asked for.
    Machine(Option<String>),
}

/// Whether KVM can run a kernel here, and in words why or why not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KvmVerdict {
    /// It can.
    pub usable: bool,
    /// In words, without a full stop.
    pub explanation: String,
}

/// A verdict, and what it is true of.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Remembered {
    boot_id: String,
    kernel: String,
    version: String,
    device: (u64, u64),
    verdict: KvmVerdict,
}

/// Decides by policy and, where that is `auto`, by what KVM can do.
#[must_use]
pub fn route(config: &MachineConfig, roots: &Roots) -> Route {
    match config.policy {
        Policy::Never => Route::Direct,
        Policy::Always => Route::Machine(None),
        Policy::Auto => {
            let verdict = kvm_verdict(roots);
            if verdict.usable {
                Route::Direct
            } else {
                Route::Machine(Some(verdict.explanation))
            }
        }
    }
}

/// What the probe says of this host's KVM. It is asked once for each boot and kernel, and its
/// answer kept in the runtime directory, so that no start waits for it again.
#[must_use]
pub fn kvm_verdict(roots: &Roots) -> KvmVerdict {
    // Changes with a chmod and costs nothing to find out, so this is never remembered.
    if let Err(error) = File::options().read(true).write(true).open(KVM) {
        return KvmVerdict {
            usable: false,
            explanation: match error.kind() {
                std::io::ErrorKind::NotFound => "there is no /dev/kvm".to_owned(),
                std::io::ErrorKind::PermissionDenied => {
                    "/dev/kvm may not be opened by this user".to_owned()
                }
                _ => format!("/dev/kvm cannot be opened ({error})"),
            },
        };
    }
    let path = roots.runtime.join("kvm.json");
    let circumstances = Circumstances::now();
    if let (Some(now), Some(remembered)) = (&circumstances, recall(&path))
        && now.fits(&remembered)
    {
        return remembered.verdict;
    }
    let report = probe();
    let verdict = KvmVerdict {
        usable: report.verdict == Verdict::Usable,
        explanation: report.explain(),
    };
    if let Some(now) = circumstances
        && ensure_private_dir(&roots.runtime).is_ok()
    {
        remember(&path, &now.with(verdict.clone()));
    }
    verdict
}

fn recall(path: &Path) -> Option<Remembered> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

/// Best effort: whoever cannot remember asks again.
fn remember(path: &Path, what: &Remembered) {
    let staged: PathBuf = path.with_extension(format!("new-{}", std::process::id()));
    let written = serde_json::to_vec(what)
        .ok()
        .and_then(|bytes| fs::write(&staged, bytes).ok())
        .and_then(|()| fs::rename(&staged, path).ok());
    if written.is_none() {
        let _ = fs::remove_file(staged);
    }
}

/// What a verdict holds for: this boot, this kernel, this device, this program.
struct Circumstances {
    boot_id: String,
    kernel: String,
    device: (u64, u64),
}

impl Circumstances {
    fn now() -> Option<Self> {
        let line = |path: &str| {
            fs::read_to_string(path)
                .ok()
                .map(|text| text.trim().to_owned())
        };
        let device = fs::metadata(KVM).ok()?;
        Some(Self {
            boot_id: line("/proc/sys/kernel/random/boot_id")?,
            kernel: line("/proc/sys/kernel/osrelease")?,
            // A reloaded module makes a new node.
            device: (device.rdev(), device.ino()),
        })
    }

    fn fits(&self, remembered: &Remembered) -> bool {
        self.boot_id == remembered.boot_id
            && self.kernel == remembered.kernel
            && self.device == remembered.device
            && remembered.version == env!("CARGO_PKG_VERSION")
    }

    fn with(self, verdict: KvmVerdict) -> Remembered {
        Remembered {
            boot_id: self.boot_id,
            kernel: self.kernel,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            device: self.device,
            verdict,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_is_remembered_for_its_circumstances_only() {
        let dir = std::env::temp_dir().join(format!("hullbox-policy-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let path = dir.join("kvm.json");
        let make = |boot: &str| Circumstances {
            boot_id: boot.into(),
            kernel: "6.1".into(),
            device: (1, 2),
        };
        let verdict = KvmVerdict {
            usable: false,
            explanation: "no".into(),
        };
        remember(&path, &make("a").with(verdict.clone()));
        let recalled = recall(&path).unwrap();
        assert_eq!(recalled.verdict, verdict);
        assert!(make("a").fits(&recalled));
        assert!(!make("b").fits(&recalled));
        fs::write(&path, "{").unwrap();
        assert!(recall(&path).is_none());
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn the_policy_decides_first() {
        let roots = Roots {
            data: "/nonexistent/d".into(),
            runtime: "/nonexistent/r".into(),
        };
        let config = |policy| MachineConfig {
            policy,
            memory_mib: None,
            cpus: None,
            idle_s: 1,
            start_s: 1,
            disk_gib: 1,
            volumes: Vec::new(),
            kernel_dir: None,
            qemu: None,
        };
        assert_eq!(route(&config(Policy::Never), &roots), Route::Direct);
        assert_eq!(route(&config(Policy::Always), &roots), Route::Machine(None));
    }
}
