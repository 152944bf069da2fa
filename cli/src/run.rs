//! `run`.

use crate::failure::Failure;
use crate::run_args::RunArgs;
use crate::{forward, system};
use hullbox_engine::containers::{ContainerError, Launch};
use hullbox_engine::paths::Roots;
use hullbox_engine::timing::Timing;
use hullbox_protocol::TerminalSize;
use hullbox_session::client::{AttachError, AttachOptions, Outcome, attach, terminal_size};
use rustix::termios::isatty;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// What a container looks like that its monitor cannot tell about.
const MONITOR_DIED: &str = "the container's monitor was killed";

pub(crate) fn run(args: RunArgs, debug: bool, timing: Timing) -> Result<u8, Failure> {
    let (tty, interactive, sig_proxy) = (args.tty, args.interactive, args.sig_proxy);
    if tty && interactive && !isatty(io::stdin().as_fd()) {
        return Err(Failure::new("the input device is not a terminal")
            .with_hint("leave out -t, or run it from a terminal"));
    }
    let cidfile = args.cidfile.as_deref().map(CidFile::create).transpose()?;
    let mut order = args.order()?;
    order.request.terminal_size = tty.then(own_terminal_size).flatten();
    let roots = Roots::from_env()?;
    let launch = Launch::prepare(&roots, &order.request, debug, timing)?;
    timing.mark("monitor spawned");
    let mut engine = system::open(roots)?;
    let created = engine.create(launch, order).map_err(explain)?;
    timing.mark("container recorded");
    if let Some(file) = cidfile {
        file.write(&created.record.id)?;
    }
    let mut monitor = engine.start(created)?;
    timing.mark("monitor ordered");
    let options = AttachOptions {
        session: 0,
        stdin: interactive,
        tty,
        sig_proxy,
    };
    let outcome = attach(monitor.connection, &[], options, &mut |_| {});
    timing.mark("outcome known");
    let (outcome, output) = match outcome {
        Ok(outcome) => (outcome, None),
        Err(AttachError::Output { outcome, source }) => (*outcome, Some(source)),
        Err(error) => return Err(error.into()),
    };
    match outcome {
        Outcome::Exited(status) => match output {
            // The workload's own end counts, as with a pipe that the shell made.
            Some(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                Err(Failure::of("cannot write the output", &error).with_code(status.exit_code()))
            }
            _ => Ok(status.exit_code()),
        },
        Outcome::Failed(failure) => {
            Err(Failure::new(failure.message.clone()).with_code(failure.exit_code()))
        }
        Outcome::Interrupted(signal) => {
            // The connection is closed, so the monitor kills the workload and tidies up.
            let _ = monitor.process.wait();
            Ok(u8::try_from(signal).map_or(u8::MAX, |signal| 128u8.saturating_add(signal)))
        }
        Outcome::Disconnected => {
            // Reaped, it no longer holds the container's lock.
            let _ = monitor.process.wait();
            engine.recover()?;
            Err(Failure::new(MONITOR_DIED))
        }
    }
}

fn own_terminal_size() -> Option<TerminalSize> {
    terminal_size(io::stdin().as_fd()).or_else(|| terminal_size(io::stdout().as_fd()))
}

fn explain(error: ContainerError) -> Failure {
    let hint = match &error {
        ContainerError::NoImage(_) => Some(
            "there is no registry support yet: load the image with 'hullbox load -i FILE', \
             and see 'hullbox images'"
                .to_owned(),
        ),
        ContainerError::State(hullbox_engine::state::StateError::NameInUse { name, .. }) => Some(
            format!("remove it with 'hullbox rm {name}', or choose another name"),
        ),
        _ => None,
    };
    let failure = Failure::from(error);
    match hint {
        Some(hint) => failure.with_hint(hint),
        None => failure,
    }
}

/// `--cidfile`: made before the container, so that two commands do not share one.
struct CidFile {
    file: File,
    path: PathBuf,
    written: bool,
}

impl Drop for CidFile {
    fn drop(&mut self) {
        if !self.written {
            // No container, no file; one that cannot be removed is empty.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl CidFile {
    fn create(path: &Path) -> Result<Self, Failure> {
        let file = File::options()
            .write(true)
            .create_new(true)
            .mode(0o644)
            .open(path)
            .map_err(|error| {
                if error.kind() == io::ErrorKind::AlreadyExists {
                    Failure::new(format!("the container id file {} exists", path.display()))
                        .with_hint("make sure that the other container is gone, or remove the file")
                } else {
                    Failure::of(format!("cannot create {}", path.display()), &error)
                }
            })?;
        Ok(Self {
            file,
            path: path.to_owned(),
            written: false,
        })
    }

    fn write(mut self, id: &str) -> Result<(), Failure> {
        self.file.write_all(id.as_bytes()).map_err(|error| {
            Failure::of(format!("cannot write {}", self.path.display()), &error)
        })?;
        self.written = true;
        Ok(())
    }
}

/// Whether a command line is to be forwarded with its terminal and input: see [`forward`].
pub(crate) fn wants(args: &RunArgs) -> forward::Streams {
    forward::Streams {
        stdin: args.interactive,
        terminal: args.tty,
    }
}
