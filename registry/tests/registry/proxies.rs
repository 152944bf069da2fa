//! Proxies that are SOCKS's, and proxies that refuse.

use crate::fake::Fake;
use crate::fixture::{Host, Image, line, resolve};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

type Log = Arc<Mutex<Vec<String>>>;

/// What a SOCKS proxy does.
#[derive(Clone, Copy)]
struct Socks {
    target: SocketAddr,
    /// The user and password that it wants.
    login: Option<(&'static str, &'static str)>,
    /// What it answers to a request to connect (RFC 1928, 6).
    answer: u8,
}

impl Socks {
    /// Begins to serve, and remembers whom it was asked for.
    async fn start(self) -> (SocketAddr, Log) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let log = Log::default();
        let own = log.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(self.serve(stream, own.clone()));
            }
        });
        (address, log)
    }

    async fn serve(self, mut stream: TcpStream, log: Log) -> std::io::Result<()> {
        let bytes = async |stream: &mut TcpStream, count: u8| {
            let mut bytes = vec![0; count.into()];
            stream.read_exact(&mut bytes).await.map(|_| bytes)
        };
        let [_, count] = [stream.read_u8().await?, stream.read_u8().await?];
        let methods = bytes(&mut stream, count).await?;
        let method = if self.login.is_some() { 2 } else { 0 };
        if !methods.contains(&method) {
            return stream.write_all(&[5, 0xFF]).await;
        }
        stream.write_all(&[5, method]).await?;
        if let Some((user, password)) = self.login {
            let _version = stream.read_u8().await?;
            let count = stream.read_u8().await?;
            let is_user = bytes(&mut stream, count).await? == user.as_bytes();
            let count = stream.read_u8().await?;
            let is_password = bytes(&mut stream, count).await? == password.as_bytes();
            let is_refused = u8::from(!is_user || !is_password);
            stream.write_all(&[1, is_refused]).await?;
            if is_refused == 1 {
                return Ok(());
            }
        }
        let head = bytes(&mut stream, 4).await?;
        // The name, and not an address that somebody has looked up for it.
        assert_eq!(head, [5, 1, 0, 3]);
        let count = stream.read_u8().await?;
        let name = String::from_utf8(bytes(&mut stream, count).await?).unwrap();
        let port = stream.read_u16().await?;
        log.lock().unwrap().push(format!("{name}:{port}"));
        let reply = [5, self.answer, 0, 1, 0, 0, 0, 0, 0, 0];
        stream.write_all(&reply).await?;
        if self.answer == 0 {
            let mut server = TcpStream::connect(self.target).await?;
            copy_bidirectional(&mut stream, &mut server).await?;
        }
        Ok(())
    }
}

async fn registry() -> Fake {
    let image = Image::small();
    Fake::start(move |asked| image.reply(asked)).await
}

/// A host for which `reg.test` may be asked without TLS.
fn host() -> Host {
    let host = Host::new();
    host.registries("[[registry]]\nlocation = 'reg.test'\ninsecure = true\n");
    host
}

#[tokio::test]
async fn a_socks_proxy_is_asked_for_the_name() {
    let fake = registry().await;
    let socks = Socks {
        target: fake.address,
        login: Some(("me", "pr0xy")),
        answer: 0,
    };
    let (address, log) = socks.start().await;
    for scheme in ["socks5", "socks5h"] {
        let mut host = host();
        host.set("ALL_PROXY", &format!("{scheme}://me:pr0xy@{address}"));
        resolve(&host.client(), "reg.test/x:1").await.unwrap();
    }
    let asked = std::mem::take(&mut *log.lock().unwrap());
    // TLS is tried first.
    assert_eq!(asked[..2], ["reg.test:443", "reg.test:80"]);
    let mut host = host();
    host.set("ALL_PROXY", &format!("socks5://me:wr0ng@{address}"));
    let text = line(&resolve(&host.client(), "reg.test/x:1").await.unwrap_err());
    let words = format!("the proxy {address} of ALL_PROXY wants another user name and password");
    assert!(text.contains(&words), "{text}");
    assert!(!text.contains("wr0ng"), "{text}");
    let socks = Socks {
        login: None,
        answer: 2,
        ..socks
    };
    let (address, _) = socks.start().await;
    host.set("ALL_PROXY", &format!("socks5://{address}"));
    let text = line(&resolve(&host.client(), "reg.test/x:1").await.unwrap_err());
    let words = format!("the proxy {address} of ALL_PROXY refuses to connect to it");
    assert!(text.contains(&words), "{text}");
}

/// A proxy that answers everything with this status.
async fn refusing(status: u16) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            let answer = format!(
                "HTTP/1.1 {status} No\r\nVia: 1.1 x\r\nContent-Length: 0\r\nConnection: close\r\n\
                 Proxy-Authenticate: Basic realm=\"x\"\r\n\r\n"
            );
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    address
}

#[tokio::test]
async fn a_proxy_that_refuses_is_named() {
    let gone = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    };
    for (address, words) in [
        (refusing(407).await, "wants another user name and password"),
        (refusing(403).await, "refuses to connect to it"),
        (refusing(503).await, "refuses to connect to it"),
        (gone, "cannot be reached: Connection refused"),
    ] {
        let mut host = Host::new();
        host.set("HTTPS_PROXY", &format!("http://me:pr0xy@{address}"));
        let error = resolve(&host.client(), "reg.test/x:1").await.unwrap_err();
        let text = line(&error);
        let words = format!("cannot reach reg.test: the proxy {address} of HTTPS_PROXY {words}");
        assert!(text.contains(&words), "{text}");
        assert!(!text.contains("pr0xy"), "{text}");
        // It will not change its mind: nothing is tried again.
        assert_eq!(host.retries(), 0, "{text}");
    }
    // Without TLS it is the proxy that answers, and not the registry.
    for (status, words) in [
        (407, "wants another user name and password"),
        (403, "answers 403"),
        (503, "answers 503"),
    ] {
        let address = refusing(status).await;
        let mut host = host();
        host.set("ALL_PROXY", &address.to_string());
        let error = resolve(&host.client(), "reg.test/x:1").await.unwrap_err();
        let text = line(&error);
        let words = format!("the proxy {address} of ALL_PROXY {words}");
        assert!(text.contains(&words), "{text}");
    }
}
