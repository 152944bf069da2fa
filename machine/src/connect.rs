//! The way into the machine: a Unix socket that stands for its vsock.

use super::plan::RuntimeFiles;
use hullbox_protocol::{DecodeError, Decoder, Frame, Hello, PROTOCOL_VERSION, Sender};
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// A machine under load answers late; one that is gone does not answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// `OK 4294967295\n` and some.
const MAX_ANSWER: usize = 32;

/// Why there is no session with the machine.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// Nobody there, or gone in the middle.
    #[error("the helper machine does not answer")]
    Io(#[from] io::Error),
    /// It answered something else than the convention has.
    #[error("the helper machine's socket does not speak vsock")]
    Handshake,
    /// Not our protocol.
    #[error("the helper machine's agent does not speak our protocol")]
    Decode(#[from] DecodeError),
    /// It reported a failure instead.
    #[error("the helper machine's agent failed: {0}")]
    Agent(String),
    /// Another version of ourselves started it.
    #[error(
        "the helper machine speaks version {found} of the protocol, not {PROTOCOL_VERSION}; \
         run `hullbox machine stop` and try again"
    )]
    Version {
        /// Its version.
        found: u32,
    },
}

/// Connects to a port of the machine.
///
/// # Errors
/// [`ConnectError::Io`] when it is not running, [`ConnectError::Handshake`].
pub fn dial(files: &RuntimeFiles, port: u32) -> Result<UnixStream, ConnectError> {
    let mut stream = UnixStream::connect(files.vsock())?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    stream.write_all(format!("CONNECT {port}\n").as_bytes())?;
    let mut answer = Vec::new();
    // Byte by byte: what follows the line belongs to the peer.
    while answer.last() != Some(&b'\n') && answer.len() < MAX_ANSWER {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        answer.push(byte[0]);
    }
    if !answer.starts_with(b"OK ") {
        return Err(ConnectError::Handshake);
    }
    Ok(stream)
}

/// Opens a session: connects and waits for the agent's `Hello`. From then on the machine counts
/// as busy and does not stop by itself.
///
/// # Errors
/// [`ConnectError`].
pub fn open_session(files: &RuntimeFiles) -> Result<UnixStream, ConnectError> {
    let mut stream = dial(files, hullbox_protocol::MACHINE_PORT)?;
    let hello = read_hello(&mut stream)?;
    check_version(&hello)?;
    stream.set_read_timeout(None)?;
    Ok(stream)
}

/// Reads one `Hello` and not a byte more.
///
/// # Errors
/// [`ConnectError`].
pub fn read_hello(stream: &mut UnixStream) -> Result<Hello, ConnectError> {
    let mut decoder = Decoder::of(Sender::Agent);
    loop {
        if let Some(frame) = decoder.next_frame()? {
            return match frame {
                Frame::Hello(hello) => Ok(hello),
                Frame::Log(reason) => Err(ConnectError::Agent(reason)),
                _ => Err(ConnectError::Handshake),
            };
        }
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        decoder.push(&byte);
    }
}

/// Refuses an agent of another version.
///
/// # Errors
/// [`ConnectError::Version`].
pub const fn check_version(hello: &Hello) -> Result<(), ConnectError> {
    if hello.version != PROTOCOL_VERSION {
        return Err(ConnectError::Version {
            found: hello.version,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use hullbox_protocol::encode_into;
    use std::os::unix::net::UnixListener;
    use std::thread;

    fn with_server(answer: Vec<u8>) -> Result<UnixStream, ConnectError> {
        static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let dir =
            std::env::temp_dir().join(format!("hullbox-dial-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let files = RuntimeFiles::new(dir.clone());
        let listener = UnixListener::bind(files.vsock()).unwrap();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut line = [0; 13];
            stream.read_exact(&mut line).unwrap();
            assert_eq!(&line, b"CONNECT 1025\n");
            stream.write_all(&answer).unwrap();
        });
        let session = open_session(&files);
        server.join().unwrap();
        std::fs::remove_dir_all(dir).unwrap();
        session
    }

    fn hello(version: u32) -> Vec<u8> {
        let mut bytes = b"OK 1025\n".to_vec();
        let hello = Hello {
            version,
            uptime_us: 1,
        };
        encode_into(&Frame::Hello(hello), &mut bytes).unwrap();
        bytes
    }

    #[test]
    fn a_session_starts_with_hello_and_leaves_the_rest() {
        let mut bytes = hello(PROTOCOL_VERSION);
        bytes.extend_from_slice(b"rest");
        let mut rest = String::new();
        let mut stream = with_server(bytes).unwrap();
        stream.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "rest");
    }

    #[test]
    fn strangers_are_refused() {
        assert!(matches!(
            with_server(hello(PROTOCOL_VERSION + 1)),
            Err(ConnectError::Version { .. })
        ));
        assert!(matches!(
            with_server(b"HTTP/1.1 400 Bad Request, and more than fits".to_vec()),
            Err(ConnectError::Handshake)
        ));
        assert!(matches!(
            with_server(b"OK 1".to_vec()),
            Err(ConnectError::Io(_))
        ));
    }
}
