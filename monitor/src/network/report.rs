//! What a container was refused, for whoever asks.

use super::served::Served;
use hullbox_model::container::{Refused, RefusedTarget};
use hullbox_model::time;
use hullbox_netproc::Counts;

/// Of all its networks.
pub(super) fn of(places: &[Served]) -> Refused {
    let mut all = Refused::default();
    for served in places {
        add(&mut all, served.network(), &served.counts());
    }
    all.targets.sort_by(|a, b| a.first.cmp(&b.first));
    all
}

fn add(all: &mut Refused, network: Option<&str>, counts: &Counts) {
    let others = counts.refused_datagrams + counts.refused_echoes;
    all.connections += counts.refused.saturating_sub(others);
    all.datagrams += counts.refused_datagrams;
    all.echoes += counts.refused_echoes;
    all.names += counts.refused_names;
    all.spoofed += counts.spoofed;
    all.malformed += counts.malformed;
    all.limited += counts.limited;
    let targets = counts.targets.iter().map(|refusal| RefusedTarget {
        target: refusal.target.clone(),
        network: network.unwrap_or_default().to_owned(),
        reason: refusal.reason.clone(),
        rule: refusal.rule.clone(),
        count: refusal.count,
        first: time::rfc3339(refusal.first_ns),
    });
    all.targets.extend(targets);
}
