//! Which commands the helper machine runs instead of this process, and the machine's own commands.

use crate::app::{
    Command, ContainerCommand, ImageCommand, LifeCommand, LoadArgs, MachineCommand, SystemCommand,
};
use crate::bench::{self, BenchArgs};
use crate::failure::Failure;
use crate::image_args::SaveFormat;
use crate::output_file::{OutputFile, without_flag};
use crate::{cidfile, exec, files, output, run};
use hullbox_engine::artifacts::{self, Artifact};
use hullbox_engine::machine::{
    self, AgentSource, DataLock, Machine, MachineConfig, MachineError, Route, Session,
    StartOptions, Terminal, hold_directly,
};
use hullbox_engine::paths::Roots;
use rustix::termios::isatty;
use std::ffi::OsString;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::Path;

/// What a command does with our standard streams.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Streams {
    /// It reads standard input.
    pub(crate) stdin: bool,
    /// It wants a terminal (`-t`).
    pub(crate) terminal: bool,
}

/// Who runs the command.
pub(crate) enum Decision {
    /// The machine has run it, and this is its exit code.
    Forwarded(u8),
    /// This process. While the lock is held, no machine takes the data directory.
    Direct(Option<DataLock>),
}

/// Runs the command in the helper machine if the policy says so.
pub(crate) fn decide(command: &Command, args: &[OsString]) -> Result<Decision, Failure> {
    match touches_data(command) {
        Some(streams) => route(streams, host_file(command), args),
        None => Ok(Decision::Direct(None)),
    }
}

/// The same for a hidden command that looks into a container.
pub(crate) fn decide_hidden(args: &[OsString]) -> Result<Decision, Failure> {
    route(Streams::default(), Ok(None), args)
}

fn route(
    streams: Streams,
    host_file: Result<Option<HostFile<'_>>, Failure>,
    args: &[OsString],
) -> Result<Decision, Failure> {
    let config = MachineConfig::load()?;
    let roots = Roots::from_env()?;
    let machine = Machine::new(&roots);
    if let Route::Machine(reason) = machine::route(&config, &roots) {
        let run = |args: &[OsString]| {
            forward_to(&machine, &roots, config, args, streams, reason.as_deref())
        };
        let code = match host_file? {
            Some(HostFile::Archive(path)) => with_output(path, args, run)?,
            Some(HostFile::Record(bench)) => bench::forwarded(bench, args, run)?,
            Some(HostFile::Id { path, early }) => cidfile::forwarded(path, early, args, run)?,
            None => run(args)?,
        };
        return Ok(Decision::Forwarded(code));
    }
    roots.create()?;
    match hold_directly(&roots.data)? {
        Some(lock) => Ok(Decision::Direct(Some(lock))),
        None => Err(Failure::new(format!(
            "the helper machine is using the data directory {}",
            roots.data.display()
        ))
        .with_hint("let it run the command (HULLBOX_MACHINE=auto), or 'hullbox machine stop'")),
    }
}

fn forward_to(
    machine: &Machine,
    roots: &Roots,
    config: MachineConfig,
    args: &[OsString],
    streams: Streams,
    reason: Option<&str>,
) -> Result<u8, Failure> {
    let options = options(roots, config)?;
    let progress = |text: &str| match reason {
        Some(reason) => progress(&format!("{text}, because {reason}")),
        None => progress(text),
    };
    machine
        .forward_self(args, (streams.stdin, streams.terminal), &options, &progress)
        .map_err(failed)
}

/// What a forwarded command writes outside the data directory: the machine only reads the host's
/// files, so that this process has to.
enum HostFile<'a> {
    /// An archive, to a file or to standard output.
    Archive(Option<&'a Path>),
    /// A benchmark's record, of which this process makes the reports.
    Record(&'a BenchArgs),
    /// The new container's id, perhaps while the command still runs.
    Id { path: &'a Path, early: bool },
}

fn id_file(path: Option<&Path>, early: bool) -> Option<HostFile<'_>> {
    path.map(|path| HostFile::Id { path, early })
}

fn host_file(command: &Command) -> Result<Option<HostFile<'_>>, Failure> {
    match command {
        Command::Life(LifeCommand::Run(args))
        | Command::Container(ContainerCommand::Life(LifeCommand::Run(args))) => {
            Ok(id_file(args.cidfile.as_deref(), !args.detach))
        }
        Command::Life(LifeCommand::Create(args))
        | Command::Container(ContainerCommand::Life(LifeCommand::Create(args))) => {
            Ok(id_file(args.cidfile.as_deref(), false))
        }
        Command::Life(LifeCommand::Export(args))
        | Command::Container(ContainerCommand::Life(LifeCommand::Export(args))) => {
            Ok(Some(HostFile::Archive(args.output.as_deref())))
        }
        Command::Save(args) | Command::Image(ImageCommand::Save(args)) => {
            if args.format == SaveFormat::OciDir {
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

/// Runs a forwarded command whose archive this process opens.
fn with_output(
    path: Option<&Path>,
    args: &[OsString],
    run: impl FnOnce(&[OsString]) -> Result<u8, Failure>,
) -> Result<u8, Failure> {
    let output = OutputFile::open(path)?;
    let Some(path) = path else {
        return run(args);
    };
    output.become_stdout()?;
    let code = run(&without_flag(args, path.as_os_str()))?;
    if code == 0 {
        output.keep()?;
    }
    Ok(code)
}

fn failed(error: MachineError) -> Failure {
    let code = match &error {
        MachineError::Forward(error) => error.exit_code(),
        _ => None,
    };
    let failure = Failure::from(error);
    match code {
        Some(code) => failure.with_code(code),
        None => failure,
    }
}

fn options(roots: &Roots, config: MachineConfig) -> Result<StartOptions, Failure> {
    let initramfs = artifacts::path(Artifact::Initramfs, &roots.data)?;
    Ok(StartOptions {
        config,
        agent: AgentSource::Initramfs(initramfs),
    })
}

/// One line when something takes a while.
fn progress(text: &str) {
    // Nobody to tell of failing to tell.
    let _ = writeln!(io::stderr(), "hullbox: {text}");
}

/// Commands that read or change the data directory, and what they do with our streams.
fn touches_data(command: &Command) -> Option<Streams> {
    let loads = |args: &LoadArgs| Streams {
        stdin: args.input.is_none(),
        terminal: false,
    };
    let imports = |source: &std::path::Path| Streams {
        stdin: source.as_os_str() == "-",
        terminal: false,
    };
    let asks = |force: bool| Streams {
        stdin: !force,
        terminal: false,
    };
    match command {
        Command::Life(command) | Command::Container(ContainerCommand::Life(command)) => {
            life_touches_data(command)
        }
        Command::Load(args) | Command::Image(ImageCommand::Load(args)) => Some(loads(args)),
        Command::Import(args) | Command::Image(ImageCommand::Import(args)) => {
            Some(imports(&args.source))
        }
        Command::Image(ImageCommand::Prune(args)) => Some(asks(args.force)),
        Command::Container(ContainerCommand::Prune(args))
        | Command::System(SystemCommand::Prune(args)) => Some(asks(args.force)),
        Command::Machine(_)
        | Command::Doctor(_)
        | Command::Version(_)
        | Command::Completion(_)
        | Command::Man(_) => None,
        _ => Some(Streams::default()),
    }
}

fn life_touches_data(command: &LifeCommand) -> Option<Streams> {
    match command {
        LifeCommand::Run(args) => Some(run::wants(args)),
        LifeCommand::Exec(args) => Some(exec::wants(args)),
        // Whether it has a terminal is known to the container's record only.
        LifeCommand::Attach(args) => Some(joins(!args.no_stdin)),
        LifeCommand::Start(args) => Some(joins(args.interactive)),
        // The half of it that is ours reads and writes the host's files.
        LifeCommand::Cp(args) if !files::is_stream(args) => None,
        LifeCommand::Cp(args) => Some(Streams {
            stdin: args.from == "-",
            terminal: false,
        }),
        _ => Some(Streams::default()),
    }
}

/// A command that joins a container's streams: with our terminal, if we have one.
fn joins(stdin: bool) -> Streams {
    Streams {
        stdin,
        terminal: stdin && isatty(io::stdin().as_fd()),
    }
}

/// `machine …`.
pub(crate) fn machine(command: MachineCommand) -> Result<u8, Failure> {
    let roots = Roots::from_env()?;
    let machine = Machine::new(&roots);
    match command {
        MachineCommand::Start => {
            roots.create()?;
            let options = options(&roots, MachineConfig::load()?)?;
            machine.start(&options, &progress).map_err(failed)?;
            Ok(0)
        }
        MachineCommand::Stop => {
            machine.stop().map_err(failed)?;
            Ok(0)
        }
        MachineCommand::Status(args) => {
            let status = machine.status();
            let value = serde_json::to_value(&status)?;
            let mut plain = String::new();
            if let Some(fields) = value.as_object() {
                for (name, value) in fields.iter().filter(|(_, value)| !value.is_null()) {
                    let text = value
                        .as_str()
                        .map_or_else(|| value.to_string(), str::to_owned);
                    plain.push_str(&format!("{name}: {text}\n"));
                }
            }
            output::one(&value, args.format.as_deref(), &plain)?;
            Ok(0)
        }
        MachineCommand::Exec(args) => {
            roots.create()?;
            let options = options(&roots, MachineConfig::load()?)?;
            let session = Session {
                argv: args.argv,
                env: machine.environment(),
                stdin: true,
                terminal: if isatty(io::stdin().as_fd()) {
                    Terminal::Interactive
                } else {
                    Terminal::No
                },
            };
            machine.exec(&session, &options, &progress).map_err(failed)
        }
    }
}
