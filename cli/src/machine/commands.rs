//! `machine start`, `stop`, `status` and `exec`.

use super::start::{failed, options, progress};
use crate::args::system::MachineCommand;
use crate::output::failure::Failure;
use crate::output::format;
use hullbox_engine::machine::{Machine, MachineConfig, Session, Terminal};
use hullbox_engine::paths::Roots;
use rustix::termios::isatty;
use std::io;
use std::os::fd::AsFd;

/// `machine …`.
pub(crate) fn run(command: MachineCommand) -> Result<u8, Failure> {
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
            format::one(&value, args.format.as_deref(), &plain)?;
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
            let ended = machine.exec(&session, &options, &progress);
            Ok(ended.map_err(failed)?.exit_code())
        }
    }
}
