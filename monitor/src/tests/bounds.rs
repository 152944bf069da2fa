//! Guests and clients that repeat themselves: what it costs the monitor has bounds.

use super::*;
use hullbox_protocol::Request;

fn eof(session: u32, stream: Stream) -> Frame {
    Frame::Eof { session, stream }
}

fn credit(session: u32, bytes: u32) -> Frame {
    let stream = Stream::Stdin;
    Frame::Credit {
        session,
        stream,
        bytes,
    }
}

#[test]
fn what_is_said_once_is_not_said_twice() {
    let cases = [
        vec![hello(), hello()],
        vec![eof(0, Stream::Stdin), eof(0, Stream::Stdin)],
        vec![
            started(),
            eof(0, Stream::Stdout),
            eof(0, Stream::Stderr),
            eof(0, Stream::Stdout),
        ],
        vec![eof(0, Stream::Stderr), data(Stream::Stderr, b"late")],
    ];
    for frames in cases {
        let guest = |mut peer: Peer| {
            for frame in &frames {
                peer.say(frame);
            }
            let _ = peer.stream.read_to_end(&mut Vec::new());
        };
        let (ending, _) = between(guest, |mut peer| while peer.hear().is_some() {});
        assert!(
            matches!(&ending, Ending::Died(Some(why)) if why.contains("broke the protocol")),
            "{ending:?} of {frames:?}"
        );
    }
}

#[test]
fn a_process_beside_the_workload_says_it_once_too() {
    let door = Door::new("repeats");
    let (mut guest, guest_fd) = Peer::pair();
    let (mut owner, owner_fd) = Peer::pair();
    let backend = Fake::new(Link::Connected(guest_fd));
    thread::scope(|scope| {
        scope.spawn(|| {
            guest.say(&started());
            assert_eq!(owner.hear(), Some(started()));
            let mut client = Door::say(&door.path, &exec(StreamSet::default()));
            let Some(Frame::Exec { session, .. }) = guest.hear() else {
                panic!("no Exec");
            };
            guest.say(&eof(session, Stream::Stdout));
            assert_eq!(client.hear(), Some(eof(0, Stream::Stdout)));
            guest.say(&eof(session, Stream::Stdout));
            let _ = guest.stream.read_to_end(&mut Vec::new());
        });
        let outcome = run(backend, owner_fd, Some(&door.listener), Vec::new());
        assert!(
            matches!(&outcome.ending, Ending::Died(Some(why)) if why.contains("twice")),
            "{:?}",
            outcome.ending
        );
    });
}

/// Hears credit until it is so much in all; in how many frames it came.
fn hear_credit(peer: &mut Peer, all: u32) -> usize {
    let (mut sum, mut frames) = (0, 0);
    while sum < all {
        match peer.hear() {
            Some(Frame::Credit { bytes, .. }) => sum += bytes,
            other => panic!("{other:?} after {sum}"),
        }
        frames += 1;
    }
    assert_eq!(sum, all);
    frames
}

#[test]
fn credit_reaches_a_writer_in_sums() {
    const MANY: u32 = 200_000;
    with_door("sums", |path, mut guest, mut owner| {
        guest.say(&hello());
        guest.say(&started());
        assert_eq!(owner.hear(), Some(started()));
        let mut client = Door::say(path, &exec(StreamSet::default()));
        let Some(Frame::Exec { session, .. }) = guest.hear() else {
            panic!("no Exec");
        };
        for session in [0, session] {
            let mut bytes = Vec::new();
            encode_into(&credit(session, 1), &mut bytes).unwrap();
            guest
                .stream
                .write_all(&bytes.repeat(MANY as usize))
                .unwrap();
        }
        // One for each look of the hub's at a guest that has filled its socket.
        let frames = hear_credit(&mut owner, MANY) + hear_credit(&mut client, MANY);
        assert!(frames < 2000, "{frames}");
        guest.say(&exited(0));
    });
}

#[test]
fn a_client_that_grants_credit_and_does_not_read_is_dropped() {
    with_door("liar", |path, mut guest, mut owner| {
        guest.say(&hello());
        guest.say(&started());
        assert_eq!(owner.hear(), Some(started()));
        let mut liar = Door::say(path, &exec(StreamSet::default()));
        let Some(Frame::Exec { session, .. }) = guest.hear() else {
            panic!("no Exec");
        };
        let stream = Stream::Stdout;
        liar.say(&Frame::Credit {
            session: 0,
            stream,
            bytes: u32::MAX,
        });
        assert!(matches!(guest.hear(), Some(Frame::Credit { .. })));
        let output = Frame::Data {
            session,
            stream,
            bytes: vec![7; MAX_DATA],
        };
        let mut bytes = Vec::new();
        encode_into(&output, &mut bytes).unwrap();
        // More than anybody may leave unread, and not more than it takes when it is gone.
        for _ in 0..(32 << 20) / MAX_DATA {
            guest.stream.write_all(&bytes).unwrap();
        }
        let gone = Frame::Eof {
            session,
            stream: Stream::Stdin,
        };
        assert_eq!(guest.hear(), Some(gone), "what it left has no writer");
        guest.say(&exited(0));
        let mut kept = 0;
        let mut chunk = vec![0; 1 << 20];
        while let Ok(read @ 1..) = liar.stream.read(&mut chunk) {
            kept += read;
        }
        assert!(kept < 20 << 20, "{kept}");
    });
}

#[test]
fn with_all_places_taken_it_can_still_be_stopped() {
    with_door("crowd", |path, mut guest, mut owner| {
        guest.say(&hello());
        guest.say(&started());
        assert_eq!(owner.hear(), Some(started()));
        let attach = Command::Attach { stdin: false };
        let crowd: Vec<_> = (1..256).map(|_| Door::say(path, &attach)).collect();
        for refused in [attach, Command::Watch, Command::Ask(Request::Usage)] {
            let mut client = Door::say(path, &refused);
            assert!(matches!(answer(&mut client), Answer::Failed(_)));
            assert_eq!(client.hear(), None);
        }
        let stop = Command::Stop {
            signal: 15,
            timeout_ms: None,
        };
        let _stopper = Door::say(path, &stop);
        assert!(matches!(
            guest.hear(),
            Some(Frame::Signal { signal: 15, .. })
        ));
        guest.say(&exited(0));
        drop(crowd);
    });
}

#[test]
fn what_does_not_fit_a_frame_is_told_and_not_waited_for() {
    let (mut guest, guest_fd) = Peer::pair();
    let (_owner, owner_fd) = Peer::pair();
    let backend = Fake::new(Link::Connected(guest_fd));
    let spec = hullbox_protocol::ProcessSpec {
        env: vec![vec![b'x'; hullbox_protocol::MAX_PAYLOAD]],
        ..Default::default()
    };
    let opening = vec![Frame::Exec {
        session: 0,
        spec: Box::new(spec),
    }];
    guest.say(&hello());
    let ending = run(backend, owner_fd, None, opening).ending;
    assert!(
        matches!(&ending, Ending::Failed(failure) if failure.exit_code() == 126),
        "{ending:?}"
    );
}
