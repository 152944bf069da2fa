//! Pushes that are killed at any moment: the store is sound, and the next push leaves a whole image.

use super::{digest_of, seed_large};
use crate::killed::moments;
use hullbox_tests::registry::{Registry, User};
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

/// How many moments of a push.
const MOMENTS: u64 = 40;

/// Reads all of an image with skopeo, which compares every blob with its digest.
fn is_whole(user: &User, name: &str) {
    let dir = user.home().join("whole");
    let to = format!("dir:{}", dir.display());
    let words = [
        "copy",
        "-q",
        "--src-tls-verify=false",
        &format!("docker://{name}"),
        &to,
    ];
    let _ = user.skopeo(words).exits(0);
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
#[ignore = "needs the built program: make test"]
fn a_push_killed_at_any_moment_leaves_a_sound_store_and_the_next_is_whole() {
    let (origin, user) = (Registry::plain(), User::with_store());
    let base = origin.name("base:1");
    seed_large(&user, &base, 2);
    let _ = user.hullbox(["pull", "-q", &base]).exits(0);
    // A layer of our own besides, which has to be compressed.
    let rootfs = user.home().join("own.tar");
    let script = "mkdir r && seq 300000 >r/seq && tar -cf own.tar -C r seq && rm -r r";
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", script]).current_dir(user.home());
    let _ = hullbox_tests::finish(shell, b"").exits(0);
    let rootfs = rootfs.display().to_string();
    let _ = user.hullbox(["import", &rootfs, "own:1"]).exits(0);

    let push = |registry: &Registry, image: &str, kill: Option<Duration>| {
        let name = registry.name("target:1");
        let _ = user.hullbox(["tag", image, &name]).exits(0);
        let mut command = user.command(["push", "-q", &name]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        if let Some(moment) = kill {
            thread::sleep(moment);
            // It may have ended already.
            child.kill().ok();
        }
        let done = child.wait().unwrap();
        assert!(kill.is_some() || done.success(), "{image}");
        (name, done.success())
    };
    let (mut killed, mut expected) = (0, Vec::new());
    for image in [&base[..], "own:1"] {
        let registry = Registry::plain();
        let begin = Instant::now();
        let (name, _) = push(&registry, image, None);
        expected.push((image, digest_of(&user, &name), begin.elapsed()));
        let _ = user.hullbox(["rmi", &name]).exits(0);
    }
    for (index, part) in moments(MOMENTS, Duration::from_secs(1)).enumerate() {
        let (image, digest, whole) = &expected[index % expected.len()];
        // A registry of its own, that has nothing.
        let registry = Registry::plain();
        let (_, done) = push(&registry, image, Some(whole.mul_f64(part.as_secs_f64())));
        killed += u64::from(!done);
        let _ = user.hullbox(["system", "check"]).exits(0);
        let (name, _) = push(&registry, image, None);
        assert_eq!(digest_of(&user, &name), *digest, "{image} {part:?}");
        is_whole(&user, &name);
        let _ = user.hullbox(["rmi", &name]).exits(0);
    }
    let _ = user.hullbox(["system", "check"]).exits(0);
    assert!(killed >= MOMENTS / 2, "{killed} were killed");
}
