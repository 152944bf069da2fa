//! What the host's own kernel offers.

use super::check::Check;
use crate::artifacts::{Artifact, is_available};
use crate::machine::ModuleTree;
use hullbox_vmm::probe::{Verdict, probe};
use rustix::fs::statfs;
use std::fs;
use std::path::Path;

/// `CGROUP2_SUPER_MAGIC` of Linux.
const CGROUP2_MAGIC: i64 = 0x6367_7270;

/// Whether KVM runs guest kernel code, and how fast.
pub(super) fn kvm() -> (Check, Option<u64>) {
    const MACHINE: &str = "VM mode goes through the helper machine meanwhile";
    let report = probe();
    let mut found = report.explain();
    let check = match report.verdict {
        Verdict::Usable => {
            if let Some(speed) = report.instructions_per_s {
                found.push_str(&format!(
                    " at {} million instructions a second",
                    speed / 1_000_000
                ));
            }
            Check::ok("kvm", found)
        }
        Verdict::Missing => Check::fail(
            "kvm",
            found,
            format!(
                "enable virtualisation (VT-x or AMD-V) in the firmware, or nested virtualisation \
                 in the hypervisor, and load kvm-intel or kvm-amd; {MACHINE}"
            ),
        ),
        Verdict::Forbidden => Check::fail(
            "kvm",
            found,
            "add the user to the group that owns /dev/kvm: `sudo usermod -aG kvm $USER`, then log in again",
        ),
        Verdict::Incapable => Check::fail(
            "kvm",
            found,
            format!("use a host whose hypervisor offers nested virtualisation; {MACHINE}"),
        ),
        _ => Check::fail(
            "kvm",
            found,
            format!("look at the kernel's log (dmesg) for messages of kvm; {MACHINE}"),
        ),
    };
    (check, report.instructions_per_s)
}

pub(super) fn privileges() -> Check {
    if rustix::process::geteuid().is_root() {
        Check::ok("privileges", "running as root")
    } else {
        Check::warn(
            "privileges",
            "running as an ordinary user",
            "VM mode on a working /dev/kvm needs no more; container mode and the helper machine need root",
        )
    }
}

/// What a whole build carries.
pub(super) fn artifacts() -> [Check; 2] {
    let check = |artifact: Artifact, id, name: &str| {
        if is_available(artifact) {
            Check::ok(id, format!("{name} is there"))
        } else {
            Check::fail(
                id,
                format!("this build carries no {name}"),
                format!("run make build, or set {}", artifact.variable()),
            )
        }
    };
    [
        check(Artifact::Kernel, "guest-kernel", "guest kernel"),
        check(Artifact::Initramfs, "guest-agent", "guest agent"),
    ]
}

pub(super) fn cgroups() -> Check {
    const REMEDY: &str = "boot with systemd.unified_cgroup_hierarchy=1 for cgroup v2; \
                          until then limits in container mode may not hold";
    let is_v2 = |path: &str| {
        #[expect(
            clippy::useless_conversion,
            reason = "its width differs between architectures"
        )]
        statfs(path).is_ok_and(|info| i64::from(info.f_type) == CGROUP2_MAGIC)
    };
    if is_v2("/sys/fs/cgroup") {
        let controllers =
            fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap_or_default();
        let missing: Vec<_> = ["cpu", "memory", "pids"]
            .into_iter()
            .filter(|name| !controllers.split_whitespace().any(|has| has == *name))
            .collect();
        if missing.is_empty() {
            return Check::ok("cgroups", "cgroup v2");
        }
        return Check::warn(
            "cgroups",
            format!("cgroup v2 without the controllers {}", missing.join(", ")),
            "boot a kernel with these controllers, not disabled on its command line",
        );
    }
    let found = if is_v2("/sys/fs/cgroup/unified") {
        "cgroup v1 and v2 side by side (hybrid)"
    } else if Path::new("/sys/fs/cgroup/memory").is_dir() {
        "cgroup v1"
    } else {
        "no cgroups"
    };
    Check::warn("cgroups", found, REMEDY)
}

pub(super) fn namespaces() -> Check {
    let missing: Vec<_> = ["mnt", "pid", "net", "ipc", "uts", "cgroup", "user"]
        .into_iter()
        .filter(|name| !Path::new("/proc/self/ns").join(name).exists())
        .collect();
    if missing.is_empty() {
        return Check::ok("namespaces", "all kinds");
    }
    let found = format!(
        "the kernel has no namespaces of kind {}",
        missing.join(", ")
    );
    let remedy = "boot a kernel with CONFIG_NAMESPACES and all its kinds";
    if missing == ["user"] {
        Check::warn("namespaces", found, remedy)
    } else {
        Check::fail("namespaces", found, remedy)
    }
}

/// What container mode mounts with, and what shares files.
pub(super) fn kernel_features() -> Vec<Check> {
    let filesystems = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    let release = rustix::system::uname()
        .release()
        .to_string_lossy()
        .into_owned();
    let modules = ModuleTree::open(&Path::new("/lib/modules").join(&release)).ok();
    let loadable = |name: &str| modules.as_ref().is_some_and(|tree| tree.has(name));
    let present = |name: &str| {
        filesystems
            .lines()
            .any(|line| line.split_whitespace().last() == Some(name))
    };
    let feature = |id, name: &str, there: bool, need: &str| {
        if there {
            Check::ok(id, "in the kernel")
        } else if loadable(name) {
            Check::ok(id, "a module that loads when needed")
        } else {
            Check::warn(
                id,
                format!("the kernel {release} does not have it"),
                format!("boot a kernel with {name}; {need}"),
            )
        }
    };
    let container = "container mode goes through the helper machine meanwhile";
    let mut checks: Vec<Check> = [("erofs", "erofs"), ("overlay", "overlay")]
        .into_iter()
        .map(|(id, name)| required(feature(id, name, present(name), container)))
        .collect();
    checks.push(required(feature(
        "loop",
        "loop",
        Path::new("/dev/loop-control").exists(),
        container,
    )));
    checks.push(Check::ok(
        "virtiofs",
        if present("virtiofs") || loadable("virtiofs") {
            "in the kernel"
        } else {
            "not in this kernel; only the helper machine's own kernel needs it"
        },
    ));
    checks
}

/// A lack that closes container mode on this kernel.
fn required(check: Check) -> Check {
    Check {
        status: match check.status {
            super::check::Status::Warn => super::check::Status::Fail,
            other => other,
        },
        ..check
    }
}

/// Guests' streams travel over vsock, but its host side is our own.
pub(super) fn vsock() -> Check {
    Check::ok(
        "vsock",
        "served by hullbox itself; the kernel's vhost-vsock is not needed",
    )
}
