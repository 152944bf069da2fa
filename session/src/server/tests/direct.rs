//! Streams that are joined to descriptors.

use super::*;
use crate::direct::Descriptors;
use rustix::pipe::{PipeFlags, pipe_with};
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::os::fd::AsFd as _;

/// The peer of a pump that takes descriptors, which has sent these and then asked for a program.
fn asked(descriptors: Descriptors, argv: &[&str]) -> Peer {
    let (ours, theirs) = UnixStream::pair().unwrap();
    thread::spawn(|| serve(theirs.into(), Drain::ToEnd));
    let mut sender = Connection::new(ours.try_clone().unwrap().into()).unwrap();
    sender
        .send(&Frame::Credit {
            session: 9,
            stream: Stream::Stdout,
            bytes: 1,
        })
        .unwrap();
    sender.send_descriptors(0, descriptors).unwrap();
    let spec = spec(argv);
    sender.send(&Frame::Exec { session: 0, spec }).unwrap();
    sender.flush().unwrap();
    assert_eq!(sender.pending(), 0);
    ours.set_nonblocking(false).unwrap();
    Peer {
        socket: ours,
        decoder: hullbox_protocol::Decoder::new(),
    }
}

fn pipe() -> (OwnedFd, OwnedFd) {
    pipe_with(PipeFlags::CLOEXEC).unwrap()
}

#[test]
fn bytes_of_both_directions_pass_the_connection_by() {
    let (input, feed) = pipe();
    let (drain, output) = pipe();
    let descriptors = Descriptors {
        stdin: Some(input),
        stdout: Some(output),
        stderr: None,
    };
    let mut peer = asked(descriptors, &["sh", "-c", "cat; echo apart >&2"]);
    let sent: Vec<u8> = (0..3_000_000u32).map(|n| (n % 251) as u8).collect();
    let feeder = thread::spawn({
        let sent = sent.clone();
        move || File::from(feed).write_all(&sent).unwrap()
    });
    let mut seen = Vec::new();
    // Its end is there because nobody else holds the pipe any more.
    File::from(drain).read_to_end(&mut seen).unwrap();
    assert!(seen == sent, "{} bytes", seen.len());
    feeder.join().unwrap();
    // Standard error alone came as frames.
    assert_eq!(peer.until_exit(), ("apart\n".len(), ExitStatus::Code(0)));
}

#[test]
fn a_file_is_read_to_its_end_and_written_as_it_comes() {
    let dir = std::env::temp_dir().join(format!("hullbox-direct-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let (from, to) = (dir.join("in"), dir.join("out"));
    let bytes = vec![7u8; 1_000_001];
    std::fs::write(&from, &bytes).unwrap();
    let output = File::create(&to).unwrap();
    let input = File::open(&from).unwrap();
    let descriptors = Descriptors::of(Some(input.as_fd()), output.as_fd(), output.as_fd()).unwrap();
    assert_eq!(descriptors.streams().iter().count(), 3);
    let mut peer = asked(descriptors, &["cat"]);
    assert_eq!(peer.until_exit(), (0, ExitStatus::Code(0)));
    assert!(std::fs::read(&to).unwrap() == bytes);
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn a_file_that_gives_no_pages_is_read_all_the_same() {
    let input = File::open("/proc/self/status").unwrap();
    let descriptors = Descriptors {
        stdin: Some(input.into()),
        ..Descriptors::default()
    };
    let mut peer = asked(descriptors, &["grep", "-c", "^Pid:"]);
    assert_eq!(peer.until_exit(), (2, ExitStatus::Code(0)));
}

#[test]
fn a_reader_who_leaves_ends_the_writer() {
    let (drain, output) = pipe();
    let descriptors = Descriptors {
        stdout: Some(output),
        ..Descriptors::default()
    };
    let mut peer = asked(descriptors, &["sh", "-c", "yes; exit 3"]);
    let mut line = String::new();
    let mut drain = BufReader::with_capacity(1, File::from(drain));
    drain.read_line(&mut line).unwrap();
    assert_eq!(line, "y\n");
    drop(drain);
    assert_eq!(peer.until_exit().1, ExitStatus::Code(3));
}

#[test]
fn a_slow_reader_holds_the_writer_up_and_gets_all() {
    let (drain, output) = pipe();
    let descriptors = Descriptors {
        stdout: Some(output),
        ..Descriptors::default()
    };
    let script = "head -c 1000000 /dev/zero; echo written >&2";
    let mut peer = asked(descriptors, &["sh", "-c", script]);
    peer.socket
        .set_read_timeout(Some(Duration::from_millis(300)))
        .unwrap();
    assert_eq!(peer.next(), None, "it cannot have written all");
    peer.socket.set_read_timeout(None).unwrap();
    let mut seen = Vec::new();
    File::from(drain).read_to_end(&mut seen).unwrap();
    assert_eq!(seen.len(), 1_000_000);
    assert_eq!(peer.until_exit(), ("written\n".len(), ExitStatus::Code(0)));
}

#[test]
fn outputs_go_on_as_frames_when_that_is_asked_for() {
    let (drain, output) = pipe();
    let (input, feed) = pipe();
    let descriptors = Descriptors {
        stdin: Some(input),
        stdout: Some(output),
        stderr: None,
    };
    let mut peer = asked(descriptors, &["cat"]);
    let (mut feed, mut drain) = (File::from(feed), BufReader::new(File::from(drain)));
    feed.write_all(b"direct\n").unwrap();
    let mut line = String::new();
    drain.read_line(&mut line).unwrap();
    assert_eq!(line, "direct\n");
    peer.send(&Frame::Relay { session: 0 });
    let mut rest = Vec::new();
    // Closed by the pump: what comes from now on comes as frames.
    drain.read_to_end(&mut rest).unwrap();
    assert!(rest.is_empty());
    feed.write_all(b"relayed\n").unwrap();
    drop(feed);
    assert_eq!(peer.until_exit(), ("relayed\n".len(), ExitStatus::Code(0)));
}

#[test]
fn input_ends_with_the_peer_that_gave_it() {
    let (input, feed) = pipe();
    let descriptors = Descriptors {
        stdin: Some(input),
        ..Descriptors::default()
    };
    let mut peer = asked(descriptors, &["cat"]);
    peer.send(&Frame::Eof {
        session: 0,
        stream: Stream::Stdin,
    });
    assert_eq!(peer.until_exit(), (0, ExitStatus::Code(0)));
    drop(feed);
}

#[test]
fn descriptors_that_did_not_come_refuse_that_process_alone() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let pump = thread::spawn(|| serve(theirs.into(), Drain::ToEnd));
    let mut peer = Peer {
        socket: ours,
        decoder: hullbox_protocol::Decoder::new(),
    };
    let streams = hullbox_protocol::StreamSet::default().with(Stream::Stdin);
    let session = 3;
    peer.send(&Frame::Descriptors { session, streams });
    let exec = |session, argv: &[&str]| Frame::Exec {
        session,
        spec: spec(argv),
    };
    peer.send(&exec(session, &["true"]));
    let Some(Frame::Failed {
        session: 3,
        failure,
    }) = peer.next()
    else {
        panic!("it was taken");
    };
    assert!(failure.message.contains("not received"), "{failure:?}");
    // What is on its way to it meanwhile means nothing.
    peer.send(&Frame::Eof {
        session,
        stream: Stream::Stdin,
    });
    peer.send(&exec(0, &["echo", "well"]));
    assert_eq!(peer.until_exit(), ("well\n".len(), ExitStatus::Code(0)));
    drop(peer);
    assert!(matches!(pump.join().unwrap(), Event::Closed(None)));
}

#[test]
fn only_pipes_and_files_of_the_right_direction_are_joined() {
    let (read, write) = pipe();
    let (socket, _peer) = UnixStream::pair().unwrap();
    let null = File::open("/dev/null").unwrap();
    let of = |stdin: &OwnedFd, stdout: &OwnedFd, stderr: &OwnedFd| {
        let of = Descriptors::of(Some(stdin.as_fd()), stdout.as_fd(), stderr.as_fd());
        of.unwrap().streams().iter().collect::<Vec<_>>()
    };
    assert_eq!(of(&read, &write, &write).len(), 3);
    assert_eq!(of(&write, &read, &read), []);
    assert_eq!(of(&socket.into(), &null.into(), &write), [Stream::Stderr]);
    let path = std::env::temp_dir().join(format!("hullbox-append-{}", std::process::id()));
    let append = File::options()
        .append(true)
        .create(true)
        .open(&path)
        .unwrap();
    std::fs::remove_file(path).unwrap();
    assert_eq!(
        of(&read, &append.into(), &write),
        [Stream::Stdin, Stream::Stderr]
    );
}
