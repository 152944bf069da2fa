//! Sizes, times and tables as people read them.

use std::time::{SystemTime, UNIX_EPOCH};

/// `4.43MB`: powers of 1000, as Docker prints sizes.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["B", "kB", "MB", "GB", "TB", "PB"];
    let mut scale = 1u64;
    let mut unit = 0;
    while unit + 1 < UNITS.len() && bytes / scale >= 1000 {
        scale *= 1000;
        unit += 1;
    }
    let whole = bytes / scale;
    let thousandths = u128::from(bytes % scale) * 1000 / u128::from(scale);
    let unit = UNITS[unit];
    // Three digits, without zeroes at the end.
    let digits = match whole {
        _ if scale == 1 => String::new(),
        0..10 => format!("{:02}", thousandths / 10),
        10..100 => format!("{}", thousandths / 100),
        _ => String::new(),
    };
    let digits = digits.trim_end_matches('0');
    if digits.is_empty() {
        format!("{whole}{unit}")
    } else {
        format!("{whole}.{digits}{unit}")
    }
}

/// `4.43MiB`: powers of 1024 and four digits, as Docker prints memory.
pub(crate) fn memory(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while unit + 1 < UNITS.len() && value >= 1024.0 {
        value /= 1024.0;
        unit += 1;
    }
    let decimals = match value {
        0.0..10.0 => 3,
        10.0..100.0 => 2,
        100.0..1000.0 => 1,
        _ => 0,
    };
    let text = format!("{value:.decimals$}");
    let text = match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.'),
        false => &text,
    };
    format!("{text}{}", UNITS[unit])
}

/// `2 hours ago`; `N/A` for a time that is not known.
pub(crate) fn ago(then_s: Option<i64>) -> String {
    then_s
        .and_then(|then| u64::try_from(now_s().saturating_sub(then).max(0)).ok())
        .map_or_else(
            || "N/A".to_owned(),
            |past| format!("{} ago", hullbox_model::time::words(past)),
        )
}

pub(crate) fn now_s() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|now| i64::try_from(now.as_secs()).ok())
        .unwrap_or(0)
}

/// Text cut to `len` characters, with an ellipsis.
pub(crate) fn cut(text: &str, len: usize) -> String {
    if text.chars().count() <= len {
        text.to_owned()
    } else {
        let mut short: String = text.chars().take(len.saturating_sub(1)).collect();
        short.push('…');
        short
    }
}

/// Columns as wide as their widest cell, three blanks apart.
pub(crate) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|column| {
            rows.iter()
                .filter_map(|row| row.get(column))
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0)
        })
        .collect();
    let mut out = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(cell);
            let fill = width + 3 - cell.chars().count();
            line.extend(std::iter::repeat_n(' ', fill));
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_short() {
        for (bytes, expected) in [
            (0, "0B"),
            (999, "999B"),
            (1000, "1kB"),
            (4_430_000, "4.43MB"),
            (12_300_000, "12.3MB"),
            (123_400_000, "123MB"),
            (1_500_000_000, "1.5GB"),
            (u64::MAX, "18446PB"),
        ] {
            assert_eq!(size(bytes), expected);
        }
    }

    #[test]
    fn memory_is_in_powers_of_1024() {
        for (bytes, expected) in [
            (0, "0B"),
            (1000, "1000B"),
            (1024, "1KiB"),
            (376 << 10, "376KiB"),
            (64 << 20, "64MiB"),
            (1_106_247, "1.055MiB"),
            (1_234_567_890, "1.15GiB"),
            (27_058_293_760, "25.2GiB"),
            (1020 << 20, "1020MiB"),
        ] {
            assert_eq!(memory(bytes), expected);
        }
    }

    #[test]
    fn tables_line_up() {
        let row = |cells: &[&str]| cells.iter().map(|c| (*c).to_owned()).collect::<Vec<_>>();
        let text = table(&[row(&["A", "BB"]), row(&["aaa", "b"])]);
        assert_eq!(text, "A     BB\naaa   b\n");
    }
}
