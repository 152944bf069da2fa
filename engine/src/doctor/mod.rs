//! What this host offers, what it lacks, and what helps.
//!
//! Every check is real where that is cheap: KVM is asked to run a guest, not looked up in a list.

mod check;
mod host;
mod machine;
mod network;

pub use check::{Check, Status};

use crate::machine::{Machine, MachineConfig, Policy};
use crate::paths::Roots;
use serde::Serialize;
use std::fmt::Write as _;

/// How an isolation mode can be had here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Available {
    /// On this host's own kernel.
    Directly,
    /// In the helper machine.
    Machine,
    /// Not until something is remedied.
    No,
}

/// The whole answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// `--isolation=vm`.
    pub vm: Available,
    /// `--isolation=container`.
    pub container: Available,
    /// Speed of guest kernel code, in instructions a second, if KVM could be asked.
    pub kvm_instructions_per_s: Option<u64>,
    /// All checks.
    pub checks: Vec<Check>,
}

impl Report {
    /// Whether both isolation modes can be had, one way or another.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.vm != Available::No && self.container != Available::No
    }

    /// For people: a line for each check, its remedy below it, and the sum of it.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        for check in &self.checks {
            let mark = match check.status {
                Status::Ok => "ok  ",
                Status::Warn => "warn",
                Status::Fail => "FAIL",
            };
            let _ = writeln!(text, "{mark}  {:<15} {}", check.id, check.found);
            if let Some(remedy) = &check.remedy {
                let _ = writeln!(text, "{:22}remedy: {remedy}", "");
            }
        }
        for (mode, available) in [("vm", self.vm), ("container", self.container)] {
            let how = match available {
                Available::Directly => "on this host's own kernel",
                Available::Machine => "in the helper machine, by itself",
                Available::No => "not available: see the remedies above",
            };
            let _ = writeln!(text, "--isolation={mode:<10} {how}");
        }
        text
    }
}

/// Looks at everything.
#[must_use]
pub fn examine(roots: &Roots, config: &MachineConfig) -> Report {
    let (kvm, speed) = host::kvm();
    let mut checks = vec![kvm, host::privileges()];
    checks.extend(host::artifacts());
    checks.push(host::cgroups());
    checks.push(host::namespaces());
    checks.extend(host::kernel_features());
    checks.push(host::vsock());
    checks.extend(network::checks());
    let helper = Machine::new(roots);
    checks.extend(machine::tools(config));
    checks.push(machine::kernel(config));
    checks.push(machine::state(&helper, config));

    let fine = |ids: &[&str]| {
        checks
            .iter()
            .filter(|check| ids.contains(&check.id))
            .all(|check| check.status != Status::Fail)
    };
    let through_machine = config.policy != Policy::Never
        && fine(&["guest-kernel", "qemu", "mke2fs", "machine-kernel"]);
    let available = |directly| match (directly, through_machine) {
        (true, _) => Available::Directly,
        (false, true) => Available::Machine,
        (false, false) => Available::No,
    };
    Report {
        vm: available(fine(&["kvm", "guest-kernel"])),
        container: available(
            fine(&["cgroups", "namespaces", "loop", "erofs", "overlay"])
                && rustix::process::geteuid().is_root(),
        ),
        kvm_instructions_per_s: speed,
        checks,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_complete_and_serialises() {
        let dir = std::env::temp_dir().join(format!("hullbox-doctor-{}", std::process::id()));
        let roots = Roots {
            data: dir.join("data"),
            runtime: dir.join("run"),
        };
        let config = MachineConfig::load().unwrap();
        let report = examine(&roots, &config);
        for check in &report.checks {
            assert!(!check.found.is_empty(), "{check:?}");
            assert_eq!(
                check.remedy.is_none(),
                check.status == Status::Ok,
                "{check:?}"
            );
        }
        let mut ids: Vec<_> = report.checks.iter().map(|check| check.id).collect();
        let count = ids.len();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), count, "ids are unique");
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["checks"][0]["id"], "kvm");
        assert!(!dir.exists(), "looking changes nothing");
    }
}
