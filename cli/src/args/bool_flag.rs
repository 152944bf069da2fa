//! Flags that take a value as Docker's do: `--rm`, `--rm=true`, `--rm=false`, `-it`, `-i=false`.

use clap::builder::ValueParser;
use clap::{Arg, ArgAction};

/// The value's name of such a flag. A `bool` that is declared with it is shown with its value in the
/// help text, and can be on by default.
pub(super) const BOOL: &str = "BOOL";

/// Lets a flag that is on or off take a value, behind an equals sign only: one whose value is called
/// [`BOOL`], and every other switch. Any other argument stays as it is.
pub(super) fn with_value(arg: Arg) -> Arg {
    let is_shown = arg
        .get_value_names()
        .is_some_and(|names| names[..] == [BOOL]);
    // The global switch is the program's own, and stands before commands too.
    let is_switch = matches!(arg.get_action(), ArgAction::SetTrue) && !arg.is_global_set();
    if !is_shown && !is_switch {
        return arg;
    }
    let is_off = !is_shown || arg.get_default_values().is_empty();
    let arg = arg
        .action(ArgAction::Set)
        .value_parser(ValueParser::new(parse))
        .value_name(BOOL)
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
