//! What a forwarded command writes outside the data directory: the machine sees the host's files and
//! cannot write them, so that this process has to.

use super::id_file;
use crate::args::bench::BenchArgs;
use crate::args::command::{Command, ContainerCommand, ImageCommand, LifeCommand};
use crate::args::forwarded::Forwarded;
use crate::args::image::SaveFormat;
use crate::output::failure::Failure;
use crate::output::file::OutputFile;
use crate::system::bench;
use rustix::termios::isatty;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

/// A file of the host that belongs to a command.
pub(super) enum HostFile<'a> {
    /// An archive, to a file or to standard output.
    Archive(Option<&'a Path>),
    /// A benchmark's record, of which this process makes the reports.
    Record(&'a BenchArgs),
    /// The new container's id; `early`: to be written while the command still runs.
    Id { path: &'a Path, early: bool },
}

/// The file that belongs to this command, if any.
///
/// # Errors
/// It cannot be written from here at all.
pub(super) fn of(command: &Command) -> Result<Option<HostFile<'_>>, Failure> {
    match command {
        Command::Life(LifeCommand::Run(args))
        | Command::Container(ContainerCommand::Life(LifeCommand::Run(args))) => {
            Ok(id(args.cidfile(), !args.detach))
        }
        Command::Life(LifeCommand::Create(args))
        | Command::Container(ContainerCommand::Life(LifeCommand::Create(args))) => {
            Ok(id(args.cidfile(), false))
        }
        Command::Life(LifeCommand::Export(args))
        | Command::Container(ContainerCommand::Life(LifeCommand::Export(args))) => {
            Ok(Some(HostFile::Archive(args.output.as_deref())))
        }
        Command::Save(args) | Command::Image(ImageCommand::Save(args)) => {
            if args.format == SaveFormat::OciDir || args.place().is_some() {
                return Err(Failure::new(
                    "the helper machine cannot write directories of this host",
                )
                .with_hint("use --format=oci-archive"));
            }
            Ok(Some(HostFile::Archive(args.output.as_deref())))
        }
        Command::Bench(args) => Ok(Some(HostFile::Record(args))),
        _ => Ok(None),
    }
}

fn id(path: Option<&Path>, early: bool) -> Option<HostFile<'_>> {
    path.map(|path| HostFile::Id { path, early })
}

impl HostFile<'_> {
    /// Runs the command in the machine with `run`, and writes the file here.
    ///
    /// # Errors
    /// Of `run`, or the file cannot be written.
    pub(super) fn run(
        self,
        run: impl FnOnce(&Forwarded) -> Result<u8, Failure>,
    ) -> Result<u8, Failure> {
        match self {
            Self::Archive(path) => write_archive(path, run),
            Self::Record(args) => {
                let mut forwarded = Forwarded {
                    output: true,
                    progress: isatty(io::stderr().as_fd()),
                    ..Forwarded::default()
                };
                bench::forwarded(args, |server_port| {
                    forwarded.server_port = server_port;
                    run(&forwarded)
                })
            }
            Self::Id { path, early } => id_file::write(path, early, run),
        }
    }
}

/// The command writes to its standard output, which is the file that this process has opened.
fn write_archive(
    path: Option<&Path>,
    run: impl FnOnce(&Forwarded) -> Result<u8, Failure>,
) -> Result<u8, Failure> {
    let output = OutputFile::open(path)?;
    let forwarded = Forwarded {
        output: true,
        ..Forwarded::default()
    };
    if path.is_some() {
        output.become_stdout()?;
    }
    let code = run(&forwarded)?;
    if code == 0 {
        output.keep()?;
    }
    Ok(code)
}
