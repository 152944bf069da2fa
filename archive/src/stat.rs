//! What is at a path, as JSON.

use crate::root::{self, Place};
use rustix::fd::BorrowedFd;
use rustix::fs::FileType;
use std::fmt::Write as _;

/// `PathStat` of what `place` names, in the form that serde gives it.
pub(crate) fn json(place: &Place, root: BorrowedFd<'_>, path: &[u8]) -> String {
    let stat = &place.stat;
    let target = match root::kind(stat) {
        FileType::Symlink => root::resolve(root, path).unwrap_or_default(),
        _ => Vec::new(),
    };
    let mtime = stat.st_mtime.saturating_mul(1_000_000_000);
    let mtime = mtime.saturating_add(i64::try_from(stat.st_mtime_nsec).unwrap_or(0));
    let mut text = format!(
        "{{\"mode\":{},\"size\":{},\"mtime_ns\":{mtime},\"link_target\":[",
        stat.st_mode, stat.st_size
    );
    for (index, byte) in target.iter().enumerate() {
        let comma = if index > 0 { "," } else { "" };
        let _ = write!(text, "{comma}{byte}");
    }
    text.push_str("]}\n");
    text
}
