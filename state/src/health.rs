//! What health checks have found, as it is recorded.

use serde::{Deserialize, Serialize};

/// What health checks have found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HealthStatus {
    /// Nothing that counts yet.
    #[default]
    Starting,
    /// The last check succeeded.
    Healthy,
    /// Too many failed in a row.
    Unhealthy,
}

impl HealthStatus {
    /// Docker's word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// What health checks have found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthReport {
    /// What follows.
    pub status: HealthStatus,
    /// Failures in a row.
    pub failing_streak: u32,
    /// The last checks, in the order of their ends. A restart of the container keeps them.
    #[serde(default)]
    pub log: Vec<HealthResult>,
    /// The status is not what it was before.
    #[serde(skip)]
    pub changed: bool,
}

/// How one check ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthResult {
    /// Its exit code; -1 if it took too long or could not be run.
    pub exit_code: i32,
    /// What it wrote, or why it could not be run.
    pub output: String,
    /// When it began, in nanoseconds since 1970.
    pub started_ns: i64,
    /// When it ended, in nanoseconds since 1970.
    pub ended_ns: i64,
}
