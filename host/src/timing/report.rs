//! One account of two processes.

use super::{Marks, Phase};
use serde::Serialize;

/// Who did it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Process {
    /// The process that was typed.
    Command,
    /// The container's monitor, and what it waited for.
    Monitor,
}

/// One phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Row {
    /// Which.
    pub phase: Phase,
    /// Who did it.
    pub process: Process,
    /// When it ended, in microseconds since the beginning.
    pub at_us: u64,
    /// What it took, in microseconds. It begins where the phase before it in the same process ends.
    pub took_us: u64,
    /// What of it made the whole longer, in microseconds: what the monitor does while the command
    /// line is busy itself costs nothing. Shares add up to the total.
    pub share_us: u64,
}

/// All phases, in the order of their ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// From the command line's beginning until it knew the end, in microseconds.
    pub total_us: u64,
    /// See [`Row`].
    pub phases: Vec<Row>,
}

impl Report {
    /// What both have marked; the monitor may have been killed before it told.
    #[must_use]
    pub fn new(command: &Marks, monitor: Option<&Marks>) -> Self {
        let mut own = rows(command, Process::Command);
        let mut theirs = monitor.map_or_else(Vec::new, |marks| rows(marks, Process::Monitor));
        for wait in own.iter_mut().filter(|row| row.phase == Phase::Wait) {
            for row in &mut theirs {
                let common = row.common(wait);
                row.share_us += common;
                wait.share_us = wait.share_us.saturating_sub(common);
            }
        }
        let total_us = own.last().map_or(0, |row| row.at_us);
        // Those that end at the same time keep this order: nobody waits longer than for the end.
        theirs.extend(own);
        theirs.sort_by_key(|row| row.at_us);
        Self {
            total_us,
            phases: theirs,
        }
    }
}

fn rows(marks: &Marks, process: Process) -> Vec<Row> {
    let mut begun_us = marks.begun_us;
    let row = |mark: &super::Mark| {
        let took_us = mark.at_us.saturating_sub(begun_us);
        begun_us = mark.at_us;
        Row {
            phase: mark.phase,
            process,
            at_us: mark.at_us,
            took_us,
            share_us: match process {
                Process::Command => took_us,
                Process::Monitor => 0,
            },
        }
    };
    marks.marks.iter().map(row).collect()
}

impl Row {
    const fn begun_us(&self) -> u64 {
        self.at_us.saturating_sub(self.took_us)
    }

    /// For how long both went on.
    fn common(&self, other: &Self) -> u64 {
        let end = self.at_us.min(other.at_us);
        end.saturating_sub(self.begun_us().max(other.begun_us()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timing::Mark;

    fn marks(begun_us: u64, marks: &[(Phase, u64)]) -> Marks {
        let mark = |&(phase, at_us): &(Phase, u64)| Mark { phase, at_us };
        Marks {
            begun_us,
            marks: marks.iter().map(mark).collect(),
        }
    }

    fn command() -> Marks {
        marks(
            0,
            &[
                (Phase::Cli, 100),
                (Phase::Spawn, 150),
                (Phase::Store, 400),
                (Phase::Order, 420),
                (Phase::Wait, 1000),
            ],
        )
    }

    #[test]
    fn shares_add_up_and_what_is_done_beside_costs_nothing() {
        // It is ready before the orders come, and tells the end 10 us before that is read.
        let monitor = marks(
            120,
            &[
                (Phase::Monitor, 200),
                (Phase::MemoryMap, 300),
                (Phase::Orders, 430),
                (Phase::AgentContact, 900),
                (Phase::Exit, 990),
            ],
        );
        let report = Report::new(&command(), Some(&monitor));
        assert_eq!(report.total_us, 1000);
        assert!(report.phases.is_sorted_by_key(|row| row.at_us));
        let share = |phase| {
            let row = report.phases.iter().find(|row| row.phase == phase);
            row.unwrap().share_us
        };
        assert_eq!(share(Phase::MemoryMap), 0);
        assert_eq!(share(Phase::Store), 250);
        assert_eq!(share(Phase::Orders), 10);
        assert_eq!(share(Phase::AgentContact), 470);
        assert_eq!(share(Phase::Wait), 10);
        let sum: u64 = report.phases.iter().map(|row| row.share_us).sum();
        assert_eq!(sum, report.total_us);
    }

    #[test]
    fn a_monitor_that_is_late_costs_what_the_command_line_waits() {
        let monitor = marks(120, &[(Phase::Monitor, 700), (Phase::Exit, 1000)]);
        let report = Report::new(&command(), Some(&monitor));
        let shares: Vec<_> = report
            .phases
            .iter()
            .map(|row| (row.phase, row.share_us))
            .collect();
        assert_eq!(
            shares,
            [
                (Phase::Cli, 100),
                (Phase::Spawn, 50),
                (Phase::Store, 250),
                (Phase::Order, 20),
                (Phase::Monitor, 280),
                (Phase::Exit, 300),
                (Phase::Wait, 0),
            ]
        );
    }

    #[test]
    fn without_the_monitors_account_the_wait_is_all_there_is() {
        let report = Report::new(&command(), None);
        assert_eq!(report.phases.last().unwrap().share_us, 580);
        assert_eq!(Report::new(&marks(0, &[]), None).total_us, 0);
    }

    #[test]
    fn names_and_units_are_stable() {
        let report = Report::new(&marks(0, &[(Phase::Cli, 7)]), None);
        assert_eq!(
            serde_json::to_string(&report).unwrap(),
            r#"{"total_us":7,"phases":[{"phase":"cli","process":"command","at_us":7,"took_us":7,"share_us":7}]}"#
        );
        let name = |phase: Phase| serde_json::to_value(phase).unwrap();
        assert_eq!(name(Phase::VmCreate), "vm_create");
        assert_eq!(name(Phase::FirstOutput), "first_output");
    }
}
