//! Challenges, tokens, credentials, helpers; and that nobody learns what is not theirs.

use crate::fake::{Asked, Body, Fake, Reply};
use crate::fixture::{Host, Image, download, line, resolve};
use hullbox_registry::LoginError;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicUsize, Ordering};

/// `user:s3cret`.
const BASIC: &str = "Basic dXNlcjpzM2NyZXQ=";
const PASSWORD: &str = "s3cret";

fn unauthorized(challenge: &str) -> Reply {
    Reply::error(401, "UNAUTHORIZED", "authentication required").with("www-authenticate", challenge)
}

/// A registry behind a password.
fn basic(image: &Image, asked: &Asked) -> Reply {
    match asked.header("authorization") {
        Some(BASIC) if asked.path == "/v2/" => Reply::new(200, "{}"),
        Some(BASIC) => image.reply(asked),
        _ => unauthorized("Basic realm=\"x\""),
    }
}

async fn basic_registry() -> Fake {
    let image = Image::small();
    Fake::start(move |asked| basic(&image, asked)).await
}

#[tokio::test]
async fn a_password_is_sent_when_it_is_asked_for() {
    let fake = basic_registry().await;
    let target = format!("{}/x:1", fake.host());
    let host = Host::new();
    let error = resolve(&host.client(), &target).await.unwrap_err();
    let text = line(&error);
    assert!(
        text.ends_with("denies access: authentication required"),
        "{text}"
    );
    host.password(&fake.host(), "user", PASSWORD);
    let client = host.client();
    let image = resolve(&client, &target).await.unwrap();
    let asked = fake.asked();
    assert_eq!(asked[1].header("authorization"), None);
    assert_eq!(asked[2].header("authorization"), Some(BASIC));
    // What is known of the registry is not asked again.
    download(&client, &image.name, &image.layers[0], 0)
        .await
        .unwrap();
    assert_eq!(fake.asked().len(), 4);
    host.password(&fake.host(), "user", "wrong");
    let error = resolve(&host.client(), &target).await.unwrap_err();
    assert!(line(&error).contains("denies access"), "{error}");
    assert_eq!(fake.asked().len(), 6);
}

/// A registry that gives tokens, and a service on another host that has them.
async fn with_tokens(life: &'static str) -> (Fake, Fake) {
    let tokens = Fake::start(move |asked| {
        let is_user = asked.header("authorization") == Some(BASIC);
        let is_refresh = asked.body == REFRESH.as_bytes();
        if !is_user && !is_refresh && !asked.path.contains("scope=repository%3Ax%3Apull") {
            return Reply::new(401, r#"{"details":"incorrect username or password"}"#);
        }
        Reply::new(200, format!(r#"{{"access_token":"tok3n"{life}}}"#))
    })
    .await;
    let realm = format!("http://{}/token?a=b", tokens.host());
    let image = Image::small();
    let registry = Fake::start(move |asked| match asked.header("authorization") {
        Some("Bearer tok3n") if asked.path == "/v2/" => Reply::new(200, "{}"),
        Some("Bearer tok3n") => image.reply(asked),
        _ => unauthorized(&format!(r#"Bearer realm="{realm}",service="a service""#)),
    })
    .await;
    (registry, tokens)
}

const REFRESH: &str = "grant_type=refresh_token&service=a+service&client_id=hullbox&scope=repository%3Ax%3Apull&refresh_token=r3fresh";

#[tokio::test]
async fn a_token_comes_from_the_service_that_the_registry_names() {
    let (registry, tokens) = with_tokens("").await;
    let target = format!("{}/x:1", registry.host());
    let host = Host::new();
    let client = host.client();
    resolve(&client, &target).await.unwrap();
    assert_eq!(
        tokens.lines(),
        ["GET /token?a=b&service=a+service&scope=repository%3Ax%3Apull"]
    );
    assert_eq!(tokens.asked()[0].header("authorization"), None);
    // One token for all requests of this client.
    resolve(&client, &target).await.unwrap();
    assert_eq!((tokens.asked().len(), registry.asked().len()), (1, 3));
    // Only the service learns the password, only the registry the token.
    host.password(&registry.host(), "user", PASSWORD);
    resolve(&host.client(), &target).await.unwrap();
    assert_eq!(tokens.asked()[1].header("authorization"), Some(BASIC));
    assert!(tokens.lines()[1].ends_with("&account=user"));
    for asked in registry.asked() {
        assert_ne!(asked.header("authorization"), Some(BASIC));
    }
}

#[tokio::test]
async fn a_refresh_token_is_sent_in_a_form() {
    let (registry, tokens) = with_tokens(r#","expires_in":100000000000"#).await;
    let host = Host::new();
    let auth = serde_json::json!({"auths": {registry.host(): {"identitytoken": "r3fresh"}}});
    host.write("home/.docker/config.json", auth.to_string());
    resolve(&host.client(), &format!("{}/x:1", registry.host()))
        .await
        .unwrap();
    let asked = tokens.asked();
    assert_eq!((asked.len(), asked[0].method.as_str()), (1, "POST"));
    assert_eq!(String::from_utf8_lossy(&asked[0].body), REFRESH);
}

#[tokio::test]
async fn many_who_ask_at_once_share_a_token() {
    let (registry, tokens) = with_tokens("").await;
    let client = Host::new().client();
    let target = format!("{}/x:1", registry.host());
    let all: Vec<_> = (0..8)
        .map(|_| {
            let (client, target) = (client.clone(), target.clone());
            tokio::spawn(async move { resolve(&client, &target).await.unwrap() })
        })
        .collect();
    for one in all {
        one.await.unwrap();
    }
    assert_eq!(tokens.asked().len(), 1);
}

#[tokio::test]
async fn a_token_service_that_lies_is_an_error() {
    for (reply, word) in [
        (Reply::new(200, "{}"), "no token"),
        (
            Reply::new(200, r#"{"token": "a\nb"}"#),
            "a token that cannot be sent",
        ),
        (
            Reply::new(200, r#"{"token": 5}"#),
            "a token that is not valid JSON",
        ),
        (
            Reply::new(200, "").sent_as(Body::Endless),
            "more than 1048576 bytes for a token",
        ),
        (Reply::new(500, ""), "answered 500"),
        (
            Reply::new(401, r#"{"details":"who are you"}"#),
            "denies access: who are you",
        ),
        (
            Reply::new(302, "").with("location", "http://127.0.0.1:1/"),
            "cannot connect",
        ),
    ] {
        let tokens = Fake::start(move |_| reply.clone()).await;
        let realm = format!(r#"Bearer realm="http://{}/token""#, tokens.host());
        let registry = Fake::start(move |_| unauthorized(&realm)).await;
        let error = resolve(&Host::new().client(), &format!("{}/x:1", registry.host())).await;
        let text = line(&error.unwrap_err());
        assert!(text.contains(word), "{text}");
    }
}

#[tokio::test]
async fn a_token_that_is_never_good_ends_the_asking() {
    let registry = Fake::start(|asked| {
        if asked.path.starts_with("/token") {
            static COUNT: AtomicUsize = AtomicUsize::new(0);
            let number = COUNT.fetch_add(1, Ordering::SeqCst);
            return Reply::new(200, format!(r#"{{"token":"t{number}"}}"#));
        }
        let host = asked.header("host").unwrap();
        unauthorized(&format!(r#"Bearer realm="http://{host}/token""#))
    })
    .await;
    let error = resolve(&Host::new().client(), &format!("{}/x:1", registry.host())).await;
    let text = line(&error.unwrap_err());
    assert!(
        text.ends_with("denies access: authentication required"),
        "{text}"
    );
    assert!(registry.asked().len() < 8);
}

#[tokio::test]
async fn a_realm_without_tls_learns_nothing_of_a_registry_with_it() {
    let tokens = Fake::start(|_| Reply::new(200, r#"{"token":"x"}"#)).await;
    let (tls, authority) = crate::transport::certificate("reg.test");
    let realm = format!(r#"Bearer realm="http://{}/token""#, tokens.host());
    let registry = Fake::with_tls(tls, move |_| unauthorized(&realm)).await;
    let host = Host::new();
    let server = format!("reg.test:{}", registry.port());
    host.write("etc/hosts", "127.0.0.1 reg.test\n");
    host.write(
        &format!("etc/containers/certs.d/{server}/ca.crt"),
        authority,
    );
    host.password(&server, "user", PASSWORD);
    let error = resolve(&host.client(), &format!("{server}/x:1"))
        .await
        .unwrap_err();
    let text = line(&error);
    assert!(
        text.ends_with(&format!("its token service {} has no TLS", tokens.host())),
        "{text}"
    );
    assert!(tokens.asked().is_empty());
}

#[tokio::test]
async fn a_redirect_takes_no_credentials_to_another_host() {
    let image = Image::small();
    let own = image.clone();
    let storage = Fake::start(move |asked| {
        assert_eq!(asked.header("authorization"), None);
        let mut inner = asked.clone();
        inner.path = asked.path.split('?').next().unwrap().to_owned();
        own.reply(&inner)
    })
    .await;
    let (own, elsewhere) = (image.clone(), storage.host());
    let registry = Fake::start(move |asked| {
        if asked.header("authorization") != Some(BASIC) {
            return unauthorized("Basic realm=x");
        }
        match asked.path.contains("/blobs/") {
            true => Reply::new(307, "").with(
                "location",
                format!("http://evil:pw@{elsewhere}{}?sig=s1gned", asked.path),
            ),
            false => own.reply(asked),
        }
    })
    .await;
    let host = Host::new();
    host.password(&registry.host(), "user", PASSWORD);
    let client = host.client();
    let found = resolve(&client, &format!("{}/x:1", registry.host()))
        .await
        .unwrap();
    let bytes = download(&client, &found.name, &found.layers[0], 0)
        .await
        .unwrap();
    assert_eq!(bytes, image.layers[0]);
    assert_eq!(storage.asked().len(), 1);
}

#[tokio::test]
async fn redirects_in_a_circle_and_to_nowhere_end() {
    for (location, word) in [
        ("/v2/x/manifests/1", "redirects more than 10 times"),
        ("ftp://127.0.0.1/x", "redirects to a URL of \"ftp\""),
        ("file:///etc/passwd", "redirects to a URL of \"file\""),
        ("http://", "redirects to what is no URL"),
    ] {
        let fake = Fake::start(move |_| Reply::new(302, "").with("location", location)).await;
        let error = resolve(&Host::new().client(), &format!("{}/x:1", fake.host())).await;
        let text = line(&error.unwrap_err());
        assert!(text.contains(word), "{text}");
        assert!(fake.asked().len() <= 11);
    }
    let fake = Fake::start(|_| Reply::new(302, "")).await;
    let error = resolve(&Host::new().client(), &format!("{}/x:1", fake.host())).await;
    let text = line(&error.unwrap_err());
    assert!(text.contains("redirects without saying where to"), "{text}");
}

#[tokio::test]
async fn credentials_are_in_no_error_even_if_the_registry_repeats_them() {
    let fake = Fake::start(|asked| match asked.header("authorization") {
        None => unauthorized("Basic realm=x"),
        Some(header) => Reply::error(403, "DENIED", &format!("{header} is {PASSWORD}")),
    })
    .await;
    let host = Host::new();
    host.password(&fake.host(), "user", PASSWORD);
    let client = host.client();
    let error = resolve(&client, &format!("{}/x:1", fake.host()))
        .await
        .unwrap_err();
    let text = line(&error);
    assert!(text.ends_with("denies access: Basic *** is ***"), "{text}");
    for shown in [
        format!("{error:?}"),
        format!("{client:?}"),
        format!("{:?}", host.client().settings()),
    ] {
        assert!(
            !shown.contains(PASSWORD) && !shown.contains(&BASIC[6..]),
            "{shown}"
        );
    }
    let error = client
        .login(&fake.host(), "user", PASSWORD)
        .await
        .unwrap_err();
    assert!(!line(&error).contains(PASSWORD), "{error}");
    assert!(!format!("{:?}", host.notices.lock().unwrap()).contains(PASSWORD));
}

/// A helper that knows one server.
fn install_helper(host: &mut Host, server: &str) {
    let log = host.root.path().join("log");
    let script = format!(
        "#!/bin/sh\nread -r input\necho \"$1 $input\" >>{}\ncase \"$1 $input\" in\n\
         'get {server}') echo '{{\"ServerURL\":\"{server}\",\"Username\":\"user\",\"Secret\":\"{PASSWORD}\"}}';;\n\
         get*) echo 'credentials not found in native keychain'; exit 1;;\nesac\n",
        log.display()
    );
    let path = host.write("bin/docker-credential-own", script);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    let directory = host.root.path().join("bin");
    host.set("PATH", &format!("{}:/usr/bin:/bin", directory.display()));
}

#[tokio::test]
async fn a_credentials_store_is_used_without_auths() {
    let fake = basic_registry().await;
    let mut host = Host::new();
    install_helper(&mut host, &fake.host());
    host.write("home/.docker/config.json", r#"{"credsStore": "own"}"#);
    resolve(&host.client(), &format!("{}/x:1", fake.host()))
        .await
        .unwrap();
    assert_eq!(fake.asked().len(), 2);
    assert!(host.warnings().is_empty());
    // A helper of one registry's.
    let other = basic_registry().await;
    let helpers = serde_json::json!({"credHelpers": {other.host(): "own"}});
    host.write("home/.docker/config.json", helpers.to_string());
    let error = resolve(&host.client(), &format!("{}/x:1", other.host()))
        .await
        .unwrap_err();
    assert!(line(&error).contains("denies access"), "{error}");
    assert!(host.warnings().is_empty());
    let log = std::fs::read_to_string(host.root.path().join("log")).unwrap();
    assert_eq!(log, format!("get {}\nget {}\n", fake.host(), other.host()));
}

#[tokio::test]
async fn a_helper_that_is_missing_is_one_warning_and_public_images_come() {
    let (registry, tokens) = with_tokens("").await;
    let host = Host::new();
    host.write("home/.docker/config.json", r#"{"credsStore": "gone"}"#);
    let client = host.client();
    for repository in ["x", "x"] {
        resolve(&client, &format!("{}/{repository}:1", registry.host()))
            .await
            .unwrap();
    }
    assert_eq!(tokens.asked().len(), 1);
    let warnings = host.warnings();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(
        warnings[0].starts_with("docker-credential-gone is named in "),
        "{warnings:?}"
    );
    assert!(
        warnings[0].ends_with("it is not installed; going on without it"),
        "{warnings:?}"
    );
}

#[tokio::test]
async fn a_login_is_tried_before_it_is_kept() {
    let fake = basic_registry().await;
    let host = Host::new();
    let client = host.client();
    let error = client
        .login(&fake.host(), "user", "wrong")
        .await
        .unwrap_err();
    assert!(matches!(error, LoginError::Refused { .. }), "{error:?}");
    let path = host.root.path().join("home/.docker/config.json");
    assert!(!path.exists());
    let done = client.login(&fake.host(), "user", PASSWORD).await.unwrap();
    assert_eq!(
        (done.kept_in, done.is_plain),
        (path.display().to_string(), true)
    );
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains(&BASIC[6..]), "{text}");
    let target = format!("{}/x:1", fake.host());
    resolve(&host.client(), &target).await.unwrap();
    assert!(client.logout(&fake.host()).unwrap());
    assert!(!client.logout(&fake.host()).unwrap());
    assert!(resolve(&host.client(), &target).await.is_err());
    let error = client
        .login("127.0.0.1:1", "user", PASSWORD)
        .await
        .unwrap_err();
    assert!(
        line(&error).contains("cannot connect to 127.0.0.1:1"),
        "{error}"
    );
}

#[tokio::test]
async fn a_login_goes_to_the_helper_and_takes_the_token_that_the_registry_gives() {
    let (registry, tokens) = with_tokens(r#","refresh_token":"r3fresh""#).await;
    let mut host = Host::new();
    install_helper(&mut host, "nobody");
    host.write("home/.docker/config.json", r#"{"credsStore": "own"}"#);
    let client = host.client();
    let done = client
        .login(&registry.host(), "user", PASSWORD)
        .await
        .unwrap();
    assert_eq!(
        (done.kept_in.as_str(), done.is_plain),
        ("docker-credential-own", false)
    );
    assert!(tokens.lines()[0].contains("&offline_token=true"));
    let log = std::fs::read_to_string(host.root.path().join("log")).unwrap();
    let entry = log.strip_prefix("store ").unwrap();
    let entry: serde_json::Value = serde_json::from_str(entry).unwrap();
    assert_eq!(entry["Username"], "<token>");
    assert_eq!(entry["Secret"], "r3fresh");
    let text = std::fs::read_to_string(host.root.path().join("home/.docker/config.json")).unwrap();
    assert!(
        !text.contains("r3fresh") && !text.contains(PASSWORD),
        "{text}"
    );
    let error = client
        .login(&registry.host(), "user", "wrong")
        .await
        .unwrap_err();
    assert!(matches!(error, LoginError::Refused { .. }), "{error:?}");
}

#[tokio::test]
async fn a_password_is_only_for_the_registry_it_is_of() {
    let fake = basic_registry().await;
    let host = Host::new();
    host.password("other.test", "user", PASSWORD);
    let client = host.client();
    assert!(
        resolve(&client, &format!("{}/x:1", fake.host()))
            .await
            .is_err()
    );
    let asked = fake.asked();
    assert!(
        asked
            .iter()
            .all(|asked| asked.header("authorization").is_none())
    );
}
