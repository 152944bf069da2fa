//! Names of hosts to addresses. A static program must not call glibc's `getaddrinfo`: it would load
//! the host's NSS modules, made for another libc. So this reads `/etc/hosts` and `/etc/resolv.conf`
//! and asks the name servers itself; what they do not know is asked of `getent`, a program of the
//! host's own, which knows its other sources (mDNS, machines of systemd, directories). No public
//! server is ever asked.

mod config;
mod message;
mod server;

use config::Config;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use server::{Answer, ask};
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long an answer is good; a client lives for one command.
const KEEP: Duration = Duration::from_secs(60);
/// Most addresses of one name that are tried.
const MAX_ADDRESSES: usize = 16;
/// Largest file that is read, in bytes.
const MAX_FILE_BYTES: u64 = 4 << 20;
const DNS_PORT: u16 = 53;

/// Why a name has no address.
#[derive(Debug, Clone, thiserror::Error)]
enum DnsError {
    #[error("no such host: {0}")]
    Unknown(String),
    #[error("the name servers ({servers}) give no answer for {name}")]
    NoAnswer { name: String, servers: String },
}

/// The host's resolver.
pub(super) struct Resolver {
    inner: std::sync::Arc<Inner>,
}

struct Inner {
    etc: PathBuf,
    /// 53, but for tests.
    port: u16,
    known: Mutex<HashMap<String, (Instant, Vec<IpAddr>)>>,
}

impl Resolver {
    pub(super) fn new(etc: &Path) -> Self {
        Self {
            inner: std::sync::Arc::new(Inner {
                etc: etc.to_owned(),
                port: DNS_PORT,
                known: Mutex::default(),
            }),
        }
    }
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let inner = self.inner.clone();
        Box::pin(async move {
            let addresses = inner.addresses(name.as_str()).await?;
            // Port 0 is the URL's.
            let sockets = addresses.into_iter().map(|ip| SocketAddr::new(ip, 0));
            Ok(Box::new(sockets) as Addrs)
        })
    }
}

impl Inner {
    async fn addresses(&self, name: &str) -> Result<Vec<IpAddr>, DnsError> {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        if name == "localhost" || name.ends_with(".localhost") {
            return Ok(vec![Ipv6Addr::LOCALHOST.into(), Ipv4Addr::LOCALHOST.into()]);
        }
        if let Some((since, addresses)) = self.known().get(&name)
            && since.elapsed() < KEEP
        {
            return Ok(addresses.clone());
        }
        let mut addresses = self.look_up(&name).await?;
        addresses.truncate(MAX_ADDRESSES);
        self.known()
            .insert(name, (Instant::now(), addresses.clone()));
        Ok(addresses)
    }

    fn known(&self) -> std::sync::MutexGuard<'_, HashMap<String, (Instant, Vec<IpAddr>)>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn look_up(&self, name: &str) -> Result<Vec<IpAddr>, DnsError> {
        let addresses = config::hosts(&read(&self.etc.join("hosts")), name);
        if !addresses.is_empty() {
            return Ok(addresses);
        }
        let config = Config::parse(&read(&self.etc.join("resolv.conf")));
        let mut unanswered = false;
        for full in config.names(name) {
            match ask(&config, self.port, &full).await {
                Answer::Addresses(addresses) => return Ok(addresses),
                Answer::None => {}
                Answer::Silence => unanswered = true,
            }
        }
        // It would wait for the same servers once more.
        if !unanswered || !config.names_servers {
            let asked = name.to_owned();
            let others = tokio::task::spawn_blocking(move || getent(&asked)).await;
            let addresses = others.unwrap_or_default();
            if !addresses.is_empty() {
                return Ok(addresses);
            }
        }
        Err(if unanswered {
            DnsError::NoAnswer {
                name: name.to_owned(),
                servers: config.shown(),
            }
        } else {
            DnsError::Unknown(name.to_owned())
        })
    }
}

fn read(path: &Path) -> String {
    use std::io::Read;
    let mut bytes = Vec::new();
    if let Ok(file) = std::fs::File::open(path) {
        // What was read until an error is used.
        let _ = file.take(MAX_FILE_BYTES).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// What the host's other sources know. `getent` ends by itself: its resolver has limits.
fn getent(name: &str) -> Vec<IpAddr> {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if name.starts_with('-') || !name.bytes().all(is_plain) {
        return Vec::new();
    }
    let output = Command::new("getent")
        .args(["ahosts", name])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output();
    let Ok(output) = output else {
        return Vec::new();
    };
    let mut addresses = Vec::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let first = line.split_whitespace().next().unwrap_or_default();
        if let Ok(address) = first.parse()
            && !addresses.contains(&address)
        {
            addresses.push(address);
        }
    }
    addresses
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// A name server, on a free port where `port` is 0. Its port.
    fn serve(
        address: &str,
        port: u16,
        reply: impl Fn(&[u8]) -> Option<Vec<u8>> + Send + 'static,
    ) -> u16 {
        let socket = UdpSocket::bind((address, port)).unwrap();
        let port = socket.local_addr().unwrap().port();
        std::thread::spawn(move || {
            let mut buffer = [0; 1500];
            while let Ok((length, peer)) = socket.recv_from(&mut buffer) {
                if let Some(answer) = reply(&buffer[..length]) {
                    let _ = socket.send_to(&answer, peer);
                }
            }
        });
        port
    }

    fn inner(directory: &Path, port: u16, resolv: &str, hosts: &str) -> Inner {
        std::fs::write(directory.join("resolv.conf"), resolv).unwrap();
        std::fs::write(directory.join("hosts"), hosts).unwrap();
        Inner {
            etc: directory.to_owned(),
            port,
            known: Mutex::default(),
        }
    }

    #[tokio::test]
    async fn files_come_before_servers() {
        let directory = tempfile::tempdir().unwrap();
        let own = inner(directory.path(), 1, "", "10.9.8.7 R.test\n");
        let ten = "10.9.8.7".parse::<IpAddr>().unwrap();
        assert_eq!(own.addresses("r.TEST.").await.unwrap(), [ten]);
        let local = own.addresses("localhost").await.unwrap();
        assert!(local.iter().all(IpAddr::is_loopback) && local.len() == 2);
    }

    #[tokio::test]
    async fn the_next_server_is_asked_and_the_answer_kept() {
        static ASKED: AtomicUsize = AtomicUsize::new(0);
        let port = serve("127.53.0.2", 0, |_| None);
        serve("127.53.0.3", port, |query| {
            ASKED.fetch_add(1, Ordering::SeqCst);
            Some(message::tests::answer(
                query,
                &["10.1.1.1".parse().unwrap()],
            ))
        });
        let directory = tempfile::tempdir().unwrap();
        let resolv = "options timeout:1\nnameserver 127.53.0.2\nnameserver 127.53.0.3\n";
        let own = inner(directory.path(), port, resolv, "");
        let first = own.addresses("some.test").await.unwrap();
        assert_eq!(first, ["10.1.1.1".parse::<IpAddr>().unwrap()]);
        let asked = ASKED.load(Ordering::SeqCst);
        assert_eq!(own.addresses("some.test").await.unwrap(), first);
        assert_eq!(ASKED.load(Ordering::SeqCst), asked);
    }

    #[tokio::test]
    async fn what_nobody_knows_is_an_error_that_says_whom_it_asked() {
        let port = serve("127.53.0.4", 0, |query| {
            Some(message::tests::unknown(query))
        });
        let directory = tempfile::tempdir().unwrap();
        let own = inner(directory.path(), port, "nameserver 127.53.0.4\n", "");
        let error = own.addresses("no-such.invalid").await.unwrap_err();
        assert_eq!(error.to_string(), "no such host: no-such.invalid");
        let resolv = "options timeout:1 attempts:1\nnameserver 127.53.0.5\n";
        let own = inner(directory.path(), port, resolv, "");
        let error = own.addresses("no-such.invalid").await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "the name servers (127.53.0.5) give no answer for no-such.invalid"
        );
    }
}
