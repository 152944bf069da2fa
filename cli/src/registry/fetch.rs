//! Images that `run` and `create` need and that are not there.

use super::progress::{Out, View};
use super::pull::lines;
use super::store::StoreEnd;
use super::transfers;
use crate::args::registry::ProgressArg;
use crate::args::run::{PullArg, RunArgs};
use crate::output::failure::Failure;
use hullbox_engine::registry::Platform;
use hullbox_image::Reference;
use rustix::process::{Signal, getpid, kill_process};
use std::io::Write;

/// The signal by which a forwarded command tells that its image is missing: SIGUSR2, which no command
/// ends by otherwise.
pub(crate) const MISSING: u8 = 12;

/// Ends this process with [`MISSING`], so that the one that has forwarded it fetches the image.
pub(crate) fn leave_to_caller() -> Failure {
    let sent = kill_process(getpid(), Signal::USR2);
    let error = sent.map_or_else(std::io::Error::from, |()| std::io::Error::other("no end"));
    Failure::of("cannot ask for the image", &error)
}

/// What is to be fetched.
#[derive(Debug, Clone)]
pub(crate) struct Wish {
    /// The image as typed.
    image: String,
    platform: Option<Platform>,
    quiet: bool,
    pub(crate) policy: PullArg,
}

/// Where the store is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum At {
    /// In this process, which holds the data directory's lock.
    Here,
    /// In the helper machine.
    Machine,
}

impl Wish {
    /// What `run` and `create` may have to fetch; `None` without an image.
    pub(crate) fn of(args: &RunArgs) -> Option<Self> {
        if args.from_snapshot.is_some() {
            return None;
        }
        Some(Self {
            image: args.words.first()?.to_str()?.to_owned(),
            platform: args.platform.clone().and_then(|platform| platform.0),
            quiet: args.quiet,
            policy: args.pull,
        })
    }

    /// Whether the store has it.
    pub(crate) fn is_there(&self, at: At) -> Result<bool, Failure> {
        let store = open(at)?;
        let platform = self.platform.as_ref().map(ToString::to_string);
        let has = store.target.has(&self.image, platform.as_deref());
        store.end(has.map_err(Into::into))
    }

    /// Pulls it, and gives the name by which it is there. All that is shown goes to standard error.
    pub(crate) fn fetch(&self, at: At) -> Result<String, Failure> {
        let view = View::new(ProgressArg::Auto, self.quiet, Out::Aside);
        let transfers = transfers(&view, None)?;
        let store = open(at)?;
        if self.policy == PullArg::Missing {
            // A short name may have been pulled from one of the registries that are searched.
            let names = transfers.names(&self.image).map_err(super::failed)?;
            let platform = self.platform.as_ref().map(ToString::to_string);
            for name in names.iter().filter(|_| names.len() > 1) {
                let has = store.target.has(name, platform.as_deref());
                if matches!(has, Ok(true)) {
                    drop(transfers);
                    store.end(Ok(()))?;
                    return Ok(self.name(name));
                }
            }
            if !self.quiet {
                let name = super::pull::familiar(&self.image);
                let line = format!("Unable to find image '{name}' locally\n");
                // Progress that cannot be shown is no reason to fail.
                let _ = std::io::stderr().write_all(line.as_bytes());
            }
        }
        let pulled = transfers.pull(&store.target, &self.image, self.platform.as_ref());
        view.end();
        drop(transfers);
        let pulled = store.end(pulled)?;
        view.result(&lines(&pulled), "")?;
        Ok(self.name(&pulled.name))
    }

    /// The name as typed, where that leads to what was pulled.
    fn name(&self, pulled: &str) -> String {
        match Reference::parse(&self.image) {
            Ok(typed) if typed.to_string() == pulled => self.image.clone(),
            _ => pulled.to_owned(),
        }
    }
}

fn open(at: At) -> Result<StoreEnd, Failure> {
    match at {
        At::Here => StoreEnd::here(None),
        At::Machine => StoreEnd::in_the_machine(),
    }
}
