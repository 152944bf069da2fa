//! A zygote: a process that is forked, and prepares itself, before it is known what it is to run.
//!
//! ```text
//!  agent  ── orders ──►  zygote: prepares ─► waits ─► receives ─► becomes the program
//!         ◄── status ──
//! ```
//!
//! The orders are the frames that the agent had from the host, followed by nothing; with their first
//! byte come the descriptors that they need.

use super::child;
use super::root::Root;
use crate::failure::{failed, setup};
use crate::sys::{self, Forked, Namespaces};
use hullbox_protocol::{Decoder, Failure, Frame, ProcessSpec, Sender, Setup, encode_into};
use hullbox_session::children::{Pipes, Spawned};
use hullbox_session::status::{self, StatusReader, StatusWriter};
use rustix::io::{Errno, IoSlice, IoSliceMut};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use rustix::process::{Pid, Signal, WaitOptions};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Descriptors that go with orders: the root's, a network namespace's, the files', and three streams'.
const DESCRIPTORS: usize = 6;
/// Bytes of orders that are read at once.
const READ_LEN: usize = 32 * 1024;

/// One that waits for its orders, as its parent has it.
#[derive(Debug)]
pub struct Zygote {
    pid: Pid,
    orders: OwnedFd,
    status: StatusReader,
}

/// What it is to run.
#[derive(Debug)]
pub struct Orders {
    /// How the guest is arranged.
    pub setup: Box<Setup>,
    /// The program.
    pub spec: Box<ProcessSpec>,
    /// What goes with them: the root that was put together for it.
    pub root: OwnedFd,
    /// The network namespace that it is to be in, where it has no interface.
    pub network: Option<OwnedFd>,
    /// What its mounts are made of, if it has any.
    pub files: Option<OwnedFd>,
    /// Its ends of its streams.
    pub pipes: Pipes,
}

/// What an arrangement takes besides its words.
#[derive(Debug)]
pub struct Handed<'a> {
    /// The root that was put together.
    pub root: BorrowedFd<'a>,
    /// A network namespace, where the setup has no interface.
    pub network: Option<BorrowedFd<'a>>,
    /// A tree of mounts, where the setup has some.
    pub files: Option<OwnedFd>,
}

/// The zygote's own side.
#[derive(Debug)]
pub struct Own {
    orders: OwnedFd,
    status: StatusWriter,
}

impl Zygote {
    /// Forks one into a control group, with namespaces of its own. `live` is what it does; what that
    /// returns is why it does not become a program.
    ///
    /// # Errors
    /// A failure of the fork itself. All later ones come through [`Spawned::status`].
    pub fn fork(
        cgroup: BorrowedFd<'_>,
        live: impl FnOnce(&Own) -> Result<(), Failure>,
    ) -> Result<Self, Failure> {
        let what = || failed("cannot make a socket pair");
        let (orders, theirs) = socketpair(
            AddressFamily::UNIX,
            SocketType::STREAM,
            SocketFlags::CLOEXEC,
            None,
        )
        .map_err(what())?;
        let (reader, writer) = status::channel().map_err(what())?;
        match sys::fork(Namespaces::Own, Some(cgroup)).map_err(failed("cannot fork"))? {
            Forked::Parent(pid) => Ok(Self {
                pid,
                orders,
                status: reader,
            }),
            Forked::Child => {
                let own = Own {
                    orders: theirs,
                    status: writer,
                };
                if let Err(failure) = live(&own) {
                    own.status.failed(&failure);
                    sys::exit_now(i32::from(failure.exit_code()));
                }
                sys::exit_now(0)
            }
        }
    }

    /// Whether it has not ended. One that has is reaped.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        matches!(
            rustix::process::waitpid(Some(self.pid), WaitOptions::NOHANG),
            Ok(None)
        )
    }

    /// Gives it its orders.
    ///
    /// # Errors
    /// They cannot be made or given. Where it has died before, its status and its end tell why.
    pub fn order(
        self,
        setup: &Setup,
        spec: &ProcessSpec,
        handed: &Handed<'_>,
    ) -> Result<Spawned, Failure> {
        let (pipes, theirs) = Pipes::make(spec).map_err(failed("cannot make pipes"))?;
        let mut bytes = Vec::new();
        let frames = [
            Frame::Setup(Box::new(setup.clone())),
            Frame::Exec {
                session: 0,
                spec: Box::new(spec.clone()),
            },
        ];
        for frame in frames {
            encode_into(&frame, &mut bytes)
                .map_err(|error| crate::failure::setup(format_args!("orders: {error}")))?;
        }
        let fds: Vec<_> = [handed.root]
            .into_iter()
            .chain(handed.network)
            .chain(handed.files.as_ref().map(AsFd::as_fd))
            .chain(theirs.borrowed())
            .collect();
        // One that is dead does not hear them; one that has heard half of them must not go on.
        if let Err(errno) = send(self.orders.as_fd(), &bytes, &fds)
            && self.is_alive()
        {
            self.discard();
            return Err(failed("cannot give the workload its orders")(errno));
        }
        Ok(Spawned {
            pid: self.pid,
            status: self.status,
            pipes,
            terminal: spec.terminal.is_some() && spec.builtin.is_none(),
        })
    }

    /// Does without it.
    pub fn discard(self) {
        if !self.is_alive() {
            return;
        }
        // Both fail only where there is nobody any more.
        let _ = rustix::process::kill_process(self.pid, Signal::KILL);
        let _ = rustix::process::waitpid(Some(self.pid), WaitOptions::empty());
    }
}

fn send(to: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(Errno::TOOMANYREFS);
    }
    let iov = [IoSlice::new(bytes)];
    let mut rest = match bytes.get(sendmsg(to, &iov, &mut control, SendFlags::NOSIGNAL)?..) {
        Some(rest) => rest,
        None => return Ok(()),
    };
    while !rest.is_empty() {
        match rustix::net::send(to, rest, SendFlags::NOSIGNAL) {
            Ok(sent) => rest = rest.get(sent..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

impl Own {
    /// Closes everything else from descriptor 3 up, and begins a session.
    ///
    /// # Errors
    /// There is none to be had.
    pub fn detach(&self) -> Result<(), Failure> {
        child::detach(&[self.orders.as_fd(), self.status.as_fd()])
    }

    /// Waits for the orders. `None` if its parent does without it.
    ///
    /// # Errors
    /// They are none.
    pub fn receive(&self) -> Result<Option<Orders>, Failure> {
        let what = || failed("cannot read the orders");
        let mut decoder = Decoder::of(Sender::Host);
        let mut fds = Vec::new();
        let mut setup_frame = None;
        loop {
            match decoder.next_frame() {
                Ok(Some(Frame::Setup(frame))) => setup_frame = Some(frame),
                Ok(Some(Frame::Exec { spec, .. })) => {
                    return match setup_frame {
                        Some(frame) => arranged(frame, spec, fds).map(Some),
                        None => Err(setup("orders without an arrangement")),
                    };
                }
                Ok(None) => {
                    if receive_some(self.orders.as_fd(), &mut decoder, &mut fds).map_err(what())?
                        == 0
                    {
                        return Ok(None);
                    }
                }
                Ok(Some(_)) | Err(_) => return Err(setup("orders that are none")),
            }
        }
    }

    /// Becomes the program. Returns only when that fails.
    pub fn become_program(&self, spec: &ProcessSpec, pipes: Pipes, root: &dyn Root) -> Failure {
        child::become_program(spec, root, pipes, &self.status)
    }
}

fn receive_some(
    from: BorrowedFd<'_>,
    decoder: &mut Decoder,
    fds: &mut Vec<OwnedFd>,
) -> Result<usize, Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let room = decoder.room(READ_LEN);
    let received = loop {
        let iov = &mut [IoSliceMut::new(&mut *room)];
        match recvmsg(from, iov, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Err(Errno::INTR) => {}
            result => break result?.bytes,
        }
    };
    decoder.arrived(received);
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            fds.extend(received);
        }
    }
    Ok(received)
}

/// The descriptors in the order in which [`Zygote::order`] sends them.
fn arranged(
    setup_frame: Box<Setup>,
    spec: Box<ProcessSpec>,
    fds: Vec<OwnedFd>,
) -> Result<Orders, Failure> {
    let mut fds = fds.into_iter();
    let root = fds.next().ok_or_else(|| setup("orders without a root"))?;
    let network = match setup_frame.interfaces.is_empty() {
        false => None,
        true => Some(
            fds.next()
                .ok_or_else(|| setup("orders without a network"))?,
        ),
    };
    let files = match setup_frame.mounts.is_empty() {
        true => None,
        false => Some(fds.next().ok_or_else(|| setup("orders without files"))?),
    };
    let pipes = Pipes::of(&spec, fds);
    Ok(Orders {
        setup: setup_frame,
        spec,
        root,
        network,
        files,
        pipes,
    })
}
