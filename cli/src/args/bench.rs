//! What can be typed for `bench`.

use clap::builder::{PossibleValue, RangedU64ValueParser};
use clap::{Args, ValueEnum};
use hullbox_bench::Probe;
use std::path::PathBuf;

#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  hullbox bench --rounds 20 --peer crun --html report.html\n\n\
    In the helper machine, or while other programs run, only ratios are meaningful."
)]
pub(crate) struct BenchArgs {
    /// Number of rounds; the contenders take turns in each
    #[arg(long, value_name = "N", default_value = "20", value_parser = RangedU64ValueParser::<usize>::new().range(1..=1000))]
    pub(crate) rounds: usize,
    /// Measure only this; may be given more than once
    #[arg(long = "probe", value_name = "NAME", value_enum)]
    pub(crate) probes: Vec<ProbeArg>,
    /// Measure this program's containers too; by default, those of all that are installed
    #[arg(long = "peer", value_name = "PROGRAM", value_enum)]
    pub(crate) peers: Vec<PeerArg>,
    /// Measure only containers of ours with this isolation; may be given more than once
    #[arg(long, value_name = "MODE", value_enum)]
    pub(crate) isolation: Vec<BenchIsolationArg>,
    /// Number of containers at once in the density rows
    #[arg(long, value_name = "N", default_value = "8", value_parser = RangedU64ValueParser::<usize>::new().range(1..=1000))]
    pub(crate) instances: usize,
    /// Do little work, to see whether everything runs
    #[arg(long)]
    pub(crate) quick: bool,
    /// Write the record here, as JSON (- for standard output, instead of the table)
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Write a report here, as one HTML page
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
    /// Show progress though standard error is no terminal: see [`super::forwarded`]
    #[arg(skip)]
    pub(crate) progress: bool,
    /// Where the forwarding process serves whom the containers talk to: likewise
    #[arg(skip)]
    pub(crate) server_port: Option<u16>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PeerArg {
    Crun,
    Runc,
    Podman,
    /// No peer at all
    None,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum BenchIsolationArg {
    Vm,
    Container,
}

/// [`Probe`], by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ProbeArg(pub(crate) Probe);

const PROBES: [ProbeArg; Probe::ALL.len()] = {
    let mut all = [ProbeArg(Probe::Start); Probe::ALL.len()];
    let mut at = 0;
    while at < all.len() {
        all[at] = ProbeArg(Probe::ALL[at]);
        at += 1;
    }
    all
};

impl ValueEnum for ProbeArg {
    fn value_variants<'a>() -> &'a [Self] {
        &PROBES
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.0.name()))
    }
}
