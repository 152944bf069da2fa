//! What differs between processor architectures. Everything else in this crate is the same on
//! all of them and speaks to this module's few functions.

#[cfg(target_arch = "x86_64")]
mod x86_64;
#[cfg(target_arch = "x86_64")]
pub(crate) use x86_64::*;
