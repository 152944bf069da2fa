//! What a running machine records about itself.

use super::plan::{Plan, RuntimeFiles};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

/// The record that the supervisor keeps while it lives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The supervisor.
    pub pid: i32,
    /// When it started, in clock ticks since boot: with it, a pid is not taken for another's.
    pub pid_start: u64,
    /// Wall clock at the start, in seconds since 1970.
    pub started_s: u64,
    /// Whether the agent has reported.
    pub ready: bool,
    /// How long the start took, in milliseconds.
    pub start_ms: u64,
    /// The data directory.
    pub data: PathBuf,
    /// Kernel release.
    pub kernel: String,
    /// Virtual CPUs.
    pub cpus: u8,
    /// Memory, in MiB.
    pub memory_mib: u32,
    /// Idle time until it stops, in seconds.
    pub idle_s: u64,
    /// What is written through.
    pub volumes: Vec<PathBuf>,
}

impl Record {
    /// The record of this process running `plan`.
    #[must_use]
    pub fn of_this_process(plan: &Plan) -> Self {
        let pid = rustix::process::getpid();
        Self {
            pid: pid.as_raw_nonzero().get(),
            pid_start: start_time(pid).unwrap_or(0),
            started_s: std::time::SystemTime::now()
                .duration_since(std::time::UNIX_EPOCH)
                .map_or(0, |time| time.as_secs()),
            ready: false,
            start_ms: 0,
            data: plan.data.clone(),
            kernel: plan.kernel_release.clone(),
            cpus: plan.cpus,
            memory_mib: plan.memory_mib,
            idle_s: plan.idle_s,
            volumes: plan.volumes.clone(),
        }
    }

    /// Reads the record, `None` when there is none that makes sense.
    #[must_use]
    pub fn load(files: &RuntimeFiles) -> Option<Self> {
        serde_json::from_slice(&fs::read(files.state()).ok()?).ok()
    }

    /// Writes the record, whole or not at all.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(&self, files: &RuntimeFiles) -> io::Result<()> {
        let staged = files.state().with_extension("new");
        fs::write(&staged, serde_json::to_vec(self)?)?;
        fs::rename(staged, files.state())
    }

    /// A handle of the supervisor, if it is still the process that wrote the record.
    #[must_use]
    pub fn process(&self) -> Option<OwnedFd> {
        let pid = Pid::from_raw(self.pid)?;
        let handle = pidfd_open(pid, PidfdFlags::empty()).ok()?;
        // Compared after the handle exists: from here on the number cannot change hands.
        (start_time(pid) == Some(self.pid_start)).then_some(handle)
    }

    /// Sends the supervisor a signal. Returns whether it was there.
    #[must_use]
    pub fn signal(&self, signal: Signal) -> bool {
        self.process()
            .is_some_and(|handle| pidfd_send_signal(handle, signal).is_ok())
    }
}

/// Field 22 of `/proc/PID/stat` (proc(5)).
fn start_time(pid: Pid) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
    // The command's name may hold anything, parentheses too; after its last one all is numbers.
    stat.rsplit_once(')')?
        .1
        .split_whitespace()
        .nth(19)?
        .parse()
        .ok()
}

#[cfg(test)]
impl Record {
    /// A record of some process.
    pub(super) fn of_process(pid: Pid) -> Self {
        Self {
            pid: pid.as_raw_nonzero().get(),
            pid_start: start_time(pid).unwrap_or(0),
            started_s: 0,
            ready: true,
            start_ms: 0,
            data: "/d".into(),
            kernel: "6".into(),
            cpus: 1,
            memory_mib: 1,
            idle_s: 0,
            volumes: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recycled_pid_is_nobody() {
        let pid = rustix::process::getpid();
        let start = start_time(pid).unwrap();
        let record = |pid_start| Record {
            pid_start,
            ..Record::of_process(pid)
        };
        assert!(record(start).process().is_some());
        assert!(record(start + 1).process().is_none());
    }
}
