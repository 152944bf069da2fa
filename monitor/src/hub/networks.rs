//! Networks that the container is put into, or taken out of, while it runs.
//!
//! ```text
//! connect     device behind the interface ─► interface (workload's side) ─► member of the network ─► answer
//! disconnect  no member any more ─► no interface ─► no device ─► answer
//! link        a process died or serves again ─► device
//! ```

use super::sessions::{NetworkChange, PendingRequest};
use super::{ANSWER_LIMIT, Hub};
use crate::client::Role;
use crate::control::Answer;
use crate::network::{News, Place, Question};
use hullbox_backend::network::Membership;
use hullbox_protocol::{Frame, Interface, NameFiles, Reply, Request};
use std::time::Instant;

impl Hub<'_> {
    pub(super) fn connect_network(
        &mut self,
        at: usize,
        membership: Option<Membership>,
        mut interface: Interface,
        names: Box<NameFiles>,
    ) {
        interface.route_metric = self.network.metric_for(interface.route_metric);
        let request = |index| Request::Connect {
            index,
            interface: Box::new(interface.clone()),
            names: names.clone(),
        };
        let asked = match self.refuses(&request(0)) {
            Some(why) => Err(why.to_owned()),
            None => self.network.place_for(membership.as_ref()),
        };
        // One that is asked for has its number already.
        let is_pending = self
            .sessions
            .requests
            .iter()
            .any(|pending| pending.network.is_some());
        let made = asked.and_then(|index| match is_pending {
            true => Err("another change of its networks is on its way".to_owned()),
            false => self
                .backend
                .connect(index, &interface)
                .map(|member| (index, member)),
        });
        match made {
            Ok((index, member)) => {
                let request = request(index);
                let place = Place {
                    index,
                    membership,
                    interface,
                    names,
                };
                self.change_network(Some(at), request, NetworkChange::Connect(place, member));
            }
            Err(why) => self.clients.list[at].answer(&Answer::Failed(why)),
        }
    }

    pub(super) fn disconnect_network(
        &mut self,
        at: usize,
        network: Option<&str>,
        names: Box<NameFiles>,
    ) {
        let index = self.network.find(network);
        let request = Request::Disconnect {
            index: index.unwrap_or(0),
            names: names.clone(),
        };
        let refused = self.refuses(&request).map(str::to_owned);
        let client = &mut self.clients.list[at];
        match (refused, index) {
            (None, Some(index)) => {
                client.role = Role::Asked;
                let left = self.network.disconnect(index, client.id, *names);
                self.note_networks();
                left.into_iter().for_each(|news| self.on_network(news));
            }
            (refused, _) => {
                let why =
                    refused.unwrap_or_else(|| "the container is not in this network".to_owned());
                client.answer(&Answer::Failed(why));
            }
        }
    }

    /// Has the workload's side remove an interface, for a client that may have left.
    fn remove_interface(&mut self, client: Option<u64>, index: u8) {
        let mut clients = self.clients.list.iter();
        let at = clients.position(|one| Some(one.id) == client);
        let request = Request::Disconnect {
            index,
            names: self.network.names(),
        };
        self.change_network(at, request, NetworkChange::Disconnect(index));
    }

    fn change_network(&mut self, at: Option<usize>, request: Request, change: NetworkChange) {
        let number = self.sessions.next_number();
        let client = at
            .and_then(|at| self.clients.list.get_mut(at))
            .map(|client| {
                client.role = Role::Asked;
                client.id
            });
        self.sessions.requests.push(PendingRequest {
            number,
            client,
            pauses: None,
            holds: false,
            limits: None,
            network: Some(change),
            save: None,
            due: Instant::now().checked_add(ANSWER_LIMIT),
        });
        self.link.send(Frame::Request { number, request });
    }

    /// The workload's side has answered. None if its client is to wait on.
    pub(super) fn on_network_change(
        &mut self,
        change: NetworkChange,
        client: Option<u64>,
        reply: Reply,
    ) -> Option<Reply> {
        match (change, reply) {
            (NetworkChange::Connect(place, member), Reply::Done) => {
                match self.network.connect(client, place, member) {
                    true => None,
                    false => {
                        self.note_networks();
                        Some(Reply::Done)
                    }
                }
            }
            (NetworkChange::Connect(place, _), reply) => {
                // The first failure is the one to tell.
                let _ = self.backend.disconnect(place.index);
                Some(reply)
            }
            (NetworkChange::Disconnect(index), reply) => {
                let done = self.backend.disconnect(index);
                Some(match (reply, done) {
                    (Reply::Done, Err(why)) => Reply::Failed(why),
                    (reply, _) => reply,
                })
            }
        }
    }

    /// What became of processes that serve the container's networks.
    pub(super) fn on_network(&mut self, news: News) {
        match news {
            News::Warning(warning) => self.warn(&warning),
            News::Connected(client, names) => {
                self.network.know(*names);
                self.note_networks();
                self.answer_to(client, &Answer::Done);
            }
            News::Refused(client, index, why) => {
                self.remove_interface(None, index);
                self.answer_to(client, &Answer::Failed(why));
            }
            News::Left(client, index) => self.remove_interface(Some(client), index),
            News::Link(index, up) => self.backend.set_link(index, up),
            News::Denied(network, refusal) => self.observer.refused(network.as_deref(), &refusal),
            News::Answered(all) => {
                for (client, question) in all {
                    let answer = match question {
                        Question::Names => Answer::Done,
                        Question::Refused => Answer::of_refused(&self.network.refused()),
                    };
                    self.answer_to(Some(client), &answer);
                }
            }
        }
    }

    fn answer_to(&mut self, client: Option<u64>, answer: &Answer) {
        let mut clients = self.clients.list.iter_mut();
        // It may have left.
        if let Some(client) = clients.find(|one| Some(one.id) == client) {
            client.answer(answer);
        }
    }

    /// Has the container's networks kept for its next run.
    fn note_networks(&mut self) {
        if let Some(networks) = self.network.kept() {
            self.observer.networked(networks);
        }
    }
}
