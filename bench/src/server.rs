//! Whom the containers talk to while their networks are measured.
//!
//! A client connects, and may ask for one thing: a letter, and for how many milliseconds (four bytes,
//! little endian).
//!
//! | letter | then |
//! |---|---|
//! | `e` | what arrives is sent back |
//! | `s` | what arrives is counted; at its end the client is sent the count (eight bytes, little endian) |
//! | `r` | bytes are sent for so long |
//!
//! `probe/src/network.rs` is the client.

use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with, sockopt};
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Connections that wait to be accepted: more than all clients make at once.
const BACKLOG: i32 = 1024;
/// Connections that are served at once; further ones are closed.
const MAX_SERVED: usize = 64;
/// How long a client may say nothing, and how long bytes are sent to it.
const LIMIT: Duration = Duration::from_secs(20);
const BLOCK_BYTES: usize = 128 << 10;

/// A server, for as long as this value lives.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    stops: Arc<AtomicBool>,
    accepting: Option<JoinHandle<()>>,
}

impl Server {
    /// One on the host's loopback, where a container's `host-gateway` leads.
    ///
    /// # Errors
    /// The socket cannot be made.
    pub fn on_loopback() -> io::Result<Self> {
        Self::at(IpAddr::V4(Ipv4Addr::LOCALHOST))
    }

    /// One at this address and a free port.
    pub(crate) fn at(ip: IpAddr) -> io::Result<Self> {
        let family = match ip {
            IpAddr::V4(_) => AddressFamily::INET,
            IpAddr::V6(_) => AddressFamily::INET6,
        };
        let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        sockopt::set_socket_reuseaddr(&socket, true)?;
        bind(&socket, &SocketAddr::new(ip, 0))?;
        listen(&socket, BACKLOG)?;
        let listener = TcpListener::from(socket);
        let address = listener.local_addr()?;
        let stops = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&stops);
        let accepting = thread::Builder::new()
            .name("bench-server".to_owned())
            .spawn(move || accept(&listener, &stop))?;
        Ok(Self {
            address,
            stops,
            accepting: Some(accepting),
        })
    }

    /// Its port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.address.port()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stops.store(true, Ordering::Relaxed);
        // Wakes whoever accepts. Where nobody can connect any more it goes with the process.
        if TcpStream::connect_timeout(&self.address, LIMIT).is_ok()
            && let Some(accepting) = self.accepting.take()
        {
            // It has nothing to say.
            let _ = accepting.join();
        }
    }
}

fn accept(listener: &TcpListener, stop: &AtomicBool) {
    let served = Arc::new(AtomicUsize::new(0));
    while !stop.load(Ordering::Relaxed) {
        let Ok((stream, _)) = listener.accept() else {
            // For want of descriptors, which connections give back.
            thread::sleep(Duration::from_millis(10));
            continue;
        };
        if served.load(Ordering::Relaxed) >= MAX_SERVED {
            continue;
        }
        served.fetch_add(1, Ordering::Relaxed);
        let count = Arc::clone(&served);
        let thread = thread::Builder::new().name("bench-flow".to_owned());
        let spawned = thread.spawn(move || {
            // A client that goes early has its own words for it.
            let _ = serve(stream);
            count.fetch_sub(1, Ordering::Relaxed);
        });
        if spawned.is_err() {
            served.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

fn serve(mut stream: TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    stream.set_nodelay(true)?;
    let mut asked = [0; 5];
    stream.read_exact(&mut asked)?;
    let [what, millis @ ..] = asked;
    let time = Duration::from_millis(u32::from_le_bytes(millis).into()).min(LIMIT);
    match what {
        b'e' => echo(stream),
        b's' => count(stream),
        b'r' => emit(stream, time),
        _ => Ok(()),
    }
}

fn echo(mut stream: TcpStream) -> io::Result<()> {
    let mut block = vec![0; BLOCK_BYTES];
    loop {
        let got = stream.read(&mut block)?;
        if got == 0 {
            return Ok(());
        }
        stream.write_all(block.get(..got).unwrap_or_default())?;
    }
}

fn count(mut stream: TcpStream) -> io::Result<()> {
    let mut block = vec![0; BLOCK_BYTES];
    let mut bytes = 0u64;
    loop {
        match stream.read(&mut block)? {
            0 => return stream.write_all(&bytes.to_le_bytes()),
            got => bytes += got as u64,
        }
    }
}

fn emit(mut stream: TcpStream, time: Duration) -> io::Result<()> {
    let block = vec![0xa5; BLOCK_BYTES];
    let start = Instant::now();
    loop {
        stream.write_all(&block)?;
        if start.elapsed() >= time {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(server: &Server, what: u8, millis: u32) -> TcpStream {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, server.port())).unwrap();
        let [a, b, c, d] = millis.to_le_bytes();
        stream.write_all(&[what, a, b, c, d]).unwrap();
        stream
    }

    #[test]
    fn it_answers_counts_and_sends_and_is_gone_at_its_end() {
        let server = Server::on_loopback().unwrap();
        // Whoever says nothing is in nobody's way.
        let _silent = TcpStream::connect((Ipv4Addr::LOCALHOST, server.port())).unwrap();
        let mut echo = ask(&server, b'e', 1);
        for word in [b"ask", b"and"] {
            let mut answer = [0; 3];
            echo.write_all(word).unwrap();
            echo.read_exact(&mut answer).unwrap();
            assert_eq!(&answer, word);
        }
        let mut counted = ask(&server, b's', 1);
        counted.write_all(&[0; 300_000]).unwrap();
        counted.shutdown(std::net::Shutdown::Write).unwrap();
        let mut bytes = [0; 8];
        counted.read_exact(&mut bytes).unwrap();
        assert_eq!(u64::from_le_bytes(bytes), 300_000);
        let mut all = Vec::new();
        ask(&server, b'r', 1).read_to_end(&mut all).unwrap();
        assert!(all.len() >= BLOCK_BYTES && all.iter().all(|byte| *byte == 0xa5));
        let port = server.port();
        drop(server);
        assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err());
    }
}
