//! Who may send how much, and what holds it back.

use super::*;

#[test]
fn a_client_that_does_not_read_stops_the_guest_and_not_the_monitor() {
    const TOTAL: usize = 8 << 20;
    let guest = |mut peer: Peer| {
        peer.say(&started());
        // Beyond all credit: a hostile guest. The hub holds it back instead of buffering it.
        let frame = data(Stream::Stdout, &[7; 32 * 1024]);
        let mut bytes = Vec::new();
        encode_into(&frame, &mut bytes).unwrap();
        peer.stream
            .set_write_timeout(Some(Duration::from_millis(500)))
            .unwrap();
        let mut sent = 0;
        while sent < TOTAL && peer.stream.write_all(&bytes).is_ok() {
            sent += bytes.len();
        }
        assert!(
            sent < TOTAL,
            "the hub took {sent} bytes for a client that reads none"
        );
    };
    let client = |peer: Peer| {
        thread::sleep(Duration::from_secs(2));
        drop(peer);
    };
    let (ending, _) = between(guest, client);
    assert!(!matches!(ending, Ending::Exited(_)), "{ending:?}");
}

#[test]
fn a_container_without_a_client_is_never_held_up() {
    let door = Door::new("alone");
    let (mut guest, guest_fd) = Peer::pair();
    let (mut owner, owner_fd) = Peer::pair();
    let backend = Fake::new(Link::Connected(guest_fd));
    thread::scope(|scope| {
        scope.spawn(move || {
            guest.say(&hello());
            guest.say(&started());
            assert_eq!(owner.hear(), Some(started()));
            owner.say(&control::to_frame(&Command::Detach).unwrap());
            assert_eq!(owner.hear(), None);
            // Nobody listens: all of it is taken, and credit comes back.
            let mut credit = u64::from(INITIAL_CREDIT);
            for _ in 0..64 {
                while credit < 60_000 {
                    match guest.hear() {
                        Some(Frame::Credit { bytes, .. }) => credit += u64::from(bytes),
                        other => panic!("{other:?}"),
                    }
                }
                guest.say(&data(Stream::Stdout, &[b'x'; 60_000]));
                credit -= 60_000;
            }
            guest.say(&exited(0));
        });
        let outcome = run(backend, owner_fd, Some(&door.listener), Vec::new());
        assert!(matches!(outcome.ending, Ending::Exited(_)));
    });
}

#[test]
fn a_guest_that_sends_more_than_it_has_credit_for_is_cut_off() {
    let guest = |mut peer: Peer| {
        peer.say(&hello());
        peer.say(&started());
        let mut bytes = Vec::new();
        encode_into(&data(Stream::Stdout, &[b'y'; 60_000]), &mut bytes).unwrap();
        while peer.stream.write_all(&bytes).is_ok() {}
    };
    // It reads, and never says so.
    let client = |mut peer: Peer| while peer.hear().is_some() {};
    let (ending, _) = between(guest, client);
    assert!(
        matches!(&ending, Ending::Died(Some(why)) if why.contains("credit")),
        "{ending:?}"
    );
}

/// A workload such as `cat`, that reads no more because its output is not taken, and a client that
/// has sent all the input it may before it says that it took the output: its word must be heard.
#[test]
fn credit_for_output_is_not_held_up_by_input_that_nobody_reads() {
    let all = INITIAL_CREDIT as usize;
    let chunk = vec![b'z'; MAX_DATA];
    let guest = |mut peer: Peer| {
        assert_eq!(peer.hear(), Some(Frame::Shutdown), "the opening");
        peer.say(&hello());
        peer.say(&started());
        for _ in 0..all / MAX_DATA {
            peer.say(&data(Stream::Stdout, &chunk));
        }
        // It is in the middle of writing: it gives no credit for input and waits for its own.
        let mut credit = hear_all(&mut peer, Stream::Stdin, all);
        while credit < INITIAL_CREDIT {
            match peer.hear() {
                Some(Frame::Credit {
                    stream: Stream::Stdout,
                    bytes,
                    ..
                }) => credit += bytes,
                other => panic!("{other:?}"),
            }
        }
        peer.say(&exited(0));
    };
    let client = |mut peer: Peer| {
        let time = Some(Duration::from_secs(20));
        peer.stream.set_write_timeout(time).unwrap();
        assert_eq!(peer.hear(), Some(started()));
        for _ in 0..all / MAX_DATA {
            peer.say(&data(Stream::Stdin, &chunk));
        }
        hear_all(&mut peer, Stream::Stdout, all);
        peer.say(&Frame::Credit {
            session: 0,
            stream: Stream::Stdout,
            bytes: INITIAL_CREDIT,
        });
        assert_eq!(peer.hear(), None);
    };
    let (ending, _) = between(guest, client);
    assert!(matches!(ending, Ending::Exited(_)), "{ending:?}");
}

#[test]
fn a_second_writer_is_told_what_the_first_one_left() {
    with_door("writers", |path, mut guest, mut owner| {
        let credit = |bytes| Frame::Credit {
            session: 0,
            stream: Stream::Stdin,
            bytes,
        };
        guest.say(&hello());
        guest.say(&started());
        assert_eq!(owner.hear(), Some(started()));
        owner.say(&data(Stream::Stdin, &[1; 50_000]));
        owner.say(&control::to_frame(&Command::Detach).unwrap());
        assert_eq!(owner.hear(), None);
        hear_all(&mut guest, Stream::Stdin, 50_000);
        guest.say(&credit(20_000));
        // Without a writer nobody is told, and it is not forgotten: said before the exec below, it
        // has been heard when that is there.
        let exec = Command::Exec {
            spec: Box::default(),
            detach: true,
            timing: Timing::default(),
            streams: StreamSet::default(),
        };
        let mut other = Door::say(path, &exec);
        guest.start_process();
        assert!(matches!(other.hear(), Some(Frame::Started { .. })));

        let mut second = Door::say(path, &Command::Attach { stdin: true });
        assert_eq!(second.hear(), Some(credit(INITIAL_CREDIT - 30_000)));
        guest.say(&credit(30_000));
        assert_eq!(second.hear(), Some(credit(30_000)));
        second.say(&data(Stream::Stdin, b"more"));
        hear_all(&mut guest, Stream::Stdin, 4);
        // Input beyond that costs it its place, and the container nothing.
        let chunk = data(Stream::Stdin, &[2; 60_000]);
        let mut bytes = Vec::new();
        encode_into(&chunk, &mut bytes).unwrap();
        thread::scope(|scope| {
            scope.spawn(|| while second.stream.write_all(&bytes).is_ok() {});
            let most = INITIAL_CREDIT as usize - 4;
            hear_all(&mut guest, Stream::Stdin, most / 60_000 * 60_000);
        });
        guest.say(&exited(0));
    });
}
