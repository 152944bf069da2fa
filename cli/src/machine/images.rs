//! Images that a forwarded `run` or `create` needs and the machine's store has not: they are fetched from
//! here, with the host's network and the user's credentials.
//!
//! Whether an image is there is known in the machine alone. So the command is forwarded, and ends by a
//! signal of its own where the image is missing, before anything was made: a start of an image that is there
//! costs nothing more. A command that reads standard input must not be begun twice, so the store is asked
//! first then.

use crate::args::command::{Command, ContainerCommand, LifeCommand};
use crate::args::forwarded::Forwarded;
use crate::args::run::PullArg;
use crate::output::failure::Failure;
use crate::registry::fetch::{At, MISSING, Wish};
use hullbox_protocol::ExitStatus;

/// What a command may have to fetch.
pub(super) fn wish_of(command: &Command) -> Option<Wish> {
    let args = match command {
        Command::Life(LifeCommand::Run(args) | LifeCommand::Create(args))
        | Command::Container(ContainerCommand::Life(
            LifeCommand::Run(args) | LifeCommand::Create(args),
        )) => args,
        _ => return None,
    };
    Wish::of(args).filter(|wish| wish.policy != PullArg::Never)
}

/// Forwards a command, and sees to it that its image is there.
pub(super) fn run(
    wish: Option<&Wish>,
    stdin: bool,
    forwarded: &Forwarded,
    forward: impl Fn(&Forwarded) -> Result<ExitStatus, Failure>,
) -> Result<u8, Failure> {
    let Some(wish) = wish else {
        return Ok(forward(forwarded)?.exit_code());
    };
    let with_image = |image| Forwarded {
        image,
        ..forwarded.clone()
    };
    let is_fetched_first = match wish.policy {
        PullArg::Always => true,
        _ => stdin && !wish.is_there(At::Machine)?,
    };
    if !is_fetched_first {
        let tried = Forwarded {
            fetch: !stdin,
            ..forwarded.clone()
        };
        let status = forward(&tried)?;
        let is_missing = matches!(status, ExitStatus::Signal { signal, .. } if signal == MISSING);
        if !is_missing || stdin {
            return Ok(status.exit_code());
        }
    }
    let image = wish.fetch(At::Machine)?;
    Ok(forward(&with_image(Some(image)))?.exit_code())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::parse::parse;
    use std::cell::RefCell;
    use std::ffi::OsString;

    fn wish(line: &str) -> Option<Wish> {
        let words = format!("hullbox {line}");
        let words: Vec<OsString> = words.split(' ').map(OsString::from).collect();
        wish_of(&parse(&words).unwrap().command)
    }

    #[test]
    fn only_what_makes_a_container_of_an_image_wishes_for_one() {
        assert!(wish("run busybox").is_some());
        assert!(wish("container create --pull always busybox").is_some());
        for line in ["run --pull never busybox", "run --from-snapshot s", "ps"] {
            assert!(wish(line).is_none(), "{line}");
        }
    }

    #[test]
    fn a_command_whose_image_is_there_is_forwarded_once() {
        let forwarded = RefCell::new(Vec::new());
        let forward = |with: &Forwarded| {
            forwarded
                .borrow_mut()
                .push((with.fetch, with.image.clone()));
            Ok(ExitStatus::Code(7))
        };
        let own = Forwarded::default();
        let wish = wish("run busybox");
        assert_eq!(run(wish.as_ref(), false, &own, forward).unwrap(), 7);
        assert_eq!(run(None, true, &own, forward).unwrap(), 7);
        assert_eq!(forwarded.take(), [(true, None), (false, None)]);
    }
}
