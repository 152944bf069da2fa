//! The stream of messages, and the threads that serve them.
//!
//! One thread at a time reads; when it has a request, it lets go of the stream and serves it. If nobody is
//! left who could read meanwhile, another thread is started, up to a bound; so one request that hangs holds
//! no other. When nothing has come for a while, all threads but one end, and memory goes back.

use crate::serve::{Request, Served, serve};
use crate::tree::{Tree, lock};
use crate::wire::{Header, IN_HEADER, MAX_MESSAGE, OUT_HEADER, Reply};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send, sockopt};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

/// Most threads that serve, and so most requests at a time.
const MAX_THREADS: usize = 32;
/// What serving takes of a stack, a piece of a directory among it.
const STACK: usize = 256 << 10;
/// Most bytes that are read at once before it is known how long a message is.
const PIECE: usize = 16 << 10;
/// After so long without a request the process is idle.
const IDLE_AFTER: Duration = Duration::from_millis(200);

/// Serves a tree until the end of the stream, and ends the process then.
///
/// # Errors
/// No thread can be started.
pub fn run(stream: OwnedFd, tree: Tree) -> io::Result<()> {
    let service = Arc::new(Service {
        incoming: Mutex::new(Incoming::new()),
        sending: Mutex::default(),
        stream,
        tree,
        readers: AtomicUsize::new(0),
        threads: AtomicUsize::new(0),
    });
    service.start_thread()?;
    loop {
        thread::park();
    }
}

struct Service {
    incoming: Mutex<Incoming>,
    /// Held while a reply is sent.
    sending: Mutex<()>,
    stream: OwnedFd,
    tree: Tree,
    /// Threads that read or wait to.
    readers: AtomicUsize,
    threads: AtomicUsize,
}

/// What has been read of the stream and not been taken.
struct Incoming {
    bytes: Vec<u8>,
    taken: usize,
    /// Reading waits without a bound.
    is_idle: bool,
    has_timeout: bool,
}

/// What a thread finds in the stream.
enum Next {
    Request,
    /// Nothing has come for a while.
    Nothing,
    /// The peer is gone, or makes no sense.
    End,
}

/// A thread's own memory.
#[derive(Default)]
struct Scratch {
    request: Vec<u8>,
    reply: Vec<u8>,
}

impl Incoming {
    const fn new() -> Self {
        Self {
            bytes: Vec::new(),
            taken: 0,
            is_idle: false,
            has_timeout: false,
        }
    }

    fn rest(&self) -> &[u8] {
        self.bytes.get(self.taken..).unwrap_or_default()
    }

    /// Takes the next message.
    fn next(&mut self, stream: &OwnedFd, message: &mut Vec<u8>) -> Next {
        message.clear();
        loop {
            if let Some(len) = Header::length(self.rest()) {
                if !(IN_HEADER..=MAX_MESSAGE).contains(&len) {
                    return Next::End;
                }
                if self.rest().len() >= len {
                    message.extend_from_slice(&self.rest()[..len]);
                    self.taken += len;
                    return Next::Request;
                }
                if len > PIECE {
                    return self.next_long(stream, message, len);
                }
            }
            match self.read_more(stream) {
                Ok(()) => {}
                Err(Errno::AGAIN) if self.rest().is_empty() => return Next::Nothing,
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(_) => return Next::End,
            }
        }
    }

    /// Reads the rest of a long message to where it is wanted.
    fn next_long(&mut self, stream: &OwnedFd, message: &mut Vec<u8>, len: usize) -> Next {
        message.extend_from_slice(self.rest());
        self.taken = self.bytes.len();
        let mut filled = message.len();
        message.resize(len, 0);
        while filled < len {
            match recv(stream, &mut message[filled..], RecvFlags::WAITALL) {
                Ok((_, 0)) => return Next::End,
                Ok((_, more)) => filled += more,
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(_) => return Next::End,
            }
        }
        Next::Request
    }

    fn read_more(&mut self, stream: &OwnedFd) -> Result<(), Errno> {
        if self.is_idle == self.has_timeout {
            let timeout = (!self.is_idle).then_some(IDLE_AFTER);
            let _ = sockopt::set_socket_timeout(stream, sockopt::Timeout::Recv, timeout);
            self.has_timeout = !self.is_idle;
        }
        self.bytes.drain(..self.taken);
        self.taken = 0;
        let len = self.bytes.len();
        self.bytes.resize(len + PIECE, 0);
        let received = recv(stream, &mut self.bytes[len..], RecvFlags::empty());
        let more = received.as_ref().map_or(0, |(_, more)| *more);
        self.bytes.truncate(len + more);
        match received? {
            (_, 0) => Err(Errno::PIPE),
            _ => {
                self.is_idle = false;
                Ok(())
            }
        }
    }
}

impl Service {
    fn start_thread(self: &Arc<Self>) -> io::Result<()> {
        let service = self.clone();
        self.threads.fetch_add(1, Ordering::Relaxed);
        // It is one of those that may read from now on, so that nobody starts another in its place.
        self.readers.fetch_add(1, Ordering::Relaxed);
        let started = thread::Builder::new()
            .stack_size(STACK)
            .spawn(move || service.work());
        if let Err(error) = started {
            self.threads.fetch_sub(1, Ordering::Relaxed);
            self.readers.fetch_sub(1, Ordering::Relaxed);
            return Err(error);
        }
        Ok(())
    }

    /// A thread's life. It is counted as a reader when it begins.
    fn work(self: Arc<Self>) {
        if hullbox_host::sys::mounts::unshare_umask().is_err() {
            // What it made would have another's mode.
            self.end();
        }
        let mut scratch = Scratch::default();
        loop {
            let mut incoming = lock(&self.incoming);
            let next = incoming.next(&self.stream, &mut scratch.request);
            match next {
                Next::Request => {}
                Next::Nothing => {
                    if self.readers.load(Ordering::Relaxed) > 1 {
                        // Somebody else reads on.
                        self.readers.fetch_sub(1, Ordering::Relaxed);
                        self.threads.fetch_sub(1, Ordering::Relaxed);
                        return;
                    }
                    incoming.is_idle = true;
                    incoming.bytes = Vec::new();
                    incoming.taken = 0;
                    drop(incoming);
                    scratch = Scratch::default();
                    hullbox_host::sys::program::trim_heap();
                    continue;
                }
                Next::End => self.end(),
            }
            drop(incoming);
            let left = self.readers.fetch_sub(1, Ordering::Relaxed) - 1;
            if left == 0 && self.threads.load(Ordering::Relaxed) < MAX_THREADS {
                // Without another one, requests wait for this one.
                let _ = self.start_thread();
            }
            self.answer(&mut scratch);
            self.readers.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Serves one request.
    fn answer(self: &Arc<Self>, scratch: &mut Scratch) {
        let Some((header, fields)) = Header::of(&scratch.request) else {
            self.end();
        };
        let mut reply = Reply::new(&mut scratch.reply);
        let outcome = serve(Request {
            tree: &self.tree,
            header,
            fields,
            reply: &mut reply,
        });
        let outcome = match outcome {
            Ok(Served::Later { needs_thread }) => {
                if needs_thread {
                    self.attend_to_locks();
                }
                return;
            }
            Ok(Served::Now) => Ok(()),
            Err(errno) => Err(errno),
        };
        if header.wants_reply() {
            self.send(reply.finish(header.unique, outcome));
        }
    }

    fn attend_to_locks(self: &Arc<Self>) {
        let service = self.clone();
        let attend = move || {
            let mut bytes = Vec::with_capacity(OUT_HEADER);
            service.tree.locks.attend(|unique, outcome| {
                service.send(Reply::new(&mut bytes).finish(unique, outcome));
            });
        };
        if thread::Builder::new()
            .stack_size(STACK)
            .spawn(attend)
            .is_err()
        {
            // Requests would never be answered.
            self.end();
        }
    }

    /// Sends a reply in one piece.
    fn send(&self, mut message: &[u8]) {
        let _sending = lock(&self.sending);
        while !message.is_empty() {
            match send(&self.stream, message, SendFlags::NOSIGNAL) {
                Ok(len) => message = message.get(len..).unwrap_or_default(),
                Err(Errno::INTR) => {}
                Err(_) => self.end(),
            }
        }
    }

    /// Ends the process. Whatever a thread is busy with, the kernel ends or finishes.
    fn end(&self) -> ! {
        std::process::exit(0);
    }
}
