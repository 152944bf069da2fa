//! `--filter`.

use crate::output::failure::{Failure, RUN_FAILED};
use hullbox_model::filter::{FilterError, Filters};

/// The `--filter`s of a command that knows these keys.
pub(crate) fn filters(
    texts: &[String],
    known: &'static [&'static str],
) -> Result<Filters, Failure> {
    Filters::parse(texts, known).map_err(|error| match error {
        // As Docker: what is no filter at all is the flag's fault.
        FilterError::NoValue(_) => Failure::from(error).with_code(RUN_FAILED),
        _ => Failure::from(error),
    })
}
