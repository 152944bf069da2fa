//! `diff`, `export` and `commit`.

use crate::args::container::{CommitArgs, ExportArgs, NameArgs};
use crate::engine;
use crate::output::failure::{FAILED, Failure, output_failed};
use crate::output::file::OutputFile;
use crate::output::stdout;
use crate::output::text::now_s;
use hullbox_engine::containers::{ChangeKind, Commit, FilesError};
use hullbox_image::Reference;

/// Prints nothing for what the container's side has printed already.
pub(super) fn failed(error: FilesError) -> Failure {
    match error {
        FilesError::Failed => Failure::silent(FAILED),
        FilesError::Write(error) => output_failed(&error),
        error => error.into(),
    }
}

/// `diff`.
pub(crate) fn diff(args: &NameArgs) -> Result<(), Failure> {
    let mut engine = engine::open()?;
    let record = engine.find(&args.name)?;
    for change in engine.changes(&record).map_err(failed)? {
        let letter = match change.kind {
            ChangeKind::Modified => 'C',
            ChangeKind::Added => 'A',
            ChangeKind::Deleted => 'D',
        };
        let path: String = String::from_utf8_lossy(&change.path)
            .chars()
            .map(|c| if c.is_control() { '?' } else { c })
            .collect();
        stdout::print(&format!("{letter} {path}\n"))?;
    }
    Ok(())
}

/// `export`.
pub(crate) fn export(args: &ExportArgs) -> Result<(), Failure> {
    let mut engine = engine::open()?;
    let record = engine.find(&args.name)?;
    let mut file = OutputFile::open(args.output.as_deref())?;
    engine.export(&record, file.file()).map_err(failed)?;
    file.keep()
}

/// `commit`.
pub(crate) fn commit(args: CommitArgs) -> Result<(), Failure> {
    let name = args
        .image
        .as_deref()
        .map(Reference::parse)
        .transpose()
        .map_err(|error| Failure::of("invalid image name", &error))?;
    let mut engine = engine::open()?;
    let record = engine.find(&args.name)?;
    let commit = Commit {
        pause: args.pause,
        name,
        changes: args.changes,
        author: args.author.unwrap_or_default(),
        message: args.message.unwrap_or_default(),
        created: now_s(),
    };
    let id = engine.commit(&record, &commit).map_err(failed)?;
    stdout::print(&format!("{id}\n"))
}
