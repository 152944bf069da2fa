//! The client of image registries: Docker's registry v2, which is OCI's distribution 1.1. It
//! knows names, requests and bytes, and nothing of where images are kept.
#![forbid(unsafe_code)]

mod ask;
mod auth;
mod blob;
mod client;
mod digest;
mod error;
mod login;
mod manifest;
mod names;
mod platform;
mod policy;
mod push;
mod resolve;
mod settings;
#[cfg(test)]
mod testing;
mod transport;

pub use blob::BlobStream;
pub use client::{
    BlobSource, Client, LoggedIn, Notice, Observer, Options, PushOptions, Pushed, Resolution,
    Resolved,
};
pub use digest::{Digest, DigestError};
pub use error::{Attempt, BlobError, LoginError, PushError, RequestError, ResolveError, Tried};
pub use manifest::{
    Descriptor, Fetched, INDEX_TYPES, MANIFEST_TYPES, MAX_MANIFEST_BYTES, Manifest, ManifestError,
};
pub use names::{DOCKER_HUB, ImageName, NameError};
pub use platform::{Platform, PlatformError};
pub use policy::PolicyError;
pub use settings::{Places, Settings, SettingsError};
pub use transport::Timing;
