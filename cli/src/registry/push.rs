//! `push`.

use super::progress::{Out, View};
use super::store::StoreEnd;
use super::transfers;
use crate::args::registry::{CompressionArg, PushArgs};
use crate::output::failure::Failure;
use hullbox_engine::registry::{Compression, Form};

pub(crate) fn push(args: &PushArgs) -> Result<(), Failure> {
    let compression = compression(args)?;
    let view = View::new(args.progress, args.quiet, Out::Result);
    let transfers = transfers(&view, None)?;
    let store = StoreEnd::open()?;
    let done = if args.all_tags {
        transfers.push_all(&store.origin, &args.image, compression)
    } else {
        let pushed = transfers.push(&store.origin, &args.image, compression);
        pushed.map(|pushed| vec![pushed])
    };
    view.end();
    drop(transfers);
    for pushed in store.end(done)? {
        let line = format!(
            "{}: digest: {} size: {}",
            pushed.tag, pushed.digest, pushed.size_bytes
        );
        view.result(&[line], &pushed.name)?;
    }
    Ok(())
}

/// The form of layers of which none is known; `None` for what is usual.
fn compression(args: &PushArgs) -> Result<Option<Compression>, Failure> {
    let (form, most) = match args.compression {
        Some(CompressionArg::Zstd) => (Form::Zstd, 20),
        Some(CompressionArg::Gzip) | None => (Form::Gzip, 9),
    };
    match args.compression_level {
        Some(level) if !(1..=most).contains(&level) => Err(Failure::new(format!(
            "invalid --compression-level {level}: from 1 to {most} is expected"
        ))),
        None if args.compression.is_none() => Ok(None),
        level => Ok(Some(Compression { form, level })),
    }
}
