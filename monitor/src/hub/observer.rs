//! What the hub reports to whoever keeps the container's record.

use crate::health::{HealthReport, HealthResult};
use crate::network::Networks;
use hullbox_backend::network::OpenPort;
use hullbox_model::container::Refused;
use hullbox_model::exec::ExecInspect;
use hullbox_netproc::Refusal;
use hullbox_plan::life::Restart;
use hullbox_protocol::{CgroupLimits, ProcessSpec, Started};
use hullbox_state::BegunFrom;

/// Receives what happens to the container.
pub(crate) trait Observer {
    /// The workload runs, in a guest that began there, if it has one.
    fn started(&mut self, started: &Started, begun: Option<BegunFrom>);
    /// Ports of the host lead to it, before its workload starts.
    fn opened(&mut self, _ports: &[OpenPort]) {}
    /// It was frozen, or goes on.
    fn paused(&mut self, paused: bool);
    /// A health check ended, or checks begin.
    fn health(&mut self, report: &HealthReport);
    /// What health checks found in earlier runs of the container.
    fn health_log(&self) -> Vec<HealthResult> {
        Vec::new()
    }
    /// There is another restart policy.
    fn restart(&mut self, restart: Restart);
    /// The restart policy now.
    fn policy(&self) -> Restart {
        Restart::No
    }
    /// There are other limits.
    fn limited(&mut self, _limits: &CgroupLimits) {}
    /// It is in other networks.
    fn networked(&mut self, _networks: Networks) {}
    /// It was refused something, in the network of this id or its own.
    fn refused(&mut self, _network: Option<&str>, _refusal: &Refusal) {}
    /// A run is over: all that it was refused.
    fn refused_in_all(&mut self, _refused: Refused) {}
    /// What the last run was refused.
    fn refused_last(&self) -> Refused {
        Refused::default()
    }
    /// The container has another name, and these in its networks, by their ids.
    fn renamed(&mut self, _name: String, _dns: &[(String, Vec<String>)]) {}
    /// A client was attached.
    fn attached(&mut self) {}
    /// A client left by its detach keys.
    fn detached(&mut self) {}
    /// The workload is sent a signal.
    fn signalled(&mut self, _signal: u8) {}
    /// The out-of-memory killer was at work in the container.
    fn oom(&mut self) {}
    /// A process beside the workload is asked for: its id.
    fn exec_created(&mut self, _spec: &ProcessSpec) -> Option<String> {
        None
    }
    /// One that was asked for is being started.
    fn exec_starts(&mut self, _id: &str, _spec: &ProcessSpec) {}
    /// One is asked for and started at once: its id.
    fn exec_begins(&mut self, _spec: &ProcessSpec) -> Option<String> {
        None
    }
    /// It runs.
    fn exec_runs(&mut self, _id: &str, _pid: u32) {}
    /// It ended, or did not run at all.
    fn exec_ended(&mut self, _id: &str, _code: u8, _ran: bool) {}
    /// Its client left by its detach keys.
    fn exec_left(&mut self, _id: &str) {}
    /// What is to be run, of one that was asked for and not started yet.
    fn exec_spec(&mut self, _id: &str) -> Result<Box<ProcessSpec>, &'static str> {
        Err("no such exec")
    }
    /// All of them that are remembered.
    fn execs(&self) -> Vec<ExecInspect> {
        Vec::new()
    }
}
