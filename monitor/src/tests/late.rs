//! Clients that read the end late.

use super::*;
use crate::serve::{linger, send_outcome};
use crate::signals::Signals;

#[test]
fn who_reads_late_reads_all_and_holds_nobody_up() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut client = Client::new(0, theirs.into(), Role::attached(true)).unwrap();
    let chunk = vec![7u8; MAX_DATA];
    for _ in 0..16 {
        let connection = &mut client.connection;
        connection.send_data(0, Stream::Stdout, &chunk).unwrap();
    }
    let begun = Instant::now();
    let late = send_outcome(vec![client], &exited(7), 7, &Timing::default());
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "nobody is waited for"
    );
    let (_keep, signals) = UnixStream::pair().unwrap();
    let signals = Signals::read_from(signals).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| linger(late, &signals));
        let mut peer = Peer {
            stream: ours,
            decoder: Decoder::new(),
        };
        hear_all(&mut peer, Stream::Stdout, 16 * MAX_DATA);
        assert_eq!(peer.hear(), Some(exited(7)));
        assert_eq!(peer.hear(), None);
    });
}

#[test]
fn who_lingers_can_be_told_to_go() {
    let (_ours, theirs) = UnixStream::pair().unwrap();
    let mut client = Client::new(0, theirs.into(), Role::Leaving).unwrap();
    let chunk = vec![7u8; MAX_DATA];
    for _ in 0..16 {
        let connection = &mut client.connection;
        connection.send_data(0, Stream::Stdout, &chunk).unwrap();
    }
    let (told, signals) = UnixStream::pair().unwrap();
    let signals = Signals::read_from(signals).unwrap();
    thread::scope(|scope| {
        let lingering = scope.spawn(|| linger(vec![client], &signals));
        (&told).write_all(b"X").unwrap();
        lingering.join().unwrap();
    });
}
