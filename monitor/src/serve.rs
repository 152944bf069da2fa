//! The monitor's life, from its orders to the container's record.

use super::client::{Client, Role};
use super::config::{Config, Mode, receive};
use super::control::{self, Answer};
use super::health::Checker;
use super::hub::{Hub, Observer, Outcome, Parts};
use super::log::Log;
use super::network::ContainerNetwork;
use super::pipes::ClientPipes;
use super::record::{Lasting, Nothing, Recorder};
use super::rules::Ending;
use super::signals::Signals;
use super::waiting::{self, GOOD_RUN, Waited};
use hullbox_backend::backend::Backend;
use hullbox_backend::bundle::{Bundle, Isolation};
use hullbox_backend::factory::{Factory, Prospect, Start};
use hullbox_backend::network::Network;
use hullbox_host::clock::wall_clock_ns;
use hullbox_host::data_lock::DataLock;
use hullbox_host::privileges::more_descriptors;
use hullbox_host::sys::{self, StandardFd};
use hullbox_host::timing::{Phase, Timing};
use hullbox_plan::life::{Restart, STOP_TIMEOUT_S};
use hullbox_protocol::{ExitStatus, Failure, FailureKind, Frame};
use hullbox_session::direct::{Descriptors, MissingDescriptors, take_descriptors};
use hullbox_state::{End, State};
use rustix::event::{PollFd, PollFlags, poll};
use std::cell::Cell;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

/// The client who started the container.
const STARTER: u64 = 0;

/// Runs a monitor to its end. Failures are sent to the client or recorded; what is returned here is
/// for debugging.
///
/// # Errors
/// The process was not started as [`super::spawn`] starts it, or the record cannot be written.
pub fn main(backends: &dyn Factory) -> io::Result<()> {
    let (client, lock) = take_standard_fds()?;
    // A session of its own: the terminal's signals go to the command line, which passes them on.
    rustix::process::setsid()?;
    // Whoever started it may want its own directory unmounted.
    rustix::process::chdir("/")?;
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    // Each client costs some, and so does each process beside the workload, whose limit is set apart.
    more_descriptors();
    let signals = Signals::catch()?;
    let orders = UnixStream::from(client.try_clone()?);
    let Some((prospect, _)) = receive::<Prospect>(&orders)? else {
        return Ok(());
    };
    let timing = prospect.timing.clone();
    timing.mark(Phase::Monitor);
    // While a container runs here, no helper machine takes the data directory.
    let direct = DataLock::try_shared(&prospect.data)?;
    backends.prepare(&prospect);
    let Some((config, mut received)) = receive::<Config>(&orders)? else {
        return Ok(());
    };
    let mut descriptors = take_descriptors(Some(&mut received), config.streams);
    // Whoever waits for the connection's end must not wait for this process's.
    drop(orders);
    timing.mark(Phase::Orders);
    let mut client = Client::new(STARTER, client, first_role(config.mode))?;
    if let (Isolation::Vm, Ok(descriptors)) = (config.bundle.isolation, &mut descriptors) {
        client.pipes = ClientPipes::of(std::mem::take(descriptors));
    }
    let useless = Cell::new(false);
    let life = Life {
        control: listen(&config)?,
        direct: Cell::new(Some(descriptors)),
        config,
        signals: &signals,
        lock,
        timing,
        backends,
        useless: &useless,
    };
    let (recorded, late) = match life.config.mode {
        Mode::Errand => life.errand(vec![client])?,
        _ => life.live(vec![client])?,
    };
    backends.finish(useless.get());
    drop(direct);
    linger(late, &signals);
    recorded
}

const fn first_role(mode: Mode) -> Role {
    match mode {
        Mode::Foreground | Mode::Errand => Role::attached(true),
        Mode::Attached { .. } => Role::attached(false),
        Mode::Detached => Role::Starter,
    }
}

/// Where other commands reach this monitor. An errand is nobody's business.
fn listen(config: &Config) -> io::Result<Option<UnixListener>> {
    if config.mode == Mode::Errand {
        return Ok(None);
    }
    let path = control::socket_path(&config.bundle.runtime_dir);
    // One that was killed left its own.
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    listener.set_nonblocking(true)?;
    Ok(Some(listener))
}

struct Life<'a> {
    config: Config,
    control: Option<UnixListener>,
    signals: &'a Signals,
    lock: OwnedFd,
    timing: Timing,
    backends: &'a dyn Factory,
    /// The other ends of streams of the first run's workload.
    direct: Cell<Option<Result<Descriptors, MissingDescriptors>>>,
    /// A template was found, and was of no use.
    useless: &'a Cell<bool>,
}

/// One run of the workload, and what it left.
struct Ran {
    ending: Ending,
    cause: String,
    clients: Vec<Client>,
    manual: bool,
    stopped: bool,
}

impl Ran {
    /// It did not come as far as its workload.
    const fn failed(failure: Failure, clients: Vec<Client>) -> Self {
        Self {
            ending: Ending::Failed(failure),
            cause: String::new(),
            clients,
            manual: false,
            stopped: false,
        }
    }
}

/// Restarts by the policy.
#[derive(Debug, Clone, Copy, Default)]
struct Restarts {
    total: u32,
    /// Runs in a row that were short.
    short_runs: u32,
}

impl Restarts {
    /// One more, after a run of this length.
    fn count(&mut self, ran: Duration) {
        self.total = self.total.saturating_add(1);
        self.short_runs = match ran < GOOD_RUN {
            true => self.short_runs.saturating_add(1),
            false => 0,
        };
    }

    /// How long to wait before the next run.
    fn pause(self) -> Duration {
        waiting::pause(self.short_runs)
    }
}

/// Whether the end is on record, and clients that have not read all there is for them.
type Ended = (io::Result<()>, Vec<Client>);

impl Life<'_> {
    /// Runs the workload, and again where the restart policy has it so, and records how it ended.
    fn live(self, mut clients: Vec<Client>) -> io::Result<Ended> {
        let config = &self.config;
        let mut lasting = Lasting::new(config);
        let mut restarts = Restarts::default();
        let mut state = None;
        loop {
            let begun = Instant::now();
            let mut bundle = config.bundle.clone();
            // What was changed meanwhile holds from now on.
            bundle.setup.limits = lasting.limits;
            if let Some(networks) = &lasting.networks {
                bundle.network = Network::User(networks.user.clone());
                networks.set_up(&mut bundle.setup);
            }
            let started = self.start(bundle);
            // While a guest boots there is time for this.
            let state = match &mut state {
                Some(state) => state,
                none => none.insert(State::open(&config.roots()).map_err(io::Error::other)?),
            };
            let mut recorder = Recorder {
                state,
                roots: config.roots(),
                config,
                lasting: &mut lasting,
                started: None,
                oom: None,
            };
            let mut ran = self.run(started, clients, &mut recorder)?;
            let mut end = end_of(&ran.ending, &ran.cause);
            end.stopped = ran.manual;
            recorder.died(&mut end, ran.stopped);
            if self.restarts_after(&ran, &end, recorder.lasting.restart, restarts.total) {
                restarts.count(begun.elapsed());
                if self.rest(&mut ran, &end, restarts, &mut recorder) {
                    clients = ran.clients;
                    continue;
                }
                end.stopped = true;
            }
            let held = (self.lock, self.control);
            return Ok(finish(ran, &end, recorder, &self.timing, held));
        }
    }

    /// Whether the restart policy has the workload started again, which ended like this.
    fn restarts_after(&self, ran: &Ran, end: &End, policy: Restart, restarts: u32) -> bool {
        !ran.manual
            && !self.config.auto_remove
            && matches!(ran.ending, Ending::Exited(_) | Ending::Died(_))
            && policy.applies(end.exit_code, restarts)
    }

    /// Answers clients of the run that ended, and waits until the next one is due. False if there is
    /// to be none after all.
    fn rest(
        &self,
        ran: &mut Ran,
        end: &End,
        restarts: Restarts,
        recorder: &mut Recorder<'_>,
    ) -> bool {
        let id = &self.config.bundle.id;
        // Where it fails, the record is that of the time before.
        let _ = recorder.state.set_restarting(id, end, restarts.total);
        let frame = ran.ending.frame(&ran.cause);
        // Those who wait for the end have not seen it yet.
        let (waiting, others) = std::mem::take(&mut ran.clients)
            .into_iter()
            .partition(|client| matches!(client.role, Role::Watcher));
        ran.clients = waiting;
        // Who has not read it all stays among the others until then.
        let late = send_outcome(others, &frame, end.exit_code, &self.timing);
        ran.clients.extend(late);
        match self.pause(restarts.pause(), &mut ran.clients, recorder) {
            // Another policy may have come meanwhile.
            Waited::Over => recorder.lasting.restart != Restart::No,
            Waited::Stopped => {
                recorder.stopped();
                false
            }
            Waited::Unwanted => false,
        }
    }

    /// Runs something else in the container's place, of which nothing is recorded.
    fn errand(self, clients: Vec<Client>) -> io::Result<Ended> {
        let started = self.start(self.config.bundle.clone());
        let ran = self.run(started, clients, &mut Nothing)?;
        let state = State::open(&self.config.roots()).map_err(io::Error::other)?;
        let recorded = state.end_errand(&self.config.bundle.id);
        drop(self.lock);
        let code = end_of(&ran.ending, &ran.cause).exit_code;
        let frame = ran.ending.frame(&ran.cause);
        let late = send_outcome(ran.clients, &frame, code, &self.timing);
        Ok((recorded.map_err(io::Error::other), late))
    }

    /// Waits before a restart.
    fn pause(
        &self,
        pause: Duration,
        clients: &mut Vec<Client>,
        observer: &mut dyn Observer,
    ) -> Waited {
        match &self.control {
            Some(control) => waiting::wait(pause, control.as_fd(), self.signals, clients, observer),
            None => Waited::Unwanted,
        }
    }

    /// How long a stop may take that nobody gave a time for: as `stop` has it.
    fn stop_timeout(&self) -> Option<Duration> {
        // What we do ourselves has nothing to bring to an end.
        if self.config.mode == Mode::Errand {
            return Some(Duration::ZERO);
        }
        let seconds = self.config.life.stop_timeout_s;
        let seconds = seconds.unwrap_or_else(|| STOP_TIMEOUT_S.into());
        u64::try_from(seconds).ok().map(Duration::from_secs)
    }

    fn start(&self, mut bundle: Bundle) -> Result<(Box<dyn Backend>, Bundle), Failure> {
        let streams = self
            .direct
            .take()
            .unwrap_or_else(|| Ok(Descriptors::default()));
        let streams = streams.map_err(|missing| Failure {
            kind: FailureKind::Setup,
            message: missing.to_string(),
        })?;
        bundle.setup.wall_clock_ns = wall_clock_ns();
        bundle.setup.timed = self.timing.is_on();
        let start = Start {
            data: &self.config.data,
            lock: self.lock.as_fd(),
            streams,
            debug: self.config.debug,
            timing: &self.timing,
        };
        let backend = self.backends.start(&mut bundle, start)?;
        Ok((backend, bundle))
    }

    fn run(
        &self,
        started: Result<(Box<dyn Backend>, Bundle), Failure>,
        mut clients: Vec<Client>,
        observer: &mut dyn Observer,
    ) -> io::Result<Ran> {
        let (mut backend, bundle) = match started {
            Ok(started) => started,
            Err(failure) => return Ok(Ran::failed(failure, clients)),
        };
        let mut network = ContainerNetwork::new(&bundle, backend.members());
        match network.open() {
            Ok(ports) if ports.is_empty() => {}
            Ok(ports) => {
                self.timing.mark(Phase::Network);
                observer.opened(&ports);
            }
            Err(failure) => {
                // It knows nothing of its workload yet.
                backend.kill();
                backend.release(false);
                return Ok(Ran::failed(failure, clients));
            }
        }
        if let Some(warning) = backend.warning() {
            for client in &mut clients {
                client.warn(&warning);
            }
        }
        let config = &self.config;
        let life = &config.life;
        let health = life.health.clone();
        let hub = Hub::new(Parts {
            backend: backend.as_mut(),
            clients,
            control: self.control.as_ref().map(AsFd::as_fd),
            signals: self.signals,
            opening: opening(&bundle),
            timing: &self.timing,
            debug: config.debug,
            log: config.keeps_log().then(|| Log::new(&bundle.dir, life.log)),
            network: &mut network,
            health: health
                .map(|health| Checker::new(health, &bundle.process, observer.health_log())),
            stdin_once: life.stdin_once || config.mode == Mode::Errand,
            writes: config.mode != Mode::Attached { stdin: false },
            direct: !config.streams.is_empty(),
            stop_signal: config.stop_signal,
            stop_timeout: self.stop_timeout(),
            observer,
        })?;
        let Outcome {
            ending,
            orderly,
            clients,
            manual,
            stopped,
        } = hub.run();
        self.timing.mark(Phase::Exit);
        observer.refused_in_all(network.refused_in_all());
        // It ends while the backend does.
        network.close();
        if backend.found_useless_template() {
            self.useless.set(true);
        }
        // What may be started again must be down first.
        let last = manual || config.auto_remove || observer.policy() == Restart::No;
        let cause = backend.release(orderly && last);
        // Its ports are free before anybody hears of the end.
        drop(network);
        self.timing.mark(Phase::Cleanup);
        Ok(Ran {
            ending,
            cause,
            clients,
            manual,
            stopped,
        })
    }
}

/// Records the end, lets go of the container's lock and socket, and answers all clients.
fn finish(
    ran: Ran,
    end: &End,
    recorder: Recorder<'_>,
    timing: &Timing,
    held: (OwnedFd, Option<UnixListener>),
) -> Ended {
    let config = recorder.config;
    // On record before clients are answered: their next command must find things as the answer has them.
    if !config.auto_remove {
        recorder.keep();
    }
    let recorded = recorder.state.finish(&config.bundle.id, end);
    if config.auto_remove {
        recorder.destroyed(recorded.as_deref().unwrap_or_default());
    }
    timing.mark(Phase::Record);
    // From here on the container may be removed or started again; what is left to do, tearing down a
    // microVM's memory for one, is the kernel's work on this process.
    drop(held);
    let frame = ran.ending.frame(&ran.cause);
    let late = send_outcome(ran.clients, &frame, end.exit_code, timing);
    recorder.state.settle();
    (recorded.map(drop).map_err(io::Error::other), late)
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
            stopped: false,
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

/// Sends each client how it ended, behind all output that still waits. What the kernel keeps for them
/// they find there whenever they read; returned are those that have to read first.
pub(super) fn send_outcome(
    mut clients: Vec<Client>,
    frame: &Frame,
    exit_code: u8,
    timing: &Timing,
) -> Vec<Client> {
    for client in &mut clients {
        if client.id == STARTER {
            client.send_timing(timing);
        }
        let sent = match client.role {
            Role::Attached { .. } | Role::Starter => client.send(frame),
            Role::Stopper => {
                client.answer(&Answer::Done);
                Ok(())
            }
            Role::Exec { .. } => client.send(&gone()),
            Role::Asked => {
                client.answer(&Answer::Failed("the container has ended".to_owned()));
                Ok(())
            }
            Role::Watcher => {
                client.answer(&Answer::Ended(exit_code));
                Ok(())
            }
            Role::Asking | Role::Holding | Role::Leaving => Ok(()),
        };
        // One that cannot be reached sees its connection end.
        drop(sent);
        client.role = Role::Leaving;
    }
    clients.retain_mut(|client| client.flush_with_room().is_ok() && client.is_waiting());
    clients
}

/// Stays until all have read what is left for them, or are gone. A client may have been stopped, for
/// however long. The container is none of this process's any more.
pub(super) fn linger(mut clients: Vec<Client>, signals: &Signals) {
    loop {
        // One that was killed may have left frames here that wait for pipes which others read.
        clients.retain_mut(|client| {
            client.flush().is_ok() && client.is_waiting() && !client.has_hung_up()
        });
        if clients.is_empty() {
            return;
        }
        let mut fds = vec![PollFd::new(signals, PollFlags::IN)];
        for client in &clients {
            fds.extend(client.awaited());
        }
        match poll(&mut fds, None) {
            Ok(_) if fds[0].revents().is_empty() => {}
            Err(rustix::io::Errno::INTR) => {}
            // A signal to end, as at a host's shutdown.
            _ => return,
        }
    }
}

/// What a process beside the workload died of when the container ended.
const fn gone() -> Frame {
    Frame::Exited {
        session: 0,
        status: ExitStatus::Signal {
            signal: 9,
            oom: false,
        },
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
