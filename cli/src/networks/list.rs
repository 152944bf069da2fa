//! `network ls`.

use crate::args::filters::filters;
use crate::args::network::NetworkLsArgs;
use crate::engine;
use crate::output::failure::Failure;
use crate::output::format::{self, Column, Format};
use crate::output::stdout;
use hullbox_engine::networks::NETWORK_FILTERS;
use hullbox_engine::paths::short_id;
use hullbox_model::network::Inspect;
use serde_json::{Value, json};

const COLUMNS: [Column; 4] = [
    ("NETWORK ID", "ID"),
    ("NAME", "Name"),
    ("DRIVER", "Driver"),
    ("SCOPE", "Scope"),
];

pub(super) fn list(args: &NetworkLsArgs) -> Result<(), Failure> {
    let format = Format::parse(args.format.as_deref())?;
    let filters = filters(&args.filters, NETWORK_FILTERS)?;
    let found = engine::open()?.list_networks(&filters)?;
    let rows: Vec<_> = found.iter().map(|one| row(one, args.no_trunc)).collect();
    if args.quiet {
        let ids = rows.iter().filter_map(|row| row["ID"].as_str());
        return stdout::print(&ids.map(|id| format!("{id}\n")).collect::<String>());
    }
    format::rows(&rows, &COLUMNS, &format)
}

fn row(network: &Inspect, whole: bool) -> Value {
    let labels = network.labels.iter();
    let labels: Vec<_> = labels
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    json!({
        "CreatedAt": created_at(&network.created),
        "Driver": network.driver,
        "ID": if whole { &network.id } else { short_id(&network.id) },
        "IPv6": network.enable_ipv6.to_string(),
        "Internal": network.internal.to_string(),
        "Labels": labels.join(","),
        "Name": network.name,
        "Scope": network.scope,
    })
}

/// A time as Go prints one that it has not reformatted.
fn created_at(rfc3339: &str) -> String {
    let plain = rfc3339.replacen('T', " ", 1);
    let plain = plain.trim_end_matches('Z');
    let plain = match plain.contains('.') {
        true => plain.trim_end_matches('0').trim_end_matches('.'),
        false => plain,
    };
    format!("{plain} +0000 UTC")
}

#[cfg(test)]
mod tests {
    use super::created_at;
    use hullbox_model::time;

    #[test]
    fn times_are_as_go_prints_them() {
        for (ns, shown) in [
            (1_500_000_000, "1970-01-01 00:00:01.5 +0000 UTC"),
            (0, "1970-01-01 00:00:00 +0000 UTC"),
        ] {
            assert_eq!(created_at(&time::rfc3339(ns)), shown);
        }
        assert_eq!(created_at(time::NEVER), "0001-01-01 00:00:00 +0000 UTC");
    }
}
