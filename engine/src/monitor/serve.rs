//! The monitor's life, from its orders to the container's record.

use super::backend::Backend;
use super::config::receive;
use super::container::Container;
use super::hub::{Hub, Parts};
use super::rules::Ending;
use super::{Config, Prospect};
use crate::bundle::{Bundle, Isolation};
use crate::machine;
use crate::state::{End, State};
use crate::sys::{self, StandardFd};
use crate::vm;
use hullbox_protocol::{ExitStatus, Failure, FailureKind, Frame, Started};
use hullbox_session::connection::Connection;
use hullbox_vmm::Foundation;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::error::Error;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How long the client may take to read the last of the output and the end.
const FLUSH_LIMIT: Duration = Duration::from_secs(10);

/// Runs a monitor to its end. Everything that can be said of failures is said to the client or in
/// the record; what is returned here is for a debugging eye.
///
/// # Errors
/// The process was not started as [`super::spawn`] starts it, or the record cannot be written.
pub fn main() -> io::Result<()> {
    let (client, lock) = take_standard_fds()?;
    // A session of its own: the terminal's signals go to the command line, which passes them on.
    rustix::process::setsid()?;
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let signals = catch_signals()?;
    let orders = UnixStream::from(client.try_clone()?);
    let Some(prospect) = receive::<Prospect>(&orders)? else {
        return Ok(());
    };
    // While a container runs here, no helper machine takes the data directory.
    let direct = machine::hold_directly(&prospect.data).map_err(io::Error::other)?;
    // Whatever goes wrong here goes wrong once more, and is told, when the guest is to start.
    let ahead = prospect
        .guest
        .and_then(|size| vm::prepare(size, &prospect.data).ok());
    prospect.timing.mark("monitor has prepared");
    let Some(mut config) = receive::<Config>(&orders)? else {
        return Ok(());
    };
    // Whoever waits for the connection's end must not wait for this process's.
    drop(orders);
    let timing = config.timing;
    timing.mark("monitor has its orders");
    let roots = config.roots();
    let started = start(&mut config, ahead, client);
    let state = State::open(&roots).map_err(io::Error::other)?;
    let id = config.bundle.id.clone();
    let (ending, cause, client) = match started {
        Ok((backend, client)) => run(backend, &config, client, signals, &state)?,
        Err((failure, client)) => {
            let client = client.and_then(|client| Connection::new(client).ok());
            (Ending::Failed(failure), String::new(), client)
        }
    };
    timing.mark("backend is down");
    // On record before the client hears of it: its next command must find things as told.
    let recorded = state.finish(&id, &end_of(&ending, &cause));
    timing.mark("recorded");
    // From here on the container may be removed, or one day started again; what is left to do,
    // tearing down a microVM's memory for one, is the kernel's work on this process.
    drop(lock);
    tell(client, &ending.frame(&cause));
    state.settle();
    drop(direct);
    recorded.map_err(io::Error::other)
}

type Running = (Box<dyn Backend>, OwnedFd);
type NotStarted = (Failure, Option<OwnedFd>);

fn start(
    config: &mut Config,
    ahead: Option<Foundation>,
    client: OwnedFd,
) -> Result<Running, NotStarted> {
    let failure = |error: &dyn Error| Failure {
        kind: FailureKind::Setup,
        message: chain(error),
    };
    config.bundle.setup.wall_clock_ns = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|now| u64::try_from(now.as_nanos()).ok())
        .unwrap_or(0);
    match config.bundle.isolation {
        Isolation::Vm => {
            let (debug, timing) = (config.debug, config.timing);
            match vm::Guest::start(&mut config.bundle, &config.data, ahead, debug, timing) {
                Ok(guest) => Ok((Box::new(guest), client)),
                Err(error) => Err((failure(&error), Some(client))),
            }
        }
        Isolation::Container => match Container::start(&config.bundle, client) {
            Ok((container, client)) => Ok((Box::new(container), client)),
            Err(error) => Err((failure(&error), None)),
        },
    }
}

fn run(
    mut backend: Box<dyn Backend>,
    config: &Config,
    client: OwnedFd,
    signals: OwnedFd,
    state: &State,
) -> io::Result<(Ending, String, Option<Connection>)> {
    let mut on_start = |_: &Started| {
        // Who asks meanwhile sees a container that starts; its end is recorded all the same.
        let _ = state.set_running(&config.bundle.id, std::process::id());
    };
    let hub = Hub::new(Parts {
        backend: backend.as_mut(),
        client,
        signals,
        opening: opening(&config.bundle),
        timing: config.timing,
        debug: config.debug,
        on_start: &mut on_start,
    })?;
    let (ending, client) = hub.run();
    config.timing.mark("workload ended");
    let orderly = matches!(ending, Ending::Exited(_) | Ending::Failed(_));
    let cause = backend.release(orderly);
    Ok((ending, cause, client))
}

fn opening(bundle: &Bundle) -> Vec<Frame> {
    vec![
        Frame::Setup(Box::new(bundle.setup.clone())),
        Frame::Exec {
            session: 0,
            spec: Box::new(bundle.process.clone()),
        },
    ]
}

fn end_of(ending: &Ending, cause: &str) -> End {
    let error = ending.words(cause);
    match ending {
        Ending::Exited(status) => End {
            exit_code: status.exit_code(),
            signal: match status {
                ExitStatus::Signal { signal, .. } => Some(*signal),
                ExitStatus::Code(_) => None,
            },
            oom: matches!(status, ExitStatus::Signal { oom: true, .. }),
            error,
        },
        Ending::Failed(failure) => End {
            exit_code: failure.exit_code(),
            error,
            ..End::default()
        },
        Ending::Died(_) => End {
            exit_code: 125,
            error,
            ..End::default()
        },
    }
}

/// Sends the last frame behind all output that still waits, as fast as the client reads.
fn tell(client: Option<Connection>, frame: &Frame) {
    let Some(mut client) = client else {
        return;
    };
    if client.send(frame).is_err() {
        return;
    }
    let deadline = Instant::now() + FLUSH_LIMIT;
    while client.flush().is_ok() && client.pending() > 0 && Instant::now() < deadline {
        let mut fds = [PollFd::from_borrowed_fd(client.as_fd(), PollFlags::OUT)];
        let second = Timespec {
            tv_sec: 1,
            tv_nsec: 0,
        };
        if poll(&mut fds, Some(&second)).is_err() {
            return;
        }
    }
}

/// Takes the socket and the lock from descriptors 0 and 1 and leaves /dev/null there.
fn take_standard_fds() -> io::Result<(OwnedFd, OwnedFd)> {
    let null = File::options().read(true).write(true).open("/dev/null")?;
    let take = |fd: StandardFd| sys::standard_fd(fd).try_clone_to_owned();
    let (client, lock) = (take(StandardFd::Input)?, take(StandardFd::Output)?);
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    Ok((client, lock))
}

/// Being told to end is something to read from a descriptor.
fn catch_signals() -> io::Result<OwnedFd> {
    let (ours, theirs) = UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    for signal in [
        signal_hook::consts::SIGTERM,
        signal_hook::consts::SIGINT,
        signal_hook::consts::SIGHUP,
    ] {
        signal_hook::low_level::pipe::register(signal, theirs.try_clone()?)?;
    }
    Ok(ours.into())
}

/// An error with its causes, in one line.
pub(super) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}
