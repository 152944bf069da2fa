//! The process of a network that containers share: it is nobody's child, and ends with the last member.
//!
//! ```text
//! who joins ═ socket ═► member's control connection, frames, ports ─► one engine for all
//! monitors ════════════ control connections ═══════════════════════►  └─ frames, host's sockets
//! ```
//!
//! What arrives here was opened elsewhere: this process opens nothing, and has the jail of one that serves
//! a container's own network.

use crate::attended::{Attended, Newcomer, is_watched, link_of};
use crate::engine;
use crate::jail::Ends;
use crate::message::{Answer, Incoming, Join, send};
use crate::ports::{OpenSocket, kind};
use crate::shape::Shape;
use hullbox_host::privileges::more_descriptors;
use hullbox_net::Control;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with};
use std::os::fd::{AsFd, OwnedFd};

/// How soon the lock is tried again that somebody else has, while there is no member.
const RETRY: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 20_000_000,
};

/// Serves until the last member has gone. The first two descriptors are the socket at which members
/// arrive, and the network's lock.
///
/// # Errors
/// In words: why not. Nobody hears them.
pub fn serve(shape: Shape, mut descriptors: impl Iterator<Item = OwnedFd>) -> Result<(), String> {
    let (Some(listener), Some(lock)) = (descriptors.next(), descriptors.next()) else {
        return Err("the network's socket is missing".to_owned());
    };
    more_descriptors();
    // Resolvers that were typed are a member's.
    let config = shape.config(&[]);
    rustix::io::ioctl_fionbio(&listener, true).map_err(|errno| errno.to_string())?;
    let sharing = Sharing {
        listener,
        lock,
        shape,
        members: Vec::new(),
        joining: None,
    };
    engine::run(config, Ends::Alone, move |network| sharing.run(network))
}

/// What the thread knows that answers on control connections.
struct Sharing {
    listener: OwnedFd,
    lock: OwnedFd,
    shape: Shape,
    members: Vec<Attended>,
    /// Who is about to join: one at a time, because who joins holds the lock.
    joining: Option<(OwnedFd, Incoming)>,
}

impl Sharing {
    /// Returns the last member's control connection, whose end tells its monitor that this process has
    /// ended.
    fn run(mut self, network: &Control) -> Option<OwnedFd> {
        let mut last = None;
        loop {
            let is_idle = self.members.is_empty() && self.joining.is_none();
            if is_idle && self.may_end() {
                // Nobody may think that it is served.
                drop(self.listener);
                return last;
            }
            match self.turn(is_idle, network) {
                Ok(gone) if self.members.is_empty() => last = gone.or(last),
                Ok(_) => last = None,
                Err(_) => return None,
            }
        }
    }

    /// Whether nobody is about to join: who does holds the lock until it has been answered.
    fn may_end(&self) -> bool {
        flock(&self.lock, FlockOperation::NonBlockingLockExclusive).is_ok()
    }

    /// Waits and does what there is to do. Returns the control connection of a member that has gone.
    fn turn(&mut self, is_idle: bool, network: &Control) -> Result<Option<OwnedFd>, Errno> {
        let arriving = match &self.joining {
            Some((connection, _)) => PollFd::new(connection, PollFlags::IN),
            None => PollFd::new(&self.listener, PollFlags::IN),
        };
        let news = PollFd::from_borrowed_fd(network.news(), PollFlags::IN);
        let mut fds = vec![arriving, news];
        for member in &self.members {
            fds.extend(member.interests().into_iter().flatten());
        }
        match poll(&mut fds, is_idle.then_some(&RETRY)) {
            Ok(_) => {}
            Err(Errno::INTR) => return Ok(None),
            Err(errno) => return Err(errno),
        }
        let mut events = fds.iter().map(PollFd::revents);
        let mut next = || events.next().is_some_and(|events| !events.is_empty());
        let (arrived, has_news) = (next(), next());
        let of_members: Vec<[PollFlags; 2]> = self
            .members
            .iter()
            .map(|member| {
                let mut next = |there: bool| match there {
                    true => events.next().unwrap_or(PollFlags::empty()),
                    false => PollFlags::empty(),
                };
                member.interests().map(|fd| next(fd.is_some()))
            })
            .collect();
        drop(events);
        drop(fds);
        if has_news {
            for notice in network.notices() {
                self.members.iter().for_each(|one| one.tell(&notice));
            }
        }
        let mut gone = None;
        // Those who leave make room for who comes: it may be the same container.
        for (at, events) in of_members.into_iter().enumerate().rev() {
            let stays = events.iter().all(PollFlags::is_empty)
                || self
                    .members
                    .get_mut(at)
                    .is_some_and(|member| member.attend(events, network));
            if !stays {
                gone = Some(self.members.swap_remove(at).remove(network));
            }
        }
        if arrived {
            self.receive(network);
        }
        Ok(gone)
    }

    /// Takes a connection, or what has come on one.
    fn receive(&mut self, network: &Control) {
        let Some((connection, mut incoming)) = self.joining.take() else {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            // Who connected may be gone.
            if let Ok(connection) = accept_with(&self.listener, flags) {
                self.joining = Some((connection, Incoming::default()));
            }
            return;
        };
        if !incoming.fill(&connection).unwrap_or(false) {
            return;
        }
        match incoming.next::<Join>() {
            Ok(Some(join)) => {
                let answer = match self.admit(join, incoming.take_descriptors(), network) {
                    Ok(()) => Answer::Done,
                    Err(message) => Answer::Failed { message },
                };
                // Who asked may be gone, and the member is not.
                let _ = send(connection.as_fd(), &answer, &[]);
            }
            Ok(None) => self.joining = Some((connection, incoming)),
            Err(_) => {}
        }
    }

    fn admit(
        &mut self,
        join: Join,
        mut descriptors: impl Iterator<Item = OwnedFd>,
        network: &Control,
    ) -> Result<(), String> {
        let Join { start, ports } = join;
        if !self.shape.fits(&Shape::of(&start)) {
            return Err("the network is in use with another configuration".to_owned());
        }
        let mut next = || {
            descriptors
                .next()
                .ok_or_else(|| "the network's member is missing".to_owned())
        };
        let (control, frames, watched) = (next()?, next()?, next()?);
        let sockets = ports
            .iter()
            .map(|port| {
                Ok(OpenSocket {
                    kind: kind(port.protocol),
                    socket: next()?,
                    container_port: port.container_port,
                })
            })
            .collect::<Result<_, String>>()?;
        // One monitor that does not read must not hold up the others.
        rustix::io::ioctl_fionbio(&control, true).map_err(|errno| errno.to_string())?;
        let newcomer = Newcomer {
            control,
            incoming: Incoming::default(),
            link: link_of(start.member, frames),
            watched: is_watched(start.member).then_some(watched),
            start,
            sockets,
        };
        let member = Attended::add(newcomer, network).map_err(|refused| refused.message)?;
        let ready = Answer::Ready {
            ports,
            dial_port: None,
        };
        // One whose monitor is gone already is found out by its connection's end.
        let _ = member.say(&ready);
        self.members.push(member);
        Ok(())
    }
}
