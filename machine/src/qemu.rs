//! The emulator: which one there is, and what its version can and cannot do.

use super::plan::find_program;
use super::version::compare;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const PROGRAM: &str = "qemu-system-x86_64";
/// From here on the emulated SVM and `cmpxchg16b` are sound enough for every kernel that was tried.
const SOUND: &str = "10";
/// QEMU 7.2 makes Linux 6.12 panic while it starts, at a `cmpxchg16b` in the slab allocator, which
/// came with 6.2.
const FIRST_TOO_NEW: &str = "6.2";

/// Why there is no QEMU to use.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QemuError {
    /// It is missing.
    #[error("QEMU was not found; install the package qemu-system-x86")]
    NotFound,
    /// What should be QEMU does not run.
    #[error("{} does not say which version of QEMU it is", .0.display())]
    NotQemu(PathBuf),
}

/// A QEMU for x86-64.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Qemu {
    /// The program.
    pub program: PathBuf,
    /// Its version, as far as it told one.
    pub version: String,
}

impl Qemu {
    /// The one that the settings name, else the one in PATH.
    ///
    /// # Errors
    /// [`QemuError::NotFound`]; [`QemuError::NotQemu`] of a program that the settings name.
    pub fn find(named: Option<&Path>) -> Result<Self, QemuError> {
        let program = match named {
            Some(path) => path.to_owned(),
            None => find_program(PROGRAM, &[]).ok_or(QemuError::NotFound)?,
        };
        let output = Command::new(&program)
            .arg("--version")
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .output()
            .ok()
            .filter(|output| output.status.success())
            .ok_or_else(|| QemuError::NotQemu(program.clone()))?;
        let version = parse(&String::from_utf8_lossy(&output.stdout));
        Ok(Self { program, version })
    }

    /// Whether a kernel of this release runs on its emulated processor.
    #[must_use]
    pub fn runs(&self, release: &str) -> bool {
        compare(&self.version, SOUND).is_ge() || compare(release, FIRST_TOO_NEW).is_lt()
    }

    /// The processor that it emulates: one with SVM.
    ///
    /// Without `erms` kernels copy and clear memory eight bytes at a time; with it they trust the CPU to
    /// be fast at single bytes, which an emulated one is not: a third of a guest kernel's start went there.
    /// Without `la57` page tables have four levels, not five, and each walk is shorter.
    ///
    /// With QEMU 10's `max` Linux 6.1 hangs while it starts, and 6.12 too unless `la57` is off. Both start
    /// on a model of a real processor.
    #[must_use]
    pub fn cpu(&self) -> &'static str {
        if compare(&self.version, SOUND).is_ge() {
            "EPYC-Rome,-erms"
        } else {
            "max,-erms,-la57"
        }
    }
}

/// `QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)`: an unknown version is an old one.
fn parse(text: &str) -> String {
    text.split_once("version ")
        .and_then(|(_, rest)| rest.split_whitespace().next())
        .unwrap_or_default()
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Qemu {
        Qemu {
            program: "/q".into(),
            version: parse(text),
        }
    }

    #[test]
    fn old_emulators_get_old_kernels() {
        let old = of("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3)\nCopyright");
        assert_eq!(old.version, "7.2.22");
        assert!(old.runs("6.1.0-49-cloud-amd64") && !old.runs("6.12.95+deb12-cloud-amd64"));
        let new = of("QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2+deb13u1~bpo12+1)\n");
        assert!(new.runs("6.1.0-49-cloud-amd64") && new.runs("6.12.95+deb12-cloud-amd64"));
        assert!(!of("what?").runs("6.2.0"));
        assert!(old.cpu().starts_with("max,") && new.cpu().starts_with("EPYC-Rome,"));
    }
}
