//! What /proc tells of a container's processes. Their names and arguments are the container's.

use crate::cgroup::{named, read};
use hullbox_protocol::{MAX_PROCESSES, ProcessInfo};
use rustix::fd::{AsFd, BorrowedFd};
use rustix::fs::{Mode, OFlags};
use rustix::time::{ClockId, clock_gettime};

/// Longest command line, in bytes.
const MAX_COMMAND: usize = 4096;
/// All command lines together, in bytes: a reply has its limit.
const MAX_COMMANDS: usize = 2 * 1024 * 1024;
/// Ticks of /proc in a second (`USER_HZ`, the same everywhere).
const TICKS: u64 = 100;

/// Tells of these processes; `proc` is where they are to be found. Who has ended meanwhile is
/// left out.
#[must_use]
pub fn list(proc: BorrowedFd<'_>, pids: &[u32]) -> Vec<ProcessInfo> {
    let boot_ns = boot_ns();
    let mut room = MAX_COMMANDS;
    let mut all = Vec::new();
    for &pid in pids.iter().take(MAX_PROCESSES) {
        let Some(mut info) = one(proc, pid, boot_ns) else {
            continue;
        };
        let limit = room.min(MAX_COMMAND);
        let end = info.command.floor_char_boundary(limit);
        info.command.truncate(end);
        room -= end;
        all.push(info);
    }
    all
}

/// When the kernel started, in nanoseconds since 1970.
fn boot_ns() -> i64 {
    let ns = |clock| {
        let time = clock_gettime(clock);
        let seconds = time.tv_sec.saturating_mul(1_000_000_000);
        seconds.saturating_add(time.tv_nsec)
    };
    ns(ClockId::Realtime).saturating_sub(ns(ClockId::Boottime))
}

fn one(proc: BorrowedFd<'_>, pid: u32, boot_ns: i64) -> Option<ProcessInfo> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::openat(proc, pid.to_string(), flags, Mode::empty()).ok()?;
    let directory = directory.as_fd();
    let mut info = from_stat(&read(directory, "stat").ok()?, boot_ns)?;
    info.pid = pid;
    let status = read(directory, "status").ok()?;
    // Real, effective, saved, of the filesystem.
    let uids = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    info.uid = uids.split_ascii_whitespace().nth(1)?.parse().ok()?;
    if let Some(parent) = named(&status, "PPid") {
        info.ppid = u32::try_from(parent).ok()?;
    }
    let command = read(directory, "cmdline").unwrap_or_default();
    let command = command.trim_end_matches('\0').replace('\0', " ");
    if !command.is_empty() {
        info.command = command;
    }
    Some(info)
}

/// As much as `stat` has. The name stands in parentheses, and may have any itself.
fn from_stat(text: &str, boot_ns: i64) -> Option<ProcessInfo> {
    let (before, rest) = text.rsplit_once(')')?;
    let (_, name) = before.split_once('(')?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    // The first of them is the third in proc(5).
    let field = |number: usize| fields.get(number - 3).copied();
    let value = |number| field(number)?.parse::<u64>().ok();
    let ticks = value(14)?.saturating_add(value(15)?);
    let started = value(22)?.saturating_mul(1_000_000_000 / TICKS);
    let page = rustix::param::page_size() as u64;
    Some(ProcessInfo {
        ppid: u32::try_from(value(4)?).ok()?,
        state: field(3)?.chars().next()?,
        cpu_ms: ticks.saturating_mul(1000 / TICKS),
        started_ns: boot_ns.saturating_add(i64::try_from(started).ok()?),
        tty: terminal(field(7)?.parse().ok()?),
        virtual_bytes: value(23)?,
        resident_bytes: value(24)?.saturating_mul(page),
        command: format!("[{name}]"),
        ..ProcessInfo::default()
    })
}

/// A terminal's name by its device number, as `stat` has it.
fn terminal(device: i64) -> String {
    let Ok(device) = u32::try_from(device & 0xffff_ffff) else {
        return String::new();
    };
    let (major, minor) = (
        (device >> 8) & 0xfff,
        (device & 0xff) | ((device >> 12) & 0xf_ff00),
    );
    match (major, minor) {
        (136..=143, _) => format!("pts/{}", (major - 136) * 256 + minor),
        (4, 0..=63) => format!("tty{minor}"),
        (4, _) => format!("ttyS{}", minor - 64),
        (5, 1) => "console".to_owned(),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_may_have_anything() {
        let text =
            "7 (a) b (c) S 1 7 7 34817 7 4194560 1 0 0 0 150 50 0 0 20 0 1 0 1234 4096 3 0\n";
        let info = from_stat(text, 5).unwrap();
        assert_eq!((info.ppid, info.state, info.cpu_ms), (1, 'S', 2000));
        assert_eq!(info.started_ns, 12_340_000_005);
        assert_eq!((info.virtual_bytes, info.tty.as_str()), (4096, "pts/1"));
        assert_eq!(info.command, "[a) b (c]");
    }

    #[test]
    fn this_process_is_found() {
        let proc = rustix::fs::open("/proc", OFlags::PATH, Mode::empty()).unwrap();
        let me = std::process::id();
        let all = list(proc.as_fd(), &[me, u32::MAX]);
        assert_eq!(all.len(), 1);
        assert_eq!(all[0].uid, rustix::process::geteuid().as_raw());
        assert!(all[0].command.contains("hullbox_session"), "{:?}", all[0]);
        assert!(all[0].resident_bytes > 0);
    }
}
