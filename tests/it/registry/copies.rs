//! `image copy` from and to archives, and what a policy makes of copies.

use super::{digest_of, lists, seed};
use hullbox_tests::fixture;
use hullbox_tests::registry::{Registry, User};
use serde_json::Value;
use std::fs;

/// Whether skopeo reads an image whole.
fn skopeo_reads(user: &User, place: &str) {
    let dir = user.home().join("read");
    let words = ["copy", "-q", "--src-tls-verify=false"];
    let to = format!("dir:{}", dir.display());
    let _ = user.skopeo([&words[..], &[place, &to]].concat()).exits(0);
    fs::remove_dir_all(dir).unwrap();
}

#[test]
#[ignore = "needs the built program: make test"]
fn images_are_copied_from_and_to_archives() {
    let (registry, other, user) = (Registry::plain(), Registry::plain(), User::with_store());
    let name = registry.name("box:1");
    seed(&user, &name, &["--format=oci"]);
    let digest = digest_of(&user, &name);
    let at = |file: &str| user.home().join(file).display().to_string();
    let copy = |words: &[&str]| user.hullbox([&["image", "copy", "-q"][..], words].concat());
    // An OCI layout in a tar holds what was in the registry, byte for byte.
    let oci = format!("oci-archive:{}:one", at("oci.tar"));
    assert_eq!(copy(&[&name, &oci]).exits(0).text(), digest);
    skopeo_reads(&user, &oci);
    let there = other.name("oci:1");
    assert_eq!(copy(&[&oci, &there]).exits(0).text(), digest);
    assert_eq!(digest_of(&user, &there), digest);
    // And a docker-archive the layers as they are without compression.
    let docker = format!("docker-archive:{}:box:2", at("docker.tar"));
    let _ = copy(&[&name, &docker]).exits(0);
    skopeo_reads(&user, &docker);
    let _ = user
        .hullbox(["load", "-q", "-i", &at("docker.tar")])
        .exits(0);
    let echo = ["run", "--rm", "--isolation=container"];
    let done = user.hullbox([&echo[..], &["box:2", "echo", "there"]].concat());
    assert_eq!(done.exits(0).text(), "there");
    // Back it is another manifest of the same image, with compressed layers.
    let back = other.name("docker:1");
    let made = copy(&[&docker, &back]).exits(0).text();
    assert_eq!(digest_of(&user, &back), made);
    skopeo_reads(&user, &format!("docker://{back}"));
    let raw = user.hullbox(["manifest", "inspect", &back]).exits(0);
    let manifest: Value = serde_json::from_slice(&raw.stdout).unwrap();
    let layers = manifest["layers"].as_array().unwrap();
    let is_gzip = |layer: &Value| layer["mediaType"].as_str().unwrap().ends_with("tar+gzip");
    assert!(
        !layers.is_empty() && layers.iter().all(is_gzip),
        "{manifest}"
    );
    let of = |name: &str| {
        let words = ["image", "inspect", "--format", "{{.Id}}", name];
        user.hullbox(words).exits(0).text()
    };
    let _ = user.hullbox(["pull", "-q", &back]).exits(0);
    assert_eq!(of(&back), of("box:2"));
    // What Docker and skopeo have written is read, too, and archives become layouts and archives.
    let saved = format!("docker-archive:{}", fixture("busybox.tar").display());
    let layout = format!("oci:{}:two", at("layout"));
    let made = copy(&[&saved, &layout]).exits(0).text();
    assert_eq!(copy(&[&layout, &oci]).exits(0).text(), made);
    skopeo_reads(&user, &layout);
    skopeo_reads(&user, &oci);

    let hex = format!("oci-archive:{}:none", at("oci.tar"));
    copy(&[&hex, &back]).fails_saying("none");
    copy(&[&format!("docker-archive:{}:no:1", at("docker.tar")), &back]).fails_saying("no:1");
    copy(&[&name, "dir:x"]).fails_saying("is no place for that");
    let whole = fs::read(at("docker.tar")).unwrap();
    fs::write(at("cut.tar"), &whole[..whole.len() / 2]).unwrap();
    let _ = copy(&[&format!("docker-archive:{}", at("cut.tar")), &back]).exits(1);
    fs::write(at("text.tar"), "no tar").unwrap();
    let _ = copy(&[&format!("oci-archive:{}", at("text.tar")), &back]).exits(1);
    let _ = copy(&[
        &registry.name("gone:1"),
        &format!("oci-archive:{}", at("gone.tar")),
    ])
    .exits(1);
    assert!(!user.home().join("gone.tar").exists());
    let left = fs::read_dir(user.home()).unwrap().map(Result::unwrap);
    let left: Vec<_> = left
        .map(|entry| entry.file_name().into_string().unwrap())
        .filter(|name| name.contains("hullbox-copy") || name.ends_with(".part"))
        .collect();
    assert_eq!(left, Vec::<String>::new());
}

#[test]
#[ignore = "needs the built program: make test"]
fn a_policy_is_for_copies_too() {
    let (registry, user) = (Registry::plain(), User::with_store());
    let name = registry.name("box:1");
    seed(&user, &name, &[]);
    let layout = format!("oci:{}:x", user.home().join("layout").display());
    let copies = [
        &["image", "copy", "-q"][..],
        &["image", "copy", "-q", "--all"],
    ];
    let refused = |words: &str| {
        for copy in copies {
            user.hullbox([copy, &[&name, &layout]].concat())
                .fails_saying(words);
        }
        assert!(!user.home().join("layout").exists());
    };
    let policy = user.home().join(".config/containers/policy.json");
    fs::create_dir_all(policy.parent().unwrap()).unwrap();
    fs::write(&policy, r#"{"default": [{"type": "reject"}]}"#).unwrap();
    let _ = registry.requests();
    refused("policy");
    assert_eq!(registry.requests(), Vec::<String>::new());
    let key = user.home().join("key.pem");
    let mut shell = std::process::Command::new("sh");
    let script =
        "openssl ecparam -name prime256v1 -genkey -noout | openssl ec -pubout -out key.pem";
    shell.args(["-c", script]).current_dir(user.home());
    let _ = hullbox_tests::finish(shell, b"").exits(0);
    let signed = serde_json::json!({"default": [
        {"type": "sigstoreSigned", "keyPath": key.display().to_string()}
    ]});
    fs::write(&policy, signed.to_string()).unwrap();
    refused("sign");
    fs::write(
        &policy,
        r#"{"default": [{"type": "insecureAcceptAnything"}]}"#,
    )
    .unwrap();
    for copy in copies {
        let _ = user.hullbox([copy, &[&name, &layout]].concat()).exits(0);
    }
    assert_eq!(lists(&user), "");
}
