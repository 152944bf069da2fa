//! The local half of `cp`: what `CONTAINER:PATH` means, where things go and what they are called
//! there, and files to and from a tar stream.
//!
//! A stream has one top: the thing that is copied, under whatever name its sender gave it (`.`
//! too), and all else beneath it. [`rules::plan`] says what the receiver makes of the top.
//! [`pack()`] makes such a stream of local files, which are the operator's; and
//! [`unpack()`] takes one that comes from inside a container, and so is hostile.

mod pack;
pub mod rules;
#[cfg(test)]
mod transfer_tests;
mod unpack;

use hullbox_tar::TarError;
pub use pack::{PackOptions, Packed, destination, pack, source_kind};
pub use unpack::{UnpackOptions, Unpacked, unpack};

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// Why nothing, or not everything, was copied.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the fields say it themselves")]
pub enum CpError {
    /// What was typed.
    #[error("{0}")]
    Usage(&'static str),
    /// `CONTAINER:` without a path, or `:PATH`.
    #[error("{0:?} is not of the form CONTAINER:PATH")]
    Malformed(OsString),
    /// The path rules.
    #[error(transparent)]
    Rule(#[from] rules::RuleError),
    /// A local file.
    #[error("cannot {action} {path}")]
    Local {
        action: &'static str,
        path: String,
        #[source]
        source: io::Error,
    },
    /// An entry that an honest container does not send.
    #[error("the container sent {path:?}, which {problem}: it was refused")]
    Refused { path: String, problem: &'static str },
    /// The stream.
    #[error("the files that the container sent cannot be understood")]
    Tar(#[from] TarError),
    /// It broke off.
    #[error("the files that the container sent are cut off")]
    CutOff,
    /// More than is kept in mind.
    #[error("the container sent too many directories")]
    TooMany,
    /// The stream cannot be written.
    #[error("cannot send the files")]
    Send(#[source] io::Error),
}

impl CpError {
    fn local(action: &'static str, path: &[u8], source: impl Into<io::Error>) -> Self {
        Self::Local {
            action,
            path: shown(path),
            source: source.into(),
        }
    }

    fn refused(path: &[u8], problem: &'static str) -> Self {
        Self::Refused {
            path: shown(path),
            problem,
        }
    }
}

/// What of a hostile name may be shown.
fn shown(path: &[u8]) -> String {
    let text = String::from_utf8_lossy(path);
    match text.char_indices().nth(120) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.into_owned(),
    }
}

/// One side of a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// `-`: a tar on standard input or output.
    Stdio,
    /// A file here.
    Local(PathBuf),
    /// `CONTAINER:PATH`.
    #[allow(missing_docs, reason = "as it is typed")]
    Container { name: String, path: Vec<u8> },
}

impl Place {
    /// Reads an argument as Docker does: what is absolute or begins with a dot is local, and so
    /// is what has no colon.
    ///
    /// # Errors
    /// [`CpError::Malformed`].
    pub fn parse(argument: &OsStr) -> Result<Self, CpError> {
        let bytes = argument.as_bytes();
        if bytes == b"-" {
            return Ok(Self::Stdio);
        }
        let local = || Ok(Self::Local(PathBuf::from(argument)));
        if bytes.starts_with(b"/") || bytes.starts_with(b".") {
            return local();
        }
        let Some(colon) = bytes.iter().position(|&byte| byte == b':') else {
            return local();
        };
        let malformed = || CpError::Malformed(argument.to_owned());
        let (name, path) = (&bytes[..colon], &bytes[colon + 1..]);
        let name = std::str::from_utf8(name).map_err(|_| malformed())?;
        if name.is_empty() || path.is_empty() {
            return Err(malformed());
        }
        Ok(Self::Container {
            name: name.to_owned(),
            path: path.to_vec(),
        })
    }
}

/// Which way a copy goes.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields say it themselves")]
pub enum Direction {
    /// Out of a container; without a destination as a tar to standard output.
    Out {
        container: String,
        source: Vec<u8>,
        destination: Option<PathBuf>,
    },
    /// Into a container; without a source as a tar from standard input.
    In {
        source: Option<PathBuf>,
        container: String,
        destination: Vec<u8>,
    },
}

impl Direction {
    /// From the first place to the second.
    ///
    /// # Errors
    /// [`CpError::Usage`]: not just one of them is in a container.
    pub fn of(from: Place, to: Place) -> Result<Self, CpError> {
        match (from, to) {
            (Place::Container { .. }, Place::Container { .. }) => Err(CpError::Usage(
                "copying between containers is not supported",
            )),
            (Place::Container { name, path }, to) => Ok(Self::Out {
                container: name,
                source: path,
                destination: local(to),
            }),
            (from, Place::Container { name, path }) => Ok(Self::In {
                source: local(from),
                container: name,
                destination: path,
            }),
            _ => Err(CpError::Usage(
                "one side of a copy has to be a container's: CONTAINER:PATH",
            )),
        }
    }
}

fn local(place: Place) -> Option<PathBuf> {
    match place {
        Place::Local(path) => Some(path),
        Place::Stdio | Place::Container { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_read_as_docker_reads_them() {
        let parse = |text: &str| Place::parse(OsStr::new(text));
        let container = |name: &str, path: &str| Place::Container {
            name: name.to_owned(),
            path: path.as_bytes().to_vec(),
        };
        for (text, place) in [
            ("-", Place::Stdio),
            ("file", Place::Local("file".into())),
            ("/a:b", Place::Local("/a:b".into())),
            ("./a:b", Place::Local("./a:b".into())),
            ("../a:b", Place::Local("../a:b".into())),
            ("c:/etc/", container("c", "/etc/")),
            ("c:etc:x", container("c", "etc:x")),
            ("c:-", container("c", "-")),
        ] {
            assert_eq!(parse(text).unwrap(), place, "{text}");
        }
        for text in [":/etc", "c:", ":"] {
            assert!(matches!(parse(text), Err(CpError::Malformed(_))), "{text}");
        }
    }

    #[test]
    fn one_side_is_a_container() {
        let of = |from: &str, to: &str| {
            let place = |text| Place::parse(OsStr::new(text)).unwrap();
            Direction::of(place(from), place(to))
        };
        assert!(matches!(
            of("c:/a", "-"),
            Ok(Direction::Out {
                destination: None,
                ..
            })
        ));
        assert!(matches!(
            of("x", "c:/a"),
            Ok(Direction::In {
                source: Some(_),
                ..
            })
        ));
        assert!(of("c:/a", "d:/a").is_err());
        assert!(of("a", "b").is_err());
        assert!(of("-", "-").is_err());
    }
}
