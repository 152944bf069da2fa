//! Where the time of a command goes.
//!
//! Command line and monitor share one clock (CLOCK_MONOTONIC) and one zero, the command line's
//! first instruction in `main`. Each collects marks; the monitor sends its own to the command line
//! before it tells the end, and a [`Report`] is made of both.

mod report;

pub use report::{Process, Report, Row};

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// A part of a command's time, named for how it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Arguments and configuration are read, and it is known where the command runs.
    Cli,
    /// The monitor's process is made.
    Spawn,
    /// Image and container are found or recorded.
    Store,
    /// The monitor is told what to do.
    Order,
    /// The monitor has told the end; what it did meanwhile is told by its own phases.
    Wait,
    /// The monitor's process listens.
    Monitor,
    /// A template, or a snapshot, is found and examined.
    Template,
    /// The guest's memory is laid out.
    MemoryMap,
    /// The virtual machine and its interrupt controllers are made.
    VmCreate,
    /// Kernel and initramfs are in the guest's memory.
    KernelLoad,
    /// Processors and interrupt controllers have their saved state.
    StateRestore,
    /// The monitor knows what to do.
    Orders,
    /// The container's disk is made.
    Disks,
    /// The devices are made.
    Devices,
    /// The virtual processors run, from the kernel's entry on.
    VmStart,
    /// The virtual processors run, from where they were saved.
    Resume,
    /// The guest of a template was of no use, and is gone.
    Fallback,
    /// The published ports are open, and what serves them runs.
    Network,
    /// The agent has said its first word.
    AgentContact,
    /// The root filesystem is arranged.
    Rootfs,
    /// The program runs.
    Exec,
    /// It has said something.
    FirstOutput,
    /// It has ended.
    Exit,
    /// What was around it is down.
    Cleanup,
    /// Its end is recorded.
    Record,
}

/// The end of a phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// Which.
    pub phase: Phase,
    /// When, in microseconds since the zero.
    pub at_us: u64,
}

/// All that one process has marked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marks {
    /// When its first phase began, in microseconds since the zero.
    pub begun_us: u64,
    /// In the order of their times.
    pub marks: Vec<Mark>,
}

/// The moment from which all times count.
#[derive(Debug, Clone, Copy)]
pub struct Zero(u64);

impl Zero {
    /// Now.
    #[must_use]
    pub fn now() -> Self {
        Self(now_us())
    }
}

/// Collects marks, if anybody wants them; otherwise it does nothing.
///
/// It can be sent to another process, whose first phase begins when it is sent.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(from = "Option<Start>", into = "Option<Start>")]
pub struct Timing(Option<Arc<Track>>);

#[derive(Debug)]
struct Track {
    start: Start,
    /// None once they are taken.
    marks: Mutex<Option<Vec<Mark>>>,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Start {
    zero_us: u64,
    begun_us: u64,
}

fn now_us() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let (seconds, nanos) = (now.tv_sec, now.tv_nsec);
    u64::try_from(seconds).unwrap_or(0) * 1_000_000 + u64::try_from(nanos).unwrap_or(0) / 1000
}

impl From<Option<Start>> for Timing {
    fn from(start: Option<Start>) -> Self {
        Self(start.map(|start| {
            Arc::new(Track {
                start,
                marks: Mutex::new(Some(Vec::new())),
            })
        }))
    }
}

impl From<Timing> for Option<Start> {
    fn from(timing: Timing) -> Self {
        timing.0.map(|track| Start {
            begun_us: now_us().saturating_sub(track.start.zero_us),
            ..track.start
        })
    }
}

impl Timing {
    /// Collects marks from now on.
    #[must_use]
    pub fn since(zero: Zero) -> Self {
        Self::from(Some(Start {
            zero_us: zero.0,
            begun_us: 0,
        }))
    }

    /// Whether anybody wants the marks.
    #[must_use]
    pub const fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// This phase ends now.
    pub fn mark(&self, phase: Phase) {
        self.mark_ago(phase, 0);
    }

    /// This phase ended at that moment.
    pub fn mark_at(&self, phase: Phase, moment: Instant) {
        if self.is_on() {
            let ago = moment.elapsed().as_micros();
            self.mark_ago(phase, u64::try_from(ago).unwrap_or(u64::MAX));
        }
    }

    /// This phase ended so long ago, but not before the one that was marked last.
    pub fn mark_ago(&self, phase: Phase, ago_us: u64) {
        let Some(track) = &self.0 else {
            return;
        };
        let at_us = now_us()
            .saturating_sub(track.start.zero_us)
            .saturating_sub(ago_us);
        let mut marks = track.marks.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(marks) = marks.as_mut() {
            let last = marks.last().map_or(track.start.begun_us, |mark| mark.at_us);
            marks.push(Mark {
                phase,
                at_us: at_us.max(last),
            });
        }
    }

    /// All marks. Later ones are not kept: a workload may be started again and again.
    #[must_use]
    pub fn take(&self) -> Option<Marks> {
        let track = self.0.as_ref()?;
        let mut marks = track.marks.lock().unwrap_or_else(PoisonError::into_inner);
        marks.take().map(|marks| Marks {
            begun_us: track.start.begun_us,
            marks,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(timing: &Timing) -> Timing {
        let bytes = postcard::to_allocvec(timing).unwrap();
        postcard::from_bytes(&bytes).unwrap()
    }

    #[test]
    fn what_is_off_stays_off_and_keeps_nothing() {
        let off = Timing::default();
        off.mark(Phase::Cli);
        assert!(!off.is_on());
        assert_eq!(off.take(), None);
        assert!(!sent(&off).is_on());
    }

    #[test]
    fn marks_keep_their_order_and_are_taken_once() {
        let timing = Timing::since(Zero::now());
        timing.mark(Phase::Cli);
        let moment = Instant::now();
        timing.mark(Phase::Spawn);
        // The past does not change; neither does a clock that went wrong reorder anything.
        timing.mark_at(Phase::Store, moment);
        timing.mark_ago(Phase::Order, u64::MAX);
        let taken = timing.take().unwrap();
        assert_eq!(taken.begun_us, 0);
        let phases: Vec<_> = taken.marks.iter().map(|mark| mark.phase).collect();
        assert_eq!(
            phases,
            [Phase::Cli, Phase::Spawn, Phase::Store, Phase::Order]
        );
        assert!(taken.marks.is_sorted_by_key(|mark| mark.at_us));
        timing.mark(Phase::Wait);
        assert_eq!(timing.take(), None);
    }

    #[test]
    fn another_process_counts_from_the_same_zero() {
        let ours = Timing::since(Zero(now_us() - 5_000_000));
        ours.mark(Phase::Cli);
        let theirs = sent(&ours);
        theirs.mark(Phase::Monitor);
        let theirs = theirs.take().unwrap();
        assert!((5_000_000..65_000_000).contains(&theirs.begun_us));
        assert_eq!(theirs.marks.len(), 1);
        assert!(theirs.marks[0].at_us >= theirs.begun_us);
        assert_eq!(ours.take().unwrap().marks.len(), 1);
    }
}
