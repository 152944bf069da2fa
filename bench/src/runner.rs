//! Running contenders' commands: timed, bounded, and waited for with all that they leave behind.

use crate::error::BenchError;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::MemfdFlags;
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions, kill_process, pidfd_open, wait};
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Timeout of a command; none took as long on the slowest machine measured.
const LIMIT: Duration = Duration::from_secs(120);
/// Interval at which signals are checked for.
const SLICE: Duration = Duration::from_millis(100);
/// Most bytes that are kept of a command's output.
const KEPT_BYTES: usize = 64 << 10;
/// Most bytes of a failed command's standard error in its error message.
const SAID_BYTES: usize = 400;

/// What a command gets on standard input, and how its output is handled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Streams {
    /// No input; the output is read.
    Output,
    /// So many bytes of input; the output is read.
    Input(u64),
    /// No input. A process in the background may keep the output open, so its end is not waited for.
    Detached,
}

/// A command that ended well.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ran {
    /// From the start to its first byte of output.
    pub(crate) first_output: Option<Duration>,
    /// From the start to the last.
    pub(crate) last_output: Option<Duration>,
    /// From the start to its end.
    pub(crate) took: Duration,
    /// The beginning of its output.
    pub(crate) output: Vec<u8>,
    /// The whole output's length.
    pub(crate) output_bytes: u64,
}

/// Catches signals, and reaps the processes that commands leave behind.
#[derive(Debug)]
pub(crate) struct Runner {
    signal: Arc<AtomicUsize>,
}

impl Runner {
    /// Installs the signal handlers and makes this process the reaper of orphans.
    pub(crate) fn new() -> Result<Self, BenchError> {
        let failed = |what| move |source| BenchError::Process { what, source };
        let signal = Arc::new(AtomicUsize::new(0));
        for number in [
            signal_hook::consts::SIGINT,
            signal_hook::consts::SIGTERM,
            signal_hook::consts::SIGHUP,
        ] {
            let value = usize::try_from(number).unwrap_or(0);
            signal_hook::flag::register_usize(number, Arc::clone(&signal), value)
                .map_err(failed("wait for signals"))?;
        }
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
            .map_err(|error| failed("become the reaper of orphans")(error.into()))?;
        Ok(Self { signal })
    }

    /// An error once a signal has come.
    pub(crate) fn check(&self) -> Result<(), BenchError> {
        match self.signal.load(Ordering::Relaxed) {
            0 => Ok(()),
            number => Err(BenchError::Interrupted {
                signal: i32::try_from(number).unwrap_or(0),
            }),
        }
    }

    /// After a signal: cleaning up must not be interrupted.
    pub(crate) fn forgive(&self) {
        self.signal.store(0, Ordering::Relaxed);
    }

    /// Runs a command to its end. An end that is not success is an error.
    pub(crate) fn run(
        &self,
        contender: &str,
        what: &str,
        command: &mut Command,
        streams: Streams,
    ) -> Result<Ran, BenchError> {
        self.check()?;
        let mut said = scratch_file()?;
        let keep = said.try_clone().map_err(|source| BenchError::Process {
            what: "keep a command's words",
            source,
        })?;
        command.stderr(keep);
        command.stdin(match streams {
            Streams::Input(_) => Stdio::piped(),
            _ => Stdio::null(),
        });
        command.stdout(match streams {
            Streams::Detached => Stdio::null(),
            _ => Stdio::piped(),
        });
        let start = Instant::now();
        let mut child = command.spawn().map_err(|source| BenchError::Spawn {
            contender: contender.to_owned(),
            program: command.get_program().to_string_lossy().into_owned(),
            source,
        })?;
        let feeder = feed(&mut child, streams);
        let mut ran = Ran::default();
        let ended = self.watch(&mut child, start, &mut ran);
        let status = match ended {
            Ok(Some(status)) => status,
            other => {
                give_up(&mut child);
                join(feeder);
                other?;
                return Err(BenchError::Late {
                    contender: contender.to_owned(),
                    what: what.to_owned(),
                    limit_s: LIMIT.as_secs(),
                });
            }
        };
        join(feeder);
        // A terminal's Ctrl-C ends the command too; that is no failure of its.
        self.check()?;
        if status.success() {
            return Ok(ran);
        }
        Err(BenchError::Failed {
            contender: contender.to_owned(),
            what: what.to_owned(),
            status: ending(status),
            said: last_words(&mut said),
        })
    }

    /// Reads a child's output to its end and waits for the child's. `None` if it was too late.
    fn watch(
        &self,
        child: &mut Child,
        start: Instant,
        ran: &mut Ran,
    ) -> Result<Option<ExitStatus>, BenchError> {
        let failed = |source| BenchError::Process {
            what: "wait for a command",
            source,
        };
        let mut stdout = child.stdout.take();
        let end = pidfd_open(Pid::from_child(child), PidfdFlags::empty())
            .map_err(|error| failed(error.into()))?;
        let mut block = vec![0u8; 64 << 10];
        while start.elapsed() < LIMIT {
            self.check()?;
            let fd = stdout.as_ref().map_or(end.as_fd(), AsFd::as_fd);
            let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
            let slice = Timespec::try_from(SLICE).ok();
            match poll(&mut fds, slice.as_ref()) {
                Ok(0) | Err(Errno::INTR) => continue,
                Ok(_) => {}
                Err(error) => return Err(failed(error.into())),
            }
            let Some(output) = &mut stdout else {
                ran.took = start.elapsed();
                return child.wait().map(Some).map_err(failed);
            };
            let got = output.read(&mut block).map_err(failed)?;
            if got == 0 {
                stdout = None;
                continue;
            }
            let now = start.elapsed();
            ran.first_output.get_or_insert(now);
            ran.last_output = Some(now);
            ran.output_bytes += got as u64;
            let room = KEPT_BYTES.saturating_sub(ran.output.len()).min(got);
            ran.output
                .extend_from_slice(block.get(..room).unwrap_or(&[]));
        }
        Ok(None)
    }

    /// Waits for everything that commands have left behind, so that it is not at the next one's
    /// expense, and says how long that took.
    pub(crate) fn settle(&self, contender: &str) -> Result<Duration, BenchError> {
        let start = Instant::now();
        loop {
            match wait(WaitOptions::NOHANG) {
                Err(Errno::CHILD) => return Ok(start.elapsed()),
                Ok(Some(_)) | Err(Errno::INTR) => {}
                Ok(None) => {
                    self.check()?;
                    if start.elapsed() > LIMIT {
                        return Err(BenchError::Late {
                            contender: contender.to_owned(),
                            what: "what a command left behind".to_owned(),
                            limit_s: LIMIT.as_secs(),
                        });
                    }
                    thread::sleep(Duration::from_micros(200));
                }
                Err(error) => {
                    return Err(BenchError::Process {
                        what: "wait for what a command left behind",
                        source: error.into(),
                    });
                }
            }
        }
    }
}

fn scratch_file() -> Result<File, BenchError> {
    rustix::fs::memfd_create("bench-stderr", MemfdFlags::CLOEXEC)
        .map(File::from)
        .map_err(|error| BenchError::Process {
            what: "keep a command's words",
            source: error.into(),
        })
}

/// Writes a child's input beside the reading of its output.
fn feed(child: &mut Child, streams: Streams) -> Option<JoinHandle<()>> {
    let Streams::Input(bytes) = streams else {
        return None;
    };
    let mut stdin = child.stdin.take()?;
    Some(thread::spawn(move || {
        let block = [1u8; 64 << 10];
        let mut left = bytes;
        while left > 0 {
            let now = usize::try_from(left).map_or(block.len(), |left| left.min(block.len()));
            // Who does not read it all gives a wrong answer, which is noticed.
            if stdin.write_all(block.get(..now).unwrap_or(&[])).is_err() {
                return;
            }
            left -= now as u64;
        }
    }))
}

fn join(feeder: Option<JoinHandle<()>>) {
    if let Some(feeder) = feeder {
        // It cannot panic, and has nothing to say.
        let _ = feeder.join();
    }
}

fn give_up(child: &mut Child) {
    // One that is gone already is what is wanted.
    let _ = child.kill();
    let _ = child.wait();
}

fn ending(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "no exit code".to_owned(),
    }
}

/// The end of what a command said, in one line.
fn last_words(said: &mut File) -> String {
    let mut bytes = Vec::new();
    let read = said
        .seek(SeekFrom::Start(0))
        .and_then(|_| said.take(1 << 20).read_to_end(&mut bytes));
    if read.is_err() || bytes.is_empty() {
        return "it said nothing".to_owned();
    }
    let from = bytes.len().saturating_sub(SAID_BYTES);
    one_line(bytes.get(from..).unwrap_or(&[]))
}

/// Text without control characters.
pub(crate) fn one_line(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let plain: String = text
        .trim()
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    plain.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The parent of a process.
fn parent_of(pid: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything, parentheses too.
    let rest = stat.get(stat.rfind(')')? + 1..)?;
    rest.split_whitespace().nth(1)?.parse().ok()
}

/// Every descendant of this process.
pub(crate) fn descendants() -> Vec<i32> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    let parents: Vec<(i32, i32)> = pids
        .filter_map(|pid| Some((pid, parent_of(pid)?)))
        .collect();
    let mut found = vec![rustix::process::getpid().as_raw_nonzero().get()];
    let mut at = 0;
    while let Some(&parent) = found.get(at) {
        found.extend(
            parents
                .iter()
                .filter(|(_, of)| *of == parent)
                .map(|(pid, _)| *pid),
        );
        at += 1;
    }
    found.remove(0);
    found
}

/// Kills every descendant of this process: the last resort of cleaning up.
pub(crate) fn kill_descendants() {
    for _ in 0..50 {
        let left = descendants();
        for pid in &left {
            if let Some(pid) = Pid::from_raw(*pid) {
                // Gone already is as well.
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
        if left.is_empty() {
            return;
        }
        thread::sleep(Duration::from_millis(20));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_others_stays_in_its_line() {
        assert_eq!(one_line(b"\n a\x1b[2Jb \r\n c\xff\n"), "a [2Jb c\u{fffd}");
    }

    #[test]
    fn commands_are_timed_fed_and_judged() {
        let runner = Runner::new().unwrap();
        let mut cat = Command::new("wc");
        let ran = runner
            .run("us", "wc", cat.arg("-c"), Streams::Input(100_000))
            .unwrap();
        assert_eq!(one_line(&ran.output), "100000");
        assert!(ran.first_output.unwrap() <= ran.took);
        let mut fails = Command::new("sh");
        fails.args(["-c", "echo 'it is\n over' >&2; exit 3"]);
        let error = runner
            .run("us", "sh", &mut fails, Streams::Output)
            .unwrap_err();
        assert_eq!(error.to_string(), "us: sh failed (exit code 3): it is over");
    }
}
