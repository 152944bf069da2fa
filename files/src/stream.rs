//! The stream of messages, and the threads that serve them.
//!
//! One thread leads: it reads a request and serves it, and as long as requests are short nobody else is woken,
//! which for most of them would cost more than they do. Before it serves one that may take its time, or
//! behind which another waits, it lets another thread lead. One more is spare; while requests come it looks
//! every few milliseconds whether the leader is stuck in one, and leads in its place then. So one that hangs
//! holds no other. Threads are started when there is no spare one, up to a bound, and end when there are too
//! many; what they used is given back when nothing has come for a while.

use crate::serve::{Request, Served, serve};
use crate::tree::{Tree, lock};
use crate::wire::{Header, IN_HEADER, MAX_MESSAGE, OUT_HEADER, Reply, opcode};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send, sockopt};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Most threads that serve, and so most requests at a time.
const MAX_THREADS: usize = 32;
/// What serving takes of a stack, a piece of a directory among it.
const STACK: usize = 256 << 10;
/// Most bytes that are read at once before it is known how long a message is.
const PIECE: usize = 16 << 10;
/// After so long without a request the process is idle.
const IDLE_AFTER: Duration = Duration::from_millis(200);
/// A request that takes longer than this holds the others no more.
const TICK: Duration = Duration::from_millis(2);
/// After so many of them without a request nobody looks any more.
const QUIET_TICKS: u32 = 25;

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
        gate: Mutex::new(Gate {
            leader: None,
            serving: None,
            spare: 0,
            threads: 0,
            names: 0,
            requests: 0,
            is_quiet: false,
        }),
        change: Condvar::new(),
    });
    let mut gate = lock(&service.gate);
    service.start_thread(&mut gate)?;
    drop(gate);
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
    gate: Mutex<Gate>,
    change: Condvar,
}

/// Who reads.
struct Gate {
    /// The thread that leads, if one does.
    leader: Option<u64>,
    /// Since when it has been serving a request, and not reading.
    serving: Option<Instant>,
    /// Threads that wait to lead.
    spare: usize,
    threads: usize,
    /// Names of threads, in their order.
    names: u64,
    /// Requests so far.
    requests: u64,
    /// The spare thread sleeps until it is woken: no requests come.
    is_quiet: bool,
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

/// Whether a request may be served for longer than another thread takes to wake up.
fn takes_time(request: &[u8]) -> bool {
    /// Bytes that are copied meanwhile.
    const LONG: usize = 32 << 10;
    let Some((header, mut fields)) = Header::of(request) else {
        return false;
    };
    match header.opcode {
        opcode::READ => {
            // Behind a handle and an offset.
            let size = fields.bytes(16).and_then(|_| fields.u32()).unwrap_or(0);
            usize::try_from(size).is_ok_and(|size| size > LONG)
        }
        opcode::WRITE => request.len() > LONG,
        opcode::FSYNC
        | opcode::FSYNCDIR
        | opcode::SYNCFS
        | opcode::FALLOCATE
        | opcode::COPY_FILE_RANGE => true,
        _ => false,
    }
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
    fn start_thread(self: &Arc<Self>, gate: &mut Gate) -> io::Result<()> {
        let service = self.clone();
        gate.names += 1;
        let name = gate.names;
        thread::Builder::new()
            .stack_size(STACK)
            .spawn(move || service.work(name))?;
        gate.threads += 1;
        // It counts from now on, so that nobody starts another in its place.
        gate.spare += 1;
        Ok(())
    }

    /// A thread's life. It is spare when it begins.
    fn work(self: Arc<Self>, name: u64) {
        if hullbox_host::sys::mounts::unshare_umask().is_err() {
            // What it made would have another's mode.
            self.end();
        }
        let mut scratch = Scratch::default();
        while self.wait_to_lead(name, &mut scratch) {
            while self.lead(name, &mut scratch) {}
            let mut gate = lock(&self.gate);
            gate.spare += 1;
        }
    }

    /// Waits until this thread leads. False if there are others enough to wait.
    fn wait_to_lead(&self, name: u64, scratch: &mut Scratch) -> bool {
        let mut gate = lock(&self.gate);
        let mut seen = gate.requests;
        let mut quiet_ticks = 0;
        loop {
            let is_stuck = |since: Instant| since.elapsed() >= TICK;
            if gate.leader.is_none() || gate.serving.is_some_and(is_stuck) {
                gate.leader = Some(name);
                gate.serving = None;
                gate.spare -= 1;
                return true;
            }
            let is_surplus = gate.spare > 1;
            let pause = match (is_surplus, gate.is_quiet) {
                (true, _) => IDLE_AFTER,
                (false, false) => TICK,
                (false, true) => Duration::MAX,
            };
            let waited = self.change.wait_timeout(gate, pause);
            let (next, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            gate = next;
            if !timeout.timed_out() {
                continue;
            }
            if is_surplus && gate.spare > 1 && gate.leader.is_some() {
                gate.spare -= 1;
                gate.threads -= 1;
                return false;
            }
            quiet_ticks = if gate.requests == seen {
                quiet_ticks + 1
            } else {
                0
            };
            seen = gate.requests;
            gate.is_quiet = quiet_ticks >= QUIET_TICKS && gate.serving.is_none();
            if gate.is_quiet {
                *scratch = Scratch::default();
            }
        }
    }

    /// Reads a request and serves it. False if this thread does not lead any more.
    fn lead(self: &Arc<Self>, name: u64, scratch: &mut Scratch) -> bool {
        let mut incoming = lock(&self.incoming);
        let has_more = match incoming.next(&self.stream, &mut scratch.request) {
            Next::Request => !incoming.rest().is_empty(),
            Next::Nothing => {
                incoming.is_idle = true;
                incoming.bytes = Vec::new();
                incoming.taken = 0;
                drop(incoming);
                *scratch = Scratch::default();
                hullbox_host::sys::program::trim_heap();
                return true;
            }
            Next::End => self.end(),
        };
        drop(incoming);
        let hands_over = has_more || takes_time(&scratch.request);
        let mut gate = lock(&self.gate);
        gate.requests = gate.requests.wrapping_add(1);
        if hands_over {
            gate.leader = None;
        } else {
            gate.serving = Some(Instant::now());
        }
        if gate.spare == 0 && gate.threads < MAX_THREADS {
            // Without another one, requests wait for this one.
            let _ = self.start_thread(&mut gate);
        } else if hands_over || std::mem::take(&mut gate.is_quiet) {
            self.change.notify_one();
        }
        drop(gate);
        self.answer(scratch);
        let mut gate = lock(&self.gate);
        if gate.leader != Some(name) {
            return false;
        }
        gate.serving = None;
        true
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
