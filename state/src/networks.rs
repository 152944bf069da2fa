//! Networks that containers share: their records, and the addresses of their members.
//!
//! An *endpoint* is a container's place in a network: what the container asks for there, which nobody
//! else gets as long as the container is a member, and the addresses of its last run. Those count while
//! the container has a monitor, so that nothing is to be given back when a run ends, however it ends.
//! Whatever gives addresses does so in one transaction with what it looked at.

use crate::database::{self, State};
use crate::error::StateError;
use crate::id::new_id;
use crate::record::Record;
use crate::time::now_ns;
use hullbox_model::network::Subnet;
use hullbox_plan::ContainerSpec;
use hullbox_plan::ipam::{self, Asked, IpamError, SharedNetwork, Taken};
use hullbox_plan::network::Attached;
use hullbox_protocol::Interface;
use rusqlite::{Connection, OptionalExtension, Row, Transaction, TransactionBehavior, params};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// Phases of containers whose addresses count.
const ACTIVE: &str = "'starting', 'running', 'paused', 'restarting'";

/// A network as the database knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkRecord {
    /// Full id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Nanoseconds since 1970.
    pub created_ns: i64,
    /// Everything else.
    pub network: SharedNetwork,
}

/// A container's place in a network, as of its last start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// The network's full id.
    pub network: String,
    /// 64 hexadecimal digits, others at each start.
    pub id: String,
    /// The network leads nowhere.
    pub internal: bool,
    /// The container's addresses there.
    pub interface: Interface,
}

/// Something in the tables that should not be there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stray {
    /// A network whose record cannot be understood: its id and name.
    Network(String, String),
    /// A place in a network of which one is gone: the network's id and the container's.
    Endpoint(String, String),
}

impl State {
    /// Makes a network. `make` is told the subnets of all others.
    ///
    /// # Errors
    /// [`StateError::NetworkExists`], [`StateError::Ipam`] among others; nothing was made then.
    pub fn create_network(
        &self,
        name: &str,
        make: impl FnOnce(&[Subnet]) -> Result<SharedNetwork, IpamError>,
    ) -> Result<NetworkRecord, StateError> {
        let id = new_id().map_err(|source| StateError::Random { source })?;
        // It is to be there after a power cut, like a container.
        self.database.pragma_update(None, "synchronous", "FULL")?;
        let transaction = self.begin()?;
        if id_of_name(&transaction, name)?.is_some() {
            return Err(StateError::NetworkExists(name.to_owned()));
        }
        let network = make(&subnets(&transaction)?)?;
        let record = NetworkRecord {
            id,
            name: name.to_owned(),
            created_ns: now_ns(),
            network,
        };
        transaction.execute(
            "INSERT INTO networks (id, name, created_ns, spec) VALUES (?1, ?2, ?3, ?4)",
            params![
                record.id,
                record.name,
                record.created_ns,
                to_json(&record.network)
            ],
        )?;
        transaction.commit()?;
        Ok(record)
    }

    /// One network by its full id.
    ///
    /// # Errors
    /// [`StateError::NetworkNotFound`] among others.
    pub fn network(&self, id: &str) -> Result<NetworkRecord, StateError> {
        find(&self.database, id)?.ok_or_else(|| StateError::NetworkNotFound(id.to_owned()))
    }

    /// All networks, oldest first.
    ///
    /// # Errors
    /// The database fails, or a record is damaged.
    pub fn networks(&self) -> Result<Vec<NetworkRecord>, StateError> {
        let mut statement = self
            .database
            .prepare("SELECT id, name, created_ns, spec FROM networks ORDER BY row")?;
        let rows = statement.query_map([], from_row)?;
        rows.map(|row| row?).collect()
    }

    /// Full id of the network with this name, id, or beginning of an id.
    ///
    /// # Errors
    /// [`StateError::NetworkNotFound`] and [`StateError::NetworkAmbiguous`] among others.
    pub fn resolve_network(&self, text: &str) -> Result<String, StateError> {
        let exact = self
            .database
            .query_row(
                "SELECT id FROM networks WHERE id = ?1 OR name = ?1 ORDER BY id = ?1 DESC LIMIT 1",
                [text],
                |row| row.get(0),
            )
            .optional()?;
        if let Some(id) = exact {
            return Ok(id);
        }
        let not_found = || StateError::NetworkNotFound(text.to_owned());
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(not_found());
        }
        let mut statement = self
            .database
            .prepare("SELECT id FROM networks WHERE id LIKE ?1 || '%'")?;
        let rows = statement.query_map([text], |row| row.get::<_, String>(0))?;
        let mut ids = rows.collect::<Result<Vec<_>, _>>()?;
        match (ids.len(), ids.pop()) {
            (1, Some(id)) => Ok(id),
            (0, _) => Err(not_found()),
            (count, _) => Err(StateError::NetworkAmbiguous {
                text: text.to_owned(),
                count,
            }),
        }
    }

    /// Removes a network in which no container runs, and returns its name. Containers that are to be in it
    /// will not start.
    ///
    /// # Errors
    /// [`StateError::NetworkActive`] among others.
    pub fn remove_network(&self, id: &str) -> Result<String, StateError> {
        let transaction = self.begin()?;
        let name: Option<String> = transaction
            .query_row("SELECT name FROM networks WHERE id = ?1", [id], |row| {
                row.get(0)
            })
            .optional()?;
        let name = name.ok_or_else(|| StateError::NetworkNotFound(id.to_owned()))?;
        let active: i64 = transaction.query_row(
            &format!(
                "SELECT count(*) FROM endpoints JOIN containers ON containers.id = container
                 WHERE network = ?1 AND lease IS NOT NULL AND phase IN ({ACTIVE})"
            ),
            [id],
            |row| row.get(0),
        )?;
        if active > 0 {
            let id = id.to_owned();
            return Err(StateError::NetworkActive { name, id });
        }
        transaction.execute("DELETE FROM networks WHERE id = ?1", [id])?;
        transaction.commit()?;
        Ok(name)
    }

    /// Containers that are members of a network, newest first, whether they run or not.
    ///
    /// # Errors
    /// The database fails, or a record is damaged.
    pub fn members(&self, network: &str) -> Result<Vec<Record>, StateError> {
        let mut statement = self.database.prepare(&format!(
            "SELECT {} FROM containers WHERE id IN
                 (SELECT container FROM endpoints WHERE network = ?1)
             ORDER BY row DESC",
            crate::record::COLUMNS
        ))?;
        let rows = statement.query_map([network], crate::record::from_row)?;
        rows.map(|row| row?).collect()
    }

    /// Makes a container that does not run a member of a network, from its next start on.
    ///
    /// # Errors
    /// [`StateError::Running`], [`StateError::Connected`] and [`StateError::Ipam`] among others; nothing
    /// has changed then.
    pub fn connect(&self, id: &str, attached: &Attached) -> Result<(), StateError> {
        let file = self.open_lock_file()?;
        let transaction = self.take(&file, id)?;
        let Record { name, mut spec, .. } = database::get(&transaction, id)?;
        if spec.networks.iter().any(|other| other.id == attached.id) {
            return Err(already(name, attached));
        }
        reserve(&transaction, id, attached)?;
        spec.networks.push(attached.clone());
        write_spec(&transaction, id, &spec)?;
        Ok(transaction.commit()?)
    }

    /// Changes what is kept of a container that does not run.
    ///
    /// # Errors
    /// [`StateError::Running`] among others.
    pub fn change_stopped(
        &self,
        id: &str,
        change: impl FnOnce(&mut ContainerSpec),
    ) -> Result<(), StateError> {
        let file = self.open_lock_file()?;
        let transaction = self.take(&file, id)?;
        let mut spec = database::get(&transaction, id)?.spec;
        change(&mut spec);
        write_spec(&transaction, id, &spec)?;
        Ok(transaction.commit()?)
    }

    /// The opposite of [`Self::connect`]; the network may be gone.
    ///
    /// # Errors
    /// [`StateError::Running`], [`StateError::NotConnected`] among others.
    pub fn disconnect(&self, id: &str, network: &str) -> Result<(), StateError> {
        let file = self.open_lock_file()?;
        let transaction = self.take(&file, id)?;
        leave(&transaction, id, network)?;
        Ok(transaction.commit()?)
    }

    /// Makes a container that runs a member of a network, with addresses from now on.
    ///
    /// # Errors
    /// [`StateError::Connected`] and [`StateError::Ipam`] among others; nothing has changed then.
    pub fn connect_running(&self, id: &str, attached: &Attached) -> Result<Endpoint, StateError> {
        let transaction = self.begin()?;
        let Record { name, mut spec, .. } = database::get(&transaction, id)?;
        if spec.networks.iter().any(|other| other.id == attached.id) {
            return Err(already(name, attached));
        }
        reserve(&transaction, id, attached)?;
        let endpoint = lease(&transaction, id, attached)?;
        spec.networks.push(attached.clone());
        write_spec(&transaction, id, &spec)?;
        transaction.commit()?;
        Ok(endpoint)
    }

    /// Takes a container that runs out of a network: its addresses there are free again.
    ///
    /// # Errors
    /// [`StateError::NotConnected`] among others.
    pub fn disconnect_running(&self, id: &str, network: &str) -> Result<(), StateError> {
        let transaction = self.begin()?;
        leave(&transaction, id, network)?;
        Ok(transaction.commit()?)
    }

    /// What is left in the tables of networks and containers that are gone, or cannot be understood.
    /// With `repair` it is removed.
    ///
    /// # Errors
    /// The database fails.
    pub fn stray_networks(&self, repair: bool) -> Result<Vec<Stray>, StateError> {
        let transaction = self.begin()?;
        let stray = strays(&transaction)?;
        if repair {
            for one in &stray {
                match one {
                    Stray::Network(id, _) => {
                        transaction.execute("DELETE FROM networks WHERE id = ?1", [id])?
                    }
                    Stray::Endpoint(network, container) => transaction.execute(
                        "DELETE FROM endpoints WHERE network = ?1 AND container = ?2",
                        [network, container],
                    )?,
                };
            }
        }
        transaction.commit()?;
        Ok(stray)
    }

    fn begin(&self) -> Result<Transaction<'_>, StateError> {
        let behavior = TransactionBehavior::Immediate;
        Ok(Transaction::new_unchecked(&self.database, behavior)?)
    }
}

fn strays(database: &Connection) -> Result<Vec<Stray>, StateError> {
    let mut stray = Vec::new();
    let mut statement = database.prepare("SELECT id, name, spec FROM networks ORDER BY row")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let spec: String = row.get(2)?;
        if serde_json::from_str::<SharedNetwork>(&spec).is_err() {
            stray.push(Stray::Network(row.get(0)?, row.get(1)?));
        }
    }
    let mut statement = database.prepare(
        "SELECT network, container FROM endpoints
         WHERE network NOT IN (SELECT id FROM networks)
             OR container NOT IN (SELECT id FROM containers)",
    )?;
    let rows = statement.query_map([], |row| Ok(Stray::Endpoint(row.get(0)?, row.get(1)?)))?;
    for row in rows {
        stray.push(row?);
    }
    Ok(stray)
}

/// Makes a new container a member of the networks that its specification names.
pub(crate) fn join(
    transaction: &Transaction<'_>,
    id: &str,
    spec: &ContainerSpec,
) -> Result<(), StateError> {
    for attached in &spec.networks {
        reserve(transaction, id, attached)?;
    }
    Ok(())
}

/// Gives a container that is about to start its addresses in each of its networks, in their order.
pub(crate) fn lease_all(
    transaction: &Transaction<'_>,
    id: &str,
    spec: &ContainerSpec,
) -> Result<Vec<Endpoint>, StateError> {
    let all = spec.networks.iter();
    all.map(|attached| lease(transaction, id, attached))
        .collect()
}

/// Sets apart what a member asks for.
fn reserve(transaction: &Transaction<'_>, id: &str, attached: &Attached) -> Result<(), StateError> {
    let network = network_of(transaction, attached)?;
    let asked = attached.asked();
    let taken = taken(transaction, &attached.id, id)?;
    asked.check(&network.network, &taken)?;
    transaction.execute(
        "INSERT INTO endpoints (network, container, asked) VALUES (?1, ?2, ?3)",
        params![attached.id, id, to_json(&asked)],
    )?;
    Ok(())
}

fn lease(
    transaction: &Transaction<'_>,
    id: &str,
    attached: &Attached,
) -> Result<Endpoint, StateError> {
    let network = network_of(transaction, attached)?;
    let taken = taken(transaction, &attached.id, id)?;
    let interface = ipam::lease(&network.network, &attached.asked(), &taken);
    let interface = interface.map_err(|error| match error {
        IpamError::NoneLeft(family) => StateError::NoAddress {
            family,
            name: network.name.clone(),
            id: network.id.clone(),
        },
        error => error.into(),
    })?;
    let endpoint = Endpoint {
        network: network.id,
        id: new_id().map_err(|source| StateError::Random { source })?,
        internal: network.network.internal,
        interface,
    };
    transaction.execute(
        "INSERT INTO endpoints (network, container, asked, lease) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (network, container) DO UPDATE SET lease = excluded.lease",
        params![
            endpoint.network,
            id,
            to_json(&attached.asked()),
            to_json(&endpoint)
        ],
    )?;
    Ok(endpoint)
}

/// The network that a container is to be in. One that was made anew under the same name is another one.
fn network_of(database: &Connection, attached: &Attached) -> Result<NetworkRecord, StateError> {
    match find(database, &attached.id)? {
        Some(network) => Ok(network),
        None => {
            let again = id_of_name(database, &attached.name)?.is_some();
            let text = if again { &attached.id } else { &attached.name };
            Err(StateError::NetworkNotFound(text.clone()))
        }
    }
}

/// What the other members of a network have and have set apart.
fn taken(database: &Connection, network: &str, id: &str) -> Result<Taken, StateError> {
    let mut statement = database.prepare_cached(&format!(
        "SELECT asked, CASE WHEN phase IN ({ACTIVE}) THEN lease END
         FROM endpoints JOIN containers ON containers.id = container
         WHERE network = ?1 AND container != ?2"
    ))?;
    let mut rows = statement.query([network, id])?;
    let mut taken = Taken::default();
    while let Some(row) = rows.next()? {
        let asked: String = row.get(0)?;
        // What cannot be understood keeps nobody from anything.
        if let Ok(asked) = serde_json::from_str::<Asked>(&asked) {
            taken.addresses.extend(asked.addresses());
            taken.macs.extend(asked.mac.map(|mac| mac.0));
        }
        let lease: Option<String> = row.get(1)?;
        let lease = lease.and_then(|text| serde_json::from_str::<Endpoint>(&text).ok());
        if let Some(Endpoint { interface, .. }) = lease {
            taken.macs.insert(interface.mac);
            let ipv4 = interface.ipv4.map(|ipv4| IpAddr::from(ipv4.address));
            let ipv6 = interface.ipv6.map(|ipv6| IpAddr::from(ipv6.address));
            taken.addresses.extend(ipv4.into_iter().chain(ipv6));
        }
    }
    Ok(taken)
}

/// Ends a membership.
fn leave(transaction: &Transaction<'_>, id: &str, network: &str) -> Result<(), StateError> {
    let mut spec = database::get(transaction, id)?.spec;
    let before = spec.networks.len();
    spec.networks.retain(|attached| attached.id != network);
    if spec.networks.len() == before {
        return Err(StateError::NotConnected {
            container: id.to_owned(),
            network: network.to_owned(),
        });
    }
    transaction.execute(
        "DELETE FROM endpoints WHERE network = ?1 AND container = ?2",
        [network, id],
    )?;
    write_spec(transaction, id, &spec)
}

fn already(container: String, attached: &Attached) -> StateError {
    StateError::Connected {
        container,
        network: attached.name.clone(),
    }
}

pub(crate) fn write_spec(
    database: &Connection,
    id: &str,
    spec: &ContainerSpec,
) -> Result<(), StateError> {
    let spec = serde_json::to_string(spec).map_err(|source| StateError::Damaged {
        id: id.to_owned(),
        source,
    })?;
    database.execute(
        "UPDATE containers SET spec = ?2 WHERE id = ?1",
        params![id, spec],
    )?;
    Ok(())
}

/// The subnets of all networks. A record that cannot be understood has none.
fn subnets(database: &Connection) -> Result<Vec<Subnet>, StateError> {
    let mut statement = database.prepare("SELECT spec FROM networks")?;
    let rows = statement.query_map([], |row| row.get::<_, String>(0))?;
    let mut all = Vec::new();
    for row in rows {
        if let Ok(network) = serde_json::from_str::<SharedNetwork>(&row?) {
            all.extend(network.pools().map(|pool| pool.subnet));
        }
    }
    Ok(all)
}

fn id_of_name(database: &Connection, name: &str) -> Result<Option<String>, StateError> {
    Ok(database
        .query_row("SELECT id FROM networks WHERE name = ?1", [name], |row| {
            row.get(0)
        })
        .optional()?)
}

fn find(database: &Connection, id: &str) -> Result<Option<NetworkRecord>, StateError> {
    database
        .query_row(
            "SELECT id, name, created_ns, spec FROM networks WHERE id = ?1",
            [id],
            from_row,
        )
        .optional()?
        .transpose()
}

fn from_row(row: &Row<'_>) -> rusqlite::Result<Result<NetworkRecord, StateError>> {
    let name: String = row.get(1)?;
    let spec: String = row.get(3)?;
    let network = match serde_json::from_str(&spec) {
        Ok(network) => network,
        Err(source) => return Ok(Err(StateError::NetworkDamaged { name, source })),
    };
    Ok(Ok(NetworkRecord {
        id: row.get(0)?,
        name,
        created_ns: row.get(2)?,
        network,
    }))
}

/// Of plain data, which always can.
fn to_json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

#[cfg(test)]
mod tests;
