//! Locks among guests and with the host.

use crate::client::{Client, ROOT, u32_at};
use crate::fields;
use anyhow::{Result, ensure};
use hullbox_files::Export;
use rustix::fs::{FlockOperation, flock};
use std::fs::File;
use std::time::Duration;

const READ: i32 = libc::F_RDLCK;
const WRITE: i32 = libc::F_WRLCK;
const NONE: i32 = libc::F_UNLCK;
const GETLK: u32 = 31;
const SETLK: u32 = 32;
const SETLKW: u32 = 33;
/// Long enough to see that nothing happens.
const MOMENT: Duration = Duration::from_millis(200);

struct Guest {
    client: Client,
    node: u64,
    handle: u64,
}

impl Guest {
    fn new(dir: &tempfile::TempDir) -> Result<Self> {
        let mut client = Client::new(&[Export::of(dir.path())])?;
        let node = client.walk("0/file")?.node;
        let handle = client.open(node, libc::O_RDWR)?;
        Ok(Self {
            client,
            node,
            handle,
        })
    }

    fn body(&self, owner: u64, kind: i32, start: u64, end: u64, flags: u32) -> Vec<u8> {
        fields!(self.handle, owner, start, end, kind, 1u32, flags, 0u32)
    }

    fn record(&mut self, owner: u64, kind: i32, start: u64, end: u64) -> Result<i32> {
        let body = self.body(owner, kind, start, end, 0);
        Ok(self.client.ask(SETLK, self.node, &body)?.err().unwrap_or(0))
    }

    fn whole(&mut self, kind: i32) -> Result<i32> {
        let body = self.body(1, kind, 0, i64::MAX as u64, 1);
        Ok(self.client.ask(SETLK, self.node, &body)?.err().unwrap_or(0))
    }

    fn flush(&mut self, owner: u64) -> Result<()> {
        let body = fields!(self.handle, 0u32, 0u32, owner);
        self.client.done(25, self.node, &body).map(drop)
    }
}

fn ground() -> Result<tempfile::TempDir> {
    let dir = tempfile::tempdir()?;
    std::fs::write(dir.path().join("file"), [0; 100])?;
    Ok(dir)
}

pub fn record_locks_hold_among_guests() -> Result<()> {
    let dir = ground()?;
    let (mut one, mut two) = (Guest::new(&dir)?, Guest::new(&dir)?);
    ensure!(one.record(1, WRITE, 10, 19)? == 0);
    ensure!(one.record(2, WRITE, 15, 15)? == libc::EAGAIN);
    ensure!(two.record(1, READ, 19, 30)? == libc::EAGAIN);
    ensure!(two.record(1, READ, 20, 30)? == 0);
    let body = two.body(1, WRITE, 0, 100, 0);
    let reply = two.client.done(GETLK, two.node, &body)?;
    ensure!(u32_at(&reply, 16).cast_signed() == WRITE, "{reply:?}");
    ensure!((reply[0], reply[8]) == (10, 19));
    // A part is let go of, and the rest holds.
    ensure!(one.record(1, NONE, 10, 14)? == 0);
    ensure!(two.record(1, WRITE, 10, 14)? == 0);
    ensure!(two.record(1, WRITE, 14, 15)? == libc::EAGAIN);
    // An owner's first close lets go of all of them.
    one.flush(2)?;
    ensure!(two.record(1, WRITE, 15, 15)? == libc::EAGAIN);
    one.flush(1)?;
    ensure!(two.record(1, WRITE, 15, 15)? == 0);
    // A guest that is gone has none.
    ensure!(one.record(1, WRITE, 15, 15)? == libc::EAGAIN);
    drop(two);
    ensure!(one.record(1, WRITE, 15, 15)? == 0);
    Ok(())
}

pub fn whole_locks_hold_with_the_host() -> Result<()> {
    let dir = ground()?;
    let (mut one, mut two) = (Guest::new(&dir)?, Guest::new(&dir)?);
    let host = File::open(dir.path().join("file"))?;
    ensure!(one.whole(READ)? == 0 && two.whole(READ)? == 0);
    ensure!(flock(&host, FlockOperation::NonBlockingLockExclusive).is_err());
    ensure!(two.whole(NONE)? == 0 && one.whole(WRITE)? == 0);
    ensure!(flock(&host, FlockOperation::NonBlockingLockShared).is_err());
    // It ends with the open file.
    let body = fields!(one.handle, 0u32, 0u32, 0u64);
    one.client.done(18, one.node, &body)?;
    flock(&host, FlockOperation::NonBlockingLockExclusive)?;
    ensure!(two.whole(READ)? == libc::EAGAIN);
    Ok(())
}

pub fn who_waits_gets_it_or_is_called_back() -> Result<()> {
    let dir = ground()?;
    let (mut one, mut two) = (Guest::new(&dir)?, Guest::new(&dir)?);
    ensure!(one.record(1, WRITE, 0, 9)? == 0);
    let body = two.body(1, WRITE, 5, 5, 0);
    let waiting = two.client.send(SETLKW, two.node, &body)?;
    ensure!(!two.client.has_reply(waiting, MOMENT)?);
    // Whatever else is asked meanwhile is answered.
    two.client.attributes(two.node)?;
    ensure!(one.record(1, NONE, 0, 9)? == 0);
    ensure!(two.client.reply(waiting)?.is_ok());
    ensure!(one.record(1, WRITE, 5, 5)? == libc::EAGAIN);
    // An interrupt, and one that comes before the request that it means has begun to wait.
    let body = one.body(1, WRITE, 5, 5, 0);
    let waiting = one.client.send(SETLKW, one.node, &body)?;
    ensure!(!one.client.has_reply(waiting, MOMENT)?);
    one.client.send(36, 0, &fields!(waiting))?;
    ensure!(one.client.reply(waiting)? == Err(libc::EINTR));
    one.client.send(36, 0, &fields!(waiting + 8))?;
    one.client.attributes(one.node)?;
    let body = one.body(1, WRITE, 5, 5, 0);
    let waiting = one.client.send(SETLKW, one.node, &body)?;
    ensure!(one.client.reply(waiting)? == Err(libc::EINTR));
    // Within one guest.
    let body = two.body(2, WRITE, 0, 50, 0);
    let waiting = two.client.send(SETLKW, two.node, &body)?;
    ensure!(!two.client.has_reply(waiting, MOMENT)?);
    two.flush(1)?;
    ensure!(two.client.reply(waiting)?.is_ok());
    Ok(())
}

pub fn waiting_is_bounded() -> Result<()> {
    let dir = ground()?;
    let (mut one, mut two) = (Guest::new(&dir)?, Guest::new(&dir)?);
    ensure!(one.record(1, WRITE, 0, 9)? == 0);
    let mut waiting = Vec::new();
    for owner in 0..300 {
        let body = two.body(owner, WRITE, 0, 0, 0);
        waiting.push(two.client.send(SETLKW, two.node, &body)?);
    }
    let mut refused = 0;
    for unique in &waiting[256..] {
        refused += i32::from(two.client.has_reply(*unique, MOMENT)?);
    }
    ensure!(refused > 0, "nobody was refused");
    ensure!(two.client.look_up(ROOT, "0").is_ok());
    Ok(())
}

/// Of a WAL index one guest's users exclude everybody else, and not each other.
pub fn a_wal_index_is_one_guests_or_the_hosts() -> Result<()> {
    let dir = ground()?;
    std::fs::rename(dir.path().join("file"), dir.path().join("db-shm"))?;
    std::os::unix::fs::symlink("db-shm", dir.path().join("file"))?;
    let guest = || -> Result<Guest> {
        let mut client = Client::new(&[Export::of(dir.path())])?;
        let node = client.walk("0/db-shm")?.node;
        let handle = client.open(node, libc::O_RDWR)?;
        Ok(Guest {
            client,
            node,
            handle,
        })
    };
    let (mut one, mut two) = (guest()?, guest()?);
    // As SQLite opens it: alone for a moment, then with others.
    ensure!(one.record(1, WRITE, 128, 128)? == 0);
    ensure!(one.record(2, READ, 128, 128)? == libc::EAGAIN);
    ensure!(one.record(1, READ, 128, 128)? == 0);
    ensure!(one.record(2, READ, 128, 128)? == 0);
    let conflict = |guest: &mut Guest| -> Result<i32> {
        let body = guest.body(3, WRITE, 128, 128, 0);
        let reply = guest.client.done(GETLK, guest.node, &body)?;
        Ok(u32_at(&reply, 16).cast_signed())
    };
    ensure!(conflict(&mut one)? == READ);
    ensure!(conflict(&mut two)? == WRITE);
    ensure!(two.record(1, READ, 128, 128)? == libc::EAGAIN);
    one.flush(1)?;
    ensure!(two.record(1, READ, 128, 128)? == libc::EAGAIN);
    ensure!(one.record(2, NONE, 128, 128)? == 0);
    ensure!(two.record(1, READ, 128, 128)? == 0);
    // The other bytes are like any.
    ensure!(one.record(1, READ, 120, 120)? == 0 && two.record(1, READ, 120, 120)? == 0);
    Ok(())
}
