//! Noting what happened to containers, and telling what did.

use super::{ContainerError, Engine, launch};
use crate::events::{self, EventsError, Query, Subscription};
use crate::state::Record;
use hullbox_model::event::{Action, Event, Kind, Verb, attribute};
use hullbox_protocol::Builtin;
use std::collections::BTreeMap;

impl Engine {
    /// What happens from now on, or since an earlier time: first what is on record, then what
    /// comes, each event once.
    ///
    /// # Errors
    /// The log of events cannot be opened or watched.
    pub fn events(&self, query: Query) -> Result<Subscription, EventsError> {
        Subscription::open(&self.roots, query)
    }

    /// Notes that something happened to a container.
    pub fn note(&self, record: &Record, action: impl Into<Action>) {
        events::emit_all(&self.roots, &[happened(record, action)]);
    }

    /// Notes that an image was made of a container.
    pub fn note_commit(&self, record: &Record, image: &str, tag: Option<&str>, comment: &str) {
        let commit = happened(record, Verb::Commit)
            .with(attribute::COMMENT, comment)
            .with(attribute::IMAGE_ID, image)
            .with(attribute::IMAGE_REF, tag.unwrap_or_default());
        let mut all = vec![commit];
        if let Some(tag) = tag {
            let about = BTreeMap::from([(attribute::NAME.to_owned(), tag.to_owned())]);
            all.push(events::event(Kind::Image, Verb::Tag, image, about));
        }
        events::emit_all(&self.roots, &all);
    }

    /// Notes that what was not in use was removed.
    pub fn note_prune(&self, kind: Kind, reclaimed_bytes: u64) {
        let bytes = reclaimed_bytes.to_string();
        let about = BTreeMap::from([(attribute::RECLAIMED.to_owned(), bytes)]);
        events::emit(&self.roots, kind, Verb::Prune, "", about);
    }

    /// Notes what an errand is about, where Docker does.
    pub(super) fn note_errand(&self, record: &Record, builtin: &Builtin) {
        let (verb, path) = match builtin {
            Builtin::ArchiveOut { path, .. } => (Verb::ArchivePath, Some(path)),
            Builtin::ArchiveIn { path, .. } => (Verb::ExtractToDir, Some(path)),
            Builtin::Export => (Verb::Export, None),
            _ => return,
        };
        let mut event = happened(record, verb);
        if let Some(path) = path {
            event = event.with(attribute::PATH, String::from_utf8_lossy(path));
        }
        events::emit_all(&self.roots, &[event]);
    }

    /// Notes the death of containers whose monitors were killed.
    pub(super) fn note_deaths(&self, dead: &[Record]) {
        for record in dead {
            let code = crate::state::KILLED.to_string();
            let mut all = vec![happened(record, Verb::Die).with(attribute::EXIT_CODE, code)];
            all.extend(events::memberships(record, &Verb::Disconnect));
            all.extend(events::volume_uses(record, &Verb::Unmount));
            if record.spec.auto_remove {
                all.push(happened(record, Verb::Destroy));
            }
            let gone = record.changed_volumes.iter();
            all.extend(gone.map(|name| events::volume_event(name, Verb::Destroy)));
            events::emit_all(&self.roots, &all);
        }
    }

    /// Gives a container another name.
    ///
    /// # Errors
    /// [`ContainerError`].
    pub fn rename(&mut self, text: &str, name: &str) -> Result<(), ContainerError> {
        super::check_name(name)?;
        let record = self.find(text)?;
        self.state.rename(&record.id, name)?;
        self.send_name(&record, name);
        let event = happened(&record, Verb::Rename)
            .with(attribute::NAME, name)
            .with(attribute::OLD_NAME, format!("/{}", record.name));
        events::emit_all(&self.roots, &[event]);
        Ok(())
    }
}

/// An event of a container.
pub(super) fn happened(record: &Record, action: impl Into<Action>) -> Event {
    events::event(Kind::Container, action, &record.id, launch::about(record))
}
