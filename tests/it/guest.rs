//! What is only true of a guest, or of a kernel that counts memory: its clock, its system calls, its
//! out-of-memory killer.

use crate::events::happened;
use crate::life::Kept;
use hullbox_tests::{Mode, both_modes, command, hullbox, on_the_machine, run};
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Waits until the out-of-memory killer was at work in a container.
fn until_oom(id: &str) {
    let until = SystemTime::now() + Duration::from_secs(170);
    let until = until.duration_since(UNIX_EPOCH).unwrap().as_secs();
    let until = until.to_string();
    let mut events = command(["events", "--since", "20m", "--until", &until]);
    events.args(["--filter", "event=oom"]);
    events.args(["--filter", &format!("container={id}")]);
    let mut events = events.stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    let mut output = BufReader::new(events.stdout.take().unwrap());
    output.read_line(&mut line).unwrap();
    assert!(line.contains("oom"), "{line}");
    events.kill().unwrap();
    let _ = events.wait().unwrap();
}

const STATE: &str = "{{.State.OOMKilled}} {{.State.Status}} {{.State.ExitCode}}";
/// Takes memory until there is none.
const DEVOUR: &str = "tail /dev/zero";

both_modes! {
    needs controllers;
    fn a_child_that_is_killed_for_memory_is_told_while_its_container_runs(mode) {
        let box_ = Kept::new("oom-runs", mode);
        let script = format!("{DEVOUR}; echo $?; read x; exit 3");
        let id = box_.run(&["-i", "busybox", "sh", "-c", &script]);
        until_oom(&id);
        assert_eq!(box_.inspect(STATE), "true running 0");
        assert_eq!(happened(&id), ["create", "start", "oom"]);
        // Another run knows nothing of it.
        let _ = hullbox(["kill", &box_.name]).exits(0);
        assert_eq!(box_.inspect(STATE), "true exited 137");
        assert_eq!(happened(&id), ["create", "start", "oom", "kill", "die"]);
    }
}

both_modes! {
    needs controllers;
    fn an_end_after_a_child_was_killed_for_memory_says_so(mode) {
        let box_ = Kept::new("oom-ends", mode);
        let script = format!("[ -e /second ] && exit 5; : >/second; {DEVOUR}; exit 4");
        let id = box_.run(&["busybox", "sh", "-c", &script]);
        assert_eq!(hullbox(["wait", &box_.name]).exits(0).text(), "4");
        assert_eq!(box_.inspect(STATE), "true exited 4");
        assert_eq!(happened(&id), ["create", "start", "oom", "die"]);
        // Of the next run it is not true.
        let _ = hullbox(["start", "-a", &box_.name]).exits(5);
        assert_eq!(box_.inspect(STATE), "false exited 5");
    }
}

both_modes! {
    needs controllers;
    fn a_workload_that_is_killed_for_memory_dies_of_it(mode) {
        let box_ = Kept::new("oom-dies", mode);
        let id = box_.run(&["busybox", "tail", "/dev/zero"]);
        assert_eq!(hullbox(["wait", &box_.name]).exits(0).text(), "137");
        assert_eq!(box_.inspect(STATE), "true exited 137");
        assert_eq!(happened(&id), ["create", "start", "oom", "die"]);
        // SIGKILL alone is not that.
        let other = Kept::new("oom-not", mode);
        let id = other.run(&["busybox", "sleep", "1000"]);
        let _ = hullbox(["kill", &other.name]).exits(0);
        assert_eq!(other.inspect(STATE), "false exited 137");
        assert_eq!(happened(&id), ["create", "start", "kill", "die"]);
    }
}

both_modes! {
    needs controllers;
    fn an_exec_that_is_killed_for_memory_is_its_containers(mode) {
        let box_ = Kept::new("oom-exec", mode);
        let id = box_.run(&["busybox", "sleep", "1000"]);
        // The shell is its parent, and ends well.
        let script = format!("{DEVOUR}; echo $?");
        assert_eq!(box_.exec(&["sh", "-c", &script]).exits(0).text(), "137");
        until_oom(&id);
        assert_eq!(box_.inspect(STATE), "true running 0");
    }
}

/// Calls what a distribution's kernel knows and prints the names of what this one does not.
const UNKNOWN: &str = r#"
import ctypes, errno, os, socket
libc = ctypes.CDLL(None, use_errno=True)
unknown = []
def call(name, number, *args):
    ctypes.set_errno(0)
    arguments = [ctypes.c_long(a) if isinstance(a, int) else a for a in args]
    result = libc.syscall(ctypes.c_long(number), *arguments)
    if result < 0 and ctypes.get_errno() in (errno.ENOSYS, errno.EOPNOTSUPP):
        unknown.append(f'{name}: {errno.errorcode[ctypes.get_errno()]}')
    return result
word, page = ctypes.byref(ctypes.c_int(0)), ctypes.create_string_buffer(8192)
at = (ctypes.addressof(page) + 4095) & ~4095
assert call('landlock_create_ruleset', 444, None, 0, 1) >= 1
call('userfaultfd', 323, os.O_CLOEXEC | 1)
assert ctypes.get_errno() in (0, errno.EPERM), 'UFFD_USER_MODE_ONLY'
call('memfd_create MFD_HUGETLB', 319, b'huge', 4)
call('get_mempolicy', 239, word, None, 0, None, 0)
call('set_mempolicy', 238, 0, None, 0)
call('mbind', 237, at, 4096, 0, None, 0, 0)
call('move_pages', 279, 0, 0, None, None, None, 0)
call('migrate_pages', 256, 0, 0, None, None)
call('quotactl', 179, 0x800001 << 8, None, 0, None)
call('acct', 163, None)
call('keyctl GET_PERSISTENT', 250, 22, -1, -2)
call('fanotify_init', 300, 4, 0)
call('io_uring_setup', 425, 0, None)
call('kcmp', 312, os.getpid(), os.getpid(), 0, 0, 0)
call('process_vm_readv', 310, os.getpid(), None, 0, None, 0, 0)
call('membarrier', 324, 0, 0, 0)
call('perf_event_open', 298, None, 0, -1, -1, 0)
call('bpf', 321, 0, None, 0)
call('mq_open', 240, b'/x', 0o102, 0o600, None)
def made(name, *args):
    try:
        socket.socket(*args).close()
    except PermissionError:
        pass
    except OSError as error:
        unknown.append(f'{name}: {errno.errorcode[error.errno]}')
made('AF_XDP', 44, socket.SOCK_RAW)
made('MPTCP', socket.AF_INET, socket.SOCK_STREAM, 262)
for kind, name in [('hash', 'sha256'), ('skcipher', 'cbc(aes)'), ('rng', 'stdrng'), ('aead', 'gcm(aes)')]:
    try:
        with socket.socket(socket.AF_ALG, socket.SOCK_SEQPACKET) as algorithm:
            algorithm.bind((kind, name))
    except OSError as error:
        unknown.append(f'AF_ALG {kind} {name}: {errno.errorcode[error.errno]}')
print('\n'.join(unknown))
"#;

#[test]
#[ignore = "needs the built program: make test"]
fn a_guests_kernel_knows_what_a_distributions_does() {
    for user in ["0:0", "1000:1000"] {
        let args = ["-u", user, "demo", "python3", "-c", UNKNOWN];
        assert_eq!(run(Mode::Vm, args).exits(0).text(), "", "{user}");
    }
    // Pages that were set apart are pages.
    let script =
        "echo 4 >/proc/sys/vm/nr_hugepages 2>/dev/null; grep -c HugePages_Total /proc/meminfo";
    let text = run(Mode::Vm, ["busybox", "sh", "-c", script]).exits(0);
    assert_eq!(text.text(), "1");
}

#[test]
#[ignore = "needs the built program: make test"]
fn programs_that_grow_get_huge_pages_where_there_is_memory_for_it() {
    // One buffer, which is written to.
    let script = "cd /sys/kernel/mm/transparent_hugepage; cat enabled khugepaged/max_ptes_none; \
                  [ $(cat /proc/sys/vm/min_free_kbytes) -lt 2048 ] && echo free; \
                  given() { awk '/^thp_fault_alloc/ { print $2 }' /proc/vmstat; }; before=$(given); \
                  dd if=/dev/zero of=/dev/null bs=16M count=1 2>/dev/null; \
                  echo $(($(given) - before))";
    let shown = |memory| {
        let args = ["-m", memory, "busybox", "sh", "-c", script];
        run(Mode::Vm, args).exits(0).text()
    };
    let text = shown("128m");
    let (settings, given) = text.rsplit_once('\n').unwrap();
    assert_eq!(settings, "[always] madvise never\n0\nfree");
    // The buffer's ends need not be where a huge page begins.
    assert!(given.parse::<u32>().unwrap() >= 7, "{text}");
    assert_eq!(shown("64m"), "always madvise [never]\n511\nfree\n0");
}

/// Where the containers run, and whether that is a machine of ours whose clock may be set.
fn runs_on_the_machine() -> bool {
    const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
    let shown = run(Mode::Container, ["busybox", "cat", BOOT_ID]).exits(0);
    let own = std::fs::read_to_string(BOOT_ID).unwrap();
    let machines = on_the_machine(&format!("cat {BOOT_ID}")).exits(0);
    shown.text() == machines.text() && shown.text() != own.trim()
}

/// The machine's clock, set by so many seconds until this goes.
struct Stepped(i64);

impl Stepped {
    fn by(seconds: i64) -> Self {
        let script = format!("date -s @$(($(date +%s) + {seconds}))");
        let _ = on_the_machine(&script).exits(0);
        Self(seconds)
    }
}

impl Drop for Stepped {
    fn drop(&mut self) {
        let script = format!("date -s @$(($(date +%s) - {}))", self.0);
        let _ = on_the_machine(&script);
    }
}

/// Whether a container's clock is the machine's, to the second.
fn is_right(name: &str) -> bool {
    let seconds = |text: String| text.parse::<i64>().unwrap();
    let machines = || seconds(on_the_machine("date +%s").exits(0).text());
    let before = machines();
    let shown = seconds(hullbox(["exec", name, "date", "+%s"]).exits(0).text());
    let after = machines();
    (before - 1..=after + 1).contains(&shown)
}

#[track_caller]
fn becomes_right(name: &str) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !is_right(name) {
        assert!(Instant::now() < deadline, "{name} is not told");
    }
}

#[test]
#[ignore = "needs the built program: make test"]
fn a_step_of_the_hosts_clock_arrives_in_every_guest() {
    if !runs_on_the_machine() {
        return;
    }
    let of = |name| Kept::new(name, Mode::Vm);
    let (booted, template, copy) = (of("clock-boot"), of("clock-template"), of("clock-copy"));
    let paused = of("clock-paused");
    let sleeps = ["busybox", "sleep", "1000"];
    booted.run(&[&["--cold"], &sleeps[..]].concat());
    template.run(&sleeps);
    paused.run(&sleeps);
    let snapshot = "clock-snapshot";
    let _ = hullbox(["snapshot", "rm", snapshot]);
    let _ = hullbox(["snapshot", "create", &template.name, snapshot]).exits(0);
    let from = [
        "run",
        "-d",
        "--name",
        &copy.name,
        "--from-snapshot",
        snapshot,
    ];
    let _ = hullbox(from).exits(0);
    let _ = hullbox(["snapshot", "rm", snapshot]).exits(0);
    let all = [&booted, &template, &copy];
    for by in [7200, -86_400] {
        let _ = hullbox(["pause", &paused.name]).exits(0);
        let stepped = Stepped::by(by);
        for box_ in all {
            becomes_right(&box_.name);
        }
        let _ = hullbox(["unpause", &paused.name]).exits(0);
        becomes_right(&paused.name);
        drop(stepped);
        for box_ in [&booted, &template, &copy, &paused] {
            becomes_right(&box_.name);
        }
    }
}

/// Renames directories of the image, and changes what is in there.
const RENAMES: &str = "
import os
os.rename('/usr/lib/python3.11/email', '/email')
os.rename('/email/mime', '/email/mimes')
os.rename('/usr/lib/python3.11/wsgiref', '/usr/lib/python3.11/email')
os.remove('/email/utils.py')
open('/email/mimes/new', 'w').write('new')
os.stat('/email/charset.py')
";
/// What is left of it.
const RENAMED: &str = "cat /email/mimes/new; ls /email/mimes/text.py /email/charset.py \
    /usr/lib/python3.11/email; ls /email | wc -l; ls /usr/lib/python3.11/wsgiref /email/utils.py 2>&1";

both_modes! {
    fn a_directory_of_the_image_can_be_renamed(mode) {
        let box_ = Kept::new("renames", mode);
        box_.run(&["demo", "sleep", "1000"]);
        let count = box_.exec(&["sh", "-c", "ls /usr/lib/python3.11/email | wc -l"]).exits(0).text();
        let count: usize = count.parse().unwrap();
        let _ = box_.exec(&["python3", "-c", RENAMES]).exits(0);
        let shown = box_.exec(&["sh", "-c", RENAMED]).code;
        assert_eq!(shown, 1, "what is gone is gone");
        let shown = box_.exec(&["sh", "-c", RENAMED]).text();
        assert!(shown.starts_with("new"), "{shown}");
        assert!(shown.contains(&format!("\n{}\n", count - 1)), "{shown}");

        for running in [true, false] {
            if !running {
                let _ = hullbox(["stop", "-t", "0", &box_.name]).exits(0);
            }
            let changes = hullbox(["diff", &box_.name]).exits(0).text();
            for line in [
                "A /email",
                "A /email/charset.py",
                "A /email/mimes/new",
                "A /email/mimes/text.py",
                "C /usr/lib/python3.11/email",
                "D /usr/lib/python3.11/email/charset.py",
                "A /usr/lib/python3.11/email/validate.py",
                "D /usr/lib/python3.11/wsgiref",
            ] {
                assert!(changes.lines().any(|change| change == line), "{line}: {changes}");
            }
            for line in ["A /email/utils.py", "A /email/mime"] {
                assert!(!changes.lines().any(|change| change == line), "{line}: {changes}");
            }
            let archive = hullbox(["cp", &format!("{}:/email/charset.py", box_.name), "-"]).exits(0);
            assert!(archive.stdout.starts_with(b"charset.py\0"));
            let exported = hullbox(["export", &box_.name]).exits(0);
            let exported = String::from_utf8_lossy(&exported.stdout);
            assert!(exported.contains("email/mimes/text.py") && !exported.contains("email/mime/text.py"));
        }

        // Everything is in the new layer, whoever unpacks it.
        let tag = format!("renamed-{}", box_.name);
        let _ = hullbox(["commit", &box_.name, &tag]).exits(0);
        let again = run(mode, [&tag, "sh", "-c", RENAMED]);
        assert_eq!(again.text(), shown);
        let _ = hullbox(["rmi", &tag]).exits(0);
        // The container finds it all as it was.
        let _ = hullbox(["start", &box_.name]).exits(0);
        assert_eq!(box_.exec(&["sh", "-c", RENAMED]).text(), shown);
    }
}
