//! Asking name servers: over UDP, and over TCP what does not fit.

use super::config::Config;
use super::message::{Reply, TYPE_A, TYPE_AAAA, question, reply};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

/// Largest message over UDP without extensions is 512 bytes; servers send more all the same.
const MAX_UDP_BYTES: usize = 4096;

/// What the servers know of one full name.
pub(super) enum Answer {
    /// IPv6 first, as glibc sorts them where both can be reached; who connects tries both.
    Addresses(Vec<IpAddr>),
    /// There is no such name, or it has no address.
    None,
    /// No server could tell.
    Silence,
}

/// Asks for a full name's addresses of both kinds at once.
pub(super) async fn ask(config: &Config, port: u16, name: &str) -> Answer {
    let (v6, v4) = tokio::join!(
        records(config, port, name, TYPE_AAAA),
        records(config, port, name, TYPE_A)
    );
    match (v6, v4) {
        (None, None) => Answer::Silence,
        (v6, v4) => {
            let is_known = v6.is_some() && v4.is_some();
            let mut addresses = v6.unwrap_or_default();
            addresses.extend(v4.unwrap_or_default());
            match (addresses.is_empty(), is_known) {
                (false, _) => Answer::Addresses(addresses),
                (true, true) => Answer::None,
                (true, false) => Answer::Silence,
            }
        }
    }
}

/// The records of one type; `None` if no server could tell.
async fn records(config: &Config, port: u16, name: &str, kind: u16) -> Option<Vec<IpAddr>> {
    for _ in 0..config.attempts {
        for server in &config.servers {
            let mut id = [0; 2];
            if rustix::rand::getrandom(&mut id, rustix::rand::GetRandomFlags::empty()).is_err() {
                return None;
            }
            let Some(asked) = question(u16::from_be_bytes(id), name, kind) else {
                // A name that cannot be is one that nobody has.
                return Some(Vec::new());
            };
            let server = SocketAddr::new(*server, port);
            match timeout(config.timeout, over_udp(server, &asked, kind)).await {
                Ok(Ok(Reply::Addresses(addresses))) => return Some(addresses),
                Ok(Ok(Reply::Truncated)) => {
                    let longer = timeout(config.timeout, over_tcp(server, &asked, kind)).await;
                    if let Ok(Ok(Reply::Addresses(addresses))) = longer {
                        return Some(addresses);
                    }
                }
                // The next server may know.
                Ok(Ok(Reply::Failure | Reply::Foreign) | Err(_)) | Err(_) => {}
            }
        }
    }
    None
}

async fn over_udp(server: SocketAddr, asked: &[u8], kind: u16) -> io::Result<Reply> {
    let any: IpAddr = if server.is_ipv4() {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    };
    // Connected: others' datagrams do not arrive.
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(asked).await?;
    let mut buffer = [0; MAX_UDP_BYTES];
    loop {
        let length = socket.recv(&mut buffer).await?;
        match reply(asked, kind, &buffer[..length]) {
            Reply::Foreign => {}
            reply => return Ok(reply),
        }
    }
}

async fn over_tcp(server: SocketAddr, asked: &[u8], kind: u16) -> io::Result<Reply> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(asked.len()).map_err(io::Error::other)?;
    let mut framed = length.to_be_bytes().to_vec();
    framed.extend_from_slice(asked);
    stream.write_all(&framed).await?;
    let mut message = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut message).await?;
    Ok(reply(asked, kind, &message))
}
