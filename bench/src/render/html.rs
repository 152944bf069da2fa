//! The report as a page.

use crate::report::Report;

/// One page.
#[must_use]
pub fn html(report: &Report) -> String {
    format!("<!doctype html><title>{}</title>", report.version)
}
