//! What is asked about the container as a whole. Nothing of this costs anything before it is asked.

use super::cgroup::Cgroup;
use hullbox_protocol::{CgroupLimits, Reply, Request, Usage};
use hullbox_session::{cgroup, processes};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{Mode, OFlags};

/// Bytes of a sector in /proc/diskstats, whatever the disk's own are.
const SECTOR: u64 = 512;
/// The disks, without their partitions: layers, writable layer, block volumes.
const DISKS: [&str; 8] = ["vda", "vdb", "vdc", "vdd", "vde", "vdf", "vdg", "vdh"];

/// Answers a request about the container in this group.
pub(super) fn answer(group: &mut Cgroup, request: &Request) -> Reply {
    let done = match request {
        Request::Usage => return Reply::Usage(Box::new(usage(group))),
        Request::Processes => {
            let pids = cgroup::processes(group.fd());
            return match proc() {
                Some(proc) => Reply::Processes(processes::list(proc.as_fd(), &pids)),
                None => Reply::Failed("/proc cannot be mounted".to_owned()),
            };
        }
        Request::Freeze => cgroup::freeze(group.fd(), true).map(|()| group.frozen = true),
        Request::Thaw => cgroup::freeze(group.fd(), false).map(|()| group.frozen = false),
        Request::Limit(limits) => limit(group, limits),
        // Of the whole guest: see [`super::copies`], [`super::network`].
        Request::Suspend
        | Request::Resume
        | Request::SetClock { .. }
        | Request::Connect { .. }
        | Request::Disconnect { .. } => Err("not about the container alone".to_owned()),
    };
    match done {
        Ok(()) => Reply::Done,
        Err(why) => Reply::Failed(why),
    }
}

fn usage(group: &Cgroup) -> Usage {
    // Counts those that run already, other than memory's controller would.
    let _ = group.enable("pids");
    let mut usage = cgroup::usage(group.fd());
    let Some(proc) = proc() else {
        return usage;
    };
    let text = |file| cgroup::read(proc.as_fd(), file).unwrap_or_default();
    let memory = text("meminfo");
    let bytes = |name| {
        cgroup::named(&memory, name)
            .unwrap_or(0)
            .saturating_mul(1024)
    };
    if !group.counts_memory() {
        // Pages that were in use before a controller was switched on are never charged to it.
        // The guest is the container's own, so its memory is as good an answer.
        usage.memory_bytes = bytes("MemTotal").saturating_sub(bytes("MemFree"));
        usage.cache_bytes = bytes("Inactive(file)");
    }
    if usage.memory_limit_bytes == 0 {
        usage.memory_limit_bytes = bytes("MemTotal");
    }
    (usage.block_read_bytes, usage.block_write_bytes) = disks(&text("diskstats"));
    usage.interfaces = cgroup::interfaces(&text("net/dev"));
    usage
}

/// Bytes read from and written to the disks.
fn disks(text: &str) -> (u64, u64) {
    let mut sums = (0u64, 0u64);
    for line in text.lines() {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        if !words.get(2).is_some_and(|name| DISKS.contains(name)) {
            continue;
        }
        let sectors = |at: usize| words.get(at).and_then(|word| word.parse::<u64>().ok());
        let bytes = |at| sectors(at).unwrap_or(0).saturating_mul(SECTOR);
        sums.0 = sums.0.saturating_add(bytes(5));
        sums.1 = sums.1.saturating_add(bytes(9));
    }
    sums
}

fn limit(group: &Cgroup, limits: &CgroupLimits) -> Result<(), String> {
    if limits.memory_bytes > 0 {
        cgroup::check_memory(limits, &usage(group))?;
    }
    for setting in cgroup::settings(limits) {
        let file = setting.file;
        group
            .enable(setting.controller)
            .and_then(|()| cgroup::write(group.fd(), file, &setting.value))
            .map_err(|errno| format!("cannot set {file}: {}", crate::failure::words(errno)))?;
    }
    Ok(())
}

/// The guest's /proc, which the agent has no other use for.
fn proc() -> Option<OwnedFd> {
    super::cgroup::mount_proc().ok()?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open("/proc", flags, Mode::empty()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disks_count_without_their_partitions() {
        let text = " 254 0 vda 10 0 8 1 2 0 4 1\n 254 1 vda1 10 0 8 1 2 0 4 1\n \
                    254 16 vdb 1 0 2 1 1 0 6 1\n";
        assert_eq!(disks(text), (10 * 512, 10 * 512));
    }
}
