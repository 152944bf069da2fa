//! Registries: Debian's docker-registry at the other end, skopeo beside.

mod copies;
mod digests;
mod killed;
mod peers;
mod screen;
mod signed;

use hullbox_tests::registry::{PASSWORD, Registry, USER, User, Wire};
use hullbox_tests::{Done, both_modes, finish, fixture};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::thread;

/// Sends an image of the fixtures to a registry, with skopeo.
fn seed(user: &User, name: &str, more: &[&str]) {
    let source = format!("docker-archive:{}", fixture("busybox.tar").display());
    let target = format!("docker://{name}");
    let mut words = vec!["copy", "-q", "--dest-tls-verify=false"];
    words.extend(more);
    words.extend([&source[..], &target]);
    let _ = user.skopeo(words).exits(0);
}

/// The digest of what a registry has under a name, as skopeo says.
fn digest_of(user: &User, name: &str) -> String {
    let target = format!("docker://{name}");
    let words = [
        "inspect",
        "--tls-verify=false",
        "--format={{.Digest}}",
        &target,
    ];
    user.skopeo(words).exits(0).text()
}

fn lists(user: &User) -> String {
    let format = "{{.Repository}}:{{.Tag}} {{.Digest}}";
    let words = ["images", "--digests", "--no-trunc", "--format", format];
    user.hullbox(words).exits(0).text()
}

/// The image's index or manifest, as `inspect` names it in its repository.
fn repo_digests(user: &User, name: &str) -> Vec<String> {
    let words = ["inspect", "--format", "{{json .RepoDigests}}", name];
    serde_json::from_str(&user.hullbox(words).exits(0).text()).unwrap()
}

both_modes! {
    fn an_image_that_is_missing_is_pulled_and_run(mode) {
        let (registry, user) = (Registry::plain(), User::new());
        let name = registry.name("team/box:1");
        seed(&user, &name, &[]);
        let run = |more: &[&str], input: &[u8]| -> Done {
            let mut command = user.command(["run", "--rm", mode.flag()]);
            command.args(more);
            finish(command, input)
        };
        let done = run(&["--pull", "never", &name, "true"], b"");
        done.fails_saying("Unable to find image");
        let done = run(&[&name, "echo", "pulled"], b"").exits(0);
        assert_eq!(done.text(), "pulled");
        assert!(done.stderr.contains("1: Pulling from team/box"), "{}", done.stderr);
        // It is there now, and nobody is asked.
        let _ = registry.requests();
        let done = run(&[&name, "echo", "there"], b"").exits(0);
        assert_eq!((done.text(), &done.stderr[..]), ("there".to_owned(), ""));
        assert_eq!(registry.requests(), Vec::<String>::new());
        // Input is whole, whether the image has to be pulled or not.
        let _ = user.hullbox(["rmi", &name]).exits(0);
        assert_eq!(run(&["-i", &name, "cat"], b"input").exits(0).text(), "input");
        assert_eq!(run(&["-i", &name, "cat"], b"again").exits(0).text(), "again");
        let digest = digest_of(&user, &name);
        let pinned = format!("{}@{digest}", registry.name("team/box"));
        assert!(lists(&user).contains(&format!("{name} {digest}")), "{}", lists(&user));
        // The bed may have the same image under another name.
        assert!(repo_digests(&user, &name).contains(&pinned), "{pinned}");
        let _ = registry.requests();
        let _ = run(&[&pinned, "true"], b"").exits(0);
        assert_eq!(registry.requests(), Vec::<String>::new());
        let _ = user.hullbox(["rmi", &name]).exits(0);
    }
}

#[test]
#[ignore = "needs the built program: make test"]
fn what_is_pulled_committed_and_pushed_comes_back_the_same() {
    let (registry, user) = (Registry::plain(), User::with_store());
    let (base, made) = (registry.name("base:1"), registry.name("made:2"));
    seed(&user, &base, &[]);
    let _ = user.hullbox(["pull", "-q", &base]).exits(0);
    // Pushed elsewhere, it is the same manifest, byte for byte, and no blob is sent twice.
    let copy = registry.name("copy:1");
    let _ = user.hullbox(["tag", &base, &copy]).exits(0);
    let _ = registry.requests();
    let _ = user.hullbox(["push", "-q", &copy]).exits(0);
    assert_eq!(digest_of(&user, &copy), digest_of(&user, &base));
    let sent = registry.requests();
    assert!(
        !sent.iter().any(|request| request.starts_with("PATCH")),
        "{sent:?}"
    );
    let _ = user.hullbox(["push", "-q", &copy]).exits(0);
    let sent = registry.requests();
    let of_blobs = |request: &&String| request.contains("/blobs/uploads/");
    assert_eq!(sent.iter().filter(of_blobs).count(), 0, "{sent:?}");

    let words = [
        "run",
        "--isolation=container",
        "--name",
        "made",
        &base,
        "sh",
        "-c",
        "echo x >/made",
    ];
    let _ = user.hullbox(words).exits(0);
    let _ = user.hullbox(["commit", "made", &made]).exits(0);
    let pushed = user.hullbox(["push", &made]).exits(0);
    let digest = digest_of(&user, &made);
    assert!(
        pushed
            .text()
            .contains(&format!("2: digest: {digest} size: ")),
        "{}",
        pushed.text()
    );
    let other = User::with_store();
    let pulled = other.hullbox(["pull", &made]).exits(0);
    let lines: Vec<_> = pulled.text().lines().map(str::to_owned).collect();
    let expected = [
        format!("Digest: {digest}"),
        format!("Status: Downloaded newer image for {made}"),
        made.clone(),
    ];
    assert_eq!(lines, expected);
    let words = [
        "run",
        "--rm",
        "--isolation=container",
        &made,
        "cat",
        "/made",
    ];
    assert_eq!(other.hullbox(words).exits(0).text(), "x");
    let dir = user.home().join("dir").display().to_string();
    let words = ["copy", "--src-tls-verify=false"];
    let (from, to) = (format!("docker://{made}"), format!("dir:{dir}"));
    let _ = user.skopeo([&words[..], &[&from, &to]].concat()).exits(0);
}

#[test]
#[ignore = "needs the built program: make test"]
fn an_unchanged_image_costs_two_requests_at_most() {
    let (registry, user) = (Registry::plain(), User::with_store());
    let name = registry.name("box:1");
    seed(&user, &name, &[]);
    let _ = user.hullbox(["pull", &name]).exits(0);
    let _ = registry.requests();
    let text = user.hullbox(["pull", &name]).exits(0).text();
    assert!(
        text.contains(&format!("Image is up to date for {name}")),
        "{text}"
    );
    let asked = registry.requests();
    assert!((1..=2).contains(&asked.len()), "{asked:?}");
    assert!(
        !asked.iter().any(|request| request.contains("/blobs/")),
        "{asked:?}"
    );
}

#[test]
#[ignore = "needs the built program: make test"]
fn every_form_that_others_push_is_pulled() {
    let (registry, user) = (Registry::plain(), User::with_store());
    for (tag, form) in [
        ("oci-gzip", &["--format=oci"][..]),
        ("docker-gzip", &["--format=v2s2"]),
        ("oci-zstd", &["--format=oci", "--dest-compress-format=zstd"]),
    ] {
        let name = registry.name(&format!("forms:{tag}"));
        // In a registry of its own: skopeo takes a form of a layer that is there for another one.
        let alone = Registry::plain();
        seed(&user, &alone.name("x:1"), form);
        let copy = ["image", "copy", "-q", &alone.name("x:1"), &name];
        let _ = user.hullbox(copy).exits(0);
        let raw = user.hullbox(["manifest", "inspect", &name]).exits(0).text();
        assert_eq!(raw.contains("tar+zstd"), tag == "oci-zstd", "{raw}");
        let _ = user.hullbox(["pull", "-q", &name]).exits(0);
        let words = ["run", "--rm", "--isolation=container", &name, "echo", tag];
        assert_eq!(user.hullbox(words).exits(0).text(), tag);
        // The next has to fetch its layers, too.
        let _ = user.hullbox(["rmi", &name]).exits(0);
    }
    // Of all tags each digest is told, and the repository at the end; quiet, that alone, as by Docker.
    let all = registry.name("forms");
    let text = user.hullbox(["pull", "-a", &all]).exits(0).text();
    let digests = text.lines().filter(|line| line.starts_with("Digest: "));
    assert_eq!(digests.count(), 3, "{text}");
    let end = format!("Status: Downloaded newer image for {all}\n{all}");
    assert!(text.ends_with(&end), "{text}");
    let text = user.hullbox(["pull", "-a", "-q", &all]).exits(0).text();
    assert_eq!(text, all);
    user.hullbox(["pull", "-a", &format!("{all}:oci-gzip")])
        .fails_saying("has a tag");
    // The OCI ones are one image: a line for each tag and digest, and every tag is up to date by itself.
    assert_eq!(lists(&user).lines().count(), 5, "{}", lists(&user));
    let words = ["images", "--format", "{{.Repository}}:{{.Tag}}"];
    assert_eq!(user.hullbox(words).exits(0).text().lines().count(), 3);
    let words = ["images", "-q", "--digests"];
    assert_eq!(user.hullbox(words).exits(0).text().lines().count(), 2);
    for tag in ["oci-gzip", "docker-gzip", "oci-zstd"] {
        let name = registry.name(&format!("forms:{tag}"));
        let digest = digest_of(&user, &name);
        assert!(repo_digests(&user, &name).contains(&format!("{all}@{digest}")));
        let text = user.hullbox(["pull", &name]).exits(0).text();
        assert!(text.contains("Image is up to date"), "{text}");
    }
    let digest = digest_of(&user, &registry.name("forms:oci-zstd"));
    let by_digest = format!("{all}@{digest}");
    let text = user.hullbox(["rmi", &by_digest]).exits(0).text();
    assert_eq!(text, format!("Untagged: {by_digest}"));
    assert_eq!(
        repo_digests(&user, &registry.name("forms:oci-zstd")).len(),
        1
    );
    let text = user.hullbox(["pull", "-q", &format!("docker://{all}:oci-zstd")]);
    assert_eq!(text.exits(0).text(), format!("{all}:oci-zstd"));
    let _ = user.hullbox(["system", "check"]).exits(0);
}

#[test]
#[ignore = "needs the built program: make test"]
fn a_quiet_pull_of_a_layout_prints_its_id() {
    let (registry, user) = (Registry::plain(), User::with_store());
    let name = registry.name("box:1");
    seed(&user, &name, &[]);
    let layout = format!("oci:{}:1", user.home().join("layout").display());
    let _ = user
        .hullbox(["image", "copy", "-q", &name, &layout])
        .exits(0);
    let id = user.hullbox(["pull", "-q", &layout]).exits(0).text();
    let words = ["image", "inspect", "--format", "{{.Id}}", &id];
    assert_eq!(user.hullbox(words).exits(0).text(), id);
}

#[test]
#[ignore = "needs the built program: make test"]
fn a_login_tries_what_is_kept() {
    let (registry, user) = (Registry::secured(), User::with_store());
    user.trust(&registry);
    let login = |words: &[&str], input: &str| {
        let words = [&["login"], words, &[registry.address()]].concat();
        finish(user.command(words), input.as_bytes())
    };
    let done = login(&[], "");
    assert_eq!(done.text(), "");
    done.fails_saying("cannot ask for a password");
    let _ = login(&["-u", USER, "--password-stdin"], PASSWORD).exits(0);
    let known = "Authenticating with existing credentials...";
    let done = login(&[], "").exits(0);
    assert_eq!(done.text(), format!("{known}\nLogin Succeeded"));
    // Others are asked for where they are not taken any more.
    let file = user.home().join(".docker/config.json");
    let wrong = serde_json::json!({"auths": {registry.address(): {"auth": "dGVzdGVyOndyb25n"}}});
    fs::write(&file, wrong.to_string()).unwrap();
    let done = login(&[], "");
    assert_eq!(done.text(), known);
    let done = done.exits(1);
    for words in ["does not accept", "cannot ask for a password"] {
        assert!(done.stderr.contains(words), "{}", done.stderr);
    }
    // With a user's name nothing is tried.
    let done = login(&["-u", USER, "--password-stdin"], PASSWORD).exits(0);
    assert_eq!(done.text(), "Login Succeeded");
}

#[test]
#[ignore = "needs the built program: make test"]
fn a_registry_with_a_password_needs_a_login() {
    let (registry, user) = (Registry::secured(), User::with_store());
    let name = registry.name("private/box:1");
    let credentials = format!("{USER}:{PASSWORD}");
    seed(&user, &name, &["--dest-creds", &credentials]);
    let login = |password: &str| {
        let words = ["login", "-u", USER, "--password-stdin", registry.address()];
        finish(user.command(words), password.as_bytes())
    };
    // Its authority is not known, and nothing is sent to it.
    let done = user.hullbox(["pull", &name]);
    assert!(!done.stderr.contains(PASSWORD));
    user.trust(&registry);
    let done = user.hullbox(["pull", &name]);
    assert!(done.stderr.contains("hullbox login"), "{}", done.stderr);
    done.fails_saying("denies access");
    login("wrong").fails_saying("does not accept");
    let done = login(&format!("{PASSWORD}\n")).exits(0);
    assert_eq!(done.text(), "Login Succeeded");
    let file = user.home().join(".docker/config.json");
    assert_eq!(
        fs::metadata(&file).unwrap().permissions().mode() & 0o777,
        0o600
    );
    // Whoever looks at the processes meanwhile sees no credentials.
    let encoded = fs::read_to_string(&file).unwrap();
    let encoded: Value = serde_json::from_str(&encoded).unwrap();
    let encoded = encoded["auths"][registry.address()]["auth"].as_str();
    let secrets = [PASSWORD, encoded.unwrap()];
    let mut pull = user.command(["--debug", "pull", "-q", &name]);
    let mut pull = pull
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let (mut looks, home) = (0, user.home().display().to_string());
    while pull.try_wait().unwrap().is_none() {
        for process in fs::read_dir("/proc").unwrap().flatten() {
            let read = |part: &str| fs::read(process.path().join(part)).unwrap_or_default();
            let all = [read("environ"), read("cmdline")].concat();
            let text = String::from_utf8_lossy(&all);
            // This user's alone: another test may be making a registry just now.
            if text.contains(&home) {
                looks += 1;
                assert!(
                    !secrets.iter().any(|secret| text.contains(secret)),
                    "{text}"
                );
            }
        }
    }
    assert!(looks > 0 && pull.wait().unwrap().success());
    let _ = user.hullbox(["rmi", &name]).exits(0);
    let done = user.hullbox(["--debug", "pull", &name]).exits(0);
    let words = [
        "--debug",
        "run",
        "--rm",
        "--isolation=container",
        "--pull=always",
        &name,
        "true",
    ];
    let run = user.hullbox(words).exits(0);
    let events = user
        .hullbox(["events", "--since", "1h", "--until", "0"])
        .exits(0);
    assert!(events.text().contains("image pull"), "{}", events.text());
    for text in [&done.stderr, &run.stderr, &done.text(), &events.text()] {
        assert!(
            !secrets.iter().any(|secret| text.contains(secret)),
            "{text}"
        );
    }
    let _ = user.hullbox(["logout", registry.address()]).exits(0);
    assert!(!fs::read_to_string(&file).unwrap().contains("auth\":"));
    user.hullbox(["push", &name]).fails_saying("denies access");
}

#[test]
#[ignore = "needs the built program: make test"]
fn a_pull_that_was_killed_goes_on_where_it_was() {
    let (registry, user) = (Registry::plain(), User::with_store());
    let name = registry.name("big:1");
    let layer_bytes = seed_large(&user, &name, 1);
    let half = layer_bytes / 2;
    let wire = Wire::to(registry.address(), half);
    let through = format!("{}/big:1", wire.address());
    let mut child = user
        .command(["pull", "-q", &through])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    while wire.received_bytes() < half {
        assert!(child.try_wait().unwrap().is_none(), "the pull has ended");
        thread::yield_now();
    }
    // What has come is on its way into the store: as soon as most of it is in a file.
    let parts = user.home().join("root");
    while largest_file(&parts) < half * 9 / 10 {
        assert!(child.try_wait().unwrap().is_none(), "the pull has ended");
        thread::yield_now();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!lists(&user).contains("big"), "{}", lists(&user));
    wire.reset(u64::MAX);
    let _ = user.hullbox(["pull", "-q", &through]).exits(0);
    let again = wire.received_bytes();
    assert!(
        again <= layer_bytes * 55 / 100,
        "{again} of {layer_bytes} bytes"
    );
    let _ = user.hullbox(["system", "check"]).exits(0);
}

/// Pushes an image whose layers' bytes cannot be compressed, with buildah's help of none: a layout made
/// here. Gives the bytes of one layer.
fn seed_large(user: &User, name: &str, layers: u64) -> u64 {
    let dir = user.home().join("large");
    fs::create_dir_all(&dir).unwrap();
    let script = format!(
        "set -e
        umoci init --layout l; umoci new --image l:x
        for n in $(seq {layers}); do
            mkdir -p r; head -c 8000000 /dev/urandom >r/file$n
            tar -cf layer.tar -C r file$n; rm -r r
            umoci raw add-layer --image l:x layer.tar
        done
        skopeo --insecure-policy copy -q --dest-tls-verify=false oci:l:x docker://{name}"
    );
    let mut shell = Command::new("sh");
    shell.args(["-c", &script]).current_dir(&dir);
    user.owns(&mut shell);
    let _ = finish(shell, b"").exits(0);
    8_000_000
}

fn largest_file(dir: &std::path::Path) -> u64 {
    let mut largest = 0;
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(metadata) if metadata.is_dir() => dirs.push(entry.path()),
                Ok(metadata) => largest = largest.max(metadata.len()),
                Err(_) => {}
            }
        }
    }
    largest
}

#[test]
#[ignore = "needs the built program: make test"]
fn pulls_of_one_image_at_once_download_it_once() {
    let (registry, user) = (Registry::plain(), User::with_store());
    let name = registry.name("shared:1");
    seed_large(&user, &name, 2);
    let _ = registry.requests();
    let pulls: Vec<_> = (0..10)
        .map(|_| {
            let mut command = user.command(["pull", "-q", &name]);
            command.stdout(Stdio::null());
            command.spawn().unwrap()
        })
        .collect();
    for mut pull in pulls {
        assert!(pull.wait().unwrap().success());
    }
    let asked = registry.requests();
    let mut layers: Vec<_> = asked.iter().filter(|one| one.contains("/blobs/")).collect();
    layers.sort();
    // The configuration is small, and each may have asked for it.
    let (before, kinds) = (layers.len(), {
        layers.dedup();
        layers.len()
    });
    assert_eq!(kinds, 3, "{asked:?}");
    assert!(before <= 2 + 10, "{asked:?}");
    let _ = user.hullbox(["system", "check"]).exits(0);
}

#[test]
#[ignore = "needs the built program: make test"]
fn without_a_registry_the_error_says_what_was_tried() {
    let user = User::with_store();
    // Nobody listens there any more.
    let address = Registry::plain().address().to_owned();
    let name = format!("{address}/gone:1");
    let words = [
        "run",
        "--rm",
        "--isolation=container",
        "--name",
        "made",
        &name,
        "true",
    ];
    let done = user.hullbox(words);
    assert!(
        done.stderr.contains("Unable to find image"),
        "{}",
        done.stderr
    );
    assert!(done.stderr.contains(&address), "{}", done.stderr);
    done.fails_saying("cannot connect");
    assert_eq!(user.hullbox(["ps", "-aq"]).exits(0).text(), "");
    let registry = Registry::plain();
    user.hullbox(["pull", &registry.name("no/such:1")])
        .fails_saying("not found");
    user.hullbox(["pull", "a/UPPER"])
        .fails_saying("invalid reference");
    user.hullbox(["push", &registry.name("no/such:1")])
        .fails_saying("no such image");
    let box_of = registry.name("box:1");
    seed(&user, &box_of, &[]);
    user.hullbox(["pull", "--platform", "linux/arm64", &box_of])
        .fails_saying("linux/arm64");
    let words = [
        "run",
        "--rm",
        "--isolation=container",
        "--platform=linux/arm64",
        &box_of,
        "true",
    ];
    user.hullbox(words).fails_saying("linux/arm64");
    assert_eq!(user.hullbox(["images", "-q"]).exits(0).text(), "");
    user.hullbox(["pull", "--platform", "a/b/c/d", "x"])
        .refuses_flags_saying("platform");
}

#[test]
#[ignore = "needs the built program: make test"]
fn images_are_copied_between_registries_and_layouts_as_they_are() {
    let (registry, other, user) = (Registry::plain(), Registry::plain(), User::with_store());
    let name = registry.name("box:1");
    seed(&user, &name, &[]);
    let digest = digest_of(&user, &name);
    let layout = format!("oci:{}:one", user.home().join("layout").display());
    let copy = |from: &str, to: &str| user.hullbox(["image", "copy", "-q", from, to]).exits(0);
    let none = user.home().join("none");
    let nowhere = format!("oci:{}:x", none.display());
    let nothing = registry.name("nothing:1");
    let _ = user.hullbox(["image", "copy", &nothing, &nowhere]).exits(1);
    assert!(!none.exists(), "a layout is left");
    assert_eq!(copy(&name, &layout).text(), digest);
    assert_eq!(copy(&layout, &other.name("deep/box:2")).text(), digest);
    assert_eq!(digest_of(&user, &other.name("deep/box:2")), digest);
    let _ = other.requests();
    assert_eq!(copy(&name, &other.name("deep/box:3")).text(), digest);
    let asked = other.requests();
    assert!(
        !asked.iter().any(|one| one.starts_with("PATCH")),
        "{asked:?}"
    );
    let raw = user
        .hullbox(["manifest", "inspect", "--raw", &layout])
        .exits(0);
    let shown = user.hullbox(["manifest", "inspect", &name]).exits(0);
    let shown: Value = serde_json::from_slice(&shown.stdout).unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&raw.stdout).unwrap(), shown);
    // A layout is a place to save to and a source of images, too.
    let saved = format!("oci:{}:two", user.home().join("layout").display());
    let _ = user.hullbox(["pull", "-q", &name]).exits(0);
    let _ = user.hullbox(["save", "-o", &saved, &name]).exits(0);
    let _ = user.hullbox(["manifest", "inspect", &saved]).exits(0);
    let _ = user.hullbox(["pull", "-q", &layout]).exits(0);
    let archive = format!("docker-archive:{}", fixture("busybox.tar").display());
    let _ = user.hullbox(["pull", "-q", &archive]).exits(0);
    let words = [
        "run",
        "--rm",
        "--isolation=container",
        "busybox",
        "echo",
        "x",
    ];
    assert_eq!(user.hullbox(words).exits(0).text(), "x");
}

#[test]
#[ignore = "needs the built program: make test"]
fn progress_is_lines_or_json_or_nothing() {
    let (registry, user) = (Registry::plain(), User::with_store());
    let name = registry.name("box:1");
    seed(&user, &name, &[]);
    let done = user.hullbox(["pull", &name]).exits(0);
    for words in [
        "1: Pulling from box",
        ": Pulling fs layer",
        ": Pull complete",
    ] {
        assert!(done.stderr.contains(words), "{words}: {}", done.stderr);
    }
    let _ = user.hullbox(["rmi", &name]).exits(0);
    let done = user.hullbox(["pull", "-q", &name]).exits(0);
    assert_eq!((done.text(), &done.stderr[..]), (name.clone(), ""));
    let _ = user.hullbox(["rmi", &name]).exits(0);
    let done = user.hullbox(["pull", "--progress=json", &name]).exits(0);
    let lines: Vec<Value> = done
        .text()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert!(
        lines.iter().any(|line| line["status"] == "Pull complete"),
        "{}",
        done.text()
    );
    assert!(
        lines.iter().all(|line| line["status"].is_string()),
        "{}",
        done.text()
    );
    assert_eq!(done.stderr, "");
}
