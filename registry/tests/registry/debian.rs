//! Debian's `docker-registry`, with TLS and a password, and without either; `skopeo` beside us.

use crate::fixture::{Host, Image, amd64, descriptor, download, name, noise, resolve};
use hullbox_registry::{BlobSource, Client, ImageName, PushOptions, Pushed, Resolution};
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use tokio::io::AsyncReadExt;

/// A registry on a loopback port, until it is dropped.
struct Registry {
    child: Child,
    host: String,
    /// Its certificate and password file; and what it stores.
    _root: tempfile::TempDir,
    authority: Option<String>,
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

impl Registry {
    fn start(is_secure: bool) -> Self {
        let root = tempfile::tempdir().unwrap();
        let path = |file: &str| root.path().join(file).to_str().unwrap().to_owned();
        // Free now; nobody else is told of it.
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let mut config = format!(
            "version: 0.1\nlog: {{level: info}}\nstorage:\n  filesystem: {{rootdirectory: {}}}\n\
             http:\n  addr: 127.0.0.1:{port}\n  secret: x\n",
            path("data")
        );
        let mut authority = None;
        if is_secure {
            let (key, certificate) = (path("key.pem"), path("cert.pem"));
            run(
                "openssl",
                &[
                    "req",
                    "-x509",
                    "-newkey",
                    "ec",
                    "-pkeyopt",
                    "ec_paramgen_curve:P-256",
                    "-nodes",
                    "-subj",
                    "/CN=reg.test",
                    "-addext",
                    "subjectAltName=DNS:reg.test",
                    "-days",
                    "2",
                    "-keyout",
                    &key,
                    "-out",
                    &certificate,
                ],
            );
            std::fs::write(
                path("htpasswd"),
                run("htpasswd", &["-nbB", "user", "s3cret"]),
            )
            .unwrap();
            config += &format!(
                "  tls: {{certificate: {certificate}, key: {key}}}\n\
                 auth:\n  htpasswd: {{realm: r, path: {}}}\n",
                path("htpasswd")
            );
            authority = Some(std::fs::read_to_string(certificate).unwrap());
        }
        std::fs::write(path("config.yml"), config).unwrap();
        let mut child = Command::new("docker-registry")
            .args(["serve", &path("config.yml")])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        assert!(lines.any(|text| text.unwrap().contains("listening on")));
        // Its log is read so that it can go on writing.
        std::thread::spawn(move || lines.for_each(drop));
        let name = if is_secure { "reg.test" } else { "127.0.0.1" };
        Self {
            child,
            host: format!("{name}:{port}"),
            _root: root,
            authority,
        }
    }

    /// A host that may use it.
    fn user(&self) -> Host {
        let host = Host::new();
        if let Some(authority) = &self.authority {
            host.write("etc/hosts", "127.0.0.1 reg.test\n");
            host.write(
                &format!("etc/docker/certs.d/{}/ca.crt", self.host),
                authority,
            );
        }
        host
    }
}

fn source(bytes: &[u8]) -> Arc<dyn BlobSource> {
    let bytes = bytes.to_vec();
    Arc::new(move |offset: u64| -> io::Result<Box<dyn Read + Send>> {
        Ok(Box::new(Cursor::new(
            bytes[usize::try_from(offset).unwrap()..].to_vec(),
        )))
    })
}

async fn push(
    client: &Client,
    target: &ImageName,
    image: &Image,
    options: &PushOptions,
) -> Vec<Pushed> {
    let mut outcomes = Vec::new();
    for bytes in image.layers.iter().chain([&image.config]) {
        let blob = descriptor(bytes, "");
        let pushed = client
            .push_blob(target, &blob, source(bytes), options)
            .await;
        outcomes.push(pushed.unwrap());
    }
    client
        .push_manifest(target, &image.fetched())
        .await
        .unwrap();
    outcomes
}

async fn pull(client: &Client, target: &ImageName) -> Image {
    let found = resolve(client, &target.to_string()).await.unwrap();
    let mut layers = Vec::new();
    for layer in &found.layers {
        layers.push(download(client, target, layer, 0).await.unwrap());
    }
    Image {
        manifest: found.manifest.raw.clone(),
        config: client
            .blob_bytes(target, &found.config, 1 << 20)
            .await
            .unwrap(),
        layers,
    }
}

/// An image whose layer other tools can read.
fn readable() -> Image {
    use std::io::Write;
    let mut layer = std::process::Command::new("gzip")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    layer.stdin.take().unwrap().write_all(&[0; 10240]).unwrap();
    let layer = layer.wait_with_output().unwrap().stdout;
    Image::new(vec![layer, noise(9_000_000, 4)])
}

#[tokio::test]
async fn what_is_pushed_is_pulled_byte_for_byte() {
    for is_secure in [false, true] {
        let registry = Registry::start(is_secure);
        let host = registry.user();
        let client = host.client();
        let target = name(&format!("{}/a/x:1", registry.host));
        let image = readable();
        if is_secure {
            let error = client.manifest(&target).await.unwrap_err();
            assert!(
                crate::fixture::line(&error).contains("denies access"),
                "{error}"
            );
            client
                .login(&registry.host, "user", "s3cret")
                .await
                .unwrap();
            assert!(client.login(&registry.host, "user", "wrong").await.is_err());
        }
        let client = host.client();
        let plain = PushOptions::default();
        assert_eq!(
            push(&client, &target, &image, &plain).await,
            [Pushed::Uploaded; 3]
        );
        assert_eq!(
            push(&client, &target, &image, &plain).await,
            [Pushed::Exists; 3]
        );
        // Another store, another repository: the same digests, without bytes where they are known.
        let other = name(&format!("{}/b/y:2", registry.host));
        let pulled = pull(&client, &target).await;
        let mounting = PushOptions {
            mount_from: vec![target.clone()],
            ..PushOptions::default()
        };
        assert_eq!(
            push(&client, &other, &pulled, &mounting).await,
            [Pushed::Mounted; 3]
        );
        let again = pull(&client, &other).await;
        assert_eq!(again.manifest, image.manifest);
        assert_eq!(again.layers, image.layers);
        let known = image.fetched().digest;
        let unchanged = client
            .resolve(&other, &amd64(), Some(&known))
            .await
            .unwrap();
        assert_eq!(unchanged, Resolution::Unchanged(known));
        assert_eq!(client.tags(&other).await.unwrap(), ["2"]);
        // In pieces.
        let third = name(&format!("{}/c:3", registry.host));
        let pieces = PushOptions {
            chunk_bytes: Some(4 << 20),
            ..PushOptions::default()
        };
        push(&client, &third, &image, &pieces).await;
        assert_eq!(pull(&client, &third).await.layers, image.layers);
    }
}

#[tokio::test]
async fn skopeo_reads_what_we_push_and_we_what_it_pushes() {
    let registry = Registry::start(false);
    let client = registry.user().client();
    let target = name(&format!("{}/x:1", registry.host));
    let image = readable();
    push(&client, &target, &image, &PushOptions::default()).await;
    let copy = format!("docker://{}/copy:1", registry.host);
    run(
        "skopeo",
        &[
            "copy",
            "-q",
            "--insecure-policy",
            "--src-tls-verify=false",
            "--dest-tls-verify=false",
            "--preserve-digests",
            &format!("docker://{target}"),
            &copy,
        ],
    );
    let theirs = pull(&client, &name(&format!("{}/copy:1", registry.host))).await;
    assert_eq!(theirs.manifest, image.manifest);
    assert_eq!(theirs.layers, image.layers);
}

/// A way to a registry on which the first connections break: so many bytes of them pass.
async fn breaking(registry: &Registry, mut connections: usize, up: u64, down: u64) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let target = registry.host.clone();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let target = target.clone();
            let (up, down) = match connections {
                0 => (u64::MAX, u64::MAX),
                _ => (up, down),
            };
            connections = connections.saturating_sub(1);
            tokio::spawn(async move {
                let server = tokio::net::TcpStream::connect(target).await.unwrap();
                let (from_client, mut to_client) = client.into_split();
                let (from_server, mut to_server) = server.into_split();
                let (mut up, mut down) = (from_client.take(up), from_server.take(down));
                // Whichever ends first ends both.
                tokio::select! {
                    _ = tokio::io::copy(&mut up, &mut to_server) => {}
                    _ = tokio::io::copy(&mut down, &mut to_client) => {}
                }
            });
        }
    });
    address
}

#[tokio::test]
async fn connections_that_break_hold_up_neither_pull_nor_push() {
    let registry = Registry::start(false);
    let host = registry.user();
    let client = host.client();
    let image = readable();
    // The first one is the attempt to speak TLS.
    let up = breaking(&registry, 3, 3_500_000, u64::MAX).await;
    let target = name(&format!("{up}/x:1"));
    push(&client, &target, &image, &PushOptions::default()).await;
    let pushes = host.retries();
    assert!(pushes >= 2, "{pushes}");
    let down = breaking(&registry, 5, u64::MAX, 2_000_000).await;
    let pulled = pull(&client, &name(&format!("{down}/x:1"))).await;
    assert_eq!(pulled.manifest, image.manifest);
    assert!(pulled.layers == image.layers);
    assert!(host.retries() >= pushes + 4, "{}", host.retries());
}
