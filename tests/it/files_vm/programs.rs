//! What programs in a guest do with files from outside.

use super::{DEBIAN, Host, Named, debian, keep, with};
use crate::files_outside::is_in_machine;
use crate::life::Kept;
use hullbox_tests::{Mode, both_modes, run};
use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};

/// Each line is a case that says its name if it holds.
const CASES: &str = r#"
set -e
cd /w
# Past the page cache.
dd if=/dev/zero of=direct bs=4096 count=64 oflag=direct 2>/dev/null
[ "$(dd if=direct bs=4096 iflag=direct 2>/dev/null | wc -c)" = 262144 ] && echo direct
# A file without a name that gets one.
perl -e '
    sysopen(my $f, "/w", 0x410000 | 2, 0640) or die "O_TMPFILE: $!";
    syswrite($f, "late") == 4 or die;
    my $from = "/proc/self/fd/" . fileno($f); my $to = "/w/named";
    syscall(265, -100, $from, -100, $to, 0x400) == 0 or die "linkat: $!";
' && [ "$(cat named)" = late ] && echo tmpfile
# Extended attributes.
perl -e '
    my ($p, $n, $v) = ("/w/named", "user.hue", "blue");
    syscall(188, $p, $n, $v, 4, 0) == 0 or die "setxattr: $!";
    my $b = "\0" x 16;
    syscall(191, $p, $n, $b, 16) == 4 && substr($b, 0, 4) eq "blue" or die "getxattr: $!";
' && echo xattr
# More than 4 GiB, most of it holes.
truncate -s 6G sparse; printf end | dd of=sparse bs=1 seek=5G conv=notrunc 2>/dev/null
[ "$(dd if=sparse bs=1 skip=5G count=3 2>/dev/null)" = end ] && [ "$(stat -c %b sparse)" -lt 100 ] && echo sparse
# Pipes and sockets of the guest's own.
mkfifo pipe; (echo through >pipe &); [ "$(cat pipe)" = through ] && echo fifo
perl -MSocket -e '
    socket(my $s, PF_UNIX, SOCK_STREAM, 0) or die; bind($s, sockaddr_un("/w/sock")) or die "bind: $!"; listen($s, 1);
    socket(my $c, PF_UNIX, SOCK_STREAM, 0) or die; connect($c, sockaddr_un("/w/sock")) or die "connect: $!";
' && echo socket
# What is open stays open, whatever its name.
echo old >open; exec 3<open; echo new >other; mv other open; [ "$(cat <&3)$(cat open)" = oldnew ] && echo renamed
exec 4<open; rm open; [ "$(cat <&4)" = new ] && echo removed
# Modes and links.
echo x >script; chmod 0751 script; ln script twin; ln -s script link
[ "$(stat -c %a.%h twin) $(readlink link)" = "751.2 script" ] && echo modes
# Directories with many names, and room.
mkdir many; for i in $(seq 60); do echo >many/$i; done; [ "$(ls many | wc -l)" = 60 ] && rm -r many && echo many
[ "$(stat -f -c %b .)" -gt 0 ] && touch -d @1000000000.25 script && [ "$(stat -c %.2Y script)" = 1000000000.25 ] && echo times
sync; sync -f .; echo synced
"#;

const HOLD: &str =
    "direct\ntmpfile\nxattr\nsparse\nfifo\nsocket\nrenamed\nremoved\nmodes\nmany\ntimes\nsynced";

#[test]
#[ignore = "needs the built program: make test"]
fn programs_find_files_of_the_host_as_files() {
    debian();
    let host = Host::new("cases");
    let done = with(&host.at("/w"), DEBIAN, &["bash", "-c", CASES]).exits(0);
    assert_eq!(done.text(), HOLD);
    // What is there is there on the host, too.
    let sparse = File::open(host.0.join("sparse")).unwrap();
    let mut end = [0; 3];
    sparse.read_exact_at(&mut end, 5 << 30).unwrap();
    let metadata = sparse.metadata().unwrap();
    assert_eq!((&end, metadata.len()), (b"end", 6 << 30));
    assert!(metadata.blocks() < 100);
    assert_eq!(
        std::fs::metadata(host.0.join("twin")).unwrap().mode() & 0o7777,
        0o751
    );
}

#[test]
#[ignore = "needs the built program: make test"]
fn programs_find_volumes_as_files() {
    debian();
    for volume in [Named::free("fv-plain"), Named::block("fv-block", "1g")] {
        let done = with(&volume.at("/w"), DEBIAN, &["bash", "-c", CASES]).exits(0);
        assert_eq!(done.text(), HOLD, "{}", volume.0);
        // For the next container, too.
        let done = with(&volume.at("/w"), DEBIAN, &["cat", "/w/named"]).exits(0);
        assert_eq!(done.text(), "late", "{}", volume.0);
    }
}

#[test]
#[ignore = "needs the built program: make test"]
fn what_is_mapped_reaches_the_host_by_the_end() {
    debian();
    let host = Host::new("mapped");
    std::fs::write(host.0.join("file"), vec![b'.'; 8192]).unwrap();
    // Written by a mapping that nobody syncs: mmap, a store by read(2) into it, and the end.
    let script = r#"
        open(my $f, "+<", "/w/file") or die;
        my $at = syscall(9, 0, 8192, 3, 1, fileno($f), 0);
        $at > 0 or die "mmap: $!";
        pipe(my $r, my $w); syswrite($w, "stored");
        syscall(0, fileno($r), $at + 4096, 6) == 6 or die "read: $!";
        print "done";
    "#;
    let done = with(&host.at("/w"), DEBIAN, &["perl", "-e", script]).exits(0);
    assert_eq!(done.text(), "done");
    let all = std::fs::read(host.0.join("file")).unwrap();
    assert_eq!(&all[4096..4102], b"stored");
    assert!(all[..4096].iter().all(|byte| *byte == b'.'));
}

/// Takes a lock of `/w/lock` by `flock` and by `fcntl`, says so, and holds them until its input ends.
const HOLDER: &str = r#"
    use Fcntl qw(:flock); $| = 1;
    open(my $a, ">>", "/w/flock") or die; flock($a, LOCK_EX) or die "flock: $!";
    open(my $b, ">>", "/w/fcntl") or die; my $l = pack("s s x4 q q i x4", 1, 0, 0, 0, 0);
    fcntl($b, 6, $l) or die "fcntl: $!";
    open(my $held, ">", "/w/held"); close $held;
    sleep 1 until -e "/w/free";
"#;
/// Tries both; says which it got.
const TRIER: &str = r#"
    use Fcntl qw(:flock);
    open(my $a, ">>", "/w/flock") or die; print flock($a, LOCK_EX | LOCK_NB) ? "flock " : "no ";
    open(my $b, ">>", "/w/fcntl") or die; my $l = pack("s s x4 q q i x4", 1, 0, 0, 0, 0);
    print fcntl($b, 6, $l) ? "fcntl" : "no";
"#;

#[test]
#[ignore = "needs the built program: make test"]
fn locks_hold_among_guests_and_with_the_host() {
    debian();
    let host = Host::new("locks");
    let holder = keep("locker", &host.at("/w"), DEBIAN, &["perl", "-e", HOLDER]);
    let other = keep("trier", &host.at("/w"), DEBIAN, &["sleep", "1000"]);
    while !host.0.join("held").exists() {
        assert_eq!(holder.inspect("{{.State.Status}}"), "running");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    let tried = || other.exec(&["perl", "-e", TRIER]).exits(0).text();
    assert_eq!(tried(), "no no");
    let file = File::options()
        .write(true)
        .open(host.0.join("flock"))
        .unwrap();
    assert!(file.try_lock().is_err(), "the host's");
    // Who waits can be ended, and killed.
    let wait = "use Fcntl qw(:flock); open(my $a, '>>', '/w/flock'); flock($a, LOCK_EX)";
    for signal in ["TERM", "KILL"] {
        let done = other.exec(&["timeout", "-s", signal, "2", "perl", "-e", wait]);
        assert_eq!(
            done.code,
            if signal == "TERM" { 124 } else { 137 },
            "{done:?}"
        );
    }
    std::fs::write(host.0.join("free"), "").unwrap();
    holder.until("{{.State.Status}}", "exited");
    file.try_lock().unwrap();
    drop(file);
    assert_eq!(tried(), "flock fcntl");
}

#[test]
#[ignore = "needs the built program: make test"]
fn read_only_is_so_for_a_guests_root() {
    let host = Host::new("ro");
    std::fs::write(host.0.join("file"), "kept").unwrap();
    let script = "mount -o remount,rw /w; mount -o remount,bind,rw /w; \
        echo over >/w/file; rm /w/file; echo new >/w/new; chmod 777 /w/file; touch /w/file; \
        mkdir /m && mount -t virtiofs files /m && ls /m && echo over >/m/0/file; cat /w/file";
    let mount = format!("{}:ro", host.at("/w"));
    let words = [
        "-m",
        "128m",
        "--privileged",
        "-v",
        &mount,
        "busybox",
        "sh",
        "-c",
        script,
    ];
    let done = run(Mode::Vm, words).exits(0);
    // The whole tree shows exports, and nothing that could be written to.
    assert_eq!(done.text(), "0\nkept");
    let left: Vec<_> = std::fs::read_dir(&host.0).unwrap().collect();
    assert_eq!(left.len(), 1);
    assert_eq!(
        std::fs::read_to_string(host.0.join("file")).unwrap(),
        "kept"
    );
}

/// What a guest's root can do to the device without a kernel of its own: nothing but lose it.
#[test]
#[ignore = "needs the built program: make test"]
fn a_guests_root_does_not_get_at_the_device_itself() {
    let host = Host::new("raw");
    std::fs::write(host.0.join("file"), "kept").unwrap();
    // Nor is there a window into the host's page cache. (The mount may well be made: it is the one that is there.)
    let script = "mkdir /d; mount -t virtiofs -o dax=always files /d 2>/dev/null; grep dax /proc/mounts; umount /d 2>/dev/null; \
        for way in /dev/mem /dev/kmem /dev/port /proc/kcore /proc/modules /sys/kernel/kexec_loaded; do \
            [ ! -e $way ] || echo $way; done; \
        cd /sys/bus/virtio/drivers/virtiofs && d=$(ls -d virtio*) && echo $d >unbind && ls -d virtio* 2>&1 | grep -c 'No such'; \
        (echo over >/w/file) 2>/dev/null || echo refused; cat /w/file 2>/dev/null || echo gone; \
        echo $d >bind; mkdir /m; timeout 20 mount -t virtiofs files /m 2>/dev/null && ls /m/0; \
        echo lives";
    let words = [
        "-m",
        "128m",
        "--privileged",
        "-v",
        &host.at("/w"),
        "busybox",
        "sh",
        "-c",
        script,
    ];
    let done = run(Mode::Vm, words).exits(0);
    assert_eq!(done.text(), "1\nrefused\ngone\nlives", "{done:?}");
    assert_eq!(
        std::fs::read_to_string(host.0.join("file")).unwrap(),
        "kept"
    );
}

/// Says that it is ready, and then when it hears of a change, or sees one.
const WATCHER: &str = r#"
    $| = 1; alarm 60;
    my $heard = syscall(294, 0); my $path = "/w/watched";
    syscall(254, $heard, $path, 0x8) >= 0 or die "watch: $!";
    open(my $ready, ">", "/w/ready"); close $ready;
    if ($ARGV[0] eq "hear") {
        open(my $events, "<&=", $heard) or die; my $event;
        sysread($events, $event, 4096) >= 16 or die "read: $!";
    }
    for (;;) { open(my $f, "<", $path); last if <$f> eq "new"; select(undef, undef, undef, 0.05); }
    print "$ARGV[0]";
"#;

both_modes! {
    /// As the README says: whoever has the host's kernel hears of its changes, and a guest sees them.
    fn changes_of_the_host_are_heard_or_seen(mode) {
        debian();
        let host = Host::new(if mode == Mode::Vm { "seen" } else { "heard" });
        let watched = host.0.join("watched");
        std::fs::write(&watched, "old").unwrap();
        let how = if mode == Mode::Vm || is_in_machine() { "see" } else { "hear" };
        let kept = Kept::new("watcher", mode);
        let mount = host.at("/w");
        kept.run(&["-m", "256m", "-v", &mount, DEBIAN, "perl", "-e", WATCHER, how]);
        while !host.0.join("ready").exists() {
            assert_eq!(kept.inspect("{{.State.Status}}"), "running");
        }
        std::fs::write(&watched, "new").unwrap();
        kept.until("{{.State.Status}}", "exited");
        let log = hullbox_tests::hullbox(["logs", &kept.name]).exits(0);
        assert_eq!((log.text().as_str(), kept.inspect("{{.State.ExitCode}}").as_str()), (how, "0"), "{log:?}");
    }
}
