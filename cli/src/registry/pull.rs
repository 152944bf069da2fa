//! `pull`.

use super::progress::{Out, View};
use super::store::StoreEnd;
use super::transfers;
use crate::args::registry::PullArgs;
use crate::images::load;
use crate::output::failure::Failure;
use hullbox_engine::registry::{Pulled, Transfers};
use hullbox_image::Reference;

pub(crate) fn pull(args: &PullArgs) -> Result<(), Failure> {
    if let Some(source) = load::transport(&args.image).transpose()? {
        if args.all_tags || args.verify_key.is_some() || args.platform.is_some() {
            return Err(Failure::new(format!(
                "{} is no registry: --all-tags, --platform and --verify-key are not for it",
                args.image
            )));
        }
        return load::pulled(&source, args.quiet);
    }
    let view = View::new(args.progress, args.quiet, Out::Result);
    let transfers = transfers(&view, args.verify_key.clone())?;
    let store = StoreEnd::open()?;
    let platform = args.platform.as_ref();
    if args.all_tags {
        return pull_all(args, &view, transfers, store);
    }
    let done = transfers.pull(&store.target, &args.image, platform);
    view.end();
    drop(transfers);
    let pulled = store.end(done)?;
    view.result(&lines(&pulled), &pulled.name)
}

/// As in Docker each tag's digest is told when it is there, and the repository's name at the end.
fn pull_all(
    args: &PullArgs,
    view: &View,
    transfers: Transfers,
    store: StoreEnd,
) -> Result<(), Failure> {
    let mut changed = false;
    let mut shown = Ok(());
    let done = transfers.pull_all(
        &store.target,
        &args.image,
        args.platform.as_ref(),
        &mut |pulled| {
            changed |= pulled.id.is_some();
            view.end();
            if shown.is_ok() {
                shown = view.result(&[digest_line(pulled)], "");
            }
        },
    );
    view.end();
    drop(transfers);
    let name = store.end(done)?;
    shown?;
    view.result(&[status_line(&familiar_repository(&name), changed)], &name)
}

/// A repository as Docker shows it.
fn familiar_repository(name: &str) -> String {
    Reference::parse(name).map_or_else(|_| name.to_owned(), |name| name.familiar_name())
}

fn digest_line(pulled: &Pulled) -> String {
    format!("Digest: {}", pulled.digest)
}

fn status_line(name: &str, changed: bool) -> String {
    match changed {
        true => format!("Status: Downloaded newer image for {name}"),
        false => format!("Status: Image is up to date for {name}"),
    }
}

/// What Docker says at the end.
pub(super) fn lines(pulled: &Pulled) -> [String; 2] {
    let status = status_line(&familiar(&pulled.name), pulled.id.is_some());
    [digest_line(pulled), status]
}

pub(super) fn familiar(name: &str) -> String {
    Reference::parse(name).map_or_else(|_| name.to_owned(), |name| name.familiar())
}
