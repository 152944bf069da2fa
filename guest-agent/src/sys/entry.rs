//! The program's entry.
//!
//! Not Rust's own: its runtime opens /dev/null for closed standard descriptors and aborts
//! if it cannot, and in an initramfs nothing is mounted yet.

use std::ffi::{c_char, c_int};

/// What the C library's start-up code calls.
///
/// # Safety
/// Called once, by the C library.
#[cfg(not(test))]
// SAFETY: the one `main` of this program; the name is the C library's own convention.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn main(_argc: c_int, _argv: *const *const c_char) -> c_int {
    crate::run()
}

/// Keeps the imports used when the test harness brings its own entry.
#[cfg(test)]
#[allow(dead_code, reason = "the harness has its own entry")]
fn unused(_: c_int, _: *const c_char) {}
