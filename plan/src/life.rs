//! How a container lives beyond one run of its workload.

use hullbox_image::{HealthCheck, HealthTest};
use serde::{Deserialize, Serialize};
use std::str::FromStr;
use std::time::Duration;

use super::units::ValueError;

/// Docker's default: how long `stop` waits before it kills.
pub const STOP_TIMEOUT_S: u32 = 10;

/// All of it. What an older record does not say is as by default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Life {
    /// `--stop-timeout`, in seconds; -1 waits for ever.
    pub stop_timeout_s: Option<i64>,
    /// `--restart`.
    pub restart: Restart,
    /// `--log-driver` and `--log-opt`.
    pub log: LogOptions,
    /// `--health-cmd` and its family, or the image's HEALTHCHECK.
    pub health: Option<Health>,
    /// `--no-healthcheck`, or an image that says so.
    pub no_health: bool,
    /// What was typed of health checks over what the image says, before defaults fill it up. Older
    /// records do not have it: see [`Self::check`].
    pub configured_health: Option<HealthCheck>,
    /// Standard input ends with the first client that was attached to it.
    pub stdin_once: bool,
}

/// When a container that ended is started again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Restart {
    /// Never.
    #[default]
    No,
    /// When it failed, so many times; 0 is without end.
    OnFailure(u32),
    /// Whenever it was not stopped.
    Always,
    /// The same, as long as there is no daemon to restart.
    UnlessStopped,
}

impl FromStr for Restart {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let invalid = || {
            ValueError::new(format!(
                "{text:?} is not one of no, always, unless-stopped, on-failure[:N]"
            ))
        };
        let (name, count) = match text.split_once(':') {
            Some((name, count)) => (name, Some(count)),
            None => (text, None),
        };
        match (name, count) {
            ("no" | "", None) => Ok(Self::No),
            ("always", None) => Ok(Self::Always),
            ("unless-stopped", None) => Ok(Self::UnlessStopped),
            ("on-failure", None) => Ok(Self::OnFailure(0)),
            ("on-failure", Some(count)) => {
                count.parse().map(Self::OnFailure).map_err(|_| invalid())
            }
            _ => Err(invalid()),
        }
    }
}

impl Restart {
    /// Whether a container that ended with this code, and was not stopped, is started again.
    #[must_use]
    pub const fn applies(self, exit_code: u8, restarts: u32) -> bool {
        match self {
            Self::No => false,
            Self::OnFailure(0) => exit_code != 0,
            Self::OnFailure(most) => exit_code != 0 && restarts < most,
            Self::Always | Self::UnlessStopped => true,
        }
    }

    /// Docker's name and count.
    #[must_use]
    pub const fn parts(self) -> (&'static str, u32) {
        match self {
            Self::No => ("no", 0),
            Self::OnFailure(count) => ("on-failure", count),
            Self::Always => ("always", 0),
            Self::UnlessStopped => ("unless-stopped", 0),
        }
    }
}

/// What is kept of the workload's output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogOptions {
    /// `--log-driver`: `json-file` or `none`.
    pub keep: bool,
    /// `--log-opt max-size=`: size at which a file is closed and the next begun, in bytes.
    pub max_size_bytes: u64,
    /// `--log-opt max-file=`: how many files there are at most.
    pub max_files: u32,
}

impl Default for LogOptions {
    /// A chatty container must not fill the disk of somebody who never thought of its log.
    fn default() -> Self {
        Self {
            keep: true,
            max_size_bytes: 10 << 20,
            max_files: 3,
        }
    }
}

/// How to find out whether the workload is well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// What to run in the container.
    pub argv: Vec<String>,
    /// From the end of one check to the next, in milliseconds.
    pub interval_ms: u64,
    /// How long one may take, in milliseconds.
    pub timeout_ms: u64,
    /// How long failures do not count after a start, in milliseconds.
    pub start_period_ms: u64,
    /// From the end of one check to the next meanwhile, until one succeeds, in milliseconds.
    #[serde(default = "default_start_interval_ms")]
    pub start_interval_ms: u64,
    /// Failures in a row that make it unhealthy.
    pub retries: u32,
}

const fn default_start_interval_ms() -> u64 {
    5_000
}

impl Default for Health {
    /// Docker's values.
    fn default() -> Self {
        Self {
            argv: Vec::new(),
            interval_ms: 30_000,
            timeout_ms: 30_000,
            start_period_ms: 0,
            start_interval_ms: default_start_interval_ms(),
            retries: 3,
        }
    }
}

impl Life {
    /// Its health check as an image has it, or that there is to be none; `None` if nobody ever said
    /// anything.
    #[must_use]
    pub fn check(&self) -> Option<HealthCheck> {
        let none = || HealthCheck {
            test: Some(HealthTest::Off),
            ..HealthCheck::default()
        };
        let check = self.configured_health.clone();
        let check = check.or_else(|| self.health.as_ref().map(Health::check));
        check.or_else(|| self.no_health.then(none))
    }
}

impl Health {
    /// As an image has it.
    fn check(&self) -> HealthCheck {
        HealthCheck {
            test: Some(HealthTest::Run(self.argv.clone())),
            interval: Some(Duration::from_millis(self.interval_ms)),
            timeout: Some(Duration::from_millis(self.timeout_ms)),
            start_period: Some(Duration::from_millis(self.start_period_ms)),
            start_interval: None,
            retries: Some(self.retries),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restart_policies_are_read_and_applied() {
        let parse = |text: &str| text.parse::<Restart>();
        assert_eq!(parse("no").unwrap(), Restart::No);
        assert_eq!(parse("on-failure:3").unwrap(), Restart::OnFailure(3));
        assert_eq!(parse("unless-stopped").unwrap(), Restart::UnlessStopped);
        for bad in ["on-failure:x", "always:2", "sometimes", "on-failure:-1"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert!(Restart::OnFailure(2).applies(1, 1));
        assert!(!Restart::OnFailure(2).applies(1, 2));
        assert!(!Restart::OnFailure(0).applies(0, 0));
        assert!(Restart::Always.applies(0, 1000));
    }
}
