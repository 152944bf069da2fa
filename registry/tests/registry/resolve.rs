//! From names to manifests.

use crate::fake::{Body, Fake, Reply};
use crate::fixture::{
    Host, INDEX, Image, MANIFEST, amd64, descriptor, line, manifest, name, resolve,
};
use hullbox_registry::{Digest, Resolution, ResolveError};
use serde_json::json;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Refused within seconds, and why.
async fn refused(reply: impl Fn(&crate::fake::Asked) -> Reply + Send + Sync + 'static) -> String {
    let fake = Fake::start(reply).await;
    let started = Instant::now();
    let error = resolve(&Host::new().client(), &format!("{}/x:1", fake.host())).await;
    assert!(started.elapsed() < Duration::from_secs(15));
    line(&error.unwrap_err())
}

#[tokio::test]
async fn an_unchanged_image_costs_one_request() {
    let image = Image::small();
    let own = image.clone();
    let fake = Fake::start(move |asked| own.reply(asked)).await;
    let client = Host::new().client();
    let target = format!("{}/x:1", fake.host());
    let found = resolve(&client, &target).await.unwrap();
    assert_eq!(found.manifest.raw, image.manifest);
    assert_eq!(found.manifest.media_type, MANIFEST);
    assert_eq!(found.layers, [image.layer()]);
    let known = found.digest();
    let again = client
        .resolve(&name(&target), &amd64(), Some(&known))
        .await
        .unwrap();
    assert_eq!(again, Resolution::Unchanged(known));
    assert_eq!(
        fake.lines(),
        ["GET /v2/x/manifests/1", "HEAD /v2/x/manifests/1"]
    );
    // One that is pinned to what is there is not asked for.
    let pinned = name(&target).with_digest(known);
    client
        .resolve(&pinned, &amd64(), Some(&known))
        .await
        .unwrap();
    assert_eq!(fake.asked().len(), 2);
    // A changed one is fetched.
    let old = Digest::of(b"old");
    let changed = client
        .resolve(&name(&target), &amd64(), Some(&old))
        .await
        .unwrap();
    assert!(matches!(changed, Resolution::Image(image) if image.digest() == known));
}

#[tokio::test]
async fn the_platforms_manifest_is_found_through_nested_indexes() {
    let image = Image::small();
    let entry = |bytes: &[u8], kind: &str, platform: serde_json::Value| {
        let mut value = serde_json::to_value(descriptor(bytes, kind)).unwrap();
        value["platform"] = platform;
        value
    };
    let other = br#"{"schemaVersion":2}"#;
    let inner = serde_json::to_vec(
        &json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [
            entry(other, MANIFEST, json!({"os": "linux", "architecture": "arm64"})),
            entry(&image.manifest, MANIFEST, json!({"os": "linux", "architecture": "amd64"})),
            entry(other, MANIFEST, json!({"os": "unknown", "architecture": "unknown"})),
        ]}),
    )
    .unwrap();
    let outer = serde_json::to_vec(
        &json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [
            entry(&inner, INDEX, json!(null)),
        ]}),
    )
    .unwrap();
    let (own, first, second) = (image.clone(), outer.clone(), inner.clone());
    let fake = Fake::start(move |asked| {
        if asked.path.ends_with("/1") {
            manifest(&first, INDEX)
        } else if asked.path.ends_with(&Digest::of(&second).to_string()) {
            manifest(&second, INDEX)
        } else {
            own.reply(asked)
        }
    })
    .await;
    let client = Host::new().client();
    let target = format!("{}/x:1", fake.host());
    let found = resolve(&client, &target).await.unwrap();
    assert_eq!(found.manifest.raw, image.manifest);
    let raws: Vec<_> = found
        .indexes
        .iter()
        .map(|index| index.raw.clone())
        .collect();
    assert_eq!(raws, [outer.clone(), inner]);
    assert_eq!(found.digest(), Digest::of(&outer));
    let plain = client.manifest(&name(&target)).await.unwrap();
    assert_eq!((plain.raw, plain.media_type.as_str()), (outer, INDEX));
    let s390x = "linux/s390x".parse().unwrap();
    let error = client
        .resolve(&name(&target), &s390x, None)
        .await
        .unwrap_err();
    let text = line(&error);
    assert!(
        text.ends_with("has no image for linux/s390x: it is for linux/arm64, linux/amd64"),
        "{text}"
    );
}

#[tokio::test]
async fn an_index_in_itself_has_an_end() {
    // It cannot name its own digest, but a registry can answer every digest with another index.
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let text = refused(|_| {
        let entry = descriptor(b"any", INDEX);
        let number = COUNT.fetch_add(1, Ordering::SeqCst);
        let index = json!({"schemaVersion": 2, "n": number, "manifests": [entry]});
        manifest(index.to_string().as_bytes(), INDEX)
    })
    .await;
    // The second one is not the digest that the first one names.
    assert!(text.contains("a manifest that is not sha256:"), "{text}");
    let mut chain = vec![Image::small().manifest];
    for _ in 0..6 {
        let entry = descriptor(chain.last().unwrap(), INDEX);
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]});
        chain.push(index.to_string().into_bytes());
    }
    let text = refused(move |asked| {
        let named = |bytes: &&Vec<u8>| asked.path.ends_with(&Digest::of(bytes).to_string());
        manifest(chain.iter().find(named).unwrap_or(&chain[6]), INDEX)
    })
    .await;
    assert!(
        text.ends_with("has indexes in indexes, deeper than 4"),
        "{text}"
    );
}

#[tokio::test]
async fn a_manifest_of_100_mib_is_not_read() {
    let text = refused(|_| Reply::new(200, vec![b' '; 100 << 20])).await;
    assert!(
        text.contains("sent more than 4194304 bytes for a manifest"),
        "{text}"
    );
    let text = refused(|_| Reply::new(200, "").sent_as(Body::Endless)).await;
    assert!(
        text.contains("sent more than 4194304 bytes for a manifest"),
        "{text}"
    );
}

#[tokio::test]
async fn a_manifest_that_drips_is_given_up() {
    let pause = Duration::from_millis(100);
    let text =
        refused(move |_| Reply::new(200, "").sent_as(Body::Drip(vec![b' '; 100_000], pause))).await;
    assert!(text.contains("sent almost nothing for 2 s"), "{text}");
}

#[tokio::test]
async fn what_is_no_image_is_refused() {
    let text = refused(|_| manifest(b"<html>", "text/html")).await;
    assert!(text.contains("not valid JSON"), "{text}");
    let text = refused(|_| manifest(br#"{"schemaVersion":1,"fsLayers":[]}"#, "x/y")).await;
    assert!(text.contains("schema 1"), "{text}");
    let text = refused(|_| {
        Reply::new(200, Image::small().manifest)
            .with("docker-content-digest", Digest::of(b"other").to_string())
    })
    .await;
    assert!(text.contains("a manifest that is not sha256:"), "{text}");
}

#[tokio::test]
async fn what_contradicts_itself_is_refused() {
    let text = refused(|_| manifest(&Image::small().manifest, INDEX)).await;
    assert!(
        text.contains("a manifest of another type than it says itself"),
        "{text}"
    );
    for (kind, length, word) in [(INDEX, 0, "media type"), (MANIFEST, 1, "length")] {
        let text = refused(move |asked| {
            let image = Image::small();
            let mut entry = descriptor(&image.manifest, kind);
            entry.size_bytes += length;
            let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]});
            match asked.path.ends_with("/1") {
                true => manifest(index.to_string().as_bytes(), INDEX),
                false => image.reply(asked),
            }
        })
        .await;
        let end = format!("its {word} is not the one that the index gives");
        assert!(text.ends_with(&end), "{text}");
    }
}

#[tokio::test]
async fn a_registrys_words_are_shown_without_control_characters() {
    let fake = Fake::start(|_| Reply::error(404, "X", "no such\u{1b}[31m\nthing")).await;
    let target = format!("{}/x:1", fake.host());
    let error = resolve(&Host::new().client(), &target).await.unwrap_err();
    assert!(matches!(error, ResolveError::NotFound { .. }), "{error:?}");
    let host = fake.host();
    assert_eq!(
        line(&error),
        format!("{host}/x:1 was not found: {host} answered 404: no such [31m thing")
    );
}

#[tokio::test]
async fn a_registry_that_wants_to_be_left_alone_is() {
    static ASKED: AtomicUsize = AtomicUsize::new(0);
    let image = Image::small();
    let fake = Fake::start(move |asked| match ASKED.fetch_add(1, Ordering::SeqCst) {
        0 | 1 => Reply::error(429, "TOOMANYREQUESTS", "slow down").with("retry-after", "1"),
        _ => image.reply(asked),
    })
    .await;
    let host = Host::new();
    let started = Instant::now();
    resolve(&host.client(), &format!("{}/x:1", fake.host()))
        .await
        .unwrap();
    assert!(started.elapsed() >= Duration::from_secs(2));
    assert_eq!(host.retries(), 2);
}

#[tokio::test]
async fn a_limit_is_named_and_not_waited_for_without_end() {
    let limited = |wait: &'static str| {
        refused(move |_| {
            Reply::error(
                429,
                "TOOMANYREQUESTS",
                "You have reached your pull rate limit",
            )
            .with("retry-after", wait)
            .with("ratelimit-limit", "100;w=21600")
        })
    };
    for wait in ["3600", "0"] {
        let text = limited(wait).await;
        let end = "allows no more requests now: 100 requests in 21600 s: You have reached your pull rate limit";
        assert!(text.ends_with(end), "{text}");
    }
}

#[tokio::test]
async fn errors_that_pass_are_waited_out() {
    static ASKED: AtomicUsize = AtomicUsize::new(0);
    let image = Image::small();
    let fake = Fake::start(move |asked| match ASKED.fetch_add(1, Ordering::SeqCst) {
        0 => Reply::new(503, ""),
        1 => Reply::new(200, "").sent_as(Body::Cut(vec![b' '; 100], 5)),
        2 => Reply::new(200, "").sent_as(Body::Silence),
        _ => image.reply(asked),
    })
    .await;
    let host = Host::new();
    let target = format!("{}/x:1", fake.host());
    resolve(&host.client(), &target).await.unwrap();
    assert_eq!((fake.asked().len(), host.retries()), (4, 3));
}

#[tokio::test]
async fn all_pages_of_tags_come_from_the_registry_itself() {
    let fake = Fake::start(|asked| {
        let page = |tags: &[&str]| Reply::new(200, json!({"tags": tags}).to_string());
        if asked.path.contains("last=b") {
            page(&["c"])
        } else {
            let next = "<http://elsewhere.test/v2/x/tags/list?last=b&n=2>; rel=\"next\"";
            page(&["a", "b", "not/a/tag"]).with("link", next)
        }
    })
    .await;
    let client = Host::new().client();
    let tags = client
        .tags(&name(&format!("{}/x", fake.host())))
        .await
        .unwrap();
    assert_eq!(tags, ["a", "b", "c"]);
    assert_eq!(
        fake.lines(),
        [
            "GET /v2/x/tags/list?n=1000",
            "GET /v2/x/tags/list?last=b&n=2"
        ]
    );
}

#[tokio::test]
async fn pages_without_end_have_one() {
    let fake = Fake::start(|_| {
        Reply::new(200, r#"{"tags":[]}"#).with("link", "</v2/x/tags/list?n=1>; rel=next")
    })
    .await;
    let client = Host::new().client();
    let error = client
        .tags(&name(&format!("{}/x", fake.host())))
        .await
        .unwrap_err();
    assert!(
        line(&error).contains("a list of tags without end"),
        "{error}"
    );
}
