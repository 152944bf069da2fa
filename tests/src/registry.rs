//! Debian's docker-registry, on a loopback port of its own, with or without TLS and a password.

use crate::{Done, command, finish};
use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;
use tempfile::TempDir;

/// Who may log in to a registry with a password.
pub const USER: &str = "tester";
/// The password.
pub const PASSWORD: &str = "s3cret-and-long-enough-to-be-found";

/// How long a line of its log may take.
const LIMIT: Duration = Duration::from_secs(60);
/// What it says of a request that it has answered.
const COMPLETED: &str = "response completed";

/// A registry that runs until it is dropped.
#[derive(Debug)]
pub struct Registry {
    process: Child,
    dir: TempDir,
    address: String,
    log: Mutex<Receiver<String>>,
}

impl Registry {
    /// One without TLS and password.
    #[must_use]
    pub fn plain() -> Self {
        Self::start(false)
    }

    /// One with a certificate of its own authority, and a password.
    #[must_use]
    pub fn secured() -> Self {
        Self::start(true)
    }

    fn start(secured: bool) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let at = |name: &str| dir.path().join(name).display().to_string();
        let mut config = format!(
            "version: 0.1\nlog: {{level: info}}\nstorage:\n  filesystem: {{rootdirectory: {}}}\n  \
             delete: {{enabled: true}}\nhttp:\n  addr: 127.0.0.1:0\n  secret: s\n",
            at("data")
        );
        if secured {
            secure(dir.path());
            config.push_str(&format!(
                "  tls: {{certificate: {}, key: {}}}\nauth:\n  htpasswd: {{realm: r, path: {}}}\n",
                at("server.crt"),
                at("server.key"),
                at("htpasswd")
            ));
        }
        fs::write(dir.path().join("config.yml"), config).expect("a configuration");
        let mut process = Command::new("docker-registry")
            .arg("serve")
            .arg(dir.path().join("config.yml"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("docker-registry is installed");
        let stderr = process.stderr.take().expect("a pipe");
        let mut lines = BufReader::new(stderr).lines();
        let address = loop {
            let line = lines
                .next()
                .expect("a registry that listens")
                .expect("text");
            if let Some((_, rest)) = line.split_once("listening on ") {
                let end = rest.find([',', '"', ' ']).unwrap_or(rest.len());
                break rest[..end].to_owned();
            }
        };
        let (sender, log) = channel();
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                // Nobody may want to know any more; the registry has to be read all the same.
                let _ = sender.send(line);
            }
        });
        Self {
            process,
            dir,
            address,
            log: Mutex::new(log),
        }
    }

    /// Host and port.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// An image's name in it.
    #[must_use]
    pub fn name(&self, repository: &str) -> String {
        format!("{}/{repository}", self.address)
    }

    /// The requests it has answered, as method and path, since this was asked last. Of one without TLS.
    #[must_use]
    pub fn requests(&self) -> Vec<String> {
        // It writes a request down after it has answered: what came before this one is there when this one is.
        static ASKED: AtomicU64 = AtomicU64::new(0);
        let last = format!("/v2/?last={}.", ASKED.fetch_add(1, Ordering::Relaxed));
        let mut connection = TcpStream::connect(&self.address).expect("a registry");
        write!(connection, "GET {last} HTTP/1.0\r\n\r\n").expect("a request");
        connection.read_to_end(&mut Vec::new()).expect("an answer");
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        let lines: Vec<String> = std::iter::from_fn(|| log.recv_timeout(LIMIT).ok())
            .take_while(|line| !(line.contains(COMPLETED) && line.contains(&last)))
            .collect();
        let field = |line: &str, name: &str| {
            let (_, rest) = line.split_once(&format!("{name}="))?;
            let end = rest.find(' ').unwrap_or(rest.len());
            Some(rest[..end].trim_matches('"').to_owned())
        };
        let request = |line: &String| {
            let method = field(line, "http.request.method")?;
            Some(format!("{method} {}", field(line, "http.request.uri")?))
        };
        lines
            .iter()
            .filter(|line| line.contains(COMPLETED) && !line.contains("/v2/?last="))
            .filter_map(request)
            .collect()
    }

    /// Its authority's certificate.
    #[must_use]
    pub fn authority(&self) -> PathBuf {
        self.dir.path().join("ca.crt")
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

/// Makes an authority, a certificate for 127.0.0.1 and a file of passwords.
fn secure(dir: &Path) {
    fs::write(
        dir.join("san"),
        "subjectAltName=IP:127.0.0.1,DNS:localhost\n",
    )
    .expect("a file");
    let script = format!(
        "set -e
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 \
            -subj /CN=authority -keyout ca.key -out ca.crt
        openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes \
            -subj /CN=registry -keyout server.key -out server.csr
        openssl x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 \
            -extfile san -out server.crt
        htpasswd -Bbn {USER} {PASSWORD} >htpasswd"
    );
    let mut shell = Command::new("sh");
    shell.args(["-c", &script]).current_dir(dir);
    let _ = finish(shell, b"").exits(0);
}

/// A user of registries: an own home directory, and own images where the store is asked for.
#[derive(Debug)]
pub struct User {
    home: TempDir,
    own_store: bool,
}

impl User {
    /// One with the images of the bed.
    #[must_use]
    pub fn new() -> Self {
        Self {
            home: tempfile::tempdir().expect("a directory"),
            own_store: false,
        }
    }

    /// One with a store of its own, on this host itself.
    #[must_use]
    pub fn with_store() -> Self {
        Self {
            own_store: true,
            ..Self::new()
        }
    }

    /// Its home directory.
    #[must_use]
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// Trusts a registry's authority.
    pub fn trust(&self, registry: &Registry) {
        let dir = self.home().join(".config/containers/certs.d");
        let dir = dir.join(registry.address());
        fs::create_dir_all(&dir).expect("a directory");
        fs::copy(registry.authority(), dir.join("ca.crt")).expect("a certificate");
    }

    /// Makes a command this user's.
    pub fn owns(&self, command: &mut Command) {
        command
            .env("HOME", self.home())
            .env("DOCKER_CONFIG", self.home().join(".docker"))
            .env("XDG_CONFIG_HOME", self.home().join(".config"))
            .env("XDG_CACHE_HOME", self.home().join(".cache"))
            .env("XDG_RUNTIME_DIR", self.home().join("run"))
            .env_remove("REGISTRY_AUTH_FILE")
            .env_remove("CONTAINERS_REGISTRIES_CONF");
        for proxy in ["http_proxy", "https_proxy", "all_proxy", "no_proxy"] {
            command.env_remove(proxy).env_remove(proxy.to_uppercase());
        }
        if self.own_store {
            command
                .env("HULLBOX_ROOT", self.home().join("root"))
                .env("HULLBOX_RUNTIME", self.home().join("run-hullbox"))
                .env("HULLBOX_MACHINE", "never");
        }
    }

    /// A `hullbox` command of this user's.
    pub fn command<I, S>(&self, args: I) -> Command
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        let mut command = command(args);
        self.owns(&mut command);
        command
    }

    /// Runs one.
    pub fn hullbox<I, S>(&self, args: I) -> Done
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        finish(self.command(args), b"")
    }

    /// Runs skopeo without a look at certificates.
    pub fn skopeo<I, S>(&self, args: I) -> Done
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        let mut command = Command::new("skopeo");
        command.arg("--insecure-policy").args(args);
        self.owns(&mut command);
        finish(command, b"")
    }
}

impl Default for User {
    fn default() -> Self {
        Self::new()
    }
}

/// A wire to a server that can be cut: it counts what comes from there.
#[derive(Debug)]
pub struct Wire {
    address: String,
    state: Arc<WireState>,
}

#[derive(Debug)]
struct WireState {
    server: String,
    received_bytes: AtomicU64,
    /// Nothing more comes after so many bytes; the connections stay open.
    limit_bytes: AtomicU64,
    is_closed: AtomicBool,
}

impl Wire {
    /// A wire to `server` (host and port) that carries `limit_bytes` from there.
    #[must_use]
    pub fn to(server: &str, limit_bytes: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let state = Arc::new(WireState {
            server: server.to_owned(),
            received_bytes: AtomicU64::new(0),
            limit_bytes: AtomicU64::new(limit_bytes),
            is_closed: AtomicBool::new(false),
        });
        let theirs = Arc::clone(&state);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if theirs.is_closed.load(Ordering::SeqCst) {
                    break;
                }
                let state = Arc::clone(&theirs);
                thread::spawn(move || carry(client, &state));
            }
        });
        Self { address, state }
    }

    /// Host and port of this end.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Bytes that have come from the server so far.
    #[must_use]
    pub fn received_bytes(&self) -> u64 {
        self.state.received_bytes.load(Ordering::SeqCst)
    }

    /// Begins to count anew, with another limit.
    pub fn reset(&self, limit_bytes: u64) {
        self.state.received_bytes.store(0, Ordering::SeqCst);
        self.state.limit_bytes.store(limit_bytes, Ordering::SeqCst);
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.state.is_closed.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts.
        TcpStream::connect(&self.address).ok();
    }
}

fn carry(mut client: TcpStream, state: &WireState) {
    let Ok(mut server) = TcpStream::connect(&state.server) else {
        return;
    };
    let (Ok(mut up_from), Ok(mut up_to)) = (client.try_clone(), server.try_clone()) else {
        return;
    };
    let up = thread::spawn(move || {
        std::io::copy(&mut up_from, &mut up_to).ok();
        up_to.shutdown(Shutdown::Write).ok();
    });
    let mut buffer = [0; 16 << 10];
    while let Ok(len @ 1..) = server.read(&mut buffer) {
        let sum = state.received_bytes.fetch_add(len as u64, Ordering::SeqCst);
        if sum + len as u64 > state.limit_bytes.load(Ordering::SeqCst) {
            // Held open, with nothing coming, until the client goes.
            up.join().ok();
            return;
        }
        if client.write_all(&buffer[..len]).is_err() {
            return;
        }
    }
    client.shutdown(Shutdown::Write).ok();
}
