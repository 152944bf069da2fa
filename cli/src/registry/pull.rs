//! `pull`.

use super::progress::{Out, View};
use super::store::StoreEnd;
use super::transfers;
use crate::args::registry::PullArgs;
use crate::images::load;
use crate::output::failure::Failure;
use hullbox_engine::registry::Pulled;
use hullbox_image::Reference;

pub(crate) fn pull(args: &PullArgs) -> Result<(), Failure> {
    if let Some(source) = load::transport(&args.image).transpose()? {
        if args.all_tags || args.verify_key.is_some() || args.platform.is_some() {
            return Err(Failure::new(format!(
                "{} is no registry: --all-tags, --platform and --verify-key are not for it",
                args.image
            )));
        }
        return load::from(&source, args.quiet);
    }
    let view = View::new(args.progress, args.quiet, Out::Result);
    let transfers = transfers(&view, args.verify_key.clone())?;
    let store = StoreEnd::open()?;
    let platform = args.platform.as_ref();
    let done = if args.all_tags {
        transfers.pull_all(&store.target, &args.image, platform)
    } else {
        let pulled = transfers.pull(&store.target, &args.image, platform);
        pulled.map(|pulled| vec![pulled])
    };
    view.end();
    drop(transfers);
    for pulled in store.end(done)? {
        view.result(&lines(&pulled), &pulled.name)?;
    }
    Ok(())
}

/// What Docker says at the end.
pub(super) fn lines(pulled: &Pulled) -> [String; 2] {
    let name = familiar(&pulled.name);
    let status = match &pulled.id {
        Some(_) => format!("Status: Downloaded newer image for {name}"),
        None => format!("Status: Image is up to date for {name}"),
    };
    [format!("Digest: {}", pulled.digest), status]
}

pub(super) fn familiar(name: &str) -> String {
    Reference::parse(name).map_or_else(|_| name.to_owned(), |name| name.familiar())
}
