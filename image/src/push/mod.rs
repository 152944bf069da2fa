//! Pushing: an image of the store as a manifest, a configuration and blobs.
//!
//! What the store can give back of a layer is its tar. The blob that it was pulled as is known by
//! its digest, and where it came from; whoever pushes finds out whether the target has it, or can
//! have it from there. Where neither works the layer is compressed here, always alike, and the
//! digest that comes of it is remembered, so that the next push need not do it again.

mod blob;
mod compression;
mod document;
mod plan;

pub use blob::LayerBlob;
pub(crate) use compression::Packer;
pub use compression::{CompressionError, LayerCompression};
pub use document::RawManifest;
pub use plan::{PushError, PushLayer, PushOptions, PushPlan};
