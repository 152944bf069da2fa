//! Commands on images that are neither listings nor loading: save, history, prune.

use crate::failure::Failure;
use crate::image_args::{HistoryArgs, ImagePruneArgs, SaveArgs, SaveFormat};
use crate::images::short;
use crate::output::{self, Column, Format};
use crate::output_file::OutputFile;
use crate::system;
use crate::text::{ago, cut, size};
use hullbox_engine::containers::{Engine, IMAGE_PRUNE_FILTERS, prune_options};
use hullbox_image::{ArchiveFormat, SaveError, Store, rfc3339};
use hullbox_model::event::Verb;
use hullbox_model::image::HistoryItem;
use hullbox_model::system::{ImageDeleted, ImagesPruned};
use hullbox_model::time::NEVER_S;
use rustix::termios::isatty;
use serde_json::{Value, json};
use std::io::{self, BufRead, Write};
use std::os::fd::AsFd;

pub(crate) fn save(args: &SaveArgs) -> Result<(), Failure> {
    let format = match args.format {
        SaveFormat::DockerArchive => ArchiveFormat::Docker,
        SaveFormat::OciArchive => ArchiveFormat::Oci,
        SaveFormat::OciDir => {
            let dir = args.output.as_deref().ok_or_else(|| {
                Failure::new("an oci-dir cannot be written to standard output")
                    .with_hint("name a directory with -o")
            })?;
            let engine = system::engine()?;
            let store = engine.images()?;
            store.save_layout(&args.images, dir)?;
            tell_saved(&engine, &store, &args.images);
            return Ok(());
        }
    };
    let engine = system::engine()?;
    let store = engine.images()?;
    let mut output = OutputFile::open(args.output.as_deref())?;
    match store.save(&args.images, format, output.file()) {
        Err(SaveError::Write(error)) => Err(crate::failure::output_failed(&error)),
        other => Ok(other?),
    }?;
    output.keep()?;
    tell_saved(&engine, &store, &args.images);
    Ok(())
}

/// Notes what was saved.
fn tell_saved(engine: &Engine, store: &Store, names: &[String]) {
    for name in names {
        if let Ok(image) = store.resolve(name) {
            engine.note_image(Verb::Save, &image.id.to_string(), Some(name.clone()));
        }
    }
}

const HISTORY: [Column; 5] = [
    ("IMAGE", "ID"),
    ("CREATED", "CreatedSince"),
    ("CREATED BY", "CreatedBy"),
    ("SIZE", "Size"),
    ("COMMENT", "Comment"),
];

pub(crate) fn history(args: &HistoryArgs) -> Result<(), Failure> {
    let format = Format::parse(args.format.as_deref())?;
    let entries = system::engine()?.image_history(&args.image)?;
    let rows: Vec<Value> = entries.iter().map(|entry| row(entry, args)).collect();
    if args.quiet {
        let ids = rows.iter().filter_map(|row| row["ID"].as_str());
        return output::print(&ids.map(|id| format!("{id}\n")).collect::<String>());
    }
    let mut columns = HISTORY;
    if !args.human {
        columns[1] = ("CREATED AT", "CreatedAt");
    }
    output::rows(&rows, &columns, &format)
}

fn row(entry: &HistoryItem, args: &HistoryArgs) -> Value {
    let whole = args.no_trunc || !entry.id.starts_with("sha256:");
    let created = (entry.created != NEVER_S).then_some(entry.created);
    let created_by = plain(&entry.created_by);
    json!({
        "ID": if whole { &entry.id } else { short(&entry.id) },
        "CreatedSince": ago(created),
        "CreatedAt": created.map_or_else(|| "N/A".to_owned(), |at| rfc3339(at, 0)),
        "CreatedBy": if args.no_trunc { created_by } else { cut(&created_by, 45) },
        "Size": if args.human { size(entry.size) } else { entry.size.to_string() },
        "Comment": plain(&entry.comment),
        "Tags": entry.tags,
    })
}

/// The image's author does not move the cursor of the reader's terminal.
fn plain(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

pub(crate) fn prune(args: &ImagePruneArgs) -> Result<(), Failure> {
    let filters = output::filters(&args.filters, IMAGE_PRUNE_FILTERS)?;
    prune_options(args.all, &filters)?;
    let what = if args.all {
        "all images without at least one container associated to them"
    } else {
        "all dangling images"
    };
    if !args.force && !confirm(&format!("WARNING! This will remove {what}."))? {
        return Ok(());
    }
    let pruned = system::engine()?.prune_images(args.all, &filters)?;
    output::print(&told(&pruned, 0))
}

/// What was given up, as Docker tells it; `more_bytes` of other things than images.
pub(crate) fn told(pruned: &ImagesPruned, more_bytes: u64) -> String {
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

/// Asks on standard error and reads the answer from standard input.
pub(crate) fn confirm(warning: &str) -> Result<bool, Failure> {
    let question = format!("{warning}\nAre you sure you want to continue? [y/N] ");
    // An answer may come without the question having been seen, as from `yes |`.
    let _ = io::stderr().write_all(question.as_bytes());
    let mut answer = String::new();
    io::Read::take(io::stdin().lock(), 100)
        .read_line(&mut answer)
        .map_err(|error| Failure::of("cannot read the answer", &error))?;
    if answer.is_empty() && !isatty(io::stdin().as_fd()) {
        return Err(Failure::new("nobody is there to confirm").with_hint("use --force"));
    }
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
