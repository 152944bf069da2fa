//! `volume prune`.

use crate::args::filters::filters;
use crate::args::volume::VolumePruneArgs;
use crate::engine;
use crate::output::confirm::confirm;
use crate::output::failure::Failure;
use crate::output::stdout;
use crate::output::text::size;
use hullbox_engine::volumes::VOLUME_PRUNE_FILTERS;
use hullbox_model::volume::VolumesPruned;

/// Removes volumes that no container has.
pub(crate) fn prune(args: &VolumePruneArgs) -> Result<(), Failure> {
    let mut texts = args.filters.clone();
    let mut what = "anonymous local volumes";
    if args.all {
        if texts.iter().any(|text| text.starts_with("all=")) {
            return Err(Failure::new(
                "conflicting options: cannot specify both --all and --filter all=1",
            ));
        }
        texts.push("all=true".to_owned());
        what = "all local volumes";
    }
    let filters = filters(&texts, VOLUME_PRUNE_FILTERS)?;
    let warning = format!("WARNING! This will remove {what} not used by at least one container.");
    if !args.force && !confirm(&warning)? {
        return Ok(());
    }
    let pruned = engine::open()?.prune_volumes(&filters)?;
    let total = size(pruned.space_reclaimed);
    stdout::print(&format!(
        "{}Total reclaimed space: {total}\n",
        removed(&pruned)
    ))
}

/// What was removed, as Docker prints it.
pub(crate) fn removed(pruned: &VolumesPruned) -> String {
    match pruned.volumes_deleted.as_slice() {
        [] => String::new(),
        names => format!("Deleted Volumes:\n{}\n\n", names.join("\n")),
    }
}
