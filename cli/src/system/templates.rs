//! `template`: saved guests that have booted, from which later guests are restored.

use crate::args::system::{TemplateBuildArgs, TemplateCommand, TemplateLsArgs};
use crate::output::failure::Failure;
use crate::output::format::{self, Column, Format};
use crate::output::stdout;
use crate::output::text::{ago, size};
use hullbox_engine::paths::Roots;
use hullbox_engine::plan::{HostFacts, RunRequest, guest_size};
use hullbox_engine::templates::{self, Listed};
use serde_json::{Value, json};

const COLUMNS: [Column; 6] = [
    ("TEMPLATE ID", "ID"),
    ("CPUS", "CPUs"),
    ("MEMORY", "Memory"),
    ("CREATED", "Created"),
    ("SIZE", "Size"),
    ("STATE", "State"),
];

/// Digits of an id in listings.
const SHORT_ID_LEN: usize = 12;

pub(crate) fn template(command: &TemplateCommand) -> Result<(), Failure> {
    let roots = Roots::from_env()?;
    roots.create()?;
    match command {
        TemplateCommand::Build(args) => build(args, &roots),
        TemplateCommand::Ls(args) => list(args, &roots),
        TemplateCommand::Rm(args) => args.ids.iter().try_for_each(|id| {
            let id = templates::remove(id, &roots.data)?;
            stdout::print(&format!("{}\n", short(&id)))
        }),
        TemplateCommand::Prune(args) => {
            let gone = templates::prune(args.all, &roots.data)?;
            let ids: String = gone
                .iter()
                .map(|one| format!("{}\n", short(&one.id)))
                .collect();
            let freed = gone.iter().map(|one| one.disk_bytes).sum();
            stdout::print(&format!("{ids}Total reclaimed space: {}\n", size(freed)))
        }
    }
}

fn build(args: &TemplateBuildArgs, roots: &Roots) -> Result<(), Failure> {
    let request = RunRequest {
        cpus: args.cpus,
        memory: args.memory,
        ..RunRequest::default()
    };
    let guest = guest_size(&request, HostFacts::probe())
        .ok_or_else(|| Failure::new("no guest can have this size"))?;
    templates::build(guest, &roots.data, true)?;
    Ok(())
}

fn list(args: &TemplateLsArgs, roots: &Roots) -> Result<(), Failure> {
    let format = Format::parse(args.format.as_deref())?;
    let all = templates::list(&roots.data)?;
    if args.quiet {
        let ids: String = all
            .iter()
            .map(|one| format!("{}\n", short(&one.id)))
            .collect();
        return stdout::print(&ids);
    }
    let rows: Vec<_> = all.iter().map(row).collect();
    format::rows(&rows, &COLUMNS, &format)
}

fn row(one: &Listed) -> Value {
    json!({
        "ID": short(&one.id),
        "CPUs": one.vcpus.to_string(),
        "Memory": size(u64::from(one.memory_mib) << 20),
        "Created": ago(i64::try_from(one.made_s).ok()),
        "Size": size(one.disk_bytes),
        "State": if one.current { "current" } else { "stale" },
    })
}

fn short(id: &str) -> &str {
    id.get(..SHORT_ID_LEN).unwrap_or(id)
}
