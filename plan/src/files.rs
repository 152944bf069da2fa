//! Contents of /etc/hosts and /etc/resolv.conf.

use super::error::{PlanError, value};
use super::request::RunRequest;
use super::units::HostEntry;
use std::fmt::Write;

/// The usual names of this machine, the container's own, and what was asked for.
pub(super) fn hosts(hostname: &str, extra: &[HostEntry]) -> String {
    let mut text = format!(
        "127.0.0.1\tlocalhost\n\
         ::1\tlocalhost ip6-localhost ip6-loopback\n\
         fe00::0\tip6-localnet\n\
         ff00::0\tip6-mcastprefix\n\
         ff02::1\tip6-allnodes\n\
         ff02::2\tip6-allrouters\n\
         127.0.1.1\t{hostname}\n"
    );
    for entry in extra {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{}\t{}", entry.address, entry.name);
    }
    text
}

/// What `--dns` and its family say; nothing without them, as there is no network to ask.
pub(super) fn resolv_conf(request: &RunRequest) -> Result<String, PlanError> {
    let word = |flag, text: &str| {
        if text.is_empty() || text.chars().any(|c| c.is_whitespace() || c.is_control()) {
            Err(value(flag, format!("{text:?} is not one word")))
        } else {
            Ok(())
        }
    };
    let mut text = String::new();
    for address in &request.dns {
        let _ = writeln!(text, "nameserver {address}");
    }
    for domain in &request.dns_search {
        word("dns-search", domain)?;
    }
    // A single dot means no search domain.
    if !request.dns_search.is_empty() && request.dns_search != ["."] {
        let _ = writeln!(text, "search {}", request.dns_search.join(" "));
    }
    for option in &request.dns_option {
        word("dns-option", option)?;
    }
    if !request.dns_option.is_empty() {
        let _ = writeln!(text, "options {}", request.dns_option.join(" "));
    }
    if text.is_empty() {
        text.push_str("# This container has no network.\n");
    }
    Ok(text)
}
