//! The process: its entry, and the one that serves a container's own network until the end of its control
//! connection.

use crate::attended::{Attended, Newcomer, is_watched, link_of};
use crate::engine::{self, words};
use crate::jail::{self, Ends};
use crate::message::{Answer, Incoming, Link, Request, Start, send};
use crate::shape::Shape;
use crate::{JOIN_OPTION, RELAY_OPTION, door, join, ports, relay, share};
use hullbox_host::privileges::more_descriptors;
use hullbox_net::Control;
use hullbox_protocol::NETWORK_VSOCK_OPTION;
use rustix::event::{PollFd, PollFlags, poll};
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::process::ExitCode;

/// The process's entry: what follows [`crate::ENTRY`] on the command line. Standard input is the control
/// connection.
#[must_use]
pub fn main(arguments: &[OsString]) -> ExitCode {
    let ended = match arguments {
        [] => run(&Place::Here),
        [option, dir] if option == JOIN_OPTION => run(&Place::Shared(dir.into())),
        [option, path] if option == NETWORK_VSOCK_OPTION => run(&Place::Outside(path.into())),
        [option] if option == RELAY_OPTION => run(&Place::Machine(relay::Host::Vsock)),
        [option, path] if option == RELAY_OPTION => {
            run(&Place::Machine(relay::Host::Unix(path.into())))
        }
        _ => Err(io::ErrorKind::InvalidInput.into()),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Where the process runs.
enum Place {
    /// Beside its monitor.
    Here,
    /// Beside its monitor, which wants to be in a network that has its process already, or will have: its
    /// sockets are in this directory.
    Shared(PathBuf),
    /// On the host, for a monitor in the helper machine; with the path that stands for its vsock.
    Outside(PathBuf),
    /// In the helper machine, where the host is reached so.
    Machine(relay::Host),
}

fn run(place: &Place) -> io::Result<()> {
    let control = jail::detach()?;
    let mut incoming = Incoming::default();
    let start = match incoming.wait(&control)? {
        Some(Request::Start(start)) => *start,
        Some(Request::Share(shape)) => {
            let descriptors = incoming.take_descriptors();
            drop(control);
            return share::serve(shape, descriptors).map_err(io::Error::other);
        }
        _ => return Ok(()),
    };
    let descriptor = incoming.take_descriptors().next();
    let served = match place {
        Place::Machine(host) => relay::run(&control, host, start, descriptor),
        Place::Here => serve(&control, incoming, start, Source::Given(descriptor)),
        Place::Shared(dir) => {
            let source = Source::Given(descriptor);
            join::join(&control, start, source, dir)
        }
        Place::Outside(vsock) if start.membership.is_some() => {
            let dir = hullbox_host::paths::networks_beside(vsock);
            join::join(&control, start, Source::Dialled(vsock), &dir)
        }
        Place::Outside(vsock) => serve(&control, incoming, start, Source::Dialled(vsock)),
    };
    if let Err(message) = served {
        // Whoever asked may be gone.
        let _ = send(control.as_fd(), &Answer::Failed { message }, &[]);
    }
    Ok(())
}

/// Where the member's frames are to come from.
pub enum Source<'a> {
    /// The descriptor that came with the request.
    Given(Option<OwnedFd>),
    /// A stream that is dialled, given the path that stands for vsock.
    Dialled(&'a std::path::Path),
}

impl Source<'_> {
    /// The descriptor of the member's frames; `answer` is what whoever dials is told. None if the control
    /// connection ends before.
    ///
    /// # Errors
    /// In words: why there is none.
    pub fn take(
        self,
        control: &OwnedFd,
        link: Link,
        answer: impl FnOnce(u32) -> Answer,
    ) -> Result<Option<OwnedFd>, String> {
        match (link, self) {
            (Link::Inherited(_), Self::Given(Some(descriptor))) => Ok(Some(descriptor)),
            (Link::Dial, Self::Dialled(vsock)) => door::dialled(control, vsock, answer),
            _ => Err("the network's member is missing".to_owned()),
        }
    }
}

fn serve(
    control: &OwnedFd,
    incoming: Incoming,
    start: Start,
    source: Source<'_>,
) -> Result<(), String> {
    more_descriptors();
    let config = Shape::of(&start).config(&start.network.dns);
    let (sockets, open) =
        ports::open_all(&start.network.ports).map_err(|error| error.to_string())?;
    let ready = |dial_port| Answer::Ready {
        ports: open,
        dial_port,
    };
    // Who dials is told at once, and anyone else when all is done.
    let mut ready = Some(ready);
    let taken = source.take(control, start.member, |port| match ready.take() {
        Some(ready) => ready(Some(port)),
        None => Answer::Done,
    });
    let Some(descriptor) = taken? else {
        return Ok(());
    };
    let clone = |fd: &OwnedFd| {
        fd.try_clone()
            .map_err(words("cannot duplicate a descriptor"))
    };
    let watched = is_watched(start.member).then(|| clone(&descriptor));
    let newcomer = Newcomer {
        control: clone(control)?,
        incoming,
        link: link_of(start.member, descriptor),
        watched: watched.transpose()?,
        sockets,
        start,
    };
    let answer = ready.map(|ready| ready(None));
    engine::run(config, Ends::WithParent, move |network| {
        attend(newcomer, answer, network);
    })
}

/// Answers on the control connection until it ends, or the member does.
fn attend(newcomer: Newcomer, answer: Option<Answer>, network: &Control) {
    let mut member = match Attended::add(newcomer, network) {
        Ok(member) => member,
        Err(refused) => {
            refused.tell();
            return;
        }
    };
    if answer.is_some_and(|answer| !member.say(&answer)) {
        return;
    }
    loop {
        let interests = member.interests();
        let mut fds = vec![PollFd::from_borrowed_fd(network.news(), PollFlags::IN)];
        fds.extend(interests.into_iter().flatten());
        match poll(&mut fds, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return,
        }
        let events = |at: usize| fds.get(at).map_or(PollFlags::empty(), PollFd::revents);
        let (has_news, events) = (!events(0).is_empty(), [events(1), events(2)]);
        drop(fds);
        if has_news {
            network.notices().iter().for_each(|one| member.tell(one));
        }
        if !member.attend(events, network) {
            return;
        }
    }
}
