//! Loads an archive or layout into a store and says what came of it: for measuring and trying.
//!
//! `cargo run --profile fast -p hullbox-image --example load -- STORE [SOURCE]`

use hullbox_image::{LoadOptions, Source, Store};
use std::error::Error;
use std::path::Path;
use std::time::Instant;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args_os().skip(1);
    let root = args.next().ok_or("usage: load STORE [SOURCE]")?;
    let source = args.next();
    let began = Instant::now();
    let mut store = Store::open(Path::new(&root))?;
    let mut stdin = std::io::stdin().lock();
    let source = match &source {
        Some(path) => Source::Path(Path::new(path)),
        None => Source::Stream(&mut stdin),
    };
    let loaded = match store.load(source, &LoadOptions::default(), &mut |_| {}) {
        Ok(loaded) => loaded,
        Err(error) => {
            let mut text = error.to_string();
            let mut cause: Option<&dyn Error> = error.source();
            while let Some(inner) = cause {
                text = format!("{text}: {inner}");
                cause = inner.source();
            }
            return Err(text.into());
        }
    };
    println!("loaded in {:?}", began.elapsed());
    for image in loaded {
        println!("{} {:?}", image.id, image.names);
        for layer in store.resolve(&image.id.to_string())?.layers {
            println!("  {} {}", layer.path.display(), layer.size_bytes);
        }
    }
    Ok(())
}
