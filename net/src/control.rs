//! Commands to a network that runs, from other threads.

use crate::config::MemberConfig;
use crate::core::MemberId;
use crate::counters::{Counters, MemberCounters};
use crate::error::NetError;
use crate::notices::{Notice, Notices};
use crate::policy::Policy;
use crate::publish::PortKind;
use crate::table::Id;
use std::collections::VecDeque;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

/// Names a published port.
pub type PortId = Id;

/// A command, with where its answer goes.
pub(crate) enum Command {
    AddMember(MemberConfig, Sender<Result<MemberId, NetError>>),
    RemoveMember(MemberId, Sender<bool>),
    Publish(
        (PortKind, OwnedFd),
        (MemberId, u16),
        Sender<Result<PortId, NetError>>,
    ),
    Unpublish(PortId, Sender<bool>),
    SetPolicy(MemberId, Policy, Sender<bool>),
    SetNames(MemberId, Vec<String>, Sender<bool>),
    Totals(Sender<Counters>),
    Counters(MemberId, Sender<Option<MemberCounters>>),
    Stop,
}

/// Commands a network. Clones command the same one.
#[derive(Debug, Clone)]
pub struct Control {
    commands: Sender<Command>,
    wake: Arc<OwnedFd>,
    notices: Arc<Notices>,
}

impl Control {
    pub(crate) fn new(wake: Arc<OwnedFd>, notices: Arc<Notices>) -> (Self, Receiver<Command>) {
        let (commands, receiver) = channel();
        let control = Self {
            commands,
            wake,
            notices,
        };
        (control, receiver)
    }

    fn send(&self, command: Command) -> Result<(), NetError> {
        self.commands.send(command).map_err(|_| NetError::Ended)?;
        rustix::io::write(&self.wake, &1u64.to_ne_bytes())?;
        Ok(())
    }

    fn ask<T>(&self, make: impl FnOnce(Sender<T>) -> Command) -> Result<T, NetError> {
        let (sender, answer) = channel();
        self.send(make(sender))?;
        answer.recv().map_err(|_| NetError::Ended)
    }

    /// Adds a member.
    ///
    /// # Errors
    /// If an address is taken or out of range, the descriptor cannot be used, or the network ended.
    pub fn add_member(&self, member: MemberConfig) -> Result<MemberId, NetError> {
        self.ask(|answer| Command::AddMember(member, answer))?
    }

    /// Removes a member. Peers of its connections get a reset; its published ports are closed.
    ///
    /// # Errors
    /// If there is no such member, or the network ended.
    pub fn remove_member(&self, member: MemberId) -> Result<(), NetError> {
        let found = self.ask(|answer| Command::RemoveMember(member, answer))?;
        found.then_some(()).ok_or(NetError::NoMember)
    }

    /// Leads a socket of the host, as `open_port` opens it, to a member's port.
    ///
    /// # Errors
    /// If there is no such member, the network is an internal one or ended, or the socket cannot be used.
    pub fn publish(
        &self,
        socket: (PortKind, OwnedFd),
        target: (MemberId, u16),
    ) -> Result<PortId, NetError> {
        self.ask(|answer| Command::Publish(socket, target, answer))?
    }

    /// Closes a published port. Connections that were accepted go on.
    ///
    /// # Errors
    /// If the network ended.
    pub fn unpublish(&self, port: PortId) -> Result<bool, NetError> {
        self.ask(|answer| Command::Unpublish(port, answer))
    }

    /// Gives a member another policy; it is asked for flows that begin from now on.
    ///
    /// # Errors
    /// If there is no such member, or the network ended.
    pub fn set_policy(&self, member: MemberId, policy: Policy) -> Result<(), NetError> {
        let found = self.ask(|answer| Command::SetPolicy(member, policy, answer))?;
        found.then_some(()).ok_or(NetError::NoMember)
    }

    /// Gives a member other names, as [`MemberConfig::names`] has them.
    ///
    /// # Errors
    /// If there is no such member, or the network ended.
    pub fn set_names(&self, member: MemberId, names: Vec<String>) -> Result<(), NetError> {
        let found = self.ask(|answer| Command::SetNames(member, names, answer))?;
        found.then_some(()).ok_or(NetError::NoMember)
    }

    /// What was counted of a member.
    ///
    /// # Errors
    /// If there is no such member, or the network ended.
    pub fn counters(&self, member: MemberId) -> Result<MemberCounters, NetError> {
        let found = self.ask(|answer| Command::Counters(member, answer))?;
        found.ok_or(NetError::NoMember)
    }

    /// A descriptor that is readable while there are [`Self::notices`].
    #[must_use]
    pub fn news(&self) -> BorrowedFd<'_> {
        self.notices.event()
    }

    /// What members were refused since this was asked last: each target once, and of a member that is
    /// refused much a part.
    #[must_use]
    pub fn notices(&self) -> VecDeque<Notice> {
        self.notices.take()
    }

    /// What was counted of the network as a whole, members that have gone included.
    ///
    /// # Errors
    /// If the network ended.
    pub fn totals(&self) -> Result<Counters, NetError> {
        self.ask(Command::Totals)
    }

    /// Ends the network: `Network::run` returns.
    ///
    /// # Errors
    /// If the network ended already.
    pub fn stop(&self) -> Result<(), NetError> {
        self.send(Command::Stop)
    }
}
