//! Images: references, verified content, and layers as EROFS filesystem images.
//!
//! [`Store`] is the door. What comes in (an archive, a layout, a tarball) is hostile to the last
//! byte: it is parsed here in memory, verified whole, and rewritten as filesystem images by this
//! crate; no path of an image ever becomes a path of the host, and nothing enters the store
//! before everything of its image has been checked.
//!
//! ```text
//! archive | layout ─► load ─► compress ─► tar ─► layer ─► erofs ─► store
//!                      └─ manifests, configs: manifest
//! ```
//!
//! The crate knows neither VMs nor containers.
#![forbid(unsafe_code)]

mod digest;
mod import;
mod limits;
mod load;
mod reference;
mod store;
mod time;

pub use digest::{ChainId, DiffId, Digest, DigestError, ImageId};
pub use import::{ImportError, ImportOptions};
pub use limits::Limits;
pub use load::{LoadError, LoadOptions, Loaded, Progress, Source};
pub use reference::{Reference, ReferenceError};
pub use store::{
    ConfigError, Image, ImageSummary, ImageUse, LayerFile, Lease, RemoveError, Removed,
    ResolveError, Store, StoreError,
};

/// Re-exported: what [`Image::config`] is made of.
pub use oci_spec::image as oci;
