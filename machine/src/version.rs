//! Versions and kernel releases, in the order in which people see them.

use std::cmp::Ordering;

/// Orders two: runs of digits by value, all else by byte.
#[must_use]
pub fn compare(a: &str, b: &str) -> Ordering {
    fn parts(version: &str) -> Vec<(u64, &str)> {
        version
            .split_inclusive(|c: char| !c.is_ascii_digit())
            .map(|part| {
                let digits = part.trim_end_matches(|c: char| !c.is_ascii_digit());
                (digits.parse().unwrap_or(0), &part[digits.len()..])
            })
            .collect()
    }
    parts(a).cmp(&parts(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_compare_by_value() {
        let less = |a, b| assert_eq!(compare(a, b), Ordering::Less, "{a} < {b}");
        less("6.1.0-9-cloud-amd64", "6.1.0-56-cloud-amd64");
        less("6.1.0-56-cloud-amd64", "6.12.1-1-cloud-amd64");
        less("5.10.0-30-amd64", "6.1.0-1-amd64");
        less("6.1.0-56-cloud-amd64", "6.2");
        less("7.2.22", "10");
        less("10", "10.0.2");
    }
}
