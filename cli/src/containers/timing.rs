//! `--timing`: how long each phase of a command took.

use crate::args::values::{TimingArgs, TimingFormat};
use crate::output::failure::Failure;
use crate::output::text;
use hullbox_engine::timing::{Marks, Report, Timing, Zero};
use std::io::{self, Write};

/// Fails if the flag is given where there is nothing to show.
pub(super) fn refuse(args: TimingArgs, hint: &str) -> Result<(), Failure> {
    match args.timing {
        Some(_) => Err(Failure::new("there is nothing that --timing could show").with_hint(hint)),
        None => Ok(()),
    }
}

/// Collects marks if it is given; `zero` is the process's beginning.
pub(super) fn since(args: TimingArgs, zero: Zero) -> Timing {
    args.timing
        .map_or_else(Timing::default, |_| Timing::since(zero))
}

/// Shows the marks of this process and those that the monitor has sent.
pub(super) fn show(args: TimingArgs, timing: &Timing, monitor: Option<&Marks>) {
    let (Some(format), Some(own)) = (args.timing, timing.take()) else {
        return;
    };
    let report = Report::new(&own, monitor);
    let text = match format {
        TimingFormat::Table => table(&report),
        TimingFormat::Json => serde_json::to_string(&report).unwrap_or_default() + "\n",
    };
    // Timing that cannot be written is no reason to fail.
    let _ = io::stderr().write_all(text.as_bytes());
}

fn milliseconds(us: u64) -> String {
    format!("{}.{:03}", us / 1000, us % 1000)
}

/// Numbers end in the same column.
fn right(text: &str) -> String {
    format!("{text:>9}")
}

fn table(report: &Report) -> String {
    let per_mille = |us: u64| match report.total_us {
        0 => 0,
        total => us.saturating_mul(1000) / total,
    };
    // The names are those of the JSON.
    let name = |value: serde_json::Result<serde_json::Value>| {
        let value = value.unwrap_or_default();
        value.as_str().unwrap_or_default().replace('_', " ")
    };
    let mut rows = vec![vec![
        "PHASE".to_owned(),
        "PROCESS".to_owned(),
        right("AT ms"),
        right("TOOK ms"),
        right("SHARE %"),
    ]];
    for row in &report.phases {
        let share = per_mille(row.share_us);
        rows.push(vec![
            name(serde_json::to_value(row.phase)),
            name(serde_json::to_value(row.process)),
            right(&milliseconds(row.at_us)),
            right(&milliseconds(row.took_us)),
            right(&format!("{}.{}", share / 10, share % 10)),
        ]);
    }
    text::table(&rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hullbox_engine::timing::{Mark, Phase};

    #[test]
    fn the_table_has_a_line_for_each_phase_and_names_its_units() {
        let marks = |begun_us, marks: &[(Phase, u64)]| Marks {
            begun_us,
            marks: marks
                .iter()
                .map(|&(phase, at_us)| Mark { phase, at_us })
                .collect(),
        };
        let own = marks(0, &[(Phase::Cli, 1_234), (Phase::Wait, 200_000)]);
        let monitor = marks(1_000, &[(Phase::MemoryMap, 51_234)]);
        let text = table(&Report::new(&own, Some(&monitor)));
        assert_eq!(
            text,
            "PHASE        PROCESS       AT ms     TOOK ms     SHARE %\n\
             cli          command       1.234       1.234         0.6\n\
             memory map   monitor      51.234      50.234        25.0\n\
             wait         command     200.000     198.766        74.3\n"
        );
        assert_eq!(table(&Report::new(&marks(0, &[]), None)).lines().count(), 1);
    }
}
