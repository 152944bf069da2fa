//! Measures containers in VMs, in namespaces and of other programs in turns, and makes a report of it.
//!
//! The programs are run by their command lines, ours and the peers' alike: what is measured is what a
//! user waits for. So this crate knows the command line of Hullbox and its image store, and nothing of
//! the engine.
//!
//! ```text
//! contender × metrics ─► measure (rounds) ─► Report ─► render: table, HTML; serde: JSON
//!                        scratch, runner, memory
//! ```
#![forbid(unsafe_code)]

mod contender;
mod error;
mod measure;
mod memory;
mod metrics;
mod render;
mod report;
mod runner;
mod scratch;
mod server;
mod stats;
mod veth;
mod workload;

pub use contender::{Isolation, Named, Peer};
pub use error::BenchError;
pub use memory::Resident;
pub use metrics::{METRICS, Metric, Probe, Unit};
pub use render::{html, table};
pub use report::{Cell, Digests, FORMAT, Host, REFERENCE, Report, Row};
pub use server::Server;
pub use stats::Summary;

use contender::Contender;
use hullbox_image::Digest;
use measure::{Amounts, Bench, NetworksMustWork};
use report::Samples;
use runner::{Runner, kill_descendants};
use scratch::Scratch;
use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Rounds that do not count, before those that do.
const WARM_UPS: usize = 1;
/// How often a crowd is gathered.
const CROWDS: usize = 3;

/// What is to be measured, with what.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Rounds that count.
    pub rounds: usize,
    /// What is measured; empty for everything.
    pub probes: Vec<Probe>,
    /// Which of our isolations take part; empty for all.
    pub isolations: Vec<Isolation>,
    /// Which peers take part; `None` for those that are installed and work.
    pub peers: Option<Vec<Peer>>,
    /// Instances in a crowd.
    pub instances: usize,
    /// Little work, to see that everything answers.
    pub quick: bool,
    /// Port of the [`Server`] that the host runs whose loopback the containers' gateway leads to, where
    /// that is not this one's: outside the helper machine. `None`: one is run here.
    pub server_port: Option<u16>,
    /// Where the program is, what it is made of, and where it may keep things.
    pub installation: Installation,
}

/// The program that is measured.
#[derive(Debug, Clone)]
pub struct Installation {
    /// The program.
    pub hullbox: PathBuf,
    /// Its data directory; the benchmark makes one of its own in it.
    pub data: PathBuf,
    /// Its runtime directory; likewise.
    pub runtime: PathBuf,
    /// The probe.
    pub probe: PathBuf,
    /// The guest kernel.
    pub kernel: PathBuf,
    /// The guest's initramfs.
    pub initramfs: PathBuf,
    /// What it says of KVM.
    pub kvm: String,
}

/// Measures. Everything made for it is removed at the end, also after a failure or a signal.
///
/// This process becomes the reaper of orphans and counts its descendants: it should have no other
/// children.
///
/// # Errors
/// [`BenchError`].
pub fn measure(plan: &Plan, progress: &mut dyn FnMut(&str)) -> Result<Report, BenchError> {
    let started = SystemTime::now().duration_since(UNIX_EPOCH);
    let started_s = started.map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(0));
    let clock = Instant::now();
    let place = &plan.installation;
    let mut contenders =
        contender::choose(&place.hullbox, &plan.isolations, plan.peers.as_deref())?;
    let probe = read(&place.probe)?;
    let mut digests = Digests {
        probe: Digest::of(&probe).to_string(),
        kernel: Digest::of(&read(&place.kernel)?).to_string(),
        initramfs: Digest::of(&read(&place.initramfs)?).to_string(),
        hullbox: Digest::of(&read(&place.hullbox)?).to_string(),
        ..Digests::default()
    };
    let runner = Runner::new()?;
    let scratch = Scratch::create(&place.data, &place.runtime, &place.hullbox)?;
    let mut bench = Bench {
        runner: &runner,
        scratch: &scratch,
        probes: if plan.probes.is_empty() {
            &Probe::ALL
        } else {
            &plan.probes
        },
        amounts: if plan.quick {
            Amounts::QUICK
        } else {
            Amounts::FULL
        },
        instances: plan.instances,
        samples: Samples::default(),
        server_port: 0,
        unnetworked: Vec::new(),
        networks_must_work: match plan.probes.contains(&Probe::Network) {
            true => NetworksMustWork::Ours,
            false => NetworksMustWork::No,
        },
        live: RefCell::default(),
    };
    let mut left_out = Vec::new();
    let has_networks = bench.probes.contains(&Probe::Network);
    let server = match (plan.server_port, has_networks) {
        (Some(port), _) => {
            bench.server_port = port;
            None
        }
        (None, true) => Some(Server::on_loopback().map_err(|source| BenchError::Process {
            what: "run a server for the containers to talk to",
            source,
        })?),
        (None, false) => None,
    };
    if let Some(server) = &server {
        bench.server_port = server.port();
    }
    let done = scratch.fill(&probe, started_s).and_then(|made| {
        (digests.image, digests.layers) = (made.image, made.layers);
        rounds(plan, &mut bench, &mut contenders, &mut left_out, progress)
    });
    if done.is_err() {
        runner.forgive();
        bench.remove_all(&contenders.iter().collect::<Vec<_>>());
    }
    let samples = bench.samples;
    left_out.extend(bench.unnetworked.into_iter().map(|(_, why)| why));
    kill_descendants();
    let removed = scratch.remove();
    done?;
    removed?;
    let named: Vec<Named> = contenders.into_iter().map(|one| one.named).collect();
    Ok(Report {
        format: FORMAT,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        started_s,
        took_s: clock.elapsed().as_secs(),
        rounds: plan.rounds,
        warm_ups: WARM_UPS,
        instances: plan.instances,
        host: Host::look(&place.kvm),
        outer_host: None,
        digests,
        rows: samples.rows(&named),
        network_notes: match has_networks {
            true => network_notes(plan.server_port.is_some()),
            false => Vec::new(),
        },
        contenders: named,
        left_out,
    })
}

/// Which ways the traffic went.
fn network_notes(in_machine: bool) -> Vec<String> {
    let ours = match in_machine {
        true => {
            "our containers' traffic left the helper machine over vsock, for a process on the host \
             outside of it and a server there; nothing of a peer's did"
        }
        false => {
            "our containers' traffic went through the process of their user-mode network to a server at \
             the host's loopback"
        }
    };
    let peers = "an OCI runtime's went through a veth pair to a server at the host's end of it, and through \
                 no rules and no address translation, as engines have them besides";
    let rest = "all other rows are of containers without a network";
    [ours, peers, rest].map(str::to_owned).into()
}

fn read(path: &Path) -> Result<Vec<u8>, BenchError> {
    fs::read(path).map_err(BenchError::file("read", path))
}

fn rounds(
    plan: &Plan,
    bench: &mut Bench<'_>,
    contenders: &mut Vec<Contender>,
    left_out: &mut Vec<String>,
    progress: &mut dyn FnMut(&str),
) -> Result<(), BenchError> {
    progress("warming up");
    for _ in 0..WARM_UPS {
        warm_up(plan, bench, contenders, left_out)?;
    }
    bench.samples = Samples::default();
    bench.networks_must_work = NetworksMustWork::All;
    for round in 1..=plan.rounds {
        progress(&format!("round {round} of {}", plan.rounds));
        for contender in in_any_order(contenders) {
            bench.turn(contender)?;
        }
    }
    if bench.probes.contains(&Probe::Density) {
        let crowds = if plan.quick {
            1
        } else {
            CROWDS.min(plan.rounds)
        };
        for crowd in 1..=crowds {
            progress(&format!("crowd {crowd} of {crowds}"));
            for contender in in_any_order(contenders) {
                bench.density(contender)?;
            }
        }
    }
    Ok(())
}

/// Each round in another order: what a contender leaves to be done after its turn (caches, deferred
/// work of the kernel's, its own clean-up) must not always meet the same other one.
fn in_any_order(contenders: &[Contender]) -> Vec<&Contender> {
    let mut order: Vec<_> = contenders.iter().collect();
    fastrand::shuffle(&mut order);
    order
}

/// A round that does not count. A peer that nobody asked for by name and that does not work here
/// is left out; so is container mode for somebody who is not root.
fn warm_up(
    plan: &Plan,
    bench: &mut Bench<'_>,
    contenders: &mut Vec<Contender>,
    left_out: &mut Vec<String>,
) -> Result<(), BenchError> {
    let is_root = rustix::process::geteuid().is_root();
    let mut error = None;
    contenders.retain(|contender| {
        if error.is_some() {
            return true;
        }
        let is_optional = match contender.is_ours() {
            true => contender.named.id == REFERENCE && !is_root && plan.isolations.is_empty(),
            false => plan.peers.is_none(),
        };
        match bench
            .prepare(contender)
            .and_then(|()| bench.turn(contender))
        {
            Ok(()) => true,
            Err(failure @ BenchError::Failed { .. }) if is_optional => {
                bench.remove_all(&[contender]);
                left_out.push(failure.to_string());
                false
            }
            Err(failure) => {
                error = Some(failure);
                true
            }
        }
    });
    match error {
        Some(error) => Err(error),
        None if contenders.is_empty() => Err(BenchError::Nothing("no contender works here")),
        None => Ok(()),
    }
}
