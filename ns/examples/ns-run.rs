//! Runs a program in a namespace container of given layer images, without the rest of Hullbox:
//! for tests of container mode and for measuring it.
//!
//! ```text
//! ns-run -l layer.erofs [-l …] -d DIR [-e K=V] [-u USER] [-w DIR] [-i] [-t] [--init] … -- CMD…
//! ns-run -d DIR --cleanup
//! ns-run -l … -d DIR --serve … -- CMD…     what the monitor hears, on the socket that is stdin
//! ```
//!
//! With `--network user` this process serves the container's network (but with `--serve`, where nobody
//! does), whose gateway leads to the host's loopback.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a tool for developers"
)]

use hullbox_backend::bundle::{Bundle, Isolation};
use hullbox_backend::network::{Network, PortProtocol, PublishedPort, UserNetwork};
use hullbox_host::error::chain;
use hullbox_net as net;
use hullbox_ns as ns;
use hullbox_ns::sys::{Forked, fork_alone};
use hullbox_protocol::{
    Addresses, Builtin, Frame, Interface, ProcessSpec, Setup, TerminalSize, TmpfsMount, UserSpec,
    WritableLayer,
};
use hullbox_security::seccomp::Seccomp;
use hullbox_session::client::{AttachOptions, Outcome, attach};
use hullbox_session::direct::Descriptors;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::ExitCode;

/// Docker's fourteen.
const CAPABILITIES: u64 = 0xa804_25fb;

fn main() -> ExitCode {
    let (bundle, cleanup, serve) = parse();
    std::fs::create_dir_all(&bundle.runtime_dir).unwrap();
    if cleanup {
        ns::cleanup(&bundle).unwrap();
        return ExitCode::SUCCESS;
    }
    let entered = match ns::network::enter(&bundle) {
        Ok(entered) => entered,
        Err(error) => {
            eprintln!("ns-run: {}", chain(&error));
            return ExitCode::from(125);
        }
    };
    if serve {
        let socket = std::io::stdin().as_fd().try_clone_to_owned().unwrap();
        ns::run(&bundle, socket.into(), Descriptors::default()).unwrap();
        // The interface was there until now.
        entered.leave().unwrap();
        return ExitCode::SUCCESS;
    }
    let (ours, theirs) = UnixStream::pair().unwrap();
    let Forked::Parent(supervisor) = fork_alone().unwrap() else {
        drop(ours);
        if let Err(e) = ns::run(&bundle, theirs, Descriptors::default()) {
            eprintln!("ns-run: {e}");
        }
        std::process::exit(0);
    };
    drop(theirs);
    let taps = entered.leave().unwrap();
    if let (Some(tap), Some(interface)) = (taps.into_iter().next(), bundle.setup.interfaces.first())
    {
        serve_network(tap, interface);
    }
    let options = AttachOptions {
        stdin: bundle.process.stdin,
        tty: bundle.process.terminal.is_some(),
        sig_proxy: true,
        ..AttachOptions::default()
    };
    let frames = [
        Frame::Setup(Box::new(bundle.setup.clone())),
        Frame::Exec {
            session: 0,
            spec: Box::new(bundle.process.clone()),
        },
    ];
    let outcome = attach(ours.into(), &frames, options, &mut |_| ());
    // Until then, things are still being removed.
    rustix::process::waitpid(Some(supervisor), rustix::process::WaitOptions::empty()).unwrap();
    match outcome {
        Ok(Outcome::Exited(status)) => {
            if format!("{status:?}").contains("oom: true") {
                eprintln!("ns-run: out of memory");
            }
            ExitCode::from(status.exit_code())
        }
        Ok(Outcome::Failed(failure)) => {
            eprintln!("ns-run: {}", failure.message);
            ExitCode::from(failure.exit_code())
        }
        other => {
            eprintln!("ns-run: {other:?}");
            ExitCode::from(125)
        }
    }
}

/// Serves the network until this process ends.
fn serve_network(tap: OwnedFd, interface: &Interface) {
    let mut config = net::NetworkConfig::new(net::Mac(interface.gateway_mac));
    let ipv4 = interface.ipv4.unwrap();
    let ipv6 = interface.ipv6.unwrap();
    config.ipv4 = Some(net::Subnet {
        gateway: ipv4.gateway.unwrap(),
        prefix: ipv4.prefix,
    });
    config.ipv6 = Some(net::Subnet {
        gateway: ipv6.gateway.unwrap(),
        prefix: ipv6.prefix,
    });
    let (network, control) = net::Network::new(config).unwrap();
    let member = net::MemberConfig {
        ipv4: Some(ipv4.address),
        ipv6: Some(ipv6.address),
        host_gateway: true,
        ..net::MemberConfig::new(net::Mac(interface.mac), net::LinkFd::Tap(tap))
    };
    std::thread::spawn(move || network.run().unwrap());
    control.add_member(member).unwrap();
    // What is dropped would end the network.
    std::mem::forget(control);
}

fn network(word: &str, setup: &mut Setup) -> Network {
    match word.split_once(':') {
        Some(("container", id)) => Network::Container(id.to_owned()),
        _ if word == "host" => Network::Host,
        _ if word == "user" => {
            setup.interfaces.push(Interface {
                mac: [2, 1, 2, 3, 4, 5],
                mtu: 65520,
                ipv4: Some(Addresses {
                    address: [10, 0, 2, 2].into(),
                    prefix: 24,
                    gateway: Some([10, 0, 2, 1].into()),
                }),
                ipv6: Some(Addresses {
                    address: [0xfd48, 0x554c, 0x4c42, 0, 0, 0, 0, 2].into(),
                    prefix: 64,
                    gateway: Some([0xfd48, 0x554c, 0x4c42, 0, 0, 0, 0, 1].into()),
                }),
                gateway_mac: [2, 0x48, 0x55, 0x4c, 0x4c, 1],
                route_metric: Some(0),
            });
            Network::User(UserNetwork::default())
        }
        _ => panic!("unknown network {word}"),
    }
}

fn parse() -> (Bundle, bool, bool) {
    let mut args = std::env::args().skip(1);
    let mut bundle = empty();
    let mut dir = PathBuf::from("/tmp/ns-run");
    let mut user = String::new();
    let mut groups = Vec::new();
    let mut cleanup = false;
    let mut serve = false;
    let (setup, process) = (&mut bundle.setup, &mut bundle.process);
    while let Some(arg) = args.next() {
        let mut value = || args.next().expect("a value");
        match arg.as_str() {
            "-l" => bundle.layers.push(value().into()),
            "-d" => dir = value().into(),
            "-e" => process.env.push(value().into_bytes()),
            "-u" => user = value(),
            "-w" => process.cwd = value(),
            "-i" => process.stdin = true,
            "-t" => {
                process.terminal = Some(TerminalSize {
                    rows: 24,
                    columns: 80,
                })
            }
            "-h" => setup.hostname = value(),
            "-m" => setup.limits.memory_bytes = value().parse().unwrap(),
            "--group-add" => groups.push(value()),
            "--pids" => setup.limits.pids = value().parse().unwrap(),
            "--cpu-quota" => setup.limits.cpu_quota_us = value().parse().unwrap(),
            "--init" => setup.init = true,
            "--read-only" => setup.rootfs.read_only = true,
            "--memory-layer" => setup.rootfs.writable = WritableLayer::Memory,
            "--hosts" => setup.etc_hosts = value(),
            "--resolv" => setup.etc_resolv_conf = value(),
            "--tmpfs" => {
                let text = value();
                let (path, options) = text.split_once(':').unwrap_or((&text, ""));
                let (path, options) = (path.to_owned(), options.to_owned());
                setup.tmpfs.push(TmpfsMount { path, options });
            }
            "--network" => bundle.network = network(&value(), setup),
            // The monitor opens it; here it is only that there is one.
            "--publishes" => {
                let Network::User(network) = &mut bundle.network else {
                    panic!("--publishes comes after --network user");
                };
                network.ports.push(PublishedPort {
                    protocol: PortProtocol::Tcp,
                    host_ip: None,
                    host_ports: (0, 0),
                    container_port: 80,
                });
            }
            "--sysctl" => {
                let text = value();
                let (name, value) = text.split_once('=').unwrap();
                setup.sysctls.push((name.to_owned(), value.to_owned()));
            }
            "--caps" => process.capabilities = u64::from_str_radix(&value(), 16).ok(),
            "--no-new-privs" => process.no_new_privileges = true,
            "--cleanup" => cleanup = true,
            "--serve" => serve = true,
            "--builtin" => {
                process.builtin = Some(match value().as_str() {
                    "pause" => Builtin::Pause,
                    "changes" => Builtin::Changes,
                    "layer" => Builtin::Layer,
                    "export" => Builtin::Export,
                    other => panic!("unknown builtin {other}"),
                });
            }
            "--" => break,
            other => panic!("unknown option {other}"),
        }
    }
    process.argv = args.map(String::into_bytes).collect();
    process.user = UserSpec::Named {
        user,
        additional_groups: groups,
    };
    let capabilities = bundle.process.capabilities.unwrap_or(u64::MAX);
    bundle.setup.access.filter = Seccomp::Default.filter(Isolation::Container, capabilities, false);
    let name = dir.file_name().unwrap().to_string_lossy();
    let name: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
    bundle.id = format!("ns-run-{name}");
    bundle.runtime_dir = dir.join("run");
    bundle.dir = dir;
    (bundle, cleanup, serve)
}

fn empty() -> Bundle {
    Bundle {
        mounts: Vec::new(),
        devices: Vec::new(),
        id: String::new(),
        isolation: Isolation::Container,
        dir: PathBuf::new(),
        runtime_dir: PathBuf::new(),
        layers: Vec::new(),
        setup: Setup {
            rootfs: hullbox_protocol::RootfsSpec {
                writable: WritableLayer::Disk,
                ..Default::default()
            },
            ..Setup::default()
        },
        process: ProcessSpec {
            env: vec![
                b"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_vec(),
            ],
            capabilities: Some(CAPABILITIES),
            ..ProcessSpec::default()
        },
        vcpus: 1,
        memory_mib: 0,
        disk_bytes: None,
        serial_log: None,
        network: Default::default(),
    }
}
