//! What the helper machine may have of its host: what a user named in a command that was forwarded.
//!
//! The forwarding process writes down each bind mount of the command before it forwards it, in a file of
//! the machine's directory on the host, which the machine cannot write. Grants stay: the container may be
//! started again.

use crate::export::Export;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The option with which the process serves what was granted, in this file.
pub const GRANTED_OPTION: &str = "--granted";
/// Most bytes of the file.
const MOST_BYTES: u64 = 16 << 20;

/// One path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Grant {
    /// Absolute, as it was asked for.
    pub path: PathBuf,
    /// Nothing may be changed.
    pub read_only: bool,
}

/// Adds grants to a file, which need not be there.
///
/// # Errors
/// The file cannot be read or written, or becomes too long.
pub fn add(file: &Path, grants: &[Grant]) -> io::Result<()> {
    if grants.is_empty() {
        return Ok(());
    }
    let mut opened = File::options()
        .read(true)
        .append(true)
        .create(true)
        .mode(0o600)
        .open(file)?;
    // Of two that write at once, each adds whole lines.
    opened.lock()?;
    let known = parse(&mut opened)?;
    let new: BTreeSet<&Grant> = grants.iter().filter(|new| !known.contains(new)).collect();
    let mut lines = Vec::new();
    for grant in new {
        serde_json::to_writer(&mut lines, grant)?;
        lines.push(b'\n');
    }
    let length = opened.seek(io::SeekFrom::End(0))?;
    if length + u64::try_from(lines.len()).unwrap_or(u64::MAX) > MOST_BYTES {
        return Err(io::Error::other(format!(
            "{} is full; it may be removed when no container with a bind mount is needed any more",
            file.display()
        )));
    }
    opened.write_all(&lines)
}

fn parse(mut file: impl Read) -> io::Result<BTreeSet<Grant>> {
    let mut text = String::new();
    file.by_ref().take(MOST_BYTES).read_to_string(&mut text)?;
    // One that was cut short by a crash is nobody's.
    let grants = text
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok());
    Ok(grants.collect())
}

/// Whether all of this may be served, by the grants in a file. What is granted may be asked for with less.
///
/// # Errors
/// In words: what is not granted.
pub fn check(file: &Path, exports: &[Export]) -> Result<(), String> {
    let granted = match fs::File::open(file) {
        Ok(opened) => parse(opened),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeSet::new()),
        Err(error) => Err(error),
    };
    let granted = granted.map_err(|error| format!("cannot read the grants: {error}"))?;
    for export in exports {
        let with = |read_only| {
            granted.contains(&Grant {
                path: export.source.clone(),
                read_only,
            })
        };
        if !(with(false) || export.read_only && with(true)) {
            let path = export.source.display();
            return Err(format!("{path} was not named in a command of this host"));
        }
        if export.exclusive || export.volume || export.outside || export.subpath != Path::new("") {
            return Err("a file of the host's is nobody's alone".to_owned());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(path: &str, read_only: bool) -> Grant {
        Grant {
            path: path.into(),
            read_only,
        }
    }

    fn export(path: &str, read_only: bool) -> Export {
        Export {
            read_only,
            ..Export::of(path)
        }
    }

    #[test]
    fn what_was_granted_is_served_and_no_more() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("grants");
        let may = |export| check(&file, &[export]).is_ok();
        assert!(!may(export("/a", true)));
        add(&file, &[grant("/a", true), grant("/b", false)]).unwrap();
        add(&file, &[grant("/b", false), grant("/c d\n", false)]).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap().lines().count(), 3);
        assert!(may(export("/a", true)));
        assert!(!may(export("/a", false)));
        assert!(may(export("/b", true)) && may(export("/b", false)));
        assert!(may(export("/c d\n", false)));
        for other in ["/", "/b/x", "/bb", "/b/../c", "/c d"] {
            assert!(!may(export(other, true)), "{other}");
        }
        assert!(!may(Export {
            exclusive: true,
            ..export("/b", false)
        }));
        // A line that was cut short takes nothing else with it.
        let text = fs::read_to_string(&file).unwrap();
        fs::write(&file, &text[..text.len() - 5]).unwrap();
        assert!(may(export("/a", true)));
        assert!(!may(export("/c d\n", false)));
    }

    #[test]
    fn of_all_exports_each_needs_a_grant() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("grants");
        add(&file, &[grant("/a", false)]).unwrap();
        let error = check(&file, &[export("/a", false), export("/etc", true)]).unwrap_err();
        assert!(error.contains("/etc"), "{error}");
    }
}
