//! What a forwarded command is in the helper machine: the command as it was typed, without the files of the
//! host that the forwarding process writes.

use super::bench::BenchArgs;
use super::command::{Command, ContainerCommand, ImageCommand, LifeCommand};
use super::forwarded::Forwarded;
use super::run::{PullArg, RunArgs};
use super::volume::VolumeCommand;
use std::path::{Path, PathBuf};

/// Takes out of a command what the process that has forwarded it does.
pub(super) fn apply(forwarded: &Forwarded, command: &mut Command) {
    if forwarded.output {
        if let Some(output) = archive(command) {
            *output = None;
        }
        if let Command::Bench(bench) = command {
            record_only(bench);
        }
    }
    match command {
        Command::Bench(bench) => {
            bench.progress = forwarded.progress;
            bench.server_port = forwarded.server_port;
        }
        Command::Volume(VolumeCommand::Create(create)) => {
            create.outside = !forwarded.binds.is_empty();
        }
        command => {
            if let Some(run) = created(command) {
                in_run(forwarded, run);
            }
        }
    }
}

fn in_run(forwarded: &Forwarded, run: &mut RunArgs) {
    if let Some(id) = &forwarded.container_id {
        run.container_id = Some(id.clone());
        run.cidfile = None;
    }
    run.is_fetched_by_caller = forwarded.fetch;
    run.mounts.go_outside(&forwarded.binds);
    if let (Some(image), Some(word)) = (&forwarded.image, run.words.first_mut()) {
        *word = image.into();
        run.pull = PullArg::Never;
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
    use super::*;
    use crate::args::command::Cli;
    use crate::args::parse::parse;
    use std::ffi::OsString;

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
            (
                "save -o oci-archive:out.tar a",
                "save --format oci-archive a",
            ),
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
    fn paths_that_are_mounted_are_the_hosts_outside() {
        let forwarded = Forwarded {
            binds: vec!["/home/me/src".to_owned(), "/etc".to_owned()],
            ..Forwarded::default()
        };
        let line = "run -v ./src:/src:ro -v data:/data --mount type=bind,src=/x,dst=/etc -v /y busybox -v a:b";
        let mut inner = parsed(&forwarded.command_line(&words(line)));
        let run = created(&mut inner.command).unwrap();
        assert!(run.mounts.outside);
        let binds: Vec<_> = run
            .mounts
            .volume
            .iter()
            .filter_map(|flag| flag.bind())
            .collect();
        assert_eq!(binds, ["/home/me/src:/src:ro", "data:/data"]);
        assert_eq!(run.mounts.mount[0].path(), Some("/etc"));
        let mut typed = parsed(&words(line));
        assert!(!created(&mut typed.command).unwrap().mounts.outside);
    }

    #[test]
    fn the_machine_fetches_no_image() {
        let forwarded = Forwarded {
            fetch: true,
            ..Forwarded::default()
        };
        let mut tried = parsed(&forwarded.command_line(&words("run busybox --pull always")));
        let run = created(&mut tried.command).unwrap();
        assert!(run.is_fetched_by_caller && run.words.len() == 3);
        let forwarded = Forwarded {
            image: Some("example.com/busybox:1".to_owned()),
            ..Forwarded::default()
        };
        let mut with = parsed(&forwarded.command_line(&words("run --pull=always busybox true")));
        let run = created(&mut with.command).unwrap();
        assert_eq!(run.words, ["example.com/busybox:1", "true"]);
        assert_eq!(run.pull, PullArg::Never);
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
            server_port: Some(5000),
            ..Forwarded::default()
        };
        let inner = parsed(&forwarded.command_line(&words("bench --html b")));
        assert!(matches!(
            inner.command,
            Command::Bench(BenchArgs {
                progress: true,
                server_port: Some(5000),
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
