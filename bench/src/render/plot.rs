//! Range plots: for each contender a line from the least to the greatest sample, a thicker one for
//! the better nine in ten, a mark at the median, and the samples themselves as dots.

use super::escape::escape;
use super::figure::{figure, ratio};
use crate::metrics::Unit;
use crate::report::{Cell, Report, Row};
use crate::stats::Summary;
use std::fmt::Write as _;

/// Widths in the drawing's own units; the page scales it.
const WIDTH: f64 = 880.0;
const LABELS: f64 = 132.0;
const FIGURES: f64 = 196.0;
const LINE: f64 = 30.0;
const TOP: f64 = 6.0;
const AXIS: f64 = 26.0;
/// A wider spread than this is drawn on a logarithmic axis.
const WIDE: f64 = 8.0;

/// The axis: where a value stands.
struct Axis {
    low: f64,
    high: f64,
    is_log: bool,
}

impl Axis {
    fn of(row: &Row) -> Self {
        let ends = row
            .cells
            .iter()
            .map(|cell| (cell.summary.min, cell.summary.max));
        let (low, high) = ends.fold((f64::INFINITY, 0.0), |(low, high), (min, max)| {
            (min.min(low), max.max(high))
        });
        if low > 0.0 && high / low > WIDE {
            return Self {
                low: low / 1.25,
                high: high * 1.25,
                is_log: true,
            };
        }
        Self {
            low: 0.0,
            high: if high > 0.0 { high * 1.05 } else { 1.0 },
            is_log: false,
        }
    }

    /// In the drawing's units.
    fn place(&self, value: f64) -> f64 {
        let part = if self.is_log {
            (value.max(self.low) / self.low).ln() / (self.high / self.low).ln()
        } else {
            (value - self.low) / (self.high - self.low)
        };
        LABELS + part.clamp(0.0, 1.0) * (WIDTH - LABELS - FIGURES)
    }

    /// Where lines and numbers stand.
    fn ticks(&self) -> Vec<f64> {
        if self.is_log {
            let first = self.low.log10().floor();
            let powers = (0..24).map(|step| 10f64.powf(first + f64::from(step)));
            let inside = |value: &f64| *value >= self.low && *value <= self.high;
            let tens: Vec<f64> = powers.clone().filter(inside).collect();
            if tens.len() > 2 {
                return tens;
            }
            return powers
                .flat_map(|power| [power, 2.0 * power, 5.0 * power])
                .filter(inside)
                .collect();
        }
        let rough = self.high / 4.0;
        let power = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0]
            .map(|factor| factor * power)
            .into_iter()
            .find(|step| *step >= rough)
            .unwrap_or(rough);
        (0..6)
            .map(|number| f64::from(number) * step)
            .filter(|value| *value <= self.high)
            .collect()
    }
}

/// A row's plot, as an SVG element.
pub(crate) fn plot(report: &Report, row: &Row) -> String {
    let axis = Axis::of(row);
    let bottom = LINE.mul_add(row.cells.len() as f64, TOP);
    let mut svg = format!(
        "<svg viewBox=\"0 0 {WIDTH} {:.0}\" role=\"img\" aria-label=\"{}\">",
        bottom + AXIS,
        escape(&row.title)
    );
    for value in axis.ticks() {
        let x = axis.place(value);
        let text = if value == 0.0 {
            "0".to_owned()
        } else {
            figure(value, row.unit)
        };
        let _ = write!(
            svg,
            "<line class=\"grid\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{bottom:.0}\"/>\
             <text class=\"tick\" x=\"{x:.1}\" y=\"{:.0}\">{text}</text>",
            bottom + 17.0
        );
    }
    for (number, cell) in row.cells.iter().enumerate() {
        let middle = LINE.mul_add(number as f64 + 0.5, TOP);
        draw(&mut svg, report, cell, &axis, row.unit, middle);
    }
    svg.push_str("</svg>");
    svg
}

fn draw(svg: &mut String, report: &Report, cell: &Cell, axis: &Axis, unit: Unit, y: f64) {
    let at = report
        .contenders
        .iter()
        .position(|named| named.id == cell.contender);
    let label = report.label(cell);
    let Summary {
        min,
        median,
        p90,
        max,
        ..
    } = cell.summary;
    let _ = write!(
        svg,
        "<g class=\"c{}\"><text class=\"label\" x=\"{:.0}\" y=\"{:.1}\">{}</text>",
        at.unwrap_or(0) % 8,
        LABELS - 12.0,
        y + 4.5,
        escape(label)
    );
    let span = |from: f64, to: f64, class: &str| {
        let (from, to) = (axis.place(from), axis.place(to));
        format!("<line class=\"{class}\" x1=\"{from:.1}\" x2=\"{to:.1}\" y1=\"{y}\" y2=\"{y}\"/>")
    };
    svg.push_str(&span(min, max, "range"));
    // The better nine tenths.
    if unit.lower_is_better() {
        svg.push_str(&span(min, p90, "most"));
    } else {
        svg.push_str(&span(p90, max, "most"));
    }
    for sample in cell.samples.iter().take(400) {
        let x = axis.place(*sample);
        let _ = write!(svg, "<circle cx=\"{x:.1}\" cy=\"{y}\" r=\"2.2\"/>");
    }
    let x = axis.place(median);
    let _ = write!(
        svg,
        "<line class=\"median\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{:.1}\" y2=\"{:.1}\"/>",
        y - 9.0,
        y + 9.0
    );
    let _ = write!(
        svg,
        "<text class=\"value\" x=\"{:.0}\" y=\"{:.1}\">{}</text>\
         <text class=\"ratio\" x=\"{:.0}\" y=\"{:.1}\">{}</text></g>",
        WIDTH - 76.0,
        y + 4.5,
        figure(median, unit),
        WIDTH - 4.0,
        y + 4.5,
        ratio(cell.ratio)
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::report;

    #[test]
    fn every_mark_is_inside_the_drawing() {
        let mut report = report();
        report.contenders[0].label = "<i>".to_owned();
        for row in &report.rows {
            let svg = plot(&report, row);
            assert!(svg.contains("&lt;i&gt;") && !svg.contains("<i>"));
            assert_eq!(svg.matches("class=\"median\"").count(), row.cells.len());
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        }
    }

    #[test]
    fn nothing_and_everything_can_be_drawn() {
        for samples in [vec![0.0], vec![0.0, 0.0], vec![1.0, 1e12], vec![5.0]] {
            let mut report = report();
            let summary = Summary::of(&samples, true).unwrap();
            let cell = &mut report.rows[0].cells[0];
            (cell.samples, cell.summary) = (samples, summary);
            let svg = plot(&report, &report.rows[0]);
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
            let ticks = Axis::of(&report.rows[0]).ticks().len();
            assert!((1..=24).contains(&ticks), "{ticks}");
        }
    }
}
