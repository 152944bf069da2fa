//! `history`.

use super::list::short;
use crate::args::image::HistoryArgs;
use crate::engine;
use crate::output::failure::Failure;
use crate::output::format::{self, Column, Format};
use crate::output::stdout;
use crate::output::text::{ago, cut, size};
use hullbox_image::rfc3339;
use hullbox_model::image::HistoryItem;
use hullbox_model::time::NEVER_S;
use serde_json::{Value, json};

const HISTORY: [Column; 5] = [
    ("IMAGE", "ID"),
    ("CREATED", "CreatedSince"),
    ("CREATED BY", "CreatedBy"),
    ("SIZE", "Size"),
    ("COMMENT", "Comment"),
];

pub(crate) fn history(args: &HistoryArgs) -> Result<(), Failure> {
    let format = Format::parse(args.format.as_deref())?;
    let entries = engine::open()?.image_history(&args.image)?;
    let rows: Vec<Value> = entries.iter().map(|entry| row(entry, args)).collect();
    if args.quiet {
        let ids = rows.iter().filter_map(|row| row["ID"].as_str());
        return stdout::print(&ids.map(|id| format!("{id}\n")).collect::<String>());
    }
    let mut columns = HISTORY;
    if !args.human {
        columns[1] = ("CREATED AT", "CreatedAt");
    }
    format::rows(&rows, &columns, &format)
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

/// Text of the image's author without control characters, which could drive the reader's terminal.
fn plain(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}
