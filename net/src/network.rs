//! The loop of a network: one thread, one epoll.

use crate::config::NetworkConfig;
use crate::control::{Command, Control};
use crate::core::{Core, MemberId, watch_link};
use crate::error::NetError;
use crate::frame::MAX_FRAME_BYTES;
use crate::link::Received;
use crate::publish::PortKind;
use crate::switch::Flows;
use crate::table::Id;
use crate::timers::now_ns;
use crate::token::{Kind, Token};
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, Event, EventFlags};
use rustix::event::{EventfdFlags, Timespec, eventfd};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::Receiver;

/// Most events of one turn.
const MAX_EVENTS: usize = 256;
/// Most frames of one link in one turn; others have their turn then.
const MAX_FRAMES: usize = 64;
/// Most connections of one published port in one turn.
const MAX_ACCEPTS: usize = 64;
const NO_WAIT: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 0,
};

/// A network that can run.
#[derive(Debug)]
pub struct Network {
    core: Core,
    flows: Flows,
    input: Box<[u8]>,
    wake: Arc<OwnedFd>,
    commands: Receiver<Command>,
    /// Links of which more was read than was served in one turn.
    read_ahead: Vec<MemberId>,
    is_stopped: bool,
}

impl Network {
    /// Makes a network without members, and what commands it.
    ///
    /// # Errors
    /// If the kernel gives no epoll, timer or event descriptor.
    pub fn new(config: NetworkConfig) -> Result<(Self, Control), NetError> {
        let core = Core::new(config)?;
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let wake = Arc::new(eventfd(0, flags)?);
        core.watch(&wake, Token::only(Kind::Control), EventFlags::IN)?;
        let (control, commands) = Control::new(Arc::clone(&wake), Arc::clone(&core.notices));
        let network = Self {
            core,
            flows: Flows::default(),
            input: vec![0; MAX_FRAME_BYTES].into_boxed_slice(),
            wake,
            commands,
            read_ahead: Vec::new(),
            is_stopped: false,
        };
        Ok((network, control))
    }

    /// Serves the network until it is told to stop.
    ///
    /// # Errors
    /// If waiting fails, which it does for no reason that a member could give.
    pub fn run(mut self) -> Result<(), NetError> {
        let mut events = Vec::with_capacity(MAX_EVENTS);
        let mut has_more = false;
        while !self.is_stopped {
            self.core.timers.arm()?;
            let wait = has_more.then_some(&NO_WAIT);
            events.clear();
            match epoll::wait(&self.core.epoll, spare_capacity(&mut events), wait) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            self.core.now_ns = now_ns();
            let flows_before = self.flow_count();
            for event in &events {
                self.on_event(event);
            }
            for id in std::mem::take(&mut self.read_ahead) {
                self.read_link(id, true);
            }
            has_more = self.flows.tcp.finish_turn(&mut self.core) || !self.read_ahead.is_empty();
            if self.flow_count() < flows_before {
                self.flows.ports.wake(&self.core);
            }
        }
        Ok(())
    }

    fn flow_count(&self) -> u64 {
        let counters = &self.core.counters;
        counters.tcp_flows + counters.udp_flows + counters.echo_flows
    }

    fn on_event(&mut self, event: &Event) {
        let Some(token) = Token::from_u64(event.data.u64()) else {
            return;
        };
        let (core, flows) = (&mut self.core, &mut self.flows);
        match token.kind {
            Kind::Link => self.on_link(token.id, event.flags),
            Kind::Tcp => flows.tcp.on_event(core, token.id, event.flags),
            Kind::Udp => flows.udp.on_event(core, token.id, event.flags),
            Kind::Echo => flows.echo.on_event(core, token.id),
            Kind::Port => self.on_port(token.id),
            Kind::Control => self.on_commands(),
            Kind::Timer => self.on_timer(),
            // It has no descriptor.
            Kind::Rate => {}
            Kind::Query => flows.dns.on_event(core, token.id),
            Kind::Stream => flows.dns.on_stream(core, token.id),
        }
    }

    fn on_link(&mut self, id: MemberId, events: EventFlags) {
        if events.contains(EventFlags::OUT)
            && let Some(member) = self.core.members.get_mut(id)
            && member.link.flush()
        {
            member.waits = false;
            watch_link(&self.core.epoll, id, member);
            self.flows.tcp.on_link_writable(id);
        }
        // The end of a link is told again and again, whatever it is watched for.
        let has_ended = events.intersects(EventFlags::HUP | EventFlags::ERR);
        if has_ended || events.contains(EventFlags::IN) {
            self.read_link(id, !has_ended);
        }
    }

    /// Serves what a link has, as far as its member's rate allows.
    fn read_link(&mut self, id: MemberId, is_paced: bool) {
        for _ in 0..MAX_FRAMES {
            if is_paced && !self.core.may_receive(id) {
                return;
            }
            let Some(member) = self.core.members.get_mut(id) else {
                return;
            };
            match member.link.receive(&mut self.input) {
                Received::Frame(length) => {
                    let frame = self.input.get_mut(..length).unwrap_or_default();
                    self.flows.on_frame(&mut self.core, id, frame);
                }
                Received::Empty => return,
                Received::Closed => {
                    self.flows.remove_member(&mut self.core, id);
                    return;
                }
            }
        }
        let member = self.core.members.get(id);
        if member.is_some_and(|member| member.link.has_read_ahead()) {
            self.read_ahead.push(id);
        }
    }

    /// A member may be sent more.
    fn resume_sending(&mut self, id: MemberId) {
        let (core, flows) = (&mut self.core, &mut self.flows);
        let Some(sockets) = core.resumes_sending(id) else {
            return;
        };
        for socket in sockets {
            match socket.kind {
                Kind::Udp => flows.udp.watch_again(core, socket.id),
                Kind::Port => flows.ports.watch_again(core, socket.id),
                _ => {}
            }
        }
        flows.tcp.on_rate(id);
    }

    fn on_port(&mut self, id: Id) {
        let (core, flows) = (&mut self.core, &mut self.flows);
        if flows.ports.kind(id) == Some(PortKind::Udp) {
            flows.udp.on_port(core, &mut flows.ports, id);
            return;
        }
        for _ in 0..MAX_ACCEPTS {
            let (Some(target), Some(accepted)) =
                (flows.ports.target(id), flows.ports.accept(core, id))
            else {
                return;
            };
            flows.tcp.on_accepted(core, accepted, target);
        }
    }

    fn on_timer(&mut self) {
        self.core.timers.fired();
        let now_ns = self.core.now_ns;
        while let Some(token) = self.core.timers.pop(now_ns) {
            let (core, flows) = (&mut self.core, &mut self.flows);
            match token.kind {
                Kind::Tcp => flows.tcp.on_timer(core, token.id),
                Kind::Udp => flows.udp.on_timer(core, token.id),
                Kind::Echo => flows.echo.on_timer(core, token.id),
                Kind::Query | Kind::Stream => flows.dns.on_timer(core, token),
                Kind::Link => {
                    if core.resumes_receiving(token.id) {
                        self.read_link(token.id, true);
                    }
                }
                Kind::Rate => self.resume_sending(token.id),
                Kind::Port | Kind::Control | Kind::Timer => {}
            }
        }
    }

    fn on_commands(&mut self) {
        let mut count = [0; 8];
        // It is read before the commands are: one that comes later wakes again.
        let _ = rustix::io::read(&self.wake, &mut count);
        while let Ok(command) = self.commands.try_recv() {
            self.obey(command);
        }
    }

    fn obey(&mut self, command: Command) {
        let (core, flows) = (&mut self.core, &mut self.flows);
        // An answer that nobody waits for is dropped.
        match command {
            Command::AddMember(config, answer) => {
                let _ = answer.send(core.add_member(config));
            }
            Command::RemoveMember(id, answer) => {
                let _ = answer.send(flows.remove_member(core, id));
            }
            Command::Publish(socket, (member, port), answer) => {
                let result = match core.members.get(member) {
                    // What it answers would leave the network.
                    Some(_) if core.config.internal => Err(NetError::Internal),
                    Some(_) => flows.ports.add(core, socket, member, port),
                    None => Err(NetError::NoMember),
                };
                let _ = answer.send(result);
            }
            Command::Unpublish(port, answer) => {
                flows.udp.end_port(core, port);
                let _ = answer.send(flows.ports.remove(port));
            }
            Command::SetPolicy(id, policy, answer) => {
                let member = core.members.get_mut(id);
                let found = member.is_some();
                if let Some(member) = member {
                    member.policy = policy;
                    member.counters.rules.clear();
                    // Their rules are others now.
                    member.counters.refused_targets.clear();
                }
                let _ = answer.send(found);
            }
            Command::SetNames(id, names, answer) => {
                let _ = answer.send(core.set_names(id, names));
            }
            Command::Totals(answer) => {
                let _ = answer.send(core.totals());
            }
            Command::Counters(id, answer) => {
                let member = core.members.get(id);
                let _ = answer.send(member.map(|member| member.counters.clone()));
            }
            Command::Stop => self.is_stopped = true,
        }
    }
}
