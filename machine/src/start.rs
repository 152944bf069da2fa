//! Starting the machine, once however many ask at the same time.

use super::config::MachineConfig;
use super::connect::{self, ConnectError};
use super::disk;
use super::error::MachineError;
use super::initramfs::{self, AgentSource, GuestConfig};
use super::kernel;
use super::machine::Machine;
use super::plan::{HIDDEN_COMMAND, Plan, ROOT_TAG};
use super::qemu::Qemu;
use super::state::Record;
use super::supervisor::READY;
use super::tsc;
use hullbox_host::data_lock::DataLock;
use hullbox_host::paths::ensure_private_dir;
use rustix::fs::{FlockOperation, flock};
use rustix::io::{Errno, FdFlags, fcntl_setfd};
use rustix::process::Signal;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// How long a machine that does not answer may hold its lock before it is killed. Long: on a host
/// that is overloaded, work is under way in it that is slow and not lost.
const UNRESPONSIVE_LIMIT: Duration = Duration::from_secs(180);

/// How long `stop` waits for a machine that somebody is about to start.
const START_PATIENCE: Duration = Duration::from_secs(30);

/// How the machine is started when it does not run.
#[derive(Debug, Clone)]
pub struct StartOptions {
    /// The settings.
    pub config: MachineConfig,
    /// The guest agent.
    pub agent: AgentSource,
}

impl Machine {
    /// A session with the machine, which is started if it does not run.
    ///
    /// `progress` gets a line when something takes a while.
    ///
    /// # Errors
    /// [`MachineError`].
    pub fn open_session(
        &self,
        options: &StartOptions,
        progress: &dyn Fn(&str),
    ) -> Result<UnixStream, MachineError> {
        match connect::open_session(&self.files) {
            Ok(stream) => return Ok(stream),
            Err(error @ (ConnectError::Version { .. } | ConnectError::Agent(_))) => {
                return Err(error.into());
            }
            Err(_) => {}
        }
        self.start_with(options, progress)
    }

    /// Starts the machine if it does not run.
    ///
    /// # Errors
    /// [`MachineError`].
    pub fn start(
        &self,
        options: &StartOptions,
        progress: &dyn Fn(&str),
    ) -> Result<(), MachineError> {
        self.open_session(options, progress).map(drop)
    }

    fn start_with(
        &self,
        options: &StartOptions,
        progress: &dyn Fn(&str),
    ) -> Result<UnixStream, MachineError> {
        self.prepare_dirs()?;
        let serial = self.lock_start()?;
        // Somebody else may have started it while we waited.
        let lock = match self.take_over()? {
            TakenOver::Running(stream) => return Ok(stream),
            TakenOver::Free(lock) => lock,
        };
        let plan = self.plan(options, &lock, progress)?;
        progress("starting the helper machine");
        self.spawn(&plan, &lock)?;
        drop(lock);
        drop(serial);
        Ok(connect::open_session(&self.files)?)
    }

    fn prepare_dirs(&self) -> Result<(), MachineError> {
        if let Some(path) = self.files.overlong_socket() {
            return Err(MachineError::LongPath(path));
        }
        ensure_private_dir(&self.data)?;
        ensure_private_dir(&self.disk_dir())?;
        if let Some(parent) = self.files.dir.parent() {
            ensure_private_dir(parent)?;
        }
        Ok(ensure_private_dir(&self.files.dir)?)
    }

    fn lock_start(&self) -> Result<File, MachineError> {
        loop {
            if let Some(file) = self.try_lock_start(FlockOperation::LockExclusive)? {
                return Ok(file);
            }
        }
    }

    /// `None` if another has it and is not to be waited for, or if a signal came in between.
    fn try_lock_start(&self, operation: FlockOperation) -> Result<Option<File>, MachineError> {
        let path = self.files.start_lock();
        let io_error = |source| MachineError::Io {
            path: path.clone(),
            source,
        };
        let file = hullbox_host::paths::open_lock_file(&path).map_err(io_error)?;
        match flock(&file, operation) {
            Ok(()) => Ok(Some(file)),
            Err(Errno::INTR | Errno::WOULDBLOCK) => Ok(None),
            Err(errno) => Err(io_error(errno.into())),
        }
    }

    /// Gets hold of the data directory, or finds that the machine runs after all.
    ///
    /// A machine that is on its way up or down is waited for; one that neither answers nor goes
    /// is killed.
    fn take_over(&self) -> Result<TakenOver, MachineError> {
        let path = DataLock::path(&self.data);
        let io_error = |source| MachineError::Io {
            path: path.clone(),
            source,
        };
        let begin = Instant::now();
        let mut killed = false;
        loop {
            if let Some(lock) = DataLock::try_exclusive(&self.data).map_err(io_error)? {
                return Ok(TakenOver::Free(lock));
            }
            if let Ok(stream) = connect::open_session(&self.files) {
                return Ok(TakenOver::Running(stream));
            }
            let record = Record::load(&self.files);
            if begin.elapsed() > UNRESPONSIVE_LIMIT {
                if killed {
                    return Err(MachineError::Held);
                }
                killed = record.is_some_and(|record| record.signal(Signal::KILL));
                if !killed {
                    return Err(MachineError::Held);
                }
            } else if record.is_none()
                && DataLock::try_shared(&self.data)
                    .map_err(io_error)?
                    .is_some()
            {
                // Only a machine excludes sharing, so these are containers run without one.
                return Err(MachineError::DirectlyUsed);
            }
            // Off the usual path: something is just ending, within milliseconds.
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn plan(
        &self,
        options: &StartOptions,
        lock: &DataLock,
        progress: &dyn Fn(&str),
    ) -> Result<Plan, MachineError> {
        let config = &options.config;
        let qemu = Qemu::find(config.qemu.as_deref())?;
        let mut volumes = Vec::new();
        for volume in &config.volumes {
            // Links are resolved now: what a path means must not change under the machine.
            volumes.push(volume.canonicalize().map_err(|source| MachineError::Io {
                path: volume.clone(),
                source,
            })?);
        }
        let kernel = kernel::find_or_fetch(
            config.kernel_dir.as_deref(),
            &kernel::cache(),
            &qemu,
            progress,
        )?;
        let disk = self.disk_dir().join("data.ext4");
        disk::ensure(&disk, config.disk_gib)?;
        let initramfs = self.disk_dir().join("boot.cpio");
        let guest = GuestConfig {
            root_tag: ROOT_TAG.to_owned(),
            hostname: "hullbox-machine".to_owned(),
            modules: kernel.modules.clone(),
            data: self.data.clone(),
            volumes: volumes.clone(),
            idle_s: config.idle_s,
        };
        initramfs::write(&initramfs, &options.agent, &kernel, &guest)?;
        Ok(Plan {
            runtime: self.files.dir.clone(),
            data: self.data.clone(),
            disk,
            kernel: kernel.image,
            kernel_release: kernel.release,
            initramfs,
            cpu: qemu.cpu().to_owned(),
            qemu: qemu.program,
            volumes,
            cpus: config.cpus(),
            memory_mib: config.memory_mib(),
            idle_s: config.idle_s,
            start_s: config.start_s,
            tsc_khz: tsc::frequency_khz(),
            lock_fd: lock.file().as_raw_fd(),
        })
    }

    /// Starts the supervisor and waits for its word that the machine is up.
    fn spawn(&self, plan: &Plan, lock: &DataLock) -> Result<(), MachineError> {
        let io_error = |source| MachineError::Supervisor { source };
        // What our caller left open in us goes no further, but for the lock.
        hullbox_host::sys::set_cloexec_from_3().map_err(io_error)?;
        let inheritable = |flags| {
            fcntl_setfd(lock.file(), flags).map_err(|errno| MachineError::Supervisor {
                source: errno.into(),
            })
        };
        inheritable(FdFlags::empty())?;
        let spawned = Command::new("/proc/self/exe")
            .args([HIDDEN_COMMAND, "supervise"])
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        inheritable(FdFlags::CLOEXEC)?;
        let mut child = spawned.map_err(io_error)?;
        let text = serde_json::to_vec(plan).map_err(|error| io_error(error.into()))?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(&text).map_err(io_error)?;
        }
        let mut line = String::new();
        if let Some(stdout) = child.stdout.take() {
            BufReader::new(stdout)
                .read_line(&mut line)
                .map_err(io_error)?;
        }
        if line.trim() == READY {
            return Ok(());
        }
        // It ends by itself once it has reported.
        let _ = child.wait();
        Err(MachineError::NotUp {
            reason: match line.trim() {
                "" => "it ended without a word".to_owned(),
                reason => reason.to_owned(),
            },
            log: self.files.log(),
        })
    }

    /// The machine's supervisor, if there is one.
    ///
    /// Who starts a machine, or waits for one that hangs, holds the starters' lock: a machine on
    /// record is there to be stopped all the same, and only one that is not on record yet is waited
    /// for.
    fn running(&self) -> Result<Option<OwnedFd>, MachineError> {
        let begin = Instant::now();
        loop {
            let alone = self.try_lock_start(FlockOperation::NonBlockingLockExclusive)?;
            let process = Record::load(&self.files).and_then(|record| record.process());
            match (process, alone) {
                (Some(process), _) => return Ok(Some(process)),
                (None, Some(_alone)) => {
                    // Of one that was killed before it could clean up.
                    let _ = fs::remove_file(self.files.state());
                    return Ok(None);
                }
                (None, None) if begin.elapsed() > START_PATIENCE => return Err(MachineError::Held),
                (None, None) => thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    /// Stops the machine. Returns whether it ran.
    ///
    /// # Errors
    /// [`MachineError`]; it cannot be found out whether it runs, or it cannot be ended.
    pub fn stop(&self) -> Result<bool, MachineError> {
        if !self.files.dir.is_dir() {
            return Ok(false);
        }
        let Some(process) = self.running()? else {
            return Ok(false);
        };
        let gone = |limit: Duration| {
            let mut fds = [rustix::event::PollFd::new(
                &process,
                rustix::event::PollFlags::IN,
            )];
            let timeout = rustix::event::Timespec {
                tv_sec: i64::try_from(limit.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: 0,
            };
            matches!(rustix::event::poll(&mut fds, Some(&timeout)), Ok(1))
        };
        let _ = rustix::process::pidfd_send_signal(&process, Signal::TERM);
        // The supervisor's own patience, and some.
        if !gone(Duration::from_secs(25)) {
            let _ = rustix::process::pidfd_send_signal(&process, Signal::KILL);
            if !gone(Duration::from_secs(5)) {
                return Err(MachineError::Held);
            }
        }
        Ok(true)
    }
}

enum TakenOver {
    Running(UnixStream),
    Free(DataLock),
}

#[cfg(test)]
mod tests {
    use super::*;
    use hullbox_host::paths::Roots;

    #[test]
    fn a_machine_that_somebody_waits_for_can_be_stopped() {
        let dir = std::env::temp_dir().join(format!("hullbox-stop-{}", std::process::id()));
        let machine = Machine::new(&Roots {
            data: dir.join("data"),
            runtime: dir.join("run"),
        });
        machine.prepare_dirs().unwrap();
        // Somebody waits for the machine to answer, which it never does.
        let starter = machine.lock_start().unwrap();
        let mut hanging = Command::new("sleep").arg("1000").spawn().unwrap();
        let pid = rustix::process::Pid::from_child(&hanging);
        Record::of_process(pid).save(&machine.files).unwrap();
        let begin = Instant::now();
        let waiter = thread::spawn(move || hanging.wait());
        assert!(machine.stop().unwrap());
        assert!(begin.elapsed() < Duration::from_secs(10));
        waiter.join().unwrap().unwrap();
        drop(starter);
        // On record and not there.
        assert!(!machine.stop().unwrap());
        fs::remove_dir_all(dir).unwrap();
    }
}
