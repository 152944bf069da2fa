//! `network prune`.

use crate::args::filters::filters;
use crate::args::network::NetworkPruneArgs;
use crate::engine;
use crate::output::confirm::confirm;
use crate::output::failure::Failure;
use crate::output::stdout;
use hullbox_engine::networks::NETWORK_PRUNE_FILTERS;
use hullbox_model::network::NetworksPruned;

/// Removes networks in which no container runs.
pub(crate) fn prune(args: &NetworkPruneArgs) -> Result<(), Failure> {
    let warning =
        "WARNING! This will remove all custom networks not used by at least one container.";
    if !args.force && !confirm(warning)? {
        return Ok(());
    }
    let filters = filters(&args.filters, NETWORK_PRUNE_FILTERS)?;
    stdout::print(&removed(&engine::open()?.prune_networks(&filters)?))
}

/// What was removed, as Docker prints it.
pub(crate) fn removed(pruned: &NetworksPruned) -> String {
    match pruned.networks_deleted.as_slice() {
        [] => String::new(),
        names => format!("Deleted Networks:\n{}\n\n", names.join("\n")),
    }
}
