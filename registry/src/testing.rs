//! What unit tests share.

use crate::settings::Places;
use std::path::Path;

/// A host and a user that have nothing but what is under `root`.
pub(crate) fn places(root: &Path, variables: &[(&str, &str)]) -> Places {
    Places {
        etc: root.join("etc"),
        share: root.join("share"),
        run: root.join("run"),
        home: Some(root.to_owned()),
        variables: variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
    }
}
