//! A pseudo-terminal with a person at it: types, reads, resizes.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode as FileMode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Termios, Winsize, tcgetattr, tcsetwinsize};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// A command that has a terminal of its own as controlling terminal.
#[derive(Debug)]
pub struct Terminal {
    master: File,
    slave: OwnedFd,
    /// Its modes before the command.
    pub modes_before: Termios,
    child: Child,
    seen: String,
}

impl Terminal {
    /// Starts `program` with its arguments on a new terminal of this size.
    #[must_use]
    pub fn start(program: &Command, rows: u16, columns: u16) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)
            .expect("a pseudo-terminal");
        grantpt(&master).expect("grantpt");
        unlockpt(&master).expect("unlockpt");
        let name = ptsname(&master, Vec::new()).expect("ptsname");
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let slave = rustix::fs::open(name, flags, FileMode::empty()).expect("the terminal opens");
        set_size(&slave, rows, columns);
        Self {
            // The command changes them as soon as it likes.
            modes_before: tcgetattr(&slave).expect("tcgetattr"),
            child: spawn(&slave, program),
            master: master.into(),
            slave,
            seen: String::new(),
        }
    }

    /// Changes the size, as dragging a window does.
    pub fn resize(&mut self, rows: u16, columns: u16) {
        set_size(&self.master, rows, columns);
    }

    /// Types.
    pub fn type_text(&mut self, text: &str) {
        self.master.write_all(text.as_bytes()).expect("typing");
    }

    /// Reads until `text` has appeared since the last match; fails after a minute.
    #[track_caller]
    pub fn expect(&mut self, text: &str) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !self.seen.contains(text) {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(
                !left.is_zero(),
                "{text:?} did not appear in {:?}",
                self.seen
            );
            let mut fds = [PollFd::new(&self.master, PollFlags::IN)];
            let wait = Timespec::try_from(left).expect("a minute fits");
            if poll(&mut fds, Some(&wait)).expect("poll") == 0 {
                continue;
            }
            let mut buffer = [0u8; 4096];
            let count = self.master.read(&mut buffer).unwrap_or(0);
            assert!(
                count > 0,
                "the terminal ended before {text:?}: {:?}",
                self.seen
            );
            self.seen
                .push_str(&String::from_utf8_lossy(&buffer[..count]));
        }
        let end = self.seen.find(text).expect("just found") + text.len();
        self.seen.drain(..end);
    }

    /// The terminal's modes now.
    #[must_use]
    pub fn modes(&self) -> Termios {
        tcgetattr(self.slave.as_fd()).expect("tcgetattr")
    }

    /// Waits for the program's end: its exit code.
    #[must_use]
    pub fn wait(&mut self) -> i32 {
        self.child.wait().expect("wait").code().unwrap_or(-1)
    }

    /// Process id of the `setsid` that became the program.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

fn set_size(terminal: impl AsFd, rows: u16, columns: u16) {
    let size = Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(terminal, size).expect("resize");
}

fn spawn(slave: &OwnedFd, program: &Command) -> Child {
    let end = || slave.try_clone().expect("dup");
    let mut command = Command::new("setsid");
    for (name, value) in program.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command
        .args(["--ctty", "--wait"])
        .arg(program.get_program())
        .args(program.get_args())
        .stdin(end())
        .stdout(end())
        .stderr(end())
        .spawn()
        .expect("setsid (util-linux) starts")
}
