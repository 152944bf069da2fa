//! Files through a stream and back, and streams that no honest container sends.

#[path = "../../../image/src/testing.rs"]
mod testing;

use super::rules::Plan;
use super::{CpError, PackOptions, Packed, UnpackOptions, Unpacked, pack, unpack};
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use testing::TarBuilder;

const ARCHIVE: UnpackOptions = UnpackOptions { archive: true };

fn plan(directory: &Path, name: Option<&str>) -> Plan {
    Plan {
        directory: directory.to_str().unwrap().as_bytes().to_vec(),
        name: name.map(|name| name.as_bytes().to_vec()),
    }
}

fn unpacked(tar: &[u8], directory: &Path, name: Option<&str>) -> Result<Unpacked, CpError> {
    unpack(tar, &plan(directory, name), UnpackOptions::default())
}

fn packed(source: &Path, name: &str) -> (Vec<u8>, Packed) {
    let mut tar = Vec::new();
    let done = pack(source, name.as_bytes(), PackOptions::default(), &mut tar);
    (tar, done.unwrap())
}

#[test]
fn a_tree_comes_back_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let from = dir.path().join("from");
    let long = "n".repeat(150);
    fs::create_dir_all(from.join(&long).join("deep")).unwrap();
    fs::write(from.join("a"), [7; 100_000]).unwrap();
    fs::hard_link(from.join("a"), from.join("b")).unwrap();
    fs::write(from.join(&long).join("deep/empty"), b"").unwrap();
    symlink("/etc/passwd", from.join("link")).unwrap();
    let set = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    set(&from.join("a"), 0o4751);
    set(&from.join(&long), 0o555);
    let fifo = from.join("fifo");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &fifo,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    let (tar, done) = packed(&from, "top");
    assert_eq!((done.bytes, done.skipped.len()), (100_000, 1));
    let out = dir.path().join("out");
    fs::create_dir(&out).unwrap();
    let report = unpacked(&tar, &out, Some("renamed")).unwrap();
    assert_eq!((report.entries, report.bytes), (done.entries, 100_000));
    let to = out.join("renamed");
    assert_eq!(fs::read(to.join("a")).unwrap(), [7; 100_000]);
    let (a, b) = (
        to.join("a").metadata().unwrap(),
        to.join("b").metadata().unwrap(),
    );
    assert_eq!((a.ino(), a.nlink()), (b.ino(), 2));
    assert_eq!(a.mode() & 0o7777, 0o751, "set-id bits are not for anyone");
    assert_eq!(a.mtime(), from.join("a").metadata().unwrap().mtime());
    assert_eq!(to.join(&long).metadata().unwrap().mode() & 0o777, 0o555);
    assert!(to.join(&long).join("deep/empty").exists());
    assert_eq!(
        fs::read_link(to.join("link")).unwrap(),
        Path::new("/etc/passwd")
    );
    assert!(!to.join("fifo").exists());
    set(&from.join(&long), 0o755);
    set(&to.join(&long), 0o755);
}

#[test]
fn the_top_is_what_the_plan_makes_of_it() {
    let dir = tempfile::tempdir().unwrap();
    for top in ["top/", "./"] {
        let tar = TarBuilder::default()
            .dir(top)
            .file(&format!("{top}x"), b"x")
            .finish();
        let out = dir.path().join("into");
        fs::create_dir(&out).unwrap();
        fs::write(out.join("x"), b"old").unwrap();
        fs::hard_link(out.join("x"), dir.path().join("other-name")).unwrap();
        unpacked(&tar, &out, None).unwrap();
        assert_eq!(fs::read(out.join("x")).unwrap(), b"x");
        let other = fs::read(dir.path().join("other-name")).unwrap();
        assert_eq!(other, b"old", "replaced, not written through");
        unpacked(&tar, &out, Some("d")).unwrap();
        assert_eq!(fs::read(out.join("d/x")).unwrap(), b"x");
        fs::remove_dir_all(&out).unwrap();
        fs::remove_file(dir.path().join("other-name")).unwrap();
    }
    let tar = TarBuilder::default().file("f", b"f").finish();
    assert!(
        unpacked(&tar, dir.path(), None).is_err(),
        "a file has no contents"
    );
    unpacked(&tar, dir.path(), Some("g")).unwrap();
    assert_eq!(fs::read(dir.path().join("g")).unwrap(), b"f");
    // Parents that nobody described are made.
    let tar = TarBuilder::default().file("t/a/b/c", b"c").finish();
    unpacked(&tar, dir.path(), Some("t")).unwrap();
    assert_eq!(fs::read(dir.path().join("t/a/b/c")).unwrap(), b"c");
}

/// A stream whose top is `t`.
fn tar(make: &dyn Fn(&mut TarBuilder) -> &mut TarBuilder) -> Vec<u8> {
    let mut builder = TarBuilder::default();
    builder.dir("t");
    make(&mut builder);
    builder.finish()
}

/// Names and links that lead out.
fn streams_that_reach_out() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("..", tar(&|t| t.file("t/../../canary", b"!"))),
        ("absolute", tar(&|t| t.file("/t/x", b"!"))),
        ("another top", tar(&|t| t.file("canary", b"!"))),
        (
            "through its own link",
            tar(&|t| t.symlink("t/l", "../..").file("t/l/canary", b"!")),
        ),
        (
            "through its own link to a directory of its own",
            tar(&|t| t.dir("t/d").symlink("t/l", "d").file("t/l/x", b"!")),
        ),
        (
            "a directory through its own link",
            tar(&|t| t.symlink("t/l", "../..").dir("t/l")),
        ),
        (
            "a link to ..",
            tar(&|t| t.hard_link("t/h", "t/../../canary")),
        ),
        (
            "an absolute link",
            tar(&|t| t.hard_link("t/h", "/etc/passwd")),
        ),
        (
            "a hard link through a link",
            tar(&|t| t.symlink("t/l", "../..").hard_link("t/h", "t/l/canary")),
        ),
    ]
}

/// What is in the way, or is not what it says.
fn streams_that_clash() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        (
            "a hard link to a directory",
            tar(&|t| t.hard_link("t/h", "t")),
        ),
        (
            "a file for a directory",
            tar(&|t| t.dir("t/d").file("t/d", b"!")),
        ),
        (
            "a directory for a file",
            tar(&|t| t.file("t/f", b"!").dir("t/f")),
        ),
        (
            "through a link that was there",
            tar(&|t| t.file("t/out/canary", b"!")),
        ),
        (
            "into a pipe that was there",
            tar(&|t| t.file("t/pipe", b"!")),
        ),
        (
            "a sparse file with data that belongs nowhere",
            tar(&|t| {
                t.entry(b'S', "t/huge", b"data").raw(257, b"ustar  \0");
                t.raw(483, b"77777777777\0").done()
            }),
        ),
        (
            "cut off",
            tar(&|t| t.file("t/x", &[1; 3000]))[..2000].to_vec(),
        ),
        (
            "without an end",
            tar(&|t| t.file("t/x", b"x"))[..1536].to_vec(),
        ),
        ("nothing at all", Vec::new()),
    ]
}

#[test]
fn hostile_streams_touch_nothing_outside() {
    let streams = streams_that_reach_out();
    let reaching: Vec<_> = streams.iter().map(|(what, _)| *what).collect();
    let streams = streams.into_iter().chain(streams_that_clash());
    for (what, stream) in streams {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("canary"), b"alive").unwrap();
        let out = dir.path().join("a/out");
        fs::create_dir_all(&out).unwrap();
        symlink("../..", out.join("out")).unwrap();
        let mode = rustix::fs::Mode::RUSR;
        let kind = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, out.join("pipe"), kind, mode, 0).unwrap();
        let result = unpacked(&stream, &out, None);
        assert!(result.is_err(), "{what}");
        if reaching.contains(&what) {
            let refused = matches!(result, Err(CpError::Refused { .. }));
            assert!(refused, "{what}: {result:?}");
        }
        assert_eq!(
            fs::read(dir.path().join("canary")).unwrap(),
            b"alive",
            "{what}"
        );
        let outside = fs::read_dir(dir.path()).unwrap().count();
        assert_eq!(
            (outside, fs::read_dir(dir.path().join("a")).unwrap().count()),
            (2, 1)
        );
        let pipe = out.join("pipe").symlink_metadata().unwrap();
        assert!(pipe.file_type().is_fifo(), "{what}");
    }
}

#[test]
fn links_are_replaced_and_never_written_through() {
    let dir = tempfile::tempdir().unwrap();
    let canary = dir.path().join("canary");
    fs::write(&canary, b"alive").unwrap();
    let out = dir.path().join("out");
    fs::create_dir(&out).unwrap();
    symlink(&canary, out.join("was-there")).unwrap();
    let target = canary.to_str().unwrap();
    let tar = TarBuilder::default()
        .dir("t")
        .file("t/was-there", b"new")
        .symlink("t/brought", target)
        .file("t/brought", b"new")
        .finish();
    unpacked(&tar, &out, None).unwrap();
    assert_eq!(fs::read(&canary).unwrap(), b"alive");
    for name in ["was-there", "brought"] {
        assert!(out.join(name).symlink_metadata().unwrap().is_file());
        assert_eq!(fs::read(out.join(name)).unwrap(), b"new");
    }
}

#[test]
fn devices_are_left_out_and_owners_are_for_root() {
    let dir = tempfile::tempdir().unwrap();
    let mut tar = TarBuilder::default();
    tar.dir("t").entry(b'3', "t/mem", b"").device(1, 1).done();
    tar.entry(b'6', "t/pipe", b"").done();
    tar.entry(b'0', "t/f", b"x")
        .mode(0o6755)
        .owner(12, 34)
        .done();
    let tar = tar.finish();
    let report = unpack(&tar[..], &plan(dir.path(), Some("t")), ARCHIVE).unwrap();
    assert_eq!((report.skipped_count, report.skipped.len()), (2, 2));
    assert_eq!(fs::read_dir(dir.path().join("t")).unwrap().count(), 1);
    let file = dir.path().join("t/f").metadata().unwrap();
    if rustix::process::geteuid().is_root() {
        assert_eq!(
            (file.uid(), file.gid(), file.mode() & 0o7777),
            (12, 34, 0o6755)
        );
    } else {
        assert_eq!(file.mode() & 0o7777, 0o755);
    }
    let device = TarBuilder::default()
        .entry(b'3', "mem", b"")
        .device(1, 1)
        .finish();
    let report = unpacked(&device, dir.path(), Some("mem")).unwrap();
    assert_eq!((report.entries, report.skipped_count), (0, 1));
}

#[test]
fn sources_may_be_links() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, b"content").unwrap();
    let link = dir.path().join("link");
    symlink("file", &link).unwrap();
    let (tar, done) = packed(&link, "link");
    assert_eq!((done.entries, done.bytes), (1, 0));
    let out = dir.path().join("out");
    fs::create_dir(&out).unwrap();
    unpacked(&tar, &out, Some("link")).unwrap();
    assert_eq!(fs::read_link(out.join("link")).unwrap(), Path::new("file"));
    let follow = PackOptions {
        follow_link: true,
        archive: false,
    };
    let mut tar = Vec::new();
    pack(&link, b"copy", follow, &mut tar).unwrap();
    unpacked(&tar, &out, Some("copy")).unwrap();
    assert_eq!(fs::read(out.join("copy")).unwrap(), b"content");
    let missing = pack(&dir.path().join("missing"), b"x", follow, &mut Vec::new());
    assert!(matches!(missing, Err(CpError::Local { .. })));
}

#[test]
fn holes_stay_holes_both_ways() {
    let dir = tempfile::tempdir().unwrap();
    let from = dir.path().join("from");
    let file = fs::File::create(&from).unwrap();
    file.set_len(4 << 30).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"here", 1 << 31).unwrap();
    let (tar, done) = packed(&from, "file");
    assert_eq!(done.bytes, 4 << 30);
    assert!(tar.len() < 64 * 1024, "{}", tar.len());
    let report = unpacked(&tar, dir.path(), Some("to")).unwrap();
    assert_eq!((report.entries, report.bytes), (1, 4 << 30));
    let to = fs::File::open(dir.path().join("to")).unwrap();
    let metadata = to.metadata().unwrap();
    assert_eq!(metadata.len(), 4 << 30);
    assert!(metadata.blocks() < 128, "{} blocks", metadata.blocks());
    let mut here = [0; 4];
    std::os::unix::fs::FileExt::read_exact_at(&to, &mut here, 1 << 31).unwrap();
    assert_eq!(&here, b"here");
    // GNU tar reads it too.
    let archive = dir.path().join("archive");
    fs::write(&archive, &tar).unwrap();
    let gnu = std::process::Command::new("tar")
        .args(["-C", dir.path().to_str().unwrap(), "-xf"])
        .arg(&archive)
        .status();
    if gnu.is_ok() {
        let gnu = dir.path().join("file").metadata().unwrap();
        assert_eq!(gnu.len(), 4 << 30);
        assert!(gnu.blocks() < 128, "{} blocks", gnu.blocks());
    }
}
