//! Pushing to registries that stall, move and forget.

use crate::fake::{Asked, Body, Fake, Reply};
use crate::fixture::{Host, Image, descriptor, line, name, noise};
use hullbox_registry::{BlobSource, Client, Descriptor, Digest, ImageName, PushOptions, Pushed};
use std::io::{self, Cursor, Read};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A blob in memory.
fn source(bytes: Vec<u8>) -> Arc<dyn BlobSource> {
    Arc::new(move |offset: u64| -> io::Result<Box<dyn Read + Send>> {
        let rest = bytes[usize::try_from(offset).unwrap()..].to_vec();
        Ok(Box::new(Cursor::new(rest)))
    })
}

async fn push(client: &Client, target: &ImageName, bytes: &[u8]) -> Result<Pushed, String> {
    push_with(client, target, bytes, PushOptions::default()).await
}

async fn push_with(
    client: &Client,
    target: &ImageName,
    bytes: &[u8],
    options: PushOptions,
) -> Result<Pushed, String> {
    let blob = descriptor(bytes, "x/y");
    let started = Instant::now();
    let pushed = client
        .push_blob(target, &blob, source(bytes.to_vec()), &options)
        .await;
    assert!(started.elapsed() < Duration::from_secs(20));
    pushed.map_err(|error| line(&error))
}

/// What a registry has of an upload, and the blobs that it has whole.
#[derive(Default)]
struct Stored {
    upload: Vec<u8>,
    blobs: Vec<Vec<u8>>,
}

/// A registry that takes uploads, and says where they go on in its own way.
#[derive(Clone, Default)]
struct Store(Arc<Mutex<Stored>>);

impl Store {
    fn reply(&self, asked: &Asked, location: &str) -> Reply {
        let mut stored = self.0.lock().unwrap();
        let place = |reply: Reply, length: usize| {
            reply
                .with("location", location)
                .with("range", format!("0-{}", length.max(1) - 1))
        };
        match asked.method.as_str() {
            "HEAD" => match stored
                .blobs
                .iter()
                .find(|own| asked.path.ends_with(&Digest::of(own).to_string()))
            {
                Some(own) => Reply::new(200, own.clone()),
                None => Reply::new(404, ""),
            },
            "POST" => {
                stored.upload.clear();
                place(Reply::new(202, ""), 0)
            }
            "GET" => place(Reply::new(204, ""), stored.upload.len()),
            "PATCH" => {
                let start = asked
                    .header("content-range")
                    .map_or(0, |range| range.split('-').next().unwrap().parse().unwrap());
                if start != stored.upload.len() {
                    return place(Reply::new(416, ""), stored.upload.len());
                }
                stored.upload.extend_from_slice(&asked.body);
                place(Reply::new(202, ""), stored.upload.len())
            }
            "PUT" => {
                stored.upload.extend_from_slice(&asked.body);
                let bytes = std::mem::take(&mut stored.upload);
                let digest = Digest::of(&bytes).to_string().replace(':', "%3A");
                if !asked.path.ends_with(&format!("digest={digest}")) {
                    return Reply::error(400, "DIGEST_INVALID", "provided digest did not match");
                }
                stored.blobs.push(bytes);
                Reply::new(201, "")
            }
            _ => Reply::new(202, ""),
        }
    }

    fn has(&self, bytes: &[u8]) -> bool {
        self.0.lock().unwrap().blobs.iter().any(|own| own == bytes)
    }
}

const UPLOAD: &str = "/v2/x/blobs/uploads/1?_state=a%3D";

#[tokio::test]
async fn small_blobs_are_one_request_and_large_ones_a_stream() {
    let store = Store::default();
    let own = store.clone();
    let fake = Fake::start(move |asked| own.reply(asked, UPLOAD)).await;
    let client = Host::new().client();
    let target = name(&format!("{}/x", fake.host()));
    let (small, large) = (noise(1000, 1), noise(3_000_000, 2));
    assert_eq!(push(&client, &target, &small).await, Ok(Pushed::Uploaded));
    let methods = |from: usize| -> Vec<String> {
        fake.asked()[from..]
            .iter()
            .map(|asked| asked.method.clone())
            .collect()
    };
    assert_eq!(methods(0), ["HEAD", "POST", "PUT"]);
    let digest = Digest::of(&small).to_string().replace(':', "%3A");
    assert_eq!(fake.asked()[2].path, format!("{UPLOAD}&digest={digest}"));
    assert_eq!(push(&client, &target, &large).await, Ok(Pushed::Uploaded));
    assert_eq!(methods(3), ["HEAD", "POST", "PATCH", "PUT"]);
    assert!(store.has(&small) && store.has(&large));
    assert_eq!(push(&client, &target, &large).await, Ok(Pushed::Exists));
    assert_eq!(methods(7), ["HEAD"]);
    assert_eq!(push(&client, &target, b"").await, Ok(Pushed::Uploaded));
}

#[tokio::test]
async fn pieces_have_their_place_and_progress_is_told() {
    let store = Store::default();
    let own = store.clone();
    let fake = Fake::start(move |asked| {
        own.reply(asked, UPLOAD)
            .with("oci-chunk-min-length", "400000")
    })
    .await;
    let client = Host::new().client();
    let target = name(&format!("{}/x", fake.host()));
    let bytes = noise(1_000_000, 2);
    let (sent, told) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicUsize::new(0)));
    let (own_sent, own_told) = (sent.clone(), told.clone());
    let options = PushOptions {
        chunk_bytes: Some(1000),
        progress: Some(Arc::new(move |bytes| {
            own_sent.store(bytes, Ordering::SeqCst);
            own_told.fetch_add(1, Ordering::SeqCst);
        })),
        ..PushOptions::default()
    };
    assert_eq!(
        push_with(&client, &target, &bytes, options).await,
        Ok(Pushed::Uploaded)
    );
    let ranges: Vec<_> = fake
        .asked()
        .iter()
        .filter_map(|asked| asked.header("content-range").map(str::to_owned))
        .collect();
    assert_eq!(ranges, ["0-399999", "400000-799999", "800000-999999"]);
    assert!(store.has(&bytes));
    assert_eq!(sent.load(Ordering::SeqCst), 1_000_000);
    assert!(told.load(Ordering::SeqCst) > 3);
}

#[tokio::test]
async fn a_stalled_upload_is_resumed_where_the_registry_is() {
    static STALLED: AtomicUsize = AtomicUsize::new(0);
    let store = Store::default();
    let own = store.clone();
    let bytes = noise(20_000_000, 3);
    let fake = Fake::with_appetite(
        move |asked| own.reply(asked, UPLOAD),
        |asked| {
            let is_first = asked.method == "PATCH" && STALLED.fetch_add(1, Ordering::SeqCst) == 0;
            is_first.then_some(5_000_000)
        },
    )
    .await;
    let host = Host::new();
    let target = name(&format!("{}/x", fake.host()));
    assert_eq!(
        push(&host.client(), &target, &bytes).await,
        Ok(Pushed::Uploaded)
    );
    assert!(store.has(&bytes));
    let resumed = fake.asked().iter().rev().find_map(|asked| {
        (asked.method == "PATCH").then(|| asked.header("content-range").unwrap().to_owned())
    });
    assert_eq!(resumed.as_deref(), Some("5000000-19999999"));
    assert_eq!(host.retries(), 1);
}

/// A source that takes its time before its first byte, as one that compresses does.
struct Thinking(Cursor<Vec<u8>>, Option<Duration>);

impl Read for Thinking {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(time) = self.1.take() {
            std::thread::sleep(time);
        }
        self.0.read(buffer)
    }
}

#[tokio::test]
async fn a_slow_source_is_not_the_registrys_stall() {
    let store = Store::default();
    let own = store.clone();
    let fake = Fake::start(move |asked| own.reply(asked, UPLOAD)).await;
    let host = Host::new();
    let bytes = noise(10_000_000, 3);
    let copy = bytes.clone();
    // Three times as long as a registry may take nothing.
    let source = move |offset: u64| -> io::Result<Box<dyn Read + Send>> {
        let rest = copy[usize::try_from(offset).unwrap()..].to_vec();
        let pause = Duration::from_millis(1200);
        Ok(Box::new(Thinking(Cursor::new(rest), Some(pause))))
    };
    let target = name(&format!("{}/x", fake.host()));
    let blob = descriptor(&bytes, "x/y");
    let pushed = host
        .client()
        .push_blob(&target, &blob, Arc::new(source), &PushOptions::default())
        .await;
    assert_eq!(pushed.map_err(|error| line(&error)), Ok(Pushed::Uploaded));
    assert!(store.has(&bytes));
    assert_eq!(host.retries(), 0);
}

#[tokio::test]
async fn an_upload_that_is_forgotten_begins_anew() {
    static ASKED: AtomicUsize = AtomicUsize::new(0);
    let store = Store::default();
    let own = store.clone();
    let fake = Fake::start(move |asked| match asked.method.as_str() {
        "PATCH" if ASKED.fetch_add(1, Ordering::SeqCst) == 0 => Reply::new(500, ""),
        "GET" => Reply::error(404, "BLOB_UPLOAD_UNKNOWN", "blob upload unknown"),
        _ => own.reply(asked, UPLOAD),
    })
    .await;
    let bytes = noise(2_000_000, 3);
    let target = name(&format!("{}/x", fake.host()));
    assert_eq!(
        push(&Host::new().client(), &target, &bytes).await,
        Ok(Pushed::Uploaded)
    );
    assert!(store.has(&bytes));
}

#[tokio::test]
async fn an_upload_that_is_forgotten_at_its_end_begins_anew_and_not_for_ever() {
    for (times, is_pushed) in [(1, true), (usize::MAX, false)] {
        let store = Store::default();
        let own = store.clone();
        let forgotten = AtomicUsize::new(0);
        let fake = Fake::start(move |asked| {
            if asked.method == "PUT" && forgotten.fetch_add(1, Ordering::SeqCst) < times {
                return Reply::error(404, "BLOB_UPLOAD_UNKNOWN", "blob upload unknown");
            }
            own.reply(asked, UPLOAD)
        })
        .await;
        for length in [1000, 2_000_000] {
            let bytes = noise(length, 3);
            let target = name(&format!("{}/x", fake.host()));
            let pushed = push(&Host::new().client(), &target, &bytes).await;
            if is_pushed {
                assert_eq!(pushed, Ok(Pushed::Uploaded));
            } else {
                let error = pushed.unwrap_err();
                assert!(
                    error.ends_with("answered 404: blob upload unknown"),
                    "{error}"
                );
            }
            assert_eq!(store.has(&bytes), is_pushed);
        }
        assert!(fake.asked().len() < 40, "{}", fake.asked().len());
    }
}

#[tokio::test]
async fn a_proxy_that_finds_it_too_large_gets_pieces() {
    let store = Store::default();
    let own = store.clone();
    let fake = Fake::start(move |asked| match asked.body.len() {
        8_388_609.. => Reply::new(413, "<html>"),
        _ => own.reply(asked, UPLOAD),
    })
    .await;
    let bytes = noise(10_000_000, 3);
    let target = name(&format!("{}/x", fake.host()));
    assert_eq!(
        push(&Host::new().client(), &target, &bytes).await,
        Ok(Pushed::Uploaded)
    );
    assert!(store.has(&bytes));
}

#[tokio::test]
async fn an_upload_that_never_works_ends_with_an_error() {
    let fake = Fake::start(|asked| match asked.method.as_str() {
        "HEAD" => Reply::new(404, ""),
        "PATCH" => Reply::error(500, "UNKNOWN", "disk on fire"),
        _ => Reply::new(202, "").with("location", UPLOAD),
    })
    .await;
    let target = name(&format!("{}/x", fake.host()));
    let error = push(&Host::new().client(), &target, &noise(2_000_000, 3))
        .await
        .unwrap_err();
    assert!(error.starts_with("cannot push sha256:"), "{error}");
    assert!(error.ends_with("answered 500: disk on fire"), "{error}");
    let silent = Fake::start(|asked| match asked.method.as_str() {
        "HEAD" => Reply::new(404, ""),
        _ => Reply::new(202, "").sent_as(Body::Silence),
    })
    .await;
    let target = name(&format!("{}/x", silent.host()));
    let error = push(&Host::new().client(), &target, b"x")
        .await
        .unwrap_err();
    assert!(error.ends_with("sent nothing for 2 s"), "{error}");
}

#[tokio::test]
async fn an_upload_that_is_always_unauthorized_ends() {
    static TOKENS: AtomicUsize = AtomicUsize::new(0);
    let fake = Fake::start(|asked| match asked.method.as_str() {
        "HEAD" => Reply::new(404, ""),
        "GET" if asked.path.starts_with("/token") => {
            let number = TOKENS.fetch_add(1, Ordering::SeqCst);
            Reply::new(200, format!(r#"{{"token":"t{number}"}}"#))
        }
        "PATCH" => {
            let realm = format!("http://{}/token", asked.header("host").unwrap());
            Reply::error(401, "UNAUTHORIZED", "who are you")
                .with("www-authenticate", format!("Bearer realm=\"{realm}\""))
        }
        _ => Reply::new(202, "").with("location", UPLOAD),
    })
    .await;
    let target = name(&format!("{}/x", fake.host()));
    let bytes = noise(2_000_000, 3);
    let error = push(&Host::new().client(), &target, &bytes)
        .await
        .unwrap_err();
    assert!(error.ends_with("denies access: who are you"), "{error}");
    assert!(TOKENS.load(Ordering::SeqCst) < 5);
}

#[tokio::test]
async fn every_legal_place_of_an_upload_works_and_no_token_leaves_the_registry() {
    const BASIC: &str = "Basic dTpw";
    let store = Store::default();
    let elsewhere_store = store.clone();
    let elsewhere = Fake::start(move |asked| elsewhere_store.reply(asked, UPLOAD)).await;
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let unused = free.local_addr().unwrap().port();
    drop(free);
    let kinds = ["relative", "path", "absolute", "wrong port", "another host"];
    for (seed, kind) in (1..).zip(kinds) {
        let (own, other) = (store.clone(), elsewhere.port());
        let fake = Fake::start(move |asked| {
            if asked.header("authorization") != Some(BASIC) {
                return Reply::new(401, "").with("www-authenticate", "Basic realm=x");
            }
            let here = asked.header("host").unwrap();
            let location = match kind {
                "relative" => "1?_state=a".to_owned(),
                "path" => UPLOAD.to_owned(),
                "absolute" => format!("http://{here}{UPLOAD}"),
                "wrong port" => format!("http://127.0.0.1:{unused}{UPLOAD}"),
                _ => format!("http://localhost:{other}{UPLOAD}"),
            };
            own.reply(asked, &location)
        })
        .await;
        let host = Host::new();
        host.password(&fake.host(), "u", "p");
        let bytes = noise(1_500_000, seed);
        let target = name(&format!("{}/x", fake.host()));
        let pushed = push(&host.client(), &target, &bytes).await;
        assert_eq!(pushed, Ok(Pushed::Uploaded), "{kind}");
        assert!(store.has(&bytes), "{kind}");
    }
    let asked = elsewhere.asked();
    assert!(!asked.is_empty());
    assert!(
        asked
            .iter()
            .all(|asked| asked.header("authorization").is_none())
    );
}

#[tokio::test]
async fn a_blob_is_mounted_from_another_repository() {
    let fake = Fake::start(
        |asked| match (asked.method.as_str(), asked.path.contains("from=")) {
            ("HEAD", _) => Reply::new(404, ""),
            ("POST", true) if asked.path.ends_with("from=a/good") => Reply::new(201, ""),
            ("POST", true) if asked.path.ends_with("from=denied") => Reply::new(403, ""),
            ("POST", _) => Reply::new(202, "").with("location", UPLOAD),
            _ => Reply::new(201, ""),
        },
    )
    .await;
    let client = Host::new().client();
    let at = |repository: &str| name(&format!("{}/{repository}", fake.host()));
    let options = |from: &[&str]| PushOptions {
        mount_from: from.iter().map(|own| at(own)).collect(),
        ..PushOptions::default()
    };
    let bytes = noise(1000, 1);
    let from = options(&["denied", "other", "a/good"]);
    assert_eq!(
        push_with(&client, &at("x"), &bytes, from).await,
        Ok(Pushed::Mounted)
    );
    let lines = fake.lines();
    let mount = format!(
        "POST /v2/x/blobs/uploads/?mount={}&from=a/good",
        Digest::of(&bytes)
    );
    // The upload that "other" began instead was given up.
    let cancel = format!("DELETE {UPLOAD}");
    assert!(
        lines.contains(&mount) && lines.contains(&cancel),
        "{lines:?}"
    );
    // 202 is no error: it is the upload.
    let before = lines.len();
    assert_eq!(
        push_with(&client, &at("x"), &bytes, options(&["other"])).await,
        Ok(Pushed::Uploaded)
    );
    let methods: Vec<_> = fake.asked()[before..]
        .iter()
        .map(|asked| asked.method.clone())
        .collect();
    assert_eq!(methods, ["HEAD", "POST", "PUT"]);
    // What is in another registry cannot be mounted.
    let foreign = PushOptions {
        mount_from: vec![name("elsewhere.test/a/good")],
        ..PushOptions::default()
    };
    assert_eq!(
        push_with(&client, &at("x"), &bytes, foreign).await,
        Ok(Pushed::Uploaded)
    );
}

#[tokio::test]
async fn what_is_damaged_here_is_not_pushed() {
    let store = Store::default();
    let own = store.clone();
    let fake = Fake::start(move |asked| own.reply(asked, UPLOAD)).await;
    let client = Host::new().client();
    let target = name(&format!("{}/x", fake.host()));
    for length in [1000_usize, 3_000_000] {
        let blob: Descriptor = descriptor(&noise(length, 1), "x/y");
        let wrong = source(noise(length, 2));
        let options = PushOptions::default();
        let error = client
            .push_blob(&target, &blob, wrong, &options)
            .await
            .unwrap_err();
        assert!(
            line(&error).starts_with(&format!("{} is damaged", blob.digest)),
            "{error}"
        );
        assert!(
            fake.lines().last().unwrap().starts_with("DELETE"),
            "{:?}",
            fake.lines()
        );
        let failing = Arc::new(|_: u64| -> io::Result<Box<dyn Read + Send>> {
            Err(io::Error::other("no such layer"))
        });
        let error = client
            .push_blob(&target, &blob, failing, &options)
            .await
            .unwrap_err();
        assert_eq!(
            line(&error),
            format!("cannot read {}: no such layer", blob.digest)
        );
    }
    assert!(store.0.lock().unwrap().blobs.is_empty());
}

#[tokio::test]
async fn a_manifest_is_pushed_byte_for_byte() {
    let image = Image::small();
    let fake = Fake::start(|asked| {
        let digest = Digest::of(&asked.body).to_string();
        Reply::new(201, "").with("docker-content-digest", digest)
    })
    .await;
    let client = Host::new().client();
    let target = name(&format!("{}/x:1", fake.host()));
    client
        .push_manifest(&target, &image.fetched())
        .await
        .unwrap();
    let asked = fake.asked().pop().unwrap();
    assert_eq!(
        (asked.path.as_str(), &asked.body),
        ("/v2/x/manifests/1", &image.manifest)
    );
    assert_eq!(asked.header("content-type"), Some(crate::fixture::MANIFEST));
    let digest = image.fetched().digest;
    client
        .push_manifest(&target.with_digest(digest), &image.fetched())
        .await
        .unwrap();
    assert_eq!(fake.lines()[1], format!("PUT /v2/x/manifests/{digest}"));
    let other = Fake::start(|_| {
        Reply::new(201, "").with("docker-content-digest", Digest::of(b"other").to_string())
    })
    .await;
    let target = name(&format!("{}/x:1", other.host()));
    let error = client
        .push_manifest(&target, &image.fetched())
        .await
        .unwrap_err();
    assert!(line(&error).contains("stored sha256:"), "{error}");
    let refusing =
        Fake::start(|_| Reply::error(400, "MANIFEST_BLOB_UNKNOWN", "blob unknown to registry"))
            .await;
    let target = name(&format!("{}/x:1", refusing.host()));
    let error = client
        .push_manifest(&target, &image.fetched())
        .await
        .unwrap_err();
    let host = refusing.host();
    assert_eq!(
        line(&error),
        format!(
            "cannot push the manifest to {host}/x:1: {host} answered 400: blob unknown to registry"
        )
    );
}
