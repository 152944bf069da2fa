//! Clients whose pipes the monitor writes and reads.

use super::*;
use hullbox_protocol::StreamSet;
use hullbox_session::connection::Connection;
use hullbox_session::direct::Descriptors;

/// A client that has passed these and asked for a process; its session.
fn asked(path: &std::path::Path, descriptors: Descriptors, guest: &mut Peer) -> (Peer, u32) {
    let client = Door::say(path, &exec(descriptors.streams()));
    let mut passing = Connection::new(client.stream.try_clone().unwrap().into()).unwrap();
    passing.send_descriptors(0, descriptors).unwrap();
    passing.flush().unwrap();
    client.stream.set_nonblocking(false).unwrap();
    let (session, _) = guest.start_process();
    (client, session)
}

fn non_blocking(descriptors: Descriptors) -> Descriptors {
    let wanted = descriptors.streams();
    let reopened = descriptors.non_blocking();
    assert_eq!(reopened.streams(), wanted);
    reopened
}

#[test]
fn output_goes_to_the_clients_pipe_and_the_end_after_it() {
    const LEN: usize = 3_000_000;
    with_door("piped", |path, mut guest, mut owner| {
        guest.say(&hello());
        guest.say(&started());
        assert_eq!(owner.hear(), Some(started()));
        let (mut read, write) = std::io::pipe().unwrap();
        let descriptors = non_blocking(Descriptors {
            stdout: Some(write.into()),
            ..Descriptors::default()
        });
        let (mut client, session) = asked(path, descriptors, &mut guest);
        let reader = thread::spawn(move || {
            let mut seen = Vec::new();
            read.read_to_end(&mut seen).unwrap();
            seen
        });
        // As a guest does: no more than it has credit for.
        let mut credit = INITIAL_CREDIT as usize;
        let mut sent = 0usize;
        while sent < LEN {
            let len = (LEN - sent).min(MAX_DATA);
            while credit < len {
                match guest.hear() {
                    Some(Frame::Credit {
                        session: s,
                        stream: Stream::Stdout,
                        bytes,
                    }) => {
                        assert_eq!(s, session);
                        credit += bytes as usize;
                    }
                    other => panic!("{other:?}"),
                }
            }
            let bytes: Vec<u8> = (sent..sent + len).map(|n| (n % 251) as u8).collect();
            guest.say(&Frame::Data {
                session,
                stream: Stream::Stdout,
                bytes,
            });
            (sent, credit) = (sent + len, credit - len);
        }
        guest.say(&Frame::Exited {
            session,
            status: ExitStatus::Code(4),
        });
        assert!(matches!(client.hear(), Some(Frame::Started { .. })));
        assert_eq!(client.hear(), Some(exited(4)));
        assert_eq!(client.hear(), None);
        // The pipe has its end when the monitor is done with the client.
        let seen = reader.join().unwrap();
        let expected: Vec<u8> = (0..LEN).map(|n| (n % 251) as u8).collect();
        assert!(seen == expected, "{} bytes", seen.len());
        guest.say(&exited(0));
    });
}

#[test]
fn an_end_waits_for_output_that_a_slow_reader_has_not_taken() {
    with_door("slow", |path, mut guest, mut owner| {
        guest.say(&hello());
        guest.say(&started());
        assert_eq!(owner.hear(), Some(started()));
        let (mut read, write) = std::io::pipe().unwrap();
        let descriptors = non_blocking(Descriptors {
            stdout: Some(write.into()),
            ..Descriptors::default()
        });
        let (mut client, session) = asked(path, descriptors, &mut guest);
        for _ in 0..4 {
            let bytes = vec![b'x'; 100_000];
            guest.say(&Frame::Data {
                session,
                stream: Stream::Stdout,
                bytes,
            });
        }
        guest.say(&Frame::Exited {
            session,
            status: ExitStatus::Code(0),
        });
        assert!(matches!(client.hear(), Some(Frame::Started { .. })));
        // What another client is answered, the monitor has come to since.
        let other = Command::Signal(10);
        assert!(matches!(answer(&mut Door::say(path, &other)), Answer::Done));
        client.stream.set_nonblocking(true).unwrap();
        let early = client.stream.read(&mut [0; 64]);
        assert_eq!(early.unwrap_err().kind(), io::ErrorKind::WouldBlock);
        client.stream.set_nonblocking(false).unwrap();
        let mut seen = vec![0; 400_000];
        read.read_exact(&mut seen).unwrap();
        assert_eq!(client.hear(), Some(exited(0)));
        guest.say(&exited(0));
    });
}

#[test]
fn input_comes_from_the_clients_pipe_as_far_as_there_is_credit() {
    with_door("fed", |path, mut guest, mut owner| {
        guest.say(&hello());
        guest.say(&started());
        assert_eq!(owner.hear(), Some(started()));
        let (read, mut write) = std::io::pipe().unwrap();
        let descriptors = non_blocking(Descriptors {
            stdin: Some(read.into()),
            ..Descriptors::default()
        });
        let (_client, session) = asked(path, descriptors, &mut guest);
        let most = INITIAL_CREDIT as usize;
        let feeder = thread::spawn(move || write.write_all(&vec![7; most + 100_000]));
        let mut got = 0;
        let mut granted = most;
        let stream = Stream::Stdin;
        loop {
            match guest.hear() {
                Some(Frame::Data {
                    session: s, bytes, ..
                }) => {
                    assert_eq!(s, session);
                    got += bytes.len();
                    assert!(got <= granted, "more than it has credit for");
                    if got == most {
                        // A byte more than there is: as with frames, an end is looked for with credit.
                        granted += 100_001;
                        guest.say(&Frame::Credit {
                            session,
                            stream,
                            bytes: 100_001,
                        });
                    }
                }
                Some(Frame::Eof {
                    stream: Stream::Stdin,
                    ..
                }) => break,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(got, most + 100_000);
        feeder.join().unwrap().unwrap();
        guest.say(&exited(0));
    });
}

#[test]
fn a_reader_who_leaves_closes_the_stream() {
    with_door("left", |path, mut guest, mut owner| {
        guest.say(&hello());
        guest.say(&started());
        assert_eq!(owner.hear(), Some(started()));
        let (read, write) = std::io::pipe().unwrap();
        let descriptors = non_blocking(Descriptors {
            stderr: Some(write.into()),
            ..Descriptors::default()
        });
        assert!(descriptors.streams() == StreamSet::default().with(Stream::Stderr));
        let (_client, session) = asked(path, descriptors, &mut guest);
        drop(read);
        let stream = Stream::Stderr;
        assert_eq!(guest.hear(), Some(Frame::Eof { session, stream }));
        guest.say(&exited(0));
    });
}
