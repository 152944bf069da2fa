//! Streams that pass the monitor by.

use super::*;
use hullbox_protocol::Incoming;
use hullbox_session::connection::Connection;
use hullbox_session::direct::Descriptors;

/// A backend on the same host.
struct Near(Fake);

impl Backend for Near {
    fn link(&mut self) -> io::Result<Link> {
        self.0.link()
    }

    fn ended(&self) -> BorrowedFd<'_> {
        self.0.ended()
    }

    fn kill(&mut self) {
        self.0.kill();
    }

    fn takes_descriptors(&self) -> bool {
        true
    }

    fn release(self: Box<Self>, orderly: bool) -> String {
        Box::new(self.0).release(orderly)
    }
}

/// As [`with_door`], of a container whose workload's output passes the monitor by.
fn with_near_door(name: &str, play: impl FnOnce(&std::path::Path, Peer, Peer) + Send) {
    with_door_of(Near, name, play);
}

/// The next frame, whatever came with it.
fn next(connection: &mut Connection) -> Frame {
    loop {
        match connection.next_incoming().unwrap() {
            Some(Incoming::Frame(frame)) => return frame,
            Some(Incoming::Data { .. }) => panic!("data"),
            None => assert!(connection.fill().unwrap(), "the connection ended"),
        }
    }
}

#[test]
fn what_a_client_passes_reaches_the_side_of_its_process() {
    with_near_door("passed", |path, mut guest, mut owner| {
        guest.say(&hello());
        guest.say(&started());
        assert_eq!(owner.hear(), Some(started()));
        let (mut read, write) = std::io::pipe().unwrap();
        let socket = UnixStream::connect(path).unwrap();
        let mut client = Connection::new(socket.into()).unwrap();
        let descriptors = Descriptors {
            stdout: Some(write.into()),
            ..Descriptors::default()
        };
        let exec = exec(descriptors.streams());
        client.send(&control::to_frame(&exec).unwrap()).unwrap();
        client.flush().unwrap();
        rustix::io::ioctl_fionbio(&client, false).unwrap();
        let heard = control::to_frame(&Answer::Acknowledged).unwrap();
        assert_eq!(next(&mut client), heard, "before they are passed");
        client.send_descriptors(0, descriptors).unwrap();
        client.flush().unwrap();

        let mut guest = Connection::new(guest.stream.into()).unwrap();
        // Blocking, whatever it was made.
        rustix::io::ioctl_fionbio(&guest, false).unwrap();
        guest.accept_descriptors();
        let Frame::Descriptors { session, streams } = next(&mut guest) else {
            panic!("they come first");
        };
        let passed = guest.take_descriptors(streams).unwrap();
        assert_eq!(
            passed.streams().iter().collect::<Vec<_>>(),
            [Stream::Stdout]
        );
        assert!(matches!(next(&mut guest), Frame::Exec { session: s, .. } if s == session));
        rustix::io::write(passed.stdout.as_ref().unwrap(), b"by").unwrap();
        // The monitor has kept none, or this had no end.
        drop(passed);
        let mut text = String::new();
        read.read_to_string(&mut text).unwrap();
        assert_eq!(text, "by");

        // Nobody is left to read what it says.
        drop(client);
        let stream = Stream::Stdin;
        assert_eq!(next(&mut guest), Frame::Eof { session, stream });
        assert_eq!(next(&mut guest), Frame::Relay { session });
        guest.send(&exited(0)).unwrap();
        guest.flush().unwrap();
    });
}

#[test]
fn who_is_attached_later_has_the_output_pass_the_monitor_again() {
    with_near_door("relayed", |path, mut guest, mut owner| {
        guest.say(&hello());
        guest.say(&started());
        assert_eq!(owner.hear(), Some(started()));
        let mut second = Door::say(path, &Command::Attach { stdin: false });
        assert_eq!(guest.hear(), Some(Frame::Relay { session: 0 }));
        let _third = Door::say(path, &Command::Attach { stdin: false });
        let output = data(Stream::Stdout, b"for all");
        guest.say(&output);
        assert_eq!(owner.hear(), Some(output.clone()));
        assert!(matches!(second.hear(), Some(Frame::Eof { .. })));
        assert_eq!(second.hear(), Some(output));
        guest.say(&exited(0));
        assert_eq!(owner.hear(), None);
    });
}

#[test]
fn who_passes_less_than_was_said_is_told_so() {
    with_near_door("lacking", |path, mut guest, mut owner| {
        guest.say(&hello());
        guest.say(&started());
        assert_eq!(owner.hear(), Some(started()));
        let streams = StreamSet::default().with(Stream::Stdout);
        let mut client = Door::say(path, &exec(streams));
        let session = 0;
        client.say(&Frame::Descriptors { session, streams });
        let Answer::Failed(why) = answer(&mut client) else {
            panic!("it was taken");
        };
        assert!(why.contains("not received"), "{why}");
        guest.say(&exited(0));
        assert_eq!(owner.hear(), None);
    });
}
