//! What the flags of a health check mean.

use crate::args::health::HealthArgs;
use crate::output::failure::Failure;
use hullbox_image::{HealthCheck, HealthTest};
use std::time::Duration;

/// What was typed; Docker's words for what makes no sense.
pub(super) fn check(args: &HealthArgs) -> Result<HealthCheck, Failure> {
    let command = args.health_cmd.as_ref().filter(|text| !text.is_empty());
    let mut spans = [
        ("interval", "Interval", args.health_interval),
        ("timeout", "Timeout", args.health_timeout),
        ("start-period", "StartPeriod", args.health_start_period),
        (
            "start-interval",
            "StartInterval",
            args.health_start_interval,
        ),
    ];
    for (_, _, span) in &mut spans {
        *span = span.filter(|span| !span.span.is_zero());
    }
    let retries = args.health_retries.filter(|count| *count != 0);
    let typed = command.is_some() || retries.is_some() || spans.iter().any(|s| s.2.is_some());
    if args.no_healthcheck {
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
        test: command
            .map(|command| HealthTest::Run(["/bin/sh", "-c", command].map(str::to_owned).to_vec())),
        interval,
        timeout,
        start_period,
        start_interval,
        retries: retries.transpose()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn health_checks_that_make_no_sense_are_refused_in_dockers_words() {
        #[derive(Debug, clap::Parser)]
        struct Typed {
            #[command(flatten)]
            health: HealthArgs,
        }
        let checked = |line: &str| {
            let typed = <Typed as clap::Parser>::try_parse_from(line.split(' '));
            check(&typed.expect("it parses").health)
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
            let failure = checked(line).unwrap_err();
            assert!(format!("{failure:?}").contains(why), "{line}: {failure:?}");
        }
        for nothing in [
            "x --health-cmd= --health-interval 0 --health-timeout -0s --health-retries 0",
            "x",
        ] {
            assert_eq!(checked(nothing).unwrap(), HealthCheck::default());
        }
        let off = checked("x --no-healthcheck --health-interval 0s").unwrap();
        assert_eq!(off.test, Some(HealthTest::Off));
        let typed = checked("x --health-cmd true --health-start-interval 1.5s").unwrap();
        assert_eq!(typed.start_interval, Some(Duration::from_millis(1500)));
    }
}
