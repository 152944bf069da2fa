//! The report: one record of everything that was measured, from which table, JSON and HTML are made.

use crate::contender::Named;
use crate::memory;
use crate::metrics::{METRICS, Metric, Unit};
use crate::runner::one_line;
use crate::stats::Summary;
use serde::{Deserialize, Serialize};
use std::fs;

/// The record's form; raised when it changes.
pub const FORMAT: u32 = 2;

/// A whole benchmark.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`FORMAT`].
    pub format: u32,
    /// Hullbox's version.
    pub version: String,
    /// When it began, in seconds since 1970.
    pub started_s: i64,
    /// How long it took, in seconds.
    pub took_s: u64,
    /// Rounds that count, after the warm-up.
    pub rounds: usize,
    /// Rounds of warm-up, which do not count.
    pub warm_ups: usize,
    /// Instances in a crowd.
    pub instances: usize,
    /// Where the contenders ran.
    pub host: Host,
    /// The host of the helper machine that they ran in, if they did.
    pub outer_host: Option<Host>,
    /// Of everything that ran.
    pub digests: Digests,
    /// The contenders.
    pub contenders: Vec<Named>,
    /// What was measured.
    pub rows: Vec<Row>,
    /// Which ways the traffic went that was measured; none where it was not.
    pub network_notes: Vec<String>,
    /// What is missing in the report, and why.
    pub left_out: Vec<String>,
}

/// Facts of a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// The processor's own name.
    pub cpu_model: String,
    /// Processors.
    pub cpus: usize,
    /// The kernel's release.
    pub kernel: String,
    /// Memory.
    pub memory_bytes: u64,
    /// The verdict of Hullbox on the host's KVM.
    pub kvm: String,
}

/// SHA-256 digests.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Digests {
    /// The image's id.
    pub image: String,
    /// Its layers' DiffIDs.
    pub layers: Vec<String>,
    /// The probe.
    pub probe: String,
    /// The guest kernel.
    pub kernel: String,
    /// The guest's initramfs, which is its agent.
    pub initramfs: String,
    /// This program.
    pub hullbox: String,
}

/// One metric of all contenders.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// [`Metric::id`].
    pub id: String,
    /// [`Metric::title`].
    pub title: String,
    /// Of all samples and summaries.
    pub unit: Unit,
    /// Whether less is better.
    pub lower_is_better: bool,
    /// One for each contender that has this row.
    pub cells: Vec<Cell>,
}

/// One metric of one contender.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cell {
    /// [`Named::id`].
    pub contender: String,
    /// In the order they were taken.
    pub samples: Vec<f64>,
    /// Of the samples.
    pub summary: Summary,
    /// The median's ratio to that of [`REFERENCE`], or of the first contender without it: above 1
    /// it takes longer, takes more, or is slower. `None` where that means nothing.
    pub ratio: Option<f64>,
}

impl Report {
    /// The contender's label.
    pub(crate) fn label<'a>(&'a self, cell: &'a Cell) -> &'a str {
        self.contenders
            .iter()
            .find(|named| named.id == cell.contender)
            .map_or(&cell.contender, |named| &named.label)
    }
}

impl Host {
    /// Of this host.
    #[must_use]
    pub fn look(kvm: &str) -> Self {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpuinfo
            .lines()
            .find_map(|line| line.strip_prefix("model name")?.split_once(':'))
            .map_or("unknown", |(_, name)| name);
        let release = rustix::system::uname();
        Self {
            cpu_model: one_line(model.as_bytes()),
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            kernel: one_line(release.release().to_bytes()),
            memory_bytes: memory::total_bytes(),
            kvm: kvm.to_owned(),
        }
    }
}

/// Samples as they come in.
#[derive(Debug, Default)]
pub(crate) struct Samples(Vec<(&'static str, String, f64)>);

impl Samples {
    pub(crate) fn add(&mut self, metric: &'static str, contender: &str, value: f64) {
        debug_assert!(METRICS.iter().any(|known| known.id == metric), "{metric}");
        self.0.push((metric, contender.to_owned(), value));
    }

    /// A row for each metric that has samples. The reference is our container mode, else the first
    /// contender that has the row.
    pub(crate) fn rows(&self, contenders: &[Named]) -> Vec<Row> {
        METRICS
            .iter()
            .map(|metric| self.row(metric, contenders))
            .filter(|row| !row.cells.is_empty())
            .collect()
    }

    fn row(&self, metric: &Metric, contenders: &[Named]) -> Row {
        let cell = |named: &Named| {
            let samples: Vec<f64> = self
                .0
                .iter()
                .filter(|(id, who, _)| *id == metric.id && *who == named.id)
                .map(|(_, _, value)| *value)
                .collect();
            Some(Cell {
                contender: named.id.clone(),
                summary: Summary::of(&samples, metric.unit.lower_is_better())?,
                samples,
                ratio: None,
            })
        };
        let mut cells: Vec<Cell> = contenders.iter().filter_map(cell).collect();
        let reference = cells
            .iter()
            .find(|cell| cell.contender == REFERENCE)
            .or(cells.first())
            .map(|cell| cell.summary.median);
        for cell in &mut cells {
            cell.ratio = reference
                .filter(|_| metric.is_compared())
                .and_then(|reference| {
                    let (top, bottom) = if metric.unit.lower_is_better() {
                        (cell.summary.median, reference)
                    } else {
                        (reference, cell.summary.median)
                    };
                    let ratio = top / bottom;
                    (ratio.is_finite() && ratio > 0.0).then_some(ratio)
                });
        }
        Row {
            id: metric.id.to_owned(),
            title: metric.title.to_owned(),
            unit: metric.unit,
            lower_is_better: metric.unit.lower_is_better(),
            cells,
        }
    }
}

/// Ratios are to this contender, where it takes part.
pub const REFERENCE: &str = "container";

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn named(id: &str) -> Named {
        Named {
            id: id.to_owned(),
            label: id.to_owned(),
            version: "1 <b>".to_owned(),
            flags: Vec::new(),
        }
    }

    pub(crate) fn report() -> Report {
        let contenders = vec![named("vm-cold"), named("container")];
        let mut samples = Samples::default();
        for (who, values) in [("vm-cold", [4e6, 8e6, 6e6]), ("container", [1e6, 3e6, 2e6])] {
            for value in values {
                samples.add("start.exit", who, value);
                samples.add("streams.output", who, 1e15 / value);
            }
        }
        samples.add("memory.guest", "vm-cold", 30e6);
        Report {
            format: FORMAT,
            version: "0.1.0".to_owned(),
            started_s: 1_800_000_000,
            took_s: 77,
            rounds: 3,
            warm_ups: 1,
            instances: 2,
            host: Host {
                cpu_model: "A & B <script>alert(1)</script>".to_owned(),
                cpus: 2,
                kernel: "6.1".to_owned(),
                memory_bytes: 2 << 30,
                kvm: "usable".to_owned(),
            },
            outer_host: None,
            digests: Digests::default(),
            rows: samples.rows(&contenders),
            contenders,
            network_notes: vec!["by its own way".to_owned()],
            left_out: vec!["a peer".to_owned()],
        }
    }

    #[test]
    fn ratios_are_to_container_mode_and_above_one_is_worse() {
        let report = report();
        let row = |id: &str| report.rows.iter().find(|row| row.id == id).unwrap();
        let ratios = |id: &str| -> Vec<_> {
            row(id)
                .cells
                .iter()
                .map(|cell| cell.ratio.unwrap())
                .collect()
        };
        assert_eq!(ratios("start.exit"), [3.0, 1.0]);
        assert_eq!(ratios("streams.output"), [3.0, 1.0]);
        // Who has no such row is not in it; with nobody to compare, there is no ratio.
        assert_eq!(row("memory.guest").cells[0].ratio, None);
    }

    #[test]
    fn a_record_keeps_its_shape() {
        let report = report();
        let value = serde_json::to_value(&report).unwrap();
        assert_eq!(value["format"], FORMAT);
        assert_eq!(value["rows"][0]["id"], "start.exit");
        assert_eq!(value["rows"][0]["unit"], "ns");
        assert_eq!(value["rows"][0]["cells"][0]["contender"], "vm-cold");
        assert_eq!(value["rows"][0]["cells"][0]["summary"]["median"], 6e6);
        assert_eq!(value["rows"][0]["cells"][0]["samples"][1], 8e6);
        for key in ["cpu_model", "cpus", "kernel", "memory_bytes", "kvm"] {
            assert!(!value["host"][key].is_null(), "{key}");
        }
        for key in ["image", "layers", "probe", "kernel", "initramfs", "hullbox"] {
            assert!(!value["digests"][key].is_null(), "{key}");
        }
        let back: Report = serde_json::from_value(value).unwrap();
        assert_eq!(back, report);
    }

    #[test]
    fn a_host_is_known() {
        let host = Host::look("x");
        assert!(host.cpus > 0 && host.memory_bytes > 0);
        assert!(!host.kernel.is_empty() && !host.cpu_model.is_empty());
    }
}
