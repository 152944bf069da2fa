//! `version`, `info` and `doctor`.

use crate::args::system::FormatArgs;
use crate::engine;
use crate::output::failure::Failure;
use crate::output::format;
use hullbox_engine::artifacts::{self, Artifact};
use hullbox_engine::doctor;
use hullbox_engine::machine::{MachineConfig, kvm_verdict};
use hullbox_engine::paths::Roots;
use hullbox_engine::state::Phase;
use serde_json::json;
use std::path::Path;

pub(crate) fn version(args: &FormatArgs) -> Result<(), Failure> {
    // Docker's client and server are one program here.
    let part = json!({
        "Platform": { "Name": "Hullbox" },
        "Version": env!("CARGO_PKG_VERSION"),
        "Os": std::env::consts::OS,
        "Arch": GO_ARCH,
        "KernelVersion": kernel_release(),
    });
    let value = json!({
        "Version": env!("CARGO_PKG_VERSION"),
        "Arch": std::env::consts::ARCH,
        "Os": std::env::consts::OS,
        "Protocol": hullbox_protocol::PROTOCOL_VERSION,
        "Kernel": artifacts::is_available(Artifact::Kernel),
        "Client": part,
        "Server": part,
    });
    let plain = format!("hullbox {}\n", env!("CARGO_PKG_VERSION"));
    format::one(&value, args.format.as_deref(), &plain)
}

pub(crate) fn info(args: &FormatArgs) -> Result<(), Failure> {
    let engine = engine::open()?;
    let records = engine.state().list()?;
    let count = |phase| {
        records
            .iter()
            .filter(|record| record.phase == phase)
            .count()
    };
    // As Docker counts: one that is started again and again runs.
    let running = count(Phase::Running) + count(Phase::Restarting);
    let paused = count(Phase::Paused);
    let mut images: Vec<_> = engine
        .images()?
        .list()?
        .into_iter()
        .map(|image| image.id.to_string())
        .collect();
    images.sort_unstable();
    images.dedup();
    let roots = engine.roots();
    let carries = |artifact| {
        if artifacts::is_available(artifact) {
            "yes"
        } else {
            "no"
        }
    };
    let release = kernel_release();
    let memory = rustix::system::sysinfo();
    let value = json!({
        "Version": env!("CARGO_PKG_VERSION"),
        "ServerVersion": env!("CARGO_PKG_VERSION"),
        "Name": rustix::system::uname().nodename().to_string_lossy(),
        "OSType": std::env::consts::OS,
        "OperatingSystem": operating_system(),
        "Architecture": std::env::consts::ARCH,
        "MemTotal": memory.totalram * u64::from(memory.mem_unit),
        "Driver": "erofs",
        "LoggingDriver": "json-file",
        "CgroupVersion": if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() { "2" } else { "1" },
        "SecurityOptions": ["name=seccomp,profile=builtin", "name=cgroupns"],
        "DockerRootDir": roots.data,
        "DataDir": roots.data,
        "RuntimeDir": roots.runtime,
        "Images": images.len(),
        "Containers": records.len(),
        "ContainersRunning": running,
        "ContainersPaused": paused,
        "ContainersStopped": records.len() - running - paused,
        "KernelVersion": release,
        "NCPU": std::thread::available_parallelism().map_or(1, usize::from),
        "GuestKernel": artifacts::is_available(Artifact::Kernel),
        "GuestAgent": artifacts::is_available(Artifact::Initramfs),
    });
    let plain = format!(
        "Version:            {}\n\
         Data directory:     {}\n\
         Runtime directory:  {}\n\
         Images:             {}\n\
         Containers:         {} ({running} running)\n\
         Host kernel:        {release}\n\
         Carries a kernel:   {}\n\
         Carries an agent:   {}\n",
        env!("CARGO_PKG_VERSION"),
        roots.data.display(),
        roots.runtime.display(),
        images.len(),
        records.len(),
        carries(Artifact::Kernel),
        carries(Artifact::Initramfs),
    );
    format::one(&value, args.format.as_deref(), &plain)
}

/// The architecture of containers, in the word that Docker takes from Go.
const GO_ARCH: &str = "amd64";

fn kernel_release() -> String {
    rustix::system::uname()
        .release()
        .to_string_lossy()
        .into_owned()
}

/// What the host's distribution calls itself.
fn operating_system() -> String {
    let text = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let name = text
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.map_or_else(
        || "Linux".to_owned(),
        |name| name.trim_matches('"').to_owned(),
    )
}

/// Exit code 0 when containers can run here in some way, else 1.
pub(crate) fn doctor(args: &FormatArgs) -> Result<u8, Failure> {
    let roots = Roots::from_env()?;
    let report = doctor::examine(&roots, &MachineConfig::load()?);
    let mut value = serde_json::to_value(&report)?;
    let verdict = kvm_verdict(&roots);
    value["KVM"] = json!({ "Usable": verdict.usable, "Explanation": verdict.explanation });
    format::one(&value, args.format.as_deref(), &report.text())?;
    Ok(u8::from(!report.is_sound()))
}
