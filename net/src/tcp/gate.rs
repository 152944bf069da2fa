//! Flows whose policy goes by names: what the member sends first is held until it tells one, and only then
//! is anybody connected to.

use super::flow::{Flow, Key, Source, State};
use super::open::connect;
use super::{Tcp, emit, token};
use crate::core::Core;
use crate::counters::{Cause, Target};
use crate::frame::tcp::TcpSegment;
use crate::gate::{Found, MAX_BYTES, Speech, Unnamed};
use crate::table::Id;
use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::{SendFlags, sockopt};
use std::net::SocketAddr;

/// Most addresses of a name that are tried for one flow.
const MAX_TRIES: usize = 4;
/// Most flows of a member that are held: 16 MiB.
const MAX_HELD: usize = 1024;
/// What is counted of a member beside its kinds of flows.
pub const HELD: usize = 4;

/// What keeps a flow from its socket.
#[derive(Debug)]
pub struct Gate {
    speech: Speech,
    /// What the member sent first, and was told that it has arrived.
    held: Vec<u8>,
    /// When the name is too late.
    until_ns: u64,
    /// The name was allowed.
    is_open: bool,
    /// Where it leads, as far as that was not tried; the next one last.
    left: Vec<SocketAddr>,
    /// Somebody was given some of it.
    has_sent: bool,
}

impl Gate {
    /// How much more the member may send, in bytes.
    #[must_use]
    pub fn room(&self) -> usize {
        match self.is_open {
            true => 0,
            false => MAX_BYTES.saturating_sub(self.held.len()),
        }
    }

    /// Holds as much as there is room for.
    pub fn hold(&mut self, bytes: &[u8]) -> usize {
        let held = bytes.get(..self.room()).unwrap_or(bytes);
        self.held.extend_from_slice(held);
        held.len()
    }

    /// When the name is too late; none once it was allowed.
    #[must_use]
    pub fn deadline_ns(&self) -> Option<u64> {
        (!self.is_open).then_some(self.until_ns)
    }
}

impl Tcp {
    /// Answers a SYN in the place of whoever it is for.
    pub(super) fn open_gate(
        &mut self,
        core: &mut Core,
        key: Key,
        segment: &TcpSegment<'_>,
        speech: Speech,
    ) {
        if !core.has_room(key.member, HELD, MAX_HELD) {
            return;
        }
        let mut flow = Flow::new(key, State::SynReceived, None, self.initial(core, &key));
        flow.learn(segment, emit::longest_segment(core, &key));
        let wait = core.config.limits.name_wait.as_nanos();
        flow.gate = Some(Box::new(Gate {
            speech,
            held: Vec::new(),
            until_ns: core
                .now_ns
                .saturating_add(u64::try_from(wait).unwrap_or(u64::MAX)),
            is_open: false,
            left: Vec::new(),
            has_sent: false,
        }));
        if let Some(id) = self.add(core, flow) {
            self.send_syn(core, id);
        }
    }

    /// The member sent more.
    pub(super) fn on_held(&mut self, core: &mut Core, id: Id) {
        let Some(flow) = self.flows.get_mut(id) else {
            return;
        };
        let Some(gate) = flow.gate.as_ref().filter(|gate| !gate.is_open) else {
            return self.mark(id);
        };
        match gate.speech.read(&gate.held) {
            Found::More if gate.room() == 0 => self.refuse_unnamed(core, id, Unnamed::TooLong),
            // All has come that will.
            Found::More if flow.guest_fin == Some(flow.expected) => {
                self.refuse_unnamed(core, id, Unnamed::Late);
            }
            Found::More => self.mark(id),
            Found::Nothing(why) => self.refuse_unnamed(core, id, why),
            Found::Name(name) => self.on_name(core, id, &name),
        }
    }

    fn on_name(&mut self, core: &mut Core, id: Id, name: &str) {
        let Some(flow) = self.flows.get_mut(id) else {
            return;
        };
        let mut left = core.judge_named(flow.key.member, flow.key.remote, name);
        left.truncate(MAX_TRIES);
        left.reverse();
        if let Some(gate) = &mut flow.gate {
            gate.is_open = true;
            gate.left = left;
        }
        self.connect_next(core, id);
    }

    /// Tries the next address of the name. The member does not see that one could not be reached: a host
    /// without IPv6 would otherwise seem to refuse it.
    fn connect_next(&mut self, core: &mut Core, id: Id) {
        let Some(flow) = self.flows.get_mut(id) else {
            return;
        };
        while let Some(target) = flow.gate.as_mut().and_then(|gate| gate.left.pop()) {
            let events = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
            if let Ok(socket) = connect(target)
                && core.watch(&socket, token(id), events).is_ok()
            {
                flow.socket = Some(socket);
                return self.mark(id);
            }
        }
        self.abort(core, id);
    }

    /// The name did not come in time.
    pub(super) fn on_late_name(&mut self, core: &mut Core, id: Id) {
        self.refuse_unnamed(core, id, Unnamed::Late);
    }

    fn refuse_unnamed(&mut self, core: &mut Core, id: Id, why: Unnamed) {
        if let Some(flow) = self.flows.get(id) {
            let target = Target::Unnamed(flow.key.remote, why);
            core.refuse(flow.key.member, target, Cause::Nameless);
        }
        self.abort(core, id);
    }

    /// The socket behind the gate is connected, takes more, or is broken.
    pub(super) fn on_gate_event(&mut self, core: &mut Core, id: Id, events: EventFlags) {
        let Some(flow) = self.flows.get_mut(id) else {
            return;
        };
        flow.source_ended |= events.intersects(EventFlags::RDHUP | EventFlags::HUP);
        let (Some(socket), Some(gate)) = (&flow.socket, &mut flow.gate) else {
            return;
        };
        let failed = events.contains(EventFlags::ERR)
            || !matches!(sockopt::socket_error(socket), Ok(Ok(())));
        if failed && gate.has_sent {
            return self.abort(core, id);
        }
        if failed {
            flow.source_ended = false;
            return self.connect_next(core, id);
        }
        if !events.contains(EventFlags::OUT) {
            return;
        }
        while !gate.held.is_empty() {
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            match rustix::net::send(socket, &gate.held, flags) {
                Ok(sent) => {
                    gate.has_sent = true;
                    gate.held.drain(..sent);
                }
                Err(Errno::AGAIN | Errno::NOTCONN | Errno::NOBUFS | Errno::NOMEM) => return,
                Err(Errno::INTR) => {}
                Err(_) => return self.abort(core, id),
            }
        }
        flow.gate = None;
        flow.refused = false;
        // What it has may have been told before.
        flow.source = Source::Ready;
        core.release(flow.key.member, HELD);
        self.on_room(core, id);
        self.mark(id);
    }
}
