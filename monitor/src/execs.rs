//! What is known of the processes that were run beside the workload.

use hullbox_model::exec::{ExecInspect, ProcessConfig};
use hullbox_protocol::{ProcessSpec, UserSpec};
use hullbox_state as state;
use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Execs that have ended, or were never started, and are remembered; the newest ones.
const REMEMBERED: usize = 256;
/// Longest arguments that are remembered of each, in bytes.
const MAX_ARGUMENTS: usize = 16 * 1024;
/// What those that were never started may take in memory, in bytes.
const MAX_SPECS: usize = 16 << 20;
/// Where they are found when there is no monitor.
const FILE: &str = "execs.json";
/// Largest such file that is read, in bytes.
const MAX_FILE: u64 = 16 << 20;
/// What they died of when the container ended: SIGKILL's code.
const KILLED: u8 = 137;

/// All of them, the oldest first.
#[derive(Debug)]
pub(super) struct Execs {
    container: String,
    all: VecDeque<Exec>,
}

#[derive(Debug)]
struct Exec {
    about: ExecInspect,
    /// Until it is started.
    spec: Option<Box<ProcessSpec>>,
}

impl Execs {
    pub(super) fn new(container: &str) -> Self {
        Self {
            container: container.to_owned(),
            all: VecDeque::new(),
        }
    }

    /// A new one, not started yet: its id. `None` where the kernel gives no random bytes.
    pub(super) fn create(&mut self, spec: &ProcessSpec) -> Option<String> {
        let id = state::new_id().ok()?;
        let about = ExecInspect {
            id: id.clone(),
            process_config: process_config(spec),
            open_stdin: spec.stdin,
            open_stderr: true,
            open_stdout: true,
            container_id: self.container.clone(),
            ..ExecInspect::default()
        };
        self.all.push_back(Exec {
            about,
            spec: Some(Box::new(spec.clone())),
        });
        self.forget_old();
        self.forget_large();
        Some(id)
    }

    fn find(&mut self, id: &str) -> Option<&mut Exec> {
        // The newest ones are asked for most.
        self.all.iter_mut().rev().find(|exec| exec.about.id == id)
    }

    /// What to run, once.
    pub(super) fn take_spec(&mut self, id: &str) -> Result<Box<ProcessSpec>, &'static str> {
        let exec = self.find(id).ok_or("no such exec")?;
        exec.spec.take().ok_or("the exec was started before")
    }

    /// It is being started.
    pub(super) fn starts(&mut self, id: &str) {
        if let Some(exec) = self.find(id) {
            exec.spec = None;
            exec.about.running = true;
        }
    }

    /// It runs.
    pub(super) fn runs(&mut self, id: &str, pid: u32) {
        if let Some(exec) = self.find(id) {
            exec.about.pid = pid;
        }
    }

    /// It ended, or could not be started.
    pub(super) fn ended(&mut self, id: &str, code: u8) {
        if let Some(exec) = self.find(id) {
            exec.about.running = false;
            exec.about.exit_code = Some(code);
            exec.about.can_remove = true;
        }
        self.forget_old();
    }

    /// All that run have ended with the container.
    pub(super) fn container_ended(&mut self) {
        for exec in &mut self.all {
            if std::mem::take(&mut exec.about.running) {
                exec.about.exit_code = Some(KILLED);
                exec.about.can_remove = true;
            }
        }
    }

    fn forget_old(&mut self) {
        let idle = |exec: &Exec| !exec.about.running;
        let mut excess = self
            .all
            .iter()
            .filter(|exec| idle(exec))
            .count()
            .saturating_sub(REMEMBERED);
        if excess > 0 {
            self.all.retain(|exec| {
                let gone = excess > 0 && idle(exec);
                excess -= usize::from(gone);
                !gone
            });
        }
    }

    /// Forgets the oldest ones that were never started, while all of them take too much.
    fn forget_large(&mut self) {
        let size = |exec: &Exec| exec.spec.as_deref().map_or(0, size);
        let mut total: usize = self.all.iter().map(size).sum();
        self.all.retain(|exec| {
            let gone = total > MAX_SPECS && exec.spec.is_some();
            total -= if gone { size(exec) } else { 0 };
            !gone
        });
    }

    pub(super) fn list(&self) -> Vec<ExecInspect> {
        self.all.iter().map(|exec| exec.about.clone()).collect()
    }

    /// Writes them into the container's directory, with those of earlier runs. What fails is lost.
    pub(super) fn keep(&self, dir: &Path) {
        if self.all.is_empty() {
            return;
        }
        let mut all = kept(dir);
        all.extend(self.list());
        all.drain(..all.len().saturating_sub(REMEMBERED));
        let staged = dir.join(format!("{FILE}.new"));
        let file = File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&staged);
        let written = file.and_then(|mut file| file.write_all(&serde_json::to_vec(&all)?));
        let _ = written.and_then(|()| fs::rename(&staged, dir.join(FILE)));
    }
}

/// Those of earlier runs.
#[must_use]
pub fn kept(dir: &Path) -> Vec<ExecInspect> {
    let mut bytes = Vec::new();
    let read = File::open(dir.join(FILE)).and_then(|f| f.take(MAX_FILE).read_to_end(&mut bytes));
    read.ok()
        .and_then(|_| serde_json::from_slice(&bytes).ok())
        .unwrap_or_default()
}

/// What a process's words take in memory, in bytes.
fn size(spec: &ProcessSpec) -> usize {
    let words = spec.argv.iter().chain(&spec.env);
    words.map(|word| word.len() + size_of_val(word)).sum()
}

fn process_config(spec: &ProcessSpec) -> ProcessConfig {
    let mut room = MAX_ARGUMENTS;
    let mut words = spec.argv.iter().map_while(|word| {
        let cut = word.get(..word.len().min(room)).unwrap_or_default();
        let full = room == 0;
        room -= cut.len();
        (!full).then(|| String::from_utf8_lossy(cut).into_owned())
    });
    let entrypoint = words.next().unwrap_or_default();
    let arguments = words.collect();
    ProcessConfig {
        tty: spec.terminal.is_some(),
        entrypoint,
        arguments,
        privileged: spec.privileged,
        user: match &spec.user {
            UserSpec::Named { user, .. } => user.clone(),
            UserSpec::Ids { uid, gid, .. } => format!("{uid}:{gid}"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(argv: &[&str]) -> ProcessSpec {
        ProcessSpec {
            argv: argv.iter().map(|word| word.as_bytes().to_vec()).collect(),
            ..ProcessSpec::default()
        }
    }

    #[test]
    fn an_exec_is_known_until_many_newer_ones_have_ended() {
        let mut execs = Execs::new("box");
        let first = execs.create(&spec(&["sleep", "1"])).unwrap();
        assert!(execs.list()[0].exit_code.is_none() && !execs.list()[0].running);
        assert_eq!(execs.take_spec(&first).unwrap().argv.len(), 2);
        assert_eq!(execs.take_spec(&first), Err("the exec was started before"));
        execs.starts(&first);
        execs.runs(&first, 7);
        for _ in 0..2 * REMEMBERED {
            let id = execs.create(&spec(&["true"])).unwrap();
            execs.starts(&id);
            execs.ended(&id, 3);
        }
        let all = execs.list();
        assert_eq!(all.len(), REMEMBERED + 1, "one that runs is not forgotten");
        assert!(all[0].running && all[0].pid == 7);
        assert_eq!(all[1].exit_code, Some(3));
        execs.container_ended();
        assert_eq!(execs.list()[0].exit_code, Some(KILLED));
    }

    #[test]
    fn those_that_are_never_started_take_bounded_memory() {
        let mut execs = Execs::new("box");
        let large = spec(&["x".repeat(5 << 20).as_str()]);
        let ids: Vec<_> = (0..6).map(|_| execs.create(&large).unwrap()).collect();
        assert_eq!(execs.list().len(), 3);
        assert_eq!(execs.take_spec(&ids[0]), Err("no such exec"));
        assert_eq!(execs.take_spec(&ids[5]).unwrap().argv.len(), 1);
    }

    #[test]
    fn they_outlive_the_monitor_and_long_arguments_are_cut() {
        let dir = std::env::temp_dir().join(format!("hullbox-execs-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        for _ in 0..3 {
            let mut execs = Execs::new("box");
            execs
                .create(&spec(&["echo", &"x".repeat(1 << 20), "y"]))
                .unwrap();
            execs.keep(&dir);
        }
        let all = kept(&dir);
        assert_eq!(all.len(), 3);
        let config = &all[2].process_config;
        assert_eq!(
            (config.entrypoint.as_str(), config.arguments.len()),
            ("echo", 1)
        );
        assert!(config.arguments[0].len() < MAX_ARGUMENTS);
        fs::remove_dir_all(dir).unwrap();
    }
}
