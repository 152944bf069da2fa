//! Putting containers into networks, and taking them out. What runs is changed by its monitor, and
//! recorded here.

use super::start::{membership, names};
use super::{Builtin, Found, NetworksError};
use crate::containers::{ContainerError, Engine};
use crate::events;
use crate::monitor::control::Command;
use crate::plan::PlanError;
use crate::plan::network::{Attached, Attachment, Known, own_interface};
use crate::state::{NetworkRecord, Record, StateError};
use hullbox_backend::network::{Membership, Network};
use hullbox_model::event::{Verb, attribute};
use hullbox_protocol::{Interface, NameFiles};

impl Engine {
    /// Puts a container into a network. `typed` is what was typed of its place there.
    ///
    /// # Errors
    /// [`ContainerError`]; it is not in it then.
    pub fn connect_network(
        &mut self,
        network: &str,
        container: &str,
        typed: &Attachment,
    ) -> Result<(), ContainerError> {
        let record = self.find(container)?;
        let found = self.find_network(network)?;
        check_mode(&record, &found)?;
        match found {
            Found::Builtin(_) => self.connect_own(&record, typed),
            Found::Shared(network) => {
                let attached = Attached::new(&known(*network), typed);
                let attached = attached.map_err(PlanError::from)?;
                self.connect_shared(&record, &attached)
            }
        }
    }

    fn connect_shared(&self, record: &Record, attached: &Attached) -> Result<(), ContainerError> {
        match self.state.connect(&record.id, attached) {
            Err(StateError::Running(_)) => {}
            other => return Ok(other?),
        }
        // Its addresses first: nobody else gets them meanwhile.
        let endpoint = self.state.connect_running(&record.id, attached)?;
        let place = membership(record, attached, &endpoint);
        let interface = endpoint.interface;
        let joined = self.state.get(&record.id);
        let names = joined.as_ref().map(names).unwrap_or_default();
        if let Err(error) = self.ask_to_connect(record, Some(place), interface, names) {
            // The first error is the one to report.
            let _ = self.state.disconnect_running(&record.id, &attached.id);
            return Err(error);
        }
        self.note_membership(record, &attached.id, &attached.name, Verb::Connect);
        Ok(())
    }

    /// Gives a container its own network back.
    fn connect_own(&mut self, record: &Record, typed: &Attachment) -> Result<(), ContainerError> {
        if !typed.aliases.is_empty() {
            return Err(NetworksError::OwnOnly("network-scoped alias").into());
        }
        if typed.ipv4.is_some() || typed.ipv6.is_some() {
            return Err(NetworksError::OwnOnly("user specified IP address").into());
        }
        if !record.spec.setup.interfaces.is_empty() {
            let network = Builtin::Bridge.name().to_owned();
            let container = record.name.clone();
            return Err(StateError::Connected { container, network }.into());
        }
        let own = own_interface(&record.id, typed.mac_address);
        let kept = own.clone();
        let change = |spec: &mut crate::plan::ContainerSpec| spec.setup.interfaces = vec![kept];
        match self.state.change_stopped(&record.id, change.clone()) {
            Err(StateError::Running(_)) => {}
            other => return Ok(other?),
        }
        let mut joined = record.clone();
        change.clone()(&mut joined.spec);
        self.ask_to_connect(record, None, own, names(&joined))?;
        Ok(self.state.change_spec(&record.id, change)?)
    }

    /// Its interface is the last one, and the way out where no other is.
    fn ask_to_connect(
        &self,
        record: &Record,
        membership: Option<Membership>,
        mut interface: Interface,
        names: NameFiles,
    ) -> Result<(), ContainerError> {
        let others = record.spec.networks.len() + record.spec.setup.interfaces.len();
        let metric = u32::try_from(others).unwrap_or(u32::MAX);
        interface.route_metric = interface.route_metric.map(|_| metric);
        let command = Command::Connect {
            membership: membership.map(Box::new),
            interface: Box::new(interface),
            names: Box::new(names),
        };
        self.command(record, &command)
    }

    /// Takes a container out of a network, which may be gone.
    ///
    /// # Errors
    /// [`ContainerError`].
    pub fn disconnect_network(
        &mut self,
        network: &str,
        container: &str,
    ) -> Result<(), ContainerError> {
        let record = self.find(container)?;
        let not_connected = |network: &str| NetworksError::NotConnected {
            container: record.id.clone(),
            network: network.to_owned(),
        };
        if record.spec.network == Network::Host {
            return Err(NetworksError::Host.into());
        }
        let mut networks = record.spec.networks.iter();
        let its = networks.find(|one| one.name == network || one.id == network);
        let its = its.map(|attached| (attached.id.clone(), attached.name.clone()));
        let (id, name) = match (self.find_network(network), its) {
            (Ok(Found::Builtin(Builtin::Bridge)), _) => {
                return self.disconnect_own(&record, &not_connected("bridge"));
            }
            (Ok(Found::Builtin(builtin)), _) => return Err(not_connected(builtin.name()).into()),
            (Ok(Found::Shared(network)), _) => (network.id, network.name),
            (Err(_), Some(gone)) => gone,
            (Err(error), None) => return Err(error),
        };
        if !record.spec.networks.iter().any(|one| one.id == id) {
            return Err(not_connected(&name).into());
        }
        match self.state.disconnect(&record.id, &id) {
            Err(StateError::Running(_)) => {}
            other => return Ok(other?),
        }
        let mut left = record.clone();
        left.spec.networks.retain(|one| one.id != id);
        left.endpoints.retain(|endpoint| endpoint.network != id);
        let command = Command::Disconnect {
            network: Some(id.clone()),
            names: Box::new(names(&left)),
        };
        self.command(&record, &command)?;
        // From here on others may have its addresses.
        self.state.disconnect_running(&record.id, &id)?;
        self.note_membership(&record, &id, &name, Verb::Disconnect);
        Ok(())
    }

    fn disconnect_own(
        &mut self,
        record: &Record,
        not_connected: &NetworksError,
    ) -> Result<(), ContainerError> {
        let is_own = matches!(record.spec.network, Network::User(_));
        if !is_own || record.spec.setup.interfaces.is_empty() {
            return Err(not_connected.clone().into());
        }
        let change = |spec: &mut crate::plan::ContainerSpec| spec.setup.interfaces.clear();
        match self.state.change_stopped(&record.id, change) {
            Err(StateError::Running(_)) => {}
            other => return Ok(other?),
        }
        let mut left = record.clone();
        change(&mut left.spec);
        let command = Command::Disconnect {
            network: None,
            names: Box::new(names(&left)),
        };
        self.command(record, &command)?;
        Ok(self.state.change_spec(&record.id, change)?)
    }

    fn note_membership(&self, record: &Record, id: &str, name: &str, verb: Verb) {
        let event = events::network_event(id, name, verb);
        let event = event.with(attribute::CONTAINER, record.id.as_str());
        events::emit_all(self.roots(), &[event]);
    }
}

/// The network as a plan is told of it.
pub(crate) fn known(record: NetworkRecord) -> Known {
    Known {
        id: record.id,
        name: record.name,
        network: record.network,
    }
}

/// Whether a container's network leaves room for another one.
fn check_mode(record: &Record, found: &Found) -> Result<(), NetworksError> {
    match (&record.spec.network, found) {
        (_, Found::Builtin(Builtin::Host)) | (Network::Host, _) => Err(NetworksError::Host),
        (Network::Container(_), _) => Err(NetworksError::Shares),
        (_, Found::Builtin(Builtin::None)) | (Network::None, _) => Err(NetworksError::Private),
        (Network::User(_), _) => Ok(()),
    }
}
