//! A container's control group, as what is asked about a container as a whole needs it.
//!
//! Files are read and written below a directory that the caller has open, so it does not matter
//! where, or whether, the hierarchy is mounted.

use hullbox_protocol::{CgroupLimits, InterfaceUsage, MAX_TOLD_INTERFACES, Transfers, Usage};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{Dir, FileType, Mode, OFlags};
use rustix::io::Errno;
use std::time::{Duration, Instant};

/// Largest control file that is read, in bytes.
const MAX_FILE: usize = 1024 * 1024;
/// How long processes may take to stop.
const FREEZE_TIME: Duration = Duration::from_secs(5);
/// Deepest nesting of groups that is looked into.
const MAX_DEPTH: usize = 64;
/// `cpu.max` period, in microseconds.
const CPU_PERIOD_US: u64 = 100_000;
/// In a limit: none at all.
const UNLIMITED: u64 = u64::MAX;

/// Reads a file below a directory.
///
/// # Errors
/// It is not there, or cannot be read.
pub fn read(directory: BorrowedFd<'_>, file: &str) -> Result<String, Errno> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let file = rustix::fs::openat(directory, file, flags, Mode::empty())?;
    let mut text = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        match rustix::io::retry_on_intr(|| rustix::io::read(&file, &mut chunk))? {
            0 => break,
            _ if text.len() >= MAX_FILE => break,
            n => text.extend_from_slice(&chunk[..n]),
        }
    }
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// Writes a control file.
///
/// # Errors
/// It is not there, or the kernel does not take it.
pub fn write(directory: BorrowedFd<'_>, file: &str, value: &str) -> Result<(), Errno> {
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let file = rustix::fs::openat(directory, file, flags, Mode::empty())?;
    rustix::io::write(&file, value.as_bytes()).map(drop)
}

/// The number in a file that has nothing else; `max` and what is absent is `None`.
#[must_use]
pub fn number(directory: BorrowedFd<'_>, file: &str) -> Option<u64> {
    read(directory, file).ok()?.trim().parse().ok()
}

/// The number behind a name in a file of `name value` lines, colons and units aside.
#[must_use]
pub fn named(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace();
        let first = words.next()?;
        (first.trim_end_matches(':') == name).then(|| words.next()?.parse().ok())?
    })
}

/// What the group itself tells: CPU time, and what the controllers that are on know.
#[must_use]
pub fn usage(group: BorrowedFd<'_>) -> Usage {
    let text = |file| read(group, file).unwrap_or_default();
    let (read_bytes, written) = block_io(&text("io.stat"));
    Usage {
        cpu_us: named(&text("cpu.stat"), "usage_usec").unwrap_or(0),
        cpus: cpus(),
        memory_bytes: number(group, "memory.current").unwrap_or(0),
        cache_bytes: named(&text("memory.stat"), "inactive_file").unwrap_or(0),
        memory_limit_bytes: number(group, "memory.max").unwrap_or(0),
        pids: number(group, "pids.current").unwrap_or_else(|| threads(group)),
        block_read_bytes: read_bytes,
        block_write_bytes: written,
        ..Usage::default()
    }
}

fn cpus() -> u32 {
    rustix::thread::sched_getaffinity(None).map_or(1, |set| set.count())
}

/// Bytes read and written, by `io.stat`.
fn block_io(text: &str) -> (u64, u64) {
    let sum = |key: &str| {
        let words = text.split_ascii_whitespace();
        let values = words.filter_map(|word| word.strip_prefix(key)?.parse::<u64>().ok());
        values.fold(0, u64::saturating_add)
    };
    (sum("rbytes="), sum("wbytes="))
}

/// The network interfaces but loopback, by `/proc/net/dev`.
#[must_use]
pub fn interfaces(text: &str) -> Vec<InterfaceUsage> {
    let named = text.lines().filter_map(|line| line.split_once(':'));
    let others = named.filter(|(name, _)| name.trim() != "lo");
    let told = others.map(|(name, numbers)| {
        let numbers: Vec<u64> = numbers
            .split_ascii_whitespace()
            .map(|number| number.parse().unwrap_or(0))
            .collect();
        let direction = |first: usize| {
            let number = |at: usize| numbers.get(first + at).copied().unwrap_or(0);
            Transfers {
                bytes: number(0),
                packets: number(1),
                errors: number(2),
                dropped: number(3),
            }
        };
        InterfaceUsage {
            name: name.trim().to_owned(),
            receive: direction(0),
            transmit: direction(8),
        }
    });
    told.take(MAX_TOLD_INTERFACES).collect()
}

/// Threads in the group and below it.
fn threads(group: BorrowedFd<'_>) -> u64 {
    let mut count = 0;
    each(group, 0, &mut |group| {
        let threads = read(group, "cgroup.threads").unwrap_or_default();
        count += threads.lines().count() as u64;
    });
    count
}

/// The processes in the group and below it, with ids as this process sees them.
#[must_use]
pub fn processes(group: BorrowedFd<'_>) -> Vec<u32> {
    let mut all = Vec::new();
    each(group, 0, &mut |group| {
        let text = read(group, "cgroup.procs").unwrap_or_default();
        all.extend(text.lines().filter_map(|line| line.parse::<u32>().ok()));
    });
    // Those of a namespace beside ours show as 0.
    all.retain(|&pid| pid > 0);
    all
}

/// Visits a group and all below it.
fn each(group: BorrowedFd<'_>, depth: usize, visit: &mut dyn FnMut(BorrowedFd<'_>)) {
    visit(group);
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let open = |name: &std::ffi::CStr| rustix::fs::openat(group, name, flags, Mode::empty());
    let Ok(entries) = open(c".").and_then(Dir::new) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let is_group =
            entry.file_type() == FileType::Directory && !matches!(name.to_bytes(), b"." | b"..");
        if is_group
            && depth < MAX_DEPTH
            && let Ok(child) = open(name)
        {
            each(child.as_fd(), depth + 1, visit);
        }
    }
}

/// Stops every process of the group, or lets them go on; waits until that is so.
///
/// # Errors
/// In words: the kernel does not do it, or not in time. They go on, then.
pub fn freeze(group: BorrowedFd<'_>, freeze: bool) -> Result<(), String> {
    let verb = if freeze { "freeze" } else { "thaw" };
    let failed = |errno: Errno| format!("cannot {verb} the container: {}", words(errno));
    let value = if freeze { "1" } else { "0" };
    write(group, "cgroup.freeze", value).map_err(failed)?;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let events = rustix::fs::openat(group, "cgroup.events", flags, Mode::empty());
    let events = events.map_err(failed)?;
    let end = Instant::now() + FREEZE_TIME;
    while is_frozen(&events).map_err(failed)? != freeze {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            if freeze {
                let _ = write(group, "cgroup.freeze", "0");
            }
            return Err(format!(
                "cannot {verb} the container: its processes did not follow within {} s",
                FREEZE_TIME.as_secs()
            ));
        }
        wait_for_change(&events, left).map_err(failed)?;
    }
    Ok(())
}

fn is_frozen(events: &OwnedFd) -> Result<bool, Errno> {
    let mut text = [0; 256];
    let length = rustix::io::pread(events, &mut text, 0)?;
    let text = String::from_utf8_lossy(&text[..length]);
    Ok(named(&text, "frozen") == Some(1))
}

fn wait_for_change(events: &OwnedFd, left: Duration) -> Result<(), Errno> {
    let time = Timespec::try_from(left).map_err(|_| Errno::INVAL)?;
    let mut fds = [PollFd::new(events, PollFlags::PRI)];
    match poll(&mut fds, Some(&time)) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// A controller's limit in its control file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// Name of the controller.
    pub controller: &'static str,
    /// Its file.
    pub file: &'static str,
    /// What to write there.
    pub value: String,
    /// The limit itself.
    pub limit: u64,
}

/// The settings for those limits that are not 0. The highest number of all takes one away.
#[must_use]
pub fn settings(limits: &CgroupLimits) -> Vec<Setting> {
    let plain = |limit| match limit {
        UNLIMITED => "max".to_owned(),
        limit => limit.to_string(),
    };
    let quota = format!("{} {CPU_PERIOD_US}", plain(limits.cpu_quota_us));
    let all = [
        (
            "memory",
            "memory.max",
            plain(limits.memory_bytes),
            limits.memory_bytes,
        ),
        ("pids", "pids.max", plain(limits.pids), limits.pids),
        ("cpu", "cpu.max", quota, limits.cpu_quota_us),
    ];
    all.into_iter()
        .filter(|(.., limit)| *limit > 0)
        .map(|(controller, file, value, limit)| Setting {
            controller,
            file,
            value,
            limit,
        })
        .collect()
}

/// Refuses a memory limit below what is in use and cannot be dropped: the kernel would kill.
///
/// # Errors
/// In words.
pub fn check_memory(limits: &CgroupLimits, usage: &Usage) -> Result<(), String> {
    let needed = usage.memory_bytes.saturating_sub(usage.cache_bytes);
    if limits.memory_bytes > 0 && limits.memory_bytes < needed {
        return Err(format!(
            "a memory limit of {} bytes is below the {needed} bytes in use",
            limits.memory_bytes
        ));
    }
    Ok(())
}

/// What the kernel said, without the number.
pub(crate) fn words(errno: Errno) -> String {
    let text = std::io::Error::from(errno).to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut chars = text.chars();
    let first = chars.next().into_iter().flat_map(char::to_lowercase);
    first.chain(chars).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_files_are_understood() {
        assert_eq!(named("usage_usec 7\nuser_usec 3\n", "user_usec"), Some(3));
        assert_eq!(named("MemTotal:   100 kB\n", "MemTotal"), Some(100));
        assert_eq!(named("a b\n", "a"), None);
        let io = "8:0 rbytes=10 wbytes=2 rios=1\n8:16 rbytes=5 wbytes=3\n";
        assert_eq!(block_io(io), (15, 5));
        let net = "Inter-| Receive\n face |bytes\n  lo: 9 9 9 9 9 9 9 9 9 9\n\
                   eth0:100 1 2 3 0 0 0 0 200 4 5 6 0 0 0 0\n e1: x\n";
        let transfers = |bytes, packets, errors, dropped| Transfers {
            bytes,
            packets,
            errors,
            dropped,
        };
        let eth0 = InterfaceUsage {
            name: "eth0".to_owned(),
            receive: transfers(100, 1, 2, 3),
            transmit: transfers(200, 4, 5, 6),
        };
        let e1 = InterfaceUsage {
            name: "e1".to_owned(),
            ..InterfaceUsage::default()
        };
        assert_eq!(interfaces(net), [eth0, e1]);
        assert_eq!(
            interfaces(&"a: 1\n".repeat(1000)).len(),
            MAX_TOLD_INTERFACES
        );
    }

    #[test]
    fn limits_become_settings() {
        let limits = CgroupLimits {
            memory_bytes: 0,
            pids: UNLIMITED,
            cpu_quota_us: 50_000,
        };
        let all = settings(&limits);
        let values: Vec<_> = all.iter().map(|s| (s.file, s.value.as_str())).collect();
        assert_eq!(values, [("pids.max", "max"), ("cpu.max", "50000 100000")]);
    }

    #[test]
    fn a_limit_below_what_is_in_use_is_refused() {
        let usage = Usage {
            memory_bytes: 100,
            cache_bytes: 40,
            ..Usage::default()
        };
        let limits = |memory_bytes| CgroupLimits {
            memory_bytes,
            ..CgroupLimits::default()
        };
        assert!(check_memory(&limits(60), &usage).is_ok());
        assert!(check_memory(&limits(59), &usage).is_err());
        assert!(check_memory(&limits(0), &usage).is_ok());
    }
}
