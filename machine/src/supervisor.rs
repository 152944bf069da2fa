//! The machine's own process on the host: starts QEMU and its helpers, and ends with them.
//!
//! It is started detached by whoever needs the machine first, reports on its standard output once
//! the agent is up (or why it is not), and then lives until one of its children ends or somebody
//! sends it SIGTERM. Killed outright, it takes its children with it: the kernel sends each of them
//! SIGKILL (`PR_SET_PDEATHSIG`). It holds the machine's lock until it has removed the machine's files,
//! and QEMU holds it as well, so that the lock is free only when the disk is no longer in use.

use super::connect;
use super::log::BoundedLog;
use super::plan::{HIDDEN_COMMAND, Plan, RuntimeFiles, qemu_arguments};
use super::services::{self, Service, Services};
use super::state::Record;
use super::vsock;
use hullbox_host::clock::{self, Clock, wall_clock_ns};
use hullbox_host::privileges::{GoOnAs, give_up_privileges};
use hullbox_protocol::{Frame, MACHINE_PORT, MACHINE_READY_PORT, Request, encode_into};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::BorrowedFd;
use rustix::io::{Errno, FdFlags, fcntl_setfd};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::ffi::OsString;
use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// From asking the machine to end until it is made to.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(15);
/// From the second machine's first process to its agent's report.
const LAST_START_LIMIT: Duration = Duration::from_secs(300);

/// What the starter reads on the supervisor's standard output.
pub const READY: &str = "ready";

struct Process {
    name: &'static str,
    child: Child,
    handle: OwnedFd,
}

struct Supervisor {
    plan: Plan,
    files: RuntimeFiles,
    record: Record,
    log: BoundedLog,
    output: OwnedFd,
    /// What the processes write to.
    output_write: OwnedFd,
    terminate: UnixStream,
    ready: UnixListener,
    services: Services,
    processes: Vec<Process>,
    started: Instant,
    deadline: Option<Instant>,
    /// Nothing has been heard of a first machine, and a second may be started.
    may_start_again: bool,
    /// Held open while the agent shuts down.
    goodbye: Option<UnixStream>,
    clock: Clock,
    /// The machine's lock, held until everything of it is removed: the next machine's files have the
    /// same names.
    lock: OwnedFd,
}

/// Runs the machine whose plan is on standard input.
///
/// # Errors
/// What kept the machine from starting, or from going on. It was reported to the starter.
pub fn run() -> io::Result<()> {
    let result = start();
    let report = |text: &str| {
        // The starter may be gone.
        let _ = writeln!(io::stdout(), "{}", text.replace('\n', " "));
    };
    let mut supervisor = match result {
        Ok(supervisor) => supervisor,
        Err(error) => {
            report(&error.to_string());
            return Err(error);
        }
    };
    let outcome = supervisor.supervise();
    supervisor.end_processes();
    if !supervisor.record.ready {
        report(&supervisor.reason());
    }
    supervisor.clean_up();
    outcome
}

fn start() -> io::Result<Supervisor> {
    // Fails only for a group leader, which then is detached enough.
    let _ = rustix::process::setsid();
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let mut text = Vec::new();
    io::stdin().read_to_end(&mut text)?;
    let plan: Plan = serde_json::from_slice(&text)?;
    hullbox_host::sys::set_cloexec_from_3()?;
    rustix::stdio::dup2_stdin(fs::File::open("/dev/null")?)?;
    let files = RuntimeFiles::new(plan.runtime.clone());
    let (terminate, terminate_write) = UnixStream::pair()?;
    signal_hook::low_level::pipe::register(libc::SIGTERM, terminate_write)?;
    let (output, output_write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    rustix::io::ioctl_fionbio(&output, true)?;
    let mut supervisor = Supervisor {
        record: Record::of_this_process(&plan),
        log: BoundedLog::create(&files.log())?,
        ready: listen(&files.vsock_port(MACHINE_READY_PORT))?,
        services: Services::on_listeners(
            [
                listen(&Service::Network.socket(&files))?,
                listen(&Service::Files.socket(&files))?,
            ],
            crate::machine::grants_in(&plan.data),
        )?,
        output,
        output_write,
        terminate,
        processes: Vec::new(),
        started: Instant::now(),
        deadline: None,
        may_start_again: true,
        goodbye: None,
        // A session now and then would keep the machine from ever being idle.
        clock: Clock::new(clock::NEVER_S)?,
        // The kernel gave this number to us alone; see the starter.
        lock: crate::sys::inherited_fd(plan.lock_fd)?,
        plan,
        files,
    };
    supervisor.ready.set_nonblocking(true)?;
    supervisor.record.save(&supervisor.files)?;
    // Whatever fails from here on: children die with us.
    supervisor.spawn_all()?;
    Ok(supervisor)
}

/// A listening socket in place of whatever an earlier machine left there.
fn listen(path: &Path) -> io::Result<UnixListener> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    UnixListener::bind(path)
}

impl Supervisor {
    fn spawn_all(&mut self) -> io::Result<()> {
        self.started = Instant::now();
        let share = listen(&self.files.share_backend())?;
        let staging = self.files.share_root();
        match fs::create_dir(&staging) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let mut args: Vec<OsString> = vec![
            "share".into(),
            share.as_raw_fd().to_string().into(),
            staging.into(),
        ];
        args.extend(self.plan.volumes.iter().map(OsString::from));
        self.spawn("share", args, &[share.as_fd()])?;
        drop(share);

        let backend = listen(&self.files.vsock_backend())?;
        let sessions = listen(&self.files.vsock())?;
        let args = vsock::arguments(&self.files, backend.as_fd(), sessions.as_fd());
        self.spawn("vsock", args, &[backend.as_fd(), sessions.as_fd()])?;
        drop((backend, sessions));

        let mut args: Vec<OsString> = vec!["exec".into(), self.plan.qemu.clone().into()];
        args.extend(qemu_arguments(&self.plan));
        let lock = self.lock.try_clone()?;
        self.spawn("qemu", args, &[lock.as_fd()])
    }

    /// Starts one of our own hidden entry points, which becomes the program.
    fn spawn(
        &mut self,
        name: &'static str,
        args: Vec<OsString>,
        inherited: &[BorrowedFd<'_>],
    ) -> io::Result<()> {
        let set_inheritable = |flags| -> io::Result<()> {
            for fd in inherited {
                fcntl_setfd(fd, flags)?;
            }
            Ok(())
        };
        // No other thread starts programs in this process.
        set_inheritable(FdFlags::empty())?;
        let child = Command::new("/proc/self/exe")
            .arg(HIDDEN_COMMAND)
            .arg("child")
            .arg(std::process::id().to_string())
            .args(args)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(self.output_write.try_clone()?)
            .stderr(self.output_write.try_clone()?)
            .spawn();
        set_inheritable(FdFlags::CLOEXEC)?;
        let child = child?;
        let pid = Pid::from_child(&child);
        let handle = pidfd_open(pid, PidfdFlags::empty())?;
        self.processes.push(Process {
            name,
            child,
            handle,
        });
        Ok(())
    }

    /// Until a process ends.
    fn supervise(&mut self) -> io::Result<()> {
        self.deadline = Some(self.started + Duration::from_secs(self.plan.start_s));
        loop {
            let mut fds = vec![
                PollFd::new(&self.output, PollFlags::IN),
                PollFd::new(&self.terminate, PollFlags::IN),
                PollFd::new(&self.ready, PollFlags::IN),
                PollFd::from_borrowed_fd(self.clock.fd(), PollFlags::IN),
            ];
            fds.extend(
                self.services
                    .descriptors()
                    .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)),
            );
            fds.extend(
                self.processes
                    .iter()
                    .map(|process| PollFd::new(&process.handle, PollFlags::IN)),
            );
            let left = self
                .deadline
                .map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let timeout = left.map(|left| Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: left.subsec_nanos().into(),
            });
            match poll(&mut fds, timeout.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
            let happened: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
            drop(fds);
            if happened[0] {
                self.drain_output();
            }
            if happened[2] {
                self.on_ready()?;
            }
            if happened[1] {
                self.on_terminate();
            }
            if happened[3] {
                self.tell_time();
            }
            if happened[4] || happened[5] {
                self.services.accept(&self.files, &mut self.log);
            }
            if happened[6] {
                self.services.reap();
            }
            let ended = happened[7..].iter().position(|ended| *ended);
            if let Some(process) = ended.and_then(|index| self.processes.get(index)) {
                let name = process.name;
                self.log.note(&format!("{name} ended"));
                return Ok(());
            }
            if self.deadline.is_some_and(|at| at <= Instant::now()) {
                self.log.note("no sign of life in time");
                if !self.may_start_again {
                    return Ok(());
                }
                self.start_again()?;
            }
        }
    }

    /// Ends a machine that was silent for too long and starts it once more: the emulator may lose the
    /// interrupt that a kernel waits for, and before the agent runs nothing makes up for that.
    fn start_again(&mut self) -> io::Result<()> {
        self.end_processes();
        self.processes.clear();
        self.spawn_all()?;
        self.may_start_again = false;
        self.deadline = Some(self.started + LAST_START_LIMIT);
        Ok(())
    }

    fn drain_output(&mut self) {
        let mut buffer = [0; 16 * 1024];
        while let Ok(count @ 1..) = rustix::io::read(&self.output, &mut buffer) {
            self.log.write(&buffer[..count]);
            if count < buffer.len() {
                break;
            }
        }
    }

    /// The agent dialled: the machine is up.
    fn on_ready(&mut self) -> io::Result<()> {
        let Ok((mut stream, _)) = self.ready.accept() else {
            return Ok(());
        };
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        if self.record.ready {
            return Ok(());
        }
        match connect::read_hello(&mut stream) {
            Err(error) => {
                let why = std::error::Error::source(&error).map(ToString::to_string);
                self.log.note(&format!(
                    "hullbox: {error}{}",
                    why.map_or_else(String::new, |why| format!(": {why}"))
                ));
                return Ok(());
            }
            Ok(hello) => connect::check_version(&hello).map_err(io::Error::other)?,
        }
        self.deadline = None;
        self.record.ready = true;
        self.record.start_ms =
            u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.record.save(&self.files)?;
        self.log
            .note(&format!("ready after {} ms", self.record.start_ms));
        // The starter waits for this line, and for nothing after it.
        let _ = writeln!(io::stdout(), "{READY}");
        rustix::stdio::dup2_stdout(fs::File::options().write(true).open("/dev/null")?)?;
        Ok(())
    }

    /// Tells the agent that the host's clock was set. Until it is up it has the time from the emulator.
    fn tell_time(&mut self) {
        if !self.clock.is_due() || !self.record.ready {
            return;
        }
        let files = self.files.clone();
        // It may not answer for a while, and processes may end meanwhile.
        let told = std::thread::Builder::new().spawn(move || set_clock(&files));
        if let Err(error) = told {
            self.log.note(&format!("cannot set the clock: {error}"));
        }
    }

    /// Asks the agent to end the machine, and gives it some time.
    fn on_terminate(&mut self) {
        let mut byte = [0; 16];
        let _ = self.terminate.read(&mut byte);
        if self.goodbye.is_some() {
            return;
        }
        self.may_start_again = false;
        self.deadline = Some(Instant::now() + SHUTDOWN_GRACE);
        let ask = || -> Result<UnixStream, connect::ConnectError> {
            let mut stream = connect::dial(&self.files, MACHINE_PORT)?;
            let mut frame = Vec::new();
            encode_into(&Frame::Shutdown, &mut frame)?;
            stream.write_all(&frame)?;
            Ok(stream)
        };
        match ask() {
            Ok(stream) => self.goodbye = Some(stream),
            Err(error) => {
                self.log
                    .note(&format!("cannot ask the agent to stop: {error}"));
                self.deadline = Some(Instant::now());
            }
        }
    }

    fn end_processes(&mut self) {
        for process in &mut self.processes {
            let _ = process.child.kill();
        }
        for process in &mut self.processes {
            if let Ok(status) = process.child.wait() {
                self.log.note(&format!("{}: {status}", process.name));
            }
        }
        self.services.end();
        self.drain_output();
    }

    /// In words, why the machine did not come up.
    fn reason(&self) -> String {
        let tail = self.log.tail();
        // The agent, then the helpers, then the kernel: who speaks first knows best.
        let said = ["hullbox-agent: ", "hullbox: ", "qemu", "Kernel panic"]
            .iter()
            .find_map(|mark| tail.iter().find(|line| line.contains(mark)));
        let line = said.or_else(|| tail.first());
        line.map_or_else(|| "it said nothing".to_owned(), String::clone)
    }

    fn clean_up(&self) {
        for path in [
            self.files.vsock(),
            self.files.vsock_port(MACHINE_READY_PORT),
            self.files.vsock_backend(),
            self.files.share_backend(),
            self.files.state(),
        ] {
            let _ = fs::remove_file(path);
        }
        let _ = fs::remove_dir(self.files.share_root());
        services::clean_up(&self.files);
    }
}

/// Sets the machine's clock. One that cannot be told has gone, or is told the next time.
fn set_clock(files: &RuntimeFiles) -> Result<(), connect::ConnectError> {
    let mut stream = connect::open_session(files)?;
    stream.set_read_timeout(Some(std::time::Duration::from_secs(30)))?;
    let mut frame = Vec::new();
    let request = Request::SetClock {
        wall_clock_ns: wall_clock_ns(),
    };
    encode_into(&Frame::Request { number: 1, request }, &mut frame)?;
    stream.write_all(&frame)?;
    // Its answer: whoever closes before may be cut off.
    let _ = stream.read(&mut [0; 64])?;
    Ok(())
}

/// Entry of a child: `PPID share|vsock|exec …`. Ties its life to the supervisor's, then becomes
/// what it should be.
///
/// # Errors
/// It could not become that.
pub fn child(args: &[OsString]) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let (parent, rest) = args.split_first().ok_or("no parent given")?;
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    // It may have died before we asked to be told.
    let now = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().to_string());
    if now.as_deref().map(OsString::from).as_ref() != Some(parent) {
        return Err("the supervisor is gone".into());
    }
    let (role, rest) = rest.split_first().ok_or("no role given")?;
    if role != "share" {
        // What talks with the guest needs nothing of root's but its own files.
        give_up_privileges(GoOnAs::Itself)?;
    }
    match role.to_str() {
        Some("share") => {
            let [fd, staging, volumes @ ..] = rest else {
                return Err("share: missing arguments".into());
            };
            let share = super::share::Share {
                listen_fd: fd.to_str().ok_or("bad descriptor")?.parse()?,
                staging: staging.into(),
                volumes: volumes.iter().map(Into::into).collect(),
            };
            Ok(super::share::serve(&share)?)
        }
        Some("vsock") => Ok(vsock::serve_inherited(rest)?),
        Some("exec") => {
            use std::os::unix::process::CommandExt;
            let (program, rest) = rest.split_first().ok_or("no program given")?;
            Err(Command::new(program).args(rest).exec().into())
        }
        _ => Err("unknown role".into()),
    }
}
