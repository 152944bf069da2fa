//! Plays the host to one agent: for looking at the agent with any machine monitor that has a
//! hybrid vsock, QEMU with vhost-device-vsock for instance.
//!
//! ```text
//! host SOCKET [layers=OFFSET:LENGTH,…] [option=value …] -- PROGRAM [ARGUMENT …]
//! ```
//!
//! With the option `machine` it is a client of the helper machine instead and connects to its
//! hybrid socket. Otherwise it listens on `SOCKET`, where the monitor brings the guest's connection to the
//! control port, sends `Setup` and `Exec`, and behaves like `docker run -i`.

use hullbox_protocol::{
    Frame, LayerDisk, MACHINE_PORT, ProcessSpec, RootfsSpec, Setup, TmpfsMount, UserSpec,
    WritableLayer,
};
use hullbox_session::client::{AttachOptions, Outcome, attach, terminal_size};
use std::error::Error;
use std::io::{Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::ExitCode;
use std::time::Instant;

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let socket = arguments.next().ok_or("no socket")?;
    let mut setup = Setup {
        rootfs: RootfsSpec {
            layers: vec![LayerDisk {
                offset_bytes: 0,
                length_bytes: 0,
            }],
            ..RootfsSpec::default()
        },
        hostname: "guest".into(),
        etc_hosts: "127.0.0.1 localhost\n".into(),
        etc_hostname: "guest\n".into(),
        shm_size_bytes: 64 << 20,
        wall_clock_ns: u64::try_from(
            std::time::SystemTime::now()
                .duration_since(std::time::UNIX_EPOCH)?
                .as_nanos(),
        )?,
        ..Setup::default()
    };
    let mut spec = ProcessSpec {
        env: vec![b"PATH=/bin:/usr/bin:/sbin:/usr/sbin".to_vec()],
        cwd: "/".into(),
        stdin: true,
        ..ProcessSpec::default()
    };
    let mut machine = false;
    let mut beside = None;
    for argument in arguments.by_ref().take_while(|argument| argument != "--") {
        let (name, value) = argument.split_once('=').unwrap_or((&argument, ""));
        machine |= name == "machine";
        if name == "beside" {
            beside = Some(value.to_owned());
        }
        option(name, value, &mut setup, &mut spec)?;
    }
    if machine {
        spec.user = UserSpec::Ids {
            uid: 0,
            gid: 0,
            groups: vec![0],
        };
    }
    spec.argv = arguments.map(String::into_bytes).collect();
    let connection = if machine {
        spec.cwd = std::env::current_dir()?.display().to_string();
        connect_to_machine(&socket)?
    } else {
        let _ = std::fs::remove_file(&socket);
        UnixListener::bind(&socket)?.accept()?.0
    };
    let begun = Instant::now();
    if let Some(command) = beside {
        let second = connection.try_clone()?;
        let env = spec.env.clone();
        std::thread::spawn(move || run_beside(second, command, env));
    }
    let options = AttachOptions {
        stdin: spec.stdin,
        tty: spec.terminal.is_some(),
        sig_proxy: true,
        ..AttachOptions::default()
    };
    let exec = Frame::Exec {
        session: 0,
        spec: Box::new(spec),
    };
    let first = if machine {
        vec![exec]
    } else {
        vec![Frame::Setup(Box::new(setup)), exec]
    };
    let mut show = |frame: &Frame| {
        if !matches!(frame, Frame::Credit { .. } | Frame::Eof { .. }) {
            eprintln!("host: {:?} {frame:?}\r", begun.elapsed());
        }
    };
    let outcome = attach(connection.into(), &first, options, &mut show)?;
    Ok(match outcome {
        Outcome::Exited(status) => status.exit_code().into(),
        Outcome::Failed(failure) => failure.exit_code().into(),
        _ => 125.into(),
    })
}

/// Runs a shell command as session 1 a second later; what becomes of it is among the frames.
fn run_beside(mut connection: UnixStream, command: String, env: Vec<Vec<u8>>) {
    std::thread::sleep(std::time::Duration::from_secs(1));
    // `tty:` in front asks for a terminal of its own.
    let (terminal, command) = match command.strip_prefix("tty:") {
        Some(rest) => (Some(hullbox_protocol::TerminalSize::default()), rest),
        None => (None, &*command),
    };
    let spec = ProcessSpec {
        terminal,
        argv: vec![b"sh".to_vec(), b"-c".to_vec(), command.into()],
        env,
        cwd: "/".into(),
        ..ProcessSpec::default()
    };
    let exec = Frame::Exec {
        session: 1,
        spec: Box::new(spec),
    };
    let mut wire = Vec::new();
    if hullbox_protocol::encode_into(&exec, &mut wire).is_ok() {
        let _ = connection.write_all(&wire);
    }
}

fn connect_to_machine(socket: &str) -> Result<UnixStream, Box<dyn Error>> {
    let mut stream = UnixStream::connect(socket)?;
    stream.write_all(format!("CONNECT {MACHINE_PORT}\n").as_bytes())?;
    let mut byte = [0];
    while byte[0] != b'\n' {
        stream.read_exact(&mut byte)?;
    }
    Ok(stream)
}

fn option(
    name: &str,
    value: &str,
    setup: &mut Setup,
    spec: &mut ProcessSpec,
) -> Result<(), Box<dyn Error>> {
    match name {
        "layers" => {
            let layer = |range: &str| -> Result<LayerDisk, Box<dyn Error>> {
                let (offset, length) = range.split_once(':').ok_or("OFFSET:LENGTH")?;
                Ok(LayerDisk {
                    offset_bytes: offset.parse()?,
                    length_bytes: length.parse()?,
                })
            };
            let layers: Result<_, _> = value
                .split(',')
                .filter(|v| !v.is_empty())
                .map(layer)
                .collect();
            setup.rootfs.layers = layers?;
        }
        "machine" | "beside" => {}
        "disk" => setup.rootfs.writable = WritableLayer::Disk,
        "persist" => setup.persist = true,
        "read-only" => setup.rootfs.read_only = true,
        "init" => setup.init = true,
        "tty" => spec.terminal = Some(terminal_size(std::io::stdin().as_fd()).unwrap_or_default()),
        "no-stdin" => spec.stdin = false,
        "memory" => setup.limits.memory_bytes = value.parse()?,
        "pids" => setup.limits.pids = value.parse()?,
        "cpu" => setup.limits.cpu_quota_us = value.parse()?,
        "cwd" => spec.cwd = value.into(),
        "env" => spec.env.push(value.as_bytes().to_vec()),
        "caps" => spec.capabilities = Some(u64::from_str_radix(value, 16)?),
        "sysctl" => {
            let (name, value) = value.split_once('=').ok_or("NAME=VALUE")?;
            setup.sysctls.push((name.into(), value.into()));
        }
        "tmpfs" => {
            let (path, options) = value.split_once(':').unwrap_or((value, ""));
            setup.tmpfs.push(TmpfsMount {
                path: path.into(),
                options: options.into(),
            });
        }
        "user" => {
            spec.user = UserSpec::Named {
                user: value.into(),
                additional_groups: Vec::new(),
            };
        }
        _ => return Err(format!("unknown option {name}").into()),
    }
    Ok(())
}
