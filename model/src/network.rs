//! A network that containers share, in the shape of Docker's `/networks/ID`.

mod subnet;

pub use subnet::{Subnet, SubnetError};

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// All that is known of a network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Inspect {
    /// Its name.
    #[serde(rename = "Name")]
    pub name: String,
    /// 64 hexadecimal digits.
    #[serde(rename = "Id")]
    pub id: String,
    /// When it was made, in RFC 3339's form.
    #[serde(rename = "Created")]
    pub created: String,
    /// Always `local`.
    #[serde(rename = "Scope")]
    pub scope: String,
    /// `bridge`; of those that every installation has also `host` and `null`.
    #[serde(rename = "Driver")]
    pub driver: String,
    /// Its members have IPv6 addresses, too.
    #[serde(rename = "EnableIPv6")]
    pub enable_ipv6: bool,
    /// Its addresses.
    #[serde(rename = "IPAM")]
    pub ipam: Ipam,
    /// Its members reach one another and nothing else.
    #[serde(rename = "Internal")]
    pub internal: bool,
    /// As it was asked for; every network can be joined at any time.
    #[serde(rename = "Attachable")]
    pub attachable: bool,
    /// Always false.
    #[serde(rename = "Ingress")]
    pub ingress: bool,
    /// Always of none.
    #[serde(rename = "ConfigFrom")]
    pub config_from: ConfigReference,
    /// Always false.
    #[serde(rename = "ConfigOnly")]
    pub config_only: bool,
    /// The members that run, by their full ids.
    #[serde(rename = "Containers")]
    pub containers: BTreeMap<String, Member>,
    /// Options of its driver.
    #[serde(rename = "Options")]
    pub options: BTreeMap<String, String>,
    /// Labels.
    #[serde(rename = "Labels")]
    pub labels: BTreeMap<String, String>,
}

/// A network's addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Ipam {
    /// Always `default`.
    pub driver: String,
    /// Options of that driver: there are none. `null` unless some subnet was asked for, as in Docker.
    pub options: Option<BTreeMap<String, String>>,
    /// One of each family.
    pub config: Option<Vec<IpamConfig>>,
}

/// The addresses of one family.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct IpamConfig {
    /// All of them.
    #[serde(rename = "Subnet", skip_serializing_if = "String::is_empty")]
    pub subnet: String,
    /// Those that members get which ask for none.
    #[serde(rename = "IPRange", skip_serializing_if = "String::is_empty")]
    pub ip_range: String,
    /// The router's; empty where a subnet was asked for without it, as in Docker.
    #[serde(rename = "Gateway", skip_serializing_if = "String::is_empty")]
    pub gateway: String,
    /// Those that no member gets, by name.
    #[serde(
        rename = "AuxiliaryAddresses",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub auxiliary_addresses: BTreeMap<String, String>,
}

/// The network whose configuration another one has.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ConfigReference {
    /// Its name.
    pub network: String,
}

/// A member of a network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Member {
    /// The container's name.
    #[serde(rename = "Name")]
    pub name: String,
    /// 64 hexadecimal digits.
    #[serde(rename = "EndpointID")]
    pub endpoint_id: String,
    /// Hardware address.
    #[serde(rename = "MacAddress")]
    pub mac_address: String,
    /// IPv4 address with the length of its prefix.
    #[serde(rename = "IPv4Address")]
    pub ipv4_address: String,
    /// IPv6 address with the length of its prefix.
    #[serde(rename = "IPv6Address")]
    pub ipv6_address: String,
}

/// What `network prune` did, as `/networks/prune` answers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct NetworksPruned {
    /// Names.
    pub networks_deleted: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_dockers_object() {
        let network = Inspect {
            name: "n".to_owned(),
            ipam: Ipam {
                driver: "default".to_owned(),
                options: Some(BTreeMap::new()),
                config: Some(vec![IpamConfig {
                    subnet: "172.18.0.0/16".to_owned(),
                    gateway: "172.18.0.1".to_owned(),
                    ..IpamConfig::default()
                }]),
            },
            containers: BTreeMap::from([("ab".to_owned(), Member::default())]),
            ..Inspect::default()
        };
        let text = serde_json::to_string(&network).unwrap();
        assert_eq!(
            text,
            r#"{"Name":"n","Id":"","Created":"","Scope":"","Driver":"","EnableIPv6":false,"IPAM":{"Driver":"default","Options":{},"Config":[{"Subnet":"172.18.0.0/16","Gateway":"172.18.0.1"}]},"Internal":false,"Attachable":false,"Ingress":false,"ConfigFrom":{"Network":""},"ConfigOnly":false,"Containers":{"ab":{"Name":"","EndpointID":"","MacAddress":"","IPv4Address":"","IPv6Address":""}},"Options":{},"Labels":{}}"#
        );
        assert_eq!(serde_json::from_str::<Inspect>(&text).unwrap(), network);
    }
}
