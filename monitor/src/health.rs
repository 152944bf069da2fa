//! Health checks: a process beside the workload, from time to time.

use hullbox_model::time::go_span;
use hullbox_plan::life::Health;
use hullbox_protocol::{Failure, ProcessSpec};
pub use hullbox_state::health::{HealthReport, HealthResult, HealthStatus};
use std::time::{Duration, Instant};

/// Bytes of a check's output that are kept.
const MAX_OUTPUT: usize = 4096;

/// Results that are kept, as Docker does.
const MAX_RESULTS: usize = 5;

/// What is due.
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
    /// When the workload started, later by the time that it was paused.
    started: Option<Instant>,
    due: Option<Instant>,
    /// Since when the container is paused. Its clock stands still meanwhile.
    held: Option<Instant>,
    check: Option<Check>,
}

/// The check that runs.
#[derive(Debug)]
struct Check {
    session: u32,
    began: Instant,
    began_ns: i64,
    output: Vec<u8>,
    /// There was more output than is kept.
    cut: bool,
    /// It was killed for taking too long.
    late: bool,
}

impl Checker {
    /// `log` is what earlier runs of the container left.
    pub(super) fn new(config: Health, workload: &ProcessSpec, log: Vec<HealthResult>) -> Self {
        let mut process = workload.clone();
        process.argv = config.argv.iter().map(|arg| arg.clone().into()).collect();
        process.terminal = None;
        process.stdin = false;
        process.builtin = None;
        Self {
            config,
            process,
            report: HealthReport {
                log,
                ..HealthReport::default()
            },
            started: None,
            due: None,
            held: None,
            check: None,
        }
    }

    pub(super) fn workload_started(&mut self, now: Instant) -> &HealthReport {
        self.started = Some(now);
        self.due = now.checked_add(self.interval(now));
        &self.report
    }

    /// When [`Self::task`] is to be asked.
    pub(super) const fn due(&self) -> Option<Instant> {
        match self.held {
            Some(_) => None,
            None => self.due,
        }
    }

    /// The container is paused, or goes on.
    pub(super) fn hold(&mut self, held: bool, now: Instant) {
        if held {
            self.held.get_or_insert(now);
        } else if let Some(since) = self.held.take() {
            let span = now.duration_since(since);
            for at in [&mut self.due, &mut self.started] {
                *at = at.and_then(|at| at.checked_add(span));
            }
        }
    }

    /// What to do now, if it is time.
    pub(super) fn task(&mut self, now: Instant) -> Option<Task> {
        if self.due().is_none_or(|due| now < due) {
            return None;
        }
        self.due = None;
        match &mut self.check {
            Some(check) => {
                check.late = true;
                Some(Task::Kill(check.session))
            }
            None => Some(Task::Run(Box::new(self.process.clone()))),
        }
    }

    /// The check runs as this session from now on.
    pub(super) fn running(&mut self, session: u32, now: Instant) {
        self.check = Some(Check {
            session,
            began: now,
            began_ns: now_ns(),
            output: Vec::new(),
            cut: false,
            late: false,
        });
        self.due = now.checked_add(Duration::from_millis(self.config.timeout_ms));
    }

    pub(super) fn output(&mut self, bytes: &[u8]) {
        if let Some(check) = &mut self.check {
            let room = MAX_OUTPUT.saturating_sub(check.output.len());
            check.cut |= bytes.len() > room;
            check
                .output
                .extend_from_slice(&bytes[..bytes.len().min(room)]);
        }
    }

    /// The check ended: with this code, or could not be run.
    pub(super) fn ended(&mut self, code: Result<u8, &Failure>, now: Instant) -> &HealthReport {
        if self.held.is_some() {
            // It was not, by the time that it ended.
            self.hold(false, now);
            self.hold(true, now);
        }
        let before = self.report.status;
        if let Some(check) = self.check.take() {
            let began = check.began;
            let result = check.result(code, &self.config);
            self.judge(result.exit_code == 0, began);
            let log = &mut self.report.log;
            log.push(result);
            log.drain(..log.len().saturating_sub(MAX_RESULTS));
        }
        self.report.changed = self.report.status != before;
        self.due = now.checked_add(self.interval(now));
        &self.report
    }

    /// What the success or failure of a check that began then means.
    fn judge(&mut self, success: bool, began: Instant) {
        let forgiven = self.is_starting(began);
        let report = &mut self.report;
        if success {
            report.failing_streak = 0;
            report.status = HealthStatus::Healthy;
        } else if !forgiven {
            report.failing_streak = report.failing_streak.saturating_add(1);
            if report.failing_streak >= self.config.retries.max(1) {
                report.status = HealthStatus::Unhealthy;
            }
        }
    }

    /// Whether no check has succeeded yet, and none has to.
    fn is_starting(&self, now: Instant) -> bool {
        let period = Duration::from_millis(self.config.start_period_ms);
        let early = |started| now.saturating_duration_since(started) < period;
        self.report.status == HealthStatus::Starting && self.started.is_some_and(early)
    }

    /// How long to wait for the next check.
    fn interval(&self, now: Instant) -> Duration {
        Duration::from_millis(if self.is_starting(now) {
            self.config.start_interval_ms
        } else {
            self.config.interval_ms
        })
    }
}

impl Check {
    fn result(self, code: Result<u8, &Failure>, config: &Health) -> HealthResult {
        let mut output = String::from_utf8_lossy(&self.output).into_owned();
        if self.cut {
            output.push_str("...");
        }
        let exit_code = match code {
            Ok(_) if self.late => {
                let limit = go_span(Duration::from_millis(config.timeout_ms));
                let colon = if output.is_empty() { "" } else { ": " };
                output = format!("Health check exceeded timeout ({limit}){colon}{output}");
                -1
            }
            Ok(code) => i32::from(code),
            Err(failure) => {
                output.clone_from(&failure.message);
                -1
            }
        };
        HealthResult {
            exit_code,
            output,
            started_ns: self.began_ns,
            ended_ns: now_ns(),
        }
    }
}

fn now_ns() -> i64 {
    chrono::Utc::now().timestamp_nanos_opt().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Health {
        Health {
            argv: vec!["check".into()],
            interval_ms: 1000,
            timeout_ms: 500,
            start_period_ms: 2500,
            start_interval_ms: 200,
            retries: 2,
        }
    }

    fn checker() -> Checker {
        Checker::new(config(), &ProcessSpec::default(), Vec::new())
    }

    /// A check at its time, which ends at once with a code, or takes too long.
    fn check(checker: &mut Checker, code: Option<u8>) -> HealthReport {
        let begin = checker.due().unwrap();
        assert!(matches!(checker.task(begin), Some(Task::Run(_))));
        checker.running(7, begin);
        checker.output(b"words");
        if let Some(code) = code {
            return checker.ended(Ok(code), begin).clone();
        }
        let late = begin + Duration::from_millis(500);
        assert_eq!(checker.due(), Some(late));
        assert!(matches!(checker.task(late), Some(Task::Kill(7))));
        checker.ended(Ok(137), late).clone()
    }

    #[test]
    fn failures_in_a_row_make_it_unhealthy_and_one_success_healthy() {
        let zero = Instant::now();
        let mut checker = checker();
        assert_eq!(checker.due(), None);
        checker.workload_started(zero);
        assert!(checker.task(zero + Duration::from_millis(199)).is_none());
        // At 200, 400, …, 2400 ms, a failure does not count.
        for at in 1..=12 {
            assert_eq!(checker.due(), Some(zero + Duration::from_millis(at * 200)));
            let early = check(&mut checker, Some(1));
            assert_eq!(early.status, HealthStatus::Starting);
            assert_eq!((early.failing_streak, early.changed), (0, false));
        }
        assert_eq!(check(&mut checker, Some(1)).failing_streak, 1);
        let late = check(&mut checker, None);
        assert_eq!(late.status, HealthStatus::Unhealthy);
        assert!(late.changed);
        let [.., before, last] = &late.log[..] else {
            panic!("{late:?}");
        };
        assert_eq!(late.log.len(), MAX_RESULTS);
        assert_eq!((before.exit_code, &before.output[..]), (1, "words"));
        let text = "Health check exceeded timeout (500ms): words";
        assert_eq!((last.exit_code, &last.output[..]), (-1, text));
        let well = check(&mut checker, Some(0));
        assert_eq!(well.status, HealthStatus::Healthy);
        assert_eq!((well.failing_streak, well.changed), (0, true));
    }

    #[test]
    fn a_success_ends_the_start_period() {
        let zero = Instant::now();
        let mut checker = checker();
        checker.workload_started(zero);
        assert!(check(&mut checker, Some(0)).changed);
        assert_eq!(checker.due(), Some(zero + Duration::from_millis(1200)));
        assert_eq!(check(&mut checker, Some(1)).failing_streak, 1);
        let after = check(&mut checker, Some(1));
        assert_eq!(after.status, HealthStatus::Unhealthy);
    }

    #[test]
    fn a_pause_takes_no_time() {
        let zero = Instant::now();
        let at = |ms| zero + Duration::from_millis(ms);
        let mut checker = checker();
        checker.workload_started(zero);
        assert!(matches!(checker.task(at(200)), Some(Task::Run(_))));
        checker.running(7, at(200));
        checker.hold(true, at(300));
        checker.hold(true, at(1000));
        assert_eq!(checker.due(), None);
        assert!(checker.task(at(60_000)).is_none());
        checker.hold(false, at(60_300));
        // Of 500 ms there are 400 left, and of the start period 2200.
        assert_eq!(checker.due(), Some(at(60_700)));
        assert!(checker.task(at(60_699)).is_none());
        let report = checker.ended(Ok(1), at(60_500)).clone();
        assert_eq!((report.failing_streak, report.log[0].exit_code), (0, 1));
        assert_eq!(checker.due(), Some(at(60_700)));
        // The end of a check is reported before the end of the pause that it went through.
        let next = checker.due().unwrap();
        assert!(matches!(checker.task(next), Some(Task::Run(_))));
        checker.running(8, next);
        checker.hold(true, next);
        let later = next + Duration::from_secs(60);
        let _ = checker.ended(Ok(1), later);
        checker.hold(false, later);
        assert_eq!(checker.due(), Some(later + Duration::from_millis(200)));
        checker.due = Some(at(60_700));
        // Nothing was held.
        checker.hold(false, at(60_600));
        assert_eq!(checker.due(), Some(at(60_700)));
    }

    #[test]
    fn output_is_cut_and_failures_to_run_are_told() {
        let zero = Instant::now();
        let earlier = HealthResult::default();
        let mut checker = Checker::new(config(), &ProcessSpec::default(), vec![earlier]);
        let report = checker.workload_started(zero);
        assert_eq!(
            (report.status, report.log.len()),
            (HealthStatus::Starting, 1)
        );
        checker.running(7, zero);
        checker.output(&[b'x'; 4000]);
        checker.output(&[b'y'; 97]);
        let report = checker.ended(Ok(0), zero);
        assert_eq!(report.log[1].output.len(), 4099);
        assert!(report.log[1].output.ends_with("y..."));
        checker.running(8, zero);
        let failure = Failure {
            kind: hullbox_protocol::FailureKind::NotFound,
            message: "no such program".into(),
        };
        let report = checker.ended(Err(&failure), zero);
        assert_eq!(report.log[2].exit_code, -1);
        assert_eq!(report.log[2].output, "no such program");
        // What an older program wrote of one check is no log.
        let old = r#"{"status":"healthy","failing_streak":0,"exit_code":0,"output":"",
            "started_ns":1,"ended_ns":2}"#;
        let old: HealthReport = serde_json::from_str(old).unwrap();
        assert_eq!((old.status, old.log.len()), (HealthStatus::Healthy, 0));
    }
}
