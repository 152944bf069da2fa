//! What a command that is forwarded to the helper machine leaves to the process that forwards it.
//!
//! The machine sees the host's files and cannot write them, so the forwarding process writes them
//! itself. It says so in flags of its own in front of the command, whose words it passes on as they
//! were typed: what of them is not for the machine is decided here, from the parsed command.

use super::bench::BenchArgs;
use super::command::{Command, ContainerCommand, ImageCommand, LifeCommand};
use super::run::RunArgs;
use clap::Args;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

const OUTPUT: &str = "forwarded-output";
const CONTAINER_ID: &str = "forwarded-container-id";
const PROGRESS: &str = "forwarded-progress";

/// The flags of a forwarding process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub(crate) struct Forwarded {
    /// The output file is standard output
    #[arg(long = OUTPUT, hide = true)]
    pub(crate) output: bool,
    /// The id of the container that is created, of which no file is written here
    #[arg(
        long = CONTAINER_ID,
        hide = true,
        value_name = "ID",
        value_parser = hullbox_engine::state::parse_id
    )]
    pub(crate) container_id: Option<String>,
    /// Progress is shown though standard error is no terminal
    #[arg(long = PROGRESS, hide = true)]
    pub(crate) progress: bool,
}

impl Forwarded {
    /// The command line `args`, without the program's name, with these flags in front.
    pub(crate) fn command_line(&self, args: &[OsString]) -> Vec<OsString> {
        let switch = |name: &str, on: bool| on.then(|| format!("--{name}"));
        let id = self.container_id.as_ref();
        let flags = [
            switch(OUTPUT, self.output),
            switch(PROGRESS, self.progress),
            id.map(|id| format!("--{CONTAINER_ID}={id}")),
        ];
        let flags = flags.into_iter().flatten().map(OsString::from);
        flags.chain(args.iter().cloned()).collect()
    }

    /// Takes out of the command what the forwarding process does.
    pub(super) fn apply(&self, command: &mut Command) {
        if self.output {
            if let Some(output) = archive(command) {
                *output = None;
            }
            if let Command::Bench(bench) = command {
                record_only(bench);
            }
        }
        match command {
            Command::Bench(bench) => bench.progress = self.progress,
            command => {
                if let (Some(id), Some(run)) = (&self.container_id, created(command)) {
                    run.container_id = Some(id.clone());
                    run.cidfile = None;
                }
            }
        }
    }
}

/// The record goes to standard output, and nothing to files.
fn record_only(bench: &mut BenchArgs) {
    bench.json = Some(Path::new("-").to_owned());
    bench.html = None;
}

/// The file of a command that writes an archive.
fn archive(command: &mut Command) -> Option<&mut Option<PathBuf>> {
    match command {
        Command::Save(args) | Command::Image(ImageCommand::Save(args)) => Some(&mut args.output),
        Command::Life(LifeCommand::Export(args))
        | Command::Container(ContainerCommand::Life(LifeCommand::Export(args))) => {
            Some(&mut args.output)
        }
        _ => None,
    }
}

/// The flags of a command that creates a container.
fn created(command: &mut Command) -> Option<&mut RunArgs> {
    match command {
        Command::Life(LifeCommand::Run(args) | LifeCommand::Create(args))
        | Command::Container(ContainerCommand::Life(
            LifeCommand::Run(args) | LifeCommand::Create(args),
        )) => Some(args),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::command::Cli;
    use super::super::parse::parse;
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    fn parsed(args: &[OsString]) -> Cli {
        let program = [OsString::from("hullbox")];
        parse(&[&program, args].concat()).unwrap()
    }

    /// What the machine makes of a line that was forwarded with `forwarded`: the command without
    /// what the forwarding process does, which is what it makes of `rest`.
    fn assert_forwarded(forwarded: &Forwarded, line: &str, rest: &str) {
        let inner = parsed(&forwarded.command_line(&words(line)));
        assert_eq!(&inner.forwarded, forwarded, "{line}");
        let expected = parsed(&words(rest));
        assert_eq!(
            format!("{:?}", inner.command),
            format!("{:?}", expected.command),
            "{line}"
        );
    }

    #[test]
    fn the_output_file_is_not_the_machines_however_it_was_typed() {
        let forwarded = Forwarded {
            output: true,
            ..Forwarded::default()
        };
        for (line, rest) in [
            ("save -o out.tar debian", "save debian"),
            ("save -oout.tar debian", "save debian"),
            ("save -o=out.tar debian", "save debian"),
            ("save --output out.tar debian", "save debian"),
            ("save --output=out.tar debian", "save debian"),
            ("save debian -o out.tar", "save debian"),
            ("save debian", "save debian"),
            (
                "save --format oci-archive -o out.tar a out.tar",
                "save --format oci-archive a out.tar",
            ),
            ("save -o out.tar -- -o", "save -- -o"),
            ("image save -o out.tar debian", "image save debian"),
            ("export -o save save", "export save"),
            ("export --output=out.tar box", "export box"),
            ("container export -oout.tar box", "container export box"),
            ("--debug export -o out.tar box", "--debug export box"),
            // Combined with other short flags, of which these commands have none but the global one.
            ("export box --debug -oout.tar", "export box --debug"),
        ] {
            assert_forwarded(&forwarded, line, rest);
        }
    }

    #[test]
    fn words_behind_the_image_are_the_containers() {
        let id = "1a".repeat(32);
        let forwarded = Forwarded {
            container_id: Some(id.clone()),
            ..Forwarded::default()
        };
        for (line, words) in [
            ("run -d --cidfile f busybox x --cidfile f", 4),
            ("run -dit --cidfile=f busybox", 1),
            ("create --cidfile=f --name f busybox", 1),
            ("container run --cidfile f -e --cidfile=f busybox", 1),
            ("container create --cidfile f busybox --cidfile=f", 2),
        ] {
            let mut inner = parsed(&forwarded.command_line(&self::words(line)));
            let args = created(&mut inner.command).unwrap();
            assert_eq!(args.container_id.as_deref(), Some(&*id), "{line}");
            assert_eq!(args.cidfile, None, "{line}");
            assert_eq!(args.words.len(), words, "{line}");
        }
    }

    #[test]
    fn the_machine_writes_no_reports() {
        let forwarded = Forwarded {
            output: true,
            ..Forwarded::default()
        };
        assert_forwarded(
            &forwarded,
            "bench --json a.json --rounds 3 --html=b --probe exec --peer=crun",
            "bench --rounds 3 --probe exec --peer=crun --json=-",
        );
        let forwarded = Forwarded {
            output: true,
            progress: true,
            ..Forwarded::default()
        };
        let inner = parsed(&forwarded.command_line(&words("bench --html b")));
        assert!(matches!(
            inner.command,
            Command::Bench(BenchArgs {
                progress: true,
                html: None,
                ..
            })
        ));
    }

    #[test]
    fn nothing_is_taken_out_of_a_command_that_was_not_forwarded() {
        let mut typed = parsed(&words("save -o out.tar debian"));
        assert_eq!(
            archive(&mut typed.command),
            Some(&mut Some("out.tar".into()))
        );
        let mut typed = parsed(&words("run --cidfile f busybox"));
        let run = created(&mut typed.command).unwrap();
        assert_eq!(
            (run.cidfile.clone(), &run.container_id),
            (Some("f".into()), &None)
        );
    }
}
