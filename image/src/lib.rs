//! Images: references, verified content, and layers as EROFS filesystem images.
//!
//! [`Store`] is the door. What comes in (an archive, a layout, a tarball) is hostile to the last
//! byte: it is parsed here in memory, verified whole, and rewritten as filesystem images by this
//! crate; no path of an image ever becomes a path of the host, and nothing enters the store
//! before everything of its image has been checked.
//!
//! ```text
//! archive | layout ─► load ─► compress ─► tar ─► layer ─► erofs ─► store
//!                                              └─ recipe ─────────┘ └─► save
//!                      └─ manifests, configs: manifest
//! ```
//!
//! The crate knows neither VMs nor containers.
#![forbid(unsafe_code)]

mod ahead;
mod changes;
mod compress;
mod config;
mod derive;
mod digest;
mod erofs;
mod health;
mod import;
mod layer;
mod limits;
mod load;
mod pull;
mod push;
mod recipe;
mod reference;
mod repack;
mod save;
mod store;
#[cfg(test)]
mod testing;
mod time;
mod transport;

pub use changes::ChangeError;
pub use compress::StreamError;
pub use derive::{ConfigPatch, DeriveError, DeriveOptions, Derived};
pub use digest::{ChainId, DiffId, Digest, DigestError, ImageId};
pub use erofs::ErofsError;
pub use health::{HealthCheck, HealthCheckError, HealthTest};
pub use import::{ImportError, ImportOptions};
pub use layer::{LayerError, Problem};
pub use limits::Limits;
pub use load::{ArchiveKind, LoadError, LoadOptions, Loaded, Progress, Source};
pub use pull::{LayerState, LayerStep, LayerTask, Pull, PullError, PullRequest, WantedLayer};
pub use push::{
    CompressionError, LayerBlob, LayerCompression, PushError, PushLayer, PushOptions, PushPlan,
    RawManifest,
};
pub use recipe::RecipeError;
pub use reference::{Reference, ReferenceError};
pub use repack::{RepackError, lay_out, pack};
pub use save::{ArchiveFormat, RegenerateError, SaveError};
pub use store::{
    CheckOptions, CheckReport, ConfigError, Finding, HistoryEntry, Image, ImageSummary, ImageUse,
    LabelFilter, LayerFile, LayerInfo, Lease, PartialUse, PruneOptions, Pruned, RemoveError,
    Removed, ResolveError, Severity, Store, StoreError, Usage,
};
pub use time::{parse_rfc3339, rfc3339};
pub use transport::{Transport, TransportError};

/// Re-exported: what [`Image::config`] is made of.
pub use oci_spec::image as oci;
