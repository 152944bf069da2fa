//! Layers from registries that drop, lie, stall and never end.

use crate::fake::{Body, Fake, Reply};
use crate::fixture::{Host, Image, blob, cut, download, line, name, noise};
use hullbox_registry::Descriptor;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// A registry that treats the image's only layer in its own way.
async fn with_layer(
    image: &Image,
    treat: impl Fn(&crate::fake::Asked, &[u8]) -> Reply + Send + Sync + 'static,
) -> Fake {
    let own = image.clone();
    let digest = image.layer().digest.to_string();
    Fake::start(move |asked| {
        if asked.path.ends_with(&digest) {
            treat(asked, &own.layers[0])
        } else {
            own.reply(asked)
        }
    })
    .await
}

async fn get(host: &Host, fake: &Fake, layer: &Descriptor) -> Result<Vec<u8>, String> {
    let image = name(&format!("{}/x", fake.host()));
    let started = Instant::now();
    let outcome = download(&host.client(), &image, layer, 0).await;
    assert!(started.elapsed() < Duration::from_secs(15));
    outcome.map_err(|error| line(&error))
}

#[tokio::test]
async fn a_second_try_asks_for_the_missing_bytes_only() {
    let image = Image::small();
    let fake = with_layer(&image, |asked, bytes| blob(bytes, asked)).await;
    let host = Host::new();
    let target = name(&format!("{}/x", fake.host()));
    let rest = download(&host.client(), &target, &image.layer(), 200_000)
        .await
        .unwrap();
    assert_eq!(rest, image.layers[0][200_000..]);
    assert_eq!(fake.asked()[0].header("range"), Some("bytes=200000-"));
    // What is there whole is not asked for at all.
    let all = download(&host.client(), &target, &image.layer(), 300_000)
        .await
        .unwrap();
    assert!(all.is_empty());
    assert_eq!(fake.asked().len(), 1);
}

#[tokio::test]
async fn cuts_are_resumed_where_they_were() {
    let image = Image::small();
    let fake = with_layer(&image, |asked, bytes| cut(blob(bytes, asked), 60_000)).await;
    let host = Host::new();
    assert_eq!(
        get(&host, &fake, &image.layer()).await.unwrap(),
        image.layers[0]
    );
    let starts: Vec<_> = fake.asked().iter().map(|asked| asked.range()).collect();
    let expected = [60_000, 120_000, 180_000, 240_000].map(Some);
    assert_eq!(starts, [&[None][..], &expected].concat());
}

#[tokio::test]
async fn cuts_without_progress_end_with_an_error() {
    let image = Image::small();
    let fake = with_layer(&image, |asked, bytes| cut(blob(bytes, asked), 10)).await;
    let host = Host::new();
    let error = get(&host, &fake, &image.layer()).await.unwrap_err();
    assert!(error.starts_with("cannot download sha256:"), "{error}");
    assert!(error.contains("the connection to 127.0.0.1"), "{error}");
    assert_eq!((fake.asked().len(), host.retries()), (4, 3));
}

#[tokio::test]
async fn a_reconnect_answered_with_200_skips_what_is_there() {
    let image = Image::small();
    let fake = with_layer(&image, |asked, bytes| match asked.range() {
        None => cut(Reply::new(200, bytes), 100_000),
        Some(_) => Reply::new(200, bytes),
    })
    .await;
    let host = Host::new();
    assert_eq!(
        get(&host, &fake, &image.layer()).await.unwrap(),
        image.layers[0]
    );
    assert_eq!(fake.asked().len(), 2);
}

#[tokio::test]
async fn a_part_of_something_else_is_refused() {
    for (place, word) in [
        ("bytes 100001-299999/300000", "a part behind the one"),
        ("bytes 100000-299999/300001", "300001 bytes"),
        ("nonsense", "a part without its place"),
    ] {
        let image = Image::small();
        let fake = with_layer(&image, move |asked, bytes| match asked.range() {
            None => cut(Reply::new(200, bytes), 100_000),
            Some(start) => Reply::new(206, &bytes[start..]).with("content-range", place),
        })
        .await;
        let error = get(&Host::new(), &fake, &image.layer()).await.unwrap_err();
        assert!(error.contains(word), "{error}");
    }
}

#[tokio::test]
async fn a_login_that_is_demanded_in_the_middle_is_renewed() {
    static TOKENS: AtomicUsize = AtomicUsize::new(0);
    let image = Image::small();
    let own = image.clone();
    let fake = Fake::start(move |asked| {
        if asked.path.starts_with("/token") {
            let number = TOKENS.fetch_add(1, Ordering::SeqCst);
            return Reply::new(200, format!(r#"{{"token":"t{number}","expires_in":300}}"#));
        }
        // Each token is good for one request for the layer.
        let current = format!("Bearer t{}", TOKENS.load(Ordering::SeqCst).wrapping_sub(1));
        let used = asked.range().is_some() && current == "Bearer t0";
        if asked.header("authorization") != Some(&current) || used {
            let address = asked.header("host").unwrap();
            let challenge = format!(r#"Bearer realm="http://{address}/token",service="s""#);
            return Reply::error(401, "UNAUTHORIZED", "authentication required")
                .with("www-authenticate", challenge);
        }
        cut(own.reply(asked), 200_000)
    })
    .await;
    let host = Host::new();
    assert_eq!(
        get(&host, &fake, &image.layer()).await.unwrap(),
        image.layers[0]
    );
    assert_eq!(TOKENS.load(Ordering::SeqCst), 2);
    let last = fake.asked().pop().unwrap();
    assert_eq!(last.header("authorization"), Some("Bearer t1"));
    assert_eq!(last.range(), Some(200_000));
}

#[tokio::test]
async fn a_wrong_digest_is_an_error_at_the_end() {
    let image = Image::small();
    let fake = with_layer(&image, |_, bytes| Reply::new(200, noise(bytes.len(), 9))).await;
    let error = get(&Host::new(), &fake, &image.layer()).await.unwrap_err();
    let digest = image.layer().digest;
    assert!(
        error.contains(&format!("sent other bytes than {digest}")),
        "{error}"
    );
}

#[tokio::test]
async fn a_wrong_length_is_an_error_at_once() {
    let image = Image::small();
    let shorter = with_layer(&image, |_, bytes| Reply::new(200, &bytes[..1000])).await;
    let error = get(&Host::new(), &shorter, &image.layer())
        .await
        .unwrap_err();
    assert!(error.contains("sent 1000 bytes of"), "{error}");
    let longer = with_layer(&image, |_, bytes| {
        Reply::new(200, [bytes, b"x"].concat()).sent_as(Body::Chunks([bytes, b"x"].concat()))
    })
    .await;
    let error = get(&Host::new(), &longer, &image.layer())
        .await
        .unwrap_err();
    assert!(error.contains("sent more bytes of"), "{error}");
    // Without a length its end tells, again and again.
    let ends = with_layer(&image, |_, bytes| {
        Reply::new(200, "").sent_as(Body::Chunks(bytes[..1000].to_vec()))
    })
    .await;
    let error = get(&Host::new(), &ends, &image.layer()).await.unwrap_err();
    assert!(error.contains("it ended early"), "{error}");
    let gone = with_layer(&image, |asked, bytes| match asked.range() {
        None => cut(Reply::new(200, bytes), 100_000),
        Some(_) => Reply::new(416, ""),
    })
    .await;
    let error = get(&Host::new(), &gone, &image.layer()).await.unwrap_err();
    assert!(error.contains("sent fewer bytes of"), "{error}");
}

#[tokio::test]
async fn an_endless_body_ends_at_its_length() {
    let image = Image::small();
    let fake = with_layer(&image, |_, _| Reply::new(200, "").sent_as(Body::Endless)).await;
    let error = get(&Host::new(), &fake, &image.layer()).await.unwrap_err();
    assert!(error.contains("sent more bytes of"), "{error}");
}

#[tokio::test]
async fn a_slow_drip_is_given_up() {
    let image = Image::small();
    let pause = Duration::from_millis(20);
    let fake = with_layer(&image, move |_, bytes| {
        Reply::new(200, "").sent_as(Body::Drip(bytes.to_vec(), pause))
    })
    .await;
    let error = get(&Host::new(), &fake, &image.layer()).await.unwrap_err();
    assert!(error.contains("sent almost nothing for"), "{error}");
}

#[tokio::test]
async fn a_stall_is_resumed() {
    let image = Image::small();
    let fake = with_layer(&image, |asked, bytes| match asked.range() {
        None => Reply::new(200, "").sent_as(Body::Stall(bytes.to_vec(), 123_456)),
        Some(_) => blob(bytes, asked),
    })
    .await;
    let host = Host::new();
    assert_eq!(
        get(&host, &fake, &image.layer()).await.unwrap(),
        image.layers[0]
    );
    assert_eq!(fake.asked()[1].range(), Some(123_456));
}

#[tokio::test]
async fn a_compressed_answer_is_not_asked_for() {
    let image = Image::small();
    let fake = with_layer(&image, |asked, bytes| blob(bytes, asked)).await;
    get(&Host::new(), &fake, &image.layer()).await.unwrap();
    assert_eq!(fake.asked()[0].header("accept-encoding"), Some("identity"));
}

#[tokio::test]
async fn a_small_blob_comes_whole_or_not_at_all() {
    let image = Image::small();
    let fake = with_layer(&image, |_, bytes| Reply::new(200, noise(bytes.len(), 9))).await;
    let host = Host::new();
    let client = host.client();
    let target = name(&format!("{}/x", fake.host()));
    let config = client
        .blob_bytes(&target, &image.config(), 1000)
        .await
        .unwrap();
    assert_eq!(config, image.config);
    let error = client
        .blob_bytes(&target, &image.layer(), 1000)
        .await
        .unwrap_err();
    assert!(
        line(&error).contains("has 300000 bytes, and at most 1000"),
        "{error}"
    );
    let error = client
        .blob_bytes(&target, &image.layer(), 1 << 20)
        .await
        .unwrap_err();
    assert!(line(&error).contains("sent other bytes"), "{error}");
}
