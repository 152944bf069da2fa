//! `tag`, and names of images as they are typed.

use crate::args::image::TagArgs;
use crate::engine;
use crate::output::failure::{Failure, chain};
use hullbox_image::Reference;

pub(crate) fn tag(args: &TagArgs) -> Result<(), Failure> {
    let target = reference(&args.target)?;
    if target.digest().is_some() {
        return Err(Failure::new(format!(
            "cannot name an image {:?}: a digest is not a tag",
            args.target
        )));
    }
    engine::open()?.tag_image(&args.source, &target)?;
    Ok(())
}

/// The name of an image that was typed.
pub(super) fn reference(text: &str) -> Result<Reference, Failure> {
    Reference::parse(text)
        .map_err(|error| Failure::new(format!("invalid reference {text:?}: {}", chain(&error))))
}
