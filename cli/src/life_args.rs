//! The flags of `run` and `create` that say how a container lives on.

use crate::failure::Failure;
use clap::{Args, ValueEnum};
use hullbox_engine::monitor::control::{self, Command};
use hullbox_engine::plan::units::Bytes;
use hullbox_image::{HealthCheck, HealthTest};
use hullbox_model::time::parse_span;
use hullbox_session::client::Detach;
use std::str::FromStr;
use std::time::Duration;

/// `--log-driver`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogDriver {
    #[value(alias = "local")]
    JsonFile,
    None,
}

/// `--log-opt`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogOpt {
    MaxSize(u64),
    MaxFile(u32),
    /// Says what is so anyway.
    Same,
}

impl FromStr for LogOpt {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some(("max-size", size)) => {
                // As Docker has it.
                if size == "-1" {
                    return Ok(Self::MaxSize(u64::MAX));
                }
                let Bytes(bytes) = size.parse().map_err(|error| format!("max-size: {error}"))?;
                if bytes == 0 {
                    return Err("max-size must be more than 0, or -1 for no limit".to_owned());
                }
                Ok(Self::MaxSize(bytes))
            }
            Some(("max-file", count)) => match count.parse() {
                Ok(count @ 1..=1000) => Ok(Self::MaxFile(count)),
                _ => Err(format!(
                    "max-file: {count:?} is not a number from 1 to 1000"
                )),
            },
            // The log never holds a workload back, and no buffer is needed for that.
            Some(("mode", "blocking" | "non-blocking")) => Ok(Self::Same),
            Some(("mode", _)) => Err("mode is blocking or non-blocking".to_owned()),
            Some(("max-buffer-size", size)) => match size.parse::<Bytes>() {
                Ok(_) => Ok(Self::Same),
                Err(error) => Err(format!("max-buffer-size: {error}")),
            },
            Some(("compress", "false")) => Ok(Self::Same),
            Some(("compress", _)) => Err("log files are not compressed".to_owned()),
            Some((name @ ("labels" | "labels-regex" | "env" | "env-regex" | "tag"), _)) => Err(
                format!("{name} is not supported: lines carry no attributes"),
            ),
            Some((name, _)) => Err(format!("there is no log option {name:?}")),
            None => Err("expected max-size=SIZE or max-file=N".to_owned()),
        }
    }
}

/// A span of time as Go writes it: `1m30s`, `500ms`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span(pub(crate) Duration);

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        parse_span(text)
            .map(Self)
            .ok_or_else(|| format!("{text:?} is not a span of time such as 1m30s or 500ms"))
    }
}

/// `--health-cmd` and its family.
#[derive(Debug, Args)]
pub(crate) struct HealthArgs {
    /// Command that finds out whether it is well
    #[arg(long, value_name = "COMMAND")]
    health_cmd: Option<String>,
    /// Time between two checks
    #[arg(long, value_name = "TIME")]
    health_interval: Option<Span>,
    /// Time that a check may take
    #[arg(long, value_name = "TIME")]
    health_timeout: Option<Span>,
    /// Failures in a row that make it unhealthy
    #[arg(long, value_name = "N")]
    health_retries: Option<u32>,
    /// Time after a start in which failures do not count
    #[arg(long, value_name = "TIME")]
    health_start_period: Option<Span>,
    /// No health checks
    #[arg(long)]
    no_healthcheck: bool,
}

impl HealthArgs {
    pub(crate) fn check(&self) -> Result<HealthCheck, Failure> {
        let check = HealthCheck {
            test: self.health_cmd.as_ref().map(|command| {
                HealthTest::Run(["/bin/sh", "-c", command].map(str::to_owned).to_vec())
            }),
            interval: self.health_interval.map(|span| span.0),
            timeout: self.health_timeout.map(|span| span.0),
            start_period: self.health_start_period.map(|span| span.0),
            retries: self.health_retries,
        };
        if !self.no_healthcheck {
            return Ok(check);
        }
        if check != HealthCheck::default() {
            return Err(Failure::new(
                "--no-healthcheck conflicts with --health-* options",
            ));
        }
        Ok(HealthCheck {
            test: Some(HealthTest::Off),
            ..check
        })
    }
}

/// `--detach-keys`.
#[derive(Debug, Clone)]
pub(crate) struct DetachKeys(Vec<u8>);

impl Default for DetachKeys {
    /// Docker's: Ctrl-P, Ctrl-Q.
    fn default() -> Self {
        Self(vec![16, 17])
    }
}

impl FromStr for DetachKeys {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut keys = Vec::new();
        for key in text.split(',').filter(|_| !text.is_empty()) {
            let byte = match key.as_bytes() {
                [byte] if byte.is_ascii() => *byte,
                [
                    b'c',
                    b't',
                    b'r',
                    b'l',
                    b'-',
                    letter @ (b'a'..=b'z' | b'@' | b'['..=b'_'),
                ] => letter & 0x1f,
                _ => return Err(format!("{key:?} is no key: a letter, or ctrl-X")),
            };
            keys.push(byte);
        }
        Ok(Self(keys))
    }
}

impl DetachKeys {
    /// What the attaching side needs to know; `None` for no keys.
    pub(crate) fn detach(self) -> Option<Detach> {
        let frame = control::to_frame(&Command::Detach).ok()?;
        (!self.0.is_empty()).then_some(Detach {
            keys: self.0,
            frame,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_options_are_dockers_or_refused_with_a_reason() {
        let option = |text: &str| text.parse::<LogOpt>();
        assert_eq!(option("max-size=1k"), Ok(LogOpt::MaxSize(1024)));
        assert_eq!(option("max-size=-1"), Ok(LogOpt::MaxSize(u64::MAX)));
        assert_eq!(option("max-file=1"), Ok(LogOpt::MaxFile(1)));
        for same in ["mode=non-blocking", "max-buffer-size=4m", "compress=false"] {
            assert_eq!(option(same), Ok(LogOpt::Same), "{same}");
        }
        for (bad, why) in [
            ("max-size=0", "more than 0"),
            ("max-size=x", "max-size"),
            ("max-file=0", "max-file"),
            ("tag=x", "not supported"),
            ("compress=true", "not compressed"),
            ("frob=1", "frob"),
            ("max-size", "expected"),
        ] {
            let error = option(bad).unwrap_err();
            assert!(error.contains(why), "{bad}: {error}");
        }
    }

    #[test]
    fn keys_are_letters_or_controls() {
        let keys = |text: &str| text.parse::<DetachKeys>().map(|keys| keys.0);
        assert_eq!(keys("ctrl-p,ctrl-q"), Ok(vec![16, 17]));
        assert_eq!(keys("a,ctrl-]"), Ok(vec![b'a', 29]));
        assert_eq!(keys(""), Ok(vec![]));
        assert!(keys("ctrl-pp").is_err());
    }
}
