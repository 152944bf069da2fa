//! The container's network.

use super::asked::Container;
use super::{base, ns_run, program, run};
use hullbox_protocol::{ProcessSpec, Reply, Request};
use std::io::Write;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// `None` where there is no TAP device to be had.
fn possible() -> Option<&'static Path> {
    if std::fs::File::open("/dev/net/tun").is_err() {
        eprintln!("skipped: no /dev/net/tun");
        return None;
    }
    base()
}

/// Runs a shell script.
fn shell(arguments: &[&str], script: &str) -> (i32, String) {
    run(&[arguments, &["--", "sh", "-c", script]].concat()).unwrap()
}

/// The id that `ns-run` gives the container of a directory.
fn id(dir: &Path) -> String {
    let name = dir.file_name().unwrap().to_string_lossy();
    let name: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
    format!("ns-run-{name}")
}

fn host(name: &str) -> String {
    let path = format!("/proc/sys/net/ipv4/{name}");
    std::fs::read_to_string(path).unwrap().trim().to_owned()
}

#[test]
fn a_container_has_an_interface_and_nothing_of_what_is_behind_it() {
    if possible().is_none() {
        return;
    }
    let user = [
        "--network",
        "user",
        "--sysctl",
        "net.ipv4.conf.eth0.forwarding=1",
    ];
    let look =
        "busybox ip -o addr; busybox ip route; busybox ip -6 route; busybox ip link show eth0;
        ls /sys/class/net; ls -l /proc/self/fd; cat /proc/sys/net/ipv4/ip_unprivileged_port_start;
        echo forwarding $(cat /proc/sys/net/ipv4/conf/eth0/forwarding)";
    let (code, text) = shell(&user, look);
    assert_eq!(code, 0, "{text}");
    for part in [
        "inet 127.0.0.1/8",
        "inet 10.0.2.2/24 brd 10.0.2.255",
        "inet6 fd48:554c:4c42::2/64",
        "default via 10.0.2.1",
        "default via fd48:554c:4c42::1",
        "02:01:02:03:04:05",
        "mtu 65520",
        "\neth0\n",
        "\n0\n",
        "forwarding 1\n",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains("tun") && !text.contains("net:["), "{text}");
    let attempt = "mknod /tmp/tun c 10 200 && echo made; echo > /tmp/tun && echo opened";
    let (_, text) = shell(&user, attempt);
    assert!(text.contains("made") && !text.contains("opened"), "{text}");
    // An ordinary container without a network has none of this.
    let (_, text) = shell(&[], look);
    assert!(text.contains("127.0.0.1/8"), "{text}");
    assert!(
        !text.contains("eth0:") && !text.contains("\neth0"),
        "{text}"
    );
}

#[test]
fn frames_pass_both_ways() {
    if possible().is_none() {
        return;
    }
    for (own, gateway) in [
        (Ipv4Addr::LOCALHOST.into(), "10.0.2.1"),
        (Ipv6Addr::LOCALHOST.into(), "fd48:554c:4c42::1"),
    ] {
        let Ok(listener) = TcpListener::bind(SocketAddr::new(own, 0)) else {
            eprintln!("skipped: this host has no {own}");
            continue;
        };
        let port = listener.local_addr().unwrap().port();
        let answer = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(b"from the host\n").unwrap();
        });
        let (code, text) = shell(
            &["--network", "user"],
            &format!("busybox nc {gateway} {port} </dev/null"),
        );
        assert_eq!((code, text.as_str()), (0, "from the host\n"));
        answer.join().unwrap();
    }
}

#[test]
fn a_container_is_in_the_hosts_network() {
    if base().is_none() {
        return;
    }
    let before = [host("ip_unprivileged_port_start"), host("ping_group_range")];
    let own = std::fs::read_link("/proc/self/ns/net").unwrap();
    let look = "busybox readlink /proc/self/ns/net";
    let (code, text) = shell(&["--network", "host"], look);
    assert_eq!((code, text.trim()), (0, own.to_str().unwrap()));
    assert_ne!(shell(&[], look).1.trim(), own.to_str().unwrap());
    let sysctl = "net.ipv4.ip_unprivileged_port_start=7";
    let (code, text) = shell(&["--network", "host", "--sysctl", sysctl], "true");
    assert_eq!(code, 125, "{text}");
    assert!(text.contains("not allowed in host network"), "{text}");
    let after = [host("ip_unprivileged_port_start"), host("ping_group_range")];
    assert_eq!(before, after);
}

#[test]
fn a_container_joins_the_network_of_another() {
    if possible().is_none() {
        return;
    }
    let Some(mut first) = Container::up(&["--network", "user"], "") else {
        return;
    };
    let look = "busybox readlink /proc/self/ns/net; busybox ip -o addr show eth0";
    let seen = first.shell(look).text();
    assert!(seen.contains("10.0.2.2/24"), "{seen}");
    let word = format!("container:{}", id(first.dir.path()));
    let (code, text) = shell(&["--network", &word], look);
    assert_eq!((code, text), (0, seen));
    first.finish();
    let (code, text) = shell(&["--network", &word], look);
    assert_eq!(code, 125, "{text}");
    assert!(
        text.contains("cannot join network of a non running"),
        "{text}"
    );
}

/// Waits until everything of a container is made but its workload.
fn wait_made(container: &Container) {
    let dir = container.dir.path();
    let state = dir.join("run/oci").join(id(dir)).join("state.json");
    let begun = Instant::now();
    while !std::fs::read_to_string(&state).is_ok_and(|text| text.contains("\"created\"")) {
        assert!(begun.elapsed().as_secs() < 60, "it is not made, or runs");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn the_workload_waits_until_its_ports_are_open() {
    if possible().is_none() {
        return;
    }
    let script = "echo > /srv/mark; echo ran";
    let arguments = ["--network", "user", "--publishes", "--", "sh", "-c", script];
    let Some(mut container) = Container::prepare(&arguments) else {
        return;
    };
    wait_made(&container);
    // Answered only by one that waits.
    let Reply::Failed(why) = container.ask(Request::Usage) else {
        panic!("it runs");
    };
    assert_eq!(why, "the container is not running");
    container.exec_as(0, ProcessSpec::default());
    container.until(|c| c.sessions[&0].end.is_some());
    assert_eq!(container.sessions[&0].code(), 0);
    assert_eq!(container.sessions[&0].text(), "ran\n");
    let mark = |dir: &Path| hullbox_ns::upper_dir(dir).join("srv/mark");
    assert!(mark(container.dir.path()).exists());
    container.gone();

    // Where they cannot be opened, nothing of it runs.
    let Some(container) = Container::prepare(&arguments) else {
        return;
    };
    wait_made(&container);
    container.hang_up();
    let dir = container.gone();
    assert!(!mark(dir.path()).exists());
}

#[test]
fn a_host_without_tap_devices_says_what_to_do() {
    let Some(base) = possible() else {
        return;
    };
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let wanted = ns_run(dir.path(), &[base]);
    let output = Command::new("unshare")
        .args([
            "-m",
            "sh",
            "-c",
            "mount -t tmpfs none /dev/net && exec \"$@\"",
            "sh",
        ])
        .arg(program())
        .args(wanted.get_args())
        .args(["--network", "user", "--", "true"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(125), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.contains("modprobe tun"), "{text}");
}
