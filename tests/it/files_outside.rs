//! Files of the host for containers in the helper machine: who serves them there, and to whom.

use crate::life::Kept;
use hullbox_tests::{Done, Mode, both_modes, on_the_machine, run};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Whether there is a helper machine.
pub(crate) fn is_in_machine() -> bool {
    on_the_machine("grep -q HULLBOX_ROLE=machine /proc/cmdline").code == 0
}

/// Asks the host from inside the machine for one export, as whoever took the machine over could.
fn ask(path: &Path, change: &Value) -> Done {
    let mut export = json!({
        "source": path, "subpath": "", "outside": false, "read_only": false, "recursive": true,
        "volume": false, "exclusive": false, "user": 0, "group": 0,
    });
    for (name, value) in change.as_object().expect("fields") {
        export[name] = value.clone();
    }
    let hello = json!({ "exports": [export] });
    on_the_machine(&format!(
        "python3 - <<'END'
import socket
s = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
s.connect((2, 1028))
s.sendall(rb'''{hello}''' + b'\\n')
print(s.recv(4096).decode().strip())
END"
    ))
}

#[test]
#[ignore = "needs the built program: make test"]
fn the_machine_has_what_was_named_and_no_more() {
    if !is_in_machine() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let fixed = dir.path().join("fixed");
    fs::create_dir(&fixed).unwrap();
    fs::create_dir(fixed.join("sub")).unwrap();
    fs::write(fixed.join("file"), "as it was\n").unwrap();
    let nothing = json!({});
    let read_only = json!({ "read_only": true });
    let answer = ask(&fixed, &read_only).exits(0).text();
    assert!(answer.contains("was not named"), "{answer}");
    let bind = format!("{}:/x:ro", fixed.display());
    let done = run(Mode::Container, ["-v", &bind, "busybox", "cat", "/x/file"]);
    assert_eq!(done.exits(0).text(), "as it was");
    assert_eq!(ask(&fixed, &read_only).exits(0).text(), "\"Ready\"");
    for (path, change) in [
        (fixed.clone(), &nothing),
        (fixed.join("sub"), &read_only),
        (dir.path().to_owned(), &read_only),
        (fixed.join("sub/../.."), &read_only),
        (PathBuf::from("/"), &read_only),
        (PathBuf::from("/etc"), &read_only),
        (
            fixed.clone(),
            &json!({ "read_only": true, "subpath": "../.." }),
        ),
        (
            fixed.clone(),
            &json!({ "read_only": true, "exclusive": true }),
        ),
        (
            fixed.clone(),
            &json!({ "read_only": true, "outside": true }),
        ),
    ] {
        let answer = ask(&path, change).exits(0).text();
        assert!(answer.contains("Failed"), "{}: {answer}", path.display());
    }
}

/// The processes that serve files on the host, to whichever machine or guest.
pub(crate) fn servers() -> Vec<u32> {
    let number = |entry: fs::DirEntry| entry.file_name().to_str()?.parse().ok();
    let is_server = |pid: &u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.starts_with(b"hullbox\0__files\0")
    };
    let all = fs::read_dir("/proc").unwrap().flatten();
    all.filter_map(number).filter(is_server).collect()
}

pub(crate) fn sees(pid: u32, marker: &Path) -> bool {
    let name = marker.file_name().expect("a name");
    Path::new(&format!("/proc/{pid}/root/0"))
        .join(name)
        .exists()
}

both_modes! {
    fn the_hosts_server_is_confined_and_ends_with_its_container(mode) {
        if !is_in_machine() || !rustix::process::geteuid().is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let wall = if mode == Mode::Vm { "vm" } else { "ns" };
        let marker = dir.path().join(format!("marker-{wall}"));
        fs::write(&marker, "").unwrap();
        let box_ = Kept::new("files-server", mode);
        let bind = format!("{}:/x", dir.path().display());
        box_.run(&["-v", &bind, "busybox", "sleep", "1000"]);
        let _ = box_.exec(&["touch", "/x/there"]).exits(0);
        assert!(dir.path().join("there").exists());
        let mine: Vec<u32> = servers().into_iter().filter(|pid| sees(*pid, &marker)).collect();
        let [pid] = mine[..] else {
            panic!("{mine:?}");
        };
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        for line in ["NoNewPrivs:\t1", "Seccomp:\t2", "CapEff:\t00000000800000db", "CapBnd:\t00000000800000db"] {
            assert!(status.contains(line), "{line}: {status}");
        }
        let seen: Vec<_> = fs::read_dir(format!("/proc/{pid}/root/")).unwrap().collect();
        assert_eq!(seen.len(), 1);
        for space in ["net", "mnt", "ipc"] {
            let of = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/{space}")).unwrap();
            assert_ne!(of(&pid.to_string()), of("self"));
        }
        drop(box_);
        let deadline = Instant::now() + Duration::from_secs(60);
        while Path::new(&format!("/proc/{pid}")).exists() {
            assert!(Instant::now() < deadline, "it does not end");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

both_modes! {
    fn a_server_that_is_killed_is_an_error_and_no_more(mode) {
        if !is_in_machine() || !rustix::process::geteuid().is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let marker = dir.path().join(format!("victim-{}", mode.flag().len()));
        fs::write(&marker, "").unwrap();
        let box_ = Kept::new("files-killed", mode);
        let bind = format!("{}:/x", dir.path().display());
        box_.run(&["-v", &bind, "busybox", "sleep", "1000"]);
        let _ = box_.exec(&["ls", "/x"]).exits(0);
        for pid in servers().into_iter().filter(|pid| sees(*pid, &marker)) {
            let pid = rustix::process::Pid::from_raw(pid.cast_signed()).unwrap();
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        }
        let deadline = Instant::now() + Duration::from_secs(60);
        while box_.exec(&["ls", "/x"]).code == 0 {
            assert!(Instant::now() < deadline, "it is still served");
        }
        assert_eq!(box_.exec(&["echo", "well"]).exits(0).text(), "well");
    }
}
