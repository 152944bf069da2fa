//! `image prune`.

use crate::args::filters::filters;
use crate::args::image::ImagePruneArgs;
use crate::engine;
use crate::output::confirm::confirm;
use crate::output::failure::Failure;
use crate::output::stdout;
use crate::output::text::size;
use hullbox_engine::containers::{IMAGE_PRUNE_FILTERS, prune_options};
use hullbox_model::system::{ImageDeleted, ImagesPruned};

pub(crate) fn prune(args: &ImagePruneArgs) -> Result<(), Failure> {
    let filters = filters(&args.filters, IMAGE_PRUNE_FILTERS)?;
    prune_options(args.all, &filters)?;
    let what = if args.all {
        "all images without at least one container associated to them"
    } else {
        "all dangling images"
    };
    if !args.force && !confirm(&format!("WARNING! This will remove {what}."))? {
        return Ok(());
    }
    let pruned = engine::open()?.prune_images(args.all, &filters)?;
    stdout::print(&report_of(&pruned, 0))
}

/// What was removed, as Docker prints it; `more_bytes` of other objects than images.
pub(crate) fn report_of(pruned: &ImagesPruned, more_bytes: u64) -> String {
    let mut text = String::new();
    if !pruned.images_deleted.is_empty() {
        text.push_str("Deleted Images:\n");
        for step in &pruned.images_deleted {
            match step {
                ImageDeleted::Untagged(name) => text.push_str(&format!("untagged: {name}\n")),
                ImageDeleted::Deleted(id) => text.push_str(&format!("deleted: {id}\n")),
            }
        }
        text.push('\n');
    }
    text.push_str(&format!(
        "Total reclaimed space: {}\n",
        size(pruned.space_reclaimed.saturating_add(more_bytes))
    ));
    text
}
