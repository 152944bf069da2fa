//! The networks that every installation has, by Docker's names. `bridge` is each container's own.

use super::{DRIVER, SCOPE};
use crate::events::OWN_NETWORK;
use crate::plan::ipam;
use hullbox_model::network::{Inspect, Ipam};
use hullbox_model::time;

/// A network that every installation has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Builtin {
    /// A network of the container's own.
    Bridge,
    /// The host's.
    Host,
    /// None.
    None,
}

impl Builtin {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Bridge, Self::Host, Self::None];

    /// Docker's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bridge => OWN_NETWORK.0,
            Self::Host => "host",
            Self::None => "none",
        }
    }

    /// Always the same.
    #[must_use]
    pub const fn id(self) -> &'static str {
        match self {
            Self::Bridge => OWN_NETWORK.1,
            Self::Host => "27046699a034a7796784b7c12d5c39854e15b45e01589af551a944e7ba6f29de",
            Self::None => "643c2c897cc37968cffa85bf3f459f14208375efdf5a2f7133162cb7d973471b",
        }
    }

    const fn driver(self) -> &'static str {
        match self {
            Self::Bridge => DRIVER,
            Self::Host => "host",
            Self::None => "null",
        }
    }

    /// That with this name or full id.
    #[must_use]
    pub fn exactly(text: &str) -> Option<Self> {
        let is_it = |one: &Self| one.name() == text || one.id() == text;
        Self::ALL.into_iter().find(is_it)
    }

    /// That whose id begins like this.
    pub(super) fn beginning(text: &str) -> Option<Self> {
        let begins = |one: &Self| !text.is_empty() && one.id().starts_with(text);
        let mut found = Self::ALL.into_iter().filter(begins);
        found.next().filter(|_| found.next().is_none())
    }

    /// What is known of it, but for its members.
    #[must_use]
    pub fn inspect(self) -> Inspect {
        let own = self == Self::Bridge;
        Inspect {
            name: self.name().to_owned(),
            id: self.id().to_owned(),
            created: time::NEVER.to_owned(),
            scope: SCOPE.to_owned(),
            driver: self.driver().to_owned(),
            enable_ipv6: own,
            ipam: Ipam {
                driver: "default".to_owned(),
                options: None,
                config: own.then(ipam::own),
            },
            ..Inspect::default()
        }
    }
}
