//! Image (see the package description).
#![forbid(unsafe_code)]
