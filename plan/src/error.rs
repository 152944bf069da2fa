//! Why a request cannot become a container.

use super::mounts::MountsError;
use super::network::NetworkError;
use super::units::ValueError;
use hullbox_image::HealthCheckError;

/// Why a request cannot become a container.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// A value that parses but makes no sense here.
    #[error("invalid value for --{flag}")]
    Value {
        /// Flag without dashes.
        flag: &'static str,
        /// Why.
        #[source]
        source: ValueError,
    },
    /// Something of the network.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// Something of mounts.
    #[error(transparent)]
    Mounts(#[from] MountsError),
    /// Neither the image nor the command line says what to run.
    #[error("no command: the image names none and none was given")]
    NoCommand,
    /// A relative working directory.
    #[error("the working directory {0:?} is invalid, it needs to be an absolute path")]
    RelativeWorkdir(String),
    /// Arguments and environment are over what the kernel would take.
    #[error("arguments and environment are too long")]
    TooLong,
    /// A NUL byte ends strings in the kernel's eyes.
    #[error("an argument contains a NUL byte")]
    Nul,
    /// The image's own health check makes no sense.
    #[error("the image's configuration is invalid (--no-healthcheck does without)")]
    Health(#[source] HealthCheckError),
    /// The image's own configuration makes no sense.
    #[error("the image's configuration is invalid: {0}")]
    Image(&'static str),
}

pub(crate) fn value(flag: &'static str, why: impl Into<String>) -> PlanError {
    PlanError::Value {
        flag,
        source: ValueError::new(why),
    }
}
