//! `save`.

use crate::args::image::{SaveArgs, SaveFormat};
use crate::engine;
use crate::output::failure::{BROKEN_PIPE, Failure, output_failed};
use crate::output::file::OutputFile;
use hullbox_engine::containers::Engine;
use hullbox_image::{ArchiveFormat, SaveError, Store};
use hullbox_model::event::Verb;
use std::error::Error;
use std::io;

pub(crate) fn save(args: &SaveArgs) -> Result<(), Failure> {
    if let Some(place) = args.place() {
        let engine = engine::open()?;
        let store = engine.images()?;
        store.save_to(&args.images, &place)?;
        note_saved(&engine, &store, &args.images);
        return Ok(());
    }
    let format = match args.format {
        SaveFormat::DockerArchive => ArchiveFormat::Docker,
        SaveFormat::OciArchive => ArchiveFormat::Oci,
        SaveFormat::OciDir => {
            let dir = args.output.as_deref().ok_or_else(|| {
                Failure::new("an oci-dir cannot be written to standard output")
                    .with_hint("name a directory with -o")
            })?;
            let engine = engine::open()?;
            let store = engine.images()?;
            store.save_layout(&args.images, dir)?;
            note_saved(&engine, &store, &args.images);
            return Ok(());
        }
    };
    let engine = engine::open()?;
    let store = engine.images()?;
    let mut output = OutputFile::open(args.output.as_deref())?;
    store
        .save(&args.images, format, output.file())
        .map_err(|error| match error {
            SaveError::Write(error) => output_failed(&error),
            // In a layer that is made anew while it is written.
            error if is_broken_pipe(&error) => Failure::silent(BROKEN_PIPE),
            error => error.into(),
        })?;
    output.keep()?;
    note_saved(&engine, &store, &args.images);
    Ok(())
}

/// Whether an error's cause is that nobody reads the output any more.
fn is_broken_pipe(error: &SaveError) -> bool {
    let mut next = error.source();
    while let Some(cause) = next {
        if let Some(error) = cause.downcast_ref::<io::Error>() {
            return error.kind() == io::ErrorKind::BrokenPipe;
        }
        next = cause.source();
    }
    false
}

/// Appends an event for each saved image.
fn note_saved(engine: &Engine, store: &Store, names: &[String]) {
    for name in names {
        if let Ok(image) = store.resolve(name) {
            engine.note_image(Verb::Save, &image.id.to_string(), Some(name.clone()));
        }
    }
}
