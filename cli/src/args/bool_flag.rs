//! Flags that take a value as Docker's do: `--rm`, `--rm=true`, `--rm=false`, `-it`, `-i=false`.

use clap::builder::ValueParser;
use clap::{Arg, ArgAction};

/// The value's name of such a flag. A `bool` that is declared with it takes a value: clap's derive
/// has no attribute for the whole of what that needs, see [`with_value`].
pub(super) const BOOL: &str = "BOOL";

/// Lets a flag whose value is called [`BOOL`] take one, behind an equals sign only; any other
/// argument stays as it is.
pub(super) fn with_value(arg: Arg) -> Arg {
    let is_bool = arg
        .get_value_names()
        .is_some_and(|names| names[..] == [BOOL]);
    if !is_bool {
        return arg;
    }
    let is_off = arg.get_default_values().is_empty();
    let arg = arg
        .action(ArgAction::Set)
        .value_parser(ValueParser::new(parse))
        .num_args(0..=1)
        .require_equals(true)
        .default_missing_value("true");
    if is_off {
        arg.default_value("false").hide_default_value(true)
    } else {
        arg
    }
}

/// The words that Go's `strconv.ParseBool` takes, which reads Docker's flags.
fn parse(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err("expected true or false".to_owned()),
    }
}
