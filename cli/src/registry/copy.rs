//! `image copy` and `manifest inspect`.

use super::progress::{Out, View};
use super::{failed, transfers};
use crate::args::registry::{CopyArgs, ManifestInspectArgs, ProgressArg};
use crate::output::failure::{Failure, output_failed};
use crate::output::stdout;
use hullbox_engine::registry::{Platform, Which};
use serde_json::Value;
use std::io::{self, Write};

pub(crate) fn copy(args: &CopyArgs) -> Result<(), Failure> {
    let view = View::new(args.progress, args.quiet, Out::Result);
    let transfers = transfers(&view, None)?;
    let source = transfers.place(&args.source).map_err(failed)?;
    let destination = transfers.place(&args.destination).map_err(failed)?;
    let which = match (&args.platform, args.all) {
        (_, true) => Which::All,
        (Some(platform), false) => Which::Platform(platform.clone()),
        (None, false) => Which::Platform(Platform::guest()),
    };
    let copied = transfers.copy(&source, &destination, &which);
    view.end();
    let copied = copied.map_err(failed)?;
    view.result(&[], &copied.digest)
}

/// `manifest inspect`.
pub(crate) fn inspect(args: &ManifestInspectArgs) -> Result<(), Failure> {
    let view = View::new(ProgressArg::Plain, true, Out::Result);
    let transfers = transfers(&view, None)?;
    let place = transfers.place(&args.image).map_err(failed)?;
    let bytes = transfers.manifest(&place).map_err(failed)?;
    if args.raw {
        return io::stdout()
            .write_all(&bytes)
            .map_err(|error| output_failed(&error));
    }
    let value: Value = serde_json::from_slice(&bytes)
        .map_err(|error| Failure::of(format!("{} has no manifest", args.image), &error))?;
    stdout::print(&format!("{}\n", serde_json::to_string_pretty(&value)?))
}
