//! From the first instruction to the exit code.

use crate::args::command::{
    Cli, Command, ContainerCommand, ImageCommand, LifeCommand, SystemCommand,
};
use crate::args::parse::parse;
use crate::args::registry::ManifestCommand;
use crate::args::system::Kind;
use crate::containers::{cp, exec, files, lifecycle, logs, ports, run, snapshots, stats, top};
use crate::machine::forward::{self, Decision};
use crate::output::failure::{FAILED, Failure, RUN_FAILED, report};
use crate::system::{bench, completions, egress, events, housekeeping, info, inspect, templates};
use crate::{containers, images, machine, networks, registry, volumes};
use hullbox_engine::files as file_server;
use hullbox_engine::machine::{HIDDEN_COMMAND, hidden};
use hullbox_engine::timing::Zero;
use hullbox_engine::{backends, monitor, netproc};
use std::ffi::OsString;
use std::process::ExitCode;

pub(crate) fn main() -> ExitCode {
    let zero = Zero::now();
    let args: Vec<OsString> = std::env::args_os().collect();
    match args.get(1).and_then(|arg| arg.to_str()) {
        Some(monitor::ENTRY) => return monitor_main(),
        Some(hullbox_engine::templates::ENTRY) => return template_main(&args[2..]),
        Some(netproc::ENTRY) => return netproc::main(&args[2..]),
        Some(file_server::ENTRY) => return file_server::main(&args[2..]),
        Some(cp::STAT) => return hidden_stat(&args),
        Some(registry::store::ENTRY) => return hidden_images(&args),
        Some(HIDDEN_COMMAND) => return hidden(&args[2..]),
        _ => {}
    }
    let done = parse(&args).and_then(|cli| {
        let failed = failure_code(&cli.command);
        dispatch(cli, zero, &args[1..]).map_err(|failure| failure.or_code(failed))
    });
    match done {
        Ok(code) => ExitCode::from(code),
        Err(failure) => report(&failure),
    }
}

/// The exit code of a command that fails itself, as in Docker.
const fn failure_code(command: &Command) -> u8 {
    match command {
        Command::Life(LifeCommand::Run(_))
        | Command::Container(ContainerCommand::Life(LifeCommand::Run(_))) => RUN_FAILED,
        _ => FAILED,
    }
}

/// The container's half of `cp` looks at a path: see [`cp::cp`].
fn hidden_stat(args: &[OsString]) -> ExitCode {
    let done = forward::decide_hidden(&args[1..]).and_then(|decision| match decision {
        Decision::Forwarded(code) => Ok(code),
        Decision::Direct(_lock) => cp::stat_command(&args[2..]),
    });
    match done {
        Ok(code) => ExitCode::from(code),
        Err(failure) => report(&failure),
    }
}

/// The store's side of a transfer: see [`registry::store`].
fn hidden_images(args: &[OsString]) -> ExitCode {
    let done = forward::decide_hidden_with_input(&args[1..]).and_then(|decision| match decision {
        Decision::Forwarded(code) => Ok(code),
        Decision::Direct(_lock) => registry::store::serve(),
    });
    match done {
        Ok(code) => ExitCode::from(code),
        Err(failure) => report(&failure),
    }
}

fn monitor_main() -> ExitCode {
    match backends::run_monitor() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => report(&Failure::of("the monitor failed", &error)),
    }
}

fn template_main(arguments: &[OsString]) -> ExitCode {
    match hullbox_engine::templates::main(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => report(&Failure::of("cannot make a template", &error)),
    }
}

fn dispatch(cli: Cli, zero: Zero, args: &[OsString]) -> Result<u8, Failure> {
    let debug = cli.debug
        || std::env::var_os("HULLBOX_DEBUG")
            .is_some_and(|value| !value.is_empty() && value != *"0");
    // Held to the end: while it is, no helper machine takes the data directory.
    let command = cli.command;
    let _direct = match forward::decide(&command, args)? {
        Decision::Forwarded(code) => return Ok(code),
        Decision::Direct(lock) => lock,
    };
    match command {
        Command::Life(command) | Command::Container(ContainerCommand::Life(command)) => {
            return life(command, debug, zero);
        }
        Command::Ps(args) | Command::Container(ContainerCommand::Ls(args)) => {
            containers::list::list(&args)
        }
        Command::Rm(args) | Command::Container(ContainerCommand::Rm(args)) => {
            containers::list::remove(&args)
        }
        Command::Container(ContainerCommand::Inspect(args)) => {
            inspect::inspect(&args, Kind::Container)
        }
        Command::Container(ContainerCommand::Prune(args)) => containers::prune::prune(&args),
        Command::Inspect(args) => inspect::inspect(&args, args.kind.unwrap_or(Kind::Any)),
        Command::Pull(args) => registry::pull::pull(&args),
        Command::Push(args) => registry::push::push(&args),
        Command::Login(args) => registry::login::login(args),
        Command::Logout(args) => registry::login::logout(&args),
        Command::Manifest(ManifestCommand::Inspect(args)) => registry::copy::inspect(&args),
        Command::Load(args) => images::load::load(&args),
        Command::Import(args) => images::load::import(&args),
        Command::Images(args) => images::list::list(&args),
        Command::Rmi(args) => images::list::remove(&args),
        Command::Tag(args) => images::tag::tag(&args),
        Command::Save(args) => images::save::save(&args),
        Command::History(args) => images::history::history(&args),
        Command::Image(command) => image(command),
        Command::Network(command) => networks::network(command),
        Command::Volume(command) => volumes::volume(command),
        Command::Events(args) | Command::System(SystemCommand::Events(args)) => {
            events::events(&args)
        }
        Command::Info(args) | Command::System(SystemCommand::Info(args)) => info::info(&args),
        Command::System(SystemCommand::Df(args)) => housekeeping::df(&args),
        Command::System(SystemCommand::Check(args)) => return housekeeping::check(&args),
        Command::System(SystemCommand::Prune(args)) => housekeeping::prune(&args),
        Command::Template(command) => templates::template(&command),
        Command::Snapshot(command) => snapshots::snapshot(&command),
        Command::Egress(command) => return egress::egress(&command),
        Command::Machine(command) => return machine::commands::run(command),
        Command::Bench(args) => return bench::bench(&args),
        Command::Doctor(args) => return info::doctor(&args),
        Command::Version(args) => info::version(&args),
        Command::Completion(args) => completions::completion(&args),
        Command::Man(args) => completions::man(&args),
    }?;
    Ok(0)
}

fn life(command: LifeCommand, debug: bool, zero: Zero) -> Result<u8, Failure> {
    match command {
        LifeCommand::Run(args) => return run::run(*args, debug, zero),
        LifeCommand::Create(args) => run::create(*args),
        LifeCommand::Start(args) => return lifecycle::start(args, debug, zero),
        LifeCommand::Stop(args) => lifecycle::stop(&args),
        LifeCommand::Restart(args) => lifecycle::restart(&args, debug),
        LifeCommand::Kill(args) => lifecycle::kill(&args),
        LifeCommand::Pause(args) => lifecycle::pause(&args, true),
        LifeCommand::Unpause(args) => lifecycle::pause(&args, false),
        LifeCommand::Wait(args) => lifecycle::wait(&args),
        LifeCommand::Rename(args) => lifecycle::rename(&args),
        LifeCommand::Update(args) => lifecycle::update(&args),
        LifeCommand::Exec(args) => return exec::exec(args, zero),
        LifeCommand::Attach(args) => return exec::attach(args),
        LifeCommand::Logs(args) => logs::logs(&args),
        LifeCommand::Port(args) => ports::port(&args),
        LifeCommand::Top(args) => top::top(&args),
        LifeCommand::Stats(args) => stats::stats(&args),
        LifeCommand::Cp(args) => return cp::cp(&args),
        LifeCommand::Diff(args) => files::diff(&args),
        LifeCommand::Export(args) => files::export(&args),
        LifeCommand::Commit(args) => files::commit(args),
    }?;
    Ok(0)
}

fn image(command: ImageCommand) -> Result<(), Failure> {
    match command {
        ImageCommand::Pull(args) => registry::pull::pull(&args),
        ImageCommand::Push(args) => registry::push::push(&args),
        ImageCommand::Copy(args) => registry::copy::copy(&args),
        ImageCommand::Ls(args) => images::list::list(&args),
        ImageCommand::Rm(args) => images::list::remove(&args),
        ImageCommand::Load(args) => images::load::load(&args),
        ImageCommand::Import(args) => images::load::import(&args),
        ImageCommand::Tag(args) => images::tag::tag(&args),
        ImageCommand::Save(args) => images::save::save(&args),
        ImageCommand::History(args) => images::history::history(&args),
        ImageCommand::Prune(args) => images::prune::prune(&args),
        ImageCommand::Inspect(args) => inspect::inspect(&args, Kind::Image),
    }
}
