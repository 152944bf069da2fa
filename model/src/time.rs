//! Points and spans of time as people type them: `--since`, `--until`, `--health-interval`.

use chrono::{DateTime, Local, NaiveDate, NaiveDateTime, Offset, TimeZone, Utc};
use std::time::Duration;

/// A text that is no point in time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a time such as 2026-11-21T12:00:00Z, 1795262400 or 10m")]
pub struct TimeError(String);

/// Nanoseconds since 1970 of a time stamp (RFC 3339, or without a zone, or only a date), of
/// seconds since 1970, or of so long ago (`10m`), as Docker takes them.
///
/// # Errors
///
/// The text is none of these, or beyond the years that 64 bits of nanoseconds hold.
pub fn parse(text: &str) -> Result<i64, TimeError> {
    let invalid = || TimeError(text.to_owned());
    let nanos = |time: DateTime<Utc>| time.timestamp_nanos_opt().ok_or_else(invalid);
    if let Some(span) = parse_span(text) {
        let nanos = i64::try_from(span.as_nanos()).map_err(|_| invalid())?;
        let now = Utc::now().timestamp_nanos_opt().ok_or_else(invalid)?;
        return Ok(now.saturating_sub(nanos));
    }
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return nanos(time.to_utc());
    }
    let local = |time: NaiveDateTime| {
        Local
            .from_local_datetime(&time)
            .earliest()
            .map(|time| time.to_utc())
            .ok_or_else(invalid)
    };
    for form in ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%dT%H:%M"] {
        if let Ok(time) = NaiveDateTime::parse_from_str(text, form) {
            return nanos(local(time)?);
        }
    }
    if let Ok(date) = NaiveDate::parse_from_str(text, "%Y-%m-%d") {
        return nanos(local(date.and_hms_opt(0, 0, 0).ok_or_else(invalid)?)?);
    }
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = seconds.parse().map_err(|_| invalid())?;
    let digits: String = fraction
        .chars()
        .chain("000000000".chars())
        .take(9)
        .collect();
    let fraction: i64 = digits.parse().map_err(|_| invalid())?;
    seconds
        .checked_mul(1_000_000_000)
        .and_then(|ns| ns.checked_add(fraction))
        .ok_or_else(invalid)
}

/// `2 hours`, as Docker words a span of so many seconds.
#[must_use]
pub fn words(seconds: u64) -> String {
    // Only hours are rounded.
    let (minutes, hours) = (seconds / 60, seconds.saturating_add(1800) / 3600);
    match () {
        () if seconds < 1 => "Less than a second".to_owned(),
        () if seconds == 1 => "1 second".to_owned(),
        () if seconds < 60 => format!("{seconds} seconds"),
        () if minutes == 1 => "About a minute".to_owned(),
        () if minutes < 60 => format!("{minutes} minutes"),
        () if hours == 1 => "About an hour".to_owned(),
        () if hours < 48 => format!("{hours} hours"),
        () if hours < 24 * 14 => format!("{} days", hours / 24),
        () if hours < 24 * 60 => format!("{} weeks", hours / 24 / 7),
        () if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        () => format!("{} years", hours / 24 / 365),
    }
}

/// Seconds since 1970 as Docker's client prints a time in a listing: `2026-11-29 12:00:00 +0000 UTC`,
/// in the zone of this process. A zone that is not UTC's is named by its offset, as Go names one that
/// has no abbreviation: `2026-11-29 17:30:00 +0530 +0530`.
#[must_use]
pub fn local(seconds: i64) -> String {
    let utc = DateTime::from_timestamp(seconds, 0).unwrap_or_default();
    in_zone(&utc.with_timezone(&Local))
}

fn in_zone<Z: TimeZone>(time: &DateTime<Z>) -> String
where
    Z::Offset: std::fmt::Display,
{
    let offset = time.offset().fix();
    let shown = time.format("%Y-%m-%d %H:%M:%S %z");
    if offset.local_minus_utc() == 0 {
        return format!("{shown} UTC");
    }
    let zone = time.format("%z").to_string();
    // Go leaves out minutes that are none.
    format!("{shown} {}", zone.strip_suffix("00").unwrap_or(&zone))
}

/// Whether a text is a time stamp of RFC 3339.
#[must_use]
pub fn is_rfc3339(text: &str) -> bool {
    DateTime::parse_from_rfc3339(text).is_ok()
}

/// What Docker says of a time that never was.
pub const NEVER: &str = "0001-01-01T00:00:00Z";

/// The same in seconds since 1970.
pub const NEVER_S: i64 = -62_135_596_800;

/// Nanoseconds since 1970 as RFC 3339 with all digits.
#[must_use]
pub fn rfc3339(ns: i64) -> String {
    DateTime::from_timestamp_nanos(ns).to_rfc3339_opts(chrono::SecondsFormat::Nanos, true)
}

/// A span of time as Go writes it: `1m30s`, `500ms`.
#[must_use]
pub fn parse_span(text: &str) -> Option<Duration> {
    /// More than a Go span can hold, in seconds.
    const MAX_S: f64 = 1e10;
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text;
    let mut total_s = 0.0f64;
    loop {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let value: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit = rest
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(rest.len());
        let scale = match &rest[..unit] {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        rest = &rest[unit..];
        total_s += value * scale;
        if total_s > MAX_S {
            return None;
        }
        if rest.is_empty() {
            return Duration::try_from_secs_f64(total_s).ok();
        }
    }
}

/// A span of time as Go prints it: `1m30s`, `1h0m0s`, `1.5ms`.
#[must_use]
pub fn go_span(span: Duration) -> String {
    /// A number of thousandths, millionths, … with as many digits as it needs.
    fn decimal(whole: u64, fraction: u64, digits: usize) -> String {
        let text = format!("{whole}.{fraction:0digits$}");
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    }
    let (seconds, ns) = (span.as_secs(), u64::from(span.subsec_nanos()));
    match (seconds, ns) {
        (0, 0) => return "0s".to_owned(),
        (0, 1..1_000) => return format!("{ns}ns"),
        (0, 1_000..1_000_000) => return decimal(ns / 1_000, ns % 1_000, 3) + "µs",
        (0, _) => return decimal(ns / 1_000_000, ns % 1_000_000, 6) + "ms",
        _ => {}
    }
    let rest = decimal(seconds % 60, ns, 9) + "s";
    match (seconds / 3600, seconds / 60) {
        (0, 0) => rest,
        (0, minutes) => format!("{minutes}m{rest}"),
        (hours, minutes) => format!("{hours}h{}m{rest}", minutes % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listings_have_dockers_times() {
        let at = |offset_s: i32| {
            let zone = chrono::FixedOffset::east_opt(offset_s).unwrap();
            let utc = DateTime::from_timestamp(1_795_953_600, 0).unwrap();
            in_zone(&utc.with_timezone(&zone))
        };
        assert_eq!(at(0), "2026-11-29 12:00:00 +0000 UTC");
        assert_eq!(at(-3 * 3600), "2026-11-29 09:00:00 -0300 -03");
        assert_eq!(at(5 * 3600 + 1800), "2026-11-29 17:30:00 +0530 +0530");
    }

    #[test]
    fn spans_are_printed_as_go_does() {
        for (ns, text) in [
            (0, "0s"),
            (7, "7ns"),
            (1_500, "1.5µs"),
            (400_000_000, "400ms"),
            (1_001_000, "1.001ms"),
            (1_500_000_000, "1.5s"),
            (30_000_000_000, "30s"),
            (60_000_000_000, "1m0s"),
            (90_000_000_000, "1m30s"),
            (3_600_000_000_000, "1h0m0s"),
            (90_061_000_000_001, "25h1m1.000000001s"),
        ] {
            let span = Duration::from_nanos(ns);
            assert_eq!(go_span(span), text);
            assert_eq!(parse_span(text).unwrap().as_millis(), span.as_millis());
        }
    }

    #[test]
    fn times_are_read_in_every_form() {
        let parse = |text: &str| super::parse(text).ok();
        assert_eq!(parse("1970-01-01T00:00:01.5Z"), Some(1_500_000_000));
        assert_eq!(parse("1970-01-01T01:00:00+01:00"), Some(0));
        assert_eq!(parse("12.25"), Some(12_250_000_000));
        let now = Utc::now().timestamp_nanos_opt().unwrap();
        let ago = parse("1h").unwrap();
        assert!((now - ago - 3_600_000_000_000).abs() < 60_000_000_000);
        assert!(parse("2026-02-01").is_some());
        for bad in ["yesterday", "", "1.x", "2026-13-01"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
        assert_eq!(rfc3339(1), "1970-01-01T00:00:00.000000001Z");
    }

    #[test]
    fn spans_of_time_are_gos() {
        let ms = |text: &str| parse_span(text).map(|span| span.as_millis());
        assert_eq!(ms("1m30s"), Some(90_000));
        assert_eq!(ms("500ms"), Some(500));
        assert_eq!(ms("1.5h"), Some(5_400_000));
        assert_eq!(ms("0"), Some(0));
        for bad in ["", "5", "s", "1x", "-1s", "1s2", "99999999999h", ".s"] {
            assert_eq!(ms(bad), None, "{bad}");
        }
    }

    #[test]
    fn durations_read_well() {
        for (seconds, expected) in [
            (0, "Less than a second"),
            (59, "59 seconds"),
            (61, "About a minute"),
            (3599, "59 minutes"),
            (3600, "About an hour"),
            (6000, "2 hours"),
            (86_400 * 3, "3 days"),
            (86_400 * 800, "2 years"),
        ] {
            assert_eq!(words(seconds), expected);
        }
    }
}
