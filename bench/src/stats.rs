//! Statistics of samples.

use serde::{Deserialize, Serialize};

/// A contender's samples in one row, in few numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// How many samples there are.
    pub count: usize,
    /// The minimum.
    pub min: f64,
    /// The median.
    pub median: f64,
    /// Nine in ten are at least as good: where more is better, they are at least this.
    pub p90: f64,
    /// Ninety-nine in a hundred are at least as good; with few samples, nearly the worst.
    pub p99: f64,
    /// The maximum.
    pub max: f64,
}

impl Summary {
    /// Of `samples`, in any order; `None` without any. What is not a number is left out.
    #[must_use]
    pub fn of(samples: &[f64], lower_is_better: bool) -> Option<Self> {
        let mut sorted: Vec<f64> = samples
            .iter()
            .copied()
            .filter(|value| value.is_finite())
            .collect();
        sorted.sort_unstable_by(f64::total_cmp);
        let good = |part: f64| percentile(&sorted, if lower_is_better { part } else { 1.0 - part });
        Some(Self {
            count: sorted.len(),
            min: *sorted.first()?,
            median: good(0.5)?,
            p90: good(0.9)?,
            p99: good(0.99)?,
            max: *sorted.last()?,
        })
    }
}

/// Linear between the two nearest ranks, so that a median of two is their mean.
fn percentile(sorted: &[f64], part: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    let place = part * last as f64;
    let below = place.floor();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 0 and the number of samples"
    )]
    let index = below as usize;
    let low = *sorted.get(index)?;
    let high = *sorted.get((index + 1).min(last))?;
    Some((high - low).mul_add(place - below, low))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_samples_have_all_percentiles() {
        assert_eq!(Summary::of(&[], true), None);
        assert_eq!(Summary::of(&[f64::NAN], true), None);
        let one = Summary::of(&[7.0], true).unwrap();
        assert_eq!(
            (one.min, one.median, one.p90, one.p99),
            (7.0, 7.0, 7.0, 7.0)
        );
        let two = Summary::of(&[3.0, 1.0], true).unwrap();
        assert_eq!(
            (two.count, two.min, two.median, two.max),
            (2, 1.0, 2.0, 3.0)
        );
        assert!((two.p90 - 2.8).abs() < 1e-9);
        let three = Summary::of(&[5.0, 1.0, 9.0], true).unwrap();
        assert_eq!(three.median, 5.0);
        assert!((three.p90 - 8.2).abs() < 1e-9);
    }

    #[test]
    fn many_samples_have_the_percentiles_of_their_ranks() {
        let samples: Vec<f64> = (0..=100).rev().map(f64::from).collect();
        let summary = Summary::of(&samples, true).unwrap();
        assert_eq!(
            (summary.median, summary.p90, summary.p99),
            (50.0, 90.0, 99.0)
        );
        assert_eq!((summary.min, summary.max), (0.0, 100.0));
        // Where more is better, the tail is at the other end.
        let summary = Summary::of(&samples, false).unwrap();
        assert_eq!(summary.median, 50.0);
        assert!((summary.p90 - 10.0).abs() < 1e-9 && (summary.p99 - 1.0).abs() < 1e-9);
    }
}
