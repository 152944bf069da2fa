use super::*;

const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const HOST: HostFacts = HostFacts { cpus: 4 };

fn list(items: &[&str]) -> Vec<Vec<u8>> {
    items.iter().map(|item| item.as_bytes().to_vec()).collect()
}

fn image() -> ImageDefaults {
    ImageDefaults {
        entrypoint: list(&["/entry", "-x"]),
        cmd: list(&["cmd"]),
        env: list(&["PATH=/image/bin", "LANG=C"]),
        user: "www".into(),
        workdir: "/srv".into(),
        stop_signal: Some("SIGQUIT".into()),
        health: None,
        exposed: ports::PortSet::default(),
        volumes: Vec::new(),
        labels: vec![("a".into(), "image".into()), ("b".into(), "image".into())],
    }
}

fn make(request: RunRequest) -> ContainerSpec {
    plan(ID, request, image(), HOST).unwrap()
}

#[test]
fn the_image_gives_defaults() {
    let spec = make(RunRequest::default());
    assert_eq!(spec.process.argv, list(&["/entry", "-x", "cmd"]));
    assert_eq!(
        spec.process.env,
        list(&["PATH=/image/bin", "HOSTNAME=0123456789ab", "LANG=C"])
    );
    assert_eq!(spec.process.cwd, "/srv");
    assert_eq!(spec.stop_signal, 3);
    assert_eq!(spec.setup.hostname, "0123456789ab");
    assert!(spec.setup.persist);
    assert_eq!(spec.setup.rootfs.writable, WritableLayer::Disk);
}

#[test]
fn entrypoint_and_arguments_follow_docker() {
    let argv = |entrypoint: Option<&str>, args: &[&str]| {
        let request = RunRequest {
            entrypoint: entrypoint.map(|text| text.as_bytes().to_vec()),
            args: list(args),
            ..RunRequest::default()
        };
        plan(ID, request, image(), HOST).map(|spec| spec.process.argv)
    };
    assert_eq!(argv(None, &["a"]).unwrap(), list(&["/entry", "-x", "a"]));
    assert_eq!(argv(Some("/e"), &[]).unwrap(), list(&["/e"]));
    assert_eq!(
        argv(Some("/e"), &["a", ""]).unwrap(),
        list(&["/e", "a", ""])
    );
    assert_eq!(argv(Some(""), &["a"]).unwrap(), list(&["a"]));
    assert!(matches!(argv(Some(""), &[]), Err(PlanError::NoCommand)));
}

#[test]
fn typed_environment_wins_and_removes() {
    let spec = make(RunRequest {
        env: list(&["LANG=de", "HOSTNAME=h", "NEW=", "PATH"]),
        tty: true,
        ..RunRequest::default()
    });
    assert_eq!(
        spec.process.env,
        list(&["HOSTNAME=h", "TERM=xterm", "LANG=de", "NEW="])
    );
}

#[test]
fn what_was_configured_is_kept_apart_from_defaults() {
    let spec = make(RunRequest {
        env: list(&["NEW=1"]),
        tty: true,
        ..RunRequest::default()
    });
    let configured = spec.configured().into_owned();
    assert_eq!(
        configured.env,
        list(&["NEW=1", "PATH=/image/bin", "LANG=C"])
    );
    assert_eq!(configured.workdir, "/srv");
    assert_eq!(configured.stop_signal.as_deref(), Some("SIGQUIT"));
    // Another process with and without a terminal.
    assert!(spec.environment(true).contains(&b"TERM=xterm".to_vec()));
    assert!(!spec.environment(false).contains(&b"TERM=xterm".to_vec()));

    // An older record has only the outcome.
    let old = ContainerSpec {
        configured: None,
        ..spec
    };
    assert_eq!(
        old.configured().env,
        list(&["PATH=/image/bin", "NEW=1", "LANG=C"])
    );

    // What an image or somebody says of a default is configured.
    let mut image = image();
    image.env = list(&["HOSTNAME=image", "TERM=dumb"]);
    image.workdir = String::new();
    image.stop_signal = None;
    let request = RunRequest {
        env: list(&["HOSTNAME"]),
        tty: true,
        stop_signal: Some("9".parse().unwrap()),
        ..RunRequest::default()
    };
    let spec = plan(ID, request, image, HOST).unwrap();
    let configured = spec.configured().into_owned();
    assert_eq!(configured.env, list(&["HOSTNAME", "TERM=dumb"]));
    assert_eq!(configured.workdir, "");
    assert_eq!(configured.stop_signal.as_deref(), Some("SIGKILL"));
    assert_eq!(spec.process.env[1..], list(&["TERM=dumb"]));
}

#[test]
fn the_last_limit_of_a_resource_counts() {
    let ulimits = ["nofile=1:2", "core=3", "nofile=5"].map(|text| text.parse().unwrap());
    let spec = make(RunRequest {
        ulimits: ulimits.to_vec(),
        ..RunRequest::default()
    });
    let limits: Vec<_> = spec
        .process
        .rlimits
        .iter()
        .map(|l| (l.resource, l.soft, l.hard))
        .collect();
    assert_eq!(limits, [(4, 3, 3), (7, 5, 5)]);
    // Nobody asked for a limit of processes, so none needs a controller.
    assert_eq!(spec.setup.limits.pids, 0);
}

#[test]
fn guests_get_whole_cpus_and_their_memory() {
    let spec = make(RunRequest::default());
    assert_eq!((spec.vcpus, spec.memory_mib), (2, 1024));
    let spec = make(RunRequest {
        cpus: Some("1.5".parse().unwrap()),
        memory: Some("128m".parse().unwrap()),
        ..RunRequest::default()
    });
    assert_eq!((spec.vcpus, spec.memory_mib), (2, 128));
    assert_eq!(spec.setup.limits.cpu_quota_us, 150_000);
    assert_eq!(spec.setup.limits.memory_bytes, 0);
    let spec = make(RunRequest {
        memory: Some("16m".parse().unwrap()),
        cpus: Some("16".parse().unwrap()),
        ..RunRequest::default()
    });
    assert_eq!((spec.vcpus, spec.memory_mib), (16, 64));
    assert_eq!(spec.setup.limits.memory_bytes, 16 << 20);
    assert_eq!(spec.setup.limits.cpu_quota_us, 0);
}

#[test]
fn groups_get_limits() {
    let request = || RunRequest {
        isolation: Isolation::Container,
        memory: Some("128m".parse().unwrap()),
        ..RunRequest::default()
    };
    let spec = make(RunRequest {
        cpus: Some("2".parse().unwrap()),
        pids_limit: Some(-1),
        ..request()
    });
    assert_eq!(spec.setup.limits.memory_bytes, 128 << 20);
    assert_eq!(spec.setup.limits.cpu_quota_us, 200_000);
    assert_eq!(spec.setup.limits.pids, 0);
    let too_many = RunRequest {
        cpus: Some("5".parse().unwrap()),
        ..request()
    };
    assert!(plan(ID, too_many, image(), HOST).is_err());
}

#[test]
fn nonsense_is_refused() {
    let fails = |request: RunRequest| plan(ID, request, image(), HOST).is_err();
    assert!(fails(RunRequest {
        memory: Some("1m".parse().unwrap()),
        ..RunRequest::default()
    }));
    assert!(fails(RunRequest {
        workdir: Some("rel".into()),
        ..RunRequest::default()
    }));
    assert!(fails(RunRequest {
        hostname: Some("a b".into()),
        ..RunRequest::default()
    }));
    assert!(fails(RunRequest {
        args: vec![vec![b'x'; 3 << 20]],
        ..RunRequest::default()
    }));
    assert!(fails(RunRequest {
        dns_search: vec!["a\nnameserver 6.6.6.6".into()],
        ..RunRequest::default()
    }));
    let mut bad = image();
    bad.stop_signal = Some("SIGNONE".into());
    assert!(plan(ID, RunRequest::default(), bad, HOST).is_err());
}

#[test]
fn labels_of_the_container_win() {
    let spec = make(RunRequest {
        labels: vec!["a=own".parse().unwrap()],
        ..RunRequest::default()
    });
    assert_eq!(spec.labels["a"], "own");
    assert_eq!(spec.labels["b"], "image");
}

#[test]
fn health_checks_of_image_and_command_line_are_merged() {
    use hullbox_image::{HealthCheck, HealthCheckError, HealthTest};
    use std::time::Duration;
    let run = |word: &str| Some(HealthTest::Run(vec![word.to_owned()]));
    let off = || HealthCheck {
        test: Some(HealthTest::Off),
        ..HealthCheck::default()
    };
    let life = |typed: HealthCheck, said: Option<Result<HealthCheck, HealthCheckError>>| {
        let request = RunRequest {
            health: typed,
            ..RunRequest::default()
        };
        let image = ImageDefaults {
            health: said,
            ..image()
        };
        plan(ID, request, image, HOST).map(|spec| spec.life)
    };
    let said = HealthCheck {
        test: run("/image"),
        // Every ten milliseconds is more than an image may ask for.
        interval: Some(Duration::from_millis(10)),
        start_interval: Some(Duration::from_millis(20)),
        retries: Some(7),
        ..HealthCheck::default()
    };
    let typed = HealthCheck {
        timeout: Some(Duration::from_millis(1500)),
        ..HealthCheck::default()
    };
    let health = life(typed.clone(), Some(Ok(said.clone())))
        .unwrap()
        .health
        .unwrap();
    assert_eq!(health.argv, ["/image"]);
    assert_eq!(health.start_interval_ms, 1000);
    assert_eq!(
        (health.interval_ms, health.timeout_ms, health.retries),
        (1000, 1500, 7)
    );
    let typed_test = HealthCheck {
        test: run("/typed"),
        interval: Some(Duration::from_millis(10)),
        ..typed.clone()
    };
    let both = life(typed_test.clone(), Some(Ok(said.clone()))).unwrap();
    // An image that is made of it has what was said, without defaults and bounds.
    let configured = HealthCheck {
        start_interval: said.start_interval,
        retries: Some(7),
        ..typed_test
    };
    assert_eq!(both.check(), Some(configured));
    let health = both.health.unwrap();
    assert_eq!(
        (health.argv[0].as_str(), health.interval_ms),
        ("/typed", 10)
    );
    // Nothing to run: what was typed is kept for an image that is made of the container.
    let kept = life(typed.clone(), None).unwrap();
    assert_eq!((kept.health.is_none(), kept.no_health), (true, false));
    assert_eq!(kept.check(), Some(typed.clone()));
    let kept = life(typed, Some(Ok(off()))).unwrap();
    assert_eq!((kept.health.is_none(), kept.no_health), (true, true));
    let none = life(HealthCheck::default(), None).unwrap();
    assert_eq!((none.check(), none.no_health), (None, false));
    for none in [
        life(off(), Some(Ok(said))),
        life(HealthCheck::default(), Some(Ok(off()))),
    ] {
        let none = none.unwrap();
        assert_eq!((none.health.is_none(), none.check()), (true, Some(off())));
    }
    let wrong = || Some(Err(HealthCheckError::Kind));
    assert!(matches!(
        life(HealthCheck::default(), wrong()),
        Err(PlanError::Health(_))
    ));
    assert!(life(off(), wrong()).is_ok());
}

#[test]
fn a_size_is_for_a_disk_of_its_own() {
    let bytes = |isolation, size| {
        let request = RunRequest {
            isolation,
            disk_size: Some(Bytes(size)),
            ..RunRequest::default()
        };
        plan(ID, request, image(), HOST).map(|spec| spec.disk_bytes)
    };
    assert_eq!(bytes(Isolation::Vm, 20 << 20).unwrap(), Some(20 << 20));
    for (isolation, size) in [
        (Isolation::Vm, 4096),
        (Isolation::Vm, 1 << 40),
        (Isolation::Container, 20 << 20),
    ] {
        assert!(bytes(isolation, size).is_err(), "{isolation:?} {size}");
    }
}
