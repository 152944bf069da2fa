//! Health checks: a process beside the workload, from time to time.

use crate::plan::life::Health;
use hullbox_protocol::{Failure, ProcessSpec};
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};

/// Bytes of a check's output that are kept.
const MAX_OUTPUT: usize = 4096;

/// What health checks have found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HealthStatus {
    /// Nothing that counts yet.
    #[default]
    Starting,
    /// The last check succeeded.
    Healthy,
    /// Too many failed in a row.
    Unhealthy,
}

impl HealthStatus {
    /// Docker's word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// The state after a check.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthReport {
    /// What follows.
    pub status: HealthStatus,
    /// Failures in a row.
    pub failing_streak: u32,
    /// Exit code of the last check; -1 if it took too long or could not be run.
    pub exit_code: i32,
    /// What it said.
    pub output: String,
    /// When it began, in nanoseconds since 1970.
    pub started_ns: i64,
    /// When it ended, in nanoseconds since 1970.
    pub ended_ns: i64,
    /// The status is not what it was before.
    #[serde(skip)]
    pub changed: bool,
}

/// What the clock says is to be done.
#[derive(Debug)]
pub(super) enum Task {
    /// Run this as a session of its own.
    Run(Box<ProcessSpec>),
    /// The check in this session takes too long: kill it.
    Kill(u32),
}

/// Decides when to check, and what the results mean.
#[derive(Debug)]
pub(super) struct Checker {
    config: Health,
    /// The workload's own surroundings.
    process: ProcessSpec,
    report: HealthReport,
    started: Option<Instant>,
    due: Option<Instant>,
    session: Option<u32>,
    output: Vec<u8>,
}

impl Checker {
    pub(super) fn new(config: Health, workload: &ProcessSpec) -> Self {
        let mut process = workload.clone();
        process.argv = config.argv.iter().map(|arg| arg.clone().into()).collect();
        process.terminal = None;
        process.stdin = false;
        process.builtin = None;
        Self {
            config,
            process,
            report: HealthReport::default(),
            started: None,
            due: None,
            session: None,
            output: Vec::new(),
        }
    }

    pub(super) fn workload_started(&mut self, now: Instant) {
        self.started = Some(now);
        self.due = now.checked_add(Duration::from_millis(self.config.interval_ms));
    }

    /// When [`Self::task`] is to be asked.
    pub(super) const fn due(&self) -> Option<Instant> {
        self.due
    }

    /// What to do now, if it is time.
    pub(super) fn task(&mut self, now: Instant) -> Option<Task> {
        if self.due.is_none_or(|due| now < due) {
            return None;
        }
        self.due = None;
        match self.session {
            Some(session) => Some(Task::Kill(session)),
            None => Some(Task::Run(Box::new(self.process.clone()))),
        }
    }

    /// The check runs as this session from now on.
    pub(super) fn running(&mut self, session: u32, now: Instant) {
        self.session = Some(session);
        self.output.clear();
        self.report.started_ns = now_ns();
        self.due = now.checked_add(Duration::from_millis(self.config.timeout_ms));
    }

    pub(super) fn output(&mut self, bytes: &[u8]) {
        let room = MAX_OUTPUT.saturating_sub(self.output.len());
        self.output
            .extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    /// The check ended: with this code, or not at all in time.
    pub(super) fn ended(&mut self, code: Result<u8, &Failure>, now: Instant) -> &HealthReport {
        // Without a due time left, it was killed for taking too long.
        let late = self.due.is_none();
        self.session = None;
        self.due = now.checked_add(Duration::from_millis(self.config.interval_ms));
        let before = self.report.status;
        let mut output = String::from_utf8_lossy(&self.output).into_owned();
        let exit_code = match code {
            Ok(_) if late => {
                output = format!(
                    "Health check exceeded timeout ({} ms)",
                    self.config.timeout_ms
                );
                -1
            }
            Ok(code) => i32::from(code),
            Err(failure) => {
                output.clone_from(&failure.message);
                -1
            }
        };
        let report = &mut self.report;
        report.exit_code = exit_code;
        report.output = output;
        report.ended_ns = now_ns();
        let starting = self.started.is_some_and(|started| {
            now.duration_since(started) < Duration::from_millis(self.config.start_period_ms)
        });
        if exit_code == 0 {
            report.failing_streak = 0;
            report.status = HealthStatus::Healthy;
        } else if !(starting && before == HealthStatus::Starting) {
            report.failing_streak = report.failing_streak.saturating_add(1);
            if report.failing_streak >= self.config.retries.max(1) {
                report.status = HealthStatus::Unhealthy;
            }
        }
        report.changed = report.status != before;
        report
    }
}

fn now_ns() -> i64 {
    chrono::Utc::now().timestamp_nanos_opt().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_in_a_row_make_it_unhealthy_and_one_success_healthy() {
        let config = Health {
            argv: vec!["check".into()],
            interval_ms: 1000,
            timeout_ms: 500,
            start_period_ms: 2500,
            retries: 2,
        };
        let zero = Instant::now();
        let at = |ms| zero + Duration::from_millis(ms);
        let mut checker = Checker::new(config, &ProcessSpec::default());
        assert_eq!(checker.due(), None);
        checker.workload_started(zero);
        assert!(checker.task(at(999)).is_none());
        let mut check = |begin: u64, code: Option<u8>| {
            assert!(matches!(checker.task(at(begin)), Some(Task::Run(_))));
            checker.running(7, at(begin));
            match code {
                Some(code) => checker.ended(Ok(code), at(begin)).clone(),
                None => {
                    assert!(matches!(checker.task(at(begin + 500)), Some(Task::Kill(7))));
                    checker.ended(Ok(137), at(begin)).clone()
                }
            }
        };
        let early = check(1000, Some(1));
        assert_eq!(
            (early.status, early.failing_streak),
            (HealthStatus::Starting, 0)
        );
        assert_eq!(check(3000, Some(1)).failing_streak, 1);
        let late = check(4000, None);
        assert_eq!((late.status, late.exit_code), (HealthStatus::Unhealthy, -1));
        assert!(late.changed && late.output.contains("timeout"));
        let well = check(5000, Some(0));
        assert_eq!(
            (well.status, well.failing_streak),
            (HealthStatus::Healthy, 0)
        );
    }
}
