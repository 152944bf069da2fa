//! The client of image registries: Docker's registry v2, which is OCI's distribution 1.1. It
//! knows names, requests and bytes, and nothing of where images are kept.
#![forbid(unsafe_code)]

mod ask;
mod auth;
mod blob;
mod client;
mod error;
mod login;
mod manifest;
mod names;
mod notice;
mod platform;
mod policy;
mod push;
mod resolve;
mod settings;
#[cfg(test)]
mod testing;
mod transport;

pub use blob::BlobStream;
pub use client::{Client, Options};
pub use error::{
    Attempt, BlobError, LoginError, PolicyError, PushError, RequestError, ResolveError, Tried,
};
pub use hullbox_model::digest::{Digest, DigestError};
pub use login::{LoggedIn, StoredLogin};
pub use manifest::{
    Descriptor, Fetched, INDEX_TYPES, MANIFEST_TYPES, MAX_MANIFEST_BYTES, Manifest, ManifestError,
};
pub use names::{DOCKER_HUB, ImageName, NameError};
pub use notice::{Notice, Observer};
pub use platform::{Platform, PlatformError};
pub use push::{BlobSource, PushOptions, Pushed};
pub use resolve::{Resolution, Resolved};
pub use settings::{Places, Settings, SettingsError};
pub use transport::Timing;
