//! Who runs a process: Docker's `USER` text against an image's own passwd and group files.
//!
//! Pure text in, numbers out; the caller reads the files, safely, from inside
//! the image. Lines that are not what they should be are passed over: an
//! unreadable number must never become 0, which is root.

/// Largest user or group id that Docker accepts.
const MAX_ID: u32 = i32::MAX as u32;

/// A resolved user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Supplementary groups, the primary one first, none twice.
    pub groups: Vec<u32>,
    /// Home directory: that of the passwd entry, else `/`.
    pub home: Vec<u8>,
}

/// Why a user cannot be resolved.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum UserError {
    /// A user name that the image does not have.
    #[error("unable to find user {0}: no matching entries in passwd file")]
    UnknownUser(String),
    /// A group name that the image does not have.
    #[error("unable to find group {0}: no matching entries in group file")]
    UnknownGroup(String),
    /// A number that is no id.
    #[error("uids and gids must be in range 0-2147483647")]
    OutOfRange,
}

/// A line of passwd, as far as it matters.
struct User<'a> {
    name: &'a [u8],
    uid: u32,
    gid: u32,
    home: &'a [u8],
}

/// A line of group.
struct Group<'a> {
    name: &'a [u8],
    gid: u32,
    members: &'a [u8],
}

/// Resolves `user` (`""`, `name`, `uid`, each perhaps with `:group` or `:gid`) and
/// `additional_groups` (`--group-add`). An absent file is an empty one.
///
/// As with Docker, an explicit group replaces the supplementary groups of the user,
/// an empty user is uid 0, and a number need not be in the files.
///
/// # Errors
/// [`UserError`] for names that are not there and numbers out of range.
pub fn resolve(
    user: &str,
    additional_groups: &[String],
    passwd: &[u8],
    group: &[u8],
) -> Result<Identity, UserError> {
    let (name, group_name) = match user.split_once(':') {
        Some((name, group)) => (name, group),
        None => (user, ""),
    };
    let wanted = if name.is_empty() { "0" } else { name };
    let number = parse_id(wanted)?;
    let entry = users(passwd).find(|entry| {
        // An empty USER means the id 0, not a user who is called "0".
        (!name.is_empty() && entry.name == wanted.as_bytes()) || Some(entry.uid) == number
    });
    let mut identity = match (&entry, number) {
        (Some(entry), _) => Identity {
            uid: entry.uid,
            gid: entry.gid,
            groups: Vec::new(),
            home: entry.home.to_vec(),
        },
        (None, Some(uid)) => Identity {
            uid,
            gid: 0,
            groups: Vec::new(),
            home: Vec::new(),
        },
        (None, None) => return Err(UserError::UnknownUser(name.to_owned())),
    };
    if identity.home.is_empty() {
        identity.home = b"/".to_vec();
    }
    if !group_name.is_empty() {
        identity.gid = resolve_group(group_name, group)?;
    }
    identity.groups.push(identity.gid);
    if let Some(entry) = entry.filter(|_| group_name.is_empty()) {
        let memberships = groups(group).filter(|group| {
            let mut members = group.members.split(|&b| b == b',');
            members.any(|member| member == entry.name)
        });
        identity.groups.extend(memberships.map(|group| group.gid));
    }
    for extra in additional_groups {
        identity.groups.push(resolve_group(extra, group)?);
    }
    let mut seen = std::collections::HashSet::new();
    identity.groups.retain(|gid| seen.insert(*gid));
    Ok(identity)
}

fn resolve_group(name: &str, file: &[u8]) -> Result<u32, UserError> {
    let number = parse_id(name)?;
    groups(file)
        .find(|group| group.name == name.as_bytes() || Some(group.gid) == number)
        .map(|group| group.gid)
        .or(number)
        .ok_or_else(|| UserError::UnknownGroup(name.to_owned()))
}

/// `None` for what is a name; an error for a number that is no id.
fn parse_id(text: &str) -> Result<Option<u32>, UserError> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Ok(None);
    }
    match text.parse::<u32>() {
        Ok(id) if id <= MAX_ID => Ok(Some(id)),
        _ => Err(UserError::OutOfRange),
    }
}

/// An id in a file: digits only, and in range.
fn file_id(field: &[u8]) -> Option<u32> {
    let text = std::str::from_utf8(field).ok()?.trim();
    parse_id(text).ok().flatten()
}

/// The non-empty lines of a file that are not comments, split at colons.
fn lines(file: &[u8]) -> impl Iterator<Item = std::slice::Split<'_, u8, fn(&u8) -> bool>> {
    const COLON: fn(&u8) -> bool = |b| *b == b':';
    file.split(|&b| b == b'\n')
        .map(<[u8]>::trim_ascii)
        .filter(|line| !line.is_empty() && line[0] != b'#')
        .map(|line| line.split(COLON))
}

fn users(file: &[u8]) -> impl Iterator<Item = User<'_>> {
    lines(file).filter_map(|mut fields| {
        let name = fields.next()?;
        let _password = fields.next()?;
        let uid = file_id(fields.next()?)?;
        let gid = file_id(fields.next()?)?;
        let _comment = fields.next();
        let home = fields.next().unwrap_or_default();
        Some(User {
            name,
            uid,
            gid,
            home,
        })
    })
}

fn groups(file: &[u8]) -> impl Iterator<Item = Group<'_>> {
    lines(file).filter_map(|mut fields| {
        let name = fields.next()?;
        let _password = fields.next()?;
        let gid = file_id(fields.next()?)?;
        let members = fields.next().unwrap_or_default();
        Some(Group { name, gid, members })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &[u8] = b"root:x:0:0:root:/root:/bin/sh\n# c:x:0:0::/:\n\nbad:x:abc:0::/:\n\
        neg:x:-0:0::/x:\nweb:x:33:34::/srv:\nshort:x:5\n1000:x:77:78::/n:\nweird:x:1000:9\n\
        huge:x:4294967296:0::/:";
    const GROUP: &[u8] = b"root:x:0:\nwheel:x:10:root,web\nwww:x:34:web\nbroken:x:zz:root\n\
        last:x:99:web";

    fn ok(user: &str) -> (u32, u32, Vec<u32>, String) {
        let id = resolve(user, &[], PASSWD, GROUP).unwrap();
        (
            id.uid,
            id.gid,
            id.groups,
            String::from_utf8(id.home).unwrap(),
        )
    }

    #[test]
    fn docker_meanings() {
        let root = (0, 0, vec![0, 10], "/root".to_owned());
        assert_eq!(ok(""), root);
        assert_eq!(ok("root"), root);
        assert_eq!(ok("0"), root);
        assert_eq!(ok("web"), (33, 34, vec![34, 10, 99], "/srv".into()));
        assert_eq!(ok("33"), (33, 34, vec![34, 10, 99], "/srv".into()));
        assert_eq!(ok("web:wheel"), (33, 10, vec![10], "/srv".into()));
        assert_eq!(ok("web:7"), (33, 7, vec![7], "/srv".into()));
        assert_eq!(ok("4242"), (4242, 0, vec![0], "/".into()));
        assert_eq!(ok("4242:4343"), (4242, 4343, vec![4343], "/".into()));
        assert_eq!(ok(":wheel"), (0, 10, vec![10], "/root".into()));
        // The first line that matches by name or number wins.
        assert_eq!(ok("1000"), (77, 78, vec![78], "/n".into()));
    }

    #[test]
    fn an_image_without_files_still_has_numbers_and_root() {
        let id = resolve("", &[], b"", b"").unwrap();
        assert_eq!((id.uid, id.gid, id.groups), (0, 0, vec![0]));
        assert!(resolve("5:6", &["7".into()], b"", b"").is_ok());
    }

    #[test]
    fn unknown_and_out_of_range_are_errors_never_root() {
        for user in ["nobody", "bad", "neg", "short", "huge", "#", "x:y", " root"] {
            let error = resolve(user, &[], PASSWD, GROUP).unwrap_err();
            assert!(matches!(error, UserError::UnknownUser(_)), "{user}");
        }
        for user in [
            "-1",
            "4294967295",
            "2147483648",
            "99999999999999999999",
            "0:-5",
        ] {
            let error = resolve(user, &[], PASSWD, GROUP).unwrap_err();
            assert_eq!(error, UserError::OutOfRange, "{user}");
        }
        assert_eq!(
            resolve("web:broken", &[], PASSWD, GROUP),
            Err(UserError::UnknownGroup("broken".into()))
        );
    }

    #[test]
    fn additional_groups_join_once() {
        let add = ["wheel".into(), "12".into(), "12".into()];
        let id = resolve("web:www", &add, PASSWD, GROUP).unwrap();
        assert_eq!(id.groups, [34, 10, 12]);
        let unknown = ["nope".into()];
        assert!(resolve("", &unknown, PASSWD, GROUP).is_err());
    }
}
