//! The wall clock's speed.

use super::{Result, check};

/// Has the kernel work off an offset by running half a millisecond a second faster or slower. One that
/// it had begun with is forgotten.
pub fn slew_clock(offset_us: i64) -> Result<()> {
    // SAFETY: all-zero is a valid value of this plain structure and means "nothing asked".
    let mut request: libc::timex = unsafe { std::mem::zeroed() };
    request.modes = libc::ADJ_OFFSET_SINGLESHOT;
    request.offset = offset_us;
    // SAFETY: `request` is a valid, exclusive structure of this kind.
    check(unsafe { libc::adjtimex(&raw mut request) }).map(drop)
}
