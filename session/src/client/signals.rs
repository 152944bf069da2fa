//! Signals, delivered where a poll loop can see them.

use signal_hook::consts::signal as s;
use signal_hook::iterator::backend::SignalDelivery;
use signal_hook::iterator::exfiltrator::SignalOnly;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

/// Our terminal's size changed.
pub(super) const RESIZED: i32 = s::SIGWINCH;
/// We were stopped and go on.
pub(super) const CONTINUED: i32 = s::SIGCONT;

/// Signals that ask a program to end.
const ENDING: [i32; 4] = [s::SIGHUP, s::SIGINT, s::SIGQUIT, s::SIGTERM];

/// What is sent on besides [`ENDING`]. Not: what cannot be caught, what our own
/// faults raise, job control (stopping us stops the stream, which stops the process in
/// good time), SIGCHLD and SIGPIPE, which are about us, and SIGWINCH, which is a size.
const PROXIED: [i32; 8] = [
    s::SIGUSR1,
    s::SIGUSR2,
    s::SIGALRM,
    s::SIGVTALRM,
    s::SIGPROF,
    s::SIGIO,
    s::SIGXCPU,
    s::SIGSYS,
];

/// Linux's real-time signals as programs may use them.
const REAL_TIME: std::ops::RangeInclusive<i32> = 34..=64;

/// Which signals matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Watch {
    /// The terminal is raw: it must be restored before a signal ends us.
    RawTerminal,
    /// All that can be sent on.
    Proxy,
    /// Only the terminal's size; everything else has its default effect on us.
    SizeOnly,
}

/// Caught signals.
#[derive(Debug)]
pub(super) struct Signals {
    delivery: SignalDelivery<UnixStream, SignalOnly>,
    watch: Watch,
}

impl Signals {
    pub(super) fn watch(watch: Watch) -> io::Result<Self> {
        // SIGPIPE is caught in order to be ignored: a reader of our output who
        // leaves is an error of that output.
        let mut wanted = vec![RESIZED, s::SIGPIPE];
        match watch {
            Watch::RawTerminal => {
                wanted.push(CONTINUED);
                wanted.extend(ENDING);
            }
            Watch::Proxy => {
                wanted.extend(ENDING);
                wanted.extend(PROXIED);
                wanted.extend(REAL_TIME);
            }
            Watch::SizeOnly => {}
        }
        let (read, write) = UnixStream::pair()?;
        let delivery = SignalDelivery::with_pipe(read, write, SignalOnly, wanted)?;
        Ok(Self { delivery, watch })
    }

    /// The signals that came since the last call, each once.
    pub(super) fn take(&mut self) -> Vec<i32> {
        self.delivery
            .pending()
            .filter(|&signal| signal != s::SIGPIPE)
            .collect()
    }

    /// Whether a signal is meant for us rather than for the process.
    pub(super) fn is_for_us(&self, signal: i32) -> bool {
        self.watch == Watch::RawTerminal && ENDING.contains(&signal)
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.delivery.get_read().as_fd()
    }
}
