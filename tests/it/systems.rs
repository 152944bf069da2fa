//! Whole systems as a workload: an init system, a sandbox of an ordinary user's, an engine within.
//!
//! They need a Debian root, which `tests/fixtures/make-debian` makes.

use crate::life::Kept;
use hullbox_tests::{Mode, both_modes, command, finish, fixture, hullbox, run};

const IMAGE: &str = "debian:systemd";

/// Imports the image, unless an earlier test has.
fn debian() {
    if hullbox(["inspect", "--type", "image", IMAGE]).code == 0 {
        return;
    }
    let file = fixture("debian.tar");
    let mut import = command(["import", "-c", "CMD [\"/sbin/init\"]"]);
    import.args([file.as_os_str(), IMAGE.as_ref()]);
    let _ = finish(import, b"").exits(0);
}

/// Waits until its services are up; how it is then.
fn until_up(name: &str) -> String {
    // The bus is there once its socket is; before that nobody can be asked to wait.
    let script =
        "until [ -S /run/dbus/system_bus_socket ]; do :; done; systemctl is-system-running --wait";
    hullbox(["exec", name, "sh", "-c", script]).text()
}

fn inside(name: &str, script: &str) -> String {
    hullbox(["exec", name, "sh", "-c", script]).exits(0).text()
}

fn inspected(name: &str, format: &str) -> String {
    hullbox(["inspect", "--format", format, name])
        .exits(0)
        .text()
}

both_modes! {
    fn systemd_comes_up_runs_services_and_stops_cleanly(mode) {
        debian();
        let box_ = Kept::new("systemd", mode);
        box_.run(&[IMAGE]);
        let name = box_.name.as_str();
        assert_eq!(until_up(name), "running", "{}", inside(name, "systemctl --failed"));
        assert_eq!(inspected(name, "{{.Config.StopSignal}} {{.Config.Tty}}"), "SIGRTMIN+3 false");
        let id = inspected(name, "{{.Id}}");
        let environment = inside(name, "tr '\\0' '\\n' </proc/1/environ | grep ^container | sort");
        assert_eq!(environment, format!("container=oci\ncontainer_uuid={}", &id[..32]));

        // A unit that was not there before, and one that runs on; each in a control group of its own.
        let unit = "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/sh -c 'echo 42 >/run/answer'\n";
        let write = format!("cat >/etc/systemd/system/answer.service <<'END'\n{unit}END\nsystemctl daemon-reload");
        let _ = inside(name, &write);
        assert_eq!(inside(name, "systemctl start answer && cat /run/answer"), "42");
        let counter = "systemd-run --quiet --unit=counter sleep 1000 && systemctl is-active counter && \
                       grep ^0 /proc/$(systemctl show -P MainPID counter)/cgroup";
        assert_eq!(inside(name, counter), "active\n0::/system.slice/counter.service");
        // Its journal, and who asked for it.
        let _ = inside(name, "journalctl --no-pager -u counter | grep -q sleep");

        let _ = hullbox(["stop", "-t", "60", name]).exits(0);
        assert_eq!(inspected(name, "{{.State.Status}} {{.State.ExitCode}}"), "exited 0");
        // What was made stays; what is for one run of it does not.
        let _ = hullbox(["start", name]).exits(0);
        assert_eq!(until_up(name), "running");
        assert_eq!(inside(name, "ls /etc/systemd/system/answer.service /run/answer 2>/dev/null; true"),
            "/etc/systemd/system/answer.service");
    }
}

/// Starts a copy of a container that runs, by way of a snapshot of this name.
fn copy_to(origin: &Kept, copy: &Kept, snapshot: &str) {
    let _ = hullbox(["snapshot", "rm", snapshot]);
    let _ = hullbox(["snapshot", "create", &origin.name, snapshot]).exits(0);
    let run = ["run", "-d", "--name", &copy.name];
    let _ = hullbox(run.iter().chain(&["--from-snapshot", snapshot])).exits(0);
}

#[test]
#[ignore = "needs the built program: make test"]
fn a_copy_of_a_running_system_has_a_machine_id_of_its_own() {
    debian();
    let origin = Kept::new("system", Mode::Vm);
    let copy = Kept::new("system-copy", Mode::Vm);
    origin.run(&[IMAGE]);
    assert_eq!(until_up(&origin.name), "running");
    copy_to(&origin, &copy, "system");
    for name in [&origin.name, &copy.name] {
        let id = inspected(name, "{{.Id}}");
        assert_eq!(inside(name, "cat /etc/machine-id"), id[..32], "{name}");
        // To a program that is started now, whatever the init system has read.
        assert_eq!(inside(name, "systemd-id128 machine-id"), id[..32], "{name}");
        assert_eq!(until_up(name), "running");
    }
    assert_eq!(
        inspected(&copy.name, "{{.Start.Hygiene.MachineIdReplaced}}"),
        "true"
    );
    let _ = hullbox(["snapshot", "rm", "system"]).exits(0);
}

both_modes! {
    fn systemd_mode_is_for_init_systems_or_whoever_asks(mode) {
        let script = "echo $container $(stat -f -c %T /run /tmp); [ -w /sys/fs/cgroup/cgroup.procs ] && \
                      mkdir /sys/fs/cgroup/x 2>/dev/null && echo groups; true";
        let seen = |flags: &[&str]| {
            let mut args = flags.to_vec();
            args.extend(["-m", "160m", "busybox", "sh", "-c", script]);
            run(mode, args).exits(0).text().replace('\r', "")
        };
        let with = seen(&["--systemd=always"]);
        assert!(with.starts_with("oci tmpfs tmpfs") && with.ends_with("groups"), "{with}");
        for without in [&[][..], &["--systemd=false"], &["--systemd=true"]] {
            let text = seen(without);
            assert!(!text.contains("oci") && !text.contains("groups"), "{text}");
        }
        run(mode, ["--systemd=perhaps", "busybox"]).refuses_flags_saying("--systemd");
    }
}

/// bubblewrap as flatpak and agents use it: namespaces of all sorts, a /proc and a /dev of its own.
const SANDBOX: &str = "bwrap --ro-bind / / --proc /proc --dev /dev --tmpfs /tmp --unshare-all \
    --hostname inside --die-with-parent sh -c 'id -u; hostname; ls -d /proc/[0-9]* | wc -l; touch /etc/x' 2>&1";

fn sandboxed(text: &str) {
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 4, "{text}");
    assert_eq!(lines[..2], ["1000", "inside"], "{text}");
    // The sandbox' own init, the shell, and what it runs.
    assert!(
        lines[2].parse::<u32>().is_ok_and(|count| count <= 4),
        "{text}"
    );
    assert!(lines[3].contains("Read-only file system"), "{text}");
}

#[test]
#[ignore = "needs the built program: make test"]
fn bubblewrap_works_for_an_ordinary_user_however_the_guest_began() {
    debian();
    for templates in ["auto", "never"] {
        let mut bwrap = command(["run", "--rm", "-m", "160m", "-u", "alice", IMAGE]);
        bwrap.env("HULLBOX_TEMPLATES", templates);
        bwrap.args(["sh", "-c", SANDBOX]);
        sandboxed(&finish(bwrap, b"").text());
    }
    // A copy of one that ran, and beside its workload.
    let origin = Kept::new("sandbox", Mode::Vm);
    let copy = Kept::new("sandbox-copy", Mode::Vm);
    origin.run(&[IMAGE, "sleep", "1000"]);
    copy_to(&origin, &copy, "sandbox");
    for name in [&origin.name, &copy.name] {
        sandboxed(&hullbox(["exec", "-u", "alice", name, "sh", "-c", SANDBOX]).text());
        // From root's shell, too.
        let su = format!("su alice -c \"{SANDBOX}\"");
        sandboxed(&hullbox(["exec", name, "sh", "-c", &su]).text());
    }
    let _ = hullbox(["snapshot", "rm", "sandbox"]).exits(0);
}

both_modes! {
    fn dockerd_runs_an_image_from_a_file_inside_a_privileged_container(mode) {
        debian();
        let box_ = Kept::new("dockerd", mode);
        // Its own network off; its data where overlayfs takes an upper directory.
        // As Docker's own image for this does: no process may be in a group that hands controllers on.
        let script = "cd /sys/fs/cgroup && mkdir -p init &&
            for process in $(cat cgroup.procs); do echo $process >init/cgroup.procs; done
            for controller in $(cat cgroup.controllers); do echo +$controller >cgroup.subtree_control; done
            cd /
            dockerd --bridge=none --iptables=false --ip6tables=false 2>&1 | {
                while read -r line; do
                    echo \"$line\" >&2
                    case $line in *'API listen on'*) break ;; esac
                done
                cat >/var/log/dockerd.log &
                docker load -q -i /busybox.tar &&
                docker run --rm --network none -m 64m busybox:latest sh -c 'echo from $(cat /proc/1/comm) within' &&
                docker info -f '{{.Driver}} {{.CgroupVersion}}'
                kill $(cat /run/docker.pid)
            }";
        let args = ["create", "--name", &box_.name, mode.flag(), "--privileged",
            "--tmpfs", "/var/lib/docker:exec", "--tmpfs", "/run", IMAGE, "sh", "-c", script];
        let _ = hullbox(args).exits(0);
        let docker = std::fs::read(fixture("docker.tar")).expect("the fixture");
        let _ = finish(command(["cp", "-", &format!("{}:/", box_.name)]), &docker).exits(0);
        let busybox = fixture("busybox.tar");
        let place = format!("{}:/busybox.tar", box_.name);
        let mut copy = command(["cp"]);
        copy.args([busybox.as_os_str(), place.as_ref()]);
        let _ = finish(copy, b"").exits(0);
        let done = hullbox(["start", "-a", &box_.name]);
        let text = done.text();
        assert!(text.contains("from sh within\noverlay2 2"), "{done:?}");
    }
}
