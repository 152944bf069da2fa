//! The container that goes on from a snapshot.

use super::error::PlanError;
use super::network;
use super::request::RunRequest;
use super::spec::ContainerSpec;
use super::units::check_hostname;
use hullbox_host::paths::{machine_id, short_id};

/// The container that was saved (`spec`, of the container `saved_id`), under names of its own. Of the request, what a workload that runs
/// already leaves open counts: host name, labels, who ends its input, ports that are published and
/// where it may connect to, and whether the container is removed in the end.
///
/// # Errors
/// [`PlanError::Value`], [`PlanError::Network`].
pub fn copy(
    id: &str,
    request: RunRequest,
    mut spec: ContainerSpec,
    saved_id: &str,
) -> Result<ContainerSpec, PlanError> {
    // Before the name changes, which an older record tells its default by.
    spec.configured = Some(spec.configured().into_owned());
    network::copy(id, &request, &mut spec)?;
    let setup = &mut spec.setup;
    let hostname = match request.hostname {
        Some(name) => {
            check_hostname(&name).map_err(|source| PlanError::Value {
                flag: "hostname",
                source,
            })?;
            name
        }
        None if setup.hostname == short_id(saved_id) => short_id(id).to_owned(),
        None => setup.hostname.clone(),
    };
    setup.etc_hosts = renamed(&setup.etc_hosts, &setup.hostname, &hostname);
    setup.etc_hostname = format!("{hostname}\n");
    setup.hostname = hostname;
    setup.machine_id = machine_id(id).to_owned();
    setup.persist = !request.auto_remove;
    // The workload has the environment that it was saved with; the next run of it has this one.
    spec.process.env = spec.environment(spec.process.terminal.is_some());
    spec.auto_remove = request.auto_remove;
    spec.life.stdin_once = request.life.stdin_once;
    spec.typed.detached = request.detached;
    spec.labels
        .extend(request.labels.into_iter().map(|l| (l.key, l.value)));
    Ok(spec)
}

/// A hosts file in which a name was replaced.
fn renamed(hosts: &str, old: &str, new: &str) -> String {
    let line = |line: &str| {
        let words = line
            .split('\t')
            .map(|word| if word == old { new } else { word });
        words.collect::<Vec<_>>().join("\t")
    };
    hosts.split('\n').map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_replaced_where_it_is_the_whole_word() {
        assert_eq!(
            renamed(
                "127.0.0.1\tlocalhost\n127.0.1.1\tab\n10.0.0.1\tabc\n",
                "ab",
                "xyz"
            ),
            "127.0.0.1\tlocalhost\n127.0.1.1\txyz\n10.0.0.1\tabc\n"
        );
    }
}
