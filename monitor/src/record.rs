//! What is kept of a container's life while it lives: its record, its health, events.

use super::Config;
use super::config::Mode;
use super::execs::Execs;
use super::health::{HealthReport, HealthResult};
use super::hub::Observer;
use crate::network::Networks;
use crate::refused;
use hullbox_backend::bundle::Isolation;
use hullbox_backend::network::{Network, OpenPort};
use hullbox_host::paths::Roots;
use hullbox_model::container::Refused;
use hullbox_model::event::{Action, Event, Kind, Verb, attribute};
use hullbox_model::exec::ExecInspect;
use hullbox_netproc::Refusal;
use hullbox_plan::life::Restart;
use hullbox_protocol::{CgroupLimits, ProcessSpec, Started};
use hullbox_state::events;
use hullbox_state::{Beginning, BegunFrom, End, State};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Least time between two events of the out-of-memory killer: a workload may die of it again and again.
const OOM_INTERVAL: Duration = Duration::from_secs(1);

/// What outlasts one run of the workload, and may change while it runs.
#[derive(Debug)]
pub(super) struct Lasting {
    /// The policy now.
    pub(super) restart: Restart,
    /// The limits of the next run.
    pub(super) limits: CgroupLimits,
    /// The networks of the next run, if they were changed.
    pub(super) networks: Option<Networks>,
    /// What the last run was refused.
    refused: Refused,
    /// The container's attributes in events.
    about: BTreeMap<String, String>,
    /// A client is attached before the workload starts.
    attached_first: bool,
    /// Processes beside the workload.
    execs: Execs,
}

impl Lasting {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            restart: config.life.restart,
            limits: config.bundle.setup.limits,
            networks: None,
            refused: Refused::default(),
            about: config.about.clone(),
            attached_first: matches!(config.mode, Mode::Foreground | Mode::Attached { .. }),
            execs: Execs::new(&config.bundle.id),
        }
    }
}

/// Writes it all down. Where that fails the container runs on: who asks meanwhile sees an older
/// truth, and its end is recorded with an error all the same.
pub(super) struct Recorder<'a> {
    pub(super) state: &'a mut State,
    pub(super) roots: Roots,
    pub(super) config: &'a Config,
    pub(super) lasting: &'a mut Lasting,
    /// When the workload started.
    pub(super) started: Option<Instant>,
    /// When the last event of the out-of-memory killer was, if there was one in this run.
    pub(super) oom: Option<Instant>,
}

impl Recorder<'_> {
    fn event(&self, action: impl Into<Action>) -> Event {
        let id = &self.config.bundle.id;
        events::event(Kind::Container, action, id, self.lasting.about.clone())
    }

    /// It is in its networks, or in them no longer.
    fn memberships(&self, verb: &Verb) -> Vec<Event> {
        let network = match (&self.lasting.networks, &self.config.bundle.network) {
            (Some(networks), _) => &networks.user,
            (None, Network::User(network)) => network,
            _ => return Vec::new(),
        };
        if network.shared.is_empty() {
            return Vec::new();
        }
        let record = self.state.get(&self.config.bundle.id);
        record.map_or_else(|_| Vec::new(), |record| events::memberships(&record, verb))
    }

    /// It has its volumes, or has them no longer.
    fn volumes(&self, verb: &Verb) -> Vec<Event> {
        if self.config.bundle.mounts.is_empty() {
            return Vec::new();
        }
        let record = self.state.get(&self.config.bundle.id);
        record.map_or_else(|_| Vec::new(), |record| events::volume_uses(&record, verb))
    }

    fn emit(&self, action: impl Into<Action>) {
        events::emit_all(&self.roots, &[self.event(action)]);
    }

    /// The workload ended; `stopped` by `stop`.
    pub(super) fn died(&mut self, end: &mut End, stopped: bool) {
        let mut all = Vec::new();
        if end.oom && self.oom.is_none() {
            all.push(self.event(Verb::Oom));
        }
        end.oom |= self.oom.is_some();
        let ran = self.started.map_or(0, |at| at.elapsed().as_secs());
        all.push(
            self.event(Verb::Die)
                .with(attribute::EXIT_CODE, end.exit_code.to_string())
                .with(attribute::EXEC_DURATION, ran.to_string()),
        );
        if self.started.is_some() {
            all.extend(self.memberships(&Verb::Disconnect));
            all.extend(self.volumes(&Verb::Unmount));
        }
        if stopped {
            all.push(self.event(Verb::Stop));
        }
        events::emit_all(&self.roots, &all);
        self.lasting.execs.container_ended();
    }

    /// It was stopped between two runs.
    pub(super) fn stopped(&self) {
        self.emit(Verb::Stop);
    }

    /// The container is gone with its workload, and with it these volumes.
    pub(super) fn destroyed(&self, volumes: &[String]) {
        let gone = volumes.iter();
        let gone = gone.map(|name| events::volume_event(name, Verb::Destroy));
        let all: Vec<_> = std::iter::once(self.event(Verb::Destroy))
            .chain(gone)
            .collect();
        events::emit_all(&self.roots, &all);
    }

    /// Leaves for when there is no monitor what is known of processes beside the workload, and what it was
    /// refused.
    pub(super) fn keep(&self) {
        self.lasting.execs.keep(&self.config.bundle.dir);
        refused::keep(&self.config.bundle.dir, &self.lasting.refused);
    }

    /// The name and the id of a network, or of the container's own.
    fn network(&self, id: Option<&str>) -> (String, String) {
        let Some(id) = id else {
            let (name, id) = events::OWN_NETWORK;
            return (name.to_owned(), id.to_owned());
        };
        let record = self.state.get(&self.config.bundle.id).ok();
        let networks = record.iter().flat_map(|record| &record.spec.networks);
        let mut found = networks.filter(|one| one.id == id);
        let name = found.next().map(|one| one.name.clone());
        (name.unwrap_or_default(), id.to_owned())
    }
}

impl Observer for Recorder<'_> {
    fn started(&mut self, started: &Started, begun: Option<BegunFrom>) {
        self.started = Some(Instant::now());
        let beginning = begun.map(|from| Beginning {
            from,
            hygiene: started.hygiene,
        });
        let id = &self.config.bundle.id;
        // A guest's process ids mean nothing here.
        let here = self.config.bundle.isolation == Isolation::Container;
        let pid = here.then_some(started.pid);
        let _ = self.state.set_running(id, pid, beginning.as_ref());
        let mut all = self.volumes(&Verb::Mount);
        all.extend(self.memberships(&Verb::Connect));
        if std::mem::take(&mut self.lasting.attached_first) {
            all.push(self.event(Verb::Attach));
        }
        all.push(self.event(Verb::Start));
        events::emit_all(&self.roots, &all);
    }

    fn opened(&mut self, ports: &[OpenPort]) {
        let _ = self.state.set_open_ports(&self.config.bundle.id, ports);
    }

    fn paused(&mut self, paused: bool) {
        let _ = self.state.set_paused(&self.config.bundle.id, paused);
        self.emit(if paused { Verb::Pause } else { Verb::Unpause });
    }

    fn health(&mut self, report: &HealthReport) {
        let _ = self.state.set_health(&self.config.bundle.id, report);
        if report.changed {
            self.emit(Action::with(Verb::HealthStatus, report.status.as_str()));
        }
    }

    fn health_log(&self) -> Vec<HealthResult> {
        let record = self.state.get(&self.config.bundle.id);
        let report = record.ok().and_then(|record| record.health);
        report.map(|report| report.log).unwrap_or_default()
    }

    fn restart(&mut self, restart: Restart) {
        self.lasting.restart = restart;
        let _ = self
            .state
            .change_spec(&self.config.bundle.id, |spec| spec.life.restart = restart);
        self.emit(Verb::Update);
    }

    fn policy(&self) -> Restart {
        self.lasting.restart
    }

    fn limited(&mut self, limits: &CgroupLimits) {
        self.lasting.limits = limits.over(self.lasting.limits);
        let _ = self.state.change_spec(&self.config.bundle.id, |spec| {
            spec.setup.limits = limits.over(spec.setup.limits);
        });
        self.emit(Verb::Update);
    }

    fn networked(&mut self, networks: Networks) {
        // Whoever asked for it keeps the record.
        self.lasting.networks = Some(networks);
    }

    fn refused(&mut self, network: Option<&str>, refusal: &Refusal) {
        let (name, id) = self.network(network);
        let container = self.lasting.about.get(attribute::NAME);
        let mut event = events::network_event(&id, &name, Verb::Refuse)
            .with(attribute::CONTAINER, self.config.bundle.id.as_str())
            .with(
                attribute::CONTAINER_NAME,
                container.cloned().unwrap_or_default(),
            )
            .with(attribute::TARGET, refusal.target.as_str())
            .with(attribute::REASON, refusal.reason.as_str());
        if let Some(rule) = &refusal.rule {
            event = event.with(attribute::RULE, rule.as_str());
        }
        if refusal.untold > 0 {
            event = event.with(attribute::UNTOLD, refusal.untold.to_string());
        }
        events::emit_all(&self.roots, &[event]);
    }

    fn refused_in_all(&mut self, refused: Refused) {
        self.lasting.refused = refused;
    }

    fn refused_last(&self) -> Refused {
        self.lasting.refused.clone()
    }

    fn renamed(&mut self, name: String, dns: &[(String, Vec<String>)]) {
        self.lasting.about.insert(attribute::NAME.to_owned(), name);
        let setup = &self.config.bundle.setup;
        let kept = self.lasting.networks.take();
        let networks = kept.or_else(|| Networks::of(&self.config.bundle.network, setup));
        self.lasting.networks = networks.map(|networks| networks.renamed(dns));
    }

    fn attached(&mut self) {
        self.emit(Verb::Attach);
    }

    fn detached(&mut self) {
        self.emit(Verb::Detach);
    }

    fn signalled(&mut self, signal: u8) {
        let event = self.event(Verb::Kill);
        events::emit_all(
            &self.roots,
            &[event.with(attribute::SIGNAL, signal.to_string())],
        );
    }

    fn oom(&mut self) {
        if self.oom.is_some_and(|at| at.elapsed() < OOM_INTERVAL) {
            return;
        }
        self.oom = Some(Instant::now());
        let _ = self.state.set_oom(&self.config.bundle.id);
        self.emit(Verb::Oom);
    }

    fn exec_created(&mut self, spec: &ProcessSpec) -> Option<String> {
        let id = self.lasting.execs.create(spec)?;
        let action = Action::with(Verb::ExecCreate, command_line(spec));
        let event = self.event(action).with(attribute::EXEC_ID, id.as_str());
        events::emit_all(&self.roots, &[event]);
        Some(id)
    }

    fn exec_starts(&mut self, id: &str, spec: &ProcessSpec) {
        self.lasting.execs.starts(id);
        let action = Action::with(Verb::ExecStart, command_line(spec));
        let event = self.event(action).with(attribute::EXEC_ID, id);
        events::emit_all(&self.roots, &[event]);
    }

    fn exec_begins(&mut self, spec: &ProcessSpec) -> Option<String> {
        let id = self.lasting.execs.create(spec)?;
        self.lasting.execs.starts(&id);
        let command = command_line(spec);
        let all = [Verb::ExecCreate, Verb::ExecStart].map(|verb| {
            self.event(Action::with(verb, command.as_str()))
                .with(attribute::EXEC_ID, id.as_str())
        });
        events::emit_all(&self.roots, &all);
        Some(id)
    }

    fn exec_runs(&mut self, id: &str, pid: u32) {
        self.lasting.execs.runs(id, pid);
    }

    fn exec_ended(&mut self, id: &str, code: u8, ran: bool) {
        self.lasting.execs.ended(id, code);
        if ran {
            let event = self
                .event(Verb::ExecDie)
                .with(attribute::EXEC_ID, id)
                .with(attribute::EXIT_CODE, code.to_string());
            events::emit_all(&self.roots, &[event]);
        }
    }

    fn exec_left(&mut self, id: &str) {
        let event = self.event(Verb::ExecDetach).with(attribute::EXEC_ID, id);
        events::emit_all(&self.roots, &[event]);
    }

    fn exec_spec(&mut self, id: &str) -> Result<Box<ProcessSpec>, &'static str> {
        self.lasting.execs.take_spec(id)
    }

    fn execs(&self) -> Vec<ExecInspect> {
        self.lasting.execs.list()
    }
}

/// Longest command in an event, in characters.
const MAX_COMMAND: usize = 4096;

/// As Docker has it behind `exec_create`.
fn command_line(spec: &ProcessSpec) -> String {
    let words: Vec<_> = spec
        .argv
        .iter()
        .map(|word| String::from_utf8_lossy(word))
        .collect();
    words.join(" ").chars().take(MAX_COMMAND).collect()
}

/// Of an errand nothing is recorded.
pub(super) struct Nothing;

impl Observer for Nothing {
    fn started(&mut self, _: &Started, _: Option<BegunFrom>) {}
    fn paused(&mut self, _: bool) {}
    fn health(&mut self, _: &HealthReport) {}
    fn restart(&mut self, _: Restart) {}
}
