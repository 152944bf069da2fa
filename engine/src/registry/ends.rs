//! The two ends of a transfer besides the registry: where a pulled image goes, and where one that is
//! pushed comes from.
//!
//! Both are the image store, of this process ([`super::local`]) or of the helper machine
//! ([`super::remote`]). All of it blocks and is called on threads that may.

use serde::{Deserialize, Serialize};
use std::io::Read;
use std::sync::Arc;

/// A blob that a manifest names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blob {
    /// Media type, as the manifest has it.
    pub media_type: String,
    /// `sha256:…`.
    pub digest: String,
    /// Length.
    pub size_bytes: u64,
}

/// A manifest, byte for byte.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Document {
    /// Media type.
    pub media_type: String,
    /// `sha256:…` of [`Self::raw`].
    pub digest: String,
    /// The bytes.
    #[serde(with = "base64_bytes")]
    pub raw: Vec<u8>,
}

/// An image that is about to be pulled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incoming {
    /// Its name in full, with the tag or digest that was asked for.
    pub name: String,
    /// Its manifest.
    pub manifest: Document,
    /// The digest of the index that named the manifest.
    pub index_digest: Option<String>,
    /// The bytes of its configuration.
    #[serde(with = "base64_bytes")]
    pub config: Vec<u8>,
}

/// A blob that an image to be pulled has, and whether it is wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// Its number, for [`Taking::layer`].
    pub index: usize,
    /// The blob.
    pub blob: Blob,
    /// It is there already.
    pub had: bool,
}

/// An image that was pulled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored {
    /// Its id.
    pub id: String,
}

/// An image that is about to be pushed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outgoing {
    /// Its id, which is its configuration's digest.
    pub id: String,
    /// The bytes of its configuration.
    #[serde(with = "base64_bytes")]
    pub config: Vec<u8>,
    /// Its layers, lowest first.
    pub layers: Vec<OutgoingLayer>,
}

/// A layer that is about to be pushed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutgoingLayer {
    /// The compressed form that is known of it.
    pub blob: Option<Blob>,
    /// The store can make that form. Otherwise it has to be somewhere already.
    pub local: bool,
    /// Digest of the layer without compression, which shows what layer it is.
    pub diff_id: String,
    /// Repositories that have the known form, as `registry/repository`.
    pub origins: Vec<String>,
}

/// How layers without a known compressed form are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compression {
    /// With what.
    pub form: Form,
    /// The form's own scale; `None` for its default.
    pub level: Option<u8>,
}

/// A form of compression.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Form {
    /// RFC 1952.
    Gzip,
    /// RFC 8878.
    Zstd,
}

/// Why an end fails. What is behind it is told in words, because it may have happened in the helper machine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum EndError {
    /// No image has this name.
    #[error("no such image: {0}")]
    NotFound(String),
    /// The store refuses, or fails.
    #[error("{0}")]
    Store(String),
    /// What was there of a layer from an earlier try is not what it should be, and is gone.
    #[error("an unfinished download was damaged")]
    Again,
    /// The process in the helper machine is gone, or is another version.
    #[error("the connection to the helper machine broke off")]
    Broken,
}

/// Where a pulled image goes.
pub trait Target: Send + Sync {
    /// Whether an image is there under this name or id, for that platform if one is named.
    ///
    /// # Errors
    /// [`EndError`].
    fn has(&self, text: &str, platform: Option<&str>) -> Result<bool, EndError>;

    /// The digest by which this name was pulled last, of its index or else its manifest, if the image is
    /// there and fits the platform.
    ///
    /// # Errors
    /// [`EndError`].
    fn known(&self, name: &str, platform: &str) -> Result<Option<String>, EndError>;

    /// The bytes of a configuration that is there.
    ///
    /// # Errors
    /// [`EndError`].
    fn stored_config(&self, digest: &str) -> Result<Option<Vec<u8>>, EndError>;

    /// Begins to take an image.
    ///
    /// # Errors
    /// [`EndError`].
    fn begin(&self, incoming: &Incoming) -> Result<Arc<dyn Taking>, EndError>;
}

/// An image that is being taken. Dropped before its end, the store is as it was, but for parts of layers
/// that the next try goes on with.
pub trait Taking: Send + Sync {
    /// Its layers, each blob once.
    fn wanted(&self) -> Vec<Wanted>;

    /// Opens a layer: waits for another command that takes the same one. `None`: it is there.
    ///
    /// # Errors
    /// [`EndError`].
    fn layer(&self, index: usize) -> Result<Option<Box<dyn LayerSink>>, EndError>;

    /// Everything has been taken.
    ///
    /// # Errors
    /// [`EndError`]; the store is as it was then.
    fn finish(&self) -> Result<Stored, EndError>;
}

/// A layer that is being taken.
pub trait LayerSink: Send {
    /// Bytes of it that are there from an earlier try.
    fn partial_bytes(&self) -> u64;

    /// Takes all that is missing, and verifies the layer.
    ///
    /// # Errors
    /// [`EndError`]; after [`EndError::Again`] the layer can be opened anew.
    fn feed(self: Box<Self>, blob: &mut (dyn Read + Send)) -> Result<(), EndError>;
}

/// Where an image that is pushed comes from.
pub trait Origin: Send + Sync {
    /// Begins to give an image.
    ///
    /// # Errors
    /// [`EndError`].
    fn outgoing(
        &self,
        name: &str,
        compression: Option<Compression>,
    ) -> Result<Arc<dyn Giving>, EndError>;

    /// All tags of a repository, for `--all-tags`.
    ///
    /// # Errors
    /// [`EndError`].
    fn tags(&self, repository: &str) -> Result<Vec<String>, EndError>;
}

/// An image that is being given.
pub trait Giving: Send + Sync {
    /// What it consists of.
    fn outgoing(&self) -> &Outgoing;

    /// Makes a compressed form of a layer, and says what it is.
    ///
    /// # Errors
    /// [`EndError`].
    fn make(&self, index: usize) -> Result<Blob, EndError>;

    /// The bytes of what [`Self::make`] has made, from an offset on.
    ///
    /// # Errors
    /// [`EndError`].
    fn open(&self, index: usize, from_bytes: u64) -> Result<Box<dyn Read + Send>, EndError>;

    /// The manifest for these forms of its layers.
    ///
    /// # Errors
    /// [`EndError`].
    fn manifest(&self, layers: &[Blob]) -> Result<Document, EndError>;

    /// Notes that it has been sent in these forms under this name.
    ///
    /// # Errors
    /// [`EndError`].
    fn sent(&self, name: &str, manifest: &Document, layers: &[Blob]) -> Result<(), EndError>;
}

/// Bytes as base64 in JSON.
mod base64_bytes {
    use base64::Engine as _;
    use base64::prelude::BASE64_STANDARD;
    use serde::{Deserialize as _, Deserializer, Serializer, de};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&BASE64_STANDARD.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(from)?;
        BASE64_STANDARD.decode(text).map_err(de::Error::custom)
    }
}
