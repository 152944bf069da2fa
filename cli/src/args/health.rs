//! `--health-cmd` and the other flags of a health check.

use clap::Args;
use hullbox_model::time::parse_span;
use std::str::FromStr;
use std::time::Duration;

/// A span of time as Go writes it: `1m30s`, `500ms`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Span(Duration);

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

/// A span of time as Go parses it. Whether it may be negative depends on the flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SignedSpan {
    /// Without its sign.
    pub(crate) span: Duration,
    /// Less than zero.
    pub(crate) negative: bool,
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
    /// Command that checks its health
    #[arg(long, value_name = "COMMAND", allow_hyphen_values = true)]
    pub(crate) health_cmd: Option<String>,
    /// Time between two checks
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub(crate) health_interval: Option<SignedSpan>,
    /// Timeout of a check
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub(crate) health_timeout: Option<SignedSpan>,
    /// Consecutive failures that make it unhealthy
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub(crate) health_retries: Option<i64>,
    /// Time after the start in which failures are not counted
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub(crate) health_start_period: Option<SignedSpan>,
    /// Time between two checks in that period
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub(crate) health_start_interval: Option<SignedSpan>,
    /// No health checks
    #[arg(long)]
    pub(crate) no_healthcheck: bool,
}
