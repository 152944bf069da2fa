//! What the machine's containers have of the host: networks and files, served by a process for each
//! connection of the machine to [`MACHINE_NETWORK_PORT`] or [`MACHINE_FILES_PORT`].
//!
//! The connection is the process's control connection, or its stream of requests, and it ends with it. Who
//! may connect is who may use the machine: its processes have the rights of the user whose machine it is.
//! Of files they may have only what was granted ([`hullbox_files::grant`]).

use super::log::BoundedLog;
use super::plan::RuntimeFiles;
use hullbox_files::grant::GRANTED_OPTION;
use hullbox_host::paths::NETWORKS_DIR;
use hullbox_protocol::{
    MACHINE_FILES_PORT, MACHINE_NETWORK_PORT, NETWORK_COMMAND, NETWORK_VSOCK_OPTION,
};
use std::fs;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Most processes at a time.
const MAX_PROCESSES: usize = 1024;

/// What a process serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// A container's network.
    Network,
    /// Files for a container.
    Files,
}

impl Service {
    /// All of them, in the order in which [`Services`] has their sockets.
    pub const ALL: [Self; 2] = [Self::Network, Self::Files];

    /// Where the machine's connections to its port arrive.
    pub fn socket(self, files: &RuntimeFiles) -> PathBuf {
        files.vsock_port(match self {
            Self::Network => MACHINE_NETWORK_PORT,
            Self::Files => MACHINE_FILES_PORT,
        })
    }

    const fn noun(self) -> &'static str {
        match self {
            Self::Network => "a network",
            Self::Files => "files",
        }
    }
}

/// The processes, and where the machine asks for one.
pub struct Services {
    listeners: [UnixListener; 2],
    /// Readable when a child of this process has ended.
    ended: UnixStream,
    processes: Vec<Child>,
    /// What is granted of the host's files.
    grants: PathBuf,
}

impl Services {
    /// Listens on sockets at [`Service::socket`], with a file of grants. There is one of these in a process.
    ///
    /// # Errors
    /// A socket cannot be used, or SIGCHLD not watched.
    pub fn on_listeners(listeners: [UnixListener; 2], grants: PathBuf) -> io::Result<Self> {
        for listener in &listeners {
            listener.set_nonblocking(true)?;
        }
        let (ended, write) = UnixStream::pair()?;
        ended.set_nonblocking(true)?;
        signal_hook::low_level::pipe::register(libc::SIGCHLD, write)?;
        Ok(Self {
            listeners,
            ended,
            processes: Vec::new(),
            grants,
        })
    }

    /// Readable when [`Self::accept`], for each service, or [`Self::reap`] have something to do.
    pub fn descriptors(&self) -> [BorrowedFd<'_>; 3] {
        let [networks, files] = &self.listeners;
        [networks.as_fd(), files.as_fd(), self.ended.as_fd()]
    }

    /// Starts a process for each connection that waits. One too many sees its connection end.
    pub fn accept(&mut self, files: &RuntimeFiles, log: &mut BoundedLog) {
        for (service, listener) in Service::ALL.iter().zip(&self.listeners) {
            while let Ok((connection, _)) = listener.accept() {
                if self.processes.len() >= MAX_PROCESSES {
                    log.note("too many networks and file servers at a time");
                    continue;
                }
                let mut command = match service {
                    Service::Network => network(files),
                    Service::Files => file_server(&self.grants),
                };
                match serve(&mut command, connection.into()) {
                    Ok(process) => self.processes.push(process),
                    Err(error) => log.note(&format!("cannot serve {}: {error}", service.noun())),
                }
            }
        }
    }

    /// Collects those that have ended.
    pub fn reap(&mut self) {
        let mut bytes = [0; 256];
        while matches!(self.ended.read(&mut bytes), Ok(1..)) {}
        self.processes
            .retain_mut(|process| matches!(process.try_wait(), Ok(None)));
    }

    /// Ends all of them: the machine is gone.
    pub fn end(&mut self) {
        for process in &mut self.processes {
            // It may have ended with its connection.
            let _ = process.kill();
        }
        for mut process in self.processes.drain(..) {
            let _ = process.wait();
        }
    }
}

/// What must not be left behind: sockets at which frames were waited for, of processes that were killed, and
/// those of networks that containers shared.
pub fn clean_up(files: &RuntimeFiles) {
    let Ok(entries) = fs::read_dir(&files.dir) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let is_port = name
            .to_str()
            .and_then(|name| name.strip_prefix("v_"))
            .is_some_and(|port| port.parse::<u32>().is_ok());
        if is_port {
            let _ = fs::remove_file(entry.path());
        }
    }
    // Processes of networks that containers shared end with the machine's connections; their sockets and
    // locks stay.
    let _ = fs::remove_dir_all(files.dir.join(NETWORKS_DIR));
}

fn network(files: &RuntimeFiles) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command
        .arg(NETWORK_COMMAND)
        .arg(NETWORK_VSOCK_OPTION)
        .arg(files.vsock())
        .env_clear();
    command
}

fn file_server(grants: &Path) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command
        .arg(hullbox_files::ENTRY)
        .arg(GRANTED_OPTION)
        .arg(grants)
        .env_clear()
        .envs(hullbox_files::launch::ENVIRONMENT);
    command
}

fn serve(command: &mut Command, connection: OwnedFd) -> io::Result<Child> {
    command
        .arg0("hullbox")
        .current_dir("/")
        .stdin(Stdio::from(connection))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{PollFd, PollFlags, poll};

    #[test]
    fn a_process_is_started_for_each_connection_and_collected_when_it_has_ended() {
        let dir = tempfile::tempdir().unwrap();
        let files = RuntimeFiles::new(dir.path().to_owned());
        let mut log = BoundedLog::create(&files.log()).unwrap();
        let listeners =
            Service::ALL.map(|service| UnixListener::bind(service.socket(&files)).unwrap());
        let grants = dir.path().join("grants");
        let mut services = Services::on_listeners(listeners, grants).unwrap();
        let connections =
            Service::ALL.map(|service| UnixStream::connect(service.socket(&files)).unwrap());
        services.accept(&files, &mut log);
        assert_eq!(services.processes.len(), 2);
        // This test program knows no such command, and ends.
        while !services.processes.is_empty() {
            let [.., ended] = services.descriptors();
            // The child's end interrupts it as well.
            let _ = poll(&mut [PollFd::from_borrowed_fd(ended, PollFlags::IN)], None);
            services.reap();
        }
        for mut connection in connections {
            assert_eq!(connection.read(&mut [0; 8]).unwrap(), 0);
        }
    }

    #[test]
    fn sockets_of_ports_are_removed_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let files = RuntimeFiles::new(dir.path().to_owned());
        for name in ["v", "v_1027", "v_1234567", "v_x", "vu", "log"] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        fs::create_dir(dir.path().join(NETWORKS_DIR)).unwrap();
        fs::write(dir.path().join(NETWORKS_DIR).join("x.sock"), "").unwrap();
        clean_up(&files);
        let mut left: Vec<_> = fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        assert_eq!(left, ["log", "v", "v_x", "vu"]);
    }
}
