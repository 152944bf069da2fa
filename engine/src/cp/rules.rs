//! Where a copy goes and what it is called there: the rules of `docker cp`.
//!
//! | source | destination | result |
//! |---|---|---|
//! | file | is missing | a file of that name |
//! | file | is missing, ends in `/` | error: the directory does not exist |
//! | file | is a file | it is replaced |
//! | file | is a directory | a file in it, called as the source |
//! | `file/`, `file/.` | anything | error: the source is not a directory |
//! | directory | is missing | a directory of that name with the source's contents |
//! | directory | is a file | error: a directory does not replace a file |
//! | directory | is a directory | a directory in it, called as the source |
//! | `directory/.` | is a directory | the source's contents in it |
//! | anything | is a file, ends in `/` | error: the destination is not a directory |
//!
//! The directory above a missing destination has to exist. A source without a name (`/`, `..`)
//! counts as `directory/.`. Symbolic links: whoever looks at the destination follows them, and at
//! the source only with `-L`.

/// What a path leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Nothing.
    Missing,
    /// A directory.
    Dir,
    /// Anything else.
    File,
}

/// Where the top of a stream goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// A directory, which has to exist.
    pub directory: Vec<u8>,
    /// What the top is called there; without a name its contents go straight in.
    pub name: Option<Vec<u8>>,
}

/// Why a copy cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "their texts say it")]
pub enum RuleError {
    #[error("the source does not exist")]
    NoSource,
    #[error("the source is not a directory")]
    SourceNotDir,
    #[error("the destination directory does not exist")]
    NoDirectory,
    #[error("the destination is not a directory")]
    DestinationNotDir,
    #[error("a directory cannot replace a file")]
    DirOntoFile,
}

/// What becomes of a copy from `source` to `destination`, both as typed.
///
/// # Errors
/// [`RuleError`].
pub fn plan(
    (source, source_kind): (&[u8], Kind),
    (destination, kind): (&[u8], Kind),
) -> Result<Plan, RuleError> {
    let is_dir = match source_kind {
        Kind::Missing => return Err(RuleError::NoSource),
        Kind::Dir => true,
        Kind::File => false,
    };
    if !is_dir && asserts_dir(source) {
        return Err(RuleError::SourceNotDir);
    }
    match kind {
        Kind::Dir => Ok(Plan {
            directory: destination.to_vec(),
            name: name_of(source).map(<[u8]>::to_vec),
        }),
        Kind::File if is_dir => Err(RuleError::DirOntoFile),
        Kind::File if asserts_dir(destination) => Err(RuleError::DestinationNotDir),
        Kind::Missing if !is_dir && asserts_dir(destination) => Err(RuleError::NoDirectory),
        Kind::File | Kind::Missing => {
            let (directory, name) = split(destination).ok_or(RuleError::NoDirectory)?;
            Ok(Plan {
                directory,
                name: Some(name),
            })
        }
    }
}

/// Whether a path says that it is a directory's.
#[must_use]
pub fn asserts_dir(path: &[u8]) -> bool {
    matches!(last(path), b"" | b"." | b"..")
}

/// The name of what a path leads to; nothing for `dir/.`, `..` and `/`, whose contents are meant.
#[must_use]
pub fn name_of(path: &[u8]) -> Option<&[u8]> {
    let path = trim(path);
    match last(path) {
        b"" | b"." | b".." => None,
        name => Some(name),
    }
}

/// A path that does not exist yet, as the directory it is to be in and its name.
fn split(path: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    // `new/` and `new/.` are a new directory called `new`.
    let mut path = trim(path);
    while let Some(shorter) = path.strip_suffix(b"/.") {
        path = trim(shorter);
    }
    let name = name_of(path)?;
    let directory = match &path[..path.len() - name.len()] {
        b"" => &b"."[..],
        directory => directory,
    };
    Some((directory.to_vec(), name.to_vec()))
}

fn last(path: &[u8]) -> &[u8] {
    path.rsplit(|&byte| byte == b'/').next().unwrap_or_default()
}

/// Without slashes at the end.
fn trim(mut path: &[u8]) -> &[u8] {
    while let Some(shorter) = path.strip_suffix(b"/") {
        path = shorter;
    }
    path
}

#[cfg(test)]
mod tests {
    use super::Kind::{Dir, File, Missing};
    use super::*;

    #[test]
    fn the_table_holds() {
        let to = |directory: &str, name: &str| {
            Ok(Plan {
                directory: directory.as_bytes().to_vec(),
                name: (!name.is_empty()).then(|| name.as_bytes().to_vec()),
            })
        };
        for ((source, of), (destination, kind), expected) in [
            (("f", File), ("new", Missing), to(".", "new")),
            (("a/f", File), ("/b/new", Missing), to("/b/", "new")),
            (("f", File), ("/new", Missing), to("/", "new")),
            (("f", File), ("new/", Missing), Err(RuleError::NoDirectory)),
            (("f", File), ("new/.", Missing), Err(RuleError::NoDirectory)),
            (("f", File), ("b/old", File), to("b/", "old")),
            (
                ("f", File),
                ("old/", File),
                Err(RuleError::DestinationNotDir),
            ),
            (("a/f", File), ("d", Dir), to("d", "f")),
            (("a/f", File), ("d/", Dir), to("d/", "f")),
            (("a/f", File), (".", Dir), to(".", "f")),
            (("f/", File), ("d", Dir), Err(RuleError::SourceNotDir)),
            (("f/.", File), ("d", Dir), Err(RuleError::SourceNotDir)),
            (("s", Dir), ("new", Missing), to(".", "new")),
            (("s", Dir), ("new/", Missing), to(".", "new")),
            (("s/.", Dir), ("new", Missing), to(".", "new")),
            (("s", Dir), ("a/new/.", Missing), to("a/", "new")),
            (("s", Dir), ("old", File), Err(RuleError::DirOntoFile)),
            (("s", Dir), ("old/", File), Err(RuleError::DirOntoFile)),
            (("/a/s", Dir), ("d", Dir), to("d", "s")),
            (("/a/s/", Dir), ("d", Dir), to("d", "s")),
            (("/a/s/.", Dir), ("d", Dir), to("d", "")),
            ((".", Dir), ("d", Dir), to("d", "")),
            (("..", Dir), ("d", Dir), to("d", "")),
            (("/", Dir), ("d", Dir), to("d", "")),
            (("gone", Missing), ("d", Dir), Err(RuleError::NoSource)),
            (("s", Dir), ("/", Missing), Err(RuleError::NoDirectory)),
        ] {
            let got = plan((source.as_bytes(), of), (destination.as_bytes(), kind));
            assert_eq!(got, expected, "{source} to {destination} ({kind:?})");
        }
    }
}
