//! Networks of the machine's containers, which are served on the host: by a process for each connection
//! of the machine to [`MACHINE_NETWORK_PORT`].
//!
//! The connection is the process's control connection, and it ends with it. Who may connect is who may use
//! the machine: its processes have the rights of the user whose machine it is.

use super::log::BoundedLog;
use super::plan::RuntimeFiles;
use hullbox_host::paths::NETWORKS_DIR;
use hullbox_protocol::{MACHINE_NETWORK_PORT, NETWORK_COMMAND, NETWORK_VSOCK_OPTION};
use std::fs;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

/// Most networks at a time.
const MAX_NETWORKS: usize = 1024;

/// The processes, and where the machine asks for one.
pub struct Networks {
    listener: UnixListener,
    /// Readable when a child of this process has ended.
    ended: UnixStream,
    processes: Vec<Child>,
}

impl Networks {
    /// Listens on a socket at [`RuntimeFiles::vsock_port`]. There is one of these in a process.
    ///
    /// # Errors
    /// The socket cannot be used, or SIGCHLD not watched.
    pub fn on_listener(listener: UnixListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let (ended, write) = UnixStream::pair()?;
        ended.set_nonblocking(true)?;
        signal_hook::low_level::pipe::register(libc::SIGCHLD, write)?;
        Ok(Self {
            listener,
            ended,
            processes: Vec::new(),
        })
    }

    /// Readable when [`Self::accept`] or [`Self::reap`] have something to do.
    pub fn descriptors(&self) -> [BorrowedFd<'_>; 2] {
        [self.listener.as_fd(), self.ended.as_fd()]
    }

    /// Starts a process for each connection that waits. One too many sees its connection end.
    pub fn accept(&mut self, files: &RuntimeFiles, log: &mut BoundedLog) {
        while let Ok((connection, _)) = self.listener.accept() {
            if self.processes.len() >= MAX_NETWORKS {
                log.note("too many networks at a time");
                continue;
            }
            match serve(connection.into(), files) {
                Ok(process) => self.processes.push(process),
                Err(error) => log.note(&format!("cannot serve a network: {error}")),
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

/// The path of the machine's [`MACHINE_NETWORK_PORT`].
pub fn socket(files: &RuntimeFiles) -> std::path::PathBuf {
    files.vsock_port(MACHINE_NETWORK_PORT)
}

fn serve(control: OwnedFd, files: &RuntimeFiles) -> io::Result<Child> {
    Command::new("/proc/self/exe")
        .arg0("hullbox")
        .arg(NETWORK_COMMAND)
        .arg(NETWORK_VSOCK_OPTION)
        .arg(files.vsock())
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::from(control))
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
        let listener = UnixListener::bind(socket(&files)).unwrap();
        let mut networks = Networks::on_listener(listener).unwrap();
        let connections = [(); 2].map(|()| UnixStream::connect(socket(&files)).unwrap());
        networks.accept(&files, &mut log);
        assert_eq!(networks.processes.len(), 2);
        // This test program knows no such command, and ends.
        while !networks.processes.is_empty() {
            let [_, ended] = networks.descriptors();
            // The child's end interrupts it as well.
            let _ = poll(&mut [PollFd::from_borrowed_fd(ended, PollFlags::IN)], None);
            networks.reap();
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
