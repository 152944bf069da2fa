//! `snapshot`: saved running containers, from which new ones are restored.

use crate::args::container::{SnapshotCommand, SnapshotCreateArgs};
use crate::args::system::TemplateLsArgs;
use crate::engine;
use crate::output::failure::Failure;
use crate::output::format::{self, Column, Format};
use crate::output::stdout;
use crate::output::text::{ago, size};
use hullbox_engine::paths::{Roots, short_id};
use hullbox_engine::snapshots::{self, Listed};
use serde_json::{Value, json};

const COLUMNS: [Column; 6] = [
    ("SNAPSHOT", "Name"),
    ("CONTAINER", "Container"),
    ("IMAGE", "Image"),
    ("MEMORY", "Memory"),
    ("CREATED", "Created"),
    ("SIZE", "Size"),
];

pub(crate) fn snapshot(command: &SnapshotCommand) -> Result<(), Failure> {
    match command {
        SnapshotCommand::Create(args) => create(args),
        SnapshotCommand::Ls(args) => list(args),
        SnapshotCommand::Rm(args) => {
            let roots = Roots::from_env()?;
            args.names.iter().try_for_each(|name| {
                snapshots::remove(name, &roots.data)?;
                stdout::print(&format!("{name}\n"))
            })
        }
    }
}

fn create(args: &SnapshotCreateArgs) -> Result<(), Failure> {
    let engine = engine::open()?;
    let record = engine.find(&args.container)?;
    engine.snapshot(&record, &args.name)?;
    stdout::print(&format!("{}\n", args.name))
}

fn list(args: &TemplateLsArgs) -> Result<(), Failure> {
    let format = Format::parse(args.format.as_deref())?;
    let all = snapshots::list(&Roots::from_env()?.data)?;
    if args.quiet {
        let names: String = all.iter().map(|one| format!("{}\n", one.name)).collect();
        return stdout::print(&names);
    }
    let rows: Vec<_> = all.iter().map(row).collect();
    format::rows(&rows, &COLUMNS, &format)
}

fn row(one: &Listed) -> Value {
    let about = one.about.as_ref();
    let text = |text: Option<&str>| text.unwrap_or("(damaged)").to_owned();
    json!({
        "Name": one.name,
        "Container": text(about.map(|about| short_id(&about.container_id))),
        "Image": text(about.map(|about| about.image_ref.as_str())),
        "Memory": size(about.map_or(0, |about| u64::from(about.spec.memory_mib) << 20)),
        "Created": ago(about.map(|about| about.created_s)),
        "Size": size(one.disk_bytes),
    })
}
