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
            .ok_or_else(|| Self::complain(text))
    }
}

impl Span {
    fn complain(text: &str) -> String {
        format!("{text:?} is not a span of time such as 1m30s or 500ms")
    }
}

/// A span of time as Go reads it, whose sign is judged where its meaning is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SignedSpan {
    span: Duration,
    negative: bool,
}

impl FromStr for SignedSpan {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (negative, unsigned) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        let Span(span) = unsigned.parse().map_err(|_| Span::complain(text))?;
        let negative = negative && !span.is_zero();
        Ok(Self { span, negative })
    }
}

/// `--health-cmd` and its family.
#[derive(Debug, Args)]
pub(crate) struct HealthArgs {
    /// Command that finds out whether it is well
    #[arg(long, value_name = "COMMAND", allow_hyphen_values = true)]
    health_cmd: Option<String>,
    /// Time between two checks
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    health_interval: Option<SignedSpan>,
    /// Time that a check may take
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    health_timeout: Option<SignedSpan>,
    /// Failures in a row that make it unhealthy
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    health_retries: Option<i64>,
    /// Time after a start in which failures do not count
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    health_start_period: Option<SignedSpan>,
    /// Time between two checks meanwhile, until one succeeds
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    health_start_interval: Option<SignedSpan>,
    /// No health checks
    #[arg(long)]
    no_healthcheck: bool,
}

impl HealthArgs {
    /// What was typed; Docker's words for what makes no sense.
    pub(crate) fn check(&self) -> Result<HealthCheck, Failure> {
        let command = self.health_cmd.as_ref().filter(|text| !text.is_empty());
        let mut spans = [
            ("interval", "Interval", self.health_interval),
            ("timeout", "Timeout", self.health_timeout),
            ("start-period", "StartPeriod", self.health_start_period),
            (
                "start-interval",
                "StartInterval",
                self.health_start_interval,
            ),
        ];
        for (_, _, span) in &mut spans {
            *span = span.filter(|span| !span.span.is_zero());
        }
        let retries = self.health_retries.filter(|count| *count != 0);
        let typed = command.is_some() || retries.is_some() || spans.iter().any(|s| s.2.is_some());
        if self.no_healthcheck {
            return match typed {
                true => Err(Failure::new(
                    "--no-healthcheck conflicts with --health-* options",
                )),
                false => Ok(HealthCheck {
                    test: Some(HealthTest::Off),
                    ..HealthCheck::default()
                }),
            };
        }
        let negative = |flag| Failure::new(format!("--health-{flag} cannot be negative"));
        for (flag, field, span) in spans {
            match span {
                Some(span) if span.negative => return Err(negative(flag)),
                Some(span) if span.span < Duration::from_millis(1) => {
                    let why = format!("{field} in Healthcheck cannot be less than 1ms");
                    return Err(Failure::new(why));
                }
                _ => {}
            }
        }
        let retries = retries.map(|count| match count {
            ..0 => Err(negative("retries")),
            count => Ok(u32::try_from(count).unwrap_or(u32::MAX)),
        });
        let [interval, timeout, start_period, start_interval] =
            spans.map(|(_, _, span)| span.map(|span| span.span));
        Ok(HealthCheck {
            test: command.map(|command| {
                HealthTest::Run(["/bin/sh", "-c", command].map(str::to_owned).to_vec())
            }),
            interval,
            timeout,
            start_period,
            start_interval,
            retries: retries.transpose()?,
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
    fn health_checks_that_make_no_sense_are_refused_in_dockers_words() {
        #[derive(Debug, clap::Parser)]
        struct Typed {
            #[command(flatten)]
            health: HealthArgs,
        }
        let check = |line: &str| {
            let typed = <Typed as clap::Parser>::try_parse_from(line.split(' '));
            typed.expect("it parses").health.check()
        };
        for (line, why) in [
            (
                "x --health-interval -1s",
                "--health-interval cannot be negative",
            ),
            (
                "x --health-timeout=-1m",
                "--health-timeout cannot be negative",
            ),
            (
                "x --health-start-period -1ms",
                "--health-start-period cannot be negative",
            ),
            (
                "x --health-start-interval -1s",
                "--health-start-interval cannot be negative",
            ),
            (
                "x --health-retries -1",
                "--health-retries cannot be negative",
            ),
            (
                "x --health-interval 1us",
                "Interval in Healthcheck cannot be less than 1ms",
            ),
            (
                "x --health-start-interval 999us",
                "StartInterval in Healthcheck cannot be",
            ),
            (
                "x --no-healthcheck --health-retries 1",
                "conflicts with --health-* options",
            ),
        ] {
            let failure = check(line).unwrap_err();
            assert!(format!("{failure:?}").contains(why), "{line}: {failure:?}");
        }
        for nothing in [
            "x --health-cmd= --health-interval 0 --health-timeout -0s --health-retries 0",
            "x",
        ] {
            assert_eq!(check(nothing).unwrap(), HealthCheck::default());
        }
        let off = check("x --no-healthcheck --health-interval 0s").unwrap();
        assert_eq!(off.test, Some(HealthTest::Off));
        let checked = check("x --health-cmd true --health-start-interval 1.5s").unwrap();
        assert_eq!(checked.start_interval, Some(Duration::from_millis(1500)));
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
