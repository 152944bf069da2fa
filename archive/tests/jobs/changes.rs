//! What changed in a container: lists and layers of an overlayfs's upper directory.

use super::{Overlay, is_root, set, tar, write};
use hullbox_protocol::Builtin;
use std::process::Command;

#[test]
fn changes_are_those_of_the_upper_directory() {
    if !is_root() {
        return;
    }
    let overlay = Overlay::new();
    let (lower, upper) = (&overlay.lower, &overlay.upper);
    for path in [
        "etc/passwd",
        "etc/gone",
        "opt/old/a",
        "opt/old/b",
        "same/x",
        "etc/copied",
    ] {
        write(lower, path, "old");
    }
    for path in [
        "etc/passwd",
        "new/dir/file",
        "opt/old/b",
        "opt/old/c",
        "srv/.wh.odd",
    ] {
        write(upper, path, "changed");
    }
    for (path, text) in [
        ("etc/hosts", ""),
        ("etc/hostname", ""),
        ("etc/resolv.conf", "real"),
    ] {
        write(upper, path, text);
    }
    for path in ["proc", "dev/pts", "same"] {
        std::fs::create_dir_all(upper.join(path)).unwrap();
    }
    let mut copy = Command::new("cp");
    copy.arg("-p")
        .arg(lower.join("etc/copied"))
        .arg(upper.join("etc/copied"));
    assert!(copy.status().unwrap().success());
    for path in ["etc/gone", "etc/never"] {
        overlay.whiteout(path);
    }
    if !set(&upper.join("opt/old"), "trusted.overlay.opaque", "y") {
        eprintln!("skipped: no trusted attributes here");
        return;
    }
    assert_eq!(
        overlay.changes(),
        [
            "C /etc",
            "D /etc/gone",
            "C /etc/passwd",
            "A /etc/resolv.conf",
            "A /new",
            "A /new/dir",
            "A /new/dir/file",
            "C /opt",
            "C /opt/old",
            "D /opt/old/a",
            "C /opt/old/b",
            "A /opt/old/c",
            "A /srv",
            "A /srv/.wh.odd",
        ]
    );
    let layer = overlay.attempt(&Builtin::Layer).unwrap();
    let listing = tar(&["-tf", "-"], &layer, overlay.dir());
    let names: Vec<_> = listing.lines().collect();
    assert_eq!(
        names,
        [
            "etc/",
            "etc/copied",
            "etc/.wh.gone",
            "etc/passwd",
            "etc/resolv.conf",
            "new/",
            "new/dir/",
            "new/dir/file",
            "opt/",
            "opt/old/",
            "opt/old/.wh..wh..opq",
            "opt/old/b",
            "opt/old/c",
            "srv/",
        ]
    );
}

/// What overlayfs leaves when `mv /usr/share/doc /docs; mv /docs/a /docs/b; mv /usr/lib /usr/share/doc`
/// and some changes were made in there.
#[test]
fn renamed_directories_are_gone_and_new() {
    if !is_root() {
        return;
    }
    let overlay = Overlay::new();
    let (lower, upper) = (&overlay.lower, &overlay.upper);
    for path in [
        "usr/share/doc/a/deep/x",
        "usr/share/doc/a/y",
        "usr/share/doc/gone",
        "usr/share/doc/kept",
        "usr/lib/one",
    ] {
        write(lower, path, path);
    }
    std::fs::hard_link(
        lower.join("usr/share/doc/kept"),
        lower.join("usr/share/doc/link"),
    )
    .unwrap();
    for path in ["docs/b/deep", "usr/share/doc"] {
        std::fs::create_dir_all(upper.join(path)).unwrap();
    }
    write(upper, "docs/new", "new");
    write(upper, "docs/b/y", "changed");
    for path in ["docs/gone", "docs/a", "usr/lib"] {
        overlay.whiteout(path);
    }
    const REDIRECT: &str = "trusted.overlay.redirect";
    if !set(&upper.join("docs"), REDIRECT, "/usr/share/doc") {
        eprintln!("skipped: no trusted attributes here");
        return;
    }
    assert!(set(&upper.join("docs/b"), REDIRECT, "a"));
    assert!(set(&upper.join("usr/share/doc"), REDIRECT, "/usr/lib"));
    assert_eq!(
        overlay.changes(),
        [
            "A /docs",
            "A /docs/b",
            "A /docs/b/deep",
            "A /docs/b/deep/x",
            "A /docs/b/y",
            "A /docs/kept",
            "A /docs/link",
            "A /docs/new",
            "C /usr",
            "D /usr/lib",
            "C /usr/share",
            "C /usr/share/doc",
            "D /usr/share/doc/a",
            "D /usr/share/doc/gone",
            "D /usr/share/doc/kept",
            "D /usr/share/doc/link",
            "A /usr/share/doc/one",
        ]
    );
    let layer = overlay.attempt(&Builtin::Layer).unwrap();
    let listing = tar(&["-tvf", "-"], &layer, overlay.dir());
    let names: Vec<_> = listing
        .lines()
        .map(|line| line.splitn(6, ' ').last().unwrap().trim())
        .map(|line| line.split_once(':').unwrap().1[2..].trim().to_owned())
        .collect();
    assert_eq!(
        names,
        [
            "docs/",
            "docs/b/",
            "docs/b/deep/",
            "docs/b/deep/x",
            "docs/b/y",
            "docs/kept",
            "docs/link link to docs/kept",
            "docs/new",
            "usr/",
            "usr/.wh.lib",
            "usr/share/",
            "usr/share/doc/",
            "usr/share/doc/.wh..wh..opq",
            "usr/share/doc/one",
        ]
    );
    let unpacked = overlay.dir().join("unpacked");
    std::fs::create_dir(&unpacked).unwrap();
    let _ = tar(&["-xf", "-"], &layer, &unpacked);
    let read = |path: &str| std::fs::read_to_string(unpacked.join(path)).unwrap();
    assert_eq!(read("docs/b/deep/x"), "usr/share/doc/a/deep/x");
    assert_eq!(read("docs/b/y"), "changed");
    assert_eq!(read("usr/share/doc/one"), "usr/lib/one");

    // Overlayfs makes none of these.
    std::fs::create_dir(upper.join("more")).unwrap();
    for hostile in ["/", "/..", "/usr/../..", "a/b", "..", "", "/usr/lib"] {
        assert!(set(&upper.join("more"), REDIRECT, hostile));
        let error = overlay.attempt(&Builtin::Layer).unwrap_err().to_string();
        assert!(error.contains("redirects"), "{hostile}: {error}");
    }
    // These lead to nothing: there is only what was made since.
    std::os::unix::fs::symlink("/etc", lower.join("away")).unwrap();
    for nothing in ["/nowhere", "nowhere", "/away", "/usr/share/doc/kept"] {
        assert!(set(&upper.join("more"), REDIRECT, nothing));
        let lines = overlay.changes();
        assert!(lines.contains(&"A /more".into()), "{nothing}: {lines:?}");
        let beneath = lines.iter().any(|line| line.starts_with("A /more/"));
        assert!(!beneath, "{nothing}: {lines:?}");
    }
}
