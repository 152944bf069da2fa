//! `egress`: what a policy of `--egress` would say.

use crate::args::system::{EgressCheckArgs, EgressCommand};
use crate::output::failure::{FAILED, Failure};
use crate::output::stdout;
use hullbox_engine::plan::network::judge;

/// The exit code says whether it is allowed.
pub(crate) fn egress(command: &EgressCommand) -> Result<u8, Failure> {
    let EgressCommand::Check(EgressCheckArgs { rules, target }) = command;
    let judgement = judge(rules, target)?;
    let word = if judgement.is_allowed {
        "allowed"
    } else {
        "denied"
    };
    stdout::print(&format!("{word}: {}\n", judgement.reason))?;
    Ok(if judgement.is_allowed { 0 } else { FAILED })
}
