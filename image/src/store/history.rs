//! How an image came to be, as its configuration tells it.

use super::{ResolveError, Store};
use crate::digest::ImageId;
use crate::reference::Reference;
use hullbox_model::image::HistoryItem;
use hullbox_model::time::NEVER_S;
use serde_json::Value;

/// A line of `hullbox history`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HistoryEntry {
    /// The image, on its topmost line; what lies beneath has no id of its own.
    pub id: Option<ImageId>,
    /// Names of that image.
    pub tags: Vec<String>,
    /// When the step was done, in seconds since 1970.
    pub created: Option<i64>,
    /// What was done.
    pub created_by: String,
    /// Who did it.
    pub author: String,
    /// What they said of it.
    pub comment: String,
    /// Bytes of the files in its layer.
    pub size_bytes: u64,
    /// Whether it made no layer.
    pub is_empty: bool,
}

impl HistoryEntry {
    /// In the shape of Docker's API.
    #[must_use]
    pub fn to_item(&self) -> HistoryItem {
        let missing = || "<missing>".to_owned();
        HistoryItem {
            id: self.id.as_ref().map_or_else(missing, ToString::to_string),
            created: self.created.unwrap_or(NEVER_S),
            created_by: self.created_by.clone(),
            tags: (!self.tags.is_empty()).then(|| self.tags.clone()),
            size: self.size_bytes,
            comment: self.comment.clone(),
        }
    }
}

impl Store {
    /// The steps that made an image, newest first. All text is the image author's.
    ///
    /// # Errors
    /// [`ResolveError`].
    pub fn history(&self, text: &str) -> Result<Vec<HistoryEntry>, ResolveError> {
        let found = self.find(text)?;
        let document = self.document(text, &found.id)?;
        let failed = |error| ResolveError::Store(text.to_owned(), error);
        let layers = self.stack_of(&found.id).map_err(failed)?;
        let names = self.names_of(&found.id).map_err(failed)?;
        let mut sizes = layers.iter().map(|layer| layer.facts.content_bytes);
        let told = document.get("history").and_then(Value::as_array);
        let mut entries: Vec<HistoryEntry> = told
            .into_iter()
            .flatten()
            .map(|step| entry(step, &mut sizes))
            .collect();
        // Layers that the history does not speak of are there all the same.
        entries.extend(sizes.map(|size_bytes| HistoryEntry {
            size_bytes,
            ..HistoryEntry::default()
        }));
        entries.reverse();
        if let Some(top) = entries.first_mut() {
            top.id = Some(found.id);
            top.tags = names.iter().map(Reference::familiar).collect();
        }
        Ok(entries)
    }
}

fn entry(step: &Value, sizes: &mut impl Iterator<Item = u64>) -> HistoryEntry {
    let text = |key: &str| step.get(key).and_then(Value::as_str).unwrap_or_default();
    let is_empty = step.get("empty_layer").and_then(Value::as_bool) == Some(true);
    HistoryEntry {
        created: crate::time::parse_rfc3339(text("created")),
        created_by: text("created_by").to_owned(),
        author: text("author").to_owned(),
        comment: text("comment").to_owned(),
        size_bytes: if is_empty {
            0
        } else {
            sizes.next().unwrap_or(0)
        },
        is_empty,
        ..HistoryEntry::default()
    }
}
