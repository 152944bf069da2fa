//! Images as front ends see them: listings, names, removal, with the events of each.

use super::{ContainerError, Engine};
use crate::events;
use hullbox_image::{HistoryEntry, ImageId, LabelFilter, PruneOptions, Reference, Removed, Store};
use hullbox_model::event::{Kind, Verb, attribute};
use hullbox_model::filter::{FilterError, Filters, path_match};
use hullbox_model::image::{HistoryItem, Summary};
use hullbox_model::system::{ImageDeleted, ImagesPruned};

/// Keys of a listing's filters.
pub const IMAGE_FILTERS: &[&str] = &["before", "dangling", "label", "reference", "since", "until"];
/// Keys of the filters of what is to be removed.
pub const IMAGE_PRUNE_FILTERS: &[&str] = &["dangling", "label", "label!", "until"];

impl Engine {
    /// The images that fit, newest first. Of their names, those that fit.
    ///
    /// # Errors
    /// [`ContainerError`].
    pub fn list_images(&self, filters: &Filters) -> Result<Vec<Summary>, ContainerError> {
        let store = self.images()?;
        let mut images = store.summaries()?;
        let created = |key: &str| -> Result<Option<i64>, ContainerError> {
            let Some(name) = filters.get(key).last() else {
                return Ok(None);
            };
            let id = store.resolve(name)?.id.to_string();
            let found = images.iter().find(|image| image.id == id);
            // Removed just now, it was there before all others.
            Ok(Some(found.map_or(i64::MIN, |image| image.created)))
        };
        let (before, since) = (created("before")?, created("since")?);
        let until = filters.until()?.map(|ns| ns.div_euclid(1_000_000_000));
        let dangling = filters.boolean("dangling")?;
        let patterns = filters.get("reference");
        for pattern in patterns {
            if path_match(pattern, "").is_none() {
                return Err(ContainerError::Filter(FilterError::Value {
                    key: "reference".to_owned(),
                    value: pattern.clone(),
                    why: "not a pattern".to_owned(),
                }));
            }
        }
        images.retain_mut(|image| {
            let is_dangling = image.repo_tags.is_empty();
            if !patterns.is_empty() {
                let called = |name: &String| patterns.iter().any(|p| is_called(name, p));
                image.repo_tags.retain(called);
            }
            let labels = image.labels.as_ref();
            dangling.is_none_or(|dangling| dangling == is_dangling)
                && (patterns.is_empty() || !image.repo_tags.is_empty())
                && before.is_none_or(|at| image.created < at)
                && since.is_none_or(|at| image.created > at)
                && until.is_none_or(|at| image.created < at)
                && filters.labels("label", |name| Some(labels?.get(name)?.as_str()))
        });
        Ok(images)
    }

    /// The steps that made an image, newest first.
    ///
    /// # Errors
    /// [`ContainerError`].
    pub fn image_history(&self, text: &str) -> Result<Vec<HistoryItem>, ContainerError> {
        let entries = self.images()?.history(text)?;
        Ok(entries.iter().map(HistoryEntry::to_item).collect())
    }

    /// Gives an image another name.
    ///
    /// # Errors
    /// [`ContainerError`].
    pub fn tag_image(&self, source: &str, target: &Reference) -> Result<ImageId, ContainerError> {
        let id = self.images()?.tag(source, target)?;
        self.note_image(Verb::Tag, &id.to_string(), Some(target.familiar()));
        Ok(id)
    }

    /// Takes a name away, and removes the image with its last one.
    ///
    /// # Errors
    /// [`ContainerError`].
    pub fn remove_image(
        &self,
        text: &str,
        force: bool,
    ) -> Result<Vec<ImageDeleted>, ContainerError> {
        let mut store = self.images()?;
        let id = store.resolve(text).map(|image| image.id.to_string()).ok();
        let removed = store.remove(text, force, &mut |id| self.image_use(id))?;
        self.note_removed(&removed, id.as_deref());
        Ok(removed.iter().map(step).collect())
    }

    /// Removes the images that no container is made from and that fit: those without a name, or
    /// all.
    ///
    /// # Errors
    /// [`ContainerError`].
    pub fn prune_images(
        &self,
        all: bool,
        filters: &Filters,
    ) -> Result<ImagesPruned, ContainerError> {
        let options = prune_options(all, filters)?;
        let mut store: Store = self.images()?;
        let pruned = store.prune(&options, &mut |id| self.image_use(id))?;
        self.note_removed(&pruned.removed, None);
        self.note_prune(Kind::Image, pruned.reclaimed_bytes);
        Ok(ImagesPruned {
            images_deleted: pruned.removed.iter().map(step).collect(),
            space_reclaimed: pruned.reclaimed_bytes,
        })
    }

    /// Notes that something happened to an image.
    pub fn note_image(&self, verb: Verb, id: &str, name: Option<String>) {
        let about = name.map(|name| (attribute::NAME.to_owned(), name));
        let about = about.into_iter().collect();
        events::emit(&self.roots, Kind::Image, verb, id, about);
    }

    /// Notes what was removed. An image that lost a name is the one that is deleted next, or `id`.
    fn note_removed(&self, removed: &[Removed], id: Option<&str>) {
        for (at, step) in removed.iter().enumerate() {
            match step {
                // As Docker: it has no other name any more.
                Removed::Deleted(id) => {
                    let id = id.to_string();
                    self.note_image(Verb::Delete, &id, Some(id.clone()));
                }
                Removed::Untagged(name) => {
                    let deleted = removed[at..].iter().find_map(|step| match step {
                        Removed::Deleted(id) => Some(id.to_string()),
                        Removed::Untagged(_) => None,
                    });
                    let id = deleted
                        .or_else(|| id.map(str::to_owned))
                        .unwrap_or_default();
                    self.note_image(Verb::Untag, &id, Some(name.clone()));
                }
            }
        }
    }
}

fn step(removed: &Removed) -> ImageDeleted {
    match removed {
        Removed::Untagged(name) => ImageDeleted::Untagged(name.clone()),
        Removed::Deleted(id) => ImageDeleted::Deleted(id.to_string()),
    }
}

/// Docker's rule: the pattern fits the name with its tag, or without.
fn is_called(name: &str, pattern: &str) -> bool {
    let fits = |text: &str| path_match(pattern, text) == Some(true);
    let bare = match name.rsplit_once(':') {
        Some((bare, tag)) if !tag.contains('/') => bare,
        _ => name,
    };
    fits(name) || fits(bare)
}

/// Which images filters mean.
///
/// # Errors
/// A value that means nothing.
pub fn prune_options(all: bool, filters: &Filters) -> Result<PruneOptions, ContainerError> {
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
    let dangling = filters.boolean("dangling")?;
    Ok(PruneOptions {
        all: dangling.map_or(all, |dangling| !dangling),
        until: filters.until()?.map(|ns| ns.div_euclid(1_000_000_000)),
        labels: with.chain(without).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_dockers_patterns() {
        for (pattern, fits) in [
            ("busybox", true),
            ("busy*", true),
            ("busybox:1.*", true),
            ("*:1.36", true),
            ("busybox:2", false),
            ("*/busybox", false),
            ("", false),
        ] {
            assert_eq!(is_called("busybox:1.36", pattern), fits, "{pattern}");
        }
        assert!(is_called("localhost:5000/a/b:1", "localhost:5000/*/b"));
        assert!(!is_called("localhost:5000/a/b:1", "localhost:5000/*"));
    }

    #[test]
    fn filters_choose_what_is_removed() {
        let texts = ["label=a=b", "label!=c", "until=5"];
        let filters = Filters::parse(&texts, IMAGE_PRUNE_FILTERS).unwrap();
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
        assert_eq!((options.until, options.all), (Some(5), true));
        let dangling = Filters::parse(&["dangling=1"], IMAGE_PRUNE_FILTERS).unwrap();
        assert!(!prune_options(true, &dangling).unwrap().all);
        assert!(Filters::parse(&["size=1"], IMAGE_PRUNE_FILTERS).is_err());
    }
}
