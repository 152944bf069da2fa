//! `HEALTHCHECK`: how an image wants to be asked whether it is well.
//!
//! The field is Docker's and not the image specification's: `config.Healthcheck`, spans of time in
//! nanoseconds, what is left out or 0 being the default.

use hullbox_model::time::parse_span;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::time::Duration;

/// An image's `HEALTHCHECK`; `None` is not said.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthCheck {
    /// What to run.
    pub test: Option<HealthTest>,
    /// From the end of one check to the next.
    pub interval: Option<Duration>,
    /// How long one may take.
    pub timeout: Option<Duration>,
    /// How long failures do not count after a start.
    pub start_period: Option<Duration>,
    /// From the end of one check to the next meanwhile, until one succeeds.
    pub start_interval: Option<Duration>,
    /// Failures in a row that make it unhealthy.
    pub retries: Option<u32>,
}

/// What to run as a check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum HealthTest {
    /// Nothing, whatever the parent image said.
    Off,
    /// Program and arguments.
    Run(Vec<String>),
}

/// Why a `Healthcheck` is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HealthCheckError {
    /// Not an object with the fields' types.
    #[error("its Healthcheck is not of the right form")]
    Form,
    /// A time or a count below zero or beyond all reason.
    #[error("a number of its Healthcheck is out of range")]
    Range,
    /// `CMD` and `CMD-SHELL` need more.
    #[error("its Healthcheck says no command")]
    NoCommand,
    /// Docker has three words for the beginning of a test.
    #[error("its Healthcheck is none of NONE, CMD and CMD-SHELL")]
    Kind,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[derive(Default)]
struct Raw {
    test: Option<Vec<String>>,
    interval: Option<i64>,
    timeout: Option<i64>,
    start_period: Option<i64>,
    start_interval: Option<i64>,
    retries: Option<i64>,
}

impl HealthCheck {
    /// Reads it out of the `config` object of an image's configuration.
    #[must_use]
    pub fn of_config(config: &Value) -> Option<Result<Self, HealthCheckError>> {
        let value = config.get("Healthcheck").filter(|value| !value.is_null())?;
        Some(Self::parse(value, config.get("Shell")))
    }

    fn parse(value: &Value, shell: Option<&Value>) -> Result<Self, HealthCheckError> {
        let raw = Raw::deserialize(value).map_err(|_| HealthCheckError::Form)?;
        let span = |ns: Option<i64>| match u64::try_from(ns.unwrap_or(0)) {
            Ok(0) => Ok(None),
            Ok(ns) => Ok(Some(Duration::from_nanos(ns))),
            Err(_) => Err(HealthCheckError::Range),
        };
        let retries = u32::try_from(raw.retries.unwrap_or(0));
        Ok(Self {
            test: test(raw.test.unwrap_or_default(), shell)?,
            interval: span(raw.interval)?,
            timeout: span(raw.timeout)?,
            start_period: span(raw.start_period)?,
            start_interval: span(raw.start_interval)?,
            retries: Some(retries.map_err(|_| HealthCheckError::Range)?).filter(|n| *n > 0),
        })
    }

    /// As a configuration has it.
    #[must_use]
    pub fn to_value(&self) -> Value {
        let mut fields = Map::new();
        match &self.test {
            None => {}
            Some(HealthTest::Off) => drop(fields.insert("Test".into(), json!(["NONE"]))),
            Some(HealthTest::Run(argv)) => {
                let words = match &argv[..] {
                    [shell, flag, command] if shell == SHELL[0] && flag == SHELL[1] => {
                        vec!["CMD-SHELL", command]
                    }
                    argv => {
                        let argv = argv.iter().map(String::as_str);
                        std::iter::once("CMD").chain(argv).collect()
                    }
                };
                fields.insert("Test".into(), json!(words));
            }
        }
        for (name, span) in [
            ("Interval", self.interval),
            ("Timeout", self.timeout),
            ("StartPeriod", self.start_period),
            ("StartInterval", self.start_interval),
        ] {
            if let Some(span) = span.filter(|span| !span.is_zero()) {
                let ns = i64::try_from(span.as_nanos()).unwrap_or(i64::MAX);
                fields.insert(name.into(), json!(ns));
            }
        }
        if let Some(retries) = self.retries.filter(|retries| *retries > 0) {
            fields.insert("Retries".into(), json!(retries));
        }
        Value::Object(fields)
    }
}

/// What `CMD-SHELL` runs its text with, unless the image has another `SHELL`.
const SHELL: [&str; 2] = ["/bin/sh", "-c"];

fn test(words: Vec<String>, shell: Option<&Value>) -> Result<Option<HealthTest>, HealthCheckError> {
    let mut words = words.into_iter();
    let Some(kind) = words.next() else {
        return Ok(None);
    };
    let mut argv = match &kind[..] {
        "NONE" => return Ok(Some(HealthTest::Off)),
        "CMD" => Vec::new(),
        "CMD-SHELL" => shell
            .and_then(|shell| Vec::<String>::deserialize(shell).ok())
            .filter(|shell| !shell.is_empty())
            .unwrap_or_else(|| SHELL.map(str::to_owned).to_vec()),
        _ => return Err(HealthCheckError::Kind),
    };
    let before = argv.len();
    argv.extend(words);
    if argv.len() == before {
        return Err(HealthCheckError::NoCommand);
    }
    Ok(Some(HealthTest::Run(argv)))
}

/// What follows `HEALTHCHECK` in a Dockerfile: `NONE`, or flags and `CMD …`. `command` makes words
/// of what follows `CMD`. `None` is neither.
pub(crate) fn instruction(
    argument: &str,
    command: impl FnOnce(&str) -> Vec<String>,
) -> Option<HealthCheck> {
    if argument.eq_ignore_ascii_case("NONE") {
        return Some(HealthCheck {
            test: Some(HealthTest::Off),
            ..HealthCheck::default()
        });
    }
    let mut check = HealthCheck::default();
    let mut rest = argument;
    loop {
        let (word, after) = rest.split_once(char::is_whitespace)?;
        rest = after.trim_start();
        let Some(flag) = word.strip_prefix("--") else {
            let argv = command(rest);
            let is_cmd = word.eq_ignore_ascii_case("CMD") && !argv.is_empty();
            check.test = is_cmd.then_some(HealthTest::Run(argv));
            return check.test.is_some().then_some(check);
        };
        let (name, value) = flag.split_once('=')?;
        match name {
            "interval" => check.interval = Some(parse_span(value)?),
            "timeout" => check.timeout = Some(parse_span(value)?),
            "start-period" => check.start_period = Some(parse_span(value)?),
            "start-interval" => check.start_interval = Some(parse_span(value)?),
            "retries" => check.retries = Some(value.parse().ok()?),
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(config: Value) -> Option<Result<HealthCheck, HealthCheckError>> {
        HealthCheck::of_config(&config)
    }

    #[test]
    fn dockers_three_forms_are_understood_and_written_again() {
        let run = |argv: &[&str]| {
            let argv = argv.iter().map(|&word| word.to_owned()).collect();
            Some(HealthTest::Run(argv))
        };
        for (test, wanted) in [
            (json!(["NONE"]), Some(HealthTest::Off)),
            (json!(["CMD", "/check", "-q"]), run(&["/check", "-q"])),
            (
                json!(["CMD-SHELL", "test -e /x"]),
                run(&["/bin/sh", "-c", "test -e /x"]),
            ),
            (json!([]), None),
        ] {
            let (s5, s2) = (5_000_000_000i64, 2_000_000_000i64);
            let config = json!({"Test": test, "Interval": s5, "StartInterval": s2});
            let check = parse(json!({"Healthcheck": config})).unwrap().unwrap();
            assert_eq!(check.start_interval, Some(Duration::from_secs(2)));
            assert_eq!(check.test, wanted);
            assert_eq!(check.interval, Some(Duration::from_secs(5)));
            let again = parse(json!({"Healthcheck": check.to_value()}));
            assert_eq!(again, Some(Ok(check)));
        }
        let shell =
            json!({"Healthcheck": {"Test": ["CMD-SHELL", "x"]}, "Shell": ["/bin/ash", "-ec"]});
        let check = parse(shell).unwrap().unwrap();
        assert_eq!(check.test, run(&["/bin/ash", "-ec", "x"]));
        assert_eq!(
            check.to_value()["Test"],
            json!(["CMD", "/bin/ash", "-ec", "x"])
        );
        assert_eq!(parse(json!({"Healthcheck": null})), None);
        assert_eq!(parse(json!({})), None);
    }

    #[test]
    fn what_makes_no_sense_is_an_error() {
        use HealthCheckError as E;
        for (value, error) in [
            (json!("x"), E::Form),
            (json!({"Test": "CMD true"}), E::Form),
            (json!({"Test": [1]}), E::Form),
            (json!({"Test": ["CMD"]}), E::NoCommand),
            (json!({"Test": ["CMD-SHELL"]}), E::NoCommand),
            (json!({"Test": ["SOMETIMES", "x"]}), E::Kind),
            (json!({"Test": ["CMD", "x"], "Interval": -1}), E::Range),
            (
                json!({"Test": ["CMD", "x"], "Retries": 1u64 << 40}),
                E::Range,
            ),
            (json!({"Test": ["CMD", "x"], "Timeout": 1e30}), E::Form),
        ] {
            assert_eq!(
                parse(json!({"Healthcheck": value})),
                Some(Err(error)),
                "{value}"
            );
        }
    }
}
