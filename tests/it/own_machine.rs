//! A helper machine of a test's own: with other settings, or to be ended.

use hullbox_tests::{Done, command, finish};
use rustix::process::Signal;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// A machine of a test's own.
pub(crate) struct Own {
    pub(crate) dir: tempfile::TempDir,
    runtime: tempfile::TempDir,
}

impl Own {
    /// One whose configuration has these lines below `[machine]` besides.
    pub(crate) fn new(settings: &str) -> Self {
        let own = Self {
            dir: tempfile::tempdir().unwrap(),
            runtime: tempfile::tempdir_in("/tmp").unwrap(),
        };
        let config = own.dir.path().join("config/hullbox");
        fs::create_dir_all(&config).unwrap();
        fs::create_dir_all(own.volume()).unwrap();
        let text = format!(
            "[machine]\nmemory_mib = 768\ncpus = 1\nvolumes = [{:?}]\n{settings}\n",
            own.volume()
        );
        fs::write(config.join("config.toml"), text).unwrap();
        own
    }

    pub(crate) fn volume(&self) -> PathBuf {
        self.dir.path().join("volume")
    }

    /// A command with this machine's directories.
    pub(crate) fn set(&self, mut command: Command) -> Command {
        command
            .env("HULLBOX_ROOT", self.dir.path().join("data"))
            .env("HULLBOX_RUNTIME", self.runtime.path())
            .env("XDG_CONFIG_HOME", self.dir.path().join("config"));
        command
    }

    pub(crate) fn sh(&self, script: &str) -> Done {
        finish(
            self.set(command(["machine", "exec", "--", "sh", "-c", script])),
            b"",
        )
    }

    pub(crate) fn status(&self) -> serde_json::Value {
        let done = finish(
            self.set(command(["machine", "status", "--format", "json"])),
            b"",
        );
        serde_json::from_slice(&done.exits(0).stdout).unwrap()
    }

    pub(crate) fn pid(&self) -> i64 {
        self.status()["pid"].as_i64().unwrap()
    }

    /// Child processes of the machine's own process whose command line has this word.
    pub(crate) fn helper(&self, word: &str) -> i64 {
        let parent = self.pid();
        let find = || {
            fs::read_dir("/proc").unwrap().filter_map(|entry| {
                let pid: i64 = entry.ok()?.file_name().to_str()?.parse().ok()?;
                (parent_of(pid)? == parent).then_some(pid)
            })
        };
        find()
            .find(|pid| {
                fs::read(format!("/proc/{pid}/cmdline"))
                    .is_ok_and(|line| String::from_utf8_lossy(&line).contains(word))
            })
            .unwrap_or_else(|| panic!("no process {word}"))
    }

    pub(crate) fn stop(&self) {
        let _ = finish(self.set(command(["machine", "stop"])), b"").exits(0);
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        let _ = finish(self.set(command(["machine", "stop"])), b"");
    }
}

pub(crate) fn parent_of(pid: i64) -> Option<i64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?
        .1
        .split_whitespace()
        .nth(1)?
        .parse()
        .ok()
}

/// Ends a process at once.
pub(crate) fn kill(pid: i64) {
    signal(pid, Signal::KILL);
}

pub(crate) fn signal(pid: i64, signal: Signal) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}
