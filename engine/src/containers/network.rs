//! What containers have to do with each other's networks and the host's, and what the configuration file
//! says of them.

use super::{ContainerError, Engine};
use crate::bundle::Bundle;
use crate::networks::{self, Found, known};
use crate::plan::network::{Egress, Joined, Mode, NetworkRequest};
use crate::plan::share_host;
use crate::state::{Phase, Record, StateError};
use hullbox_backend::network::Network;
use hullbox_protocol::Setup;
use serde::Deserialize;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Longest hosts file or resolver configuration of the host that a container shares, in bytes. What is
/// beyond is cut off.
const MAX_FILE: u64 = 256 * 1024;

/// The table `network` of the configuration file.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Section {
    /// `--egress` of containers that are made without one.
    egress: Option<Egress>,
}

impl Engine {
    /// Looks up what a request for a network leaves open: the container whose network is joined, and the
    /// configured default of `--egress`. `starts`: the container is to run at once.
    pub(super) fn look_up_network(
        &self,
        asked: &mut NetworkRequest,
        starts: bool,
    ) -> Result<(), ContainerError> {
        if let Some(name) = asked.target() {
            let record = self.find(name)?;
            if starts {
                check_runs(&record)?;
            }
            let mut setup = record.spec.setup.clone();
            self.share(&mut setup, &record);
            if !record.spec.networks.is_empty() {
                networks::join(&mut setup, &record);
            }
            asked.joined = Some(Joined {
                isolation: record.spec.isolation,
                hostname: setup.hostname,
                etc_hosts: setup.etc_hosts,
                etc_resolv_conf: setup.etc_resolv_conf,
                id: record.id,
            });
        }
        // What is missing is told by the plan, behind what does not go together.
        let mut found = Vec::new();
        for name in asked.names() {
            match self.find_network(name) {
                Ok(Found::Shared(record)) => found.push(known(*record)),
                Ok(Found::Builtin(_))
                | Err(ContainerError::State(StateError::NetworkNotFound(_))) => break,
                Err(error) => return Err(error),
            }
        }
        asked.known = found;
        // Only what leaves such a network passes by a policy.
        if asked.egress.is_none() && matches!(asked.mode(), Mode::User | Mode::Named(_)) {
            let section: Section = crate::config::file()?.table("network")?;
            asked.egress = section.egress;
        }
        Ok(())
    }

    /// Whether a container that is to be started has the network that it shares.
    pub(super) fn check_network(&self, record: &Record) -> Result<(), ContainerError> {
        match &record.spec.network {
            Network::Container(id) => check_runs(&self.find(id)?),
            _ => Ok(()),
        }
    }

    /// Gives a container that shares a network the files that go with it, as they are now.
    pub(super) fn share_network(&self, bundle: &mut Bundle, record: &Record) {
        self.share(&mut bundle.setup, record);
    }

    fn share(&self, setup: &mut Setup, record: &Record) {
        match &record.spec.network {
            Network::None | Network::User(_) => {}
            Network::Host => {
                let (hosts, resolver) = (read("/etc/hosts"), read("/etc/resolv.conf"));
                share_host(setup, &record.spec.typed, &hosts, &resolver);
            }
            Network::Container(id) => {
                // One that is gone fails the start, in words of its own.
                let Ok(other) = self.state.get(id) else {
                    return;
                };
                let mut shared = other.spec.setup.clone();
                match &other.spec.network {
                    Network::Host => self.share(&mut shared, &other),
                    Network::User(_) if !other.spec.networks.is_empty() => {
                        networks::join(&mut shared, &other);
                    }
                    _ => {}
                }
                setup.etc_hosts = shared.etc_hosts;
                setup.etc_resolv_conf = shared.etc_resolv_conf;
            }
        }
    }
}

fn check_runs(record: &Record) -> Result<(), ContainerError> {
    match record.phase {
        Phase::Running | Phase::Paused => Ok(()),
        Phase::Restarting => Err(ContainerError::JoinRestarting(record.id.clone())),
        _ => Err(ContainerError::JoinStopped(record.id.clone())),
    }
}

/// A file of the host; empty where it cannot be read.
fn read(path: impl AsRef<Path>) -> String {
    let mut bytes = Vec::new();
    let file = File::open(path).and_then(|file| file.take(MAX_FILE).read_to_end(&mut bytes));
    match file {
        Ok(_) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(_) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::File;

    fn section(text: &str) -> Result<Section, crate::config::FileError> {
        File::new("/c".into(), text.to_owned()).table("network")
    }

    #[test]
    fn the_default_of_egress_is_configured() {
        let egress = |text: &str| {
            let egress = section(text).unwrap().egress;
            egress.map(String::from)
        };
        assert_eq!(egress(""), None);
        assert_eq!(
            egress("[network]\negress = \"all:443\"\n").as_deref(),
            Some("all:443")
        );
        for wrong in ["egress = \"host\"", "egres = \"all\"", "egress = 1"] {
            assert!(
                section(&format!("[network]\n{wrong}\n")).is_err(),
                "{wrong}"
            );
        }
    }
}
