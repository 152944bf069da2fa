//! Saving the workload's side beside everything else.

use super::Hub;
use super::sessions::{PendingRequest, Save};
use crate::control::Answer;
use crate::rules::one_line;
use hullbox_backend::saving::Progress;
use hullbox_protocol::{Frame, Request};

impl Hub<'_> {
    /// Whether it is being saved, or about to be.
    pub(super) fn is_saving(&self) -> bool {
        self.saving.is_some()
            || self
                .sessions
                .requests
                .iter()
                .any(|request| request.save.is_some())
    }

    /// Begins to save the workload's side, which is at rest.
    pub(super) fn save(&mut self, save: Save, client: Option<u64>) -> Result<(), String> {
        // Who wants it to end does not want it to stand still for that.
        if self.stopping.manual {
            self.resume();
            return Err(ENDING.to_owned());
        }
        match self.backend.save(&save.dir, save.about) {
            Ok(saving) => {
                self.saving = Some((saving, client));
                Ok(())
            }
            Err(why) => {
                self.resume();
                Err(why)
            }
        }
    }

    /// Has the agent go on.
    fn resume(&mut self) {
        let number = self.sessions.next_number();
        self.sessions.requests.push(PendingRequest {
            number,
            client: None,
            pauses: None,
            holds: false,
            network: None,
            save: None,
            limits: None,
            due: None,
        });
        let request = Request::Resume;
        self.link.send(Frame::Request { number, request });
    }

    /// Takes note of what has come of it.
    pub(super) fn poll_saving(&mut self) {
        while let Some((saving, client)) = &self.saving {
            let saved = match saving.progress() {
                None => return,
                Some(Progress::Resumed) => {
                    self.resume();
                    continue;
                }
                Some(Progress::Done(saved)) => saved,
            };
            let answer = match saved {
                Ok(()) => Answer::Done,
                Err(_) if self.stopping.manual => Answer::Failed(ENDING.to_owned()),
                Err(why) => Answer::Failed(one_line(&why)),
            };
            if let Some(client) = self.clients.list.iter_mut().find(|c| Some(c.id) == *client) {
                client.answer(&answer);
            }
            self.saving = None;
        }
    }

    /// Has the workload's side go on as soon as can be: somebody wants it to end.
    pub(super) fn cancel_saving(&mut self) {
        if let Some((saving, _)) = &self.saving {
            saving.cancel();
        }
    }
}

const ENDING: &str = "the container is being stopped";
