//! The capacity of processes' pipes.

use hullbox_protocol::MAX_DATA;
use rustix::pipe::fcntl_setpipe_size;
use std::os::fd::BorrowedFd;

/// Capacity of a pipe that nobody changed (pipe(7)).
pub(crate) const DEFAULT_LEN: usize = 64 * 1024;

/// Capacity of one that was found full: whole frames, so that its process is woken less often.
const BUSY_LEN: usize = 2 * MAX_DATA;

/// Makes a pipe larger; false where the system does not give so much. What one user's pipes may
/// have in all is bounded (`/proc/sys/fs/pipe-user-pages-soft`), so this is only for those that need
/// it: most processes hardly say anything.
pub(crate) fn enlarge(pipe: BorrowedFd<'_>) -> bool {
    fcntl_setpipe_size(pipe, BUSY_LEN).is_ok()
}
