//! From the first instruction to the exit code.

use crate::app::{Cli, Command, ImageCommand};
use crate::failure::{Failure, report};
use crate::{containers, forward, image_store, images, inspect, run, system, usage};
use hullbox_engine::timing::Timing;
use hullbox_engine::{machine, monitor};
use std::ffi::OsString;
use std::process::ExitCode;

pub(crate) fn main() -> ExitCode {
    let timing = Timing::from_env();
    let args: Vec<OsString> = std::env::args_os().collect();
    match args.get(1).and_then(|arg| arg.to_str()) {
        Some(monitor::ENTRY) => return monitor_main(),
        Some(machine::HIDDEN_COMMAND) => return machine::hidden(&args[2..]),
        _ => {}
    }
    let done = usage::parse(&args).and_then(|cli| dispatch(cli, timing, &args[1..]));
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
    let _direct = match forward::decide(&cli.command, args)? {
        forward::Decision::Forwarded(code) => return Ok(code),
        forward::Decision::Direct(lock) => lock,
    };
    match cli.command {
        Command::Run(args) => return run::run(*args, debug, timing),
        Command::Load(args) | Command::Image(ImageCommand::Load(args)) => images::load(&args),
        Command::Import(args) | Command::Image(ImageCommand::Import(args)) => images::import(&args),
        Command::Save(args) | Command::Image(ImageCommand::Save(args)) => image_store::save(&args),
        Command::History(args) | Command::Image(ImageCommand::History(args)) => {
            image_store::history(&args)
        }
        Command::Image(ImageCommand::Prune(args)) => image_store::prune(&args),
        Command::Images(args) | Command::Image(ImageCommand::Ls(args)) => images::list(&args),
        Command::Rmi(args) | Command::Image(ImageCommand::Rm(args)) => images::remove(&args),
        Command::Tag(args) | Command::Image(ImageCommand::Tag(args)) => images::tag(&args),
        Command::Image(ImageCommand::Inspect(args)) => {
            inspect::inspect(&args, inspect::Kind::Image)
        }
        Command::Inspect(args) => {
            let kind = args.kind.unwrap_or(inspect::Kind::Any);
            inspect::inspect(&args, kind)
        }
        Command::Ps(args) => containers::list(&args),
        Command::Rm(args) => containers::remove(&args),
        Command::Container(command) => containers::group(command, debug, timing),
        Command::Machine(command) => return system::machine(command),
        Command::Doctor(args) => return system::doctor(&args),
        Command::Info(args) => system::info(&args),
        Command::Version(args) => system::version(&args),
    }?;
    Ok(0)
}
