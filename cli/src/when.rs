//! Points in time as people type them.

use crate::failure::Failure;
use crate::life_args::Span;
use chrono::{DateTime, Local, NaiveDate, NaiveDateTime, TimeZone, Utc};

/// Nanoseconds since 1970 of a time stamp (RFC 3339, or without a zone, or only a date), of
/// seconds since 1970, or of so long ago (`10m`), as Docker takes them.
pub(crate) fn parse(text: &str) -> Result<i64, Failure> {
    let invalid = || {
        Failure::new(format!("{text:?} is not a time"))
            .with_hint("write 2026-11-21T12:00:00Z, 1795262400 or 10m")
    };
    let nanos = |time: DateTime<Utc>| time.timestamp_nanos_opt().ok_or_else(invalid);
    if let Ok(span) = text.parse::<Span>() {
        let nanos = i64::try_from(span.0.as_nanos()).map_err(|_| invalid())?;
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

/// Nanoseconds since 1970 as RFC 3339 with all digits.
pub(crate) fn rfc3339(ns: i64) -> String {
    DateTime::from_timestamp_nanos(ns).to_rfc3339_opts(chrono::SecondsFormat::Nanos, true)
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
