//! TCP, translated: a member's connection is a host socket's, and nothing is buffered between
//! them but what came behind a gap. What the socket has received is peeked at and stays there until the
//! member has acknowledged it; what the member sends is acknowledged when the socket has taken it, and
//! the member's window is what the socket has room for.
//!
//! - `ahead`: what was sent and the socket was not given yet.
//! - `blocked`: flows that wait for their member's link.
//! - `flow`: one connection's state.
//! - `emit`: segments to members.
//! - `open`: how flows begin.
//! - `gate`: flows that wait for a name.
//! - `guest`: segments from members.
//! - `host`: what sockets have and take.
//! - `timer`: what is due.

mod ahead;
mod blocked;
#[cfg(any(test, feature = "probes"))]
pub(crate) mod check;
mod emit;
mod flow;
mod gate;
mod guest;
mod host;
mod open;
mod sequence;
mod timer;

use crate::core::{Core, MemberId};
use crate::table::{Id, Table};
use crate::timers::SECOND_NS;
use crate::token::{Kind, Token};
use blocked::Blocked;
use flow::{Flow, Key, State};
use rustix::event::epoll::EventFlags;
use rustix::net::sockopt;
use std::collections::HashMap;
use std::time::Duration;

const FLOWS: usize = 0;
/// How long a flow that has ended answers late segments.
const TIME_WAIT_NS: u64 = 2 * SECOND_NS;

/// All TCP flows.
#[derive(Debug, Default)]
pub struct Tcp {
    flows: Table<Flow>,
    index: HashMap<Key, Id>,
    /// Flows that the end of the turn looks at.
    dirty: Vec<Id>,
    /// Flows whose member's link took nothing.
    blocked: Blocked,
    /// Flows that wait until their members may be sent more: those that had nothing of it the last time.
    hungry: Vec<Id>,
    /// And those that had something.
    fed: Vec<Id>,
    /// Secret of the first sequence numbers.
    secret: std::collections::hash_map::RandomState,
}

fn token(id: Id) -> Token {
    Token {
        kind: Kind::Tcp,
        id,
    }
}

impl Tcp {
    /// Takes note of a socket's events.
    pub fn on_event(&mut self, core: &mut Core, id: Id, events: EventFlags) {
        let Some(flow) = self.flows.get_mut(id) else {
            return;
        };
        if flow.state == State::Connecting {
            self.on_connected(core, id, events);
            return;
        }
        if flow.gate.is_some() {
            self.on_gate_event(core, id, events);
            return;
        }
        if events.contains(EventFlags::ERR) {
            self.abort(core, id);
            return;
        }
        let readable = EventFlags::IN | EventFlags::RDHUP | EventFlags::HUP;
        if events.intersects(readable) {
            flow.source = flow::Source::Ready;
            flow.source_ended |= events.intersects(EventFlags::RDHUP | EventFlags::HUP);
        }
        if events.contains(EventFlags::OUT) {
            self.on_writable(core, id);
        }
        self.mark(id);
    }

    /// Does what this turn of the loop has made due: sends data, acknowledgements, windows.
    /// Whether there is more to do that no event will tell of.
    pub fn finish_turn(&mut self, core: &mut Core) -> bool {
        for id in std::mem::take(&mut self.dirty) {
            if let Some(flow) = self.flows.get_mut(id) {
                flow.is_dirty = false;
                self.serve(core, id);
            }
        }
        self.serve_blocked(core);
        !self.dirty.is_empty() || self.blocked.is_due()
    }

    /// A member's link takes frames again.
    pub fn on_link_writable(&mut self, member: MemberId) {
        self.blocked.resume(member);
    }

    /// A member may be sent more: its flows take turns to be the first.
    pub fn on_rate(&mut self, member: MemberId) {
        for list in [
            std::mem::take(&mut self.hungry),
            std::mem::take(&mut self.fed),
        ] {
            for id in list {
                let Some(flow) = self.flows.get_mut(id) else {
                    continue;
                };
                if flow.key.member == member {
                    flow.is_late = false;
                    self.mark(id);
                } else {
                    self.hungry.push(id);
                }
            }
        }
    }

    /// A flow waits until its member may be sent more.
    fn wait_for_rate(&mut self, id: Id, has_sent: bool) {
        if let Some(flow) = self.flows.get_mut(id)
            && !std::mem::replace(&mut flow.is_late, true)
        {
            let list = match has_sent {
                true => &mut self.fed,
                false => &mut self.hungry,
            };
            list.push(id);
        }
    }

    /// Ends all flows of a member that has gone; their peers get a reset.
    pub fn end_member(&mut self, core: &mut Core, member: MemberId) {
        let own = |(id, flow): (Id, &Flow)| (flow.key.member == member).then_some(id);
        let ids: Vec<Id> = self.flows.iter().filter_map(own).collect();
        for id in ids {
            self.reset_host(core, id);
        }
        for list in [&mut self.hungry, &mut self.fed] {
            list.retain(|&id| self.flows.get(id).is_some());
        }
        self.blocked.forget(member);
    }

    fn mark(&mut self, id: Id) {
        if let Some(flow) = self.flows.get_mut(id)
            && !flow.is_dirty
        {
            flow.is_dirty = true;
            self.dirty.push(id);
        }
    }

    /// Adds a flow that `core` has room for.
    fn add(&mut self, core: &mut Core, mut flow: Flow) -> Option<Id> {
        let key = flow.key;
        let member = core.members.get(key.member);
        flow.longest_window = member.map_or(u32::MAX, |member| member.pace.longest_window());
        if flow.gate.is_some() {
            core.take(key.member, gate::HELD);
        }
        let id = self.flows.insert(|_| flow);
        self.index.insert(key, id);
        core.counters.tcp_begun += 1;
        core.counters.tcp_flows += 1;
        if let Some(member) = core.members.get_mut(key.member) {
            member.flows[FLOWS] += 1;
        }
        let Some(socket) = &self.flows.get(id)?.socket else {
            return Some(id);
        };
        let events = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        if core.watch(socket, token(id), events).is_err() {
            self.abort(core, id);
            return None;
        }
        Some(id)
    }

    fn has_room(core: &mut Core, member: MemberId) -> bool {
        let limit = core.config.limits.tcp_flows;
        core.has_room(member, FLOWS, limit)
    }

    /// Resets both ends.
    fn abort(&mut self, core: &mut Core, id: Id) {
        if let Some(flow) = self.flows.get(id) {
            emit::reset(core, flow);
        }
        self.reset_host(core, id);
    }

    /// Resets the host's end.
    fn reset_host(&mut self, core: &mut Core, id: Id) {
        if let Some(socket) = self.flows.get(id).and_then(|flow| flow.socket.as_ref()) {
            // Closing then sends RST. It cannot fail for a TCP socket.
            let _ = sockopt::set_socket_linger(socket, Some(Duration::ZERO));
        }
        self.remove(core, id);
    }

    fn remove(&mut self, core: &mut Core, id: Id) {
        let Some(flow) = self.flows.remove(id) else {
            return;
        };
        self.index.remove(&flow.key);
        core.timers.forget(flow.deadline, token(id));
        core.counters.tcp_flows -= 1;
        core.ahead_bytes -= flow.ahead.cost();
        if flow.gate.is_some() {
            core.release(flow.key.member, gate::HELD);
        }
        if let Some(member) = core.members.get_mut(flow.key.member) {
            member.flows[FLOWS] -= 1;
        }
    }
}
