//! The container's role on this kernel, in namespaces instead of a guest: what is asked of a
//! running container. Needs root, busybox, `mkfs.erofs` and a kernel that mounts its images from
//! files (6.12); where something is missing, the tests say so and pass.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test's helpers fail as its own lines do"
)]

#[path = "../../session/tests/common/talk.rs"]
mod talk;

use hullbox_protocol::{
    Access, Addresses, Builtin, CgroupLimits, FailureKind, Frame, Interface, LayerDisk,
    ProcessSpec, Reply, Request, RootfsSpec, Setup,
};
use std::ops::{Deref, DerefMut};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use talk::{Talk, archive_in, archive_out};

/// A layer with busybox in it.
fn image() -> Option<&'static Path> {
    static IMAGE: OnceLock<Option<PathBuf>> = OnceLock::new();
    IMAGE
        .get_or_init(|| {
            if !rustix::process::getuid().is_root() {
                eprintln!("skipped: not root");
                return None;
            }
            let scratch = Path::new(env!("CARGO_TARGET_TMPDIR"));
            let tree = scratch.join("agent-tree");
            let _ = std::fs::remove_dir_all(&tree);
            for directory in ["bin", "etc", "srv", "tmp"] {
                std::fs::create_dir_all(tree.join(directory)).unwrap();
            }
            if std::fs::copy("/bin/busybox", tree.join("bin/busybox")).is_err() {
                eprintln!("skipped: no /bin/busybox");
                return None;
            }
            for applet in [
                "sh", "cat", "echo", "grep", "ls", "mkdir", "rm", "sleep", "touch", "true",
            ] {
                std::os::unix::fs::symlink("busybox", tree.join("bin").join(applet)).unwrap();
            }
            std::fs::write(tree.join("etc/passwd"), "root:x:0:0::/:/bin/sh\n").unwrap();
            std::fs::write(tree.join("etc/group"), "root:x:0:\n").unwrap();
            let image = scratch.join("agent.erofs");
            let _ = std::fs::remove_file(&image);
            let made = Command::new("mkfs.erofs").arg(&image).arg(&tree).output();
            if !made.is_ok_and(|output| output.status.success()) {
                eprintln!("skipped: no working mkfs.erofs");
                return None;
            }
            Some(image)
        })
        .as_deref()
}

/// A container's agent, and the conversation with it.
struct Guest {
    agent: Child,
    talk: Talk,
}

impl Deref for Guest {
    type Target = Talk;

    fn deref(&self) -> &Talk {
        &self.talk
    }
}

impl DerefMut for Guest {
    fn deref_mut(&mut self) -> &mut Talk {
        &mut self.talk
    }
}

impl Guest {
    /// With this process as its workload; `None` where that cannot be tried.
    fn start(spec: ProcessSpec) -> Option<Self> {
        Self::start_with(Access::default(), spec)
    }

    fn start_with(access: Access, spec: ProcessSpec) -> Option<Self> {
        let setup = Setup {
            access,
            ..Setup::default()
        };
        Self::start_as(setup, spec)
    }

    fn start_as(setup: Setup, spec: ProcessSpec) -> Option<Self> {
        let image = image()?;
        let (ours, theirs) = UnixStream::pair().unwrap();
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/in-namespaces");
        let agent = Command::new(script)
            .arg(env!("CARGO_BIN_EXE_hullbox-agent"))
            .arg(image)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .spawn()
            .unwrap();
        let talk = Talk::new(ours);
        let mut guest = Self { agent, talk };
        let length_bytes = image.metadata().unwrap().len();
        guest.send(&Frame::Setup(Box::new(Setup {
            rootfs: RootfsSpec {
                layers: vec![LayerDisk {
                    offset_bytes: 0,
                    length_bytes,
                }],
                ..RootfsSpec::default()
            },
            etc_hosts: "1.2.3.4 here\n".into(),
            shm_size_bytes: 1 << 20,
            ..setup
        })));
        guest.exec_as(0, spec);
        guest.until(|g| g.sessions[&0].started || g.sessions[&0].end.is_some());
        match &guest.sessions[&0].end {
            Some(Err(failure)) if failure.message.contains("cannot mount layer") => {
                eprintln!("skipped: {}", failure.message);
                None
            }
            Some(Err(failure)) => panic!("{failure:?}"),
            _ => Some(guest),
        }
    }

    fn finish(mut self, signal: u32, code: u8) {
        self.send(&Frame::Signal { session: 0, signal });
        self.until(|g| g.sessions[&0].end.is_some());
        assert_eq!(self.sessions[&0].code(), code);
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.hang_up();
        let left = self.agent.wait();
        // The script fails when a control group is left.
        assert!(std::thread::panicking() || left.unwrap().success());
    }
}

fn shell(script: &str) -> ProcessSpec {
    ProcessSpec {
        argv: ["sh", "-c", script]
            .iter()
            .map(|a| a.as_bytes().to_vec())
            .collect(),
        env: vec![b"PATH=/bin".to_vec()],
        ..ProcessSpec::default()
    }
}

fn builtin(builtin: Builtin) -> ProcessSpec {
    ProcessSpec {
        builtin: Some(builtin),
        stdin: true,
        ..ProcessSpec::default()
    }
}

#[test]
fn a_running_container_is_asked() {
    let script = "echo new > /srv/new; rm /etc/group; while :; do sleep 1; done";
    let Some(mut guest) = Guest::start(shell(script)) else {
        return;
    };
    let ready = "while [ -e /etc/group ]; do sleep 0.1; done; cat /srv/new; exit 3";
    let session = guest.run(shell(ready));
    assert_eq!((session.code(), session.text().as_str()), (3, "new\n"));
    let archive = guest.builtin(archive_out("/srv"), b"").output.clone();
    assert_eq!(guest.builtin(archive_in("/tmp"), &archive).code(), 0);
    assert_eq!(guest.run(shell("cat /tmp/srv/new")).text(), "new\n");
    let missing = guest.builtin(archive_out("/none"), b"");
    assert!(
        matches!(&missing.end, Some(Err(failure)) if failure.kind == FailureKind::NotFound),
        "{missing:?}"
    );
    let changes = guest.builtin(Builtin::Changes, b"").text();
    assert_eq!(
        changes.split_terminator('\0').collect::<Vec<_>>(),
        [
            "C /etc",
            "D /etc/group",
            "C /srv",
            "A /srv/new",
            "C /tmp",
            "A /tmp/srv",
            "A /tmp/srv/new"
        ]
    );
    let layer = guest.builtin(Builtin::Layer, b"").text();
    assert!(layer.contains("etc/.wh.group") && layer.contains("srv/new"));
    let export = guest.builtin(Builtin::Export, b"").text();
    assert!(export.contains("bin/busybox") && !export.contains("1.2.3.4"));
    // Nobody of these is seen inside.
    let seen = guest.run(shell("ls /proc | grep -c '^[0-9]'")).text();
    assert!(["3\n", "4\n", "5\n"].contains(&seen.as_str()), "{seen}");

    let Reply::Usage(usage) = guest.ask(Request::Usage) else {
        panic!("no usage");
    };
    assert!(
        usage.cpu_us > 0 && usage.memory_bytes > 0 && usage.pids >= 2,
        "{usage:?}"
    );
    let Reply::Processes(processes) = guest.ask(Request::Processes) else {
        panic!("no processes");
    };
    assert!(
        processes.iter().any(|p| p.command.contains("echo new")),
        "{processes:?}"
    );
    assert_eq!(guest.ask(Request::Freeze), Reply::Done);
    assert_eq!(guest.run(shell("true")).code(), 125);
    assert_eq!(guest.builtin(archive_out("/srv/new"), b"").code(), 0);
    assert_eq!(guest.ask(Request::Thaw), Reply::Done);
    assert_eq!(guest.run(shell("true")).code(), 0);
    let limits = CgroupLimits {
        memory_bytes: 4096,
        ..CgroupLimits::default()
    };
    let reply = guest.ask(Request::Limit(limits));
    assert!(
        matches!(&reply, Reply::Failed(why) if why.contains("bytes in use")),
        "{reply:?}"
    );
    let joined = guest.exec(shell("echo on; sleep 1000"));
    guest.until(|g| g.sessions[&joined].text() == "on\n");
    assert_eq!(guest.ask(Request::Freeze), Reply::Done);
    guest.send(&Frame::Signal {
        session: 0,
        signal: 9,
    });
    guest.until(|g| g.sessions[&0].end.is_some());
    assert_eq!(guest.sessions[&0].code(), 137);
    // What joined ends with it, and that is told first.
    assert_eq!(guest.sessions[&joined].code(), 137);
}

#[test]
fn a_container_that_does_not_run_is_asked() {
    let Some(mut guest) = Guest::start(builtin(Builtin::Pause)) else {
        return;
    };
    let archive = guest
        .builtin(archive_out("/etc/passwd"), b"")
        .output
        .clone();
    assert_eq!(guest.builtin(archive_in("/srv"), &archive).code(), 0);
    let changes = guest.builtin(Builtin::Changes, b"").text();
    assert_eq!(changes, "C /srv\0A /srv/passwd\0");
    assert_eq!(guest.run(shell("true")).code(), 125);
    guest.finish(15, 0);
    for (what, found) in [
        (Builtin::Export, "bin/busybox"),
        (archive_out("/etc/group"), "root:x:0"),
        (Builtin::Changes, ""),
    ] {
        let Some(mut guest) = Guest::start(builtin(what)) else {
            return;
        };
        guest.until(|g| g.sessions[&0].end.is_some());
        assert_eq!(guest.sessions[&0].code(), 0);
        assert!(guest.sessions[&0].text().contains(found));
    }
}

/// What a shell in the container says.
fn said(access: Access, capabilities: Option<u64>, script: &str) -> Option<String> {
    let spec = ProcessSpec {
        capabilities,
        ..shell(script)
    };
    let mut guest = Guest::start_with(access, spec)?;
    guest.until(|g| g.sessions[&0].end.is_some());
    Some(guest.sessions[&0].text())
}

/// Docker's capabilities, without CAP_SYS_ADMIN among others.
const USUAL_CAPABILITIES: u64 = 0xa804_25fb;

const LOOK: &str = "
    cat /proc/self/cgroup | grep '^0:'
    grep -c ' /proc/sys .* ro[, ]' /proc/mounts
    grep -o ' /sys sysfs r[ow]' /proc/mounts
    grep -o ' /dev/shm .*size=[0-9]*k' /proc/mounts | grep -o '[^,=]*k'
    cat /proc/keys | grep -c .
    cat /etc/hosts
    ls -d /t /l /n /r /w 2>/dev/null
    echo $$ $(ls /proc | grep -c '^[0-9]')
    : >> /proc/sys/vm/swappiness && echo opened";

#[test]
fn the_zygote_of_an_ordinary_container_becomes_its_workload() {
    // Twice: with the one that was there before `Setup`, and with one made for its capabilities.
    for capabilities in [Some(USUAL_CAPABILITIES), None] {
        let Some(text) = said(Access::default(), capabilities, LOOK) else {
            return;
        };
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(
            lines[..6],
            ["0::/", "1", " /sys sysfs ro", "1024k", "0", "1.2.3.4 here"],
            "{text}"
        );
        assert!(lines[6].starts_with("1 ") && lines.len() == 7, "{text}");
    }
}

#[test]
fn a_container_with_other_access_has_a_zygote_of_its_own() {
    let privileged = Access {
        privileged: true,
        masked_paths: Vec::new(),
        read_only_paths: Vec::new(),
        ..Access::default()
    };
    let Some(text) = said(privileged, None, LOOK) else {
        return;
    };
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[..3], ["0::/", "0", " /sys sysfs rw"], "{text}");
    assert_eq!(lines.last(), Some(&"opened"), "{text}");
    // Paths beside the kernel's own are in the image.
    let masked = Access {
        masked_paths: vec!["/srv".into(), "/proc/keys".into()],
        read_only_paths: vec!["/tmp".into()],
        ..Access::default()
    };
    let script = "cat /proc/keys; touch /srv/x || echo srv; touch /tmp/x || echo tmp";
    let text = said(masked, Some(USUAL_CAPABILITIES), script);
    assert_eq!(text.as_deref(), Some("srv\ntmp\n"));
}

const NETWORK: &str = "
    busybox ip -o addr
    busybox ip route
    ls /sys/class/net
    cat /proc/net/dev
    grep -o ' /sys sysfs r[ow]' /proc/mounts
    grep -o ' /sys/fs/cgroup cgroup2 r[ow]' /proc/mounts
    grep -o ' /sys/firmware [a-z]* r[ow]' /proc/mounts
    echo ports $(cat /proc/sys/net/ipv4/ip_unprivileged_port_start)
    echo forward $(cat /proc/sys/net/ipv4/ip_forward)
    busybox readlink /proc/self/ns/net";

/// What a container sees of its network, and what one that joins it sees.
fn seen(interface: Option<Interface>) -> Option<(String, String)> {
    let sysctls = vec![("net.ipv4.ip_forward".to_owned(), "1".to_owned())];
    let setup = Setup {
        interfaces: interface.into_iter().collect(),
        sysctls,
        ..Setup::default()
    };
    let spec = ProcessSpec {
        capabilities: Some(USUAL_CAPABILITIES),
        ..shell(&format!("{NETWORK}; echo up; while :; do sleep 1; done"))
    };
    let mut guest = Guest::start_as(setup, spec)?;
    guest.until(|g| g.sessions[&0].text().ends_with("up\n"));
    let own = guest.sessions[&0].text();
    let joined = guest.run(shell(NETWORK)).text();
    guest.finish(9, 137);
    Some((own.trim_end_matches("up\n").to_owned(), joined))
}

#[test]
fn a_container_sees_the_guests_card_if_it_has_an_interface() {
    let interface = Interface {
        mac: [2, 1, 2, 3, 4, 5],
        mtu: 65520,
        ipv4: Some(Addresses {
            address: [10, 0, 2, 2].into(),
            prefix: 24,
            gateway: Some([10, 0, 2, 1].into()),
        }),
        ipv6: None,
        gateway_mac: [2, 0x48, 0x55, 0x4c, 0x4c, 1],
        route_metric: Some(0),
    };
    if !Path::new("/dev/net/tun").exists() {
        eprintln!("skipped: no /dev/net/tun");
        return;
    }
    let Some((with, joined)) = seen(Some(interface)) else {
        return;
    };
    assert_eq!(with, joined);
    let Some((without, joined)) = seen(None) else {
        return;
    };
    assert_eq!(without, joined);
    for text in [&with, &without] {
        for part in [
            "inet 127.0.0.1/8",
            " /sys sysfs ro\n /sys/fs/cgroup cgroup2 ro\n",
            "ports 0\nforward 1\n",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
    for part in [
        "inet 10.0.2.2/24",
        "default via 10.0.2.1 dev eth0",
        "\neth0\n",
    ] {
        assert!(with.contains(part), "{part}: {with}");
    }
    assert!(!without.contains("eth0"), "{without}");
    let masked = |text: &str| {
        text.lines()
            .filter(|line| line.contains("firmware"))
            .count()
    };
    assert_eq!(masked(&with), masked(&without), "{without}");
    assert_eq!(
        masked(&with),
        usize::from(Path::new("/sys/firmware").exists())
    );
}
