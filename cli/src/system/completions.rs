//! Completion scripts and manual pages, both generated from the command line's definition.

use crate::args::parse::definition;
use crate::args::system::{CompletionArgs, ManArgs, Shell};
use crate::output::failure::{Failure, output_failed};
use clap_complete::generate;
use clap_complete::shells::{Bash, Fish, Zsh};
use std::fs;
use std::io::{self, Write};
use std::path::Path;

const PROGRAM: &str = "hullbox";

/// `completion SHELL`: the script on standard output.
pub(crate) fn completion(args: &CompletionArgs) -> Result<(), Failure> {
    io::stdout()
        .write_all(&script(args.shell))
        .map_err(|error| output_failed(&error))
}

/// `man DIR`: a page for the program and one for each command.
pub(crate) fn man(args: &ManArgs) -> Result<(), Failure> {
    pages(&args.dir).map_err(|error| {
        Failure::of(
            format!("cannot write manual pages into {}", args.dir.display()),
            &error,
        )
    })
}

fn script(shell: Shell) -> Vec<u8> {
    let mut command = definition();
    let mut script = Vec::new();
    match shell {
        Shell::Bash => generate(Bash, &mut command, PROGRAM, &mut script),
        Shell::Zsh => generate(Zsh, &mut command, PROGRAM, &mut script),
        Shell::Fish => generate(Fish, &mut command, PROGRAM, &mut script),
    }
    script
}

fn pages(dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    clap_mangen::generate_to(definition(), dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The names of all commands, those of groups with the group's before theirs.
    fn commands(of: &clap::Command, before: &str, to: &mut Vec<String>) {
        for command in of.get_subcommands() {
            let name = format!("{before}-{}", command.get_name());
            commands(command, &name, to);
            to.push(name);
        }
    }

    fn all() -> Vec<String> {
        let mut names = Vec::new();
        commands(&definition(), PROGRAM, &mut names);
        assert!(names.len() > 60, "{names:?}");
        names
    }

    #[test]
    fn scripts_know_the_commands_and_their_flags() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let script = String::from_utf8(script(shell)).unwrap();
            for name in all() {
                let word = name.rsplit('-').next().unwrap();
                assert!(script.contains(word), "{word} for {shell:?}");
            }
            for flag in ["isolation", "health-interval", "detach-keys"] {
                assert!(script.contains(flag), "{flag} for {shell:?}");
            }
            assert!(!script.contains("__monitor"), "what is hidden stays hidden");
        }
    }

    #[test]
    fn every_command_has_a_page() {
        let dir = tempfile::tempdir().unwrap();
        let into = dir.path().join("new/man1");
        pages(&into).unwrap();
        for name in all().into_iter().chain([PROGRAM.to_owned()]) {
            let page = fs::read_to_string(into.join(format!("{name}.1"))).unwrap();
            assert!(page.contains(".SH SYNOPSIS"), "{name}");
        }
        let run = fs::read_to_string(into.join("hullbox-run.1")).unwrap();
        assert!(run.contains("health\\-interval"), "{run}");
    }
}
