//! Output files: `save -o`, `export -o`, `bench --json`.
//!
//! A file appears whole or not at all: it is written under a temporary name in the same directory and
//! renamed.

use super::failure::Failure;
use rustix::termios::isatty;
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

/// An output that is open.
#[derive(Debug)]
pub(crate) struct OutputFile {
    file: File,
    /// The temporary path, and the final one.
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
        // A symbolic link stays; its target is replaced.
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

    /// Makes it this process's standard output, for good.
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
            // Half an archive. That it cannot be removed is no reason to hide why it is half.
            let _ = std::fs::remove_file(from);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

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
