//! `--tmpfs`, and `--mount type=tmpfs`.

use hullbox_protocol::TmpfsMount;

/// Looks at the options of a tmpfs.
///
/// # Errors
/// Docker's words for one that there is not.
pub fn check(options: &str) -> Result<(), String> {
    for option in options.split(',').filter(|option| !option.is_empty()) {
        let known = match option.split_once('=') {
            Some((name, value)) => TmpfsMount::OWN_OPTIONS.contains(&name) && !value.is_empty(),
            None => TmpfsMount::FLAGS.contains(&option),
        };
        if !known {
            return Err(format!("invalid tmpfs option {option:?}"));
        }
    }
    Ok(())
}
