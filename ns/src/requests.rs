//! What is asked about the container as a whole.

use super::cgroup::Cgroup;
use hullbox_protocol::{CgroupLimits, Reply, Request, Usage};
use hullbox_session::{cgroup, processes};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::process::Pid;
use std::error::Error;

/// Answers a request about the container in this group, whose first process this is.
pub(super) fn answer(group: &mut Cgroup, first: Pid, request: &Request) -> Reply {
    let done = match request {
        Request::Usage => return Reply::Usage(Box::new(usage(group, first))),
        Request::Processes => {
            let pids = cgroup::processes(group.fd());
            return match proc() {
                Some(proc) => Reply::Processes(processes::list(proc.as_fd(), &pids)),
                None => Reply::Failed("/proc cannot be read".to_owned()),
            };
        }
        Request::Freeze => freeze(group, true),
        Request::Thaw => freeze(group, false),
        Request::Limit(limits) => limit(group, first, limits),
        // It is the host's own.
        Request::SetClock { .. } => Ok(()),
        // The monitor's side has done it: it keeps the device behind the interface.
        Request::Connect { .. } | Request::Disconnect { .. } => Ok(()),
        Request::Suspend | Request::Resume => {
            Err("only a container in a microVM can be saved (--isolation=vm)".to_owned())
        }
    };
    match done {
        Ok(()) => Reply::Done,
        Err(why) => Reply::Failed(why),
    }
}

fn freeze(group: &mut Cgroup, freeze: bool) -> Result<(), String> {
    cgroup::freeze(group.fd(), freeze)?;
    group.frozen = freeze;
    Ok(())
}

fn limit(group: &mut Cgroup, first: Pid, limits: &CgroupLimits) -> Result<(), String> {
    if limits.memory_bytes > 0 {
        cgroup::check_memory(limits, &usage(group, first))?;
    }
    group.update(limits).map_err(|error| match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    })
}

fn usage(group: &Cgroup, first: Pid) -> Usage {
    let mut usage = cgroup::usage(group.fd());
    let Some(proc) = proc() else {
        return usage;
    };
    let text = |file: &str| cgroup::read(proc.as_fd(), file).unwrap_or_default();
    if let Some(memory) = group.legacy_memory() {
        (
            usage.memory_bytes,
            usage.cache_bytes,
            usage.memory_limit_bytes,
        ) = memory;
    }
    let pids = cgroup::processes(group.fd());
    if usage.memory_bytes == 0 {
        // No controller counts: what its processes have, then.
        let all = processes::list(proc.as_fd(), &pids);
        usage.memory_bytes = all.iter().map(|info| info.resident_bytes).sum();
    }
    if usage.block_read_bytes == 0 && usage.block_write_bytes == 0 {
        for pid in &pids {
            let io = text(&format!("{pid}/io"));
            let bytes = |name| cgroup::named(&io, name).unwrap_or(0);
            usage.block_read_bytes += bytes("read_bytes");
            usage.block_write_bytes += bytes("write_bytes");
        }
    }
    let total = cgroup::named(&text("meminfo"), "MemTotal").unwrap_or(0);
    let total = total.saturating_mul(1024);
    if usage.memory_limit_bytes == 0 || usage.memory_limit_bytes > total {
        usage.memory_limit_bytes = total;
    }
    let devices = text(&format!("{}/net/dev", first.as_raw_nonzero()));
    usage.interfaces = cgroup::interfaces(&devices);
    usage
}

fn proc() -> Option<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, "/proc", flags, Mode::empty()).ok()
}
