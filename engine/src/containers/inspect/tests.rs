use super::*;
use crate::plan::life::Health as Check;
use crate::plan::{HostFacts, ImageDefaults, RunRequest, plan};

const HOST: HostFacts = HostFacts { cpus: 4 };

/// Directories that nothing is in.
pub(crate) fn roots() -> Roots {
    Roots {
        data: "/data".into(),
        runtime: "/run".into(),
    }
}

pub(crate) fn record(isolation: Isolation, change: impl FnOnce(&mut RunRequest)) -> Record {
    let id = "0123456789abcdef".repeat(4);
    let mut request = RunRequest {
        isolation,
        args: vec![b"sleep".to_vec(), b"1".to_vec()],
        ..RunRequest::default()
    };
    change(&mut request);
    let spec = plan(&id, request, ImageDefaults::default(), HOST).unwrap();
    Record {
        row: 1,
        id,
        name: "web".to_owned(),
        image_id: format!("sha256:{}", "0".repeat(64)),
        image_ref: "busybox".to_owned(),
        phase: Phase::Running,
        created_ns: 1,
        started_ns: Some(2),
        finished_ns: Some(1),
        monitor_pid: Some(10),
        pid: Some(20),
        exit_code: Some(3),
        signal: Some(9),
        oom: false,
        error: None,
        restarts: 0,
        stopped: false,
        health: None,
        beginning: None,
        open_ports: Vec::new(),
        endpoints: Vec::new(),
        changed_volumes: Vec::new(),
        spec,
    }
}

fn of(record: &Record) -> Inspect {
    inspect(record, &Config::default(), &roots())
}

#[test]
fn what_was_typed_is_told() {
    let own = |list: &[&str]| {
        list.iter()
            .map(|name| (*name).to_owned())
            .collect::<Vec<_>>()
    };
    let made = record(Isolation::Container, |request| {
        request.cap_add = own(&["net_admin", "CHOWN"]);
        request.cap_drop = own(&["all"]);
        request.ulimits = vec!["nofile=10:-1".parse().unwrap()];
        request.add_host = vec!["db:10.0.0.1".parse().unwrap()];
        request.dns = vec!["10.0.0.2".parse().unwrap()];
        for option in ["no-new-privileges", "systempaths=unconfined"] {
            request.security.apply(option, option.parse().unwrap());
        }
        request.cpus = Some("1.2345678".parse().unwrap());
        request.memory = Some("64m".parse().unwrap());
        request.stop_signal = Some("RTMIN+3".parse().unwrap());
    });
    let host = of(&made).host_config;
    assert_eq!(host.cap_add, Some(own(&["CAP_CHOWN", "CAP_NET_ADMIN"])));
    assert_eq!(host.cap_drop, Some(own(&["ALL"])));
    let limit = Ulimit {
        name: "nofile".to_owned(),
        hard: -1,
        soft: 10,
    };
    assert_eq!(host.ulimits, [limit]);
    assert_eq!(host.extra_hosts, Some(own(&["db:10.0.0.1"])));
    assert_eq!(host.dns, Some(own(&["10.0.0.2"])));
    assert_eq!(host.security_opt, Some(own(&["no-new-privileges"])));
    assert!(host.masked_paths.is_empty() && host.readonly_paths.is_empty());
    assert_eq!((host.nano_cpus, host.memory), (1_234_567_800, 64 << 20));
    assert_eq!(of(&made).config.stop_signal, "SIGRTMIN+3");
    let plain = of(&record(Isolation::Container, |_| {}));
    assert_eq!(
        (plain.host_config.cap_add, plain.host_config.memory),
        (None, 0)
    );
    assert!(
        plain
            .host_config
            .masked_paths
            .contains(&"/proc/kcore".to_owned())
    );
}

#[test]
fn a_microvms_size_is_its_limit() {
    let size = |change: fn(&mut RunRequest)| {
        let host = of(&record(Isolation::Vm, change)).host_config;
        (host.memory, host.nano_cpus)
    };
    assert_eq!(size(|_| {}), (1024 << 20, 2_000_000_000));
    assert_eq!(
        size(|request| {
            request.memory = Some("100000k".parse().unwrap());
            request.cpus = Some("1.5".parse().unwrap());
        }),
        (102_400_000, 1_500_000_000)
    );
    // A limit inside, below what a guest needs.
    assert_eq!(
        size(|request| request.memory = Some("8m".parse().unwrap())).0,
        8 << 20
    );
    // `update` counts.
    let mut updated = record(Isolation::Vm, |request| {
        request.memory = Some("512m".parse().unwrap());
    });
    updated.spec.setup.limits.memory_bytes = 100 << 20;
    assert_eq!(of(&updated).host_config.memory, 100 << 20);
}

#[test]
fn a_container_that_runs_has_a_process_and_no_exit_code() {
    let mut running = record(Isolation::Container, |_| {});
    let state = of(&running).state;
    assert_eq!((state.pid, state.exit_code, state.signal), (20, 0, None));
    assert!(state.running && state.health.is_none());
    assert_eq!(state.started_at, "1970-01-01T00:00:00.000000002Z");
    running.phase = Phase::Exited;
    let state = of(&running).state;
    assert_eq!((state.pid, state.exit_code, state.signal), (0, 3, Some(9)));
    // Before it was ever started.
    running.phase = Phase::Starting;
    running.started_ns = None;
    let state = of(&running).state;
    assert_eq!(
        (&state.status[..], &state.started_at[..], state.running),
        ("created", time::NEVER, false)
    );
    let guest = record(Isolation::Vm, |_| {});
    assert_eq!(of(&guest).state.pid, 10);
    assert_eq!(of(&guest).machine.unwrap().memory_mib, 1024);
}

#[test]
fn who_was_attached_is_told() {
    let attached = |detached: bool| {
        let config = of(&record(Isolation::Container, |request| {
            request.interactive = true;
            request.detached = detached;
        }))
        .config;
        [
            config.open_stdin,
            config.attach_stdin,
            config.attach_stdout,
            config.attach_stderr,
        ]
    };
    assert_eq!(attached(false), [true; 4]);
    assert_eq!(attached(true), [true, false, false, false]);
}

#[test]
fn health_is_told_where_there_are_checks() {
    let mut checked = record(Isolation::Container, |_| {});
    checked.spec.life.health = Some(Check {
        argv: vec!["true".to_owned()],
        ..Check::default()
    });
    let inspect = of(&checked);
    let health = inspect.state.health.unwrap();
    assert_eq!((&health.status[..], health.log.len()), ("starting", 0));
    checked.started_ns = None;
    assert!(of(&checked).state.health.is_none());
    checked.started_ns = Some(2);
    assert_eq!(inspect.config.healthcheck.unwrap().test, ["CMD", "true"]);
}

#[test]
fn an_older_record_is_read() {
    let spec = record(Isolation::Vm, |_| {}).spec;
    let mut value = serde_json::to_value(&spec).unwrap();
    value.as_object_mut().unwrap().remove("typed");
    let spec: ContainerSpec = serde_json::from_value(value).unwrap();
    assert_eq!(spec.typed, crate::plan::Typed::default());
}

/// bollard's models, whose enumerations and numbers are strict, decode what the model says.
mod bollard {
    use super::*;
    use bollard_stubs::models::{
        ContainerInspectResponse, ContainerPruneResponse, ContainerSummary,
        ContainerSummaryStateEnum, ContainerWaitResponse, EventMessage, ExecInspectResponse,
        ImageHistoryResponseItem, ImagePruneResponse, ImageSummary, SystemDataUsageResponse,
        Volume as BollardVolume, VolumePruneResponse,
    };
    use hullbox_backend::network::{OpenPort, PortProtocol};
    use hullbox_model::event::{Action, Actor, Event, Kind, Verb};
    use hullbox_model::exec::ExecInspect;
    use hullbox_model::image::HistoryItem;
    use hullbox_model::system::{
        ContainersPruned, DiskUsage, ImageDeleted, ImagesPruned, Usage, Waited,
    };
    use hullbox_model::volume::{UsageData, Volume, VolumesPruned};
    use serde::Serialize;
    use serde::de::DeserializeOwned;

    fn decode<T: DeserializeOwned>(value: &impl Serialize) -> T {
        let value = serde_json::to_value(value).unwrap();
        serde_json::from_value(value.clone()).unwrap_or_else(|error| panic!("{error}: {value:#}"))
    }

    #[test]
    fn containers_in_every_phase() {
        let restart = "on-failure:2".parse().unwrap();
        for isolation in [Isolation::Vm, Isolation::Container] {
            for phase in [
                Phase::Created,
                Phase::Starting,
                Phase::Running,
                Phase::Paused,
                Phase::Restarting,
                Phase::Exited,
            ] {
                let mut record = record(isolation, |request| {
                    request.tty = true;
                    request.life.restart = restart;
                    request.network.publish = vec!["8080:80".parse().unwrap()];
                    request.network.expose = vec!["53/udp".parse().unwrap()];
                    request.mounts.volumes = vec![
                        "data:/data:ro".parse().unwrap(),
                        "/src:/b:rslave".parse().unwrap(),
                        "/anonymous".parse().unwrap(),
                    ];
                    request.mounts.mounts = vec![
                        "type=tmpfs,dst=/t,tmpfs-mode=700".parse().unwrap(),
                        "type=bind,src=/a,dst=/c,ro,bind-recursive=writable"
                            .parse()
                            .unwrap(),
                        "src=vol,dst=/d,volume-label=a=b,volume-opt=x=y,volume-subpath=z"
                            .parse()
                            .unwrap(),
                    ];
                });
                record.phase = phase;
                record.open_ports = vec![OpenPort {
                    protocol: PortProtocol::Tcp,
                    host_ip: "::".parse().unwrap(),
                    host_port: 8080,
                    container_port: 80,
                }];
                record.spec.life.health = Some(Check::default());
                let whole: ContainerInspectResponse = decode(&of(&record));
                let state = whole.state.unwrap();
                assert_eq!(
                    state.running,
                    Some(matches!(phase, Phase::Running | Phase::Paused))
                );
                let runs = state.running == Some(true);
                let settings = whole.network_settings.unwrap();
                let ports = settings.ports.unwrap();
                assert_eq!(ports.len(), if runs { 2 } else { 0 });
                if runs {
                    let binding = &ports["80/tcp"].as_ref().unwrap()[0];
                    assert_eq!(binding.host_ip.as_deref(), Some("::"));
                    assert!(ports["53/udp"].is_none());
                }
                assert!(settings.networks.unwrap().contains_key("bridge"));
                let mounts = whole.mounts.unwrap();
                assert_eq!(mounts.len(), 6);
                let bound = mounts
                    .iter()
                    .find(|one| one.destination.as_deref() == Some("/b"));
                assert_eq!(bound.unwrap().propagation.as_deref(), Some("rslave"));
                let host = whole.host_config.unwrap();
                assert_eq!(host.binds.unwrap(), ["data:/data:ro", "/src:/b:rslave"]);
                let typed = host.mounts.unwrap();
                let options = typed[2].volume_options.clone().unwrap();
                assert_eq!(options.labels.unwrap()["a"], "b");
                assert_eq!(options.subpath.as_deref(), Some("z"));
                let typed = &host.port_bindings.unwrap()["80/tcp"];
                let typed = &typed.as_ref().unwrap()[0];
                assert_eq!(typed.host_port.as_deref(), Some("8080"));
                let summary = crate::containers::list::summary(&record, 5_000_000_000, &roots());
                let line: ContainerSummary = decode(&summary);
                assert_eq!(line.ports.unwrap().len(), if runs { 2 } else { 0 });
                assert_eq!(line.names, Some(vec!["/web".to_owned()]));
                assert_eq!(line.command.as_deref(), Some("sleep 1"));
                let wanted = match phase {
                    Phase::Created | Phase::Starting => ContainerSummaryStateEnum::CREATED,
                    Phase::Running => ContainerSummaryStateEnum::RUNNING,
                    Phase::Paused => ContainerSummaryStateEnum::PAUSED,
                    Phase::Restarting => ContainerSummaryStateEnum::RESTARTING,
                    Phase::Exited => ContainerSummaryStateEnum::EXITED,
                };
                assert_eq!(line.state, Some(wanted));
            }
        }
    }

    #[test]
    fn listings_and_answers() {
        let container = record(Isolation::Container, |_| {});
        let image = image::Summary {
            id: "sha256:0".to_owned(),
            repo_tags: vec!["a:1".to_owned()],
            shared_size: -1,
            containers: 1,
            ..image::Summary::default()
        };
        let one: ImageSummary = decode(&image);
        assert_eq!(
            (one.shared_size, one.repo_tags.len(), one.labels.len()),
            (-1, 1, 0)
        );
        let mut usage = Usage::default();
        usage.add(10, 4096, false);
        let volume = Volume {
            name: "data".to_owned(),
            driver: "local".to_owned(),
            created_at: "2026-11-30T21:00:00Z".to_owned(),
            scope: "local".to_owned(),
            usage_data: Some(UsageData {
                size: 7,
                ref_count: 1,
            }),
            ..Volume::default()
        };
        let one: BollardVolume = decode(&volume);
        assert_eq!(one.usage_data.unwrap().ref_count, 1);
        let df: SystemDataUsageResponse = decode(&DiskUsage {
            images: vec![image],
            containers: vec![crate::containers::list::summary(&container, 0, &roots())],
            container_usage: usage,
            volumes: vec![volume],
            volume_usage: usage,
            ..DiskUsage::default()
        });
        let containers = df.container_usage.unwrap();
        assert_eq!(
            (containers.total_count, containers.reclaimable),
            (Some(1), Some(10))
        );
        let item: ImageHistoryResponseItem = decode(&HistoryItem {
            created: time::NEVER_S,
            ..HistoryItem::default()
        });
        assert_eq!(item.tags, Vec::<String>::new());
        let pruned: ContainerPruneResponse = decode(&ContainersPruned {
            containers_deleted: vec!["0".to_owned()],
            space_reclaimed: 7,
        });
        assert_eq!(pruned.space_reclaimed, Some(7));
        let pruned: ImagePruneResponse = decode(&ImagesPruned {
            images_deleted: vec![ImageDeleted::Untagged("a:1".to_owned())],
            space_reclaimed: 7,
        });
        assert_eq!(
            pruned.images_deleted.unwrap()[0].untagged.as_deref(),
            Some("a:1")
        );
        let pruned: VolumePruneResponse = decode(&VolumesPruned {
            volumes_deleted: vec!["data".to_owned()],
            space_reclaimed: 7,
        });
        assert_eq!(pruned.volumes_deleted.unwrap(), ["data"]);
        let waited: ContainerWaitResponse = decode(&Waited { status_code: 137 });
        assert_eq!(waited.status_code, 137);
        let exec: ExecInspectResponse = decode(&ExecInspect::default());
        assert_eq!(exec.exit_code, None);
        let action = Action::with(Verb::HealthStatus, "healthy");
        let event = Event::new(Kind::Container, action, Actor::default(), 1);
        let event: EventMessage = decode(&event.to_api());
        assert_eq!(event.action.as_deref(), Some("health_status: healthy"));
    }
}
