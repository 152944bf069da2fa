//! Copying in and out.

use super::{attempt, into, is_root, out, run, tar};
use hullbox_protocol::{Builtin, FailureKind};
use rustix::fs::{FileType, Mode, XattrFlags};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

/// A tree with everything a tar can hold.
fn make_tree(top: &Path) {
    let long = "n".repeat(200);
    std::fs::create_dir_all(top.join("d/deep").join(&long)).unwrap();
    std::fs::write(top.join("d/file"), vec![7; 100_000]).unwrap();
    std::fs::write(top.join("d/deep").join(&long).join("x"), "x").unwrap();
    std::fs::hard_link(top.join("d/file"), top.join("d/link")).unwrap();
    symlink("/somewhere/else", top.join("d/symbolic")).unwrap();
    symlink("y".repeat(300), top.join("d/far")).unwrap();
    let odd: &std::ffi::OsStr = std::os::unix::ffi::OsStrExt::from_bytes(b"odd\xff\n");
    std::fs::write(top.join("d").join(odd), "odd").unwrap();
    let mode = std::fs::Permissions::from_mode(0o6751);
    std::fs::set_permissions(top.join("d/file"), mode).unwrap();
    let fifo = top.join("d/fifo");
    rustix::fs::mkfifoat(rustix::fs::CWD, fifo, Mode::from_raw_mode(0o640)).unwrap();
    let null = top.join("d/null");
    let kind = FileType::CharacterDevice;
    let device = rustix::fs::makedev(1, 3);
    rustix::fs::mknodat(
        rustix::fs::CWD,
        null,
        kind,
        Mode::from_raw_mode(0o666),
        device,
    )
    .unwrap();
    let file = top.join("d/file");
    std::os::unix::fs::chown(&file, Some(1234), Some(4321)).unwrap();
    let mode = std::fs::Permissions::from_mode(0o6751);
    std::fs::set_permissions(&file, mode).unwrap();
    rustix::fs::setxattr(&file, "user.colour", b"r\0ed\n", XattrFlags::empty()).unwrap();
    let time = rustix::fs::Timespec {
        tv_sec: 1_234_567_890,
        tv_nsec: 123_456_789,
    };
    let times = rustix::fs::Timestamps {
        last_access: time,
        last_modification: time,
    };
    for path in ["d/file", "d"] {
        let flags = rustix::fs::AtFlags::empty();
        rustix::fs::utimensat(rustix::fs::CWD, top.join(path), &times, flags).unwrap();
    }
}

fn assert_same_tree(one: &Path, two: &Path) {
    let mut names: Vec<_> = std::fs::read_dir(one)
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    let mut others: Vec<_> = std::fs::read_dir(two)
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    names.sort();
    others.sort();
    assert_eq!(names, others);
    for name in names {
        let (a, b) = (one.join(&name), two.join(&name));
        let (left, right) = (a.symlink_metadata().unwrap(), b.symlink_metadata().unwrap());
        let key = |m: &std::fs::Metadata| {
            let mtime = if m.is_dir() || m.is_symlink() {
                (0, 0)
            } else {
                (m.mtime(), m.mtime_nsec())
            };
            (m.mode(), m.uid(), m.gid(), m.rdev(), m.nlink(), mtime)
        };
        assert_eq!(key(&left), key(&right), "{a:?}");
        if left.is_dir() {
            assert_same_tree(&a, &b);
        } else if left.is_file() {
            assert_eq!(std::fs::read(&a).unwrap(), std::fs::read(&b).unwrap());
        } else if left.is_symlink() {
            assert_eq!(
                std::fs::read_link(&a).unwrap(),
                std::fs::read_link(&b).unwrap()
            );
        }
    }
}

#[test]
fn trees_survive_and_gnu_tar_agrees() {
    if !is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let [source, target, gnu] = ["source", "target", "gnu"].map(|name| dir.path().join(name));
    for path in [&source, &target, &gnu] {
        std::fs::create_dir(path).unwrap();
    }
    make_tree(&source);
    let archive = run(&source, &out("/d"), b"");
    run(&target, &into("/"), &archive);
    assert_same_tree(&source, &target);
    let xattr = |top: &Path| {
        let mut value = [0; 16];
        let length = rustix::fs::getxattr(top.join("d/file"), "user.colour", &mut value[..]);
        value[..length.unwrap()].to_vec()
    };
    assert_eq!(xattr(&target), b"r\0ed\n");
    let top = target.join("d").metadata().unwrap();
    assert_eq!(
        (top.mtime(), top.mtime_nsec()),
        (1_234_567_890, 123_456_789)
    );
    if Command::new("tar").arg("--version").output().is_err() {
        eprintln!("skipped: no tar");
        return;
    }
    let said = tar(
        &["--xattrs", "--xattrs-include=*", "-xpf", "-"],
        &archive,
        &gnu,
    );
    assert_eq!(said, "");
    assert_same_tree(&source, &gnu);
    assert_eq!(xattr(&gnu), b"r\0ed\n");
    // The other way round, in each of its formats.
    for format in ["--format=pax", "--format=gnu"] {
        let made = Command::new("tar")
            .args([format, "--xattrs", "-cf", "-", "d"])
            .current_dir(&source)
            .output()
            .unwrap();
        let again = dir.path().join(format);
        std::fs::create_dir(&again).unwrap();
        run(&again, &into("/"), &made.stdout);
        let coarse = again.join("d/file").metadata().unwrap().mtime_nsec() == 0;
        if !coarse {
            assert_same_tree(&source, &again);
        }
        assert_eq!(std::fs::read(again.join("d/link")).unwrap().len(), 100_000);
    }
}

#[test]
fn names_begin_with_the_last_component() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("a/b")).unwrap();
    std::fs::write(dir.path().join("a/b/c"), "c").unwrap();
    symlink("/a/b", dir.path().join("s")).unwrap();
    let names = |builtin: &Builtin| {
        let archive = run(dir.path(), builtin, b"");
        tar(&["-tf", "-"], &archive, dir.path())
    };
    if Command::new("tar").arg("--version").output().is_err() {
        return;
    }
    assert_eq!(names(&out("/a/b")), "b/\nb/c\n");
    assert_eq!(names(&out("/a/b/.")), "./\n./c\n");
    assert_eq!(names(&out("a/b/c")), "c\n");
    assert_eq!(names(&out("/s")), "s\n");
    assert_eq!(names(&out("/s/")), "s/\ns/c\n");
    let followed = Builtin::ArchiveOut {
        path: b"/s".to_vec(),
        follow: true,
    };
    assert_eq!(names(&followed), "s/\ns/c\n");
    assert_eq!(names(&Builtin::Export), "a/\na/b/\na/b/c\ns\n");
}

#[test]
fn what_is_missing_is_said_as_docker_says_it() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("file"), "").unwrap();
    for builtin in [
        out("/x"),
        out("/file/x"),
        into("/x"),
        Builtin::Stat {
            path: b"/x".to_vec(),
        },
    ] {
        let failure = attempt(dir.path(), &builtin, b"").unwrap_err();
        assert_eq!(failure.kind, FailureKind::NotFound, "{builtin:?}");
        assert!(
            failure.message.starts_with("Could not find the file /"),
            "{failure:?}"
        );
        assert!(failure.message.ends_with(" in container"), "{failure:?}");
    }
    let failure = attempt(dir.path(), &into("/file"), b"").unwrap_err();
    assert!(
        failure
            .message
            .starts_with("extraction point is not a directory"),
        "{failure:?}"
    );
    let failure = attempt(dir.path(), &into("/"), &[1; 700]).unwrap_err();
    assert!(
        failure.message.contains("not a tar archive") || failure.message.contains("bad checksum"),
        "{failure:?}"
    );
}

#[test]
fn stat_is_json_of_the_protocols_type() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("file"), "four").unwrap();
    symlink("/../x/./file", dir.path().join("link")).unwrap();
    let stat = |path: &str| {
        let text = run(dir.path(), &Builtin::Stat { path: path.into() }, b"");
        serde_json::from_slice::<hullbox_protocol::PathStat>(&text).unwrap()
    };
    let file = stat("/file");
    let real = dir.path().join("file").metadata().unwrap();
    assert_eq!((file.mode, file.size), (real.mode(), 4));
    assert_eq!(
        file.mtime_ns,
        real.mtime() * 1_000_000_000 + real.mtime_nsec()
    );
    assert!(file.link_target.is_empty());
    assert_eq!(stat("link").link_target, b"/x/file");
}

/// An archive with one hostile entry after another, as GNU tar's `-P` and `--transform` make them.
fn hostile(name: &str, link: Option<&str>) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    match link {
        Some(link) => symlink(link, dir.path().join("x")).unwrap(),
        None => std::fs::write(dir.path().join("x"), "evil").unwrap(),
    }
    let made = Command::new("tar")
        .args([
            "-P",
            "-cf",
            "-",
            &format!("--transform=flags=r;s|^x$|{name}|"),
            "x",
        ])
        .current_dir(dir.path())
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    made.stdout
}

#[test]
fn archives_do_not_lead_out() {
    if Command::new("tar").arg("--version").output().is_err() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    std::fs::create_dir_all(root.join("in")).unwrap();
    let failure = attempt(&root, &into("/in"), &hostile("../x", None)).unwrap_err();
    assert!(failure.message.contains("leads out"), "{failure:?}");
    run(&root, &into("/in"), &hostile("/abs", None));
    assert!(root.join("in/abs").is_file());
    // Through a link that the first archive leaves.
    run(&root, &into("/in"), &hostile("up", Some("../../../..")));
    run(&root, &into("/in"), &hostile("up/caught", None));
    assert!(root.join("caught").is_file());
    let canary = format!("link{}", dir.path().display());
    run(&root, &into("/"), &hostile("link", Some("/")));
    run(&root, &into("/"), &hostile(&format!("{canary}/x"), None));
    let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().collect();
    assert_eq!(left.len(), 1, "{left:?}");
    // A file where a link stands replaces the link, not what it leads to.
    std::fs::write(root.join("kept"), "kept").unwrap();
    symlink("/kept", root.join("in/over")).unwrap();
    run(&root, &into("/in"), &hostile("over", None));
    assert_eq!(std::fs::read_to_string(root.join("kept")).unwrap(), "kept");
    assert_eq!(
        std::fs::read_to_string(root.join("in/over")).unwrap(),
        "evil"
    );
}

#[test]
fn kinds_are_not_exchanged() {
    if Command::new("tar").arg("--version").output().is_err() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("a")).unwrap();
    let failure = attempt(dir.path(), &into("/"), &hostile("a", None)).unwrap_err();
    assert_eq!(
        failure.message,
        "run: cannot overwrite directory \"a\" with non-directory"
    );
    std::fs::write(dir.path().join("f"), "").unwrap();
    let made = {
        let other = tempfile::tempdir().unwrap();
        std::fs::create_dir(other.path().join("f")).unwrap();
        run(other.path(), &out("/f"), b"")
    };
    let failure = attempt(dir.path(), &into("/"), &made).unwrap_err();
    assert_eq!(
        failure.message,
        "run: cannot overwrite non-directory \"f\" with directory"
    );
}
