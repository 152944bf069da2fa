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
    // As in Docker a template that names it asks for it.
    let template = args.format.as_deref().unwrap_or_default();
    let digests = args.digests || template.contains(".Digest");
    let rows: Vec<_> = images
        .iter()
        .flat_map(|image| rows_of(image, digests, args.no_trunc))
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

/// What images without a name, a tag or a digest have in their places.
const NONE: &str = "<none>";

/// A line for each name, and for each repository that knows the image by digests alone. With digests, as
/// in Docker, for each digest that the repository knows it by.
pub(crate) fn rows_of(image: &Summary, digests: bool, whole: bool) -> Vec<Value> {
    let known = image.repo_digests.iter();
    let known: Vec<_> = known.filter_map(|name| name.split_once('@')).collect();
    let digests_of = |repository: &str| -> Vec<&str> {
        let here = known.iter().filter(|(name, _)| *name == repository);
        let mut all: Vec<_> = here.filter(|_| digests).map(|one| one.1).collect();
        if all.is_empty() {
            all.push(NONE);
        }
        all
    };
    let tags = image.repo_tags.iter();
    let mut names: Vec<_> = tags
        .map(|name| name.rsplit_once(':').unwrap_or((name, NONE)))
        .collect();
    for &(repository, _) in &known {
        if !names.iter().any(|(other, _)| *other == repository) {
            names.push((repository, NONE));
        }
    }
    if names.is_empty() {
        names.push((NONE, NONE));
    }
    let with_digests = names.into_iter().flat_map(|(repository, tag)| {
        let digests = digests_of(repository).into_iter();
        digests.map(move |digest| (repository, tag, digest))
    });
    with_digests.map(|name| row(image, name, whole)).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tag_has_a_line_for_each_digest_of_its_repository() {
        let texts = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect();
        let image = Summary {
            repo_tags: texts(&["a:1", "a:2", "h:5000/b:1"]),
            repo_digests: texts(&["a@sha256:1", "a@sha256:2", "c@sha256:3", "c@sha256:4"]),
            ..Summary::default()
        };
        let shown = |image: &Summary, digests| -> Vec<String> {
            let rows = rows_of(image, digests, false);
            let text = |row: &Value, key: &str| row[key].as_str().unwrap().to_owned();
            let line = |row: &Value| ["Repository", "Tag", "Digest"].map(|key| text(row, key));
            rows.iter().map(|row| line(row).join(" ")).collect()
        };
        // What docker.io 26.1 prints for such an image.
        let with_digests = [
            "a 1 sha256:1",
            "a 1 sha256:2",
            "a 2 sha256:1",
            "a 2 sha256:2",
            "h:5000/b 1 <none>",
            "c <none> sha256:3",
            "c <none> sha256:4",
        ];
        assert_eq!(shown(&image, true), with_digests);
        let without = [
            "a 1 <none>",
            "a 2 <none>",
            "h:5000/b 1 <none>",
            "c <none> <none>",
        ];
        assert_eq!(shown(&image, false), without);
        let dangling = Summary::default();
        assert_eq!(shown(&dangling, true), ["<none> <none> <none>"]);
    }
}
