//! Failures in words, as the user of `docker run` knows them.

use hullbox_protocol::{Failure, FailureKind};
use rustix::io::Errno;
use std::fmt::Display;

/// What the kernel said, without the number: `no such file or directory`.
pub fn words(errno: Errno) -> String {
    let text = std::io::Error::from(errno).to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut chars = text.chars();
    chars
        .next()
        .map(|first| first.to_lowercase().chain(chars).collect())
        .unwrap_or_default()
}

/// A failure to set up: `what`.
pub fn setup(what: impl Display) -> Failure {
    Failure {
        kind: FailureKind::Setup,
        message: what.to_string(),
    }
}

/// For `map_err`: `what: why`.
pub fn failed(what: impl Display) -> impl FnOnce(Errno) -> Failure {
    move |errno| setup(format_args!("{what}: {}", words(errno)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_read_as_words() {
        assert_eq!(words(Errno::NOENT), "no such file or directory");
        let failure = failed("mount /x")(Errno::PERM);
        assert_eq!(failure.message, "mount /x: operation not permitted");
        assert_eq!(failure.exit_code(), 125);
    }
}
