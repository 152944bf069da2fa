//! The host's half of a conversation with whatever runs processes: a guest's agent, or a namespace
//! container's server.

#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test's helpers fail as its own lines do, and each test uses some of them"
)]

use hullbox_protocol::{
    Builtin, Decoder, ExitStatus, Failure, Frame, ProcessSpec, Reply, Request, Stream, encode_into,
};
use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// What `cp` runs to read a container's files…
pub fn archive_out(path: &str) -> Builtin {
    Builtin::ArchiveOut {
        path: path.into(),
        follow: false,
    }
}

/// …and to write them, with the owner that the container has.
pub fn archive_in(path: &str) -> Builtin {
    Builtin::ArchiveIn {
        path: path.into(),
        keep_owner: false,
    }
}

/// What became of a session.
#[derive(Debug, Default)]
pub struct Session {
    pub started: bool,
    pub output: Vec<u8>,
    pub error: Vec<u8>,
    pub end: Option<Result<ExitStatus, Failure>>,
}

impl Session {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.output).into_owned()
    }

    pub fn code(&self) -> u8 {
        match &self.end {
            Some(Ok(status)) => status.exit_code(),
            Some(Err(failure)) => failure.exit_code(),
            None => u8::MAX,
        }
    }
}

/// One conversation.
#[derive(Debug)]
pub struct Talk {
    socket: UnixStream,
    decoder: Decoder,
    pub sessions: HashMap<u32, Session>,
    replies: HashMap<u32, Reply>,
    next: u32,
}

impl Talk {
    pub fn new(socket: UnixStream) -> Self {
        let time = Some(Duration::from_secs(30));
        socket.set_read_timeout(time).unwrap();
        Self {
            socket,
            decoder: Decoder::new(),
            sessions: HashMap::new(),
            replies: HashMap::new(),
            next: 1,
        }
    }

    /// Leaves without a word.
    pub fn hang_up(&self) {
        let _ = self.socket.shutdown(Shutdown::Both);
    }

    pub fn send(&mut self, frame: &Frame) {
        let mut wire = Vec::new();
        encode_into(frame, &mut wire).unwrap();
        self.socket.write_all(&wire).unwrap();
    }

    pub fn exec_as(&mut self, session: u32, spec: ProcessSpec) {
        self.sessions.insert(session, Session::default());
        let spec = Box::new(spec);
        self.send(&Frame::Exec { session, spec });
    }

    pub fn exec(&mut self, spec: ProcessSpec) -> u32 {
        let session = self.next;
        self.next += 1;
        self.exec_as(session, spec);
        session
    }

    pub fn until(&mut self, done: impl Fn(&Self) -> bool) {
        while !done(self) {
            let Some(frame) = self.decoder.next_frame().unwrap() else {
                let mut chunk = [0; 65536];
                let read = self.socket.read(&mut chunk).unwrap();
                assert!(read > 0, "closed: {:?}", self.sessions);
                self.decoder.push(&chunk[..read]);
                continue;
            };
            self.take(frame);
        }
    }

    fn take(&mut self, frame: Frame) {
        match frame {
            Frame::Started { session, .. } => self.session(session).started = true,
            Frame::Failed { session, failure } => self.session(session).end = Some(Err(failure)),
            Frame::Exited { session, status } => self.session(session).end = Some(Ok(status)),
            Frame::Data {
                session,
                stream,
                bytes,
            } => {
                let length = u32::try_from(bytes.len()).unwrap();
                let target = self.session(session);
                match stream {
                    Stream::Stderr => target.error.extend(bytes),
                    _ => target.output.extend(bytes),
                }
                self.send(&Frame::Credit {
                    session,
                    stream,
                    bytes: length,
                });
            }
            Frame::Reply { number, reply } => {
                self.replies.insert(number, reply);
            }
            Frame::Log(text) => panic!("the other side says: {text}"),
            _ => {}
        }
    }

    fn session(&mut self, session: u32) -> &mut Session {
        self.sessions.entry(session).or_default()
    }

    pub fn end(&mut self, session: u32) -> &Session {
        self.until(|talk| talk.sessions[&session].end.is_some());
        &self.sessions[&session]
    }

    pub fn run(&mut self, spec: ProcessSpec) -> &Session {
        let session = self.exec(spec);
        self.end(session)
    }

    /// With this on its standard input, which `spec` has to say that it reads.
    pub fn run_with(&mut self, spec: ProcessSpec, input: &[u8]) -> &Session {
        let session = self.exec(spec);
        for chunk in input.chunks(32 * 1024) {
            self.input(session, chunk);
        }
        let stream = Stream::Stdin;
        self.send(&Frame::Eof { session, stream });
        self.end(session)
    }

    pub fn input(&mut self, session: u32, bytes: &[u8]) {
        let (stream, bytes) = (Stream::Stdin, bytes.to_vec());
        self.send(&Frame::Data {
            session,
            stream,
            bytes,
        });
    }

    pub fn builtin(&mut self, builtin: Builtin, input: &[u8]) -> &Session {
        let spec = ProcessSpec {
            builtin: Some(builtin),
            stdin: true,
            ..ProcessSpec::default()
        };
        self.run_with(spec, input)
    }

    pub fn ask(&mut self, request: Request) -> Reply {
        let number = self.next;
        self.next += 1;
        self.send(&Frame::Request { number, request });
        self.until(|talk| talk.replies.contains_key(&number));
        self.replies.remove(&number).unwrap()
    }
}
