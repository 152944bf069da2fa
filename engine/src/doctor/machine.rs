//! What the helper machine needs, and how it is.

use super::check::Check;
use crate::machine::{
    Machine, MachineConfig, Policy, Qemu, find_kernel, find_program, kernel_cache,
};

/// The programs it is made of.
pub(super) fn tools(config: &MachineConfig) -> Vec<Check> {
    let qemu = match Qemu::find(config.qemu.as_deref()) {
        Ok(qemu) => Check::ok(
            "qemu",
            format!("{}: version {}", qemu.program.display(), qemu.version),
        ),
        Err(error) => Check::fail(
            "qemu",
            format!("{error}; the helper machine needs it"),
            match config.qemu {
                Some(_) => "correct machine.qemu",
                None => "install the package qemu-system-x86",
            },
        ),
    };
    let mke2fs = match find_program("mke2fs", &[]) {
        Some(path) => Check::ok("mke2fs", path.display().to_string()),
        None => Check::fail(
            "mke2fs",
            "mke2fs was not found; the helper machine needs it",
            "install the package e2fsprogs",
        ),
    };
    vec![qemu, mke2fs]
}

/// The machine's kernel.
pub(super) fn kernel(config: &MachineConfig) -> Check {
    const ID: &str = "machine-kernel";
    let Ok(qemu) = Qemu::find(config.qemu.as_deref()) else {
        return Check::warn(
            ID,
            "which kernel is right depends on QEMU",
            "install QEMU first",
        );
    };
    match find_kernel(config.kernel_dir.as_deref(), &kernel_cache(), &qemu) {
        Ok(Some(kernel)) => Check::ok(
            ID,
            format!("{} ({})", kernel.release, kernel.image.display()),
        ),
        Ok(None) if find_program("apt-get", &[]).is_some() => Check::ok(
            ID,
            "none yet; Debian's cloud kernel is fetched when the machine first starts",
        ),
        Ok(None) => Check::fail(
            ID,
            "no kernel with kvm-amd and virtio-fs is installed, and there is no apt to fetch one",
            "unpack Debian's package linux-image-cloud-amd64 and set machine.kernel_dir",
        ),
        Err(error) => Check::fail(ID, error.to_string(), "correct machine.kernel_dir"),
    }
}

/// The machine itself.
pub(super) fn state(machine: &Machine, config: &MachineConfig) -> Check {
    let policy = match config.policy {
        Policy::Auto => "used when KVM cannot serve",
        Policy::Always => "always used",
        Policy::Never => "never used",
    };
    let status = machine.status();
    let found = match (status.uptime_s, status.kernel) {
        (Some(uptime), Some(kernel)) => {
            format!(
                "{}, up for {uptime} s, kernel {kernel}; {policy}",
                status.state
            )
        }
        _ => format!("{}; {policy}", status.state),
    };
    Check::ok("machine", found)
}
