//! Standard output.

use super::failure::{Failure, output_failed};
use rustix::fs::FileType;
use std::io::Write;
use std::os::fd::BorrowedFd;

/// Prints text as it is, whole.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|error| output_failed(&error))
}

/// Our own output if it is a pipe, whose reader may leave while there is nothing to write.
pub(crate) fn piped_output() -> Option<BorrowedFd<'static>> {
    let output = rustix::stdio::stdout();
    let status = rustix::fs::fstat(output).ok()?;
    let flags = rustix::fs::fcntl_getfl(output).ok()?;
    // One that is open for reading, too, has a reader, and would be woken by what it wrote itself.
    let writes = flags & rustix::fs::OFlags::RWMODE == rustix::fs::OFlags::WRONLY;
    (writes && FileType::from_raw_mode(status.st_mode) == FileType::Fifo).then_some(output)
}
