//! `load` and `import`.

use super::progress::Meter;
use super::tag::reference;
use crate::args::image::{ImportArgs, LoadArgs};
use crate::engine;
use crate::output::failure::Failure;
use crate::output::stdout;
use crate::output::text::now_s;
use hullbox_engine::containers::Engine;
use hullbox_image::{
    ImportOptions, LoadOptions, Loaded, Reference, Source, Transport, TransportError,
};
use hullbox_model::event::Verb;
use rustix::termios::isatty;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

/// A place that is no registry, such as `oci:DIR`; `None` for a name.
pub(crate) fn transport(text: &str) -> Option<Result<Transport, TransportError>> {
    Transport::parse(text)
}

/// The place that a text names, if it begins with the name of a transport.
fn place(path: &Path) -> Result<Option<Transport>, Failure> {
    let place = path.to_str().and_then(Transport::parse).transpose()?;
    // A file of that name is one all the same.
    Ok(place.filter(|_| !path.exists()))
}

/// Loads from a place that is no registry.
fn from(place: &Transport, quiet: bool, tell: Tell) -> Result<(), Failure> {
    let engine = engine::open()?;
    let mut store = engine.images()?;
    let mut meter = Meter::new("Loading", quiet);
    let loaded = store.load_from(place, &mut |p| meter.show(p));
    meter.clear();
    let loaded = loaded.map_err(|error| Failure::of(format!("cannot load {place}"), &error))?;
    tell(&engine, loaded)
}

/// `pull oci:DIR`. Quiet, it prints the ids alone, as Podman does.
pub(crate) fn pulled(place: &Transport, quiet: bool) -> Result<(), Failure> {
    from(place, quiet, if quiet { tell_ids } else { tell })
}

pub(crate) fn load(args: &LoadArgs) -> Result<(), Failure> {
    if let Some(place) = args.input.as_deref().map(place).transpose()?.flatten() {
        return from(&place, args.quiet, tell);
    }
    if args.input.is_none() && isatty(io::stdin().as_fd()) {
        return Err(
            Failure::new("nothing to load: standard input is a terminal")
                .with_hint("name a file with -i, or pipe an archive in"),
        );
    }
    let engine = engine::open()?;
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
    tell(&engine, loaded)
}

/// Prints what was loaded, and notes it.
type Tell = fn(&Engine, Vec<Loaded>) -> Result<(), Failure>;

fn tell_ids(engine: &Engine, loaded: Vec<Loaded>) -> Result<(), Failure> {
    let mut text = String::new();
    for image in loaded {
        text.push_str(&format!("{}\n", image.id));
        note(engine, &image);
    }
    stdout::print(&text)
}

fn note(engine: &Engine, image: &Loaded) {
    let name = image.names.first().map(Reference::familiar);
    engine.note_image(Verb::Load, &image.id.to_string(), name);
}

fn tell(engine: &Engine, loaded: Vec<Loaded>) -> Result<(), Failure> {
    let mut text = String::new();
    for image in loaded {
        if image.names.is_empty() {
            text.push_str(&format!("Loaded image ID: {}\n", image.id));
        }
        for name in &image.names {
            text.push_str(&format!("Loaded image: {}\n", name.familiar()));
        }
        note(engine, &image);
    }
    stdout::print(&text)
}

pub(crate) fn import(args: &ImportArgs) -> Result<(), Failure> {
    let name = args.name.as_deref().map(reference).transpose()?;
    let engine = engine::open()?;
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
    stdout::print(&format!("{id}\n"))
}
