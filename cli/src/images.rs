//! Commands on images.

use crate::app::{ImportArgs, ListArgs, LoadArgs, RmiArgs, TagArgs};
use crate::failure::{Failure, chain};
use crate::output::{self, Column, Format};
use crate::system;
use crate::text::{ago, now_s, size};
use hullbox_engine::containers::{ContainerError, IMAGE_FILTERS};
use hullbox_image::{
    ImportOptions, LoadOptions, Progress, Reference, RemoveError, ResolveError, Source, rfc3339,
};
use hullbox_model::event::Verb;
use hullbox_model::image::Summary;
use hullbox_model::system::ImageDeleted;
use hullbox_model::time::NEVER_S;
use rustix::termios::isatty;
use serde_json::{Value, json};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

const COLUMNS: [Column; 5] = [
    ("REPOSITORY", "Repository"),
    ("TAG", "Tag"),
    ("IMAGE ID", "ID"),
    ("CREATED", "CreatedSince"),
    ("SIZE", "Size"),
];

pub(crate) fn load(args: &LoadArgs) -> Result<(), Failure> {
    if args.input.is_none() && isatty(io::stdin().as_fd()) {
        return Err(
            Failure::new("nothing to load: standard input is a terminal")
                .with_hint("name a file with -i, or pipe an archive in"),
        );
    }
    let engine = system::engine()?;
    let mut store = engine.images()?;
    let mut meter = Meter::new("Loading", args.quiet);
    let mut stdin = io::stdin();
    let source = match &args.input {
        Some(path) => Source::Path(path),
        None => Source::Stream(&mut stdin),
    };
    let loaded = store.load(source, &LoadOptions::default(), &mut |p| meter.show(p));
    meter.clear();
    let from = args.input.as_deref().unwrap_or(Path::new("standard input"));
    let loaded =
        loaded.map_err(|error| Failure::of(format!("cannot load {}", from.display()), &error))?;
    let mut text = String::new();
    for image in loaded {
        if image.names.is_empty() {
            text.push_str(&format!("Loaded image ID: {}\n", image.id));
        }
        for name in &image.names {
            text.push_str(&format!("Loaded image: {}\n", name.familiar()));
        }
        let name = image.names.first().map(Reference::familiar);
        engine.note_image(Verb::Load, &image.id.to_string(), name);
    }
    output::print(&text)
}

pub(crate) fn import(args: &ImportArgs) -> Result<(), Failure> {
    let name = args.name.as_deref().map(reference).transpose()?;
    let engine = system::engine()?;
    let mut store = engine.images()?;
    let mut meter = Meter::new("Importing", false);
    let mut stdin = io::stdin();
    let source = if args.source.as_os_str() == "-" {
        Source::Stream(&mut stdin)
    } else {
        Source::Path(&args.source)
    };
    let options = ImportOptions {
        name,
        changes: args.changes.clone(),
        message: args.message.clone(),
        created: now_s(),
    };
    let imported = store.import(source, &options, &mut |p| meter.show(p));
    meter.clear();
    let id = imported
        .map_err(|error| Failure::of(format!("cannot import {}", args.source.display()), &error))?;
    engine.note_image(Verb::Import, &id.to_string(), args.name.clone());
    output::print(&format!("{id}\n"))
}

pub(crate) fn list(args: &ListArgs) -> Result<(), Failure> {
    let format = Format::parse(args.format.as_deref())?;
    let mut texts = args.filters.clone();
    texts.extend(args.name.iter().map(|name| format!("reference={name}")));
    let filters = output::filters(&texts, IMAGE_FILTERS)?;
    let images = system::engine()?.list_images(&filters)?;
    let rows: Vec<_> = images
        .iter()
        .flat_map(|image| rows_of(image, args.no_trunc))
        .collect();
    if args.quiet {
        // An image with two names is one image.
        let mut ids: Vec<&str> = Vec::new();
        for id in rows.iter().filter_map(|row| row["ID"].as_str()) {
            if !ids.contains(&id) {
                ids.push(id);
            }
        }
        return output::print(&ids.iter().map(|id| format!("{id}\n")).collect::<String>());
    }
    output::rows(&rows, &COLUMNS, &format)
}

/// A line for each name, or one for an image that has none.
fn rows_of(image: &Summary, whole: bool) -> Vec<Value> {
    let none = "<none>".to_owned();
    if image.repo_tags.is_empty() {
        return vec![row(image, (&none, &none), whole)];
    }
    let names = image.repo_tags.iter();
    let parts = names.map(|name| name.rsplit_once(':').unwrap_or((name, &none)));
    parts.map(|parts| row(image, parts, whole)).collect()
}

fn row(image: &Summary, (repository, tag): (&str, &str), whole: bool) -> Value {
    let created = (image.created != NEVER_S).then_some(image.created);
    json!({
        "Repository": repository,
        "Tag": tag,
        "ID": if whole { &image.id } else { short(&image.id) },
        "CreatedSince": ago(created),
        "CreatedAt": created.map_or_else(|| "N/A".to_owned(), |at| rfc3339(at, 0)),
        "Size": size(image.size),
        "Digest": "<none>",
        "Containers": "N/A",
    })
}

/// The first digits of an image's id.
pub(crate) fn short(id: &str) -> &str {
    let digits = id.strip_prefix("sha256:").unwrap_or(id);
    digits.get(..12).unwrap_or(digits)
}

pub(crate) fn remove(args: &RmiArgs) -> Result<(), Failure> {
    let engine = system::engine()?;
    let (mut failures, mut absent) = (Vec::new(), Vec::new());
    for text in &args.images {
        match engine.remove_image(text, args.force) {
            Ok(steps) => {
                let lines = steps.iter().map(|step| match step {
                    ImageDeleted::Untagged(name) => format!("Untagged: {name}\n"),
                    ImageDeleted::Deleted(id) => format!("Deleted: {id}\n"),
                });
                output::print(&lines.collect::<String>())?;
            }
            Err(
                error
                @ ContainerError::RemoveImage(RemoveError::Resolve(ResolveError::NotFound(_))),
            ) if args.force => {
                absent.push(error.into());
            }
            Err(error) => failures.push(error.into()),
        }
    }
    // As with Docker's: by force, what is not there is no failure, but said.
    for failure in &absent {
        crate::failure::report(failure);
    }
    one_of(failures)
}

/// The first failure, the others said at once.
pub(crate) fn one_of(failures: Vec<Failure>) -> Result<(), Failure> {
    let mut failures = failures.into_iter();
    let Some(first) = failures.next() else {
        return Ok(());
    };
    for failure in failures {
        crate::failure::report(&failure);
    }
    Err(first)
}

pub(crate) fn tag(args: &TagArgs) -> Result<(), Failure> {
    let target = reference(&args.target)?;
    if target.digest().is_some() {
        return Err(Failure::new(format!(
            "cannot name an image {:?}: a digest is not a tag",
            args.target
        )));
    }
    system::engine()?.tag_image(&args.source, &target)?;
    Ok(())
}

fn reference(text: &str) -> Result<Reference, Failure> {
    Reference::parse(text)
        .map_err(|error| Failure::new(format!("invalid reference {text:?}: {}", chain(&error))))
}

/// Progress on standard error, where that is a terminal.
struct Meter {
    verb: &'static str,
    on: bool,
    last: Option<Instant>,
    started: Instant,
}

impl Meter {
    /// Short work shows nothing, and nothing flickers.
    const DELAY: Duration = Duration::from_millis(300);
    const INTERVAL: Duration = Duration::from_millis(100);

    fn new(verb: &'static str, quiet: bool) -> Self {
        Self {
            verb,
            on: !quiet && isatty(io::stderr().as_fd()),
            last: None,
            started: Instant::now(),
        }
    }

    fn show(&mut self, progress: Progress) {
        let due = match self.last {
            None => self.started.elapsed() >= Self::DELAY,
            Some(last) => last.elapsed() >= Self::INTERVAL,
        };
        if !self.on || !due {
            return;
        }
        self.last = Some(Instant::now());
        let total = progress
            .total_bytes
            .map_or_else(String::new, |total| format!(" of {}", size(total)));
        let line = format!(
            "\r{} {}{total}, {} layers\x1b[K",
            self.verb,
            size(progress.read_bytes),
            progress.layers
        );
        // Progress that cannot be shown is not worth failing over.
        let _ = io::stderr().write_all(line.as_bytes());
    }

    fn clear(&self) {
        if self.last.is_some() {
            let _ = io::stderr().write_all(b"\r\x1b[K");
        }
    }
}
