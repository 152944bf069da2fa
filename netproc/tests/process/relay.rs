//! The way out of the helper machine, with Unix sockets in vsock's place.

use crate::bed::{self, Container, LIMIT};
use crate::{shared, traffic};
use anyhow::{Result, bail, ensure};
use hullbox_netproc::{ENTRY, Launcher, ProcessError, Seat};
use hullbox_protocol::{MACHINE_NETWORK_PORT, NETWORK_VSOCK_OPTION};
use rustix::net::{RecvFlags, SendFlags};
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::JoinHandle;

/// A path that stands for a machine's vsock, in a directory of its own.
struct Vsock {
    dir: PathBuf,
}

impl Vsock {
    fn new(name: &str) -> Result<Self> {
        let dir = std::env::temp_dir().join(format!("hullbox-{name}-{}", std::process::id()));
        fs::create_dir(&dir)?;
        Ok(Self { dir })
    }

    fn path(&self) -> PathBuf {
        self.dir.join("v")
    }

    fn listen(&self, port: u32) -> Result<UnixListener> {
        Ok(UnixListener::bind(self.dir.join(format!("v_{port}")))?)
    }

    fn launcher(&self) -> Launcher {
        let arguments = vec![ENTRY.into(), "--relay".into(), self.path().into()];
        Launcher::of("/proc/self/exe", arguments)
    }

    /// Serves one network, as the machine's supervisor does, until that ends.
    fn supervise(&self) -> Result<JoinHandle<()>> {
        self.supervise_all(1)
    }

    /// Starts a process for each of so many connections.
    fn supervise_all(&self, count: usize) -> Result<JoinHandle<()>> {
        let listener = self.listen(MACHINE_NETWORK_PORT)?;
        let path = self.path();
        Ok(std::thread::spawn(move || {
            for _ in 0..count {
                let (control, _) = listener.accept().unwrap();
                let mut process = Command::new("/proc/self/exe")
                    .arg(ENTRY)
                    .arg(NETWORK_VSOCK_OPTION)
                    .arg(&path)
                    .stdin(Stdio::from(OwnedFd::from(control)))
                    .spawn()
                    .unwrap();
                process.wait().unwrap();
            }
        }))
    }
}

impl Drop for Vsock {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

pub fn a_container_in_the_machine_has_the_hosts_network() -> Result<()> {
    let vsock = Vsock::new("relayed")?;
    let host = vsock.supervise()?;
    let container = Container::new()?;
    let (mut process, ports) = container.start(&vsock.launcher(), &bed::network())?;
    traffic::both_ways(&container, ports[0].host_port)?;
    let names: Vec<_> = fs::read_dir(&vsock.dir)?.collect();
    ensure!(
        names.len() == 1,
        "where frames were waited for is left: {names:?}"
    );
    let counts = process.counters(LIMIT)?;
    ensure!(counts.tcp_begun == 3, "{counts:?}");
    // Its ports are free when it has ended here.
    let status = process.end()?;
    ensure!(status.success(), "{status}");
    TcpListener::bind(("0.0.0.0", ports[0].host_port))?;
    host.join().unwrap();
    Ok(())
}

pub fn refusals_are_told_through_the_relay() -> Result<()> {
    let vsock = Vsock::new("refusing")?;
    let host = vsock.supervise()?;
    traffic::refusals_are_told(&vsock.launcher())?;
    host.join().unwrap();
    Ok(())
}

/// The host's side, played: says that it serves, and gives the stream of frames.
fn play_host(vsock: &Vsock, answer: String) -> Result<JoinHandle<(UnixStream, UnixStream)>> {
    const PORT: u32 = 1_234_567;
    let control = vsock.listen(MACHINE_NETWORK_PORT)?;
    let frames = vsock.listen(PORT)?;
    Ok(std::thread::spawn(move || {
        let (mut control, _) = control.accept().unwrap();
        let mut length = [0; 4];
        control.read_exact(&mut length).unwrap();
        let mut request = vec![0; u32::from_be_bytes(length) as usize];
        control.read_exact(&mut request).unwrap();
        let request = String::from_utf8(request).unwrap();
        assert!(request.contains(r#""member":"dial""#), "{request}");
        let length = u32::try_from(answer.len()).unwrap();
        control.write_all(&length.to_be_bytes()).unwrap();
        control.write_all(answer.as_bytes()).unwrap();
        if !answer.contains("dial_port") {
            let (none, _) = UnixStream::pair().unwrap();
            return (control, none);
        }
        let (stream, _) = frames.accept().unwrap();
        (control, stream)
    }))
}

const READY: &str = r#"{"ready":{"ports":[],"dial_port":1234567}}"#;
const FRAMES: usize = 5000;

/// The frame of that number, of a length that is all its own.
fn frame(number: usize) -> Vec<u8> {
    let length = 26 + (number * 7919) % 65_000;
    (0..length).map(|at| (number + at) as u8).collect()
}

pub fn containers_in_the_machine_share_a_network_outside() -> Result<()> {
    let vsock = Vsock::new("shared")?;
    let host = vsock.supervise_all(2)?;
    let networks = shared::Networks(vsock.dir.join("networks"));
    let (a, b) = (
        Container::with(bed::interface_of(2))?,
        Container::with(bed::interface_of(3))?,
    );
    let mut seat = shared::seat(3, &["b"]);
    seat.network.ports = vec![bed::port((0, 0))];
    let (mut first, _) = a.join(&vsock.launcher(), &shared::seat(2, &["a"]))?;
    let (second, ports) = b.join(&vsock.launcher(), &seat)?;
    let port = ports[0].host_port;
    let process = networks.process()?;
    // From the other container, and from the host.
    shared::reaches(&a, &b)?;
    let echo = b.echo()?;
    bed::exchange(TcpStream::connect(("127.0.0.1", port))?, 1 << 20)?;
    echo.join().unwrap();
    ensure!(first.counters(LIMIT)?.frames_received > 0);
    drop(second);
    TcpListener::bind(("0.0.0.0", port))?;
    drop(first);
    host.join().unwrap();
    // The machine's own end does this there.
    hullbox_netproc::tidy(&networks.0, shared::ID)?;
    networks.is_gone(process)
}

pub fn no_frame_is_lost_or_cut_whoever_is_slow() -> Result<()> {
    let vsock = Vsock::new("frames")?;
    let host = play_host(&vsock, READY.to_owned())?;
    let (ours, member) = bed::packets();
    let (_process, _) = bed::start(&vsock.launcher(), &bed::network(), &member)?;
    let (_control, stream) = host.join().unwrap();
    stream.set_read_timeout(Some(LIMIT))?;
    // Each side sends before it reads anything, until nobody takes more.
    let ours = &ours;
    std::thread::scope(|scope| {
        let guest = scope.spawn(move || -> Result<()> {
            for number in 0..FRAMES {
                rustix::net::send(ours, &frame(number), SendFlags::NOSIGNAL)?;
            }
            Ok(())
        });
        let mut to_guest = stream.try_clone()?;
        let host = scope.spawn(move || -> Result<()> {
            for number in 0..FRAMES {
                let frame = frame(number);
                to_guest.write_all(&(frame.len() as u32).to_be_bytes())?;
                to_guest.write_all(&frame)?;
            }
            Ok(())
        });
        let from_host = scope.spawn(move || -> Result<()> {
            let mut buffer = vec![0; 1 << 17];
            for number in 0..FRAMES {
                let (_, length) = rustix::net::recv(ours, &mut buffer, RecvFlags::TRUNC)?;
                ensure!(
                    buffer.get(..length) == Some(&frame(number)),
                    "frame {number} to the guest"
                );
            }
            Ok(())
        });
        let mut from_guest = stream.try_clone()?;
        for number in 0..FRAMES {
            let mut length = [0; 4];
            from_guest.read_exact(&mut length)?;
            let mut read = vec![0; u32::from_be_bytes(length) as usize];
            from_guest.read_exact(&mut read)?;
            ensure!(read == frame(number), "frame {number} of the guest");
        }
        for thread in [guest, host, from_host] {
            match thread.join() {
                Ok(result) => result?,
                Err(_) => bail!("a thread failed"),
            }
        }
        Ok(())
    })
}

pub fn it_ends_with_the_host_and_tells_its_words() -> Result<()> {
    let vsock = Vsock::new("words")?;
    let (_ours, member) = bed::packets();
    let error = |vsock: &Vsock| -> Result<String> {
        let seat = Seat::alone(bed::network(), bed::interface());
        let mut process = vsock.launcher().start(&seat, &member)?;
        match process.wait_until_ready(LIMIT) {
            Err(ProcessError::Refused(message)) => Ok(message),
            other => bail!("{other:?}"),
        }
    };
    let nobody = error(&vsock)?;
    ensure!(nobody.contains("does not serve networks"), "{nobody}");

    let host = play_host(
        &vsock,
        r#"{"failed":{"message":"no such port"}}"#.to_owned(),
    )?;
    ensure!(error(&vsock)? == "no such port");
    drop(host.join().unwrap());
    remove_sockets(&vsock.dir)?;

    let host = play_host(&vsock, READY.to_owned())?;
    let (mut process, _) = bed::start(&vsock.launcher(), &bed::network(), &member)?;
    let (control, stream) = host.join().unwrap();
    drop(control);
    let ended = process.counters(LIMIT);
    ensure!(matches!(ended, Err(ProcessError::Ended)), "{ended:?}");
    drop(stream);
    remove_sockets(&vsock.dir)?;

    // A frame of an impossible length.
    let host = play_host(&vsock, READY.to_owned())?;
    let (mut process, _) = bed::start(&vsock.launcher(), &bed::network(), &member)?;
    let (control, mut stream) = host.join().unwrap();
    stream.write_all(&u32::MAX.to_be_bytes())?;
    // The relay ends, and its host is told so.
    let mut rest = Vec::new();
    (&control).read_to_end(&mut rest)?;
    drop(control);
    let ended = process.counters(LIMIT);
    ensure!(matches!(ended, Err(ProcessError::Ended)), "{ended:?}");
    Ok(())
}

fn remove_sockets(dir: &Path) -> Result<()> {
    for entry in fs::read_dir(dir)? {
        fs::remove_file(entry?.path())?;
    }
    Ok(())
}
