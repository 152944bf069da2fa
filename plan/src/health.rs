//! The health check that follows from what was typed and what the image says.

use super::error::PlanError;
use super::life::{Health, Life};
use super::request::RunRequest;
use hullbox_image::{HealthCheck, HealthCheckError, HealthTest};
use std::time::Duration;

/// Each check costs the host a record of its result: no image may ask for more of them.
const MIN_IMAGE_INTERVAL: Duration = Duration::from_secs(1);

/// Docker's rule: what was typed replaces what the image says, field by field. A time without a
/// command is kept, for an image that is made of the container and given one.
pub(super) fn plan(
    life: &mut Life,
    request: &RunRequest,
    image: Option<Result<HealthCheck, HealthCheckError>>,
) -> Result<(), PlanError> {
    let typed = request.health.clone();
    if typed.test == Some(HealthTest::Off) {
        life.no_health = true;
        life.configured_health = Some(typed);
        return Ok(());
    }
    let image = image.transpose().map_err(PlanError::Health)?;
    let mut bounded = image.clone().unwrap_or_default();
    for interval in [&mut bounded.interval, &mut bounded.start_interval] {
        *interval = interval.map(|span| span.max(MIN_IMAGE_INTERVAL));
    }
    let configured = over(typed.clone(), image.unwrap_or_default());
    life.no_health = configured.test == Some(HealthTest::Off);
    life.health = match over(typed, bounded) {
        check @ HealthCheck {
            test: Some(HealthTest::Run(_)),
            ..
        } => Some(effective(check)),
        _ => None,
    };
    life.configured_health = Some(configured).filter(|check| *check != HealthCheck::default());
    Ok(())
}

fn over(typed: HealthCheck, image: HealthCheck) -> HealthCheck {
    // 0 is as good as not said.
    let span = |typed: Option<Duration>, image| typed.filter(|span| !span.is_zero()).or(image);
    HealthCheck {
        test: typed.test.or(image.test),
        interval: span(typed.interval, image.interval),
        timeout: span(typed.timeout, image.timeout),
        start_period: span(typed.start_period, image.start_period),
        start_interval: span(typed.start_interval, image.start_interval),
        retries: typed.retries.filter(|n| *n > 0).or(image.retries),
    }
}

/// With defaults for what nobody said.
fn effective(check: HealthCheck) -> Health {
    let default = Health::default();
    let ms = |span: Option<Duration>, default: u64| {
        let ms = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        span.map_or(default, |span| ms(span).max(1))
    };
    Health {
        argv: match check.test {
            Some(HealthTest::Run(argv)) => argv,
            _ => Vec::new(),
        },
        interval_ms: ms(check.interval, default.interval_ms),
        timeout_ms: ms(check.timeout, default.timeout_ms),
        start_period_ms: ms(check.start_period, default.start_period_ms),
        start_interval_ms: ms(check.start_interval, default.start_interval_ms),
        retries: check.retries.unwrap_or(default.retries),
    }
}
