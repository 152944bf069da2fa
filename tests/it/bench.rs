//! `hullbox bench`: every probe answers behind both walls, and nothing is left behind.

use hullbox_tests::{command, fixture, hullbox, on_the_machine};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::fs;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

/// What a benchmark could leave: directories, mounts, monitors, containers, images. The pattern does not
/// fit itself: the script and its own grep are processes too.
fn traces() -> String {
    let script = "ls \"$HULLBOX_ROOT\" \"$HULLBOX_RUNTIME\" | grep ^bench-; \
        grep -F /bench- /proc/mounts; \
        for p in /proc/[0-9]*; do tr '\\0' ' ' <$p/cmdline 2>/dev/null; echo; done \
            | grep -E '_[_]monitor|/prob[e] ' | sort; \
        ls -d /sys/fs/cgroup/*bench* /sys/fs/cgroup/*/*bench* 2>/dev/null; true";
    let there = on_the_machine(script).exits(0).text();
    let containers = hullbox(["ps", "-aq"]).exits(0).text();
    let images = hullbox(["images", "-q", "--no-trunc"]).exits(0).text();
    format!("{there}\n{containers}\n{images}")
}

#[test]
#[ignore = "needs the built program: make test"]
fn every_probe_answers_behind_both_walls_and_nothing_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let (json, html) = (dir.path().join("b.json"), dir.path().join("b.html"));
    let before = traces();
    let mut args = vec!["bench", "--quick", "--rounds", "1", "--peer", "none"];
    args.extend(["--json", json.to_str().unwrap()]);
    args.extend(["--html", html.to_str().unwrap()]);
    let done = hullbox(&args).exits(0);
    assert_eq!(traces(), before);

    let record: Value = serde_json::from_slice(&fs::read(&json).unwrap()).unwrap();
    let contenders: Vec<_> = record["contenders"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["id"].as_str().unwrap())
        .collect();
    assert_eq!(contenders, ["vm", "vm-clone", "vm-cold", "container"]);
    let rows = record["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 32, "every row is there");
    for row in rows {
        let id = row["id"].as_str().unwrap();
        let cells = row["cells"].as_array().unwrap();
        // A namespace container has no guest.
        let expected = if id == "memory.guest" { 3 } else { 4 };
        assert_eq!(cells.len(), expected, "{id}");
        for cell in cells {
            let median = cell["summary"]["median"].as_f64().unwrap();
            // A small crowd's memory may be lost in what the machine does besides.
            assert!(median > 0.0 || id == "density.memory", "{id}: {cell}");
            assert!(!cell["samples"].as_array().unwrap().is_empty(), "{id}");
        }
        assert!(done.text().contains(row["title"].as_str().unwrap()), "{id}");
    }
    for digest in ["image", "probe", "kernel", "initramfs", "hullbox"] {
        let digest = record["digests"][digest].as_str().unwrap();
        assert!(digest.starts_with("sha256:"), "{digest}");
    }
    let page = fs::read_to_string(&html).unwrap();
    assert!(page.starts_with("<!doctype html>") && page.contains("</html>"));
    assert_eq!(page.matches("<svg").count(), rows.len());
}

#[test]
#[ignore = "needs the built program: make test"]
fn an_interrupted_benchmark_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let json = dir.path().join("b.json");
    let before = traces();
    let mut child = command(["bench", "--rounds", "1000", "--peer", "none", "--json"])
        .arg(&json)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // Long enough to be in the middle of it.
    thread::sleep(Duration::from_secs(12));
    assert!(child.try_wait().unwrap().is_none(), "it still runs");
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    let status = child.wait().unwrap();
    assert_eq!(status.code(), Some(143), "{status}");
    assert_eq!(traces(), before);
    assert_eq!(
        fs::read_dir(dir.path()).unwrap().count(),
        0,
        "half a report"
    );
}

#[test]
#[ignore = "needs the built program: make test"]
fn what_cannot_be_measured_is_refused_in_one_line() {
    hullbox(["bench", "--rounds", "0"]).refuses_flags_saying("--rounds");
    hullbox(["bench", "--probe", "nosuch"]).refuses_flags_saying("nosuch");
    hullbox(["bench", "--peer", "docker"]).refuses_flags_saying("docker");
    hullbox(["bench", "--isolation", "jail"]).refuses_flags_saying("jail");
    hullbox(["bench", "--html", "-"]).fails_saying("html");
    // A directory that is a file, before anything is measured.
    let file = fixture("busybox.tar").join("report.json");
    hullbox(["bench", "--json", file.to_str().unwrap()]).fails_saying("cannot create");
}
