//! Certificates, proxies, names and addresses.

use crate::fake::{Fake, Reply};
use crate::fixture::{Host, Image, line, resolve};
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, Issuer, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// An authority of a test's own.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut parameters = CertificateParams::new(Vec::new()).unwrap();
        parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let pem = parameters.self_signed(&key).unwrap().pem();
        Self {
            issuer: Issuer::new(parameters, key),
            pem,
        }
    }

    fn issue(&self, name: &str, is_client: bool) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let mut parameters = CertificateParams::new(vec![name.to_owned()]).unwrap();
        if is_client {
            parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        }
        (parameters.signed_by(&key, &self.issuer).unwrap(), key)
    }

    fn serve(&self, name: &str, asks_clients: bool) -> TlsAcceptor {
        let (certificate, key) = self.issue(name, false);
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .unwrap();
        let builder = if asks_clients {
            let mut roots = rustls::RootCertStore::empty();
            let own = rustls::pki_types::pem::PemObject::from_pem_slice(self.pem.as_bytes());
            roots.add(own.unwrap()).unwrap();
            let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(
                Arc::new(roots),
                provider,
            );
            builder.with_client_cert_verifier(verifier.build().unwrap())
        } else {
            builder.with_no_client_auth()
        };
        let config = builder
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        TlsAcceptor::from(Arc::new(config))
    }
}

/// A server's half of TLS for a name, and its authority in PEM.
pub fn certificate(name: &str) -> (TlsAcceptor, String) {
    let authority = Authority::new();
    (authority.serve(name, false), authority.pem)
}

async fn with_tls(tls: TlsAcceptor) -> Fake {
    let image = Image::small();
    Fake::with_tls(tls, move |asked| image.reply(asked)).await
}

#[tokio::test]
async fn a_registrys_own_authority_is_trusted_for_it() {
    for layout in ["etc/containers", "etc/docker", "home/.config/containers"] {
        let (tls, authority) = certificate("reg.test");
        let fake = with_tls(tls).await;
        let host = Host::new();
        host.write("etc/hosts", "127.0.0.1 reg.test\n");
        let target = format!("reg.test:{}/x:1", fake.port());
        let text = line(&resolve(&host.client(), &target).await.unwrap_err());
        assert!(
            text.contains("invalid peer certificate: UnknownIssuer"),
            "{text}"
        );
        let advice = format!("/etc/containers/certs.d/reg.test:{}/ca.crt)", fake.port());
        assert!(text.ends_with(&advice), "{text}");
        host.write(
            &format!("{layout}/certs.d/reg.test:{}/my.crt", fake.port()),
            authority,
        );
        resolve(&host.client(), &target).await.unwrap();
    }
}

#[tokio::test]
async fn a_certificate_for_another_name_is_refused() {
    let (tls, authority) = certificate("other.test");
    let fake = with_tls(tls).await;
    let host = Host::new();
    host.write("etc/hosts", "127.0.0.1 reg.test\n");
    host.write(
        &format!("etc/docker/certs.d/reg.test:{}/ca.crt", fake.port()),
        authority,
    );
    let target = format!("reg.test:{}/x:1", fake.port());
    let text = line(&resolve(&host.client(), &target).await.unwrap_err());
    assert!(text.contains("invalid peer certificate"), "{text}");
    host.registries(&format!(
        "[[registry]]\nlocation = 'reg.test:{}'\ninsecure = true",
        fake.port()
    ));
    resolve(&host.client(), &target).await.unwrap();
}

#[tokio::test]
async fn a_loopback_registry_needs_no_certificate_unless_it_has_an_authority() {
    let (tls, _) = certificate("reg.test");
    let fake = with_tls(tls).await;
    let host = Host::new();
    let target = format!("{}/x:1", fake.host());
    resolve(&host.client(), &target).await.unwrap();
    let (_, other) = certificate("reg.test");
    host.write(&format!("etc/docker/certs.d/{}/ca.crt", fake.host()), other);
    let text = line(&resolve(&host.client(), &target).await.unwrap_err());
    assert!(text.contains("invalid peer certificate"), "{text}");
}

#[tokio::test]
async fn a_registry_that_asks_for_a_clients_certificate_gets_it() {
    let authority = Authority::new();
    let fake = with_tls(authority.serve("reg.test", true)).await;
    let host = Host::new();
    host.write("etc/hosts", "127.0.0.1 reg.test\n");
    let directory = format!("etc/docker/certs.d/reg.test:{}", fake.port());
    host.write(&format!("{directory}/ca.crt"), &authority.pem);
    let target = format!("reg.test:{}/x:1", fake.port());
    assert!(resolve(&host.client(), &target).await.is_err());
    let (own, key) = authority.issue("client", true);
    host.write(&format!("{directory}/client.cert"), own.pem());
    let text = line(&resolve(&host.client(), &target).await.unwrap_err());
    assert!(text.contains("its key is missing"), "{text}");
    host.write(&format!("{directory}/client.key"), key.serialize_pem());
    resolve(&host.client(), &target).await.unwrap();
}

#[tokio::test]
async fn a_registry_without_tls_must_be_said_to_be_insecure() {
    let image = Image::small();
    let fake = Fake::start(move |asked| image.reply(asked)).await;
    let host = Host::new();
    host.write("etc/hosts", "127.0.0.1 reg.test\n");
    let target = format!("reg.test:{}/x:1", fake.port());
    assert!(resolve(&host.client(), &target).await.is_err());
    assert!(fake.asked().is_empty());
    host.registries(&format!(
        "[[registry]]\nlocation = 'reg.test:{}'\ninsecure = true",
        fake.port()
    ));
    resolve(&host.client(), &target).await.unwrap();
    // The registry of loopback addresses is as Docker has it.
    resolve(
        &Host::new().client(),
        &format!("localhost:{}/x:1", fake.port()),
    )
    .await
    .unwrap();
}

#[tokio::test]
async fn a_redirect_does_not_leave_tls() {
    let fake = Fake::start(|_| Reply::new(200, "{}")).await;
    let (tls, authority) = certificate("reg.test");
    let elsewhere = format!("http://{}/v2/", fake.host());
    let registry = Fake::with_tls(tls, move |_| {
        Reply::new(307, "").with("location", elsewhere.clone())
    })
    .await;
    let host = Host::new();
    host.write("etc/hosts", "127.0.0.1 reg.test\n");
    host.write(
        &format!("etc/docker/certs.d/reg.test:{}/ca.crt", registry.port()),
        authority,
    );
    let target = format!("reg.test:{}/x:1", registry.port());
    let text = line(&resolve(&host.client(), &target).await.unwrap_err());
    assert!(
        text.contains("without TLS, which is not followed"),
        "{text}"
    );
    assert!(fake.asked().is_empty());
}

#[tokio::test]
async fn a_dead_ipv6_address_does_not_hold_up_a_live_ipv4_one() {
    let (tls, authority) = certificate("reg.test");
    let fake = with_tls(tls).await;
    // Its queue is full: nobody accepts, and what comes is dropped, as at a dead host.
    let address: SocketAddr = format!("[::1]:{}", fake.port()).parse().unwrap();
    let socket = tokio::net::TcpSocket::new_v6().unwrap();
    socket.bind(address).unwrap();
    let _dead = socket.listen(1).unwrap();
    let mut waiting = Vec::new();
    for _ in 0..8 {
        let connect = tokio::time::timeout(Duration::from_millis(50), TcpStream::connect(address));
        waiting.push(connect.await);
    }
    assert!(waiting.iter().any(Result::is_err), "nothing is dropped");
    let host = Host::new();
    host.write("etc/hosts", "::1 reg.test\n127.0.0.1 reg.test\n");
    host.write(
        &format!("etc/docker/certs.d/reg.test:{}/ca.crt", fake.port()),
        authority,
    );
    let target = format!("reg.test:{}/x:1", fake.port());
    // The best of three: the machine may be busy.
    let mut best = Duration::MAX;
    for _ in 0..3 {
        let started = Instant::now();
        resolve(&host.client(), &target).await.unwrap();
        best = best.min(started.elapsed());
    }
    assert!(best < Duration::from_secs(1), "{best:?}");
}

#[tokio::test]
async fn who_is_offline_hears_what_was_tried_at_once() {
    let host = Host::new();
    host.write(
        "etc/resolv.conf",
        "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n",
    );
    let started = Instant::now();
    let text = line(&resolve(&host.client(), "debian:12").await.unwrap_err());
    assert!(started.elapsed() < Duration::from_secs(5));
    assert!(
        text.starts_with(
            "cannot get docker.io/library/debian:12: registry-1.docker.io/library/debian:12: \
             cannot connect to registry-1.docker.io: "
        ),
        "{text}"
    );
    assert!(text.contains("127.0.0.1"), "{text}");
}

/// A proxy that remembers the first lines and credentials that it was sent.
async fn proxy(target: SocketAddr) -> (SocketAddr, Arc<std::sync::Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let log: Arc<std::sync::Mutex<Vec<String>>> = Arc::default();
    let own = log.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let log = own.clone();
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await.unwrap());
                }
                let text = String::from_utf8(head.clone()).unwrap();
                log.lock().unwrap().push(text.clone());
                let mut server = TcpStream::connect(target).await.unwrap();
                if text.starts_with("CONNECT ") {
                    stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
                } else {
                    server.write_all(&head).await.unwrap();
                }
                let _ = copy_bidirectional(&mut stream, &mut server).await;
            });
        }
    });
    (address, log)
}

#[tokio::test]
async fn proxies_of_the_environment_are_used() {
    let (tls, authority) = certificate("reg.test");
    let fake = with_tls(tls).await;
    let (address, log) = proxy(fake.address).await;
    let mut host = Host::new();
    // The name is the proxy's to look up.
    let server = format!("reg.test:{}", fake.port());
    host.write(&format!("etc/docker/certs.d/{server}/ca.crt"), authority);
    host.set("https_proxy", &format!("http://me:pr0xy@{address}"));
    let target = format!("{server}/x:1");
    resolve(&host.client(), &target).await.unwrap();
    let first = log.lock().unwrap()[0].clone();
    assert!(
        first.starts_with(&format!("CONNECT {server} HTTP/1.1\r\n")),
        "{first}"
    );
    assert!(
        first
            .to_lowercase()
            .contains("proxy-authorization: basic bwu6chiwehk="),
        "{first}"
    );
    host.set("NO_PROXY", "reg.test");
    let text = line(&resolve(&host.client(), &target).await.unwrap_err());
    assert!(!text.contains("pr0xy"), "{text}");
    assert_eq!(log.lock().unwrap().len(), 1);
    // Without TLS the proxy is asked for the URL.
    let image = Image::small();
    let plain = Fake::start(move |asked| {
        image.reply(&crate::fake::Asked {
            path: asked.path.replace("http://plain.test", ""),
            ..asked.clone()
        })
    })
    .await;
    let (address, log) = proxy(plain.address).await;
    host.set("HTTP_PROXY", &address.to_string());
    host.set("https_proxy", "http://127.0.0.1:1");
    host.registries("[[registry]]\nlocation = 'plain.test'\ninsecure = true\n");
    resolve(&host.client(), "plain.test/x:1").await.unwrap();
    let first = log.lock().unwrap()[0].clone();
    assert!(
        first.starts_with("GET http://plain.test/v2/x/manifests/1 "),
        "{first}"
    );
}
