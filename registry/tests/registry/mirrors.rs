//! Mirrors, and names that are not what is asked for.

use crate::fake::{Fake, Reply};
use crate::fixture::{
    Host, INDEX, Image, MANIFEST, cut, descriptor, download, line, manifest, noise, resolve,
};
use hullbox_registry::ResolveError;

/// A host where `reg.test` is served by `own`, with mirrors.
fn host(own: &Fake, mirrors: &[&str]) -> Host {
    let host = Host::new();
    let mirror =
        |place: &&str| format!("[[registry.mirror]]\nlocation = '{place}'\ninsecure = true\n");
    let mirrors: String = mirrors.iter().map(mirror).collect();
    host.registries(&format!(
        "[[registry]]\nprefix = 'reg.test'\nlocation = '{}'\ninsecure = true\n{mirrors}",
        own.host()
    ));
    host
}

async fn well(image: &Image) -> Fake {
    let image = image.clone();
    Fake::start(move |asked| image.reply(asked)).await
}

#[tokio::test]
async fn a_mirror_is_used_and_the_name_stays() {
    let image = Image::small();
    let (mirror, own) = (well(&image).await, well(&image).await);
    let host = host(&own, &[&format!("{}/cache", mirror.host())]);
    let client = host.client();
    let found = resolve(&client, "reg.test/a/x:1").await.unwrap();
    assert_eq!(found.name.to_string(), "reg.test/a/x:1");
    download(&client, &found.name, &found.layers[0], 0)
        .await
        .unwrap();
    let blob = format!("GET /v2/cache/a/x/blobs/{}", image.layer().digest);
    assert_eq!(
        mirror.lines(),
        ["GET /v2/cache/a/x/manifests/1".to_owned(), blob]
    );
    assert!(own.asked().is_empty());
}

#[tokio::test]
async fn each_object_falls_back_by_itself() {
    let image = Image::small();
    let with_manifests = image.clone();
    // Manifests only, as a mirror has that was filled by half.
    let mirror = Fake::start(move |asked| match asked.path.contains("/blobs/") {
        true => Reply::error(404, "BLOB_UNKNOWN", "blob unknown"),
        false => with_manifests.reply(asked),
    })
    .await;
    let own = well(&image).await;
    let host = host(&own, &[&mirror.host()]);
    let client = host.client();
    let found = resolve(&client, "reg.test/x:1").await.unwrap();
    let bytes = download(&client, &found.name, &found.layers[0], 0)
        .await
        .unwrap();
    assert_eq!(bytes, image.layers[0]);
    assert_eq!((mirror.asked().len(), own.asked().len()), (2, 1));
}

#[tokio::test]
async fn a_mirror_may_have_the_index_only() {
    let image = Image::small();
    let mut entry = serde_json::to_value(descriptor(&image.manifest, MANIFEST)).unwrap();
    entry["platform"] = serde_json::json!({"os": "linux", "architecture": "amd64"});
    let index = serde_json::json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]});
    let index = index.to_string().into_bytes();
    let raw = index.clone();
    let mirror = Fake::start(move |asked| match asked.path.ends_with("/1") {
        true => manifest(&raw, INDEX),
        false => Reply::not_found(),
    })
    .await;
    let own = well(&image).await;
    let host = host(&own, &[&mirror.host()]);
    let found = resolve(&host.client(), "reg.test/x:1").await.unwrap();
    assert_eq!(found.indexes[0].raw, index);
    assert_eq!(found.manifest.raw, image.manifest);
    assert_eq!((mirror.asked().len(), own.asked().len()), (2, 1));
}

#[tokio::test]
async fn a_mirror_that_is_dead_is_tried_once() {
    let image = Image::small();
    let own = well(&image).await;
    let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let place = dead.local_addr().unwrap().to_string();
    drop(dead);
    let host = host(&own, &[&place]);
    let client = host.client();
    let found = resolve(&client, "reg.test/x:1").await.unwrap();
    for layer in &found.layers {
        download(&client, &found.name, layer, 0).await.unwrap();
    }
    assert_eq!((own.asked().len(), host.retries()), (2, 0));
}

#[tokio::test]
async fn a_mirror_that_breaks_in_the_middle_is_left_in_the_middle() {
    let image = Image::small();
    let half = image.clone();
    let mirror = Fake::start(move |asked| match asked.range() {
        Some(_) => Reply::new(500, ""),
        None if asked.path.contains("/blobs/") => cut(half.reply(asked), 150_000),
        None => half.reply(asked),
    })
    .await;
    let own = well(&image).await;
    let host = host(&own, &[&mirror.host()]);
    let client = host.client();
    let found = resolve(&client, "reg.test/x:1").await.unwrap();
    let bytes = download(&client, &found.name, &found.layers[0], 0)
        .await
        .unwrap();
    assert_eq!(bytes, image.layers[0]);
    let asked = own.asked();
    assert_eq!((asked.len(), asked[0].range()), (1, Some(150_000)));
}

#[tokio::test]
async fn what_a_mirror_has_wrong_the_registry_has_right() {
    let image = Image::small();
    let own = well(&image).await;
    let mirror = Fake::start(|asked| match asked.path.contains("/blobs/") {
        true => Reply::new(200, noise(37, 1)),
        false => Reply::new(200, Image::small().manifest).with(
            "docker-content-digest",
            hullbox_registry::Digest::of(b"x").to_string(),
        ),
    })
    .await;
    let host = host(&own, &[&mirror.host()]);
    let client = host.client();
    let found = resolve(&client, "reg.test/x:1").await.unwrap();
    let config = client
        .blob_bytes(&found.name, &found.config, 1000)
        .await
        .unwrap();
    assert_eq!(config, image.config);
    assert_eq!((mirror.asked().len(), own.asked().len()), (2, 2));
}

#[tokio::test]
async fn an_error_says_what_was_tried() {
    let own = Fake::start(|_| Reply::not_found()).await;
    let mirror = Fake::start(|_| Reply::error(403, "DENIED", "not for you")).await;
    let host = host(&own, &[&mirror.host()]);
    let error = resolve(&host.client(), "reg.test/x:1").await.unwrap_err();
    let (own, mirror) = (own.host(), mirror.host());
    assert_eq!(
        line(&error),
        format!(
            "cannot get reg.test/x:1: {mirror}/x:1: {mirror} denies access: not for you; \
             {own}/x:1: {own} answered 404: manifest unknown"
        )
    );
}

#[tokio::test]
async fn what_is_blocked_is_not_asked_for() {
    let own = well(&Image::small()).await;
    let host = Host::new();
    host.registries(&format!(
        "[[registry]]\nlocation = '{}'\nblocked = true\n",
        own.host()
    ));
    let client = host.client();
    let target = format!("{}/x:1", own.host());
    let error = resolve(&client, &target).await.unwrap_err();
    assert!(matches!(error, ResolveError::Blocked { .. }), "{error:?}");
    assert_eq!(
        line(&error),
        format!("{target} is blocked by registries.conf")
    );
    assert!(own.asked().is_empty());
}

#[tokio::test]
async fn short_names_are_looked_up_in_the_files() {
    let host = Host::new();
    host.registries("unqualified-search-registries = ['a.test', 'docker.io']\n");
    host.write(
        "etc/containers/registries.conf.d/short.conf",
        "[aliases]\nmine = 'b.test/c/mine'\n",
    );
    let client = host.client();
    let names = |typed: &str| -> Vec<String> {
        let names = client.settings().candidates(typed).unwrap();
        names.iter().map(ToString::to_string).collect()
    };
    assert_eq!(names("mine:2"), ["b.test/c/mine:2"]);
    assert_eq!(
        names("x"),
        ["a.test/x:latest", "docker.io/library/x:latest"]
    );
    assert_eq!(names("c.test/x"), ["c.test/x:latest"]);
}
