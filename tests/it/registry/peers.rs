//! What is pushed is read by skopeo and podman, and what those push is pulled.

use super::{digest_of, seed};
use hullbox_image::Digest;
use hullbox_tests::registry::{Registry, User};
use hullbox_tests::{Done, finish, fixture};
use serde_json::{Value, json};
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;

const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// Runs podman with a store of the user's.
fn podman(user: &User, words: &[&str]) -> Done {
    let at = |name: &str| user.home().join(name).display().to_string();
    let mut command = Command::new("podman");
    command
        .args(["--root", &at("podman"), "--runroot", &at("podman-run")])
        .args(["--tmpdir", &at("podman-tmp"), "--storage-driver=vfs"])
        .args(["--cgroup-manager=cgroupfs", "--events-backend=none"])
        .args(words);
    user.owns(&mut command);
    // It wants the file to be there.
    command.env_remove("DOCKER_CONFIG");
    fs::create_dir_all(user.home().join("run")).unwrap();
    let policy = user.home().join(".config/containers/policy.json");
    fs::create_dir_all(policy.parent().unwrap()).unwrap();
    fs::write(
        policy,
        r#"{"default": [{"type": "insecureAcceptAnything"}]}"#,
    )
    .unwrap();
    finish(command, b"")
}

/// What podman has in a file of an image that it pulls.
fn podman_reads(user: &User, name: &str, file: &str) -> String {
    let _ = podman(user, &["pull", "-q", "--tls-verify=false", name]).exits(0);
    let mount = podman(user, &["image", "mount", name]).exits(0).text();
    let text = fs::read_to_string(format!("{mount}/{file}")).unwrap();
    let _ = podman(user, &["image", "umount", name]).exits(0);
    let _ = podman(user, &["rmi", "-f", name]).exits(0);
    text.trim_end().to_owned()
}

fn skopeo_reads(user: &User, name: &str, more: &[&str]) {
    let dir = user.home().join("read");
    let (from, to) = (format!("docker://{name}"), format!("dir:{}", dir.display()));
    let words = [
        &["copy", "-q", "--src-tls-verify=false"],
        more,
        &[&from, &to],
    ]
    .concat();
    let _ = user.skopeo(words).exits(0);
    fs::remove_dir_all(dir).unwrap();
}

fn runs(user: &User, name: &str, words: &[&str]) -> String {
    let run = ["run", "--rm", "--isolation=container", name];
    user.hullbox([&run[..], words].concat()).exits(0).text()
}

#[test]
#[ignore = "needs the built program: make test"]
fn skopeo_and_podman_read_what_is_pushed() {
    let (registry, user) = (Registry::plain(), User::with_store());
    let base = registry.name("base:1");
    seed(&user, &base, &[]);
    let _ = user.hullbox(["pull", "-q", &base]).exits(0);
    let words = ["run", "--isolation=container", "--name", "made", &base];
    let words = [&words[..], &["sh", "-c", "echo committed >/made"]].concat();
    let _ = user.hullbox(words).exits(0);
    for (tag, form) in [
        ("gzip", &[][..]),
        ("gzip1", &["--compression=gzip", "--compression-level=1"]),
        ("zstd", &["--compression=zstd"]),
    ] {
        let name = registry.name(&format!("made:{tag}"));
        let _ = user.hullbox(["commit", "made", &name]).exits(0);
        let _ = user
            .hullbox([&["push", "-q"], form, &[&name]].concat())
            .exits(0);
        skopeo_reads(&user, &name, &[]);
        assert_eq!(podman_reads(&user, &name, "made"), "committed", "{tag}");
    }
    // Pulled ones go out in the form that they came in. Each comes from a registry of its own: skopeo takes a
    // form of a layer that is there for another one.
    let from: [Registry; 3] = std::array::from_fn(|_| Registry::plain());
    for (from, (tag, form)) in from.iter().zip([
        ("docker", &["--format=v2s2"][..]),
        ("oci", &["--format=oci"]),
        ("zstd", &["--format=oci", "--dest-compress-format=zstd"]),
    ]) {
        let came = from.name(&format!("came:{tag}"));
        seed(&user, &came, form);
        let _ = user.hullbox(["pull", "-q", &came]).exits(0);
        let went = registry.name(&format!("went:{tag}"));
        let _ = user.hullbox(["tag", &came, &went]).exits(0);
        let _ = user.hullbox(["push", "-q", &went]).exits(0);
        assert_eq!(digest_of(&user, &went), digest_of(&user, &came), "{tag}");
        skopeo_reads(&user, &went, &[]);
        let passwd = podman_reads(&user, &went, "etc/passwd");
        assert!(passwd.contains("root"), "{tag}: {passwd}");
    }
    // The OCI ones are one image, and each name still goes out as it came.
    for (from, tag) in from.iter().zip(["docker", "oci", "zstd"]) {
        let came = from.name(&format!("came:{tag}"));
        let went = registry.name(&format!("again:{tag}"));
        let _ = user.hullbox(["tag", &came, &went]).exits(0);
        let _ = user.hullbox(["push", "-q", &went]).exits(0);
        assert_eq!(digest_of(&user, &went), digest_of(&user, &came), "{tag}");
    }
}

#[test]
#[ignore = "needs the built program: make test"]
fn what_podman_pushes_is_pulled() {
    let user = User::with_store();
    let archive = fixture("busybox.tar").display().to_string();
    let _ = podman(&user, &["load", "-q", "-i", &archive]).exits(0);
    for (tag, form) in [
        ("docker", &["--format=v2s2"][..]),
        ("oci", &["--format=oci"]),
        ("zstd", &["--format=oci", "--compression-format=zstd"]),
    ] {
        let registry = Registry::plain();
        let name = registry.name(&format!("podmans:{tag}"));
        let to = format!("docker://{name}");
        let words = ["push", "-q", "--tls-verify=false"];
        let words = [&words[..], form, &["busybox", &to]].concat();
        let _ = podman(&user, &words).exits(0);
        let raw = user.hullbox(["manifest", "inspect", &name]).exits(0).text();
        assert_eq!(raw.contains("tar+zstd"), tag == "zstd", "{raw}");
        let _ = user.hullbox(["pull", "-q", &name]).exits(0);
        assert_eq!(runs(&user, &name, &["echo", tag]), tag);
        let _ = user.hullbox(["rmi", "-f", &name]).exits(0);
    }
}

/// One request to a registry that has no TLS; gives the head of its answer.
fn ask(registry: &Registry, method: &str, path: &str, media_type: &str, body: &[u8]) -> String {
    let mut connection = TcpStream::connect(registry.address()).unwrap();
    let head = format!(
        "{method} {path} HTTP/1.0\r\nHost: {}\r\nContent-Type: {media_type}\r\n\
         Content-Length: {}\r\n\r\n",
        registry.address(),
        body.len()
    );
    connection.write_all(head.as_bytes()).unwrap();
    connection.write_all(body).unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).unwrap();
    assert!(answer[8..].starts_with(" 20"), "{answer}");
    answer
}

/// Sends a document to a registry, and gives its digest.
pub(super) fn put(registry: &Registry, path: &str, media_type: &str, body: &[u8]) -> String {
    let digest = Digest::of(body).to_string();
    let path = format!("/v2/{}", path.replace("DIGEST", &digest));
    let _ = ask(registry, "PUT", &path, media_type, body);
    digest
}

/// Sends a blob to a registry.
pub(super) fn put_blob(registry: &Registry, repository: &str, body: &[u8]) {
    let path = format!("/v2/{repository}/blobs/uploads/");
    let answer = ask(registry, "POST", &path, "text/plain", b"");
    let location = answer
        .lines()
        .find_map(|line| line.strip_prefix("Location: "));
    let (_, path) = location.unwrap().split_once("/v2/").unwrap();
    let path = format!("/v2/{path}&digest={}", Digest::of(body));
    let _ = ask(registry, "PUT", &path, "application/octet-stream", body);
}

fn index(entries: &[Value]) -> Vec<u8> {
    json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries})
        .to_string()
        .into_bytes()
}

/// An entry for what a registry has under a name.
fn entry(user: &User, name: &str, platform: &Value) -> Value {
    let raw = user
        .hullbox(["manifest", "inspect", "--raw", name])
        .exits(0)
        .stdout;
    let document: Value = serde_json::from_slice(&raw).unwrap();
    json!({
        "mediaType": document["mediaType"],
        "digest": Digest::of(&raw),
        "size": raw.len(),
        "platform": platform,
    })
}

#[test]
#[ignore = "needs the built program: make test"]
fn nested_indexes_and_attestations_come_and_go() {
    let (registry, user) = (Registry::plain(), User::with_store());
    let name = registry.name("box:1");
    seed(&user, &name, &["--format=oci"]);
    let platform = json!({"os": "linux", "architecture": "amd64"});
    let image = entry(&user, &name, &platform);
    // As BuildKit attests: a manifest for no platform that says what it is about.
    let unknown = json!({"os": "unknown", "architecture": "unknown"});
    let mut attestation = entry(&user, &name, &unknown);
    let statement = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": serde_json::from_slice::<Value>(
            &user.hullbox(["manifest", "inspect", &name]).exits(0).stdout
        ).unwrap()["config"],
        "layers": [],
        "annotations": {"about": image["digest"]},
    })
    .to_string();
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    let digest = put(
        &registry,
        "box/manifests/DIGEST",
        media_type,
        statement.as_bytes(),
    );
    attestation["digest"] = digest.clone().into();
    attestation["size"] = statement.len().into();
    attestation["annotations"] = json!({
        "vnd.docker.reference.type": "attestation-manifest",
        "vnd.docker.reference.digest": image["digest"],
    });
    let inner = index(&[attestation.clone(), image.clone()]);
    let inner_digest = put(&registry, "box/manifests/attested", INDEX, &inner);
    let outer = index(&[json!({
        "mediaType": INDEX, "digest": inner_digest, "size": inner.len(),
    })]);
    let outer_digest = put(&registry, "box/manifests/nested", INDEX, &outer);
    for (tag, digest) in [("attested", &inner_digest), ("nested", &outer_digest)] {
        let name = registry.name(&format!("box:{tag}"));
        let text = user.hullbox(["pull", &name]).exits(0).text();
        assert!(text.contains(&format!("Digest: {digest}")), "{text}");
        assert_eq!(runs(&user, &name, &["echo", tag]), tag);
        // Pushed is the image, and copied all of it.
        let pushed = registry.name(&format!("pushed:{tag}"));
        let _ = user.hullbox(["tag", &name, &pushed]).exits(0);
        let _ = user.hullbox(["push", "-q", &pushed]).exits(0);
        assert_eq!(digest_of(&user, &pushed), image["digest"], "{tag}");
        let copied = registry.name(&format!("copied:{tag}"));
        let words = ["image", "copy", "-q", "--all", &name, &copied];
        assert_eq!(user.hullbox(words).exits(0).text(), *digest);
        let raw = [
            "inspect",
            "--raw",
            "--tls-verify=false",
            &format!("docker://{copied}"),
        ];
        let seen = user.skopeo(raw).exits(0).stdout;
        assert_eq!(Digest::of(&seen).to_string(), *digest, "{tag}");
    }
    // skopeo reads the whole index, attestation and all; podman the image in it.
    let copied = registry.name("copied:attested");
    skopeo_reads(&user, &copied, &["--all"]);
    assert!(podman_reads(&user, &copied, "etc/passwd").contains("root"));
    let archive = format!("oci-archive:{}:x", user.home().join("all.tar").display());
    let words = ["image", "copy", "-q", "--all", &copied, &archive];
    assert_eq!(user.hullbox(words).exits(0).text(), inner_digest);
    let docker = format!("docker-archive:{}", user.home().join("one.tar").display());
    user.hullbox(["image", "copy", "-q", "--all", &copied, &docker])
        .fails_saying("one platform");
}
