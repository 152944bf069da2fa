//! Images that are signed, as cosign signs them, with openssl.

use super::peers::{put, put_blob};
use super::{digest_of, lists, seed};
use hullbox_image::Digest;
use hullbox_tests::finish;
use hullbox_tests::registry::{Registry, User};
use serde_json::json;
use std::fs;
use std::process::Command;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const PAYLOAD: &str = "application/vnd.dev.cosign.simplesigning.v1+json";

fn shell(user: &User, script: &str) -> String {
    let mut shell = Command::new("sh");
    shell.args(["-c", script]).current_dir(user.home());
    finish(shell, b"").exits(0).text()
}

/// Signs what a registry has under a digest: an image of its own beside it.
fn sign(registry: &Registry, user: &User, repository: &str, digest: &str) {
    let payload = json!({"critical": {
        "identity": {"docker-reference": registry.name(repository)},
        "image": {"docker-manifest-digest": digest},
        "type": "cosign container image signature",
    }, "optional": null})
    .to_string();
    fs::write(user.home().join("payload"), &payload).unwrap();
    let signature = shell(
        user,
        "openssl dgst -sha256 -sign key.pem payload | base64 -w0",
    );
    let config = b"{}";
    let blob = |media_type: &str, bytes: &[u8]| {
        put_blob(registry, repository, bytes);
        json!({"mediaType": media_type, "digest": Digest::of(bytes), "size": bytes.len()})
    };
    let mut layer = blob(PAYLOAD, payload.as_bytes());
    layer["annotations"] = json!({"dev.cosignproject.cosign/signature": signature});
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": blob(CONFIG, config),
        "layers": [layer],
    });
    let tag = digest.replace(':', "-");
    let path = format!("{repository}/manifests/{tag}.sig");
    let _ = put(registry, &path, MANIFEST, manifest.to_string().as_bytes());
}

#[test]
#[ignore = "needs the built program: make test"]
fn what_is_signed_is_pulled_and_nothing_else() {
    let (registry, user) = (Registry::plain(), User::with_store());
    let script = "openssl ecparam -name prime256v1 -genkey -noout -out key.pem
        openssl ec -in key.pem -pubout -out key.pub
        openssl ecparam -name prime256v1 -genkey -noout | openssl ec -pubout -out other.pub";
    let _ = shell(&user, script);
    let key = |name: &str| user.home().join(name).display().to_string();
    let (signed, unsigned) = (registry.name("box:signed"), registry.name("box:unsigned"));
    seed(&user, &signed, &["--format=oci"]);
    seed(&user, &unsigned, &["--format=v2s2"]);
    let digest = digest_of(&user, &signed);
    sign(&registry, &user, "box", &digest);
    let pull = |key: &str, name: &str| user.hullbox(["pull", "-q", "--verify-key", key, name]);
    pull(&key("other.pub"), &signed).fails_saying("is refused");
    pull(&key("key.pub"), &unsigned).fails_saying("it has no signature");
    pull(&key("none.pub"), &signed).fails_saying("none.pub");
    assert_eq!(lists(&user), "");
    let _ = pull(&key("key.pub"), &signed).exits(0);
    // A policy has the same key, for `run` and copies too.
    let policy = user.home().join(".config/containers/policy.json");
    fs::create_dir_all(policy.parent().unwrap()).unwrap();
    let demand = json!({"default": [{
        "type": "sigstoreSigned",
        "keyPath": key("key.pub"),
        "signedIdentity": {"type": "matchRepository"},
    }]});
    fs::write(&policy, demand.to_string()).unwrap();
    let run = ["run", "--rm", "--isolation=container"];
    user.hullbox([&run[..], &[&unsigned, "true"]].concat())
        .fails_saying("it has no signature");
    let _ = user.hullbox(["rmi", &signed]).exits(0);
    let done = user.hullbox([&run[..], &[&signed, "echo", "signed"]].concat());
    assert_eq!(done.exits(0).text(), "signed");
    let to = format!("oci:{}:x", key("layout"));
    for all in [&[][..], &["--all"]] {
        let copy = |name: &str| {
            let words = [&["image", "copy", "-q"], all, &[name, &to]].concat();
            user.hullbox(words)
        };
        copy(&unsigned).fails_saying("it has no signature");
        let _ = copy(&signed).exits(0);
    }
}
