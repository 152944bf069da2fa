//! `system df`, `system check` and `system prune`.

use crate::args::filters::filters;
use crate::args::system::{CheckArgs, DfArgs, PruneArgs};
use crate::containers::list::row;
use crate::engine;
use crate::images::list::rows_of;
use crate::images::prune::report_of;
use crate::networks;
use crate::output::confirm::confirm;
use crate::output::failure::Failure;
use crate::output::format::{self, Column, Format};
use crate::output::stdout;
use crate::output::text::size;
use crate::volumes;
use hullbox_engine::containers::{PRUNE_FILTERS, prune_options};
use hullbox_engine::templates;
use hullbox_image::{CheckOptions, Severity};
use hullbox_model::image;
use hullbox_model::system::DiskUsage;
use serde_json::{Value, json};

const DF: [Column; 5] = [
    ("TYPE", "Type"),
    ("TOTAL", "TotalCount"),
    ("ACTIVE", "Active"),
    ("SIZE", "Size"),
    ("RECLAIMABLE", "Reclaimable"),
];

const DF_IMAGES: [Column; 6] = [
    ("REPOSITORY", "Repository"),
    ("TAG", "Tag"),
    ("IMAGE ID", "ID"),
    ("CREATED", "CreatedSince"),
    ("SIZE", "Size"),
    ("CONTAINERS", "Containers"),
];

const DF_CONTAINERS: [Column; 7] = [
    ("CONTAINER ID", "ID"),
    ("IMAGE", "Image"),
    ("COMMAND", "Command"),
    ("SIZE", "Size"),
    ("CREATED", "RunningFor"),
    ("STATUS", "Status"),
    ("NAMES", "Names"),
];

const DF_VOLUMES: [Column; 3] = [
    ("VOLUME NAME", "Name"),
    ("LINKS", "Links"),
    ("SIZE", "Size"),
];

pub(crate) fn df(args: &DfArgs) -> Result<(), Failure> {
    let format = Format::parse(args.format.as_deref())?;
    let usage = engine::open()?.disk_usage()?;
    if args.verbose {
        return whole(&usage, &format);
    }
    let share = |part: u64, whole: u64| match whole {
        0 => size(part),
        _ => {
            let percent = u128::from(part) * 100 / u128::from(whole);
            format!("{} ({percent}%)", size(part))
        }
    };
    let rows = [
        ("Images", usage.image_usage),
        ("Containers", usage.container_usage),
        ("Local Volumes", usage.volume_usage),
        ("Templates", usage.template_usage),
        ("Snapshots", usage.snapshot_usage),
    ]
    .map(|(kind, usage)| {
        json!({
            "Type": kind,
            "TotalCount": usage.total_count.to_string(),
            "Active": usage.active_count.to_string(),
            "Size": size(usage.total_size),
            "Reclaimable": share(usage.reclaimable, usage.total_size),
            "DiskUse": size(usage.disk_size),
        })
    });
    format::rows(&rows, &DF, &format)
}

/// Every image, container and volume, as tables; in another format as one object, as in Docker.
fn whole(usage: &DiskUsage, format: &Format) -> Result<(), Failure> {
    let images: Vec<_> = usage.images.iter().flat_map(images_of).collect();
    let containers: Vec<_> = usage.containers.iter().map(|one| row(one, false)).collect();
    let volumes: Vec<_> = usage.volumes.iter().map(volumes::space).collect();
    if !matches!(format, Format::Table) {
        let all = json!({
            "Images": images,
            "Containers": containers,
            "Volumes": volumes,
            "BuildCache": [],
        });
        return format::rows(&[all], &[], format);
    }
    stdout::print("Images space usage:\n\n")?;
    format::rows(&images, &DF_IMAGES, format)?;
    stdout::print("\nContainers space usage:\n\n")?;
    format::rows(&containers, &DF_CONTAINERS, format)?;
    stdout::print("\nLocal Volumes space usage:\n\n")?;
    format::rows(&volumes, &DF_VOLUMES, format)
}

/// An image's rows, with the number of its containers.
fn images_of(image: &image::Summary) -> Vec<Value> {
    let mut rows = rows_of(image, false, false);
    for row in &mut rows {
        row["Containers"] = image.containers.to_string().into();
    }
    rows
}

/// Exit code 1 if something is wrong and stays so.
pub(crate) fn check(args: &CheckArgs) -> Result<u8, Failure> {
    let engine = engine::open()?;
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
    stdout::print(&text)?;
    Ok(u8::from(!sound))
}

pub(crate) fn prune(args: &PruneArgs) -> Result<(), Failure> {
    let volumes = match args.volumes {
        true => " all anonymous volumes not used by at least one container,",
        false => "",
    };
    let images = match args.all {
        true => "all images without a container",
        false => "all images without a name",
    };
    let warning = format!(
        "WARNING! This will remove all stopped containers, all networks not used by at least one container,\
         {volumes} {images}, and stale templates."
    );
    if !args.force && !confirm(&warning)? {
        return Ok(());
    }
    let filters = filters(&args.filters, PRUNE_FILTERS)?;
    if args.volumes && filters.contains("until") {
        // Docker's words.
        return Err(Failure::new(
            "ERROR: The \"until\" filter is not supported with \"--volumes\"",
        ));
    }
    // Before anything is removed: a filter that cannot be read removes nothing.
    prune_options(args.all, &filters)?;
    let engine = engine::open()?;
    let mut text = String::new();
    let removed = engine.prune(&filters)?;
    if !removed.containers_deleted.is_empty() {
        text.push_str(&format!(
            "Deleted Containers:\n{}\n\n",
            removed.containers_deleted.join("\n")
        ));
    }
    text.push_str(&networks::removed(&engine.prune_networks(&filters)?));
    let mut reclaimed = removed.space_reclaimed;
    if args.volumes {
        let pruned = engine.prune_volumes(&filters)?;
        text.push_str(&volumes::removed(&pruned));
        reclaimed = reclaimed.saturating_add(pruned.space_reclaimed);
    }
    // Templates have no labels: a filter matches none of them.
    if filters.is_empty() {
        let stale = templates::prune(false, &engine.roots().data)?;
        if !stale.is_empty() {
            let ids: String = stale.iter().map(|one| format!("{}\n", one.id)).collect();
            text.push_str(&format!("Deleted Templates:\n{ids}\n"));
        }
    }
    let pruned = engine.prune_images(args.all, &filters)?;
    text.push_str(&report_of(&pruned, reclaimed));
    stdout::print(&text)
}
