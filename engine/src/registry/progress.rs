//! What a transfer tells while it works. Drawing it is the front end's business.

use std::fmt;

/// What happened in a transfer.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Progress {
    /// It begins; `what` is the repository or the image, `tag` the tag or digest of it.
    Begin {
        /// Which way it goes.
        way: Way,
        /// The repository, as it is shown.
        repository: String,
        /// Tag or digest.
        tag: String,
    },
    /// Something about one blob.
    Layer {
        /// The blob, shortened as it is shown.
        id: String,
        /// What.
        step: Step,
    },
    /// A registry does not answer as it should, and is asked again.
    Retry {
        /// In words: what failed, and when it is tried again.
        why: String,
    },
}

/// The direction of a transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From a registry.
    Pull,
    /// To a registry.
    Push,
    /// From one place to another.
    Copy,
}

/// How far one blob is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// It is to be transferred.
    Waiting,
    /// Another command transfers it.
    Elsewhere,
    /// It is there already.
    Exists,
    /// The registry has it in another repository, and needs no bytes.
    Mounted,
    /// Bytes so far, those of an earlier try among them, of how many.
    Bytes(u64, u64),
    /// All bytes have been transferred; a layer is still being converted.
    Received,
    /// It is done.
    Done,
}

impl Step {
    /// Docker's word for it in this direction.
    #[must_use]
    pub const fn words(self, way: Way) -> &'static str {
        match (self, way) {
            (Self::Waiting, Way::Pull) => "Pulling fs layer",
            (Self::Waiting, Way::Push) => "Preparing",
            (Self::Waiting, Way::Copy) => "Waiting",
            (Self::Elsewhere, _) => "Waiting for another transfer of it",
            (Self::Exists, Way::Push | Way::Copy) => "Layer already exists",
            (Self::Exists, Way::Pull) => "Already exists",
            (Self::Mounted, _) => "Mounted from another repository",
            (Self::Bytes(..), Way::Pull) => "Downloading",
            (Self::Bytes(..), Way::Push) => "Pushing",
            (Self::Bytes(..), Way::Copy) => "Copying",
            (Self::Received, Way::Pull) => "Download complete",
            (Self::Received, _) => "Sent",
            (Self::Done, Way::Pull) => "Pull complete",
            (Self::Done, Way::Push) => "Pushed",
            (Self::Done, Way::Copy) => "Copied",
        }
    }
}

/// Receives what happens, from several threads at once.
pub type Watch<'a> = dyn Fn(Progress) + Send + Sync + 'a;

/// The digits by which a blob is shown, as Docker does.
#[must_use]
pub fn short(digest: &str) -> String {
    let digits = digest.split_once(':').map_or(digest, |(_, digits)| digits);
    digits.get(..12).unwrap_or(digits).to_owned()
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pull => "pull",
            Self::Push => "push",
            Self::Copy => "copy",
        })
    }
}
