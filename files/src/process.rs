//! The process: from its entry to the first message.

use crate::hello::{Answer, Hello, hear, say};
use crate::tree::Tree;
use crate::{jail, stream, view};
use std::ffi::OsString;
use std::io;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

/// The process's entry: what follows [`crate::ENTRY`] on the command line. Standard input is the
/// connection.
#[must_use]
pub fn main(arguments: &[OsString]) -> ExitCode {
    let ended = match arguments {
        [] => serve(),
        _ => Err(io::ErrorKind::InvalidInput.into()),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn serve() -> io::Result<()> {
    let connection = UnixStream::from(jail::detach()?);
    let hello: Hello = hear(&connection)?;
    match prepare(&hello) {
        Ok(tree) => {
            say(&connection, &Answer::Ready)?;
            stream::run(connection.into(), tree, hello.interrupts)
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
