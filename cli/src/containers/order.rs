//! What the flags of `run` and `create` ask of the engine.

use super::health;
use crate::args::run::{
    CgroupNamespaceArg, IsolationArg, MountArgs, NetworkArgs, RunArgs, SystemdArg,
};
use crate::args::values::{LogDriver, LogOpt, SecurityOpt};
use crate::output::failure::Failure;
use hullbox_engine::bundle::Isolation;
use hullbox_engine::containers::RunOrder;
use hullbox_engine::plan::life::{Life, LogOptions, Restart};
use hullbox_engine::plan::mounts::MountsRequest;
use hullbox_engine::plan::network::NetworkRequest;
use hullbox_engine::plan::security::{CgroupNamespace, Security, SecurityOption, Systemd};
use hullbox_engine::plan::units::{Label, ValueError};
use hullbox_engine::plan::{RunRequest, environment as variables};
use hullbox_engine::seccomp::Seccomp;
use std::ffi::OsString;
use std::io::Read;
use std::os::unix::ffi::OsStringExt;

/// Largest seccomp profile that is read, in bytes.
const MAX_PROFILE: u64 = 4 << 20;

/// Reads a seccomp profile. The option is kept with the text in place of the path, as Docker shows it
/// in `inspect`.
fn read_profile(path: &str) -> Result<(String, SecurityOption), Failure> {
    let what = || format!("opening seccomp profile ({path}) failed");
    let file = std::fs::File::open(path).map_err(|error| Failure::of(what(), &error))?;
    let mut text = String::new();
    file.take(MAX_PROFILE + 1)
        .read_to_string(&mut text)
        .map_err(|error| Failure::of(what(), &error))?;
    if text.len() as u64 > MAX_PROFILE {
        return Err(Failure::new(format!("{}: it is too long", what())));
    }
    let invalid = |error| Failure::of(format!("seccomp profile ({path}) is invalid"), &error);
    let profile = Seccomp::parse(&text).map_err(invalid)?;
    let option = SecurityOption::Seccomp(Box::new(profile));
    Ok((format!("seccomp={}", text.trim()), option))
}

/// The order for the engine. Reads environment files.
pub(super) fn order(args: RunArgs, detach: bool) -> Result<RunOrder, Failure> {
    let env = environment(&args)?;
    let mut words = args.words.clone().into_iter();
    let image = words.next().unwrap_or_default();
    let image = image.into_string().map_err(|image| {
        Failure::new(format!("invalid reference {:?}", image.to_string_lossy()))
    })?;
    let life = life(&args, detach)?;
    let health = health::check(&args.health)?;
    let security = security(&args)?;
    let labels = labels(&args)?;
    let request = RunRequest {
        cold: args.cold,
        isolation: match args.isolation {
            IsolationArg::Vm => Isolation::Vm,
            IsolationArg::Container => Isolation::Container,
        },
        security,
        args: words.map(OsString::into_vec).collect(),
        entrypoint: args.entrypoint.map(OsString::into_vec),
        env,
        workdir: given(args.workdir),
        user: given(args.user),
        group_add: args.group_add,
        hostname: given(args.hostname),
        interactive: args.interactive,
        detached: detach,
        tty: args.tty,
        terminal_size: None,
        auto_remove: args.rm,
        read_only: args.read_only,
        init: args.init,
        cpus: args.cpus,
        memory: args.memory,
        disk_size: args.storage_opt.last().map(|option| option.size),
        pids_limit: args.pids_limit,
        shm_size: args.shm_size,
        tmpfs: args.tmpfs,
        mounts: mounts(args.mounts)?,
        ulimits: args.ulimit,
        umask: args.umask,
        cap_add: args.cap_add,
        cap_drop: args.cap_drop,
        stop_signal: args.stop_signal,
        add_host: args.add_host,
        dns: args.dns,
        dns_search: args.dns_search,
        dns_option: args.dns_option,
        network: network(args.network),
        sysctls: args.sysctl,
        labels,
        life,
        health,
    };
    Ok(RunOrder {
        image,
        id: args.container_id,
        name: given(args.name).map(|name| without_slash(&name).to_owned()),
        snapshot: args.from_snapshot,
        platform: args.platform.and_then(|platform| platform.0),
        request,
    })
}

/// As in Docker, an empty value is none: scripts pass `--name "$NAME"`.
fn given(value: Option<String>) -> Option<String> {
    value.filter(|value| !value.is_empty())
}

/// A container's name as typed, which may begin with a slash, as it does in Docker's API.
pub(super) fn without_slash(name: &str) -> &str {
    name.strip_prefix('/').unwrap_or(name)
}

fn mounts(mut args: MountArgs) -> Result<MountsRequest, Failure> {
    args.resolve()?;
    Ok(MountsRequest {
        volumes: args.volume,
        mounts: args.mount,
        from: args.volumes_from,
        inherited: Vec::new(),
        driver: given(args.volume_driver),
        outside: args.outside,
    })
}

fn network(args: NetworkArgs) -> NetworkRequest {
    NetworkRequest {
        attachments: args.network,
        aliases: args.network_alias,
        ipv4: args.ip.and_then(|ip| ip.0),
        ipv6: args.ip6.and_then(|ip| ip.0),
        mac_address: args.mac_address.and_then(|mac| mac.0),
        publish: args.publish,
        publish_all: args.publish_all,
        expose: args.expose,
        egress: args.egress,
        rate: args.network_rate,
        joined: None,
        known: Vec::new(),
    }
}

fn security(args: &RunArgs) -> Result<Security, Failure> {
    let mut security = Security {
        privileged: args.privileged,
        devices: args.device.clone(),
        device_rules: args.device_cgroup_rule.clone(),
        cgroup_namespace: match args.cgroupns {
            None | Some(CgroupNamespaceArg::Private) => CgroupNamespace::Private,
            Some(CgroupNamespaceArg::Host) => CgroupNamespace::Host,
        },
        systemd: match args.systemd {
            SystemdArg::True => Systemd::True,
            SystemdArg::False => Systemd::False,
            SystemdArg::Always => Systemd::Always,
        },
        ..Security::default()
    };
    for SecurityOpt(text, option) in &args.security_opt {
        match option {
            SecurityOption::SeccompFile(path) => {
                let (text, option) = read_profile(path)?;
                security.apply(&text, option);
            }
            option => security.apply(text, option.clone()),
        }
    }
    Ok(security)
}

fn life(args: &RunArgs, detach: bool) -> Result<Life, Failure> {
    let restart = args.restart.unwrap_or_default();
    if args.rm && restart != Restart::No {
        return Err(Failure::new("--rm and --restart exclude each other"));
    }
    let mut log = LogOptions {
        keep: args.log_driver != Some(LogDriver::None),
        ..LogOptions::default()
    };
    for option in &args.log_opt {
        match *option {
            LogOpt::MaxSize(bytes) => log.max_size_bytes = bytes,
            LogOpt::MaxFile(count) => log.max_files = count,
            LogOpt::Same => {}
        }
    }
    Ok(Life {
        stop_timeout_s: args.stop_timeout,
        restart,
        log,
        stdin_once: args.interactive && !detach,
        ..Life::default()
    })
}

/// Files first, then flags: what is typed wins.
fn labels(args: &RunArgs) -> Result<Vec<Label>, Failure> {
    let mut labels = Vec::new();
    for path in &args.label_file {
        let what = || format!("cannot read the label file {}", path.display());
        let text = std::fs::read_to_string(path).map_err(|error| Failure::of(what(), &error))?;
        let lines = text.lines().map(str::trim_start);
        for line in lines.filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let label = line.parse();
            labels.push(label.map_err(|error: ValueError| Failure::of(what(), &error))?);
        }
    }
    labels.extend(args.label.iter().cloned());
    Ok(labels)
}

/// Files first, then flags: what is typed wins.
fn environment(args: &RunArgs) -> Result<Vec<Vec<u8>>, Failure> {
    let mut entries = Vec::new();
    for path in &args.env_file {
        entries.extend(variables::from_file(path, &variables::own)?);
    }
    for argument in &args.env {
        let bytes = argument.clone().into_vec();
        entries.push(variables::from_argument(&bytes, &variables::own)?);
    }
    Ok(entries)
}
