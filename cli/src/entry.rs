//! From the first instruction to the exit code.

use crate::app::{Cli, Command, ContainerCommand, ImageCommand, SystemCommand};
use crate::failure::{Failure, report};
use crate::{
    completions, containers, exec, files, forward, housekeeping, image_store, images, inspect,
    lifecycle, logs, run, system, usage, watch,
};
use hullbox_engine::timing::Timing;
use hullbox_engine::{machine, monitor};
use std::ffi::OsString;
use std::process::ExitCode;

pub(crate) fn main() -> ExitCode {
    let timing = Timing::from_env();
    let args: Vec<OsString> = std::env::args_os().collect();
    match args.get(1).and_then(|arg| arg.to_str()) {
        Some(monitor::ENTRY) => return monitor_main(),
        Some(files::STAT) => return hidden_stat(&args),
        Some(machine::HIDDEN_COMMAND) => return machine::hidden(&args[2..]),
        _ => {}
    }
    let done = usage::parse(&args).and_then(|cli| dispatch(cli, timing, &args[1..]));
    match done {
        Ok(code) => ExitCode::from(code),
        Err(failure) => report(&failure),
    }
}

/// The container's half of `cp` looks at a path: see [`files::cp`].
fn hidden_stat(args: &[OsString]) -> ExitCode {
    let done = forward::decide_hidden(&args[1..]).and_then(|decision| match decision {
        forward::Decision::Forwarded(code) => Ok(code),
        forward::Decision::Direct(_lock) => files::stat_command(&args[2..]),
    });
    match done {
        Ok(code) => ExitCode::from(code),
        Err(failure) => report(&failure),
    }
}

fn monitor_main() -> ExitCode {
    match monitor::main() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => report(&Failure::of("the monitor failed", &error)),
    }
}

fn dispatch(cli: Cli, timing: Timing, args: &[OsString]) -> Result<u8, Failure> {
    timing.mark("arguments parsed");
    let debug = cli.debug
        || std::env::var_os("HULLBOX_DEBUG")
            .is_some_and(|value| !value.is_empty() && value != *"0");
    // Held to the end: while it is, no helper machine takes the data directory.
    let command = cli.command.flat();
    let _direct = match forward::decide(&command, args)? {
        forward::Decision::Forwarded(code) => return Ok(code),
        forward::Decision::Direct(lock) => lock,
    };
    match command {
        Command::Run(args) => return run::run(*args, debug, timing),
        Command::Create(args) => run::create(*args),
        Command::Start(args) => return lifecycle::start(args, debug, timing),
        Command::Stop(args) => lifecycle::stop(&args),
        Command::Restart(args) => lifecycle::restart(&args, debug),
        Command::Kill(args) => lifecycle::kill(&args),
        Command::Pause(args) => lifecycle::pause(&args, true),
        Command::Unpause(args) => lifecycle::pause(&args, false),
        Command::Wait(args) => lifecycle::wait(&args),
        Command::Rename(args) => lifecycle::rename(&args),
        Command::Update(args) => lifecycle::update(&args),
        Command::Exec(args) => return exec::exec(args),
        Command::Attach(args) => return exec::attach(args),
        Command::Logs(args) => logs::logs(&args),
        Command::Top(args) => watch::top(&args),
        Command::Stats(args) => watch::stats(&args),
        Command::Cp(args) => return files::cp(&args),
        Command::Diff(args) => files::diff(&args),
        Command::Export(args) => files::export(&args),
        Command::Commit(args) => files::commit(args),
        Command::Ps(args) => containers::list(&args),
        Command::Rm(args) => containers::remove(&args),
        Command::Load(args) => images::load(&args),
        Command::Import(args) => images::import(&args),
        Command::Images(args) => images::list(&args),
        Command::Rmi(args) => images::remove(&args),
        Command::Tag(args) => images::tag(&args),
        Command::Save(args) => image_store::save(&args),
        Command::History(args) => image_store::history(&args),
        Command::Inspect(args) => {
            let kind = args.kind.unwrap_or(inspect::Kind::Any);
            inspect::inspect(&args, kind)
        }
        Command::Image(ImageCommand::Prune(args)) => image_store::prune(&args),
        Command::Image(_) => Ok(()),
        Command::Container(ContainerCommand::Prune(args)) => lifecycle::prune(&args),
        Command::Container(_) => Ok(()),
        Command::Events(args) => watch::events(&args),
        Command::System(SystemCommand::Df(args)) => housekeeping::df(&args),
        Command::System(SystemCommand::Check(args)) => return housekeeping::check(&args),
        Command::System(SystemCommand::Prune(args)) => housekeeping::prune(&args),
        Command::System(_) => Ok(()),
        Command::Machine(command) => return system::machine(command),
        Command::Doctor(args) => return system::doctor(&args),
        Command::Info(args) => system::info(&args),
        Command::Version(args) => system::version(&args),
        Command::Completion(args) => completions::completion(&args),
        Command::Man(args) => completions::man(&args),
    }?;
    Ok(0)
}
