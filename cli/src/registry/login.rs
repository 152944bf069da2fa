//! `login` and `logout`.

use super::progress::{Out, View};
use super::{failed, transfers, warn};
use crate::args::registry::{LoginArgs, LogoutArgs, Password, ProgressArg};
use crate::output::failure::{Failure, report};
use crate::output::stdout;
use hullbox_engine::registry::Transfers;
use rustix::termios::{
    LocalModes, OptionalActions, SpecialCodeIndex, Termios, isatty, tcgetattr, tcsetattr,
};
use std::io::{self, BufRead, Read, Write};
use std::os::fd::AsFd;

/// Longest password or token, in bytes.
const MAX_SECRET: u64 = 64 << 10;
/// What Ctrl-C types.
const INTERRUPT: u8 = 3;
/// Exit code of whoever was interrupted: 128 and SIGINT's number.
const INTERRUPTED: u8 = 130;
/// What `login` without a server logs in to.
const DOCKER_HUB: &str = "docker.io";

pub(crate) fn login(args: LoginArgs) -> Result<(), Failure> {
    let server = args.server.as_deref().unwrap_or_default();
    let view = View::new(ProgressArg::Plain, false, Out::Aside);
    let transfers = transfers(&view, None)?;
    let mut known = None;
    if args.username.is_none() && args.password.is_none() && !args.password_stdin {
        match stored(&transfers, server)? {
            Stored::Accepted => return stdout::print("Login Succeeded\n"),
            Stored::Nothing(user) => known = user,
        }
    }
    let (user, Password(password)) = credentials(&args, known)?;
    let done = transfers.login(server, &user, &password).map_err(failed)?;
    if done.is_plain {
        warn(&format!(
            "the password is stored unencrypted in {}: a credential helper would encrypt it",
            done.kept_in
        ));
    }
    stdout::print("Login Succeeded\n")
}

pub(crate) fn logout(args: &LogoutArgs) -> Result<(), Failure> {
    let server = args.server.as_deref().unwrap_or_default();
    let shown = args.server.as_deref().unwrap_or(DOCKER_HUB);
    let view = View::new(ProgressArg::Plain, false, Out::Aside);
    let transfers = transfers(&view, None)?;
    if transfers.logout(server).map_err(failed)? {
        stdout::print(&format!("Removed login credentials for {shown}\n"))
    } else {
        stdout::print(&format!("Not logged in to {shown}\n"))
    }
}

/// What is there of an earlier login.
enum Stored {
    /// The registry takes it.
    Accepted,
    /// Nothing that it takes, but perhaps the user's name.
    Nothing(Option<String>),
}

/// Tries the credentials that are kept, as `docker login` does when it is told none.
fn stored(transfers: &Transfers, server: &str) -> Result<Stored, Failure> {
    let Some(stored) = transfers.login_stored(server).map_err(failed)? else {
        return Ok(Stored::Nothing(None));
    };
    stdout::print("Authenticating with existing credentials...\n")?;
    match stored.outcome {
        Ok(()) => Ok(Stored::Accepted),
        Err(error) => {
            report(&failed(error.into()));
            Ok(Stored::Nothing(stored.user))
        }
    }
}

/// `known` is the user's name that goes without saying.
fn credentials(args: &LoginArgs, known: Option<String>) -> Result<(String, Password), Failure> {
    let user = args.username.clone().filter(|user| !user.is_empty());
    if args.password_stdin {
        let user = user.ok_or_else(|| Failure::new("--password-stdin needs --username"))?;
        return Ok((user, from_stdin()?));
    }
    if let Some(password) = &args.password {
        warn("--password shows the password to other users of this host: use --password-stdin");
        let user = user.ok_or_else(|| Failure::new("--password needs --username"))?;
        return not_empty(password.clone()).map(|password| (user, password));
    }
    if !isatty(io::stdin().as_fd()) {
        return Err(
            Failure::new("cannot ask for a password: standard input is no terminal")
                .with_hint("use --username with --password-stdin"),
        );
    }
    let user = match user {
        Some(user) => user,
        None => match known {
            Some(known) => {
                let typed = ask(&format!("Username ({known}): "))?;
                Some(typed)
                    .filter(|typed| !typed.is_empty())
                    .unwrap_or(known)
            }
            None => ask("Username: ")?,
        },
    };
    if user.is_empty() {
        return Err(Failure::new("a user name is needed"));
    }
    let password = {
        let _silence = Silence::begin()?;
        let password = ask("Password: ");
        // The line's end was not echoed.
        let _ = writeln!(io::stderr());
        Password(password?)
    };
    not_empty(password).map(|password| (user, password))
}

fn not_empty(password: Password) -> Result<Password, Failure> {
    if password.0.is_empty() {
        return Err(Failure::new("a password is needed"));
    }
    Ok(password)
}

fn from_stdin() -> Result<Password, Failure> {
    let mut text = String::new();
    let failed = |error: io::Error| Failure::of("cannot read the password", &error);
    let read = io::stdin().take(MAX_SECRET + 1).read_to_string(&mut text);
    read.map_err(failed)?;
    if text.len() as u64 > MAX_SECRET {
        return Err(failed(io::Error::other("it is too long")));
    }
    let end = text.trim_end_matches(['\r', '\n']).len();
    text.truncate(end);
    not_empty(Password(text))
}

fn ask(what: &str) -> Result<String, Failure> {
    let failed = |error: io::Error| Failure::of("cannot read from the terminal", &error);
    let mut stderr = io::stderr();
    stderr.write_all(what.as_bytes()).map_err(failed)?;
    let line = read_line().map_err(failed)?;
    if line.last() == Some(&INTERRUPT) {
        return Err(Failure::silent(INTERRUPTED));
    }
    let line = String::from_utf8(line).map_err(|error| failed(io::Error::other(error)))?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

/// A line with its end, which in a [`Silence`] may be [`INTERRUPT`].
fn read_line() -> io::Result<Vec<u8>> {
    let mut stdin = io::stdin().lock();
    let mut line = Vec::new();
    loop {
        let seen = stdin.fill_buf()?;
        let end = seen
            .iter()
            .position(|byte| matches!(*byte, b'\n' | INTERRUPT));
        let taken = end.map_or(seen.len(), |at| at + 1);
        line.extend(seen.iter().take(taken));
        stdin.consume(taken);
        if end.is_some() || taken == 0 || line.len() as u64 > MAX_SECRET {
            return Ok(line);
        }
    }
}

/// A terminal that does not show what is typed, until this is dropped. Ctrl-C ends a line there: as a signal it
/// would end this process and leave the terminal as it is.
struct Silence(Termios);

impl Silence {
    fn begin() -> Result<Self, Failure> {
        let failed = |error: rustix::io::Errno| {
            Failure::of("cannot use the terminal", &io::Error::from(error))
        };
        let before = tcgetattr(io::stdin()).map_err(failed)?;
        let mut silent = before.clone();
        silent
            .local_modes
            .remove(LocalModes::ECHO | LocalModes::ISIG);
        silent.special_codes[SpecialCodeIndex::VEOL] = INTERRUPT;
        tcsetattr(io::stdin(), OptionalActions::Flush, &silent).map_err(failed)?;
        Ok(Self(before))
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        // Nothing can be done about a terminal that is gone.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.0);
    }
}
