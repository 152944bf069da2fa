//! One image that came in two manifests: names and digests as Docker has them.
//!
//! What is expected here was printed by docker.io 26.1.5 (Debian 13, storage driver vfs) for the same
//! commands, but for the layers that Docker names as deleted besides the image.

use super::digest_of;
use hullbox_tests::finish;
use hullbox_tests::registry::{Registry, User};
use std::process::Command;

struct Bed {
    registry: Registry,
    user: User,
    /// Digests of the manifests, by the names that they have below.
    digests: [(String, &'static str); 2],
}

impl Bed {
    /// A registry with one image as `x:a` and, in another form, as `x:b` and `y:b`.
    fn new() -> Self {
        let (registry, user) = (Registry::plain(), User::with_store());
        let mut shell = Command::new("sh");
        let script = "mkdir t && echo hello >t/hello && tar -cf t.tar -C t hello";
        shell.args(["-c", script]).current_dir(user.home());
        let _ = finish(shell, b"").exits(0);
        let tar = user.home().join("t.tar").display().to_string();
        let _ = user.hullbox(["import", &tar, "made:1"]).exits(0);
        for (name, form) in [("x:a", "gzip"), ("x:b", "zstd"), ("y:b", "zstd")] {
            let name = registry.name(name);
            let _ = user.hullbox(["tag", "made:1", &name]).exits(0);
            let words = ["push", "-q", "--compression", form, &name];
            let _ = user.hullbox(words).exits(0);
        }
        let id = user.hullbox(["images", "-q"]).exits(0).text();
        let _ = user.hullbox(["rmi", "-f", &id]).exits(0);
        let digests = [("x:a", "A"), ("x:b", "B")];
        let digests = digests.map(|(name, short)| (digest_of(&user, &registry.name(name)), short));
        assert_ne!(digests[0].0, digests[1].0);
        Self {
            registry,
            user,
            digests,
        }
    }

    /// A command whose words have the names of the registry and its digests in full.
    fn run(&self, words: &str) -> String {
        let full = |word: &str| {
            let mut word = match word.strip_prefix("R/") {
                Some(name) => self.registry.name(name),
                // A template's space.
                None => word.replace('~', " "),
            };
            for (digest, short) in &self.digests {
                word = word.replace(&format!("@{short}"), &format!("@{digest}"));
            }
            word
        };
        let words: Vec<String> = words.split(' ').map(full).collect();
        let mut text = self.user.hullbox(words).exits(0).text();
        for (digest, short) in &self.digests {
            text = text.replace(digest.as_str(), short);
        }
        text.replace(self.registry.address(), "R")
    }

    fn removes(&self, name: &str, untagged: &[&str], deleted: bool) {
        let text = self.run(&format!("rmi {name}"));
        let (gone, named): (Vec<_>, Vec<_>) =
            text.lines().partition(|line| line.starts_with("Deleted: "));
        let expected = untagged.iter().map(|name| format!("Untagged: {name}"));
        assert_eq!(named, expected.collect::<Vec<_>>());
        assert_eq!(!gone.is_empty(), deleted, "{text}");
    }

    fn sorted(&self, words: &str) -> Vec<String> {
        let text = self.run(words);
        let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    }

    fn lists(&self, expected: &[&str]) {
        let format = "{{.Repository}}|{{.Tag}}|{{.Digest}}";
        let lines = self.sorted(&format!("images --digests --format {format}"));
        assert_eq!(lines, expected);
    }
}

#[test]
#[ignore = "needs the built program: make test"]
fn names_and_digests_are_listed_and_removed_as_by_docker() {
    let bed = Bed::new();
    for words in ["pull -q R/x:a", "pull -q R/x:b", "tag R/x:a local:1"] {
        let _ = bed.run(words);
    }
    bed.lists(&["R/x|a|A", "R/x|a|B", "R/x|b|A", "R/x|b|B", "local|1|<none>"]);
    let names = bed.sorted("images --format {{.Repository}}|{{.Tag}}");
    assert_eq!(names, ["R/x|a", "R/x|b", "local|1"]);
    let of = |name: &str| -> Vec<String> {
        let text = bed.run(&format!(
            "image inspect --format {{{{json~.RepoDigests}}}} {name}"
        ));
        let mut all: Vec<String> = serde_json::from_str(&text).unwrap();
        all.sort();
        all
    };
    assert_eq!(of("local:1"), ["R/x@A", "R/x@B"]);
    bed.removes("R/x@A", &["R/x@A"], false);
    bed.lists(&["R/x|a|B", "R/x|b|B", "local|1|<none>"]);
    assert_eq!(of("R/x:a"), ["R/x@B"]);
    bed.removes("R/x:a", &["R/x:a"], false);
    bed.lists(&["R/x|b|B", "local|1|<none>"]);
    bed.removes("R/x:b", &["R/x:b", "R/x@B"], false);
    bed.lists(&["local|1|<none>"]);
    let _ = bed.run("pull -q R/x@B");
    bed.lists(&["R/x|<none>|B", "local|1|<none>"]);
    bed.removes("local:1", &["local:1"], false);
    bed.removes("R/x@B", &["R/x@B"], true);
    bed.lists(&[]);
    for words in ["pull -q R/x@A", "pull -q R/x@B"] {
        let _ = bed.run(words);
    }
    bed.lists(&["R/x|<none>|A", "R/x|<none>|B"]);
    let names = bed.sorted("images --format {{.Repository}}|{{.Tag}}");
    assert_eq!(names, ["R/x|<none>"]);
    bed.removes("R/x@A", &["R/x@A"], false);
    for words in ["pull -q R/x:a", "pull -q R/y:b"] {
        let _ = bed.run(words);
    }
    bed.lists(&["R/x|a|A", "R/x|a|B", "R/y|b|B"]);
    bed.removes("R/x:a@A", &["R/x:a@A"], false);
    bed.lists(&["R/x|a|B", "R/y|b|B"]);
    bed.removes("R/x:a", &["R/x:a", "R/x@B"], false);
    bed.lists(&["R/y|b|B"]);
    bed.removes("R/y:b", &["R/y:b", "R/y@B"], true);
    bed.lists(&[]);
    let _ = bed.user.hullbox(["system", "check"]).exits(0);
}
