//! Cloning the empty disk.

use crate::ext4;
use rustix::fs::{SeekFrom, copy_file_range, ioctl_ficlone, seek};
use rustix::io::Errno;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// A container's own disk at `to`: the empty one, cut to the size if one was asked for.
pub(crate) fn make(empty: &Path, to: &Path, size_bytes: Option<u64>) -> io::Result<()> {
    let finish = |disk: &File| size_bytes.map_or(Ok(()), |size| ext4::cut(disk, size));
    stage(empty, to, &|| false, finish)
}

/// The same of a disk that is to be there after a power cut, as soon as it has its name.
pub(crate) fn make_synced(empty: &Path, to: &Path, size_bytes: u64) -> io::Result<()> {
    stage(empty, to, &|| false, |disk| {
        ext4::cut(disk, size_bytes)?;
        disk.sync_all()
    })
}

/// Makes `to` the same as `from`: by sharing extents where the filesystem can, otherwise by copying
/// what is not a hole.
pub(crate) fn clone_sparse(from: &Path, to: &Path) -> io::Result<()> {
    clone_sparse_unless(from, to, &|| false)
}

/// The same, unless it is cancelled meanwhile.
pub(crate) fn clone_sparse_unless(
    from: &Path,
    to: &Path,
    cancelled: &dyn Fn() -> bool,
) -> io::Result<()> {
    stage(from, to, cancelled, |_| Ok(()))
}

/// The same with a last touch, under a temporary name until it is complete.
fn stage(
    from: &Path,
    to: &Path,
    cancelled: &dyn Fn() -> bool,
    finish: impl FnOnce(&File) -> io::Result<()>,
) -> io::Result<()> {
    let source = File::open(from)?;
    let staged = to.with_extension("staging");
    let target = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&staged)?;
    // Whatever the reason (another filesystem, one that cannot share), copying is the answer.
    if ioctl_ficlone(&target, &source).is_err() {
        copy_extents(&source, &target, cancelled)?;
    }
    finish(&target)?;
    fs::rename(&staged, to)
}

/// Bytes that are copied between two looks at whether it is cancelled.
const STEP: u64 = 64 << 20;

fn copy_extents(source: &File, target: &File, cancelled: &dyn Fn() -> bool) -> io::Result<()> {
    let len = source.metadata()?.len();
    target.set_len(len)?;
    let mut at = 0;
    while at < len {
        let start = match seek(source, SeekFrom::Data(at)) {
            Ok(start) => start,
            // Nothing but a hole is left.
            Err(Errno::NXIO) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        if cancelled() {
            return Err(io::Error::from(io::ErrorKind::Interrupted));
        }
        let end = seek(source, SeekFrom::Hole(start))?.min(start + STEP);
        copy_range(source, target, start, end)?;
        at = end;
    }
    Ok(())
}

fn copy_range(source: &File, target: &File, start: u64, end: u64) -> io::Result<()> {
    let (mut from, mut to) = (start, start);
    while from < end {
        let want = usize::try_from(end - from).unwrap_or(usize::MAX);
        match copy_file_range(source, Some(&mut from), target, Some(&mut to), want) {
            Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
            Ok(_) => {}
            Err(Errno::XDEV | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {
                return copy_by_hand(source, target, from, end);
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn copy_by_hand(source: &File, target: &File, start: u64, end: u64) -> io::Result<()> {
    use std::os::unix::fs::FileExt;
    let mut buffer = vec![0; 128 * 1024];
    let mut at = start;
    while at < end {
        let want = buffer
            .len()
            .min(usize::try_from(end - at).unwrap_or(usize::MAX));
        source.read_exact_at(&mut buffer[..want], at)?;
        target.write_all_at(&buffer[..want], at)?;
        at += u64::try_from(want).unwrap_or(u64::MAX);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{FileExt, MetadataExt};

    #[test]
    fn clones_are_equal_and_stay_sparse() {
        let dir = std::env::temp_dir().join(format!("hullbox-clone-{}", std::process::id()));
        fs::create_dir(&dir).unwrap();
        let (from, to) = (dir.join("from"), dir.join("to"));
        let file = File::create(&from).unwrap();
        file.set_len(64 << 20).unwrap();
        file.write_all_at(b"start", 0).unwrap();
        file.write_all_at(b"middle", (32 << 20) + 5).unwrap();
        clone_sparse(&from, &to).unwrap();
        assert!(fs::read(&from).unwrap() == fs::read(&to).unwrap());
        assert!(fs::metadata(&to).unwrap().blocks() * 512 < 1 << 20);
        fs::remove_dir_all(dir).unwrap();
    }
}
