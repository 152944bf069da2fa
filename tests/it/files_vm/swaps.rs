//! A host that moves, links and swaps while a guest walks. `HULLBOX_TEST_SWAP_S` is for how long; ten minutes
//! are enough to believe it.

use super::{DEBIAN, Host, debian, seconds};
use crate::files_outside::{sees, servers};
use crate::life::Kept;
use hullbox_tests::{Mode, both_modes, command};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Walks through everything below `/w`, through links as well, until there is a file `stop`. What it reads
/// is what is inside, or it says so.
const WALKER: &str = r#"
    $| = 1;
    my ($walks, $read) = (0, 0);
    sub look {
        open(my $f, "<", $_[0]) or return;
        my $text = do { local $/; <$f> } // "";
        $read++ if $text eq "inside";
        print "ESCAPED by $_[0]: $text\n" if $text ne "inside" && $text ne "";
    }
    sub walk {
        my $d = shift;
        opendir(my $h, $d) or return;
        for my $name (grep { !/^\.\.?$/ && $_ ne "stop" } readdir $h) {
            my $p = "$d/$name";
            if (-l $p) { readlink $p; look("$p/b/file"); look("$p/secret"); look("$p/../secret"); }
            elsif (-d _) { walk($p); look("$p/../secret"); look("$p/../../secret"); }
            else { look($p); }
        }
    }
    walk("/w"); print "begun\n";
    until (-e "/w/stop") { walk("/w"); look("/w/a/b/file"); $walks++; }
    print "$walks walks, $read files read\n";
"#;

/// Swaps until it is told to stop: how often.
fn swap(dir: &Path, stop: &AtomicBool) -> u64 {
    let (export, aside) = (dir.join("export"), dir.join("aside"));
    let at = |name: &str| export.join(name);
    let mut turns = 0;
    while !stop.load(Ordering::Relaxed) {
        for link in ["l", "m"] {
            let swap = || renameat_with(CWD, at("a"), CWD, at(link), RenameFlags::EXCHANGE);
            let _ = swap().and_then(|()| swap());
        }
        // Out of the export and back, with whoever is in it.
        let _ = fs::rename(at("a"), &aside).and_then(|()| fs::rename(&aside, at("a")));
        let _ =
            fs::hard_link(at("a/b/file"), at("hard")).and_then(|()| fs::remove_file(at("hard")));
        let _ = fs::create_dir(at("new")).and_then(|()| fs::remove_dir(at("new")));
        turns += 1;
    }
    turns
}

fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

both_modes! {
    fn swaps_on_the_host_lead_nowhere(mode) {
        debian();
        let host = Host::new(if mode == Mode::Vm { "swaps-vm" } else { "swaps-ns" });
        let export = host.0.join("export");
        for dir in [export.join("a/b"), host.0.join("outside/b")] {
            fs::create_dir_all(dir).unwrap();
        }
        fs::write(export.join("a/b/file"), "inside").unwrap();
        for secret in ["secret", "outside/secret", "outside/b/file"] {
            fs::write(host.0.join(secret), "SECRET").unwrap();
        }
        // A name by which its server is told from others on this host.
        let marker = export.join(host.0.file_name().unwrap());
        fs::write(&marker, "inside").unwrap();
        symlink("../outside", export.join("l")).unwrap();
        symlink(host.0.join("outside"), export.join("m")).unwrap();
        let walker = Kept::new("walker", mode);
        let mount = format!("{}:/w", export.display());
        walker.run(&["-m", "256m", "-v", &mount, DEBIAN, "sleep", "100000"]);
        let _ = walker.exec(&["ls", "-lR", "/w"]).exits(0);
        // In container mode on this host itself there is none.
        let server = servers().into_iter().find(|pid| sees(*pid, &marker));
        let before = server.map(descriptors);

        let limit = seconds("HULLBOX_TEST_SWAP_S", 3);
        let mut walk = command(["exec", &walker.name, "perl", "-e", WALKER]);
        let mut child = walk.stdout(Stdio::piped()).spawn().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut said = String::new();
        output.read_line(&mut said).unwrap();
        assert_eq!(said, "begun\n");
        let (stop, begin) = (AtomicBool::new(false), Instant::now());
        let turns = std::thread::scope(|scope| {
            let swapper = scope.spawn(|| swap(&host.0, &stop));
            std::thread::sleep(limit);
            fs::write(export.join("stop"), "").unwrap();
            output.read_to_string(&mut said).unwrap();
            stop.store(true, Ordering::Relaxed);
            swapper.join().unwrap()
        });
        assert!(begin.elapsed() < limit + Duration::from_secs(120), "it hung");
        assert!(child.wait().unwrap().success(), "{said}");
        assert!(!said.contains("ESCAPED"), "{said}");
        let walks = said.lines().last().unwrap_or_default();
        let read: u64 = walks.split(' ').nth(2).and_then(|word| word.parse().ok()).unwrap();
        assert!(read > 0, "{said}");
        for secret in ["secret", "outside/secret", "outside/b/file"] {
            assert_eq!(fs::read_to_string(host.0.join(secret)).unwrap(), "SECRET");
        }
        if let (Some(server), Some(before)) = (server, before) {
            // What it knows are a dozen files, however often they were moved.
            let _ = walker.exec(&["ls", "-lR", "/w"]).exits(0);
            let after = descriptors(server);
            assert!(after <= before + 8, "{before} descriptors before, {after} after");
            eprintln!("{walks}; {turns} turns of the host; {before} descriptors before, {after} after");
        }
    }
}
