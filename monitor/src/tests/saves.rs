//! A container that is being saved answers all the same.

use super::*;
use hullbox_backend::saving::{Description, Progress, Reporter, Saving, saving};
use hullbox_protocol::{Reply, Request};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};

/// A backend whose saving the test does.
struct Slow {
    fake: Fake,
    saved: Sender<(Reporter, Arc<AtomicBool>)>,
}

impl Backend for Slow {
    fn link(&mut self) -> io::Result<Link> {
        self.fake.link()
    }

    fn ended(&self) -> BorrowedFd<'_> {
        self.fake.ended()
    }

    fn kill(&mut self) {
        self.fake.kill();
    }

    fn save(&mut self, _: &Path, _: Description) -> Result<Saving, String> {
        let cancel = Arc::new(AtomicBool::new(false));
        let (saving, reporter) = saving(Arc::clone(&cancel)).unwrap();
        self.saved.send((reporter, cancel)).unwrap();
        Ok(saving)
    }

    fn release(self: Box<Self>, _: bool) -> String {
        String::new()
    }
}

/// What `snapshot create` says.
fn save() -> Command {
    Command::Save {
        dir: PathBuf::from("/nowhere"),
        about: "{}".to_owned(),
    }
}

fn expect(guest: &mut Peer, wanted: &Request) -> u32 {
    match guest.hear() {
        Some(Frame::Request { number, request }) if request == *wanted => number,
        other => panic!("{other:?} in place of {wanted:?}"),
    }
}

#[test]
fn a_container_that_is_saved_answers_and_stops() {
    let door = Door::new("saves");
    let (mut guest, guest_fd) = Peer::pair();
    let (mut owner, owner_fd) = Peer::pair();
    let (tell, told) = channel();
    let backend = Slow {
        fake: Fake::new(Link::Connected(guest_fd)),
        saved: tell,
    };
    thread::scope(|scope| {
        let path = door.path.as_path();
        scope.spawn(move || {
            let done = |guest: &mut Peer, number| {
                let reply = Reply::Done;
                guest.say(&Frame::Reply { number, reply });
            };
            guest.say(&started());
            assert_eq!(owner.hear(), Some(started()));
            for stopped in [false, true] {
                let mut saver = Door::say(path, &save());
                let number = expect(&mut guest, &Request::Suspend);
                done(&mut guest, number);
                let (reporter, cancel) = told.recv().unwrap();
                // Nothing waits for it.
                let mut other = Door::say(path, &Command::Attach { stdin: false });
                assert!(matches!(other.hear(), Some(Frame::Eof { .. })));
                let mut second = Door::say(path, &save());
                assert!(matches!(answer(&mut second), Answer::Failed(_)));
                assert!(!cancel.load(Ordering::Acquire));
                if stopped {
                    let stop = Command::Stop {
                        signal: 15,
                        timeout_ms: None,
                    };
                    let _stopper = Door::say(path, &stop);
                    let signal = Frame::Signal {
                        session: 0,
                        signal: 15,
                    };
                    assert_eq!(guest.hear(), Some(signal));
                    assert!(cancel.load(Ordering::Acquire));
                }
                reporter.tell(Progress::Resumed);
                let number = expect(&mut guest, &Request::Resume);
                done(&mut guest, number);
                if stopped {
                    reporter.tell(Progress::Done(Err("interrupted".to_owned())));
                    assert!(
                        matches!(answer(&mut saver), Answer::Failed(why) if why.contains("stopped"))
                    );
                } else {
                    reporter.tell(Progress::Done(Ok(())));
                    assert!(matches!(answer(&mut saver), Answer::Done));
                }
            }
            guest.say(&exited(0));
        });
        let ending = run(backend, owner_fd, Some(&door.listener), Vec::new()).ending;
        assert!(matches!(ending, Ending::Exited(_)), "{ending:?}");
    });
}

#[test]
fn a_saving_that_breaks_off_has_failed() {
    let (saving, reporter) = saving(Arc::default()).unwrap();
    assert!(saving.progress().is_none());
    drop(reporter);
    assert!(matches!(saving.progress(), Some(Progress::Done(Err(_)))));
}
