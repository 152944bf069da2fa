//! The image crate's own generators of archives, honest and hostile.

#[path = "../../image/tests/common/archive.rs"]
pub mod archive;
#[path = "../../image/src/testing.rs"]
pub mod testing;
