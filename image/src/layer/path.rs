//! Paths of entries: a list of names, and nothing else.

use super::Problem;
use std::collections::VecDeque;

/// Longest path, in bytes (the kernel's PATH_MAX).
const MAX_PATH: usize = 4096;
/// Longest name, in bytes (NAME_MAX).
const MAX_NAME: usize = 255;
/// Most symbolic links on the way to one name (the kernel's MAXSYMLINKS).
pub(crate) const MAX_SYMLINKS: usize = 40;

/// Splits an entry's path. A leading slash means the layer's root, as everywhere; `..` is
/// refused even where it would stay inside, because no tool that makes layers writes it.
pub(super) fn components(path: &[u8]) -> Result<Vec<&[u8]>, Problem> {
    if path.is_empty() {
        return Err(Problem::EmptyName);
    }
    if path.len() > MAX_PATH {
        return Err(Problem::PathTooLong);
    }
    path.split(|&b| b == b'/')
        .filter(|name| !name.is_empty() && *name != b".")
        .map(check_name)
        .collect()
}

fn check_name(name: &[u8]) -> Result<&[u8], Problem> {
    if name == b".." {
        Err(Problem::ParentDir)
    } else if name.len() > MAX_NAME {
        Err(Problem::NameTooLong)
    } else {
        Ok(name)
    }
}

/// Puts the names of a symbolic link's target before those still to be followed. `..` stays:
/// who follows it never goes above the root.
pub(super) fn expand(target: &[u8], todo: &mut VecDeque<Vec<u8>>) -> Result<(), Problem> {
    let names = target
        .split(|&b| b == b'/')
        .filter(|name| !name.is_empty() && *name != b".");
    for (at, name) in names.enumerate() {
        if name.len() > MAX_NAME {
            return Err(Problem::NameTooLong);
        }
        todo.insert(at, name.to_vec());
    }
    Ok(())
}

/// What an entry's name marks (OCI image specification, "Whiteouts").
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Marker<'a> {
    /// Nothing: it is a name.
    Plain,
    /// `.wh.NAME`: the name is gone from the layers below.
    Whiteout(&'a [u8]),
    /// `.wh..wh..opq`: everything of this directory in the layers below is gone.
    Opaque,
    /// Book-keeping of aufs, which Docker ignores.
    Aufs,
}

/// Reads the last name of a path; the names before it must be plain.
pub(super) fn marker<'a>(names: &[&'a [u8]]) -> Result<Marker<'a>, Problem> {
    let is_aufs = |name: &&[u8]| name.starts_with(b".wh..wh.") && **name != *b".wh..wh..opq";
    if names.iter().any(is_aufs) {
        return Ok(Marker::Aufs);
    }
    let Some((last, parents)) = names.split_last() else {
        return Ok(Marker::Plain);
    };
    if parents.iter().any(|name| name.starts_with(b".wh.")) {
        return Err(Problem::BeneathWhiteout);
    }
    match last.strip_prefix(b".wh.") {
        None => Ok(Marker::Plain),
        Some(b".wh..opq") => Ok(Marker::Opaque),
        Some(b"" | b"." | b"..") => Err(Problem::Whiteout),
        Some(name) => Ok(Marker::Whiteout(name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        let parts = |path: &str| {
            components(path.as_bytes()).map(|names| {
                names
                    .iter()
                    .map(|n| String::from_utf8_lossy(n).into_owned())
                    .collect::<Vec<_>>()
            })
        };
        assert_eq!(parts("./a//b/./c/").unwrap(), ["a", "b", "c"]);
        assert_eq!(parts("/etc/passwd").unwrap(), ["etc", "passwd"]);
        assert!(parts("./").unwrap().is_empty());
        assert_eq!(parts("..."), Ok(vec!["...".into()]));
        for bad in ["..", "a/../b", "/..", "a/.."] {
            assert_eq!(parts(bad), Err(Problem::ParentDir));
        }
        assert_eq!(parts(""), Err(Problem::EmptyName));
        assert_eq!(parts(&"x".repeat(256)), Err(Problem::NameTooLong));
        assert_eq!(parts(&"x/".repeat(3000)), Err(Problem::PathTooLong));
    }

    #[test]
    fn markers() {
        let read = |path: &'static [u8]| marker(&components(path).unwrap());
        assert_eq!(read(b"a/.wh.b"), Ok(Marker::Whiteout(b"b")));
        assert_eq!(read(b"a/.wh..wh..opq"), Ok(Marker::Opaque));
        assert_eq!(read(b".wh..wh.plnk/1.2"), Ok(Marker::Aufs));
        assert_eq!(read(b".wh..wh.aufs"), Ok(Marker::Aufs));
        assert_eq!(read(b"a/.who"), Ok(Marker::Plain));
        assert_eq!(read(b".wh....").unwrap(), Marker::Whiteout(b"..."));
        for bad in [&b".wh."[..], b"a/.wh..", b".wh..."] {
            assert_eq!(marker(&components(bad).unwrap()), Err(Problem::Whiteout));
        }
        for bad in [&b".wh.a/b"[..], b".wh..wh..opq/b"] {
            assert_eq!(
                marker(&components(bad).unwrap()),
                Err(Problem::BeneathWhiteout)
            );
        }
    }
}
