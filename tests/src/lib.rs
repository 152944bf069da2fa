//! The integration tests' harness: the real `hullbox` program, on a data directory of the tests'
//! own, through the helper machine where this host's KVM cannot serve.
//!
//! `scripts/test-integration` prepares what the tests need and says where it is:
//! `HULLBOX_BIN`, `HULLBOX_TEST_FIXTURES`, `HULLBOX_ROOT` and `HULLBOX_RUNTIME`.
#![forbid(unsafe_code)]
#![expect(
    clippy::panic,
    clippy::expect_used,
    reason = "a test harness fails by panicking"
)]

pub mod bench;
pub mod registry;
mod terminal;

pub use terminal::Terminal;

use rustix::process::{Pid, Signal, kill_process};
use std::ffi::OsStr;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// The wall a case runs behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// `--isolation=vm`.
    Vm,
    /// `--isolation=container`.
    Container,
}

impl Mode {
    /// The command-line flag.
    #[must_use]
    pub const fn flag(self) -> &'static str {
        match self {
            Self::Vm => "--isolation=vm",
            Self::Container => "--isolation=container",
        }
    }
}

/// Declares a case that runs once behind each wall.
///
/// Its half in container mode runs on the host itself where that can be, without the helper machine
/// (`scripts/test-integration`). With `needs controllers` in front it does so only where the unified
/// hierarchy of control groups has them, as it does in the machine.
#[macro_export]
macro_rules! both_modes {
    (needs controllers; $($case:tt)*) => {
        $crate::both_modes!(@ controlled_container, $($case)*);
    };
    (@ $container:ident, $(#[$attribute:meta])* fn $name:ident($mode:ident) $body:block) => {
        mod $name {
            #[allow(unused_imports, reason = "not every case uses its parent's names")]
            use super::*;
            fn case($mode: $crate::Mode) $body
            #[test]
            #[ignore = "needs the built program: make test"]
            $(#[$attribute])*
            fn vm() { case($crate::Mode::Vm); }
            #[test]
            #[ignore = "needs the built program: make test"]
            $(#[$attribute])*
            fn $container() { case($crate::Mode::Container); }
        }
    };
    ($($case:tt)*) => {
        $crate::both_modes!(@ container, $($case)*);
    };
}

/// What a command did.
#[derive(Debug, Clone)]
pub struct Done {
    /// Exit code, or 128 + signal.
    pub code: i32,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error, as text.
    pub stderr: String,
    /// What the command exits with when it fails itself, as Docker's: 125 of `run`, else 1.
    pub failure_code: i32,
}

/// Docker's exit code of a command that fails itself.
fn failure_code(command: &Command) -> i32 {
    let words = command.get_args().filter_map(OsStr::to_str);
    let mut verbs = words.filter(|word| *word != "--debug" && *word != "container");
    if verbs.next() == Some("run") { 125 } else { 1 }
}

impl Done {
    fn from_output(output: Output, failure_code: i32) -> Self {
        use std::os::unix::process::ExitStatusExt;
        let status = output.status;
        Self {
            code: status
                .code()
                .unwrap_or_else(|| 128 + status.signal().unwrap_or(0)),
            stdout: output.stdout,
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            failure_code,
        }
    }

    /// Standard output as text, without the last newline.
    #[must_use]
    pub fn text(&self) -> String {
        let text = String::from_utf8_lossy(&self.stdout).into_owned();
        text.strip_suffix('\n').map_or(text.clone(), str::to_owned)
    }

    /// Fails the test unless the exit code is `code`.
    #[track_caller]
    #[must_use]
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(
            self.code,
            code,
            "stdout: {}\nstderr: {}",
            String::from_utf8_lossy(&self.stdout),
            self.stderr
        );
        self
    }

    /// Fails the test unless the program failed of itself, with Docker's exit code for that and one
    /// clear line that holds `part`.
    #[track_caller]
    pub fn fails_saying(self, part: &str) {
        let code = self.failure_code;
        self.says(code, part);
    }

    /// Fails the test unless the program refused its flags: 125 of every command, and one clear line
    /// that holds `part`.
    #[track_caller]
    pub fn refuses_flags_saying(self, part: &str) {
        self.says(125, part);
    }

    #[track_caller]
    fn says(self, code: i32, part: &str) {
        let done = self.exits(code);
        let lines: Vec<_> = done
            .stderr
            .lines()
            .filter(|line| line.starts_with("hullbox: "))
            .collect();
        assert_eq!(lines.len(), 1, "one error line: {}", done.stderr);
        assert!(
            done.stderr.to_lowercase().contains(&part.to_lowercase()),
            "{part:?} not in: {}",
            done.stderr
        );
    }
}

fn from_env(name: &str) -> PathBuf {
    std::env::var_os(name)
        .unwrap_or_else(|| panic!("{name} is not set: run the tests with `make test`"))
        .into()
}

/// A file that `tests/fixtures/make` made.
#[must_use]
pub fn fixture(name: &str) -> PathBuf {
    from_env("HULLBOX_TEST_FIXTURES").join(name)
}

/// A `hullbox` command, not yet run.
pub fn command<I, S>(args: I) -> Command
where
    I: IntoIterator<Item = S>,
    S: AsRef<OsStr>,
{
    let mut command = Command::new(from_env("HULLBOX_BIN"));
    command.args(args);
    command
}

/// Runs `hullbox` with nothing on standard input.
pub fn hullbox<I, S>(args: I) -> Done
where
    I: IntoIterator<Item = S>,
    S: AsRef<OsStr>,
{
    finish(command(args), b"")
}

/// Runs `hullbox run --rm` behind `mode`'s wall.
pub fn run<I, S>(mode: Mode, args: I) -> Done
where
    I: IntoIterator<Item = S>,
    S: AsRef<OsStr>,
{
    run_with_input(mode, args, b"")
}

/// The same with `input` on standard input, which is then closed.
pub fn run_with_input<I, S>(mode: Mode, args: I, input: &[u8]) -> Done
where
    I: IntoIterator<Item = S>,
    S: AsRef<OsStr>,
{
    let mut command = command(["run", "--rm", mode.flag()]);
    command.args(args);
    finish(command, input)
}

/// Runs a program in the helper machine, or directly where there is none: the reference runtimes
/// and a look at what was left behind.
#[must_use]
pub fn on_the_machine(script: &str) -> Done {
    let policy = std::env::var("HULLBOX_MACHINE").unwrap_or_default();
    let command = if policy == "never" {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    } else {
        command(["machine", "exec", "--", "sh", "-c", script])
    };
    finish(command, b"")
}

/// No case needs longer, on the slowest machine that was seen.
const COMMAND_LIMIT: Duration = Duration::from_secs(180);

/// Runs a command to its end, feeding it `input` while its output is read. One that does not end
/// is killed and fails the test, with what was going on around it.
#[must_use]
pub fn finish(mut command: Command, input: &[u8]) -> Done {
    let (done, seen) = finish_within(&mut command, input, COMMAND_LIMIT, surroundings);
    if let Some(seen) = seen {
        give_up(&format!(
            "{command:?} did not end within {COMMAND_LIMIT:?}\nstdout: {}\nstderr: {}\n{seen}",
            done.text(),
            done.stderr,
        ));
    }
    // Tests that end a machine on purpose have one of their own.
    let own = command
        .get_envs()
        .any(|(name, _)| name == "HULLBOX_RUNTIME");
    if !own && done.code == done.failure_code && done.stderr.contains("helper machine ended while")
    {
        give_up(&format!("{command:?}: {}", done.stderr));
    }
    done
}

/// A command that never ended, or a machine that did: what comes after it would wait as long, so that
/// the whole run ends.
fn give_up(why: &str) -> ! {
    // Not by a macro: the test program keeps what those print, and is about to end.
    let _ = writeln!(std::io::stderr(), "\n{why}");
    std::process::exit(75)
}

/// What a command did; and if it did not end by itself, what there was to see before it was killed.
fn finish_within(
    command: &mut Command,
    input: &[u8],
    limit: Duration,
    look: fn() -> String,
) -> (Done, Option<String>) {
    let mut child = command
        .stdin(if input.is_empty() {
            Stdio::null()
        } else {
            Stdio::piped()
        })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let stdin = child.stdin.take();
    let process = Pid::from_child(&child);
    let (ended, end) = mpsc::channel::<()>();
    thread::scope(|scope| {
        if let Some(mut stdin) = stdin {
            // A program that ends early breaks the pipe; its exit code tells the story.
            scope.spawn(move || stdin.write_all(input).ok());
        }
        let watch = scope.spawn(move || {
            let late = end.recv_timeout(limit) == Err(mpsc::RecvTimeoutError::Timeout);
            late.then(|| {
                let seen = look();
                kill_process(process, Signal::KILL).ok();
                seen
            })
        });
        let output = child.wait_with_output().expect("the program ends");
        let done = Done::from_output(output, failure_code(command));
        drop(ended);
        (done, watch.join().expect("the watch does not panic"))
    })
}

/// Where the containers run: processes, what their threads wait for, and what KVM has counted of each
/// VM, twice: an interrupt that KVM holds and its guest does not take shows itself there.
fn surroundings() -> String {
    let script = r#"
        ps -eLo pid,lwp,psr,ppid,stat,wchan:24,time,args | grep -v '\[.*\]$'
        for stack in $(ls -d /proc/[0-9]*/task/*/stack); do
            case $(cat ${stack%stack}comm 2>/dev/null) in vcpu*|disks|streams|hullbox) echo "$stack:"; head -8 $stack ;; esac
        done
        [ -d /sys/kernel/debug/kvm ] || mount -t debugfs debugfs /sys/kernel/debug
        for look in 1 2; do
            grep -E '' /sys/kernel/debug/kvm/[0-9]*/* 2>/dev/null |
                grep -E '/(exits|halt_exits|irq_exits|irq_window_exits|irq_injections|req_event|pf_taken):'
            sleep 1
        done
        grep -E 'LOC|RES|CAL' /proc/interrupts; free -m; dmesg | tail -20
    "#;
    let mut look = command(["machine", "exec", "--", "sh", "-c", script]);
    match finish_within(&mut look, b"", Duration::from_secs(60), String::new) {
        (done, None) => done.text(),
        _ => "the helper machine does not answer".to_owned(),
    }
}
