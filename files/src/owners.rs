//! To whom files belong: on the host, and as the guest hears of it.
//!
//! - Root's server: numbers are the host's, as in a container without a user namespace. Setuid bits are
//!   real, too; a container that root was told to give a directory may do with it what root may.
//! - An ordinary user's server has this one user. Its files belong to a user of the guest's, all others to
//!   nobody; nothing can be given away.
//! - In an ordinary user's volumes, owner and mode are kept in an extended attribute, so that `chown 999`
//!   is possible. The file itself stays the user's, is never setuid, and is always accessible to the
//!   server. What can have no such attribute (symbolic links, FIFOs, sockets) belongs to the guest's root
//!   for good; a `chown` of one does nothing, so that `chown -R` works.

use crate::export::Export;
use crate::tree::{Link, Node};
use rustix::fs::{AtFlags, FileType, Gid, Mode, Statx, Uid, XattrFlags};
use rustix::io::Errno;
use std::os::fd::AsFd;

/// Whose rights the server has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rights {
    /// Root's: it acts as whoever asks.
    Root,
    /// An ordinary user's, who is root in a user namespace of the server's and alone there.
    User,
}

/// How owners are told and kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owners {
    /// As they are.
    Host,
    /// The server's user is this one.
    Caller {
        /// The guest's number.
        user: u32,
        /// The same.
        group: u32,
    },
    /// In [`KEPT`].
    Kept,
}

/// The prefix of attributes that the guest neither sees nor sets.
pub const RESERVED: &[u8] = b"user.hullbox.";
/// Owner, group and mode: three numbers, the last one octal.
const KEPT: &str = "user.hullbox.owner";

/// A file's owner and mode, as the guest has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    pub user: u32,
    pub group: u32,
    /// With the type.
    pub mode: u32,
}

/// What is to be changed of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Change {
    pub user: Option<u32>,
    pub group: Option<u32>,
    /// Without the type.
    pub mode: Option<u32>,
}

/// Permissions and the three bits above them.
const MODE: u32 = 0o7777;
/// Whatever the guest's mode is, the server can use its own files.
const ACCESS: u32 = 0o600;
const DIRECTORY_ACCESS: u32 = 0o700;

impl Owners {
    /// Of an export.
    pub const fn of(export: &Export, rights: Rights) -> Self {
        match rights {
            Rights::Root => Self::Host,
            Rights::User if export.volume => Self::Kept,
            Rights::User => Self::Caller {
                user: export.user,
                group: export.group,
            },
        }
    }

    /// What the guest hears.
    pub fn told(self, file: &Node, stat: &Statx) -> Result<Owner, Errno> {
        let real = Owner {
            user: stat.stx_uid,
            group: stat.stx_gid,
            mode: stat.stx_mode.into(),
        };
        Ok(match self {
            Self::Host => real,
            // In the server's user namespace the user is root.
            Self::Caller { user, group } => Owner {
                user: if real.user == 0 { user } else { real.user },
                group: if real.group == 0 { group } else { real.group },
                ..real
            },
            Self::Kept => kept(file, real)?,
        })
    }

    /// Changes a file's owner and mode. The kernel takes setuid bits away from who changes the owner only.
    pub fn change(self, file: &Node, stat: &Statx, change: Change) -> Result<(), Errno> {
        match self {
            Self::Host => {
                set_owner(file, change)?;
                change.mode.map_or(Ok(()), |mode| set_mode(file, mode))
            }
            Self::Caller { .. } => {
                let now = self.told(file, stat)?;
                let moves = change.user.is_some_and(|user| user != now.user)
                    || change.group.is_some_and(|group| group != now.group);
                if moves {
                    return Err(Errno::PERM);
                }
                change.mode.map_or(Ok(()), |mode| set_mode(file, mode))
            }
            Self::Kept => {
                let now = self.told(file, stat)?;
                let mut bits = change.mode.unwrap_or(now.mode) & MODE;
                let is_program = file.kind == FileType::RegularFile;
                if is_program && change.mode.is_none() {
                    bits = without_privileges(bits);
                }
                let next = Owner {
                    user: change.user.unwrap_or(now.user),
                    group: change.group.unwrap_or(now.group),
                    mode: bits,
                };
                keep(file, file.kind, next)
            }
        }
    }

    /// The mode with which something is made on the host, of the one that the guest asks for.
    pub const fn mode_to_make(self, kind: FileType, mode: u32) -> u32 {
        match (self, kind) {
            (Self::Kept, FileType::Directory) => mode & 0o777 | DIRECTORY_ACCESS,
            (Self::Kept, FileType::RegularFile) => mode & 0o777 | ACCESS,
            _ => mode & MODE,
        }
    }

    /// Notes the owner of what was made for a guest's user, given the directory that it is in.
    pub fn made(self, file: impl AsFd, kind: FileType, owner: Owner) -> Result<(), Errno> {
        match self {
            Self::Kept => keep(file, kind, owner),
            Self::Host | Self::Caller { .. } => Ok(()),
        }
    }
}

/// A mode without what gives a program its owner's rights.
pub const fn without_privileges(mode: u32) -> u32 {
    const SETUID: u32 = 0o4000;
    const SETGID: u32 = 0o2000;
    const GROUP_EXECUTE: u32 = 0o010;
    // Without the group's right to execute, the bit means mandatory locking.
    match mode & GROUP_EXECUTE {
        0 => mode & !SETUID,
        _ => mode & !(SETUID | SETGID),
    }
}

const fn can_keep(kind: FileType) -> bool {
    matches!(kind, FileType::RegularFile | FileType::Directory)
}

fn kept(file: &Node, real: Owner) -> Result<Owner, Errno> {
    if !can_keep(file.kind) {
        return Ok(real);
    }
    let mut text = [0; 64];
    let len = match rustix::fs::getxattr(Link::to(file).name(), KEPT, &mut text[..]) {
        Ok(len) => len,
        // Put there by somebody else, or on a file system without attributes.
        Err(Errno::NODATA | Errno::NOTSUP | Errno::RANGE) => return Ok(real),
        Err(errno) => return Err(errno),
    };
    Ok(text.get(..len).and_then(parse).map_or(real, |owner| Owner {
        mode: real.mode & !MODE | owner.mode,
        ..owner
    }))
}

fn parse(text: &[u8]) -> Option<Owner> {
    let mut words = std::str::from_utf8(text).ok()?.split(' ');
    let owner = Owner {
        user: words.next()?.parse().ok()?,
        group: words.next()?.parse().ok()?,
        mode: u32::from_str_radix(words.next()?, 8).ok()? & MODE,
    };
    words.next().is_none().then_some(owner)
}

fn keep(file: impl AsFd, kind: FileType, owner: Owner) -> Result<(), Errno> {
    if !can_keep(kind) {
        return Ok(());
    }
    let mode = owner.mode & MODE;
    let text = format!("{} {} {mode:o}", owner.user, owner.group);
    let link = Link::to(&file);
    rustix::fs::setxattr(link.name(), KEPT, text.as_bytes(), XattrFlags::empty())?;
    set_mode(&file, Owners::Kept.mode_to_make(kind, mode))
}

fn set_mode(file: impl AsFd, mode: u32) -> Result<(), Errno> {
    let mode = Mode::from_raw_mode(mode & MODE);
    rustix::fs::chmodat(
        rustix::fs::CWD,
        Link::to(file).name(),
        mode,
        AtFlags::empty(),
    )
}

fn set_owner(file: impl AsFd, change: Change) -> Result<(), Errno> {
    if change.user.is_none() && change.group.is_none() {
        return Ok(());
    }
    // The number that means "no change" is nobody's.
    if change.user == Some(u32::MAX) || change.group == Some(u32::MAX) {
        return Err(Errno::INVAL);
    }
    rustix::fs::chownat(
        file,
        c"",
        change.user.map(Uid::from_raw),
        change.group.map(Gid::from_raw),
        AtFlags::EMPTY_PATH | AtFlags::SYMLINK_NOFOLLOW,
    )
}

/// Acts as the user who asks, for as long as this lives. What is made meanwhile belongs to that user. Rights
/// stay the server's: the guest's kernel has looked at the user's, of whose groups only it knows.
pub struct ActAs {
    changed: bool,
}

impl ActAs {
    /// As this user, if the server may act as others.
    pub fn user(rights: Rights, user: u32, group: u32) -> Result<Self, Errno> {
        if rights == Rights::User || (user, group) == (0, 0) {
            return Ok(Self { changed: false });
        }
        if user == u32::MAX || group == u32::MAX {
            return Err(Errno::INVAL);
        }
        let acting = Self { changed: true };
        set_effective(user, group)?;
        Ok(acting)
    }
}

impl Drop for ActAs {
    fn drop(&mut self) {
        if self.changed && set_effective(0, 0).is_err() {
            // It cannot be: only who has no right to it fails. Nothing may be done as somebody else.
            std::process::abort();
        }
    }
}

/// Of this thread. Capabilities stay (`SECBIT_NO_SETUID_FIXUP`).
fn set_effective(user: u32, group: u32) -> Result<(), Errno> {
    let (user, group) = (Uid::from_raw(user), Gid::from_raw(group));
    rustix::thread::set_thread_res_gid(None, group, None)?;
    rustix::thread::set_thread_res_uid(None, user, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_read_again_and_nothing_else() {
        let owner = Owner {
            user: 999,
            group: 7,
            mode: 0o4755,
        };
        assert_eq!(parse(b"999 7 4755"), Some(owner));
        for bad in [
            "",
            "1",
            "1 2",
            "1 2 3 4",
            "1 2 9",
            "-1 2 3",
            "1  2 3",
            "4294967296 0 0",
        ] {
            assert_eq!(parse(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(parse(b"0 0 177777").map(|owner| owner.mode), Some(0o7777));
    }

    #[test]
    fn a_volume_of_an_ordinary_user_has_no_setuid_program_on_the_host() {
        let made = |kind, mode| Owners::Kept.mode_to_make(kind, mode);
        assert_eq!(made(FileType::RegularFile, 0o6711), 0o711);
        assert_eq!(made(FileType::RegularFile, 0), 0o600);
        assert_eq!(made(FileType::Directory, 0o1000), 0o700);
        assert_eq!(
            Owners::Host.mode_to_make(FileType::RegularFile, 0o4755),
            0o4755
        );
        assert_eq!(without_privileges(0o6755), 0o755);
        assert_eq!(without_privileges(0o6644), 0o2644);
    }
}
