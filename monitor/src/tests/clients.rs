//! Several clients of one container.

use super::*;

#[test]
fn several_clients_see_the_output_and_one_writes_the_input() {
    let door = Door::new("several");
    let (mut guest, guest_fd) = Peer::pair();
    let (mut owner, owner_fd) = Peer::pair();
    let backend = Fake::new(Link::Connected(guest_fd));
    let path = door.path.clone();
    thread::scope(|scope| {
        scope.spawn(move || {
            guest.say(&hello());
            guest.say(&started());
            assert_eq!(owner.hear(), Some(started()));
            let mut second = Door::say(&path, &Command::Attach { stdin: true });
            // The input is the owner's.
            let eof = Frame::Eof {
                session: 0,
                stream: Stream::Stdin,
            };
            assert_eq!(second.hear(), Some(eof));
            guest.say(&data(Stream::Stdout, b"for all"));
            assert_eq!(owner.hear(), Some(data(Stream::Stdout, b"for all")));
            assert_eq!(second.hear(), Some(data(Stream::Stdout, b"for all")));
            drop(second);

            // A process beside it, a question, and a stop.
            let spec = hullbox_protocol::ProcessSpec::default();
            let exec = Command::Exec {
                spec: Box::new(spec.clone()),
                detach: false,
                timing: Timing::since(Zero::now()),
                streams: StreamSet::default(),
            };
            let mut third = Door::say(&path, &exec);
            let (session, who) = guest.start_process();
            assert_ne!(session, 0);
            let there = Frame::Started {
                session: 0,
                started: who,
            };
            assert_eq!(third.hear(), Some(there));
            guest.say(&Frame::Exited {
                session,
                status: ExitStatus::Code(4),
            });
            // It wanted to know.
            let Answer::Timing(marks) = answer(&mut third) else {
                panic!("no account");
            };
            let phases: Vec<_> = marks.marks.iter().map(|mark| mark.phase).collect();
            assert_eq!(phases, [Phase::Monitor, Phase::Exec, Phase::Exit]);
            assert_eq!(third.hear(), Some(exited(4)));
            assert_eq!(third.hear(), None);

            let ask = Command::Ask(hullbox_protocol::Request::Freeze);
            let mut fourth = Door::say(&path, &ask);
            let Some(Frame::Request { number, .. }) = guest.hear() else {
                panic!("no Request");
            };
            let reply = hullbox_protocol::Reply::Done;
            guest.say(&Frame::Reply { number, reply });
            assert!(matches!(answer(&mut fourth), Answer::Done));

            let stop = Command::Stop {
                signal: 15,
                timeout_ms: Some(0),
            };
            let _fifth = Door::say(&path, &stop);
            let signal = |signal| Frame::Signal { session: 0, signal };
            assert_eq!(guest.hear(), Some(signal(15)));
            // It is frozen: a signal alone would not reach it.
            assert!(matches!(guest.hear(), Some(Frame::Request { .. })));
            assert_eq!(guest.hear(), Some(signal(9)));
            guest.say(&exited(137));
        });
        let outcome = run(backend, owner_fd, Some(&door.listener), Vec::new());
        assert!(outcome.manual);
        assert!(matches!(outcome.ending, Ending::Exited(status) if status.exit_code() == 137));
    });
}

/// What a client says while its process ends comes too late, and must not cost it the rest.
#[test]
fn late_words_of_a_client_cost_it_nothing() {
    const LEN: usize = 600_000;
    with_door("late", |path, mut guest, mut owner| {
        guest.say(&hello());
        guest.say(&started());
        assert_eq!(owner.hear(), Some(started()));
        // Both must be there at one look of the hub's: tried until it is likely.
        for _ in 0..60 {
            let mut client = Door::say(path, &exec(StreamSet::default()));
            let (session, _) = guest.start_process();
            let credit = Frame::Credit {
                session: 0,
                stream: Stream::Stdout,
                bytes: 1,
            };
            thread::scope(|scope| {
                scope.spawn(|| {
                    let mut late = Vec::new();
                    encode_into(&credit, &mut late).unwrap();
                    for _ in 0..20 {
                        // The hub may have told all there is, and be gone.
                        let _ = client.stream.write_all(&late);
                    }
                });
                for chunk in vec![7u8; LEN].chunks(60_000) {
                    guest.say(&Frame::Data {
                        session,
                        stream: Stream::Stdout,
                        bytes: chunk.to_vec(),
                    });
                }
                guest.say(&Frame::Exited {
                    session,
                    status: ExitStatus::Code(0),
                });
            });
            let mut got = 0;
            let end = loop {
                match client.hear() {
                    Some(Frame::Data { bytes, .. }) => got += bytes.len(),
                    Some(Frame::Started { .. }) => {}
                    other => break other,
                }
            };
            assert_eq!((got, end), (LEN, Some(exited(0))));
            // The credit that came in time.
            guest.stream.set_nonblocking(true).unwrap();
            while guest.stream.read(&mut [0; 4096]).is_ok() {}
            guest.stream.set_nonblocking(false).unwrap();
        }
        guest.say(&exited(0));
    });
}

#[test]
fn a_container_is_frozen_no_longer_than_who_holds_it_lives() {
    with_door("held", |path, mut guest, mut owner| {
        let request = |guest: &mut Peer, wanted: hullbox_protocol::Request| {
            let Some(Frame::Request { number, request }) = guest.hear() else {
                panic!("no Request");
            };
            assert_eq!(request, wanted);
            number
        };
        let done = |guest: &mut Peer, number| {
            let reply = hullbox_protocol::Reply::Done;
            guest.say(&Frame::Reply { number, reply });
        };
        guest.say(&hello());
        guest.say(&started());
        assert_eq!(owner.hear(), Some(started()));
        // Killed while it holds, and killed before it knew that it does.
        for answered in [true, false] {
            let mut holder = Door::say(path, &Command::Hold);
            let number = request(&mut guest, hullbox_protocol::Request::Freeze);
            if answered {
                done(&mut guest, number);
                assert!(matches!(answer(&mut holder), Answer::Done));
                drop(holder);
            } else {
                drop(holder);
                thread::sleep(Duration::from_millis(50));
                done(&mut guest, number);
            }
            let number = request(&mut guest, hullbox_protocol::Request::Thaw);
            done(&mut guest, number);
        }
        guest.say(&exited(0));
    });
}
