//! `system df`, `system check` and `system prune`.

use crate::app::FormatArgs;
use crate::container_args::{CheckArgs, PruneArgs};
use crate::failure::Failure;
use crate::output::{self, Column, Format};
use crate::text::size;
use crate::{image_store, lifecycle, system};
use hullbox_engine::containers::disk_use;
use hullbox_engine::{snapshots, templates};
use hullbox_image::{CheckOptions, Severity};
use serde_json::json;

const DF: [Column; 5] = [
    ("TYPE", "Type"),
    ("TOTAL", "TotalCount"),
    ("ACTIVE", "Active"),
    ("SIZE", "Size"),
    ("RECLAIMABLE", "Reclaimable"),
];

pub(crate) fn df(args: &FormatArgs) -> Result<(), Failure> {
    let format = Format::parse(args.format.as_deref())?;
    let engine = system::engine()?;
    let usage = engine.images()?.usage(&mut |id| engine.image_use(id))?;
    let (mut total, mut active, mut bytes, mut free) = (0u64, 0u64, 0u64, 0u64);
    for record in engine.state().list()? {
        let own = disk_use(&engine.roots().container_dir(&record.id));
        total += 1;
        bytes += own;
        if record.is_active() {
            active += 1;
        } else {
            free += own;
        }
    }
    let share = |part: u64, whole: u64| match whole {
        0 => size(part),
        _ => format!("{} ({}%)", size(part), part * 100 / whole),
    };
    let templates = templates::list(&engine.roots().data)?;
    let taken: u64 = templates.iter().map(|one| one.disk_bytes).sum();
    let current = templates.iter().filter(|one| one.current);
    let kept: u64 = current.clone().map(|one| one.disk_bytes).sum();
    let snapshots = snapshots::list(&engine.roots().data)?;
    let saved: u64 = snapshots.iter().map(|one| one.disk_bytes).sum();
    let rows = [
        json!({
            "Type": "Images",
            "TotalCount": usage.images.to_string(),
            "Active": usage.active.to_string(),
            "Size": size(usage.size_bytes),
            "Reclaimable": share(usage.reclaimable_bytes, usage.size_bytes),
            "DiskUse": size(usage.disk_bytes),
        }),
        json!({
            "Type": "Containers",
            "TotalCount": total.to_string(),
            "Active": active.to_string(),
            "Size": size(bytes),
            "Reclaimable": share(free, bytes),
            "DiskUse": size(bytes),
        }),
        json!({
            "Type": "Templates",
            "TotalCount": templates.len().to_string(),
            "Active": current.count().to_string(),
            "Size": size(taken),
            "Reclaimable": share(taken - kept, taken),
            "DiskUse": size(taken),
        }),
        json!({
            "Type": "Snapshots",
            "TotalCount": snapshots.len().to_string(),
            "Active": snapshots.len().to_string(),
            "Size": size(saved),
            "Reclaimable": size(0),
            "DiskUse": size(saved),
        }),
    ];
    output::rows(&rows, &DF, &format)
}

/// Exit code 1 if something is wrong and stays so.
pub(crate) fn check(args: &CheckArgs) -> Result<u8, Failure> {
    let engine = system::engine()?;
    let options = CheckOptions {
        repair: args.repair,
        quick: args.quick,
    };
    let mut store = engine.images()?;
    let images = store.check(options, &mut |id| engine.image_use(id))?;
    let containers = engine.check(args.repair)?;
    let mut text = String::new();
    for finding in &images.findings {
        let severity = match finding.severity {
            Severity::Note => "note",
            Severity::Warning => "warning",
            Severity::Error => "error",
        };
        let path = finding
            .path
            .as_ref()
            .map(|path| format!(" ({})", path.display()))
            .unwrap_or_default();
        let mended = if finding.repaired { ": mended" } else { "" };
        text.push_str(&format!("{severity}: {}{path}{mended}\n", finding.what));
    }
    for finding in &containers {
        let mended = if finding.repaired { ": mended" } else { "" };
        text.push_str(&format!("warning: {}{mended}\n", finding.what));
    }
    let sound = images.is_sound() && containers.iter().all(|finding| finding.repaired);
    text.push_str(&format!(
        "{}: {} images, {} layers, {} of layers verified, {} containers\n",
        if sound { "sound" } else { "NOT sound" },
        images.images,
        images.layers,
        size(images.verified_bytes),
        engine.state().list()?.len(),
    ));
    output::print(&text)?;
    Ok(u8::from(!sound))
}

pub(crate) fn prune(args: &PruneArgs) -> Result<(), Failure> {
    let what = if args.all {
        "all stopped containers, all images without a container, and stale templates"
    } else {
        "all stopped containers, all images without a name, and stale templates"
    };
    let warning = format!("WARNING! This will remove {what}.");
    if !args.force && !image_store::confirm(&warning)? {
        return Ok(());
    }
    let filters = output::filters(&args.filters, lifecycle::PRUNE_FILTERS)?;
    // Before anything is removed: a filter that cannot be read removes nothing.
    let options = image_store::prune_options(args.all, &filters)?;
    let mut text = String::new();
    let removed = lifecycle::prune_containers(&filters)?;
    if !removed.ids.is_empty() {
        text.push_str(&format!(
            "Deleted Containers:\n{}\n\n",
            removed.ids.join("\n")
        ));
    }
    let engine = system::engine()?;
    // Templates have no labels: whoever names some does not mean them.
    if filters.is_empty() {
        let stale = templates::prune(false, &engine.roots().data)?;
        if !stale.is_empty() {
            let ids: String = stale.iter().map(|one| format!("{}\n", one.id)).collect();
            text.push_str(&format!("Deleted Templates:\n{ids}\n"));
        }
    }
    let pruned = engine
        .images()?
        .prune(&options, &mut |id| engine.image_use(id))?;
    image_store::tell_pruned(&engine, &pruned);
    text.push_str(&image_store::told(&pruned, removed.reclaimed_bytes));
    output::print(&text)
}
