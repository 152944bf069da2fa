//! An interface of the container, and the process that carries its frames on.

use super::News;
use hullbox_backend::network::Member;
use hullbox_host::error::chain;
use hullbox_netproc::{Counts, Heard, Launcher, Process, ProcessError, Seat, set_tap_carrier};
use hullbox_protocol::NameFiles;
use rustix::event::PollFlags;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

/// How long a process may take until it serves. A helper machine is emulated, and so is its host busy.
pub(super) const READY_LIMIT: Duration = Duration::from_secs(60);
/// Least time from one start of the process to the next; twice as long after each that failed.
const PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_mins(1);
/// The longest one where the process did not fail, but what it needs is somebody else's for now, such as a
/// port.
const LONGEST_WAIT: Duration = Duration::from_secs(4);
/// A process that served for this long was a good one.
const GOOD_RUN: Duration = Duration::from_secs(10);
/// Most that a process says between two turns.
const MAX_SAID: usize = 1000;

/// See the module.
#[derive(Debug)]
pub(super) struct Served {
    /// The number in the interface's name.
    pub(super) index: u8,
    launcher: Launcher,
    pub(super) seat: Seat,
    pub(super) member: Member,
    pub(super) phase: Phase,
    begun: Option<Instant>,
    /// Starts in a row that came to nothing.
    failures: u32,
    /// Its clients heard that it cannot be served.
    has_warned: bool,
    /// The client that asked for it, if it is still there, until it serves.
    pub(super) asked: Option<Asked>,
    /// The container sees no link.
    is_down: bool,
    /// Its process is still to hear its names.
    is_renamed: bool,
    /// Answers that the process owes.
    owed: u32,
    /// What the process has counted, as far as it was heard of.
    counts: Counts,
    /// What the processes before it had.
    before: Counts,
}

/// Who asked for an interface, and what the container knows of names when it has it.
type Asked = (Option<u64>, Box<NameFiles>);

#[derive(Debug)]
pub(super) enum Phase {
    /// There is no process, nor will there be one before that time.
    Waiting(Option<Instant>),
    /// It has not answered, and has until then.
    Starting(Box<Process>, Instant),
    /// It serves.
    Serving(Box<Process>),
}

impl Served {
    pub(super) fn new(index: u8, launcher: Launcher, seat: Seat, member: Member) -> Self {
        Self {
            index,
            launcher,
            seat,
            member,
            phase: Phase::Waiting(None),
            begun: None,
            failures: 0,
            has_warned: false,
            asked: None,
            is_down: false,
            is_renamed: false,
            owed: 0,
            counts: Counts::default(),
            before: Counts::default(),
        }
    }

    /// Another guest's frames are to be carried on, in which there is a link.
    pub(super) fn replace(&mut self, member: Member) {
        self.member = member;
        self.phase = Phase::Waiting(None);
        self.is_down = false;
    }

    /// The id of the network, if others share it.
    pub(super) fn network(&self) -> Option<&str> {
        let membership = self.seat.membership.as_ref();
        membership.map(|membership| membership.id.as_str())
    }

    /// Whether it is served before it has sent anything: whoever connects to a published port sends the
    /// first frame, and so may another member.
    pub(super) const fn is_eager(&self) -> bool {
        !self.seat.network.ports.is_empty() || self.seat.membership.is_some()
    }

    /// Whether its process has not answered yet what it was asked.
    pub(super) const fn owes(&self) -> bool {
        self.owed > 0
    }

    /// What its processes have counted, as far as it was heard of.
    pub(super) fn counts(&self) -> Counts {
        let mut all = self.before.clone();
        all.add(&self.counts);
        all
    }

    /// Asks its process, if there is one, what it has counted.
    pub(super) fn ask_for_counts(&mut self) {
        if let Phase::Serving(process) = &self.phase
            && process.ask_for_counts().is_ok()
        {
            self.owed += 1;
        }
    }

    /// The same, waiting for it, if the container was refused something.
    pub(super) fn take_counts(&mut self, limit: Duration) {
        if let Phase::Serving(process) = &mut self.phase
            && self.owed == 0
            && !self.counts.targets.is_empty()
            && let Ok(counts) = process.counters(limit)
        {
            self.counts = counts;
        }
    }

    /// Gives the container other names in this network.
    pub(super) fn rename(&mut self, names: &[String]) {
        if let Some(membership) = &mut self.seat.membership {
            membership.names = names.to_vec();
            self.is_renamed = true;
            self.tell_names();
        }
    }

    fn tell_names(&mut self) {
        let (Phase::Serving(process), Some(membership)) = (&self.phase, &self.seat.membership)
        else {
            return;
        };
        if std::mem::take(&mut self.is_renamed) && process.rename(membership.names.clone()).is_ok()
        {
            self.owed += 1;
        }
    }

    /// False when there is nothing to serve any more.
    pub(super) fn turn(&mut self, events: PollFlags, now: Instant, news: &mut Vec<News>) -> bool {
        let stays = match self.advance(events, now, news) {
            Ok(stays) => stays,
            Err(error) => {
                if let Some((client, _)) = self.asked {
                    self.kill();
                    news.push(News::Refused(client, self.index, chain(&error)));
                    return false;
                }
                news.extend(self.failed(&error, now).map(News::Warning));
                true
            }
        };
        news.extend(self.settle_link());
        stays
    }

    fn advance(
        &mut self,
        events: PollFlags,
        now: Instant,
        news: &mut Vec<News>,
    ) -> Result<bool, ProcessError> {
        match &mut self.phase {
            Phase::Waiting(Some(due)) if *due > now => {}
            Phase::Waiting(Some(_)) => {
                self.phase = Phase::Waiting(None);
                if self.is_eager() {
                    self.begin(now)?;
                }
            }
            Phase::Waiting(None) => {
                if events.intersects(PollFlags::HUP | PollFlags::ERR) {
                    // The interface is gone, and with it the container, of which others tell.
                    return Ok(false);
                }
                if events.contains(PollFlags::IN) {
                    self.begin(now)?;
                }
            }
            Phase::Starting(_, deadline) if *deadline <= now => return Err(ProcessError::Silent),
            Phase::Starting(..) | Phase::Serving(_) if events.is_empty() => {}
            Phase::Starting(..) | Phase::Serving(_) => self.listen(news)?,
        }
        Ok(true)
    }

    /// Takes what the process has said.
    fn listen(&mut self, news: &mut Vec<News>) -> Result<(), ProcessError> {
        for _ in 0..MAX_SAID {
            let (process, is_serving) = match &mut self.phase {
                Phase::Waiting(_) => return Ok(()),
                Phase::Starting(process, _) => (process, false),
                Phase::Serving(process) => (process, true),
            };
            let Some(heard) = process.hear()? else {
                return Ok(());
            };
            match (heard, is_serving) {
                (Heard::Ready(_), false) => {
                    self.serve();
                    let asked = self.asked.take();
                    news.extend(asked.map(|(client, names)| News::Connected(client, names)));
                }
                (Heard::Failed(why), false) => return Err(ProcessError::Refused(why)),
                (Heard::Ready(_), true) | (_, false) => return Err(ProcessError::Ended),
                (Heard::Counted(counts), true) => {
                    self.owed = self.owed.saturating_sub(1);
                    self.counts = *counts;
                }
                (Heard::Done | Heard::Failed(_), true) => self.owed = self.owed.saturating_sub(1),
                (Heard::Refused(refusal), true) => {
                    self.counts.note(&refusal);
                    let network = self.network().map(str::to_owned);
                    news.push(News::Denied(network, refusal));
                }
            }
        }
        // It does not say that much by itself.
        Err(ProcessError::Ended)
    }

    /// The container sees a link while its frames are carried, or may be at once.
    fn settle_link(&mut self) -> Option<News> {
        let down = match &self.phase {
            // One that was never begun is about to be.
            Phase::Waiting(Some(_)) => self.begun.is_some(),
            Phase::Starting(..) => self.is_down,
            Phase::Waiting(None) | Phase::Serving(_) => false,
        };
        if down == self.is_down {
            return None;
        }
        self.is_down = down;
        match &self.member {
            Member::Tap(tap) => {
                // An older kernel has no such call: the interface stays up.
                let _ = set_tap_carrier(tap, !down);
                None
            }
            Member::Packets(_) => Some(News::Link(self.index, !down)),
        }
    }

    pub(super) fn member(&self) -> BorrowedFd<'_> {
        match &self.member {
            Member::Tap(fd) | Member::Packets(fd) => fd.as_fd(),
        }
    }

    pub(super) fn start(&mut self) -> Result<Box<Process>, ProcessError> {
        self.begun = Some(Instant::now());
        self.launcher.start(&self.seat, &self.member).map(Box::new)
    }

    fn begin(&mut self, now: Instant) -> Result<(), ProcessError> {
        let process = self.start()?;
        self.phase = Phase::Starting(process, now + READY_LIMIT);
        Ok(())
    }

    fn serve(&mut self) {
        self.phase = match std::mem::replace(&mut self.phase, Phase::Waiting(None)) {
            Phase::Starting(process, _) => Phase::Serving(process),
            other => other,
        };
        self.tell_names();
    }

    /// A process that is of no use is not waited for.
    fn kill(&mut self) {
        if let Phase::Starting(process, _) | Phase::Serving(process) = &mut self.phase {
            process.kill();
        }
    }

    /// There is no process any more. Returns what clients should hear: why the first one could not serve.
    fn failed(&mut self, error: &ProcessError, now: Instant) -> Option<String> {
        self.kill();
        self.owed = 0;
        self.before.add(&std::mem::take(&mut self.counts));
        let has_served = matches!(self.phase, Phase::Serving(_));
        let begun = self.begun.unwrap_or(now);
        self.failures = match has_served && now.duration_since(begun) >= GOOD_RUN {
            true => 0,
            false => self.failures.saturating_add(1),
        };
        let longest = match error {
            ProcessError::Refused(_) => LONGEST_WAIT,
            _ => LONGEST_PAUSE,
        };
        let due = begun + pause(self.failures).min(longest);
        // Who is served when it sends something can do so at once.
        let waits = due > now || self.is_eager();
        self.phase = Phase::Waiting(waits.then_some(due));
        let warns = !has_served && !std::mem::replace(&mut self.has_warned, true);
        warns.then(|| format!("the container has no network: {}", chain(error)))
    }
}

/// The least time between two starts, after so many in a row that came to nothing.
fn pause(failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    PAUSE.saturating_mul(1 << doublings).min(LONGEST_PAUSE)
}
