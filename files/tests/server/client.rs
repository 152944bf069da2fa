//! A guest's kernel, as far as a server sees of it: raw FUSE messages over the stream.

use anyhow::{Context, Result, bail, ensure};
use hullbox_files::{Export, Launcher, Process, Started};
use std::collections::HashMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// Long enough for a busy machine.
pub const LIMIT: Duration = Duration::from_secs(30);
/// The tree's root.
pub const ROOT: u64 = 1;

pub struct Client {
    stream: UnixStream,
    pub process: Process,
    next: u64,
    /// Replies that were read while another was waited for.
    early: HashMap<u64, Reply>,
    /// Who asks.
    pub user: u32,
    pub group: u32,
}

/// A reply's error, or its contents.
pub type Reply = Result<Vec<u8>, i32>;

/// What a name leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    pub node: u64,
    pub inode: u64,
    pub size: u64,
    pub mode: u32,
    pub user: u32,
    pub group: u32,
}

pub fn launcher() -> Launcher {
    Launcher::of(
        std::env::current_exe().unwrap_or_default(),
        vec![hullbox_files::ENTRY.into()],
    )
}

pub fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap_or_default())
}

pub fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap_or_default())
}

/// A structure of numbers: four bytes each, or eight.
#[macro_export]
macro_rules! fields {
    ($($value:expr),* $(,)?) => {{
        let mut bytes: Vec<u8> = Vec::new();
        $(bytes.extend($value.to_le_bytes());)*
        bytes
    }};
}

pub fn name(text: &str) -> Vec<u8> {
    [text.as_bytes(), b"\0"].concat()
}

impl Client {
    /// A server of these, with a session.
    pub fn new(exports: &[Export]) -> Result<Self> {
        let mut client = Self::without_session(exports)?;
        client.init(u32::MAX)?;
        Ok(client)
    }

    pub fn without_session(exports: &[Export]) -> Result<Self> {
        Self::of(launcher().start(exports)?.finish(LIMIT)?)
    }

    /// Of a server that serves.
    pub fn of(started: Started) -> Result<Self> {
        let stream = UnixStream::from(started.connection);
        stream.set_read_timeout(Some(LIMIT))?;
        Ok(Self {
            stream,
            process: started.process.context("no process")?,
            next: 2,
            early: HashMap::new(),
            user: 0,
            group: 0,
        })
    }

    /// Begins a session; the features that are agreed on.
    pub fn init(&mut self, capable: u32) -> Result<u32> {
        let body = fields!(7u32, 38u32, 1u32 << 20, capable, 0u32);
        let body = [body, vec![0; 44]].concat();
        let reply = self.ask(26, 0, &body)?.map_err(errno)?;
        ensure!(reply.len() == 64, "{} bytes", reply.len());
        ensure!(u32_at(&reply, 0) == 7);
        Ok(u32_at(&reply, 12))
    }

    /// Sends a request and gives its number.
    pub fn send(&mut self, opcode: u32, node: u64, body: &[u8]) -> Result<u64> {
        let unique = self.next;
        self.next += 2;
        let len = u32::try_from(40 + body.len())?;
        let header = fields!(len, opcode, unique, node, self.user, self.group, 1u32, 0u32);
        self.stream.write_all(&[&header, body].concat())?;
        Ok(unique)
    }

    /// Sends bytes as they are.
    pub fn send_raw(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.stream.write_all(bytes)?)
    }

    /// The reply to a request.
    pub fn reply(&mut self, unique: u64) -> Result<Reply> {
        loop {
            if let Some(reply) = self.early.remove(&unique) {
                return Ok(reply);
            }
            let (of, reply) = self.any_reply()?;
            self.early.insert(of, reply);
        }
    }

    /// Whether a reply is there within a time.
    pub fn has_reply(&mut self, unique: u64, limit: Duration) -> Result<bool> {
        if self.early.contains_key(&unique) {
            return Ok(true);
        }
        self.stream.set_read_timeout(Some(limit))?;
        let read = self.any_reply();
        self.stream.set_read_timeout(Some(LIMIT))?;
        match read {
            Ok((of, reply)) => {
                self.early.insert(of, reply);
                Ok(of == unique)
            }
            Err(_) => Ok(false),
        }
    }

    fn any_reply(&mut self) -> Result<(u64, Reply)> {
        let mut header = [0; 16];
        self.stream.read_exact(&mut header)?;
        let len = usize::try_from(u32_at(&header, 0))?;
        ensure!((16..=(1 << 20) + 4096).contains(&len), "a reply of {len}");
        let mut body = vec![0; len - 16];
        self.stream.read_exact(&mut body)?;
        let error = u32_at(&header, 4).cast_signed();
        ensure!((-4095..=0).contains(&error), "error {error}");
        ensure!(error == 0 || body.is_empty());
        let reply = if error == 0 { Ok(body) } else { Err(-error) };
        Ok((u64_at(&header, 8), reply))
    }

    pub fn ask(&mut self, opcode: u32, node: u64, body: &[u8]) -> Result<Reply> {
        let unique = self.send(opcode, node, body)?;
        self.reply(unique)
    }

    /// A request that must work.
    pub fn done(&mut self, opcode: u32, node: u64, body: &[u8]) -> Result<Vec<u8>> {
        self.ask(opcode, node, body)?
            .map_err(errno)
            .with_context(|| format!("opcode {opcode}"))
    }

    /// The error of a request that must not.
    pub fn fails(&mut self, opcode: u32, node: u64, body: &[u8]) -> Result<i32> {
        match self.ask(opcode, node, body)? {
            Ok(_) => bail!("opcode {opcode} worked"),
            Err(errno) => Ok(errno),
        }
    }

    pub fn look_up(&mut self, parent: u64, what: &str) -> Result<Found> {
        let reply = self.done(1, parent, &name(what))?;
        let found = found(&reply);
        ensure!(found.node != 0, "there is no {what}");
        Ok(found)
    }

    /// Walks a path of names.
    pub fn walk(&mut self, path: &str) -> Result<Found> {
        let mut found = Found {
            node: ROOT,
            inode: 0,
            size: 0,
            mode: 0,
            user: 0,
            group: 0,
        };
        for part in path.split('/') {
            found = self.look_up(found.node, part)?;
        }
        Ok(found)
    }

    pub fn attributes(&mut self, node: u64) -> Result<Found> {
        let reply = self.done(3, node, &[0; 16])?;
        Ok(attributes(0, &reply[16..]))
    }

    /// A handle of a file.
    pub fn open(&mut self, node: u64, flags: i32) -> Result<u64> {
        let reply = self.done(14, node, &fields!(flags, 0u32))?;
        Ok(u64_at(&reply, 0))
    }

    pub fn create(&mut self, parent: u64, what: &str, mode: u32) -> Result<(Found, u64)> {
        let flags = libc::O_RDWR | libc::O_CREAT | libc::O_EXCL;
        let body = [fields!(flags, mode, 0o022u32, 0u32), name(what)].concat();
        let reply = self.done(35, parent, &body)?;
        Ok((found(&reply), u64_at(&reply, 128)))
    }

    pub fn write(&mut self, node: u64, handle: u64, offset: u64, data: &[u8]) -> Result<Reply> {
        let size = u32::try_from(data.len())?;
        let head = fields!(handle, offset, size, 0u32, 0u64, 0u32, 0u32);
        self.ask(16, node, &[&head, data].concat())
    }

    pub fn read(&mut self, node: u64, handle: u64, offset: u64, size: u32) -> Result<Reply> {
        let body = fields!(handle, offset, size, 0u32, 0u64, 0u32, 0u32);
        self.ask(15, node, &body)
    }

    /// Names in a directory, without `.` and `..`.
    pub fn list(&mut self, node: u64) -> Result<Vec<String>> {
        let handle = u64_at(&self.done(27, node, &fields!(0u32, 0u32))?, 0);
        let mut names = Vec::new();
        let mut offset = 0u64;
        loop {
            let body = fields!(handle, offset, 4096u32, 0u32, 0u64, 0u32, 0u32);
            let reply = self.done(44, node, &body)?;
            if reply.is_empty() {
                break;
            }
            let mut rest = &reply[..];
            while !rest.is_empty() {
                let dirent = &rest[128..];
                let len = usize::try_from(u32_at(dirent, 16))?;
                offset = u64_at(dirent, 8);
                let text = String::from_utf8(dirent[24..24 + len].to_vec())?;
                if text != "." && text != ".." {
                    names.push(text);
                }
                rest = &dirent[(24 + len).next_multiple_of(8)..];
            }
        }
        self.done(29, node, &fields!(handle, 0u32, 0u32, 0u64))?;
        names.sort();
        Ok(names)
    }

    /// The process's descriptors.
    pub fn descriptors(&self) -> Result<usize> {
        Ok(std::fs::read_dir(format!("/proc/{}/fd", self.process.pid()))?.count())
    }
}

pub fn errno(errno: i32) -> anyhow::Error {
    std::io::Error::from_raw_os_error(errno).into()
}

pub fn found(entry: &[u8]) -> Found {
    attributes(u64_at(entry, 0), &entry[40..])
}

fn attributes(node: u64, attr: &[u8]) -> Found {
    Found {
        node,
        inode: u64_at(attr, 0),
        size: u64_at(attr, 8),
        mode: u32_at(attr, 60),
        user: u32_at(attr, 68),
        group: u32_at(attr, 72),
    }
}
