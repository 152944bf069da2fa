//! What is due: lost segments, closed windows, silent members.

use super::flow::State;
use super::{Tcp, emit, token};
use crate::core::Core;
use crate::table::Id;

/// How often SYN or SYN-ACK are sent again.
const MAX_SYN_RETRIES: u8 = 5;
/// How often data are sent again: with waits that double up to 51 s, about eight minutes.
const MAX_RETRIES: u8 = 15;

impl Tcp {
    /// A flow's deadline may be over.
    pub fn on_timer(&mut self, core: &mut Core, id: Id) {
        let Some(flow) = self.flows.get_mut(id) else {
            return;
        };
        if !core
            .timers
            .is_due(&mut flow.deadline, token(id), core.now_ns)
        {
            return;
        }
        match flow.state {
            State::Connecting => {}
            State::TimeWait => self.remove(core, id),
            State::SynSent | State::SynReceived => {
                flow.retries += 1;
                if flow.retries > MAX_SYN_RETRIES {
                    self.abort(core, id);
                } else {
                    self.send_syn(core, id);
                }
            }
            State::Established => self.on_silence(core, id),
        }
    }

    fn on_silence(&mut self, core: &mut Core, id: Id) {
        let Some(flow) = self.flows.get_mut(id) else {
            return;
        };
        let late_ns = flow.gate.as_ref().and_then(|gate| gate.deadline_ns());
        if late_ns.is_some_and(|late_ns| late_ns <= core.now_ns) {
            return self.on_late_name(core, id);
        }
        flow.retries += 1;
        if flow.retries > MAX_RETRIES {
            return self.abort(core, id);
        }
        if flow.is_waiting() && flow.window > 0 {
            core.counters.retransmitted_bytes += flow.rewind() as u64;
        } else {
            // The window is closed, or nothing was to be said for two hours.
            flow.probes = flow.probes.saturating_add(1);
            let _ = emit::probe(core, flow);
        }
        self.mark(id);
    }
}
