//! `container prune`.

use crate::args::filters::filters;
use crate::args::system::PruneArgs;
use crate::engine;
use crate::output::confirm::confirm;
use crate::output::failure::Failure;
use crate::output::stdout;
use crate::output::text::size;
use hullbox_engine::containers::PRUNE_FILTERS;

/// Removes stopped containers.
pub(crate) fn prune(args: &PruneArgs) -> Result<(), Failure> {
    if !args.force && !confirm("WARNING! This will remove all stopped containers.")? {
        return Ok(());
    }
    let filters = filters(&args.filters, PRUNE_FILTERS)?;
    let pruned = engine::open()?.prune(&filters)?;
    let mut text = String::new();
    if !pruned.containers_deleted.is_empty() {
        text = format!(
            "Deleted Containers:\n{}\n\n",
            pruned.containers_deleted.join("\n")
        );
    }
    text.push_str(&format!(
        "Total reclaimed space: {}\n",
        size(pruned.space_reclaimed)
    ));
    stdout::print(&text)
}
