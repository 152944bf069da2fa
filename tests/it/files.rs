//! `cp`, `export`, `commit`: sparse files, links, roots that may not be written to.

use crate::life::Kept;
use hullbox_tests::{both_modes, command, finish, hullbox};
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};

/// A directory of the test's own, removed with it.
struct Here(PathBuf);

impl Here {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("hullbox-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a directory");
        Self(dir)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_string_lossy().into_owned()
    }

    fn write(&self, name: &str, text: &str) -> String {
        std::fs::write(self.0.join(name), text).expect("a file");
        self.path(name)
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.0.join(name)).expect("a file")
    }
}

impl Drop for Here {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

const SIZE: u64 = 4 << 30;

/// A file of 4 GiB with two bytes in its middle, and all else holes.
fn assert_sparse(path: &Path) {
    let file = std::fs::File::open(path).expect("the file");
    let metadata = file.metadata().expect("its metadata");
    assert_eq!(metadata.len(), SIZE, "{path:?}");
    assert!(
        metadata.blocks() * 512 < 1 << 20,
        "{} blocks",
        metadata.blocks()
    );
    let mut middle = [1; 4];
    file.read_exact_at(&mut middle, SIZE / 2 - 1).expect("data");
    assert_eq!(&middle, b"\0hi\0");
}

/// The same inside a container: size, whether it has few blocks, and the two bytes.
const LOOK: &str = "stat -c %s $f; [ $(stat -c %b $f) -lt 2048 ] && echo few || echo many; \
                    dd if=$f bs=1 skip=2147483648 count=2 2>/dev/null";

both_modes! {
    fn sparse_files_stay_sparse_on_every_way(mode) {
        let box_ = Kept::new("sparse", mode);
        let here = Here::new(&box_.name);
        box_.run(&["busybox", "sleep", "1000"]);
        let make = "truncate -s 4G /disk; printf hi | dd of=/disk bs=1 seek=2147483648 conv=notrunc 2>/dev/null";
        let _ = box_.exec(&["sh", "-c", make]).exits(0);
        let look = |file: &str| {
            let script = format!("f={file}; {LOOK}");
            box_.exec(&["sh", "-c", &script]).exits(0).text()
        };
        let disk = format!("{}:/disk", box_.name);

        // From the container's to the host's files and back, and as a stream.
        let _ = hullbox(["cp", &disk, &here.path("out")]).exits(0);
        assert_sparse(&here.0.join("out"));
        let _ = hullbox(["cp", &here.path("out"), &format!("{}:/in", box_.name)]).exits(0);
        assert_eq!(look("/in"), format!("{SIZE}\nfew\nhi"));
        let stream = hullbox(["cp", &disk, "-"]).exits(0).stdout;
        assert!(stream.len() < 1 << 16, "{}", stream.len());
        // As GNU tar writes it.
        let mut tar = std::process::Command::new("tar");
        let _ = tar.args(["-cS", "--format=gnu", "-C"]).arg(&here.0).arg("out");
        let gnu = tar.output().expect("GNU tar").stdout;
        let unpack = command(["cp", "-", &format!("{}:/srv", box_.name)]);
        let _ = box_.exec(&["mkdir", "-p", "/srv"]).exits(0);
        let _ = finish(unpack, &gnu).exits(0);
        assert_eq!(look("/srv/out"), format!("{SIZE}\nfew\nhi"));
        let _ = box_.exec(&["rm", "/in", "/srv/out"]).exits(0);

        // Everything, and everything again as an image.
        let whole = here.path("export.tar");
        let _ = hullbox(["export", "-o", &whole, &box_.name]).exits(0);
        assert!(std::fs::metadata(&whole).expect("a tar").len() < 64 << 20);
        let tag = format!("sparse-{}:1", box_.name);
        let _ = hullbox(["commit", &box_.name, &tag]).exits(0);
        let saved = here.path("saved.tar");
        let _ = hullbox(["save", "-o", &saved, &tag]).exits(0);
        assert!(std::fs::metadata(&saved).expect("a tar").len() < 64 << 20);
        let _ = hullbox(["rmi", &tag]).exits(0);
        let _ = hullbox(["load", "-q", "-i", &saved]).exits(0);
        let imported = format!("imported-{}:1", box_.name);
        let _ = hullbox(["import", &whole, &imported]).exits(0);
        for image in [&tag, &imported] {
            let mut run = command(["run", "--rm", mode.flag()]);
            run.args(["-m", "128m", image, "/bin/sh", "-c", &format!("f=/disk; {LOOK}")]);
            let text = finish(run, b"").exits(0).text();
            // EROFS counts the blocks of holes.
            assert_eq!(text, format!("{SIZE}\nmany\nhi"));
            let _ = hullbox(["rmi", image]).exits(0);
        }
    }
}

both_modes! {
    fn a_copy_onto_a_link_writes_what_it_leads_to(mode) {
        let box_ = Kept::new("onto-links", mode);
        let here = Here::new(&box_.name);
        let new = here.write("new", "new");
        std::fs::create_dir_all(here.0.join("tree")).expect("a directory");
        box_.run(&["busybox", "sleep", "1000"]);
        let make = "mkdir -p /d /t/sub; echo old > /t/file; ln -s ../t/file /d/link; ln -s link /d/two; \
                    ln -s /t/fresh /d/nowhere; ln -s /t/sub /d/dir; ln -s /no/such /d/lost; \
                    ln -s /../../../../../t/high /d/out; ln -s circle /d/circle";
        let _ = box_.exec(&["sh", "-c", make]).exits(0);
        let at = |path: &str| format!("{}:{path}", box_.name);
        for running in [true, false] {
            if !running {
                let _ = hullbox(["stop", "-t", "0", &box_.name]).exits(0);
            }
            let read = |path: &str| {
                let _ = hullbox(["cp", "-L", &at(path), &here.path("back")]).exits(0);
                here.read("back")
            };
            let said = if running { "running" } else { "stopped" };
            std::fs::write(&new, said).expect("a file");
            for (link, file) in [
                ("/d/link", "/t/file"),
                ("/d/two", "/t/file"),
                ("/d/nowhere", "/t/fresh"),
                ("/d/out", "/t/high"),
            ] {
                let _ = hullbox(["cp", &new, &at(link)]).exits(0);
                assert_eq!(read(file), said, "{link}");
                let _ = hullbox(["cp", "-a", &new, &at(link)]).exits(0);
                // The link is one still.
                let copy = here.path("as-it-is");
                let _ = std::fs::remove_file(&copy);
                let _ = hullbox(["cp", &at(link), &copy]).exits(0);
                assert!(Path::new(&copy).is_symlink(), "{link}");
            }
            let _ = hullbox(["cp", &new, &at("/d/dir")]).exits(0);
            assert_eq!(read("/t/sub/new"), said);
            let _ = hullbox(["cp", &here.path("tree"), &at("/d/dir")]).exits(0);
            let _ = hullbox(["cp", &new, &at("/d/dir/tree/")]).exits(0);
            assert_eq!(read("/t/sub/tree/new"), said);
            hullbox(["cp", &here.path("tree"), &at("/d/link")]).fails_saying("directory cannot replace");
            hullbox(["cp", &new, &at("/d/link/")]).fails_saying("director");
            hullbox(["cp", &new, &at("/d/lost")]).fails_saying("no");
            hullbox(["cp", &new, &at("/d/circle")]).fails_saying("too many levels of symbolic links");
        }

        // The other way round.
        let _ = here.write("target", "old");
        for (link, target) in [("link", "target"), ("nowhere", "fresh"), ("chain", "link")] {
            symlink(target, here.0.join(link)).expect("a link");
        }
        std::fs::create_dir(here.0.join("sub")).expect("a directory");
        symlink("sub", here.0.join("dir")).expect("a link");
        for (link, target) in [("link", "target"), ("chain", "target"), ("nowhere", "fresh"), ("dir", "sub/file")] {
            let _ = here.write("target", "old");
            let _ = hullbox(["cp", &at("/t/file"), &here.path(link)]).exits(0);
            assert_eq!(here.read(target), "stopped", "{link}");
            assert!(here.0.join(link).symlink_metadata().expect("it is there").is_symlink(), "{link}");
        }
    }
}

both_modes! {
    fn a_read_only_container_takes_no_files(mode) {
        let box_ = Kept::new("read-only", mode);
        let here = Here::new(&box_.name);
        let new = here.write("new", "new");
        let made = box_.make(&["create", "--read-only", "--tmpfs", "/scratch"], &["busybox", "sleep", "1000"]);
        let _ = made.exits(0);
        for running in [false, true] {
            if running {
                let _ = hullbox(["start", &box_.name]).exits(0);
            }
            for place in ["/etc", "/scratch/x"] {
                let to = format!("{}:{place}", box_.name);
                hullbox(["cp", &new, &to]).fails_saying("container rootfs is marked read-only");
            }
            let unpack = command(["cp", "-", &format!("{}:/etc", box_.name)]);
            finish(unpack, &[0; 1024]).fails_saying("container rootfs is marked read-only");
            let _ = hullbox(["cp", &format!("{}:/bin/busybox", box_.name), &here.path("out")]).exits(0);
        }
    }
}

both_modes! {
    fn what_is_copied_into_a_stopped_container_is_kept(mode) {
        let box_ = Kept::new("into-stopped", mode);
        let here = Here::new(&box_.name);
        let new = here.write("new", "new");
        let made = box_.make(&["create", "--tmpfs", "/tmp"], &["busybox", "true"]);
        let _ = made.exits(0);
        let _ = hullbox(["cp", &new, &format!("{}:/tmp/new", box_.name)]).exits(0);
        let _ = hullbox(["cp", &format!("{}:/tmp/new", box_.name), &here.path("back")]).exits(0);
        assert_eq!(here.read("back"), "new");
    }
}

both_modes! {
    fn what_is_copied_below_dev_lies_in_the_root_of_a_stopped_container(mode) {
        let box_ = Kept::new("below-dev", mode);
        let here = Here::new(&box_.name);
        let new = here.write("new", "new");
        let at = |path: &str| format!("{}:{path}", box_.name);
        let _ = box_.make(&["create"], &["busybox", "sleep", "1000"]).exits(0);
        let _ = hullbox(["cp", &new, &at("/dev/new")]).exits(0);
        let _ = hullbox(["cp", &at("/dev/new"), &here.path("back")]).exits(0);
        assert_eq!(here.read("back"), "new");
        let changes = hullbox(["diff", &box_.name]).exits(0).text();
        assert!(changes.lines().any(|line| line == "A /dev/new"), "{changes}");

        // As in Docker and podman the mounts of a running container cover it, and what is copied
        // there goes with them.
        let _ = hullbox(["start", &box_.name]).exits(0);
        let _ = box_.exec(&["test", "!", "-e", "/dev/new"]).exits(0);
        let _ = hullbox(["cp", &new, &at("/dev/mounted")]).exits(0);
        let _ = box_.exec(&["cat", "/dev/mounted"]).exits(0);
        let _ = hullbox(["stop", "-t", "0", &box_.name]).exits(0);
        let _ = hullbox(["cp", &at("/dev/new"), &here.path("back")]).exits(0);
        hullbox(["cp", &at("/dev/mounted"), &here.path("back")]).fails_saying("the source does not exist");
    }
}

both_modes! {
    fn archives_are_written_to_files_however_they_are_named(mode) {
        let box_ = Kept::new("named-files", mode);
        let here = Here::new(&box_.name);
        let _ = box_.make(&["create"], &["busybox", "true"]).exits(0);
        let (export, save) = (here.path("export"), here.path("save"));
        let head = |text: &str, value: &str| format!("{text}{value}");
        for flags in [
            vec!["-o".to_owned(), export.clone()],
            vec![head("-o", &export)],
            vec![head("-o=", &export)],
            vec!["--output".to_owned(), export.clone()],
            vec![head("--output=", &export)],
        ] {
            let mut args = vec!["container".to_owned(), "export".to_owned(), box_.name.clone()];
            args.extend(flags.clone());
            let done = hullbox(&args).exits(0);
            assert!(done.stdout.is_empty(), "{flags:?}");
            assert!(std::fs::metadata(&export).expect("an archive").len() > 1 << 20, "{flags:?}");
            std::fs::remove_file(&export).expect("it is removed");
        }
        let _ = hullbox(["save", "busybox", "-o", &save]).exits(0);
        assert!(std::fs::metadata(&save).expect("an archive").len() > 1 << 20);
        // A flag's value that looks like the flag, and words that are the container's.
        let id = here.path("id");
        let words = ["echo", "--cidfile", &id, "-o", &save];
        let mut run = command(["run", "--rm", mode.flag(), "-m", "160m", "--cidfile", &id]);
        run.args(["-e", "A=--cidfile", "busybox"]).args(words);
        assert_eq!(finish(run, b"").exits(0).text(), words[1..].join(" "));
        assert_eq!(here.read("id").len(), 64);
    }
}

#[test]
#[ignore = "needs the built program: make test"]
fn an_absent_image_is_no_failure_by_force() {
    let done = hullbox(["rmi", "-f", "no-such-image:1"]).exits(0);
    assert!(done.stderr.contains("no such image"), "{}", done.stderr);
    assert!(done.stdout.is_empty());
    hullbox(["rmi", "no-such-image:1"]).fails_saying("no such image");
}

both_modes! {
    fn a_copy_to_a_directory_that_is_not_there_is_refused_with_a_reason(mode) {
        let box_ = Kept::new("nowhere", mode);
        let _ = box_.make(&["create"], &["busybox", "true"]).exits(0);
        let here = tempfile::tempdir().unwrap();
        let to = here.path().join("none/passwd");
        let from = format!("{}:/etc/passwd", box_.name);
        hullbox(["cp".as_ref(), from.as_ref(), to.as_os_str()]).fails_saying("invalid output path");
        assert!(std::fs::read_dir(here.path()).unwrap().next().is_none());
    }
}
