//! Why there is no report.

use std::io;
use std::path::PathBuf;

/// Why a benchmark ended without a report. Everything it created is removed in any case.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BenchError {
    /// A signal.
    #[error("interrupted")]
    Interrupted {
        /// Its number.
        signal: i32,
    },
    /// A file or directory of the benchmark's own.
    #[error("cannot {what} {}", path.display())]
    File {
        /// What was tried.
        what: &'static str,
        /// With which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A system call on processes.
    #[error("cannot {what}")]
    Process {
        /// What was tried.
        what: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A contender's command.
    #[error("{contender}: cannot run {program}")]
    Spawn {
        /// The contender's id.
        contender: String,
        /// Which program.
        program: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A contender's command failed.
    #[error("{contender}: {what} failed ({status}): {said}")]
    Failed {
        /// The contender's id.
        contender: String,
        /// What was measured.
        what: String,
        /// How it ended.
        status: String,
        /// The end of its standard error, in one line.
        said: String,
    },
    /// A contender's command did not end.
    #[error("{contender}: {what} did not end within {limit_s} seconds")]
    Late {
        /// The contender's id.
        contender: String,
        /// What was measured.
        what: String,
        /// The timeout.
        limit_s: u64,
    },
    /// The probe's result does not parse.
    #[error("{contender}: {what} printed an invalid result: {answer}")]
    Answer {
        /// The contender's id.
        contender: String,
        /// What was measured.
        what: String,
        /// The beginning of the result.
        answer: String,
    },
    /// A peer that was asked for.
    #[error("{0} is not installed")]
    NoPeer(String),
    /// What a network's measurement needs besides.
    #[error("{contender}: the network cannot be measured: {why}")]
    Network {
        /// The contender's id.
        contender: String,
        /// Why.
        why: String,
    },
    /// Nothing to compare.
    #[error("nothing is left to measure: {0}")]
    Nothing(&'static str),
    /// The image's store.
    #[error("cannot make the image")]
    Store(#[from] hullbox_image::StoreError),
    /// The image's tar.
    #[error("cannot make the image")]
    Import(#[from] hullbox_image::ImportError),
    /// The image that was made.
    #[error("cannot look at the image")]
    Resolve(#[from] hullbox_image::ResolveError),
}

impl BenchError {
    /// For `map_err`: what was tried with which file.
    pub(crate) fn file<'a>(
        what: &'static str,
        path: &'a std::path::Path,
    ) -> impl FnOnce(io::Error) -> Self + 'a {
        move |source| Self::File {
            what,
            path: path.to_owned(),
            source,
        }
    }
}
