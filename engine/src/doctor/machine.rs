//! What the helper machine needs, and how it is.

use super::Check;
use crate::machine::{Machine, MachineConfig, Policy, find_kernel, find_program, kernel_cache};
use std::process::{Command, Stdio};

/// The programs it is made of.
pub(super) fn tools() -> Vec<Check> {
    let tool = |id, program: &str, extra: &[&str], package: &str| match find_program(program, extra)
    {
        Some(path) => {
            let version = Command::new(&path)
                .arg("--version")
                .stdin(Stdio::null())
                .stderr(Stdio::null())
                .output()
                .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
                .unwrap_or_default();
            let first = version.lines().next().unwrap_or_default().trim();
            let found = if first.is_empty() || id == "mke2fs" {
                path.display().to_string()
            } else {
                format!("{}: {first}", path.display())
            };
            Check::ok(id, found)
        }
        None => Check::warn(
            id,
            format!("{program} was not found; the helper machine needs it"),
            format!("install the package {package}"),
        ),
    };
    let mut tools = vec![
        tool("qemu", "qemu-system-x86_64", &[], "qemu-system-x86"),
        tool(
            "virtiofsd",
            "virtiofsd",
            &["/usr/lib/qemu"],
            "qemu-system-common",
        ),
        tool("mke2fs", "mke2fs", &[], "e2fsprogs"),
    ];
    for check in &mut tools {
        if check.remedy.is_some() {
            check.status = super::Status::Fail;
        }
    }
    tools
}

/// The machine's kernel.
pub(super) fn kernel(config: &MachineConfig) -> Check {
    const ID: &str = "machine-kernel";
    match find_kernel(config.kernel_dir.as_deref(), &kernel_cache()) {
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
