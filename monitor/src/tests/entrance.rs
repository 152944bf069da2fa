//! A process that has no descriptors left.

use super::*;
use crate::signals::Signals;
use crate::waiting::{Waited, wait};
use rustix::fd::AsRawFd;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, connect, socket};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::time::{ClockId, clock_gettime};
use std::path::Path;
use std::process::Command as Program;

/// How long somebody waits at the door.
const WAITS: Duration = Duration::from_secs(1);
/// What the process may take of that: a tenth of what one would take that spins, and many times what
/// ten looks take.
const MAY_TAKE: Duration = Duration::from_millis(100);

/// Runs the test that calls it in a process of its own, whose limits are nobody else's. Whether this
/// is that process.
fn is_alone() -> bool {
    const ALONE: &str = "HULLBOX_TEST_ALONE";
    if std::env::var_os(ALONE).is_some() {
        return true;
    }
    let name = thread::current().name().unwrap().to_owned();
    let done = Program::new(std::env::current_exe().unwrap())
        .args(["--exact", &name])
        .env(ALONE, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&done.stdout);
    assert!(done.status.success() && said.contains("1 passed"), "{said}");
    false
}

/// Has somebody connect while this process can open nothing; what it takes of processors meanwhile.
fn connect_in_vain(path: &Path) -> (UnixStream, Duration) {
    let socket = socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
    let limit = getrlimit(Resource::Nofile);
    let next = rustix::io::dup(&socket).unwrap().as_raw_fd();
    let none_left = Rlimit {
        current: u64::try_from(next).ok(),
        ..limit
    };
    setrlimit(Resource::Nofile, none_left).unwrap();
    let used = || Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).unwrap();
    let before = used();
    connect(&socket, &SocketAddrUnix::new(path).unwrap()).unwrap();
    thread::sleep(WAITS);
    let took = used() - before;
    assert_eq!(
        rustix::io::dup(&socket).unwrap_err(),
        rustix::io::Errno::MFILE
    );
    setrlimit(Resource::Nofile, limit).unwrap();
    (socket.into(), took)
}

#[test]
fn who_cannot_be_accepted_makes_nobody_spin_and_is_served_later() {
    if !is_alone() {
        return;
    }
    with_door("no-descriptors", |path, mut guest, mut owner| {
        guest.say(&hello());
        guest.say(&started());
        assert_eq!(owner.hear(), Some(started()));
        let (stream, took) = connect_in_vain(path);
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        let mut late = Peer {
            stream,
            decoder: Decoder::new(),
        };
        late.say(&control::to_frame(&Command::Execs).unwrap());
        assert!(matches!(answer(&mut late), Answer::Acknowledged));
        assert!(matches!(answer(&mut late), Answer::Execs(_)));
        guest.say(&exited(0));
        assert!(took < MAY_TAKE, "{took:?}");
    });
}

#[test]
fn nor_does_it_between_two_runs() {
    if !is_alone() {
        return;
    }
    let (_keep, signals) = UnixStream::pair().unwrap();
    let signals = Signals::read_from(signals).unwrap();
    let door = Door::new("no-descriptors-between");
    thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            let control = door.listener.as_fd();
            let pause = WAITS + Duration::from_secs(20);
            wait(pause, control, &signals, &mut Vec::new(), &mut Nothing)
        });
        let (mut stream, took) = connect_in_vain(&door.path);
        let mut bytes = Vec::new();
        let stop = Command::Signal(9);
        encode_into(&control::to_frame(&stop).unwrap(), &mut bytes).unwrap();
        stream.write_all(&bytes).unwrap();
        assert_eq!(waiting.join().unwrap(), Waited::Unwanted);
        assert!(took < MAY_TAKE, "{took:?}");
    });
}
