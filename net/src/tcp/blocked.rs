//! Flows whose member's link takes nothing at the moment.
//!
//! A member that does not read has many. Each is tried again when its turn comes and the link has room; what
//! that costs does not grow with how many wait, and other members' flows do not wait for it.

use super::{FLOWS, Tcp};
use crate::core::{Core, MemberId};
use crate::table::Id;
use std::collections::{HashMap, VecDeque};

/// Most flows of one member that are tried in one turn of the loop.
const MAX_TRIED: usize = 64;
/// Queues are searched for flows that have ended when they are longer than this, and than twice the member's
/// flows.
const MIN_SEARCHED: usize = 64;

/// See the module.
#[derive(Debug, Default)]
pub struct Blocked {
    /// In the order in which they go on. Some may have ended.
    queues: HashMap<MemberId, VecDeque<Id>>,
    /// Members whose links take frames again.
    writable: Vec<MemberId>,
}

impl Blocked {
    /// Whether there is more to do that no event will tell of.
    #[must_use]
    pub const fn is_due(&self) -> bool {
        !self.writable.is_empty()
    }

    /// A member's link takes frames again.
    pub fn resume(&mut self, member: MemberId) {
        if self.queues.contains_key(&member) && !self.writable.contains(&member) {
            self.writable.push(member);
        }
    }

    /// Forgets a member that has gone.
    pub fn forget(&mut self, member: MemberId) {
        self.queues.remove(&member);
        self.writable.retain(|&other| other != member);
    }
}

impl Tcp {
    /// Has a flow wait until its member's link takes frames again.
    pub(super) fn wait_for_link(&mut self, core: &Core, id: Id) {
        let Some(flow) = self.flows.get_mut(id) else {
            return;
        };
        if std::mem::replace(&mut flow.is_blocked, true) {
            return;
        }
        let member = flow.key.member;
        let queue = self.blocked.queues.entry(member).or_default();
        if queue.len() >= MIN_SEARCHED.max(2 * core.flows_of(member, FLOWS)) {
            queue.retain(|&id| self.flows.get(id).is_some());
        }
        queue.push_back(id);
    }

    /// Serves flows that waited for links which take frames again.
    pub(super) fn serve_blocked(&mut self, core: &mut Core) {
        for member in std::mem::take(&mut self.blocked.writable) {
            let mut tried = 0;
            // When the link is full once more, an event will tell.
            while !core.is_link_full(member) {
                if tried == MAX_TRIED {
                    self.blocked.writable.push(member);
                    break;
                }
                let queue = self.blocked.queues.get_mut(&member);
                let Some(id) = queue.and_then(VecDeque::pop_front) else {
                    self.blocked.queues.remove(&member);
                    break;
                };
                if let Some(flow) = self.flows.get_mut(id) {
                    flow.is_blocked = false;
                    self.serve(core, id);
                }
                tried += 1;
            }
        }
    }
}
