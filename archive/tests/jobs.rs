//! The jobs on real directories. Against GNU tar where there is one; as root where owners,
//! devices and overlayfs's marks need it.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test's helpers fail as its own lines do"
)]

use hullbox_archive::{Job, Layers, Scene};
use hullbox_protocol::{Builtin, Failure, FailureKind};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{FileType, Mode, OFlags, XattrFlags};
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

fn open(path: &Path) -> OwnedFd {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    rustix::fs::open(path, flags, Mode::empty()).unwrap()
}

fn attempt(root: &Path, builtin: &Builtin, input: &[u8]) -> Result<Vec<u8>, Failure> {
    let root = open(root);
    let job = Job::prepare(builtin, Scene::Root(root.as_fd()))?;
    let mut out = Vec::new();
    job.run(input, &mut out).map_err(|error| Failure {
        kind: FailureKind::Setup,
        message: format!("run: {error}"),
    })?;
    Ok(out)
}

fn run(root: &Path, builtin: &Builtin, input: &[u8]) -> Vec<u8> {
    attempt(root, builtin, input).unwrap()
}

fn out(path: &str) -> Builtin {
    Builtin::ArchiveOut {
        path: path.into(),
        follow: false,
    }
}

fn into(path: &str) -> Builtin {
    Builtin::ArchiveIn {
        path: path.into(),
        keep_owner: true,
    }
}

fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("skipped: not root");
    }
    root
}

/// What GNU tar makes of an archive: its listing, or what it says on standard error.
fn tar(arguments: &[&str], archive: &[u8], directory: &Path) -> String {
    let mut child = Command::new("tar")
        .args(arguments)
        .current_dir(directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(archive).unwrap();
    let output = child.wait_with_output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{error}");
    String::from_utf8_lossy(&output.stdout).into_owned() + &error
}

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

#[test]
fn changes_are_those_of_the_upper_directory() {
    if !is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (lower, upper) = (dir.path().join("lower"), dir.path().join("upper"));
    let write = |top: &Path, path: &str, text: &str| {
        let path = top.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    for path in [
        "etc/passwd",
        "etc/gone",
        "opt/old/a",
        "opt/old/b",
        "same/x",
        "etc/copied",
    ] {
        write(&lower, path, "old");
    }
    for path in [
        "etc/passwd",
        "new/dir/file",
        "opt/old/b",
        "opt/old/c",
        "srv/.wh.odd",
    ] {
        write(&upper, path, "changed");
    }
    for (path, text) in [
        ("etc/hosts", ""),
        ("etc/hostname", ""),
        ("etc/resolv.conf", "real"),
    ] {
        write(&upper, path, text);
    }
    for path in ["proc", "dev/pts", "same"] {
        std::fs::create_dir_all(upper.join(path)).unwrap();
    }
    let mut copy = Command::new("cp");
    copy.arg("-p")
        .arg(lower.join("etc/copied"))
        .arg(upper.join("etc/copied"));
    assert!(copy.status().unwrap().success());
    let null = FileType::CharacterDevice;
    for path in ["etc/gone", "etc/never"] {
        rustix::fs::mknodat(rustix::fs::CWD, upper.join(path), null, Mode::empty(), 0).unwrap();
    }
    let opaque = rustix::fs::setxattr(
        upper.join("opt/old"),
        "trusted.overlay.opaque",
        b"y",
        XattrFlags::empty(),
    );
    if opaque.is_err() {
        eprintln!("skipped: no trusted attributes here");
        return;
    }
    let layers = Layers {
        upper: open(&upper),
        lower: open(&lower),
    };
    let done = |builtin: Builtin| {
        let mut out = Vec::new();
        let job = Job::prepare(&builtin, Scene::Layers(&layers)).unwrap();
        job.run(&b""[..], &mut out).unwrap();
        out
    };
    let text = String::from_utf8(done(Builtin::Changes)).unwrap();
    let lines: Vec<_> = text.split_terminator('\0').collect();
    assert_eq!(
        lines,
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
    let listing = tar(&["-tf", "-"], &done(Builtin::Layer), dir.path());
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

/// A file of 4 GiB with two pieces of data, the second over more than one block.
fn make_sparse(path: &Path) {
    use std::os::unix::fs::FileExt;
    let file = std::fs::File::create(path).unwrap();
    file.set_len(4 << 30).unwrap();
    file.write_all_at(b"early", 1 << 20).unwrap();
    file.write_all_at(&[7; 10_000], (3 << 30) + 5).unwrap();
}

fn assert_sparse(path: &Path) {
    use std::os::unix::fs::FileExt;
    let metadata = path.metadata().unwrap();
    assert_eq!(metadata.len(), 4 << 30, "{path:?}");
    assert!(metadata.blocks() < 256, "{} blocks", metadata.blocks());
    let file = std::fs::File::open(path).unwrap();
    let mut data = [1; 10_002];
    file.read_exact_at(&mut data, (3 << 30) + 4).unwrap();
    assert_eq!((data[0], data[10_001]), (0, 0));
    assert!(data[1..10_001].iter().all(|&byte| byte == 7));
    file.read_exact_at(&mut data[..7], (1 << 20) - 1).unwrap();
    assert_eq!(&data[..7], b"\0early\0");
}

#[test]
fn holes_travel_as_holes() {
    let dir = tempfile::tempdir().unwrap();
    let [source, target] = ["source", "target"].map(|name| dir.path().join(name));
    for path in [&source, &target] {
        std::fs::create_dir_all(path.join("d")).unwrap();
    }
    make_sparse(&source.join("d/disk"));
    let gnu = Command::new("tar").arg("--version").output().is_ok();
    for builtin in [out("/d"), Builtin::Export] {
        let archive = run(&source, &builtin, b"");
        assert!(archive.len() < 100_000, "{}", archive.len());
        run(&target, &into("/"), &archive);
        assert_sparse(&target.join("d/disk"));
        if gnu {
            let other = tempfile::tempdir().unwrap();
            assert_eq!(tar(&["-xpf", "-"], &archive, other.path()), "");
            assert_sparse(&other.path().join("d/disk"));
        }
    }
    if !gnu {
        eprintln!("skipped: no tar");
        return;
    }
    for format in [
        &["--format=gnu"][..],
        &["--format=oldgnu"],
        &["--format=pax", "--sparse-version=0.0"],
        &["--format=pax", "--sparse-version=0.1"],
        &["--format=pax", "--sparse-version=1.0"],
    ] {
        let made = Command::new("tar")
            .args(format)
            .args(["-cSf", "-", "d"])
            .current_dir(&source)
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
        std::fs::remove_file(target.join("d/disk")).unwrap();
        run(&target, &into("/"), &made.stdout);
        assert_sparse(&target.join("d/disk"));
    }
}

#[test]
fn a_layer_has_holes_as_well() {
    let dir = tempfile::tempdir().unwrap();
    let [upper, lower] = ["upper", "lower"].map(|name| dir.path().join(name));
    for path in [&upper, &lower] {
        std::fs::create_dir(path).unwrap();
    }
    make_sparse(&upper.join("disk"));
    let layers = Layers {
        upper: open(&upper),
        lower: open(&lower),
    };
    let mut layer = Vec::new();
    let job = Job::prepare(&Builtin::Layer, Scene::Layers(&layers)).unwrap();
    job.run(&b""[..], &mut layer).unwrap();
    assert!(layer.len() < 100_000, "{}", layer.len());
}

fn set(path: &Path, attribute: &str, value: &str) -> bool {
    let done = rustix::fs::setxattr(path, attribute, value.as_bytes(), XattrFlags::empty());
    done.is_ok()
}

/// What overlayfs leaves when `mv /usr/share/doc /docs; mv /docs/a /docs/b; mv /usr/lib /usr/share/doc`
/// and some changes were made in there.
#[test]
fn renamed_directories_are_gone_and_new() {
    if !is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (lower, upper) = (dir.path().join("lower"), dir.path().join("upper"));
    let write = |top: &Path, path: &str, text: &str| {
        let path = top.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    for path in [
        "usr/share/doc/a/deep/x",
        "usr/share/doc/a/y",
        "usr/share/doc/gone",
        "usr/share/doc/kept",
        "usr/lib/one",
    ] {
        write(&lower, path, path);
    }
    std::fs::hard_link(
        lower.join("usr/share/doc/kept"),
        lower.join("usr/share/doc/link"),
    )
    .unwrap();
    for path in ["docs/b/deep", "usr/share/doc"] {
        std::fs::create_dir_all(upper.join(path)).unwrap();
    }
    write(&upper, "docs/new", "new");
    write(&upper, "docs/b/y", "changed");
    let null = FileType::CharacterDevice;
    for path in ["docs/gone", "docs/a", "usr/lib"] {
        rustix::fs::mknodat(rustix::fs::CWD, upper.join(path), null, Mode::empty(), 0).unwrap();
    }
    const REDIRECT: &str = "trusted.overlay.redirect";
    if !set(&upper.join("docs"), REDIRECT, "/usr/share/doc") {
        eprintln!("skipped: no trusted attributes here");
        return;
    }
    assert!(set(&upper.join("docs/b"), REDIRECT, "a"));
    assert!(set(&upper.join("usr/share/doc"), REDIRECT, "/usr/lib"));
    let done = |builtin: Builtin| {
        let layers = Layers {
            upper: open(&upper),
            lower: open(&lower),
        };
        let mut out = Vec::new();
        let job = Job::prepare(&builtin, Scene::Layers(&layers)).unwrap();
        job.run(&b""[..], &mut out).map(|()| out)
    };
    let text = String::from_utf8(done(Builtin::Changes).unwrap()).unwrap();
    let lines: Vec<_> = text.split_terminator('\0').collect();
    assert_eq!(
        lines,
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
    let layer = done(Builtin::Layer).unwrap();
    let listing = tar(&["-tvf", "-"], &layer, dir.path());
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
    let unpacked = dir.path().join("unpacked");
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
        let error = done(Builtin::Layer).unwrap_err().to_string();
        assert!(error.contains("redirects"), "{hostile}: {error}");
    }
    // These lead to nothing: there is only what was made since.
    std::os::unix::fs::symlink("/etc", lower.join("away")).unwrap();
    for nothing in ["/nowhere", "nowhere", "/away", "/usr/share/doc/kept"] {
        assert!(set(&upper.join("more"), REDIRECT, nothing));
        let text = String::from_utf8(done(Builtin::Changes).unwrap()).unwrap();
        assert!(text.contains("A /more\0"), "{nothing}: {text}");
        assert!(!text.contains("A /more/"), "{nothing}: {text}");
    }
}
