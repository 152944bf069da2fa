//! Other people's models of Docker's API decode what `inspect` prints: bollard's, whose enumerations
//! are strict, and docker-py's, which reads keys when it is asked.

use crate::life::Kept;
use bollard_stubs::models::{
    ContainerInspectResponse, ContainerState, ContainerStateStatusEnum, ExecInspectResponse,
    HealthStatusEnum, ImageInspect, RestartPolicyNameEnum,
};
use hullbox_tests::{Mode, both_modes, finish, hullbox, on_the_machine};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::process::Command;

/// What `inspect` prints, which has to be one thing.
fn inspected(args: &[&str]) -> Value {
    let text = hullbox([&["inspect"], args].concat()).exits(0).text();
    let mut all: Vec<Value> = serde_json::from_str(&text).unwrap();
    assert_eq!(all.len(), 1, "{text}");
    all.remove(0)
}

fn decode<T: DeserializeOwned>(value: &Value) -> T {
    serde_json::from_value(value.clone()).unwrap_or_else(|error| panic!("{error}: {value:#}"))
}

fn looked_at(box_: &Kept) -> (Value, ContainerInspectResponse) {
    let value = inspected(&["--type=container", &box_.name]);
    let decoded = decode(&value);
    (value, decoded)
}

fn state(box_: &Kept) -> ContainerState {
    looked_at(box_).1.state.unwrap()
}

/// What docker-py makes of containers, images and execs: an object for each, in this order.
fn docker_py(containers: &[&Value], images: &[&Value], execs: &[&Value]) -> Vec<Value> {
    let mut python = Command::new("/usr/bin/python3");
    python.args(["-c", include_str!("docker_py.py")]);
    let input = json!({ "containers": containers, "images": images, "execs": execs });
    let done = finish(python, input.to_string().as_bytes()).exits(0);
    serde_json::from_slice(&done.stdout).unwrap()
}

fn own(list: &[&str]) -> Option<Vec<String>> {
    Some(list.iter().map(|item| (*item).to_owned()).collect())
}

/// A process of the host: the container's first one, or the one that runs its VM.
fn is_process(pid: i64, mode: Mode, workload: &str) {
    let words = on_the_machine(&format!("tr '\\0' ' ' < /proc/{pid}/cmdline"))
        .exits(0)
        .text();
    match mode {
        Mode::Container => assert!(words.starts_with(workload), "{words}"),
        Mode::Vm => assert!(words.contains("hullbox"), "{words}"),
    }
}

both_modes! {
    fn a_container_is_decoded_from_its_making_to_its_end(mode) {
        let box_ = Kept::new("decoded", mode);
        let flags = [
            "--label", "a=b", "-e", "X=1", "--cap-add", "net_admin", "--cap-drop", "MKNOD",
            "--ulimit", "nofile=100:200", "--tmpfs", "/scratch:size=1m", "--add-host", "db:10.0.0.1",
            "--dns", "10.0.0.2", "--restart", "on-failure:3", "--security-opt", "no-new-privileges",
            "--sysctl", "kernel.shmmax=1000000", "--stop-signal", "INT", "--stop-timeout", "3",
            "--health-cmd", "true", "--health-interval", "1h", "--cpus", "1", "--init", "-i",
            "-p", "127.0.0.1::80", "--expose", "53/udp",
        ];
        let words = ["busybox", "sh", "-c", "trap 'exit 5' INT; while :; do sleep 0.1; done"];
        let _ = box_.make(&["create"], &[&flags[..], &words].concat()).exits(0);
        let (value, made) = looked_at(&box_);
        let made_state = made.state.unwrap();
        assert_eq!(made_state.status, Some(ContainerStateStatusEnum::CREATED));
        assert_eq!((made_state.pid, made_state.exit_code), (Some(0), Some(0)));
        assert_eq!(made_state.started_at.as_deref(), Some("0001-01-01T00:00:00Z"));
        assert_eq!(made.name, Some(format!("/{}", box_.name)));
        assert_eq!(made.platform.as_deref(), Some("linux"));
        assert!(made.log_path.unwrap().ends_with("container.log"));
        assert_eq!((made.mounts, made.exec_ids), (Some(vec![]), None));
        let host = made.host_config.unwrap();
        assert_eq!((host.memory, host.nano_cpus), (Some(128 << 20), Some(1_000_000_000)));
        assert_eq!((host.cap_add, host.cap_drop), (own(&["CAP_NET_ADMIN"]), own(&["CAP_MKNOD"])));
        assert_eq!(host.security_opt, own(&["no-new-privileges"]));
        assert_eq!((host.extra_hosts, host.dns), (own(&["db:10.0.0.1"]), own(&["10.0.0.2"])));
        assert_eq!((host.binds, host.privileged, host.init), (None, Some(false), Some(true)));
        assert_eq!(host.network_mode.as_deref(), Some("bridge"));
        let policy = host.restart_policy.unwrap();
        assert_eq!(policy.name, Some(RestartPolicyNameEnum::ON_FAILURE));
        assert_eq!(policy.maximum_retry_count, Some(3));
        let limit = &host.ulimits.unwrap()[0];
        assert_eq!((limit.name.as_deref(), limit.soft, limit.hard), (Some("nofile"), Some(100), Some(200)));
        assert_eq!(host.tmpfs.unwrap()["/scratch"], "size=1m");
        assert_eq!(host.sysctls.unwrap()["kernel.shmmax"], "1000000");
        let config = made.config.unwrap();
        assert_eq!((config.stop_signal.as_deref(), config.stop_timeout), (Some("SIGINT"), Some(3)));
        assert_eq!([config.attach_stdin, config.attach_stdout, config.attach_stderr], [Some(true); 3]);
        assert_eq!(config.healthcheck.unwrap().test, own(&["CMD-SHELL", "true"]));
        assert!(made.network_settings.unwrap().networks.unwrap().contains_key("bridge"));
        assert_eq!(value["HostConfig"]["PortBindings"], json!({ "80/tcp": [{ "HostIp": "127.0.0.1", "HostPort": "" }] }));
        assert_eq!(value["Config"]["ExposedPorts"], json!({ "53/udp": {}, "80/tcp": {} }));

        let _ = hullbox(["start", &box_.name]).exits(0);
        let running = state(&box_);
        assert_eq!((running.status, running.running), (Some(ContainerStateStatusEnum::RUNNING), Some(true)));
        assert!(running.health.unwrap().status != Some(HealthStatusEnum::NONE));
        is_process(running.pid.unwrap(), mode, "hullbox-init");
        let _ = hullbox(["pause", &box_.name]).exits(0);
        let (paused_value, paused) = looked_at(&box_);
        assert_eq!(paused.state.unwrap().status, Some(ContainerStateStatusEnum::PAUSED));
        let _ = hullbox(["unpause", &box_.name]).exits(0);
        let _ = hullbox(["stop", "-t", "60", &box_.name]).exits(0);
        let (stopped_value, stopped) = looked_at(&box_);
        let end = stopped.state.unwrap();
        assert_eq!((end.status, end.exit_code), (Some(ContainerStateStatusEnum::EXITED), Some(5)));
        assert_eq!(end.pid, Some(0));
        // What its last run's end left does not show while the next one runs.
        let _ = hullbox(["start", &box_.name]).exits(0);
        assert_eq!(state(&box_).exit_code, Some(0));

        let image = inspected(&["--type=image", "busybox"]);
        let seen = docker_py(&[&value, &paused_value, &stopped_value], &[&image], &[]);
        for (seen, status) in seen.iter().zip(["created", "paused", "exited"]) {
            assert_eq!((&seen["status"], &seen["name"]), (&json!(status), &json!(box_.name)));
            assert_eq!(seen["labels"], json!({ "a": "b" }));
            let ports = &seen["ports"];
            match status {
                "paused" => {
                    let port = ports["80/tcp"][0]["HostPort"].as_str().unwrap();
                    assert!(port.parse::<u16>().unwrap() > 0);
                    assert_eq!((&ports["80/tcp"][0]["HostIp"], &ports["53/udp"]), (&json!("127.0.0.1"), &Value::Null));
                }
                _ => assert_eq!(ports, &json!({})),
            }
            assert_eq!(seen["image"], image["Id"]);
        }
        assert_eq!(seen[1]["health"], paused_value["State"]["Health"]["Status"]);
    }
}

both_modes! {
    fn a_detached_one_has_a_process_and_no_more_than_it_was_given(mode) {
        let box_ = Kept::new("plain", mode);
        box_.run(&["-i", "busybox", "sleep", "1000"]);
        let (value, plain) = looked_at(&box_);
        is_process(plain.state.unwrap().pid.unwrap(), mode, "sleep 1000");
        assert!(value["State"].get("Health").is_none(), "no checks, no health: {value:#}");
        let config = plain.config.unwrap();
        assert_eq!([config.attach_stdin, config.attach_stdout, config.attach_stderr], [Some(false); 3]);
        assert_eq!((config.open_stdin, config.stdin_once), (Some(true), Some(false)));
        let host = plain.host_config.unwrap();
        assert_eq!((host.cap_add, host.cap_drop, host.security_opt), (None, None, None));
        assert_eq!(docker_py(&[&value], &[], &[])[0]["health"], "unknown");
        let sized = inspected(&["--size", &box_.name]);
        let written = sized["SizeRw"].as_i64().unwrap();
        assert!(sized["SizeRootFs"].as_i64().unwrap() > written);
        let wrote = hullbox(["exec", &box_.name, "dd", "if=/dev/urandom", "of=/blob", "bs=1k", "count=2000"]);
        let _ = wrote.exits(0);
        let _ = hullbox(["exec", &box_.name, "sync"]).exits(0);
        let more: ContainerInspectResponse = decode(&inspected(&["-s", &box_.name]));
        assert!(more.size_rw.unwrap() >= written + 2_000_000, "{written} {:?}", more.size_rw);
    }
}

both_modes! {
    fn an_exec_is_found_by_its_id_with_its_exit_code(mode) {
        let box_ = Kept::new("beside", mode);
        let id = box_.run(&["busybox", "sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done"]);
        let ids = || looked_at(&box_).1.exec_ids;
        assert_eq!(ids(), None);
        let done = hullbox(["exec", "-u", "alice", &box_.name, "sh", "-c", "exit 42"]);
        let _ = done.exits(42);
        let exec = ids().unwrap().remove(0);
        let value = inspected(&["--type=exec", &exec]);
        let decoded: ExecInspectResponse = decode(&value);
        assert_eq!((decoded.running, decoded.exit_code), (Some(false), Some(42)));
        assert_eq!((decoded.id.as_ref(), decoded.container_id), (Some(&exec), Some(id)));
        let process = decoded.process_config.unwrap();
        assert_eq!((process.entrypoint.as_deref(), process.arguments), (Some("sh"), own(&["-c", "exit 42"])));
        assert_eq!(docker_py(&[], &[], &[&value])[0]["exit_code"], 42);
        // One that runs on, and ends with the container.
        let _ = hullbox(["exec", "-d", &box_.name, "sleep", "1000"]).exits(0);
        let second = ids().unwrap().remove(1);
        let running: ExecInspectResponse = decode(&inspected(&[&second]));
        assert_eq!((running.running, running.exit_code), (Some(true), None));
        let _ = hullbox(["stop", "-t", "60", &box_.name]).exits(0);
        let killed: ExecInspectResponse = decode(&inspected(&[&second[..12]]));
        assert_eq!((killed.running, killed.exit_code), (Some(false), Some(137)));
        hullbox(["inspect", "--type=exec", &box_.name]).fails_saying("no such exec");
    }
}

#[test]
#[ignore = "needs the built program: make test"]
fn images_are_decoded() {
    let value = inspected(&["--type=image", "busybox"]);
    let image: ImageInspect = decode(&value);
    assert!(image.id.unwrap().starts_with("sha256:"));
    assert_eq!(image.os.as_deref(), Some("linux"));
    assert_eq!(image.root_fs.unwrap().layers.unwrap().len(), 1);
    let seen = docker_py(&[], &[&value], &[]);
    assert_eq!(seen[0]["tags"], value["RepoTags"]);
    let short = seen[0]["short_id"].as_str().unwrap();
    assert!(value["Id"].as_str().unwrap().starts_with(short), "{short}");
    // Docker's indentation, and its order of keys.
    let text = hullbox(["image", "inspect", "busybox"]).exits(0).text();
    assert!(
        text.starts_with("[\n    {\n        \"Id\": \"sha256:"),
        "{text}"
    );
}
