//! The report as a table for a terminal.

use super::figure::{figure, ratio};
use crate::report::{REFERENCE, Report, Row};
use std::fmt::Write as _;

/// Plain text: what ran where, and a line for each row and contender.
#[must_use]
pub fn table(report: &Report) -> String {
    let mut text = String::new();
    let host = &report.host;
    let _ = writeln!(
        text,
        "{} × {}, Linux {}{}; {} rounds, contenders in turn",
        host.cpus,
        host.cpu_model,
        host.kernel,
        if report.outer_host.is_some() {
            " (the helper machine: emulated, only ratios mean something)"
        } else {
            ""
        },
        report.rounds
    );
    let width = report
        .contenders
        .iter()
        .map(|named| named.label.chars().count())
        .max()
        .unwrap_or(0);
    for row in &report.rows {
        rows(&mut text, report, row, width);
    }
    let _ = writeln!(
        text,
        "\nratio: of medians, to {}; above 1 is worse",
        if report.contenders.iter().any(|named| named.id == REFERENCE) {
            "our container mode"
        } else {
            "the first contender"
        }
    );
    for note in &report.network_notes {
        let _ = writeln!(text, "network: {note}");
    }
    for what in &report.left_out {
        let _ = writeln!(text, "left out: {what}");
    }
    text
}

fn rows(text: &mut String, report: &Report, row: &Row, width: usize) {
    let _ = writeln!(
        text,
        "\n{:<34} {:>11} {:>11} {:>11} {:>8}",
        row.title, "median", "p90", "p99", "ratio"
    );
    for cell in &row.cells {
        let label = report.label(cell);
        let summary = &cell.summary;
        let _ = writeln!(
            text,
            "  {label:<width$}{:pad$} {:>11} {:>11} {:>11} {:>8}",
            "",
            figure(summary.median, row.unit),
            figure(summary.p90, row.unit),
            figure(summary.p99, row.unit),
            ratio(cell.ratio),
            pad = 32usize.saturating_sub(width),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::report;

    #[test]
    fn every_row_and_contender_has_its_line() {
        let text = table(&report());
        for part in [
            "start to exit",
            "  vm-cold                              6.00 ms     7.60 ms     7.96 ms    3.00×",
            "  container                            2.00 ms",
            "network: by its own way",
            "left out: a peer",
            "3 rounds",
        ] {
            assert!(text.contains(part), "{part:?} not in\n{text}");
        }
    }
}
