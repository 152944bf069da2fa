//! What is kept of a container's life while it lives: its record, its health, events.

use super::Config;
use super::health::HealthReport;
use super::hub::Observer;
use crate::events;
use crate::paths::Roots;
use crate::plan::life::Restart;
use crate::state::{Beginning, BegunFrom, End, State};
use hullbox_protocol::Started;
use std::cell::Cell;

/// Writes it all down. Where that fails the container runs on: who asks meanwhile sees an older
/// truth, and its end is recorded with an error all the same.
pub(super) struct Recorder<'a> {
    pub(super) state: &'a mut State,
    pub(super) roots: Roots,
    pub(super) config: &'a Config,
    /// The policy now.
    pub(super) restart: &'a Cell<Restart>,
}

impl Recorder<'_> {
    fn emit(&self, action: &str, more: &[(&str, String)]) {
        let mut attributes = self.config.about.clone();
        for (key, value) in more {
            attributes.insert((*key).to_owned(), value.clone());
        }
        let id = &self.config.bundle.id;
        events::emit(&self.roots, "container", action, id, attributes);
    }

    /// The workload ended.
    pub(super) fn died(&self, end: &End) {
        if end.oom {
            self.emit("oom", &[]);
        }
        self.emit("die", &[("exitCode", end.exit_code.to_string())]);
    }

    /// The container is gone with its workload.
    pub(super) fn destroyed(&self) {
        self.emit("destroy", &[]);
    }
}

impl Observer for Recorder<'_> {
    fn started(&mut self, started: &Started, begun: Option<BegunFrom>) {
        let beginning = begun.map(|from| Beginning {
            from,
            hygiene: started.hygiene,
        });
        let id = &self.config.bundle.id;
        let _ = self.state.set_running(id, beginning.as_ref());
        self.emit("start", &[]);
    }

    fn paused(&mut self, paused: bool) {
        let _ = self.state.set_paused(&self.config.bundle.id, paused);
        self.emit(if paused { "pause" } else { "unpause" }, &[]);
    }

    fn health(&mut self, report: &HealthReport) {
        let _ = self.state.set_health(&self.config.bundle.id, report);
        if report.changed {
            self.emit(&format!("health_status: {}", report.status.as_str()), &[]);
        }
    }

    fn restart(&mut self, restart: Restart) {
        self.restart.set(restart);
        let _ = self
            .state
            .change_spec(&self.config.bundle.id, |spec| spec.life.restart = restart);
        self.emit("update", &[]);
    }

    fn exec(&mut self, what: &'static str, code: Option<u8>) {
        let code = code.map(|code| ("exitCode", code.to_string()));
        let more: Vec<_> = code.into_iter().collect();
        self.emit(what, &more);
    }
}

/// Of an errand nothing is recorded.
pub(super) struct Nothing;

impl Observer for Nothing {
    fn started(&mut self, _: &Started, _: Option<BegunFrom>) {}
    fn paused(&mut self, _: bool) {}
    fn health(&mut self, _: &HealthReport) {}
    fn restart(&mut self, _: Restart) {}
    fn exec(&mut self, _: &'static str, _: Option<u8>) {}
}
