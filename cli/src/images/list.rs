//! `images` and `rmi`.

use crate::args::filters::filters;
use crate::args::image::{ListArgs, RmiArgs};
use crate::engine;
use crate::output::failure::{Failure, one_of, report};
use crate::output::format::{self, Column, Format};
use crate::output::stdout;
use crate::output::text::{ago, size};
use hullbox_engine::containers::{ContainerError, IMAGE_FILTERS};
use hullbox_image::{RemoveError, ResolveError};
use hullbox_model::image::Summary;
use hullbox_model::system::ImageDeleted;
use hullbox_model::time::{self, NEVER_S};
use serde_json::{Value, json};

const COLUMNS: [Column; 5] = [
    ("REPOSITORY", "Repository"),
    ("TAG", "Tag"),
    ("IMAGE ID", "ID"),
    ("CREATED", "CreatedSince"),
    ("SIZE", "Size"),
];

pub(crate) fn list(args: &ListArgs) -> Result<(), Failure> {
    let format = Format::parse(args.format.as_deref())?;
    let mut texts = args.filters.clone();
    texts.extend(args.name.iter().map(|name| format!("reference={name}")));
    let filters = filters(&texts, IMAGE_FILTERS)?;
    let images = engine::open()?.list_images(&filters)?;
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
        return stdout::print(&ids.iter().map(|id| format!("{id}\n")).collect::<String>());
    }
    let mut columns = COLUMNS.to_vec();
    if args.digests {
        columns.insert(2, ("DIGEST", "Digest"));
    }
    format::rows(&rows, &columns, &format)
}

/// A line for each name; of an image without one, for each repository that knows it by a digest, or one.
pub(crate) fn rows_of(image: &Summary, whole: bool) -> Vec<Value> {
    const NONE: &str = "<none>";
    let known = image.repo_digests.iter();
    let known: Vec<_> = known.filter_map(|name| name.split_once('@')).collect();
    let names: Vec<(&str, &str, &str)> = if !image.repo_tags.is_empty() {
        let names = image.repo_tags.iter();
        let parts = names.map(|name| name.rsplit_once(':').unwrap_or((name, NONE)));
        let digest = |repository| known.iter().find(|(name, _)| *name == repository);
        parts
            .map(|(repository, tag)| {
                (
                    repository,
                    tag,
                    digest(repository).map_or(NONE, |one| one.1),
                )
            })
            .collect()
    } else if known.is_empty() {
        vec![(NONE, NONE, NONE)]
    } else {
        let names = known.iter();
        names
            .map(|&(repository, digest)| (repository, NONE, digest))
            .collect()
    };
    names
        .into_iter()
        .map(|name| row(image, name, whole))
        .collect()
}

fn row(image: &Summary, (repository, tag, digest): (&str, &str, &str), whole: bool) -> Value {
    let created = (image.created != NEVER_S).then_some(image.created);
    json!({
        "Repository": repository,
        "Tag": tag,
        "ID": if whole { &image.id } else { short(&image.id) },
        "CreatedSince": ago(created),
        "CreatedAt": created.map_or_else(|| "N/A".to_owned(), time::local),
        "Size": size(image.size),
        "Digest": digest,
        "Containers": "N/A",
        "SharedSize": "N/A",
        "UniqueSize": "N/A",
        "VirtualSize": size(image.size),
    })
}

/// The first digits of an image's id.
pub(super) fn short(id: &str) -> &str {
    let digits = id.strip_prefix("sha256:").unwrap_or(id);
    digits.get(..12).unwrap_or(digits)
}

pub(crate) fn remove(args: &RmiArgs) -> Result<(), Failure> {
    let engine = engine::open()?;
    let (mut failures, mut absent) = (Vec::new(), Vec::new());
    for text in &args.images {
        match engine.remove_image(text, args.force) {
            Ok(steps) => {
                let lines = steps.iter().map(|step| match step {
                    ImageDeleted::Untagged(name) => format!("Untagged: {name}\n"),
                    ImageDeleted::Deleted(id) => format!("Deleted: {id}\n"),
                });
                stdout::print(&lines.collect::<String>())?;
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
    // As in Docker: with --force a missing image is reported, and is no failure.
    for failure in &absent {
        report(failure);
    }
    one_of(failures)
}
