//! Commands on images.

use crate::app::{ImportArgs, ListArgs, LoadArgs, RmiArgs, TagArgs};
use crate::failure::{Failure, chain};
use crate::output::{self, Column, Format};
use crate::system;
use crate::text::{ago, now_s, size};
use hullbox_engine::containers::Engine;
use hullbox_engine::events;
use hullbox_engine::paths::Roots;
use hullbox_image::{
    ImageSummary, ImportOptions, LoadOptions, Progress, Reference, RemoveError, Removed,
    ResolveError, Source, Store, rfc3339,
};
use hullbox_model::event::{Kind, Verb, attribute};
use hullbox_model::filter::Filters;
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

const FILTERS: &[&str] = &["before", "dangling", "label", "reference", "since", "until"];

pub(crate) fn load(args: &LoadArgs) -> Result<(), Failure> {
    if args.input.is_none() && isatty(io::stdin().as_fd()) {
        return Err(
            Failure::new("nothing to load: standard input is a terminal")
                .with_hint("name a file with -i, or pipe an archive in"),
        );
    }
    let mut store = open()?;
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
        emit(Verb::Load, &image.id.to_string(), name);
    }
    output::print(&text)
}

pub(crate) fn import(args: &ImportArgs) -> Result<(), Failure> {
    let name = args.name.as_deref().map(reference).transpose()?;
    let mut store = open()?;
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
    emit(Verb::Import, &id.to_string(), args.name.clone());
    output::print(&format!("{id}\n"))
}

pub(crate) fn list(args: &ListArgs) -> Result<(), Failure> {
    let format = Format::parse(args.format.as_deref())?;
    let mut texts = args.filters.clone();
    texts.extend(args.name.iter().map(|name| format!("reference={name}")));
    let filters = output::filters(&texts, FILTERS)?;
    let store = open()?;
    let created = |key: &str| -> Result<Option<i64>, Failure> {
        let name = filters.get(key).last();
        let Some(name) = name else { return Ok(None) };
        let id = store.resolve(name)?.id;
        let images = store.list()?;
        let image = images.iter().find(|image| image.id == id);
        Ok(Some(
            image.and_then(|image| image.created).unwrap_or(i64::MIN),
        ))
    };
    let (before, since) = (created("before")?, created("since")?);
    let until = output::until(&filters)?.map(crate::containers::seconds);
    let dangling = filters.boolean("dangling")?;
    let mut rows = Vec::new();
    for image in store.list()? {
        let made = image.created.unwrap_or(i64::MIN);
        let fits = dangling.is_none_or(|dangling| dangling == image.repository.is_none())
            && filters.any("reference", |pattern| is_called(&image, pattern))
            && before.is_none_or(|at| made < at)
            && since.is_none_or(|at| made > at)
            && until.is_none_or(|at| made < at);
        if fits && (!filters.contains("label") || has_labels(&store, &image, &filters)?) {
            rows.push(row(&image, args.no_trunc));
        }
    }
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

fn is_called(image: &ImageSummary, pattern: &str) -> bool {
    let (name, tag) = match pattern.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        _ => (pattern, None),
    };
    image
        .repository
        .as_deref()
        .is_some_and(|repository| glob(name, repository))
        && tag.is_none_or(|tag| glob(tag, image.tag.as_deref().unwrap_or_default()))
}

fn has_labels(store: &Store, image: &ImageSummary, filters: &Filters) -> Result<bool, Failure> {
    let labels = store.inspect(&image.id.to_string())?.config.labels;
    let labels = labels.unwrap_or_default();
    Ok(filters.labels("label", |name| labels.get(name).map(String::as_str)))
}

/// Shell patterns with `*` and `?`.
fn glob(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) =
        (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t) = (0, 0);
    let mut star = None;
    while t < text.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(c) if *c == '?' || *c == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match star {
                // Let the last star take one character more.
                Some((at, from)) => {
                    star = Some((at, from + 1));
                    p = at + 1;
                    t = from + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

fn row(image: &ImageSummary, whole: bool) -> Value {
    let none = || "<none>".to_owned();
    let created = image.created;
    json!({
        "Repository": image.repository.clone().unwrap_or_else(none),
        "Tag": image.tag.clone().unwrap_or_else(none),
        "ID": if whole { image.id.to_string() } else { image.id.short() },
        "CreatedSince": ago(created),
        "CreatedAt": created.map_or_else(|| "N/A".to_owned(), |at| rfc3339(at, 0)),
        "Size": size(image.size_bytes),
        "Digest": "<none>",
        "Containers": "N/A",
    })
}

pub(crate) fn remove(args: &RmiArgs) -> Result<(), Failure> {
    let engine = system::engine()?;
    let mut store = engine.images()?;
    let (mut failures, mut absent) = (Vec::new(), Vec::new());
    for text in &args.images {
        match remove_one(&engine, &mut store, text, args.force) {
            Ok(done) => output::print(&done)?,
            Err(error @ RemoveError::Resolve(ResolveError::NotFound(_))) if args.force => {
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

fn remove_one(
    engine: &Engine,
    store: &mut Store,
    text: &str,
    force: bool,
) -> Result<String, RemoveError> {
    let id = store.resolve(text).map(|image| image.id.to_string());
    let removed = store.remove(text, force, &mut |id| engine.image_use(id))?;
    tell_removed(&removed, id.ok().as_deref());
    Ok(removed
        .iter()
        .map(|step| match step {
            Removed::Untagged(name) => format!("Untagged: {name}\n"),
            Removed::Deleted(id) => format!("Deleted: {id}\n"),
        })
        .collect())
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
    let id = open()?.tag(&args.source, &target)?;
    emit(Verb::Tag, &id.to_string(), Some(target.familiar()));
    Ok(())
}

/// Notes that something happened to an image.
pub(crate) fn emit(action: Verb, id: &str, name: Option<String>) {
    let Ok(roots) = Roots::from_env() else { return };
    let about = name.map(|name| (attribute::NAME.to_owned(), name));
    events::emit(&roots, Kind::Image, action, id, about.into_iter().collect());
}

/// Notes what was removed. An image that lost a name is the one that is deleted next, or `id`.
pub(crate) fn tell_removed(removed: &[Removed], id: Option<&str>) {
    for (at, step) in removed.iter().enumerate() {
        match step {
            Removed::Deleted(id) => emit(Verb::Delete, &id.to_string(), None),
            Removed::Untagged(name) => {
                let deleted = removed[at..].iter().find_map(|step| match step {
                    Removed::Deleted(id) => Some(id.to_string()),
                    Removed::Untagged(_) => None,
                });
                let id = deleted
                    .or_else(|| id.map(str::to_owned))
                    .unwrap_or_default();
                emit(Verb::Untag, &id, Some(name.to_string()));
            }
        }
    }
}

fn reference(text: &str) -> Result<Reference, Failure> {
    Reference::parse(text)
        .map_err(|error| Failure::new(format!("invalid reference {text:?}: {}", chain(&error))))
}

fn open() -> Result<Store, Failure> {
    Ok(system::engine()?.images()?)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_like_a_shells() {
        for (pattern, text, fits) in [
            ("debian", "debian", true),
            ("deb*", "debian", true),
            ("*b*n", "debian", true),
            ("d?bian", "debian", true),
            ("deb", "debian", false),
            ("*x", "debian", false),
            ("", "", true),
            ("**", "", true),
            ("a*b*c", "aXbXbXc", true),
        ] {
            assert_eq!(glob(pattern, text), fits, "{pattern} {text}");
        }
    }
}
