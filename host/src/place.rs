//! Where a process runs.

use std::fs;

/// The word of the kernel's command line by which the helper machine's agent knows its role.
const MACHINE_ROLE: &str = "HULLBOX_ROLE=machine";

/// Whether this process runs inside the helper machine, whose way out is the host's.
#[must_use]
pub fn is_in_machine() -> bool {
    fs::read_to_string("/proc/cmdline").is_ok_and(|line| says_machine(&line))
}

fn says_machine(command_line: &str) -> bool {
    command_line
        .split_whitespace()
        .any(|word| word == MACHINE_ROLE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_role_is_a_word_of_its_own() {
        assert!(says_machine(
            "console=ttyS0 quiet HULLBOX_ROLE=machine tsc=reliable\n"
        ));
        assert!(!says_machine("console=ttyS0 HULLBOX_ROLE=machines quiet\n"));
        assert!(!says_machine(""));
    }
}
