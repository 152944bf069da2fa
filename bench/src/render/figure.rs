//! Numbers in units that people read.

use crate::metrics::Unit;

/// Three digits, and a unit that suits them.
pub(crate) fn figure(value: f64, unit: Unit) -> String {
    let (value, name) = match unit {
        Unit::Nanoseconds => scaled(value, &[(1e9, "s"), (1e6, "ms"), (1e3, "µs"), (1.0, "ns")]),
        Unit::Bytes => scaled(value, &BYTES),
        Unit::BytesPerSecond => {
            let (value, name) = scaled(value, &BYTES);
            return format!("{} {name}/s", digits(value));
        }
    };
    format!("{} {name}", digits(value))
}

const BYTES: [(f64, &str); 4] = [
    (1_073_741_824.0, "GiB"),
    (1_048_576.0, "MiB"),
    (1024.0, "KiB"),
    (1.0, "B"),
];

fn scaled(value: f64, units: &[(f64, &'static str)]) -> (f64, &'static str) {
    let fits = units.iter().find(|(size, _)| value.abs() >= *size);
    let (size, name) = fits.or(units.last()).copied().unwrap_or((1.0, ""));
    (value / size, name)
}

/// Three digits that mean something.
pub(crate) fn digits(value: f64) -> String {
    match value.abs() {
        size if size >= 99.95 => format!("{value:.0}"),
        size if size >= 9.995 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// A ratio; of nothing, a dash.
pub(crate) fn ratio(ratio: Option<f64>) -> String {
    ratio.map_or_else(|| "–".to_owned(), |ratio| format!("{}×", digits(ratio)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits_and_a_unit() {
        for (value, unit, text) in [
            (0.0, Unit::Nanoseconds, "0.00 ns"),
            (523.4, Unit::Nanoseconds, "523 ns"),
            (1_234.0, Unit::Nanoseconds, "1.23 µs"),
            (45_678_901.0, Unit::Nanoseconds, "45.7 ms"),
            (2.5e9, Unit::Nanoseconds, "2.50 s"),
            (6_291_456.0, Unit::Bytes, "6.00 MiB"),
            (209_715_200.0, Unit::BytesPerSecond, "200 MiB/s"),
        ] {
            assert_eq!(figure(value, unit), text);
        }
        assert_eq!(ratio(Some(3.456)), "3.46×");
        assert_eq!(ratio(None), "–");
    }
}
