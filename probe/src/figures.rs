//! What a kind of work prints.

use std::io::{self, Write};
use std::time::Duration;

/// Name and value of a figure.
type Figure = (&'static str, u64);
pub type Figures = Vec<Figure>;

/// Writes figures as one JSON line.
pub fn print(figures: &Figures) -> io::Result<()> {
    let members: Vec<String> = figures
        .iter()
        .map(|(name, value)| format!("\"{name}\":{value}"))
        .collect();
    let mut out = io::stdout().lock();
    writeln!(out, "{{{}}}", members.join(","))?;
    out.flush()
}

/// Nanoseconds, as a figure.
pub fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
