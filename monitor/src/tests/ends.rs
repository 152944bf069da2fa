//! How a conversation ends, well or badly.

use super::*;

#[test]
fn frames_go_both_ways_until_the_end() {
    let guest = |mut peer: Peer| {
        assert_eq!(
            peer.hear(),
            Some(Frame::Shutdown),
            "the opening comes first"
        );
        for frame in [hello(), started(), data(Stream::Stdout, b"prompt")] {
            peer.say(&frame);
        }
        assert_eq!(peer.hear(), Some(data(Stream::Stdin, b"typed")));
        peer.say(&exited(7));
    };
    let client = |mut peer: Peer| {
        assert_eq!(peer.hear(), Some(started()));
        assert_eq!(peer.hear(), Some(data(Stream::Stdout, b"prompt")));
        peer.say(&data(Stream::Stdin, b"typed"));
        assert_eq!(peer.hear(), None, "the end is told by whoever ran the hub");
    };
    let (ending, _) = between(guest, client);
    assert!(
        matches!(ending, Ending::Exited(ExitStatus::Code(7))),
        "{ending:?}"
    );
}

#[test]
fn a_guest_that_lies_is_cut_off() {
    let long = || {
        let mut bytes = Vec::new();
        encode_into(&hello(), &mut bytes).unwrap();
        bytes[..4].copy_from_slice(&u32::MAX.to_le_bytes());
        bytes
    };
    let version = Frame::Hello(Hello {
        version: 99,
        uptime_us: 0,
    });
    let encoded = |frames: &[Frame]| {
        let mut bytes = Vec::new();
        for frame in frames {
            encode_into(frame, &mut bytes).unwrap();
        }
        bytes
    };
    let cases = [
        long(),
        encoded(&[version]),
        encoded(&[exited(0)]),
        encoded(&[started(), started()]),
        encoded(&[data(Stream::Stdin, b"x")]),
        encoded(&[Frame::Shutdown]),
        encoded(&[Frame::Signal {
            session: 0,
            signal: 9,
        }]),
        encoded(&[Frame::Exited {
            session: 5,
            status: ExitStatus::Code(0),
        }]),
    ];
    for bytes in cases {
        let guest = |mut peer: Peer| {
            peer.stream.write_all(&bytes).unwrap();
            while let Ok(Some(_)) = peer.decoder.next_frame() {}
            let _ = peer.stream.read_to_end(&mut Vec::new());
        };
        let (ending, _) = between(guest, |mut peer| while peer.hear().is_some() {});
        assert!(matches!(ending, Ending::Died(Some(_))), "{ending:?}");
    }
}

#[test]
fn a_failure_to_start_is_passed_on_without_tricks() {
    let failure = Failure {
        kind: FailureKind::NotFound,
        message: "no\x1b[2Jsuch\nfile".to_owned(),
    };
    let guest = |mut peer: Peer| {
        peer.say(&hello());
        peer.say(&Frame::Failed {
            session: 0,
            failure,
        });
    };
    let (ending, _) = between(guest, |_| {});
    match ending {
        Ending::Failed(failure) => {
            assert_eq!(failure.message, "no [2Jsuch file");
            assert_eq!(failure.exit_code(), 127);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_client_that_dies_takes_the_workload_along() {
    let guest = |mut peer: Peer| {
        peer.say(&started());
        while let Some(frame) = peer.hear() {
            if let Frame::Signal { signal, .. } = frame {
                assert_eq!(signal, 9);
                peer.say(&Frame::Exited {
                    session: 0,
                    status: ExitStatus::Signal {
                        signal: 9,
                        oom: false,
                    },
                });
                return;
            }
        }
    };
    let client = |mut peer: Peer| assert_eq!(peer.hear(), Some(started()));
    let (ending, _) = between(guest, client);
    assert!(matches!(
        ending,
        Ending::Exited(ExitStatus::Signal { signal: 9, .. })
    ));
}

#[test]
fn a_guest_that_ignores_its_death_is_ended_all_the_same() {
    let guest = |mut peer: Peer| {
        peer.say(&started());
        while peer.hear().is_some() {}
    };
    let client = |mut peer: Peer| drop(peer.hear());
    let (ending, took) = between(guest, client);
    let killed = ExitStatus::Signal {
        signal: 9,
        oom: false,
    };
    assert!(
        matches!(ending, Ending::Exited(status) if status == killed),
        "{ending:?}"
    );
    assert!(took < Duration::from_secs(15), "{took:?}");
}

#[test]
fn a_broken_guest_connection_is_asked_about() {
    let guest = |mut peer: Peer| peer.say(&started());
    let (ending, _) = between(guest, |mut peer| while peer.hear().is_some() {});
    assert!(matches!(ending, Ending::Died(None)), "{ending:?}");
    assert_eq!(
        ending.words("the virtual machine burst").as_deref(),
        Some("the virtual machine burst")
    );
}

#[test]
fn a_guest_that_boots_for_ever_can_be_interrupted() {
    let path = std::env::temp_dir().join(format!("hullbox-hub-{}", std::process::id()));
    let (mut client, client_fd) = Peer::pair();
    let listener = UnixListener::bind(&path).unwrap();
    let backend = Fake::new(Link::Awaited(listener));
    client.say(&data(Stream::Stdin, b"typed ahead"));
    client.say(&Frame::Signal {
        session: 0,
        signal: 2,
    });
    let ending = run(backend, client_fd, None, Vec::new()).ending;
    std::fs::remove_file(path).unwrap();
    let interrupted = ExitStatus::Signal {
        signal: 2,
        oom: false,
    };
    assert!(
        matches!(ending, Ending::Exited(status) if status == interrupted),
        "{ending:?}"
    );
}
