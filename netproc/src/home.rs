//! Where the process of a shared network is found: a socket and a lock in a directory of its user's.
//!
//! Who joins a network, and who tidies up, holds the lock all the while. Who serves it ends with the lock in
//! its hand. So nobody waits for an answer of a process that is about to end, and two never begin at a time.

use crate::JOIN_OPTION;
use crate::message::{self, Request};
use crate::shape::Shape;
use hullbox_backend::network::NETWORK_ID_DIGITS;
use hullbox_host::paths::{ensure_private_dir, open_lock_file};
use hullbox_protocol::NETWORK_VSOCK_OPTION;
use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use rustix::io::Errno;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A network's files.
#[derive(Debug)]
pub struct Home {
    dir: OwnedFd,
    id: String,
}

/// A network's lock, held.
#[derive(Debug)]
pub struct Lock(File);

impl Home {
    /// That of the network with this id; makes the directory if there is none.
    ///
    /// # Errors
    /// The id is none, or the directory is not this user's.
    pub fn open(dir: &Path, id: &str) -> io::Result<Self> {
        // It becomes a name of a file, and may have come out of the helper machine.
        let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if id.len() != NETWORK_ID_DIGITS || !id.bytes().all(is_digit) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "this is no network's id",
            ));
        }
        ensure_private_dir(dir).map_err(io::Error::other)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self {
            dir: rustix::fs::open(dir, flags, Mode::empty())?,
            id: id.to_owned(),
        })
    }

    /// A short name for a file in a directory whose own may be longer than a socket's address.
    fn path(&self, extension: &str) -> PathBuf {
        let dir = self.dir.as_raw_fd();
        format!("/proc/self/fd/{dir}/{}.{extension}", self.id).into()
    }

    fn socket(&self) -> PathBuf {
        self.path("sock")
    }

    /// Takes the lock. Without waiting, none if somebody else has it.
    ///
    /// # Errors
    /// It cannot be taken.
    pub fn lock(&self, waits: bool) -> io::Result<Option<Lock>> {
        let operation = match waits {
            true => FlockOperation::LockExclusive,
            false => FlockOperation::NonBlockingLockExclusive,
        };
        loop {
            let file = open_lock_file(&self.path("lock"))?;
            match flock(&file, operation) {
                Ok(()) => {}
                Err(Errno::INTR) => continue,
                Err(Errno::WOULDBLOCK) => return Ok(None),
                Err(errno) => return Err(errno.into()),
            }
            // Who tidied up has removed it meanwhile: the next one locks another file.
            let ours = file.metadata()?;
            match fs::metadata(self.path("lock")) {
                Ok(there) if (there.dev(), there.ino()) == (ours.dev(), ours.ino()) => {
                    return Ok(Some(Lock(file)));
                }
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
    }

    /// Connects to the network's process, which is started if there is none.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn connect(&self, lock: &mut Lock, shape: &Shape) -> io::Result<UnixStream> {
        if let Some(connection) = self.process()? {
            return Ok(connection);
        }
        self.begin(lock, shape)?;
        UnixStream::connect(self.socket())
    }

    /// A connection to the network's process, if there is one.
    fn process(&self) -> io::Result<Option<UnixStream>> {
        match UnixStream::connect(self.socket()) {
            Ok(connection) => Ok(Some(connection)),
            // One that was killed leaves its socket behind.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
                ) =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Starts the process, which is nobody's child when this one has ended.
    fn begin(&self, lock: &mut Lock, shape: &Shape) -> io::Result<()> {
        remove(&self.socket())?;
        let listener = UnixListener::bind(self.socket())?;
        // Opened once more: a lock is the open file's.
        let own = open_lock_file(&self.path("lock"))?;
        let (ours, theirs) = UnixStream::pair()?;
        let request = Request::Share(shape.clone());
        message::send(ours.as_fd(), &request, &[listener.as_fd(), own.as_fd()])?;
        let child = Command::new("/proc/self/exe")
            .arg0("hullbox")
            .args(arguments())
            .env_clear()
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        // For people who look for it.
        let _ = lock
            .0
            .set_len(0)
            .and_then(|()| writeln!(lock.0, "{}", child.id()));
        Ok(())
    }

    /// Removes the files of a network that nobody serves. Nothing is done where somebody is about to.
    ///
    /// # Errors
    /// They cannot be removed.
    pub fn tidy(&self) -> io::Result<()> {
        let Some(_lock) = self.lock(false)? else {
            return Ok(());
        };
        if self.process()?.is_none() {
            remove(&self.socket())?;
            remove(&self.path("lock"))?;
        }
        Ok(())
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// What this process was started with, but for the option that made it one that joins.
fn arguments() -> Vec<OsString> {
    let is_option = |word: &OsString| word == JOIN_OPTION || word == NETWORK_VSOCK_OPTION;
    let words = std::env::args_os().skip(1);
    words.take_while(|word| !is_option(word)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn an_id_is_no_path() {
        let dir = std::env::temp_dir();
        let upper = ID.to_uppercase();
        let dots = format!("../{}", &ID[3..]);
        for id in ["", "..", &ID[1..], &upper, &dots, &format!("{ID}0")] {
            assert!(Home::open(&dir, id).is_err(), "{id}");
        }
    }

    #[test]
    fn one_at_a_time_has_the_lock_and_nothing_is_left() {
        let dir = std::env::temp_dir().join(format!("hullbox-home-{}", std::process::id()));
        let home = Home::open(&dir, ID).unwrap();
        let lock = home.lock(true).unwrap().unwrap();
        assert!(home.lock(false).unwrap().is_none());
        // Somebody is about to begin.
        drop(UnixListener::bind(home.socket()).unwrap());
        home.tidy().unwrap();
        assert!(home.socket().exists());
        drop(lock);
        let listener = UnixListener::bind(dir.join("x")).unwrap();
        fs::rename(dir.join("x"), home.socket()).unwrap();
        home.tidy().unwrap();
        assert!(home.socket().exists(), "it is served");
        drop(listener);
        home.tidy().unwrap();
        // Nothing is in it.
        fs::remove_dir(&dir).unwrap();
    }
}
