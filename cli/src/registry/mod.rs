//! What has to do with registries. All of it runs in this process, with the host's network and the user's
//! credentials, wherever the image store is: see [`store`].

pub(crate) mod copy;
pub(crate) mod fetch;
pub(crate) mod login;
mod progress;
pub(crate) mod pull;
pub(crate) mod push;
pub(crate) mod store;

use crate::output::failure::Failure;
use hullbox_engine::registry::{TransferError, Transfers};
use progress::View;
use std::io::Write;
use std::path::PathBuf;

/// The client, which tells `view` what it does.
fn transfers(view: &View, verify_key: Option<PathBuf>) -> Result<Transfers, Failure> {
    Ok(Transfers::new(view.watch(), warn, verify_key)?)
}

fn warn(text: &str) {
    let text: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    // A warning that cannot be written is no reason to fail.
    let _ = writeln!(std::io::stderr(), "hullbox: warning: {text}");
}

/// A transfer's failure, with what may help.
fn failed(error: TransferError) -> Failure {
    let is_denied = error.is_denied();
    let failure = Failure::from(error);
    if is_denied {
        // As Docker says it: what is not there and what is somebody's look the same from outside.
        return failure.with_hint("the repository may not exist, or may need 'hullbox login'");
    }
    failure
}
