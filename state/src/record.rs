//! One container's record.

use crate::error::StateError;
use crate::health::{HealthReport, HealthStatus};
use crate::networks::Endpoint;
use crate::time::now_ns;
use hullbox_backend::backend::BegunFrom;
use hullbox_backend::network::OpenPort;
use hullbox_plan::ContainerSpec;
use hullbox_protocol::Hygiene;
use rusqlite::Row;
use serde::{Deserialize, Serialize};

/// Where in its life a container is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Made, never started.
    Created,
    /// Somebody is starting it.
    Starting,
    /// The workload runs.
    Running,
    /// The workload is frozen.
    Paused,
    /// It ended and is to be started again, by its monitor.
    Restarting,
    /// It ended.
    Exited,
}

impl Phase {
    /// Docker's word, but for `starting`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Restarting => "restarting",
            Self::Exited => "exited",
        }
    }

    /// Docker's word: what is being started at this moment is made.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Starting => Self::Created.as_str(),
            other => other.as_str(),
        }
    }

    fn parse(text: &str) -> Self {
        match text {
            "created" => Self::Created,
            "starting" => Self::Starting,
            "running" => Self::Running,
            "paused" => Self::Paused,
            "restarting" => Self::Restarting,
            _ => Self::Exited,
        }
    }
}

/// How a microVM's guest began, and what it did to be like no other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beginning {
    /// Where.
    pub from: BegunFrom,
    /// As its agent told.
    pub hygiene: Hygiene,
}

/// How a container ended, as it is recorded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct End {
    /// As `docker run` gives it.
    pub exit_code: u8,
    /// The signal that ended the workload.
    pub signal: Option<u8>,
    /// The out-of-memory killer ended it.
    pub oom: bool,
    /// Cause of death in words, where it was not the workload's own end.
    pub error: Option<String>,
    /// Somebody wanted it to end.
    pub stopped: bool,
}

/// What [`crate::State::create`] needs.
#[derive(Debug)]
pub struct NewContainer {
    /// Full id.
    pub id: String,
    /// Checked name; made up when missing.
    pub name: Option<String>,
    /// The image's id.
    pub image_id: String,
    /// The image as typed.
    pub image_ref: String,
    /// Everything else.
    pub spec: ContainerSpec,
}

/// A container as the database knows it.
#[derive(Debug, Clone)]
pub struct Record {
    /// Number of the row, and the lock's offset.
    pub row: i64,
    /// Full id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The image's id.
    pub image_id: String,
    /// The image as typed.
    pub image_ref: String,
    /// Where in its life.
    pub phase: Phase,
    /// Nanoseconds since 1970.
    pub created_ns: i64,
    /// Nanoseconds since 1970.
    pub started_ns: Option<i64>,
    /// Nanoseconds since 1970.
    pub finished_ns: Option<i64>,
    /// Process id of the monitor.
    pub monitor_pid: Option<u32>,
    /// In container mode, process id on the host of the container's first process in its last run.
    pub pid: Option<u32>,
    /// As `docker run` gave it.
    pub exit_code: Option<u8>,
    /// The signal that ended the workload.
    pub signal: Option<u8>,
    /// The out-of-memory killer ended it.
    pub oom: bool,
    /// Cause of death in words.
    pub error: Option<String>,
    /// How often its restart policy has started it again.
    pub restarts: u32,
    /// It ended because somebody wanted it to.
    pub stopped: bool,
    /// What the last health check found.
    pub health: Option<HealthReport>,
    /// Of a microVM that came as far as its workload: how its last run began.
    pub beginning: Option<Beginning>,
    /// Ports of the host that lead to it at this moment, in the order in which they were published.
    pub open_ports: Vec<OpenPort>,
    /// Its places in networks that it shares, as of its last start and in the order of
    /// [`ContainerSpec::networks`]. While it does not run others may have the addresses.
    pub endpoints: Vec<Endpoint>,
    /// Volumes that were made with one that was just made, or went with one that is gone, by name.
    pub changed_volumes: Vec<String>,
    /// Everything else.
    pub spec: ContainerSpec,
}

impl Record {
    /// That of a container which is being made, as it will be read: but for its row's number. With a
    /// monitor it is about to be started.
    pub(super) fn new(new: &NewContainer, name: String, monitor_pid: Option<u32>) -> Self {
        Self {
            row: 0,
            id: new.id.clone(),
            name,
            image_id: new.image_id.clone(),
            image_ref: new.image_ref.clone(),
            phase: match monitor_pid {
                Some(_) => Phase::Starting,
                None => Phase::Created,
            },
            created_ns: now_ns(),
            started_ns: None,
            finished_ns: None,
            monitor_pid,
            pid: None,
            exit_code: None,
            signal: None,
            oom: false,
            error: None,
            restarts: 0,
            stopped: false,
            health: None,
            beginning: None,
            open_ports: Vec::new(),
            endpoints: Vec::new(),
            changed_volumes: Vec::new(),
            spec: new.spec.clone(),
        }
    }

    /// Whether the container is well: `None` without health checks, and before its first start. As
    /// Docker has it, what has ended is unhealthy.
    #[must_use]
    pub fn health_status(&self) -> Option<HealthStatus> {
        self.spec.life.health.as_ref()?;
        self.started_ns?;
        Some(match self.phase {
            Phase::Running | Phase::Paused => self
                .health
                .as_ref()
                .map_or(HealthStatus::Starting, |report| report.status),
            _ => HealthStatus::Unhealthy,
        })
    }

    /// Whether a monitor has it, if that was not killed.
    #[must_use]
    pub const fn is_active(&self) -> bool {
        !matches!(self.phase, Phase::Created | Phase::Exited)
    }

    /// Whether somebody began something with it and has not ended it: a life, or an errand.
    pub(crate) const fn was_begun(&self) -> bool {
        self.is_active() || self.monitor_pid.is_some()
    }
}

/// Which containers a listing wants.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// The stopped ones too.
    pub all: bool,
}

/// The answer to "which container is that".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// Full id.
    pub id: String,
}

pub(super) const COLUMNS: &str = "row, id, name, image_id, image_ref, phase, created_ns, started_ns, \
     finished_ns, monitor_pid, exit_code, signal, oom, error, restarts, stopped, \
     health, spec, beginning, pid, ports, (SELECT json_group_array(json(lease)) FROM endpoints \
     WHERE container = containers.id AND lease IS NOT NULL)";

pub(super) fn from_row(row: &Row<'_>) -> rusqlite::Result<Result<Record, StateError>> {
    let id: String = row.get(1)?;
    let spec: String = row.get(17)?;
    let spec: ContainerSpec = match serde_json::from_str(&spec) {
        Ok(spec) => spec,
        Err(source) => return Ok(Err(StateError::Damaged { id, source })),
    };
    let phase: String = row.get(5)?;
    let health: Option<String> = row.get(16)?;
    let beginning: Option<String> = row.get(18)?;
    let ports: Option<String> = row.get(20)?;
    let endpoints: Option<String> = row.get(21)?;
    Ok(Ok(Record {
        row: row.get(0)?,
        id,
        name: row.get(2)?,
        image_id: row.get(3)?,
        image_ref: row.get(4)?,
        phase: Phase::parse(&phase),
        created_ns: row.get(6)?,
        started_ns: row.get(7)?,
        finished_ns: row.get(8)?,
        monitor_pid: row.get(9)?,
        pid: row.get(19)?,
        exit_code: row.get(10)?,
        signal: row.get(11)?,
        oom: row.get(12)?,
        error: row.get(13)?,
        restarts: row.get(14)?,
        stopped: row.get(15)?,
        // An old program's report that this one does not know is none.
        health: health.and_then(|text| serde_json::from_str(&text).ok()),
        beginning: beginning.and_then(|text| serde_json::from_str(&text).ok()),
        open_ports: ports
            .and_then(|text| serde_json::from_str(&text).ok())
            .unwrap_or_default(),
        endpoints: in_order(endpoints, &spec),
        changed_volumes: Vec::new(),
        spec,
    }))
}

/// The places in those networks that the container is to be in.
fn in_order(endpoints: Option<String>, spec: &ContainerSpec) -> Vec<Endpoint> {
    let found: Vec<Endpoint> = endpoints
        .filter(|_| !spec.networks.is_empty())
        .and_then(|text| serde_json::from_str(&text).ok())
        .unwrap_or_default();
    let place = |id: &String| found.iter().find(|endpoint| endpoint.network == *id);
    let networks = spec.networks.iter();
    networks
        .filter_map(|attached| place(&attached.id).cloned())
        .collect()
}
