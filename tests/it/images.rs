//! Images in the store, seen from the command line.

use hullbox_tests::{Mode, finish, fixture, hullbox, run};
use std::fs;
use std::path::Path;

/// One line for each file: everything that an image says about it.
const LIST: &str = r#"cd "$1" && find . -xdev \( -path ./proc -o -path ./sys -o -path ./dev -o -path ./etc -o -path ./run \) -prune -o -print0 | sort -z |
while IFS= read -r -d '' f; do
  s=; [ -f "$f" ] && [ ! -L "$f" ] && s=$(sha256sum <"$f")
  l=; [ -L "$f" ] && l=$(readlink "$f")
  d=$(stat -c '%f %u %g %t:%T %Y' "$f"); [ -d "$f" ] && [ ! -L "$f" ] || d="$d $(stat -c '%h %s' "$f")"
  printf '%s|%s|%s|%s\n' "$f" "$d" "$l" "$s"
done"#;

/// What lies below a directory, without what [`LIST`] leaves out: where a runtime mounts or writes.
fn count(root: &Path) -> usize {
    let mut found = 0;
    let mut dirs = vec![root.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name();
            if dir == root
                && ["proc", "sys", "dev", "etc", "run"]
                    .iter()
                    .any(|out| name == *out)
            {
                continue;
            }
            found += 1;
            if entry.file_type().unwrap().is_dir() {
                dirs.push(entry.path());
            }
        }
    }
    found
}

#[test]
#[ignore = "needs the built program: make test"]
fn three_layers_are_what_umoci_unpacks() {
    for mode in [Mode::Vm, Mode::Container] {
        let ours = run(mode, ["three", "sh", "-c", LIST, "sh", "/"])
            .exits(0)
            .text();
        let mut command = std::process::Command::new("busybox");
        command
            .args(["sh", "-c", LIST, "sh"])
            .arg(fixture("three.ref"));
        let theirs = finish(command, b"").exits(0).text();
        // Directories that the runtime itself touches differ in time alone.
        let skip = |line: &&str| !line.starts_with(".|");
        let (ours, theirs): (Vec<_>, Vec<_>) = (
            ours.lines().filter(skip).collect(),
            theirs.lines().filter(skip).collect(),
        );
        for (a, b) in ours.iter().zip(&theirs) {
            assert_eq!(a, b, "{mode:?}");
        }
        assert_eq!(ours.len(), theirs.len());
        assert_eq!(
            theirs.len(),
            count(&fixture("three.ref")),
            "the list is whole"
        );
    }
}

#[test]
#[ignore = "needs the built program: make test"]
fn images_are_listed_tagged_and_removed() {
    let _ = hullbox(["tag", "busybox", "mine:v1"]).exits(0);
    let text = hullbox(["images", "--format", "{{.Repository}}:{{.Tag}}"])
        .exits(0)
        .text();
    assert!(text.lines().any(|line| line == "mine:v1"), "{text}");
    let text = hullbox(["rmi", "mine:v1"]).exits(0).text();
    assert!(text.contains("Untagged: mine:v1"), "{text}");
    hullbox(["rmi", "mine:v1"]).fails_saying("mine:v1");
    assert_eq!(run(Mode::Container, ["busybox", "true"]).code, 0);
}
