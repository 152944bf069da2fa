//! `rmi`: names first, then the image, then what nobody needs any more.

use super::lock;
use super::names;
use super::query::Found;
use super::travel;
use super::{ResolveError, Store, StoreError};
use crate::digest::{Digest, ImageId};
use crate::reference::{Reference, familiar_name};
use rusqlite::{Transaction, TransactionBehavior, params};
use std::collections::BTreeSet;

/// That a container is made from an image, as whoever keeps containers reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageUse {
    /// A container that does not run.
    Stopped {
        /// Its id, as it is to be shown.
        container: String,
    },
    /// A container that runs.
    Running {
        /// Its id, as it is to be shown.
        container: String,
    },
}

/// What a removal did, a line each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removed {
    /// This name, as it is shown, is gone.
    Untagged(String),
    /// This image is gone.
    Deleted(ImageId),
}

/// Why an image or a name was not removed. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RemoveError {
    /// It was not found.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// A container uses the last name of the image.
    #[error(
        "conflict: unable to remove repository reference {name:?} (must force) - container {container} is using its referenced image {image}"
    )]
    NameInUse {
        /// The name.
        name: String,
        /// The container.
        container: String,
        /// Short id of the image.
        image: String,
    },
    /// The image has names beyond those that its id may remove.
    #[error(
        "conflict: unable to delete {image} (must be forced) - image is referenced in multiple repositories"
    )]
    ManyNames {
        /// Short id of the image.
        image: String,
    },
    /// A stopped container uses it.
    #[error(
        "conflict: unable to delete {image} (must be forced) - image is being used by stopped container {container}"
    )]
    UsedByStopped {
        /// Short id of the image.
        image: String,
        /// The container.
        container: String,
    },
    /// A running container uses it; force does not help.
    #[error(
        "conflict: unable to delete {image} (cannot be forced) - image is being used by running container {container}"
    )]
    UsedByRunning {
        /// Short id of the image.
        image: String,
        /// The container.
        container: String,
    },
    /// The store.
    #[error("cannot remove the image")]
    Store(#[from] StoreError),
}

impl From<rusqlite::Error> for RemoveError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Store(error.into())
    }
}

/// What is to be done, decided before anything is done.
struct Removal {
    untag: Known,
    delete: bool,
}

impl Store {
    /// Removes a name, or an image with its names, by Docker's rules: a name goes by itself while
    /// the image has others; the last name takes the image along; an id removes an image whose
    /// names are at most one, or with `force` any.
    ///
    /// `in_use` is asked, while no [`super::Lease`] is out, whether a container is made from an image.
    ///
    /// # Errors
    /// [`RemoveError`].
    pub fn remove(
        &mut self,
        text: &str,
        force: bool,
        in_use: &mut dyn FnMut(&ImageId) -> Option<ImageUse>,
    ) -> Result<Vec<Removed>, RemoveError> {
        let _no_new_users = lock::exclusive(&self.use_lock_path())?;
        let found = self.find(text)?;
        let known = Known {
            names: self.names_of(&found.id)?,
            digests: self.repo_digests(&found.id)?,
            meant: self.names_meant(&found)?,
        };
        let usage = in_use(&found.id);
        let removal = decide(&found, known, usage, force)?;
        // While this is held nobody sweeps, so the mark outlives a kill before the rows are gone. A
        // name takes its manifest along, if no other name has it.
        let staging = self.stage()?;
        self.mark_for_sweep()?;
        let transaction = self
            .db
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        let removed = apply(&transaction, &found, &removal)?;
        transaction.commit()?;
        self.checkpoint()?;
        drop(staging);
        self.try_sweep()?;
        Ok(removed)
    }

    /// The names that a digest stands for which is no registry's.
    fn names_meant(&self, found: &Found) -> Result<Vec<Reference>, StoreError> {
        let Some(name) = &found.name else {
            return Ok(Vec::new());
        };
        match name.digest() {
            Some(digest) => self.names_by_digest(&found.id, &name.name(), digest),
            None => Ok(Vec::new()),
        }
    }
}

/// By what an image is known.
struct Known {
    names: Vec<Reference>,
    digests: Vec<(String, Digest)>,
    /// Of the names, those that the digest stands for which was typed, if no registry has told it.
    meant: Vec<Reference>,
}

impl Known {
    /// Whether it is known by nothing.
    fn is_empty(&self) -> bool {
        self.names.is_empty() && self.digests.is_empty()
    }

    /// Whether it is known in one repository alone, and there by one tag at most.
    fn is_single(&self) -> bool {
        self.repositories() == 1 && self.names.len() <= 1
    }

    /// How many repositories know it.
    fn repositories(&self) -> usize {
        let named = self.names.iter().map(Reference::name);
        let by_digest = self
            .digests
            .iter()
            .map(|(repository, _)| repository.clone());
        named.chain(by_digest).collect::<BTreeSet<_>>().len()
    }

    /// What of it a name takes away, and what is left.
    fn split(self, name: &Reference) -> (Self, Self) {
        let repository = name.name();
        if let Some(digest) = name.digest() {
            let meant = |(other, known): &(String, Digest)| *other == repository && known == digest;
            if self.digests.iter().any(meant) {
                let (gone, left) = self.digests.into_iter().partition(meant);
                return (Self::of(Vec::new(), gone), Self::of(self.names, left));
            }
        }
        let (gone, left): (Vec<_>, Vec<_>) =
            self.names
                .into_iter()
                .partition(|other| match name.digest() {
                    Some(_) => self.meant.contains(other),
                    None => other.name() == repository && other.tag() == name.tag(),
                });
        // The digests of a repository go with its last tag.
        let is_last = !left.iter().any(|other| other.name() == repository);
        let (forgotten, known) = self
            .digests
            .into_iter()
            .partition(|(other, _)| is_last && *other == repository);
        (Self::of(gone, forgotten), Self::of(left, known))
    }

    const fn of(names: Vec<Reference>, digests: Vec<(String, Digest)>) -> Self {
        Self {
            names,
            digests,
            meant: Vec::new(),
        }
    }
}

fn decide(
    found: &Found,
    known: Known,
    usage: Option<ImageUse>,
    force: bool,
) -> Result<Removal, RemoveError> {
    let image = found.id.short();
    if let Some(name) = &found.name {
        let is_single = known.is_single();
        let (untag, left) = known.split(name);
        return match usage {
            None => Ok(Removal {
                delete: left.is_empty(),
                untag,
            }),
            Some(ImageUse::Stopped { container } | ImageUse::Running { container })
                if !force && (is_single || left.is_empty()) =>
            {
                Err(RemoveError::NameInUse {
                    name: name.familiar(),
                    container,
                    image,
                })
            }
            // The container keeps the image; only the name goes, as in Docker. A stopped
            // container's image stays too: its layers are the container's root.
            Some(_) => Ok(Removal {
                untag,
                delete: false,
            }),
        };
    }
    match usage {
        Some(ImageUse::Running { container }) => {
            return Err(RemoveError::UsedByRunning { image, container });
        }
        Some(ImageUse::Stopped { container }) if !force => {
            return Err(RemoveError::UsedByStopped { image, container });
        }
        _ => {}
    }
    if (known.names.len() > 1 || known.repositories() > 1) && !force {
        return Err(RemoveError::ManyNames { image });
    }
    Ok(Removal {
        untag: known,
        // A forced removal under a stopped container takes the names and leaves the container
        // able to start: the image goes when it is removed again, unused.
        delete: usage.is_none(),
    })
}

fn apply(
    transaction: &Transaction<'_>,
    found: &Found,
    removal: &Removal,
) -> Result<Vec<Removed>, RemoveError> {
    let id = &found.id;
    let id_bytes = id.digest().as_bytes();
    let mut removed = Vec::new();
    for name in &removal.untag.names {
        transaction.execute(
            "DELETE FROM names WHERE repository = ?1 AND tag = ?2 AND image = ?3",
            params![name.name(), name.tag(), id_bytes],
        )?;
        removed.push(Removed::Untagged(name.familiar()));
    }
    for (repository, digest) in &removal.untag.digests {
        names::forget_digest(transaction, repository, digest, id)?;
        // As it was typed, with a tag that says nothing.
        let typed = found.name.as_ref();
        let typed =
            typed.filter(|name| name.digest() == Some(digest) && name.name() == *repository);
        let name = typed.map_or_else(
            || format!("{}@{digest}", familiar_name(repository)),
            Reference::familiar,
        );
        removed.push(Removed::Untagged(name));
    }
    // Manifests below indexes are known by those alone. Of old indexes it is not known what is below.
    transaction.execute(
        "DELETE FROM repo_digests WHERE image = ?1 AND NOT shown AND NOT EXISTS (
             SELECT 1 FROM repo_digests o
             WHERE o.image = ?1 AND o.repository = repo_digests.repository AND o.shown
             AND coalesce(o.manifest, repo_digests.digest) = repo_digests.digest)",
        params![id_bytes],
    )?;
    if removal.delete {
        // Another command may have named the image since; then it stays.
        let deleted = transaction.execute(
            "DELETE FROM images WHERE id = ?1 AND id NOT IN (SELECT image FROM names)",
            params![id_bytes],
        )?;
        travel::forget_unused(transaction)?;
        if deleted > 0 {
            removed.push(Removed::Deleted(*id));
        }
    }
    Ok(removed)
}
