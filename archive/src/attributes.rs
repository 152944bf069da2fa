//! Extended attributes, as far as they mean something outside this container.

use rustix::fd::AsFd;
use rustix::fs::{XattrFlags, fgetxattr, flistxattr, fsetxattr};
use rustix::io::Errno;

/// Largest value that Linux has, in bytes (`XATTR_SIZE_MAX`, `XATTR_LIST_MAX`).
const MAX: usize = 64 * 1024;

/// Names and values.
pub(crate) type Attributes = Vec<(Vec<u8>, Vec<u8>)>;

/// Names and values of a file or directory that is open for reading.
pub(crate) fn read(fd: impl AsFd) -> Result<Attributes, Errno> {
    let mut list = vec![0; MAX];
    let length = match flistxattr(&fd, &mut list[..]) {
        // Not every filesystem has them.
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => 0,
        length => length?,
    };
    let mut all = Vec::new();
    let names = list[..length].split(|&byte| byte == 0);
    for name in names.filter(|name| is_portable(name)) {
        if let Some(value) = value(&fd, name)? {
            all.push((name.to_vec(), value));
        }
    }
    all.sort_unstable();
    Ok(all)
}

/// The value of one attribute, if it is there.
pub(crate) fn value(fd: impl AsFd, name: &[u8]) -> Result<Option<Vec<u8>>, Errno> {
    let mut value = vec![0; MAX];
    match fgetxattr(fd, name, &mut value[..]) {
        Ok(length) => {
            value.truncate(length);
            Ok(Some(value))
        }
        Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::NOSYS) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Sets what an archive has. What the filesystem or our rights do not allow is left out, as
/// Docker does.
pub(crate) fn write(fd: impl AsFd, all: &[(Vec<u8>, Vec<u8>)]) -> Result<(), Errno> {
    for (name, value) in all.iter().filter(|(name, _)| is_portable(name)) {
        match fsetxattr(&fd, name.as_slice(), value, XattrFlags::empty()) {
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::PERM) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Whether an attribute is the file's own: not overlayfs's marks, and not labels of a security
/// module, which speak to one kernel only.
fn is_portable(name: &[u8]) -> bool {
    const WHOLE: [&[u8]; 3] = [
        b"security.capability",
        b"system.posix_acl_access",
        b"system.posix_acl_default",
    ];
    let user = name.starts_with(b"user.") && !name.starts_with(b"user.overlay.");
    user || WHOLE.contains(&name)
}
