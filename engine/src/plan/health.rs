//! The health check that follows from what was typed and what the image says.

use super::life::Health;
use super::{PlanError, RunRequest, value};
use hullbox_image::{HealthCheck, HealthCheckError, HealthTest};
use std::time::Duration;

/// Each check costs the host a record of its result: no image may ask for more of them.
const MIN_IMAGE_INTERVAL: Duration = Duration::from_secs(1);

/// Docker's rule: what was typed replaces what the image says, field by field. `None` if there is
/// nothing to run; the second answer is whether somebody said that there is to be nothing.
pub(super) fn health(
    request: &RunRequest,
    image: Option<Result<HealthCheck, HealthCheckError>>,
) -> Result<(Option<Health>, bool), PlanError> {
    let typed = &request.health;
    if typed.test == Some(HealthTest::Off) {
        return Ok((None, true));
    }
    let mut image = image.transpose().map_err(PlanError::Health)?;
    if let Some(interval) = image.as_mut().and_then(|check| check.interval.as_mut()) {
        *interval = (*interval).max(MIN_IMAGE_INTERVAL);
    }
    let image = image.unwrap_or_default();
    let argv = match typed.test.clone().or(image.test) {
        Some(HealthTest::Run(argv)) => argv,
        other if *typed == HealthCheck::default() => return Ok((None, other.is_some())),
        _ => {
            let why = "there is no health check to set this for: say what to run";
            return Err(value("health-cmd", why));
        }
    };
    let default = Health::default();
    let ms = |typed: Option<Duration>, image: Option<Duration>, default: u64| {
        let chosen = typed.filter(|span| !span.is_zero()).or(image);
        let ms = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        chosen.map_or(default, |span| ms(span).max(1))
    };
    let health = Health {
        argv,
        interval_ms: ms(typed.interval, image.interval, default.interval_ms),
        timeout_ms: ms(typed.timeout, image.timeout, default.timeout_ms),
        start_period_ms: ms(typed.start_period, image.start_period, 0),
        retries: typed
            .retries
            .filter(|retries| *retries > 0)
            .or(image.retries)
            .unwrap_or(default.retries),
    };
    Ok((Some(health), false))
}
