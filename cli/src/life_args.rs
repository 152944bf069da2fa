//! The flags of `run` and `create` that say how a container lives on.

use crate::failure::Failure;
use clap::{Args, ValueEnum};
use hullbox_engine::monitor::control::{self, Command};
use hullbox_engine::plan::life::Health;
use hullbox_engine::plan::units::Bytes;
use hullbox_session::client::Detach;
use std::str::FromStr;

/// `--log-driver`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogDriver {
    JsonFile,
    None,
}

/// `--log-opt`.
#[derive(Debug, Clone, Copy)]
pub(crate) enum LogOpt {
    MaxSize(u64),
    MaxFile(u32),
}

impl FromStr for LogOpt {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some(("max-size", size)) => {
                let Bytes(bytes) = size.parse().map_err(|error| format!("{error}"))?;
                if bytes < 4096 {
                    return Err("max-size must be at least 4k".to_owned());
                }
                Ok(Self::MaxSize(bytes))
            }
            Some(("max-file", count)) => match count.parse() {
                Ok(count @ 1..=1000) => Ok(Self::MaxFile(count)),
                _ => Err(format!("{count:?} is not a number from 1 to 1000")),
            },
            _ => Err("expected max-size=SIZE or max-file=N".to_owned()),
        }
    }
}

/// A span of time as Go writes it: `1m30s`, `500ms`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) ms: u64,
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let invalid = || format!("{text:?} is not a span of time such as 1m30s or 500ms");
        let mut rest = text;
        let mut total_ms = 0.0f64;
        if rest == "0" {
            return Ok(Self { ms: 0 });
        }
        if rest.is_empty() {
            return Err(invalid());
        }
        while !rest.is_empty() {
            let digits = rest
                .find(|c: char| !c.is_ascii_digit() && c != '.')
                .ok_or_else(invalid)?;
            let value: f64 = rest[..digits].parse().map_err(|_| invalid())?;
            rest = &rest[digits..];
            let unit = rest
                .find(|c: char| c.is_ascii_digit())
                .unwrap_or(rest.len());
            let scale = match &rest[..unit] {
                "ns" => 1e-6,
                "us" | "µs" => 1e-3,
                "ms" => 1.0,
                "s" => 1e3,
                "m" => 60e3,
                "h" => 3600e3,
                _ => return Err(invalid()),
            };
            rest = &rest[unit..];
            total_ms += value * scale;
        }
        if total_ms > 1e15 {
            return Err(invalid());
        }
        // Positive and in range, as was just seen.
        Ok(Self {
            ms: total_ms.round() as u64,
        })
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
    pub(crate) fn health(&self) -> Result<Option<Health>, Failure> {
        let Some(command) = self.health_cmd.as_ref().filter(|_| !self.no_healthcheck) else {
            let given = self.health_interval.is_some()
                || self.health_timeout.is_some()
                || self.health_retries.is_some()
                || self.health_start_period.is_some();
            if given && !self.no_healthcheck {
                return Err(Failure::new("there is no health check to set this for")
                    .with_hint("say what to run with --health-cmd"));
            }
            return Ok(None);
        };
        let default = Health::default();
        let ms = |span: Option<Span>, default| span.map_or(default, |span| span.ms.max(1));
        Ok(Some(Health {
            argv: ["/bin/sh", "-c", command].map(str::to_owned).to_vec(),
            interval_ms: ms(self.health_interval, default.interval_ms),
            timeout_ms: ms(self.health_timeout, default.timeout_ms),
            start_period_ms: self.health_start_period.map_or(0, |span| span.ms),
            retries: self.health_retries.unwrap_or(default.retries),
        }))
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
    fn spans_of_time_are_gos() {
        let ms = |text: &str| text.parse::<Span>().map(|span| span.ms);
        assert_eq!(ms("1m30s"), Ok(90_000));
        assert_eq!(ms("500ms"), Ok(500));
        assert_eq!(ms("1.5h"), Ok(5_400_000));
        assert_eq!(ms("0"), Ok(0));
        for bad in ["", "5", "s", "1x", "-1s", "1s2"] {
            assert!(ms(bad).is_err(), "{bad}");
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
