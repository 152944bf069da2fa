//! Templates: guests that were booted once for each shape and saved when their agent was ready,
//! so that others of the shape begin there instead of booting.
//!
//! ```text
//! templates/key              the secret that snapshots are authenticated with, 0600
//! templates/lock             held by the one who makes a template
//! templates/KEY/             one template: memory, state (see hullbox_vmm::Snapshot), about.json
//! templates/KEY.staging/     one that is being made, or was when somebody was killed
//! templates/KEY.failed       when it was last tried in vain, or replaced, in the background
//! ```
//!
//! KEY is a digest of everything that a template depends on: kernel, initramfs, command line,
//! virtual CPUs, memory, this program's version, the host's kernel and processor. What is not found
//! under its key does not exist; what is there under another key is stale.
//!
//! A template is taken before any workload, disk or network exists. So none of them is shared by
//! the guests that begin there; what they share by nature, the kernel's random state, is replaced
//! before the workload's first instruction (see [`hullbox_protocol::Setup::entropy`]).

mod build;
mod error;
mod files;
mod key;
mod list;
mod policy;
mod template;

pub use build::{BuildError, Built, ENTRY, build, build_in_background, main};
pub use error::TemplateError;
pub use files::LockError;
pub(crate) use key::secret;
pub(crate) use list::discard;
pub use list::{ListError, Listed, list, prune, remove};
pub use policy::{POLICY_VARIABLE, Policy, PolicyError};
pub(crate) use template::restore;
