//! Which addresses a new network has.

use super::{IpamError, Pool, TypedPool};
use hullbox_model::network::{Subnet, SubnetError};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What `network create` is told of addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PoolRequest {
    /// `--subnet`, each one.
    pub subnets: Vec<String>,
    /// `--ip-range`, each one.
    pub ranges: Vec<String>,
    /// `--gateway`, each one.
    pub gateways: Vec<String>,
    /// `--aux-address`: name and address.
    pub auxiliary: Vec<(String, String)>,
    /// `--ipv6`.
    pub ipv6: bool,
}

/// Decides: the IPv4 pool, and one of IPv6 if it is asked for. `taken` are the subnets of other networks;
/// of those that nobody typed a subnet for, also none of `avoided` is used. `random` is for a range of
/// unique local addresses (RFC 4193).
///
/// # Errors
/// [`IpamError`].
pub fn pools(
    request: &PoolRequest,
    taken: &[Subnet],
    avoided: &[Subnet],
    random: [u8; 7],
) -> Result<(Pool, Option<Pool>), IpamError> {
    let typed = typed(request)?;
    let overlaps = |pool: &Pool| taken.iter().any(|other| pool.subnet.overlaps(*other));
    if typed.iter().any(overlaps) {
        return Err(IpamError::Overlaps);
    }
    let (ipv6, ipv4): (Vec<_>, Vec<_>) = typed.into_iter().partition(|p| p.subnet.is_ipv6());
    if ipv4.len() > 1 || ipv6.len() > 1 {
        return Err(IpamError::Several);
    }
    let ipv4 = match ipv4.into_iter().next() {
        Some(pool) => pool,
        None => default_ipv4(taken, avoided).ok_or(IpamError::Exhausted)?,
    };
    let ipv6 = match ipv6.into_iter().next() {
        None if request.ipv6 => unique_local(random).and_then(Pool::of_default),
        typed => typed,
    };
    Ok((ipv4, ipv6))
}

/// A pool for each subnet that was typed.
fn typed(request: &PoolRequest) -> Result<Vec<Pool>, IpamError> {
    let count = request.subnets.len();
    if count < request.ranges.len() || count < request.gateways.len() {
        return Err(IpamError::NoSubnet);
    }
    let mut drafts: Vec<Draft> = Vec::new();
    for text in &request.subnets {
        let subnet = range("subnet", text)?;
        if drafts.iter().any(|other| other.subnet.overlaps(subnet)) {
            return Err(IpamError::Overlapping);
        }
        check_hosts(text, subnet)?;
        drafts.push(Draft::of(subnet));
    }
    for text in &request.ranges {
        let range = range("ip-range", text)?;
        let draft = draft_of(&mut drafts, range.first(), "range", text)?;
        if range.prefix() < draft.subnet.prefix() {
            let why = format!(
                "CIDR block is bigger than its parent subnet {}",
                draft.subnet
            );
            return Err(invalid("ip-range", text, why));
        }
        once(&mut draft.range, range, "range", draft.subnet)?;
    }
    for text in &request.gateways {
        let gateway = address("gateway", text)?;
        let draft = draft_of(&mut drafts, gateway, "gateway", text)?;
        once(&mut draft.gateway, gateway, "gateway", draft.subnet)?;
    }
    for (name, text) in &request.auxiliary {
        let address = address("auxiliary address", text)?;
        let draft = draft_of(&mut drafts, address, "aux-address", text)?;
        draft.auxiliary.insert(name.clone(), address);
    }
    drafts.into_iter().map(Draft::finish).collect()
}

/// A pool that is being read.
struct Draft {
    subnet: Subnet,
    range: Option<Subnet>,
    gateway: Option<IpAddr>,
    auxiliary: BTreeMap<String, IpAddr>,
}

impl Draft {
    fn of(subnet: Subnet) -> Self {
        Self {
            subnet,
            range: None,
            gateway: None,
            auxiliary: BTreeMap::new(),
        }
    }

    /// The gateway is the first address unless another one was typed.
    fn finish(self) -> Result<Pool, IpamError> {
        let family = if self.subnet.is_ipv6() { 6 } else { 4 };
        let default = Pool::of_default(self.subnet).ok_or(IpamError::NoneLeft(family))?;
        let mut pool = Pool {
            range: self.range,
            gateway: self.gateway.unwrap_or(default.gateway),
            typed: TypedPool {
                subnet: true,
                gateway: self.gateway.is_some(),
            },
            ..default
        };
        if !pool.is_hosts(pool.gateway) {
            let (what, address) = ("gateway", pool.gateway.to_string());
            return Err(IpamError::Reserved { what, address });
        }
        for (name, address) in self.auxiliary {
            if !pool.is_members(address) {
                let what = "secondary ip address";
                let address = format!("{name}:{address}");
                return Err(IpamError::Reserved { what, address });
            }
            pool.auxiliary.insert(name, address);
        }
        Ok(pool)
    }
}

fn range(what: &'static str, text: &str) -> Result<Subnet, IpamError> {
    text.parse()
        .map_err(|error: SubnetError| invalid(what, text, error.to_string()))
}

fn address(what: &'static str, text: &str) -> Result<IpAddr, IpamError> {
    text.parse()
        .map_err(|_| invalid(what, text, "invalid address".to_owned()))
}

fn invalid(what: &'static str, text: &str, why: String) -> IpamError {
    let text = text.to_owned();
    IpamError::Invalid { what, text, why }
}

/// The subnet that an address is in.
fn draft_of<'a>(
    drafts: &'a mut [Draft],
    address: IpAddr,
    what: &'static str,
    text: &str,
) -> Result<&'a mut Draft, IpamError> {
    let mut drafts = drafts.iter_mut();
    let found = drafts.find(|draft| draft.subnet.contains(address));
    found.ok_or_else(|| {
        let text = text.to_owned();
        IpamError::NoMatch { what, text }
    })
}

fn once<T: ToString + Copy>(
    place: &mut Option<T>,
    value: T,
    what: &'static str,
    subnet: Subnet,
) -> Result<(), IpamError> {
    match place.replace(value) {
        None => Ok(()),
        Some(first) => Err(IpamError::Twice {
            what,
            first: first.to_string(),
            second: value.to_string(),
            subnet,
        }),
    }
}

/// Ranges in which no host has an address, or only this one: loopback, multicast, unspecified, and mapped
/// IPv4 addresses.
fn check_hosts(text: &str, subnet: Subnet) -> Result<(), IpamError> {
    let v4 = |a, prefix| (IpAddr::from(Ipv4Addr::new(a, 0, 0, 0)), prefix);
    let v6 = |first: Ipv6Addr, prefix| (IpAddr::from(first), prefix);
    let special = [
        v4(0, 8),
        v4(127, 8),
        v4(224, 3),
        v6(Ipv6Addr::UNSPECIFIED, 8),
        v6(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8),
    ];
    let mut special = special
        .into_iter()
        .filter_map(|(first, prefix)| Subnet::around(first, prefix));
    match special.find(|special| special.overlaps(subnet)) {
        Some(special) => {
            let why = format!("hosts have no addresses in {special}");
            Err(invalid("subnet", text, why))
        }
        None => Ok(()),
    }
}

/// The first free one of Docker's: 172.17.0.0/16 to 172.31.0.0/16, then 192.168.0.0/20 and so on.
fn default_ipv4(taken: &[Subnet], avoided: &[Subnet]) -> Option<Pool> {
    let large = (17..=31).map(|second| (Ipv4Addr::new(172, second, 0, 0), 16));
    let small = (0..=240)
        .step_by(16)
        .map(|third| (Ipv4Addr::new(192, 168, third, 0), 20));
    let mut all = large
        .chain(small)
        .filter_map(|(first, prefix)| Subnet::around(first.into(), prefix));
    let is_free = |subnet: &Subnet| {
        let mut others = taken.iter().chain(avoided);
        !others.any(|other| other.overlaps(*subnet))
    };
    all.find(is_free).and_then(Pool::of_default)
}

/// `fd` and 56 random bits: nobody has the same.
fn unique_local(random: [u8; 7]) -> Option<Subnet> {
    let [a, b, c, d, e, f, g] = random;
    let bytes = [0xfd, a, b, c, d, e, f, g, 0, 0, 0, 0, 0, 0, 0, 0];
    Subnet::around(Ipv6Addr::from(bytes).into(), 64)
}
