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

pub(crate) fn version(args: &FormatArgs) -> Result<(), Failure> {
    let value = json!({
        "Version": env!("CARGO_PKG_VERSION"),
        "Arch": std::env::consts::ARCH,
        "Os": std::env::consts::OS,
        "Protocol": hullbox_protocol::PROTOCOL_VERSION,
        "Kernel": artifacts::is_available(Artifact::Kernel),
    });
    let plain = format!("hullbox {}\n", env!("CARGO_PKG_VERSION"));
    format::one(&value, args.format.as_deref(), &plain)
}

pub(crate) fn info(args: &FormatArgs) -> Result<(), Failure> {
    let engine = engine::open()?;
    let records = engine.state().list()?;
    let running = records
        .iter()
        .filter(|record| record.phase == Phase::Running)
        .count();
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
    let release = rustix::system::uname()
        .release()
        .to_string_lossy()
        .into_owned();
    let value = json!({
        "Version": env!("CARGO_PKG_VERSION"),
        "DataDir": roots.data,
        "RuntimeDir": roots.runtime,
        "Images": images.len(),
        "Containers": records.len(),
        "ContainersRunning": running,
        "ContainersStopped": records.len() - running,
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
