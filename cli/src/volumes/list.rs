//! `volume ls`, and what `system df` tells of volumes.

use crate::args::filters::filters;
use crate::args::volume::VolumeLsArgs;
use crate::engine;
use crate::output::failure::Failure;
use crate::output::format::{self, Column, Format};
use crate::output::stdout;
use crate::output::text::size;
use hullbox_engine::volumes::VOLUME_FILTERS;
use hullbox_model::volume::Volume;
use serde_json::{Value, json};

const COLUMNS: [Column; 2] = [("DRIVER", "Driver"), ("VOLUME NAME", "Name")];
/// What Docker says of what it does not know.
const UNKNOWN: &str = "N/A";

pub(super) fn list(args: &VolumeLsArgs) -> Result<(), Failure> {
    let format = Format::parse(args.format.as_deref())?;
    let filters = filters(&args.filters, VOLUME_FILTERS)?;
    let found = engine::open()?.list_volumes(&filters)?;
    if args.quiet && args.format.is_none() {
        let names = found.iter().map(|volume| format!("{}\n", volume.name));
        return stdout::print(&names.collect::<String>());
    }
    let rows: Vec<_> = found.iter().map(row).collect();
    format::rows(&rows, &COLUMNS, &format)
}

/// A volume as a template sees it, with what `system df` knows of it.
pub(crate) fn space(volume: &Volume) -> Value {
    let usage = volume.usage_data.unwrap_or_default();
    let mut row = row(volume);
    row["Links"] = usage.ref_count.to_string().into();
    row["Size"] = size(u64::try_from(usage.size).unwrap_or(0)).into();
    row
}

fn row(volume: &Volume) -> Value {
    let labels = volume.labels.iter().flatten();
    let labels: Vec<_> = labels
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    json!({
        "Availability": UNKNOWN,
        "Driver": volume.driver,
        "Group": UNKNOWN,
        "Labels": labels.join(","),
        "Links": UNKNOWN,
        "Mountpoint": volume.mountpoint,
        "Name": volume.name,
        "Scope": volume.scope,
        "Size": UNKNOWN,
        "Status": UNKNOWN,
    })
}
