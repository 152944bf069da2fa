//! Parsing the command line, and one clear line for what does not parse.

use super::command::{Cli, Command, FrequentCli, ImageCommand};
use super::{bool_flag, in_machine};
use crate::output::failure::{FAILED, Failure, RUN_FAILED, output_failed};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, FromArgMatches};
use std::error::Error as _;
use std::ffi::OsString;
use std::io::Write;
use std::num::ParseIntError;

/// Docker's flags of `run` that are not supported yet, which an error distinguishes from flags that
/// do not exist.
const NOT_YET: [&str; 32] = [
    "attach",
    "annotation",
    "blkio-weight",
    "blkio-weight-device",
    "cgroup-parent",
    "cpu-period",
    "cpu-quota",
    "cpu-rt-period",
    "cpu-rt-runtime",
    "cpu-shares",
    "cpuset-cpus",
    "cpuset-mems",
    "device-read-bps",
    "device-read-iops",
    "device-write-bps",
    "device-write-iops",
    "disable-content-trust",
    "domainname",
    "gpus",
    "ipc",
    "kernel-memory",
    "link",
    "link-local-ip",
    "memory-reservation",
    "memory-swap",
    "memory-swappiness",
    "oom-kill-disable",
    "oom-score-adj",
    "pid",
    "runtime",
    "userns",
    "uts",
];

/// The same by their short names.
const NOT_YET_SHORT: [(&str, &str); 2] = [("-a", "attach"), ("-c", "cpu-shares")];

/// The whole command line's definition.
pub(crate) fn definition() -> clap::Command {
    with_docker_values(Cli::command())
}

/// Parses a command line, the program's name in front.
///
/// # Errors
/// It does not parse, or asks for help, which is printed already then.
pub(crate) fn parse(args: &[OsString]) -> Result<Cli, Failure> {
    let mut cli = match frequent(args) {
        Some(cli) => cli,
        None => definition()
            .try_get_matches_from(args)
            .and_then(|matches| Cli::from_arg_matches(&matches))
            .map_err(|error| failure(&error, args))?,
    };
    if let Command::Save(args) | Command::Image(ImageCommand::Save(args)) = &mut cli.command {
        args.settle();
    }
    in_machine::apply(&cli.forwarded, &mut cli.command);
    Ok(cli)
}

/// Parses a frequent command without the definitions of all others. `None` is left to the whole
/// definition: another command, a question for help, or what does not parse.
fn frequent(args: &[OsString]) -> Option<Cli> {
    if !FrequentCli::has(args) {
        return None;
    }
    let matches = with_docker_values(FrequentCli::command())
        .try_get_matches_from(args)
        .ok()?;
    FrequentCli::from_arg_matches(&matches).ok().map(Cli::from)
}

/// Flags take values as in Docker: a switch may have one of its own, any value may begin with a hyphen,
/// as in `-e -x=1` or `--cpus -1`, and of a flag that is given twice the last value counts.
fn with_docker_values(command: clap::Command) -> clap::Command {
    let command = command.args_override_self(true).mut_args(|arg| {
        let arg = bool_flag::with_value(arg);
        let takes_value = arg.get_action().takes_values() && !arg.is_positional();
        if takes_value && !arg.is_require_equals_set() {
            arg.allow_hyphen_values(true)
        } else {
            arg
        }
    });
    let names: Vec<String> = command
        .get_subcommands()
        .map(|sub| sub.get_name().to_owned())
        .collect();
    names.into_iter().fold(command, |command, name| {
        command.mut_subcommand(name, with_docker_values)
    })
}

fn failure(error: &clap::Error, args: &[OsString]) -> Failure {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            let text = error.render().to_string();
            match std::io::stdout().write_all(text.as_bytes()) {
                Ok(()) => Failure::silent(0),
                Err(error) => output_failed(&error),
            }
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let text = error.render().to_string();
            // Nothing was asked for: no output, and no error.
            let _ = std::io::stderr().write_all(text.as_bytes());
            Failure::silent(0)
        }
        _ => Failure::new(line(error, args))
            .with_hint(hint(error, args))
            .with_code(code(error)),
    }
}

/// Docker's exit codes, which distinguish an invalid flag from too many or too few arguments.
fn code(error: &clap::Error) -> u8 {
    let is_flag = || {
        let argument = match error.get(ContextKind::InvalidArg) {
            Some(ContextValue::Strings(all)) => all.first().cloned(),
            _ => text(error, ContextKind::InvalidArg),
        };
        argument.is_some_and(|argument| argument.starts_with('-'))
    };
    match error.kind() {
        ErrorKind::InvalidSubcommand => FAILED,
        ErrorKind::UnknownArgument
        | ErrorKind::MissingRequiredArgument
        | ErrorKind::TooFewValues
            if !is_flag() =>
        {
            FAILED
        }
        _ => RUN_FAILED,
    }
}

fn text(error: &clap::Error, kind: ContextKind) -> Option<String> {
    match error.get(kind)? {
        ContextValue::String(text) => Some(text.clone()),
        ContextValue::Strings(texts) => Some(texts.join(", ")),
        other => Some(other.to_string()),
    }
}

fn line(error: &clap::Error, args: &[OsString]) -> String {
    let argument = text(error, ContextKind::InvalidArg).unwrap_or_default();
    match error.kind() {
        ErrorKind::UnknownArgument => match not_yet(&argument, args) {
            Some(name) => format!("--{name} is not supported yet"),
            None => unknown(&argument),
        },
        ErrorKind::InvalidSubcommand => {
            let name = text(error, ContextKind::InvalidSubcommand).unwrap_or_default();
            format!("there is no command {name:?}")
        }
        ErrorKind::MissingRequiredArgument | ErrorKind::TooFewValues => {
            format!("missing argument: {argument}")
        }
        ErrorKind::InvalidValue | ErrorKind::ValueValidation => {
            // `--memory <SIZE>`, or `--rm[=<BOOL>]`.
            let flag = argument.split([' ', '[']).next().unwrap_or_default();
            let value = text(error, ContextKind::InvalidValue).unwrap_or_default();
            let why = match (error.source(), text(error, ContextKind::ValidValue)) {
                (Some(source), _) if source.is::<ParseIntError>() => {
                    "not a whole number".to_owned()
                }
                (Some(source), _) => source.to_string(),
                (None, Some(valid)) => format!("possible values are {valid}"),
                (None, None) if value.is_empty() => return format!("{flag} needs a value"),
                (None, None) => "not a value it takes".to_owned(),
            };
            format!("invalid value {value:?} for {flag}: {why}")
        }
        ErrorKind::ArgumentConflict => {
            let other = text(error, ContextKind::PriorArg).unwrap_or_default();
            if other.is_empty() || other == argument {
                format!("{argument} was given more than once")
            } else {
                format!("{argument} cannot be used with {other}")
            }
        }
        _ => {
            let rendered = error.render().to_string();
            let first = rendered.lines().next().unwrap_or("invalid usage");
            first.strip_prefix("error: ").unwrap_or(first).to_owned()
        }
    }
}

/// The long name of a flag of Docker's that the command does not support yet.
fn not_yet<'a>(argument: &'a str, args: &[OsString]) -> Option<&'a str> {
    let command = command_of(args);
    if ![" run", " create", " update"]
        .iter()
        .any(|name| command.ends_with(name))
    {
        return None;
    }
    let flag = argument.split('=').next().unwrap_or(argument);
    match flag.strip_prefix("--") {
        Some(name) => NOT_YET.contains(&name).then_some(name),
        None => {
            let mut all = NOT_YET_SHORT.iter();
            all.find(|(short, _)| *short == flag).map(|(_, name)| *name)
        }
    }
}

fn unknown(argument: &str) -> String {
    let flag = argument.split('=').next().unwrap_or(argument);
    if flag.starts_with('-') {
        format!("unknown flag: {flag}")
    } else {
        format!("unexpected argument: {flag}")
    }
}

/// What was probably meant, as far as clap finds something alike, and where to read on.
fn hint(error: &clap::Error, args: &[OsString]) -> String {
    let alike = [
        ContextKind::SuggestedArg,
        ContextKind::SuggestedSubcommand,
        ContextKind::SuggestedValue,
    ];
    let help = format!("see '{} --help'", command_of(args));
    let argument = text(error, ContextKind::InvalidArg).unwrap_or_default();
    if error.kind() == ErrorKind::UnknownArgument && not_yet(&argument, args).is_some() {
        // It was meant as it was typed.
        return help;
    }
    match alike.into_iter().find_map(|kind| text(error, kind)) {
        Some(meant) => format!("did you mean {}? {help}", meant.replace(", ", " or ")),
        None => help,
    }
}

/// The command of a command line, as it is typed.
fn command_of(args: &[OsString]) -> String {
    let mut command = String::from("hullbox");
    let known = definition();
    let mut at = &known;
    for arg in args.iter().skip(1).filter_map(|arg| arg.to_str()) {
        match at.find_subcommand(arg) {
            Some(found) => {
                command.push(' ');
                command.push_str(arg);
                at = found;
            }
            None if arg.starts_with('-') => {}
            None => break,
        }
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fails(line: &str) -> String {
        let args: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        let command = definition();
        let error = command
            .try_get_matches_from(&args)
            .and_then(|matches| Cli::from_arg_matches(&matches))
            .unwrap_err();
        super::line(&error, &args)
    }

    #[test]
    fn the_definition_is_sound() {
        definition().debug_assert();
    }

    #[test]
    fn frequent_commands_parse_as_by_the_whole_definition() {
        let whole = |args: &[OsString]| {
            let matches = definition().try_get_matches_from(args).ok()?;
            Cli::from_arg_matches(&matches).ok()
        };
        for line in [
            "hullbox run busybox",
            "hullbox run --rm -it --name=x -e A=1 -e -x=1 --cpus 1 -m 128m busybox sh -c ls --rm",
            "hullbox run --debug --rm=false busybox --debug",
            "hullbox run --timing=json --isolation=container -- busybox -x",
            "hullbox exec -it -u 1:2 web sh -c true",
            "hullbox exec --debug -e A=b web -- ls -l",
        ] {
            let args: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            let (few, all) = (frequent(&args), whole(&args));
            assert!(few.is_some(), "{line}");
            assert_eq!(format!("{few:?}"), format!("{all:?}"), "{line}");
        }
        for line in [
            "hullbox",
            "hullbox ps",
            "hullbox --debug run busybox",
            "hullbox run",
            "hullbox run --help",
            "hullbox run --no-such-flag busybox",
            "hullbox exec web",
        ] {
            let args: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            assert!(frequent(&args).is_none(), "{line}");
        }
    }

    #[test]
    fn switches_take_values_as_dockers_do() {
        use crate::args::command::{Command, LifeCommand};
        let run = |line: &str| {
            let args: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            match parse(&args).unwrap().command {
                Command::Life(LifeCommand::Run(args)) => *args,
                other => panic!("{other:?}"),
            }
        };
        for (line, interactive, tty, rm, sig_proxy) in [
            ("hullbox run busybox", false, false, false, true),
            ("hullbox run -it --rm busybox", true, true, true, true),
            (
                "hullbox run -ti=false --rm=1 busybox",
                false,
                true,
                true,
                true,
            ),
            (
                "hullbox run --interactive=T --rm=false busybox",
                true,
                false,
                false,
                true,
            ),
            (
                "hullbox run --sig-proxy=false busybox",
                false,
                false,
                false,
                false,
            ),
            // Only behind an equals sign: this is the image, and its argument.
            (
                "hullbox run --sig-proxy false -t",
                false,
                false,
                false,
                true,
            ),
        ] {
            let args = run(line);
            let got = (args.interactive, args.tty, args.rm, args.sig_proxy);
            assert_eq!(got, (interactive, tty, rm, sig_proxy), "{line}");
        }
        assert_eq!(run("hullbox run --sig-proxy false -t").words.len(), 2);
        assert!(
            fails("hullbox run --rm=maybe busybox").contains("for --rm: expected true or false")
        );
    }

    #[test]
    fn every_switch_takes_a_value_and_the_last_one_counts() {
        use crate::args::command::{Command, LifeCommand};
        let parsed = |line: &str| {
            let args: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            parse(&args)
                .unwrap_or_else(|error| panic!("{line}: {error:?}"))
                .command
        };
        for (line, all, quiet) in [
            ("hullbox ps", false, false),
            ("hullbox ps -aq", true, true),
            ("hullbox ps --all=true -q=0", true, false),
            ("hullbox ps -a -a --quiet=false --quiet", true, true),
            ("hullbox container ls -aq --all=F", false, true),
        ] {
            match parsed(line) {
                Command::Ps(args) => assert_eq!((args.all, args.quiet), (all, quiet), "{line}"),
                Command::Container(_) => {}
                other => panic!("{line}: {other:?}"),
            }
        }
        match parsed("hullbox run --rm --rm -m 1g --name a --name b -m 2g --rm=false -e A -e A i") {
            Command::Life(LifeCommand::Run(args)) => {
                assert_eq!((args.rm, args.name.as_deref()), (false, Some("b")));
                assert_eq!(args.memory.map(|memory| memory.0), Some(2 << 30));
                assert_eq!(args.env.len(), 2);
            }
            other => panic!("{other:?}"),
        }
        match parsed("hullbox exec -t=false --privileged=true -i --interactive=false web sh -t") {
            Command::Life(LifeCommand::Exec(args)) => {
                assert!(args.privileged && !args.tty && !args.interactive);
                assert_eq!(args.words.len(), 3);
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn exit_codes_and_hints_are_dockers() {
        for (line, code, meant) in [
            (
                "hullbox run --memry 1g busybox",
                RUN_FAILED,
                "did you mean --memory?",
            ),
            (
                "hullbox ps --no-such-flag",
                RUN_FAILED,
                "see 'hullbox ps --help'",
            ),
            ("hullbox create -m lots busybox", RUN_FAILED, ""),
            (
                "hullbox run --ipc host busybox",
                RUN_FAILED,
                "see 'hullbox run --help'",
            ),
            ("hullbox exec web", FAILED, "see 'hullbox exec --help'"),
            ("hullbox imags", FAILED, "did you mean image or images?"),
            ("hullbox image prun", FAILED, "did you mean prune?"),
            ("hullbox logs", FAILED, "see 'hullbox logs --help'"),
            ("hullbox ps extra", FAILED, ""),
            ("hullbox run", FAILED, ""),
        ] {
            let args: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            let error = definition().try_get_matches_from(&args).unwrap_err();
            assert_eq!(super::code(&error), code, "{line}");
            let hint = hint(&error, &args);
            assert!(hint.contains(meant), "{line}: {hint}");
            // What is not supported yet was not misspelt.
            assert!(!line.contains("--ipc") || !hint.contains("mean"), "{hint}");
        }
    }

    #[test]
    fn mistakes_are_one_clear_line() {
        for (line, part) in [
            (
                "hullbox run --no-such-flag busybox",
                "unknown flag: --no-such-flag",
            ),
            (
                "hullbox run -a stdin busybox",
                "--attach is not supported yet",
            ),
            (
                "hullbox run --uts=host busybox",
                "--uts is not supported yet",
            ),
            (
                "hullbox run -p 80:x busybox",
                "invalid value \"80:x\" for --publish: invalid containerPort: x",
            ),
            (
                "hullbox run --egress example busybox",
                "for --egress: 'example' is no address, no range of addresses and no name such as example.com",
            ),
            (
                "hullbox run --network-rate 10m busybox",
                "for --network-rate: '10m' is not in=RATE,out=RATE",
            ),
            (
                "hullbox run --mac-address 1 busybox",
                "for --mac-address: 1 is not a valid mac address",
            ),
            (
                "hullbox run --net alias=x busybox",
                "for --network: network name/id is not specified",
            ),
            ("hullbox run -m lots busybox", "for --memory: not a size"),
            ("hullbox run --cpus -1 busybox", "for --cpus: not a number"),
            (
                "hullbox run --isolation=magic busybox",
                "possible values are vm, container",
            ),
            ("hullbox run", "missing argument: <IMAGE>"),
            ("hullbox exec", "missing argument: <CONTAINER> <COMMAND>"),
            (
                "hullbox exec web",
                "missing argument: <CONTAINER> <COMMAND>",
            ),
            (
                "hullbox ps -n x",
                "invalid value \"x\" for --last: not a whole number",
            ),
            ("hullbox ps -v", "unknown flag: -v"),
            ("hullbox fly", "no command \"fly\""),
            ("hullbox run --ulimit nofile=x busybox", "for --ulimit"),
        ] {
            let got = fails(line);
            assert!(got.contains(part), "{line}: {got}");
            assert!(!got.contains('\n'));
        }
    }
}
