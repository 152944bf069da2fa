//! The output file of a command that makes an archive: `save -o`, and whatever is like it.
//!
//! A file appears whole or not at all: it is written beside its place and renamed. Where the
//! helper machine runs the command, which sees the host's files but cannot write them, this
//! process opens the file all the same and lends it to the command as its standard output; the
//! flag is taken out of the arguments then.

use crate::failure::Failure;
use rustix::termios::isatty;
use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// An output that is open.
#[derive(Debug)]
pub(crate) struct OutputFile {
    file: File,
    /// Where it is written, and where it belongs.
    rename: Option<(PathBuf, PathBuf)>,
}

impl OutputFile {
    /// Opens the file at `path`, or standard output, unless that is a terminal.
    pub(crate) fn open(path: Option<&Path>) -> Result<Self, Failure> {
        match path {
            Some(path) => Self::create(path)
                .map_err(|error| Failure::of(format!("cannot create {}", path.display()), &error)),
            None => Self::stdout(),
        }
    }

    fn stdout() -> Result<Self, Failure> {
        let stdout = io::stdout();
        if isatty(stdout.as_fd()) {
            return Err(Failure::new("refusing to write an archive to a terminal")
                .with_hint("name a file with -o, or redirect the output"));
        }
        let file = stdout
            .as_fd()
            .try_clone_to_owned()
            .map_err(|error| Failure::of("cannot use standard output", &error))?;
        Ok(Self {
            file: file.into(),
            rename: None,
        })
    }

    fn create(path: &Path) -> io::Result<Self> {
        let replaceable = match path.metadata() {
            Ok(metadata) if metadata.is_dir() => return Err(io::ErrorKind::IsADirectory.into()),
            // A pipe or /dev/null is written to and stays what it is.
            Ok(metadata) => metadata.is_file(),
            Err(_) => true,
        };
        if !replaceable {
            let file = OpenOptions::new().write(true).open(path)?;
            return Ok(Self { file, rename: None });
        }
        // What a link leads to is replaced, and not the link.
        let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let mut beside = OsString::from(".");
        beside.push(name);
        beside.push(format!(".{}.part", std::process::id()));
        let beside = path.with_file_name(beside);
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&beside)?;
        Ok(Self {
            file,
            rename: Some((beside, path)),
        })
    }

    pub(crate) const fn file(&mut self) -> &mut File {
        &mut self.file
    }

    /// Lends it to this process's standard output, for good.
    pub(crate) fn become_stdout(&self) -> Result<(), Failure> {
        rustix::stdio::dup2_stdout(&self.file)
            .map_err(|error| Failure::of("cannot redirect standard output", &error))
    }

    /// It is complete.
    pub(crate) fn keep(mut self) -> Result<(), Failure> {
        let Some((from, to)) = self.rename.take() else {
            return Ok(());
        };
        std::fs::rename(&from, &to).map_err(|error| {
            // It is of no use under this name.
            let _ = std::fs::remove_file(&from);
            Failure::of(format!("cannot create {}", to.display()), &error)
        })
    }
}

impl Drop for OutputFile {
    fn drop(&mut self) {
        if let Some((from, _)) = &self.rename {
            // Half an archive; there is nobody to tell that it stays.
            let _ = std::fs::remove_file(from);
        }
    }
}

/// `args` without `-o VALUE` or `--output VALUE`, in any of the ways to type them.
pub(crate) fn without_flag(args: &[OsString], value: &OsStr) -> Vec<OsString> {
    let mut rest = Vec::with_capacity(args.len());
    let mut args = args.iter().peekable();
    while let Some(arg) = args.next() {
        let bytes = arg.as_bytes();
        let is_value_next = args.peek().is_some_and(|next| *next == value);
        if bytes == b"--" {
            rest.push(arg.clone());
            rest.extend(args.cloned());
            break;
        }
        if bytes == b"--output" && is_value_next {
            args.next();
        } else if bytes.strip_prefix(b"--output=") == Some(value.as_bytes()) {
            // Gone.
        } else if let Some(others) = cluster(bytes, value, is_value_next) {
            if others.ends_with(b"o") && is_value_next {
                args.next();
            }
            let others = others.strip_suffix(b"o").unwrap_or(others);
            if others != b"-" {
                rest.push(OsString::from_vec(others.to_vec()));
            }
        } else {
            rest.push(arg.clone());
        }
    }
    rest
}

/// Short flags that end in `-o` and its value, or in `o` when the value follows (which stays, to
/// tell the two apart).
fn cluster<'a>(arg: &'a [u8], value: &OsStr, is_value_next: bool) -> Option<&'a [u8]> {
    let letters = arg.strip_prefix(b"-")?;
    if letters.starts_with(b"-") {
        return None;
    }
    if is_value_next && letters.ends_with(b"o") && letters.iter().all(u8::is_ascii_alphabetic) {
        return Some(arg);
    }
    let before = arg.strip_suffix(value.as_bytes())?;
    let before = before.strip_suffix(b"=").unwrap_or(before);
    let before = before.strip_suffix(b"o")?;
    let flags = before.strip_prefix(b"-")?;
    flags.iter().all(u8::is_ascii_alphabetic).then_some(before)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn the_flag_is_taken_out_however_it_was_typed() {
        let stripped = |line: &str| {
            let args: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            let rest = without_flag(&args, OsStr::new("out.tar"));
            rest.join(OsStr::new(" ")).into_string().unwrap()
        };
        for (line, rest) in [
            ("save -o out.tar debian", "save debian"),
            ("save -oout.tar debian", "save debian"),
            ("save -o=out.tar debian", "save debian"),
            ("save --output out.tar debian", "save debian"),
            ("save --output=out.tar debian", "save debian"),
            ("save debian -qo out.tar", "save debian -q"),
            ("save debian -qoout.tar", "save debian -q"),
            ("save debian", "save debian"),
            (
                "save --format oci-archive -o out.tar a out.tar",
                "save --format oci-archive a out.tar",
            ),
            ("save -- -o out.tar", "save -- -o out.tar"),
        ] {
            assert_eq!(stripped(line), rest, "{line}");
        }
    }

    #[test]
    fn a_file_appears_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let path = dir.join("out");
        std::fs::write(&path, b"old").unwrap();
        let mut output = OutputFile::open(Some(&path)).unwrap();
        output.file().write_all(b"half").unwrap();
        drop(output);
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        let mut output = OutputFile::open(Some(&path)).unwrap();
        output.file().write_all(b"whole").unwrap();
        output.keep().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"whole");
        assert_eq!(std::fs::read_dir(dir).unwrap().count(), 1, "nothing else");
        assert!(OutputFile::open(Some(dir)).is_err());
    }
}
