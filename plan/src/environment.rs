//! Environments: `-e`, `--env-file`, the image's own, and how they merge.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Longest line of an environment file, in bytes. Docker's reader has the same limit.
const MAX_LINE: usize = 64 * 1024;
/// Largest environment file, in bytes. `execve` takes far less.
const MAX_FILE: u64 = 16 * 1024 * 1024;

/// What a variable is in the caller's own environment.
pub type Lookup<'a> = &'a dyn Fn(&[u8]) -> Option<Vec<u8>>;

/// A change to the environment: `NAME=value` sets, a bare `NAME` removes.
pub type Entry = Vec<u8>;

/// Why an environment cannot be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EnvError {
    /// The file cannot be read.
    #[error("cannot read the environment file {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A line makes no sense.
    #[error("environment file {}, line {line}: {why}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// Why.
        why: &'static str,
    },
    /// `-e =value`.
    #[error("an environment variable has no name: {0:?}")]
    NoName(String),
    /// A NUL byte ends strings in the kernel's eyes.
    #[error("an environment variable contains a NUL byte")]
    Nul,
}

/// What a `-e` argument means: a bare name takes the caller's value, and removes the variable
/// where the caller has none.
///
/// # Errors
/// [`EnvError::NoName`] and [`EnvError::Nul`].
pub fn from_argument(argument: &[u8], lookup: Lookup<'_>) -> Result<Entry, EnvError> {
    if argument.contains(&0) {
        return Err(EnvError::Nul);
    }
    if argument.is_empty() || argument.starts_with(b"=") {
        return Err(EnvError::NoName(
            String::from_utf8_lossy(argument).into_owned(),
        ));
    }
    Ok(if argument.contains(&b'=') {
        argument.to_vec()
    } else {
        match lookup(argument) {
            Some(value) => assignment(argument, &value),
            None => argument.to_vec(),
        }
    })
}

/// Reads an environment file.
///
/// # Errors
/// It cannot be read, or a line is wrong.
pub fn from_file(path: &Path, lookup: Lookup<'_>) -> Result<Vec<Entry>, EnvError> {
    let read = |source| EnvError::Read {
        path: path.to_owned(),
        source,
    };
    let file = fs::File::open(path).map_err(read)?;
    let mut text = Vec::new();
    io::Read::read_to_end(&mut io::Read::take(file, MAX_FILE + 1), &mut text).map_err(read)?;
    if u64::try_from(text.len()).unwrap_or(u64::MAX) > MAX_FILE {
        return Err(read(io::Error::from(io::ErrorKind::FileTooLarge)));
    }
    parse(&text, lookup).map_err(|(line, why)| EnvError::Line {
        path: path.to_owned(),
        line,
        why,
    })
}

/// The lines of an environment file. There is no quoting: everything after the first `=` is the
/// value, blanks at its end included. Lines whose first character is `#` are comments.
fn parse(text: &[u8], lookup: Lookup<'_>) -> Result<Vec<Entry>, (usize, &'static str)> {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let mut entries = Vec::new();
    for (index, line) in text.split(|byte| *byte == b'\n').enumerate() {
        let fail = |why| (index + 1, why);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.len() > MAX_LINE {
            return Err(fail("the line is longer than 64 KiB"));
        }
        let line = std::str::from_utf8(line).map_err(|_| fail("not valid UTF-8"))?;
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, value) = match line.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (line, None),
        };
        if name.is_empty() {
            return Err(fail("no variable name before '='"));
        }
        if name.contains([' ', '\t']) {
            return Err(fail("the variable name contains a blank"));
        }
        if line.contains('\0') {
            return Err(fail("a NUL byte"));
        }
        if let Some(value) = value {
            entries.push(assignment(name.as_bytes(), value.as_bytes()));
        } else if let Some(value) = lookup(name.as_bytes()) {
            entries.push(assignment(name.as_bytes(), &value));
        }
    }
    Ok(entries)
}

fn assignment(name: &[u8], value: &[u8]) -> Entry {
    [name, b"=", value].concat()
}

fn name_of(entry: &[u8]) -> &[u8] {
    entry.split(|byte| *byte == b'=').next().unwrap_or_default()
}

/// Lays changes over a base: a variable that exists keeps its place, a new one goes to the end,
/// a bare name takes the variable out.
#[must_use]
pub fn merge(mut base: Vec<Entry>, changes: impl IntoIterator<Item = Entry>) -> Vec<Entry> {
    for change in changes {
        let name = name_of(&change);
        let at = base.iter().position(|entry| name_of(entry) == name);
        match (at, name.len() == change.len()) {
            (Some(at), true) => drop(base.remove(at)),
            (Some(at), false) => base[at] = change,
            (None, true) => {}
            (None, false) => base.push(change),
        }
    }
    base
}

/// What a container is configured with: what was typed, the last word on each name, then what the
/// image says of others. A bare name stays, to take out a default.
#[must_use]
pub fn configured(typed: &[Entry], image: &[Entry]) -> Vec<Entry> {
    let mut all: Vec<Entry> = Vec::new();
    for entry in typed {
        match all
            .iter_mut()
            .find(|known| name_of(known) == name_of(entry))
        {
            Some(known) => known.clone_from(entry),
            None => all.push(entry.clone()),
        }
    }
    for entry in image.iter().filter(|entry| !name_of(entry).is_empty()) {
        if !all.iter().any(|known| name_of(known) == name_of(entry)) {
            all.push(entry.clone());
        }
    }
    all
}

/// What Docker gives every process of a container, under what the container is configured with.
/// HOME is added where the user is known, inside.
#[must_use]
pub fn defaults(hostname: &str, terminal: bool) -> Vec<Entry> {
    let mut all = vec![PATH.to_vec(), assignment(b"HOSTNAME", hostname.as_bytes())];
    if terminal {
        all.push(b"TERM=xterm".to_vec());
    }
    all
}

/// PATH of an image that sets none.
const PATH: &[u8] = b"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// This process's own environment, as a lookup.
#[must_use]
pub fn own(name: &[u8]) -> Option<Vec<u8>> {
    std::env::var_os(std::ffi::OsStr::from_bytes(name)).map(|value| value.as_bytes().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_typed_comes_first_and_covers_the_image() {
        let entries = |text: &str| -> Vec<Entry> {
            text.split(' ')
                .map(|entry| entry.as_bytes().to_vec())
                .collect()
        };
        // As docker 26.1 shows it of `-e A=1 -e A=2 -e GONE -e HOSTNAME=`.
        assert_eq!(
            text(configured(
                &entries("A=1 A=2 GONE HOSTNAME="),
                &entries("PATH=/bin GONE=here A=image =x")
            )),
            ["A=2", "GONE", "HOSTNAME=", "PATH=/bin"]
        );
    }

    #[test]
    fn only_processes_with_a_terminal_hear_of_one() {
        assert_eq!(text(defaults("h", false))[1..], ["HOSTNAME=h"]);
        assert_eq!(text(defaults("h", true))[1..], ["HOSTNAME=h", "TERM=xterm"]);
    }

    fn lookup(name: &[u8]) -> Option<Vec<u8>> {
        (name == b"KNOWN").then(|| b"from caller".to_vec())
    }

    fn text(entries: Vec<Entry>) -> Vec<String> {
        entries
            .into_iter()
            .map(|entry| String::from_utf8(entry).unwrap())
            .collect()
    }

    #[test]
    fn arguments_set_copy_and_remove() {
        let one = |argument: &str| from_argument(argument.as_bytes(), &lookup);
        assert_eq!(one("A=b=c").unwrap(), b"A=b=c");
        assert_eq!(one("A=").unwrap(), b"A=");
        assert_eq!(one("KNOWN").unwrap(), b"KNOWN=from caller");
        assert_eq!(one("UNKNOWN").unwrap(), b"UNKNOWN");
        assert!(one("=x").is_err() && one("").is_err() && one("A=\0").is_err());
    }

    #[test]
    fn files_have_no_quoting_and_no_trimming() {
        let file = "\u{feff}A=1\n  # comment\n\n  B= two words \r\nC=\"q\"\n#X=1\nD=a=b#c\nE=\nKNOWN\nUNKNOWN";
        assert_eq!(
            text(parse(file.as_bytes(), &lookup).unwrap()),
            [
                "A=1",
                "B= two words ",
                "C=\"q\"",
                "D=a=b#c",
                "E=",
                "KNOWN=from caller"
            ]
        );
    }

    #[test]
    fn files_name_the_bad_line() {
        let fails = |file: &[u8]| parse(file, &lookup).unwrap_err().0;
        assert_eq!(fails(b"A=1\nB C=2"), 2);
        assert_eq!(fails(b"=x"), 1);
        assert_eq!(fails(b"A=1\n\nB=\xff"), 3);
        assert_eq!(fails(b"A=\0"), 1);
        assert_eq!(fails(&[vec![b'A'; 70_000], b"=".to_vec()].concat()), 1);
    }

    #[test]
    fn merging_keeps_places() {
        let entries = |list: &[&str]| {
            list.iter()
                .map(|e| e.as_bytes().to_vec())
                .collect::<Vec<_>>()
        };
        let merged = merge(
            entries(&["PATH=/bin", "A=1", "B=2"]),
            entries(&["C=3", "A=9", "B", "NOTTHERE", "C=4"]),
        );
        assert_eq!(text(merged), ["PATH=/bin", "A=9", "C=4"]);
    }
}
