//! Sparse files.

use super::{Overlay, into, out, run, tar};
use hullbox_protocol::Builtin;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

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
    let overlay = Overlay::new();
    make_sparse(&overlay.upper.join("disk"));
    let layer = overlay.attempt(&Builtin::Layer).unwrap();
    assert!(layer.len() < 100_000, "{}", layer.len());
}
