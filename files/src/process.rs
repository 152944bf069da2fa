//! The process: from its entry to the first message.

use crate::grant::GRANTED_OPTION;
use crate::hello::{Answer, Hello, hear, say};
use crate::relay::RELAY_OPTION;
use crate::tree::Tree;
use crate::{grant, jail, relay, stream, view};
use std::ffi::OsString;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;

/// The process's entry: what follows [`crate::ENTRY`] on the command line. Standard input is the
/// connection.
#[must_use]
pub fn main(arguments: &[OsString]) -> ExitCode {
    let ended = match arguments {
        [] => serve(None),
        [option, file] if option == GRANTED_OPTION => serve(Some(Path::new(file))),
        [option] if option == RELAY_OPTION => {
            jail::detach().and_then(|(stream, device)| relay::run(stream, device))
        }
        _ => Err(io::ErrorKind::InvalidInput.into()),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Serves what is asked for, and of that only what is granted, if there is a file of grants.
fn serve(granted: Option<&Path>) -> io::Result<()> {
    let (connection, _) = jail::detach()?;
    let connection = UnixStream::from(connection);
    let hello: Hello = hear(&connection)?;
    let granted = granted.map_or(Ok(()), |file| grant::check(file, &hello.exports));
    match granted.and_then(|()| prepare(&hello)) {
        Ok(tree) => {
            say(&connection, &Answer::Ready)?;
            stream::run(connection.into(), tree)
        }
        // Whoever asked may be gone.
        Err(message) => say(&connection, &Answer::Failed(message)),
    }
}

/// Gives up all but the exports. The error is for whoever asked, in words.
fn prepare(hello: &Hello) -> Result<Tree, String> {
    if !hello.is_sound() {
        return Err("the exports are not absolute paths".to_owned());
    }
    let descriptors = jail::raise_descriptors();
    let view = view::enter(&hello.exports).map_err(|error| error.to_string())?;
    let rights = view.rights;
    let root = rustix::io::fcntl_dupfd_cloexec(&view.root, 3);
    let tree = root
        .and_then(|root| Tree::new(root, &hello.exports, rights, descriptors))
        .map_err(|errno| format!("cannot look at the exports: {errno}"))?;
    jail::give_up(rights)
        .map_err(|error| format!("the file server cannot confine itself: {error}"))?;
    // The working directory is in it as long as the process lives.
    std::mem::forget(view);
    Ok(tree)
}
