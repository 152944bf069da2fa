//! Commands on images that are neither listings nor loading: save, history, prune.

use crate::failure::Failure;
use crate::image_args::{HistoryArgs, ImagePruneArgs, SaveArgs, SaveFormat};
use crate::output::{self, Column, Format};
use crate::output_file::OutputFile;
use crate::system;
use crate::text::{ago, cut, size};
use hullbox_engine::containers::Engine;
use hullbox_image::{
    ArchiveFormat, HistoryEntry, LabelFilter, PruneOptions, Pruned, Removed, SaveError, Store,
    rfc3339,
};
use hullbox_model::event::{Kind, Verb};
use hullbox_model::filter::Filters;
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
            let store = system::engine()?.images()?;
            store.save_layout(&args.images, dir)?;
            tell_saved(&store, &args.images);
            return Ok(());
        }
    };
    let store = system::engine()?.images()?;
    let mut output = OutputFile::open(args.output.as_deref())?;
    match store.save(&args.images, format, output.file()) {
        Err(SaveError::Write(error)) => Err(crate::failure::output_failed(&error)),
        other => Ok(other?),
    }?;
    output.keep()?;
    tell_saved(&store, &args.images);
    Ok(())
}

/// Notes what was saved.
fn tell_saved(store: &Store, names: &[String]) {
    for name in names {
        if let Ok(image) = store.resolve(name) {
            crate::images::emit(Verb::Save, &image.id.to_string(), Some(name.clone()));
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
    let entries = system::engine()?.images()?.history(&args.image)?;
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

fn row(entry: &HistoryEntry, args: &HistoryArgs) -> Value {
    let id = entry.id.as_ref().map_or_else(
        || "<missing>".to_owned(),
        |id| {
            if args.no_trunc {
                id.to_string()
            } else {
                id.short()
            }
        },
    );
    let created_by = plain(&entry.created_by);
    json!({
        "ID": id,
        "CreatedSince": ago(entry.created),
        "CreatedAt": entry.created.map_or_else(|| "N/A".to_owned(), |at| rfc3339(at, 0)),
        "CreatedBy": if args.no_trunc { created_by } else { cut(&created_by, 45) },
        "Size": if args.human { size(entry.size_bytes) } else { entry.size_bytes.to_string() },
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
    let filters = output::filters(&args.filters, PRUNE_FILTERS)?;
    let mut options = prune_options(args.all, &filters)?;
    if let Some(dangling) = filters.boolean("dangling")? {
        options.all = !dangling;
    }
    let what = if args.all {
        "all images without at least one container associated to them"
    } else {
        "all dangling images"
    };
    if !args.force && !confirm(&format!("WARNING! This will remove {what}."))? {
        return Ok(());
    }
    let engine = system::engine()?;
    let mut store = engine.images()?;
    let pruned = store.prune(&options, &mut |id| engine.image_use(id))?;
    tell_pruned(&engine, &pruned);
    output::print(&told(&pruned, 0))
}

/// Notes what was given up.
pub(crate) fn tell_pruned(engine: &Engine, pruned: &Pruned) {
    crate::images::tell_removed(&pruned.removed, None);
    engine.note_prune(Kind::Image, pruned.reclaimed_bytes);
}

/// What was given up, as Docker tells it; `more_bytes` of other things than images.
pub(crate) fn told(pruned: &Pruned, more_bytes: u64) -> String {
    let mut text = String::new();
    if !pruned.removed.is_empty() {
        text.push_str("Deleted Images:\n");
        for step in &pruned.removed {
            match step {
                Removed::Untagged(name) => text.push_str(&format!("untagged: {name}\n")),
                Removed::Deleted(id) => text.push_str(&format!("deleted: {id}\n")),
            }
        }
        text.push('\n');
    }
    text.push_str(&format!(
        "Total reclaimed space: {}\n",
        size(pruned.reclaimed_bytes.saturating_add(more_bytes))
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

const PRUNE_FILTERS: &[&str] = &["dangling", "label", "label!", "until"];

/// Which images filters mean.
pub(crate) fn prune_options(all: bool, filters: &Filters) -> Result<PruneOptions, Failure> {
    let label = |text: &String, is| {
        let (key, value) = match text.split_once('=') {
            Some((key, value)) => (key, Some(value.to_owned())),
            None => (text.as_str(), None),
        };
        LabelFilter {
            key: key.to_owned(),
            value,
            is,
        }
    };
    let with = filters.get("label").iter().map(|text| label(text, true));
    let without = filters.get("label!").iter().map(|text| label(text, false));
    Ok(PruneOptions {
        all,
        until: output::until(filters)?.map(crate::containers::seconds),
        labels: with.chain(without).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_choose_labels() {
        let texts = ["label=a=b", "label!=c", "until=5"];
        let filters = Filters::parse(&texts, PRUNE_FILTERS).unwrap();
        let options = prune_options(true, &filters).unwrap();
        let label = |key: &str, value: Option<&str>, is| LabelFilter {
            key: key.to_owned(),
            value: value.map(str::to_owned),
            is,
        };
        assert_eq!(
            options.labels,
            [label("a", Some("b"), true), label("c", None, false)]
        );
        assert_eq!(options.until, Some(5));
        assert!(Filters::parse(&["size=1"], PRUNE_FILTERS).is_err());
    }
}
