//! Inside the helper machine: frames between the container and the host, where its network is served.
//!
//! A stream of frames has four bytes of length, big-endian, before each. Whichever side takes nothing
//! more is not read for: a packet socket that is full holds the container's device up, and TCP above it
//! makes good what a TAP device drops. Nothing is dropped here that was read, and what one wake-up finds
//! goes out in one write, because over vsock each costs an exit of the machine.

use crate::channel::{Channel, Moved};
use crate::door;
use crate::jail::{self, Ends};
use crate::message::{Answer, Carrier, Incoming, Link, Request, Start, send};
use hullbox_net::frame::{ETHERNET_BYTES, MAX_FRAME_BYTES, VNET_BYTES};
use hullbox_protocol::MACHINE_NETWORK_PORT;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown, recv};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

const LENGTH_BYTES: usize = 4;
/// Room for the longest frame.
const FRAME_ROOM: usize = LENGTH_BYTES + MAX_FRAME_BYTES;
/// What may be on its way in each direction, in bytes.
const FRAMES_BYTES: usize = 4 * FRAME_ROOM;
/// The same for control messages.
const CONTROL_BYTES: usize = 16 * 1024;
/// How long the host may take to answer: it starts a process. The machine is emulated.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);
/// How long the host's process may take to end, with the ports that it holds.
const END_LIMIT: Duration = Duration::from_secs(8);

/// How the host is reached.
pub enum Host {
    /// By vsock.
    Vsock,
    /// By Unix sockets that stand for vsock, as on the host's side: this path, `_`, and the port.
    Unix(PathBuf),
}

impl Host {
    fn dial(&self, port: u32) -> io::Result<OwnedFd> {
        match self {
            Self::Vsock => hullbox_host::vsock::dial_host(port, ANSWER_LIMIT),
            Self::Unix(path) => Ok(UnixStream::connect(door::socket_of(path, port))?.into()),
        }
    }
}

/// Serves until either control connection or the container's interface ends.
///
/// # Errors
/// Before it is ready: why, in words.
pub fn run(
    control: &OwnedFd,
    host: &Host,
    mut start: Start,
    descriptor: Option<OwnedFd>,
) -> Result<(), String> {
    let (Link::Inherited(carrier), Some(member)) = (start.member, descriptor) else {
        return Err("the network's member is missing".to_owned());
    };
    start.member = Link::Dial;
    let lost = |error: io::Error| {
        format!(
            "the helper machine's host does not serve networks: {error}; 'hullbox machine stop' may help"
        )
    };
    let outside = host.dial(MACHINE_NETWORK_PORT).map_err(lost)?;
    send(outside.as_fd(), &Request::Start(Box::new(start)), &[]).map_err(lost)?;
    let nonsense = || lost(io::ErrorKind::InvalidData.into());
    let (ports, stream) = match answer(&outside).map_err(lost)? {
        Answer::Ready {
            ports,
            dial_port: Some(port),
        } => (ports, host.dial(port).map_err(lost)?),
        // A network that others share may refuse a member that it has seen.
        Answer::Dial(port) => {
            let stream = host.dial(port).map_err(lost)?;
            match answer(&outside).map_err(lost)? {
                Answer::Ready { ports, .. } => (ports, stream),
                Answer::Failed { message } => return Err(message),
                _ => return Err(nonsense()),
            }
        }
        Answer::Failed { message } => return Err(message),
        _ => return Err(nonsense()),
    };
    let dial_port = None;
    for fd in [&member, &stream] {
        rustix::io::ioctl_fionbio(fd, true).map_err(|errno| lost(errno.into()))?;
    }
    jail::give_up(Ends::WithParent)
        .and_then(|()| jail::lock_relay_in())
        .map_err(|error| format!("cannot give up privileges: {error}"))?;
    let ready = Answer::Ready { ports, dial_port };
    // Whoever asked may be gone.
    if send(control.as_fd(), &ready, &[]).is_err() {
        return Ok(());
    }
    let mut relay = Relay {
        monitor: control,
        outside: &outside,
        member,
        carrier,
        stream,
        requests: Channel::new(CONTROL_BYTES),
        answers: Channel::new(CONTROL_BYTES),
        frames_out: Channel::new(FRAMES_BYTES),
        frames_in: Channel::new(FRAMES_BYTES),
        is_member_full: false,
    };
    while relay.turn() == Moved::Some {}
    drop(relay);
    wait_for_end(&outside);
    Ok(())
}

/// The host's answer. Nothing follows it before the next request.
fn answer(outside: &OwnedFd) -> io::Result<Answer> {
    let mut incoming = Incoming::default();
    let deadline = Instant::now() + ANSWER_LIMIT;
    loop {
        if let Some(answer) = incoming.next()? {
            return Ok(answer);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if !wait(outside, left) {
            return Err(io::ErrorKind::TimedOut.into());
        }
        if !incoming.fill(outside)? {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// Whether it becomes readable in this time.
fn wait(fd: &OwnedFd, time: Duration) -> bool {
    let timeout = Timespec::try_from(time).unwrap_or_default();
    let mut fds = [PollFd::new(fd, PollFlags::IN)];
    matches!(poll(&mut fds, Some(&timeout)), Ok(1..) | Err(Errno::INTR))
}

/// Has the host's process end and waits for it: its ports are free then.
fn wait_for_end(outside: &OwnedFd) {
    // It may have ended.
    let _ = rustix::net::shutdown(outside, Shutdown::Write);
    let deadline = Instant::now() + END_LIMIT;
    let mut rest = [0; 1024];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() || !wait(outside, left) {
            return;
        }
        match recv(outside, &mut rest, RecvFlags::DONTWAIT) {
            Ok((_, 1..)) | Err(Errno::AGAIN | Errno::INTR) => {}
            Ok((_, 0)) | Err(_) => return,
        }
    }
}

struct Relay<'a> {
    monitor: &'a OwnedFd,
    /// The control connection to the host's process.
    outside: &'a OwnedFd,
    member: OwnedFd,
    carrier: Carrier,
    /// The frames' way to the host's process.
    stream: OwnedFd,
    requests: Channel,
    answers: Channel,
    frames_out: Channel,
    frames_in: Channel,
    /// The container takes no frame at the moment, and the next one is here.
    is_member_full: bool,
}

fn interest(read: bool, write: bool) -> PollFlags {
    let mut events = PollFlags::empty();
    events.set(PollFlags::IN, read);
    events.set(PollFlags::OUT, write);
    events
}

impl Relay<'_> {
    /// Waits and moves what can be moved.
    fn turn(&mut self) -> Moved {
        let Some([monitor, outside, member, stream]) = self.wait() else {
            return Moved::Ended;
        };
        let gone = PollFlags::HUP | PollFlags::ERR;
        let readable = PollFlags::IN | gone;
        let mut ended = false;
        let mut step = |wanted: bool, step: &mut dyn FnMut() -> Moved| {
            ended |= wanted && step() == Moved::Ended;
        };
        step(member.intersects(readable), &mut || self.read_frames());
        step(true, &mut || self.frames_out.write_to(&self.stream));
        step(stream.intersects(readable), &mut || {
            self.frames_in.read_from(&self.stream)
        });
        step(true, &mut || self.write_frames());
        step(monitor.intersects(readable), &mut || {
            self.requests.read_from(self.monitor)
        });
        step(true, &mut || self.requests.write_to(self.outside));
        step(outside.intersects(readable), &mut || {
            self.answers.read_from(self.outside)
        });
        step(true, &mut || self.answers.write_to(self.monitor));
        // What hung up is looked at even where nothing is read from it: else it would wake us for ever.
        let hung_up = (member | monitor | outside | stream).intersects(gone);
        if ended || hung_up {
            Moved::Ended
        } else {
            Moved::Some
        }
    }

    fn wait(&self) -> Option<[PollFlags; 4]> {
        let pending = |channel: &Channel| !channel.pending().is_empty();
        let mut fds = [
            PollFd::new(
                self.monitor,
                interest(self.requests.free() > 0, pending(&self.answers)),
            ),
            PollFd::new(
                self.outside,
                interest(self.answers.free() > 0, pending(&self.requests)),
            ),
            PollFd::new(
                &self.member,
                interest(self.frames_out.free() >= FRAME_ROOM, self.is_member_full),
            ),
            PollFd::new(
                &self.stream,
                interest(self.frames_in.free() > 0, pending(&self.frames_out)),
            ),
        ];
        match poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => Some(fds.each_ref().map(PollFd::revents)),
            Err(_) => None,
        }
    }

    /// Takes the frames that the container has sent, as long as there is room for one more.
    fn read_frames(&mut self) -> Moved {
        while self.frames_out.free() >= FRAME_ROOM {
            let room = self.frames_out.room();
            let Some((head, rest)) = room.split_first_chunk_mut::<LENGTH_BYTES>() else {
                break;
            };
            let room = rest.get_mut(..MAX_FRAME_BYTES).unwrap_or_default();
            let length = match self.carrier {
                Carrier::Tap => rustix::io::read(&self.member, &mut *room),
                Carrier::Packets => {
                    let flags = RecvFlags::TRUNC | RecvFlags::DONTWAIT;
                    match recv(&self.member, &mut *room, flags) {
                        // No frame is empty: its other end is gone.
                        Ok((_, 0)) => return Moved::Ended,
                        other => other.map(|(_, length)| length),
                    }
                }
            };
            match length {
                Ok(length) if is_frame(length) => {
                    *head = (length as u32).to_be_bytes();
                    self.frames_out.filled(LENGTH_BYTES + length);
                }
                // No frame that anybody could use.
                Ok(_) => {}
                Err(Errno::AGAIN | Errno::INTR) => break,
                Err(_) => return Moved::Ended,
            }
        }
        Moved::Some
    }

    /// Gives the container the frames that are here as a whole, as far as it takes them.
    fn write_frames(&mut self) -> Moved {
        self.is_member_full = false;
        loop {
            let pending = self.frames_in.pending();
            let Some((head, rest)) = pending.split_first_chunk::<LENGTH_BYTES>() else {
                return Moved::Some;
            };
            let length = usize::try_from(u32::from_be_bytes(*head)).unwrap_or(usize::MAX);
            if !is_frame(length) {
                return Moved::Ended;
            }
            let Some(frame) = rest.get(..length) else {
                return Moved::Some;
            };
            let written = match self.carrier {
                Carrier::Tap => rustix::io::write(&self.member, frame),
                Carrier::Packets => {
                    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
                    rustix::net::send(&self.member, frame, flags)
                }
            };
            match written {
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => {
                    self.is_member_full = true;
                    return Moved::Some;
                }
                Err(Errno::PIPE | Errno::CONNRESET | Errno::BADFD) => return Moved::Ended,
                // An interface that is down takes none; the frame is lost, as on a wire.
                Ok(_) | Err(_) => self.frames_in.consume(LENGTH_BYTES + length),
            }
        }
    }
}

fn is_frame(length: usize) -> bool {
    (VNET_BYTES + ETHERNET_BYTES..=MAX_FRAME_BYTES).contains(&length)
}
