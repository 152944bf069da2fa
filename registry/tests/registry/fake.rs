//! A server of HTTP/1.1 that does what a test tells it, and remembers what it was asked.

use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Asked {
    pub method: String,
    /// Path and query.
    pub path: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Asked {
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut all = self.headers.iter();
        let (_, value) = all.find(|(own, _)| own.eq_ignore_ascii_case(name))?;
        Some(value)
    }

    /// The offset that a Range asks for.
    pub fn range(&self) -> Option<usize> {
        let range = self.header("range")?;
        range
            .strip_prefix("bytes=")?
            .strip_suffix('-')?
            .parse()
            .ok()
    }
}

/// What is sent.
#[derive(Debug, Clone)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Body,
}

/// How a body is sent.
#[derive(Debug, Clone)]
pub enum Body {
    /// With its length.
    Whole(Vec<u8>),
    /// In HTTP's chunks, without a length.
    Chunks(Vec<u8>),
    /// Its length, then this much of it, then the connection ends.
    Cut(Vec<u8>, usize),
    /// This much, then nothing more, and the connection stays.
    Stall(Vec<u8>, usize),
    /// Chunks without end.
    Endless,
    /// A byte now and then.
    Drip(Vec<u8>, Duration),
    /// No answer at all; the connection stays.
    Silence,
}

impl Reply {
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: Body::Whole(body.into()),
        }
    }

    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    pub fn sent_as(mut self, body: Body) -> Self {
        self.body = body;
        self
    }

    pub fn not_found() -> Self {
        Self::error(404, "MANIFEST_UNKNOWN", "manifest unknown")
    }

    pub fn error(status: u16, code: &str, message: &str) -> Self {
        let text = serde_json::json!({"errors": [{"code": code, "message": message}]});
        Self::new(status, text.to_string())
    }
}

type Handler = dyn Fn(&Asked) -> Reply + Send + Sync;
/// How much of a request's body is read before the server stops reading.
type Appetite = dyn Fn(&Asked) -> Option<usize> + Send + Sync;

struct Shared {
    handler: Box<Handler>,
    appetite: Box<Appetite>,
    log: Mutex<Vec<Asked>>,
}

/// A server, until it is dropped.
pub struct Fake {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Fake {
    pub async fn start(handler: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
        Self::launch("127.0.0.1:0", None, handler, |_| None).await
    }

    pub async fn with_tls(
        tls: TlsAcceptor,
        handler: impl Fn(&Asked) -> Reply + Send + Sync + 'static,
    ) -> Self {
        Self::launch("127.0.0.1:0", Some(tls), handler, |_| None).await
    }

    pub async fn with_appetite(
        handler: impl Fn(&Asked) -> Reply + Send + Sync + 'static,
        appetite: impl Fn(&Asked) -> Option<usize> + Send + Sync + 'static,
    ) -> Self {
        Self::launch("127.0.0.1:0", None, handler, appetite).await
    }

    async fn launch(
        address: &str,
        tls: Option<TlsAcceptor>,
        handler: impl Fn(&Asked) -> Reply + Send + Sync + 'static,
        appetite: impl Fn(&Asked) -> Option<usize> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            handler: Box::new(handler),
            appetite: Box::new(appetite),
            log: Mutex::default(),
        });
        let own = shared.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (shared, tls) = (own.clone(), tls.clone());
                // Head and body are written one after the other.
                stream.set_nodelay(true).unwrap();
                tokio::spawn(async move {
                    // A client that goes away is no error here.
                    let _ = match tls {
                        None => serve(stream, &shared).await,
                        Some(tls) => match tls.accept(stream).await {
                            Ok(stream) => serve(stream, &shared).await,
                            Err(error) => Err(error),
                        },
                    };
                });
            }
        });
        Self {
            address,
            shared,
            task,
        }
    }

    /// `127.0.0.1:PORT`.
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// All requests so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.shared.log.lock().unwrap().clone()
    }

    /// `GET /v2/…` of each request so far.
    pub fn lines(&self) -> Vec<String> {
        let line = |asked: &Asked| format!("{} {}", asked.method, asked.path);
        self.asked().iter().map(line).collect()
    }
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    shared: &Shared,
) -> io::Result<()> {
    let mut buffer = Vec::new();
    loop {
        let Some(mut asked) = read_head(&mut stream, &mut buffer).await? else {
            return Ok(());
        };
        if let Some(most) = (shared.appetite)(&asked) {
            asked.body = read_exact(&mut stream, &mut buffer, most).await?;
            shared.log.lock().unwrap().push(asked.clone());
            (shared.handler)(&asked);
            std::future::pending::<()>().await;
        }
        let length = asked
            .header("content-length")
            .and_then(|text| text.parse().ok());
        asked.body = read_exact(&mut stream, &mut buffer, length.unwrap_or(0)).await?;
        shared.log.lock().unwrap().push(asked.clone());
        let reply = (shared.handler)(&asked);
        send(&mut stream, reply, asked.method == "HEAD").await?;
    }
}

async fn read_head<S: AsyncRead + Unpin>(
    stream: &mut S,
    buffer: &mut Vec<u8>,
) -> io::Result<Option<Asked>> {
    loop {
        if let Some(end) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
            buffer.drain(..end + 4);
            let mut lines = head.lines();
            let mut first = lines.next().unwrap_or_default().split(' ');
            let mut next = || first.next().unwrap_or_default().to_owned();
            return Ok(Some(Asked {
                method: next(),
                path: next(),
                headers: lines
                    .filter_map(|line| line.split_once(": "))
                    .map(|(name, value)| (name.to_owned(), value.to_owned()))
                    .collect(),
                body: Vec::new(),
            }));
        }
        // What is no HTTP, such as a TLS handshake, is turned away.
        if buffer
            .first()
            .is_some_and(|first| !first.is_ascii_uppercase())
        {
            return Ok(None);
        }
        if stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    }
}

async fn read_exact<S: AsyncRead + Unpin>(
    stream: &mut S,
    buffer: &mut Vec<u8>,
    length: usize,
) -> io::Result<Vec<u8>> {
    while buffer.len() < length {
        if stream.read_buf(buffer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(buffer.drain(..length).collect())
}

async fn send<S: AsyncWrite + Unpin>(
    stream: &mut S,
    reply: Reply,
    is_head: bool,
) -> io::Result<()> {
    let mut head = format!("HTTP/1.1 {} X\r\n", reply.status);
    for (name, value) in &reply.headers {
        let _ = write!(head, "{name}: {value}\r\n");
    }
    match &reply.body {
        Body::Silence => return std::future::pending().await,
        Body::Chunks(_) | Body::Endless => head += "transfer-encoding: chunked\r\n",
        _ if reply.status == 204 => {}
        Body::Whole(bytes) | Body::Cut(bytes, _) | Body::Stall(bytes, _) | Body::Drip(bytes, _) => {
            let _ = write!(head, "content-length: {}\r\n", bytes.len());
        }
    }
    head += "\r\n";
    stream.write_all(head.as_bytes()).await?;
    if is_head {
        return stream.flush().await;
    }
    match reply.body {
        Body::Silence => {}
        Body::Whole(bytes) => stream.write_all(&bytes).await?,
        Body::Chunks(bytes) => {
            for piece in bytes.chunks(10_000) {
                send_chunk(stream, piece).await?;
            }
            stream.write_all(b"0\r\n\r\n").await?;
        }
        Body::Cut(bytes, at) => {
            stream.write_all(&bytes[..at]).await?;
            stream.flush().await?;
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        Body::Stall(bytes, at) => {
            stream.write_all(&bytes[..at]).await?;
            stream.flush().await?;
            std::future::pending::<()>().await;
        }
        Body::Endless => loop {
            send_chunk(stream, &[0; 10_000]).await?;
        },
        Body::Drip(bytes, pause) => {
            for byte in bytes {
                stream.write_all(&[byte]).await?;
                stream.flush().await?;
                tokio::time::sleep(pause).await;
            }
        }
    }
    stream.flush().await
}

async fn send_chunk<S: AsyncWrite + Unpin>(stream: &mut S, piece: &[u8]) -> io::Result<()> {
    stream
        .write_all(format!("{:x}\r\n", piece.len()).as_bytes())
        .await?;
    stream.write_all(piece).await?;
    stream.write_all(b"\r\n").await
}
