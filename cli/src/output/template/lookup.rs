//! Fields of what would be structures and maps in Docker.

use gotmpl::{Result, TemplateError, Value};
use std::sync::Arc;

/// Looks fields up: of what, the name of the field that this is, names.
pub(super) const FIELD: &str = "__field";
/// The same, to be printed.
pub(super) const SHOWN: &str = "__shown";

/// A label: of labels, as a row has them, and a name.
pub(super) const LABEL: &str = "__label";

/// Fields that are maps in Docker's structures: what they do not hold is no value, not a slip.
pub(super) const MAPS: [&str; 13] = [
    "Annotations",
    "Attributes",
    "Data",
    "DriverOpts",
    "ExposedPorts",
    "Labels",
    "Networks",
    "PortBindings",
    "Ports",
    "StorageOpt",
    "Sysctls",
    "Tmpfs",
    "Volumes",
];

/// Fields that are lists in Docker's structures, which Go prints as such when they are nil.
const LISTS: [&str; 27] = [
    "Aliases",
    "Args",
    "Binds",
    "CapAdd",
    "CapDrop",
    "Cmd",
    "DNSNames",
    "DeviceCgroupRules",
    "DeviceRequests",
    "Devices",
    "Dns",
    "DnsOptions",
    "DnsSearch",
    "Entrypoint",
    "Env",
    "ExecIDs",
    "ExtraHosts",
    "GroupAdd",
    "Links",
    "Mounts",
    "OnBuild",
    "SecondaryIPAddresses",
    "SecondaryIPv6Addresses",
    "SecurityOpt",
    "Shell",
    "Ulimits",
    "VolumesFrom",
];

/// Fields of a network's ranges that Docker's structures have and leave out of JSON where they are empty.
const LEFT_OUT: [&str; 3] = ["Gateway", "IPRange", "Subnet"];

/// What a chain of fields leads to.
enum Found {
    Value(Value),
    /// The map does not hold it.
    Absent,
}

pub(super) fn field(args: &[Value]) -> Result<Value> {
    Ok(match find(args)? {
        Found::Value(value) => value,
        Found::Absent => Value::Nil,
    })
}

/// A `null` as Go prints what Docker has in its place.
pub(super) fn shown(args: &[Value]) -> Result<Value> {
    let name = args.last().and_then(Value::as_str).unwrap_or_default();
    Ok(match find(args)? {
        Found::Value(Value::Nil) if LISTS.contains(&name) => Value::List([].into()),
        Found::Value(Value::Nil) if MAPS.contains(&name) => Value::Map(Arc::default()),
        Found::Value(Value::Nil) => Value::String("<nil>".into()),
        Found::Value(value) => value,
        Found::Absent => Value::Nil,
    })
}

/// What is not there is empty, as in Docker.
pub(super) fn label(args: &[Value]) -> Result<Value> {
    let [labels, Value::String(name)] = args else {
        return Err(TemplateError::Exec("Label needs a name".to_owned()));
    };
    let found = match labels {
        Value::Map(map) => map.get(name).map(ToString::to_string),
        // `a=1,b=2`
        other => other.to_string().split(',').find_map(|label| {
            let value = label.strip_prefix(&**name)?;
            let value = if value.is_empty() {
                value
            } else {
                value.strip_prefix('=')?
            };
            Some(value.to_owned())
        }),
    };
    Ok(Value::String(found.unwrap_or_default().into()))
}

fn find(args: &[Value]) -> Result<Found> {
    let [value, above, names @ ..] = args else {
        return Err(TemplateError::Exec("a field of nothing".to_owned()));
    };
    let mut above = above.as_str().unwrap_or_default();
    let mut value = value;
    for name in names {
        let name = name.as_str().unwrap_or_default();
        value = match value {
            Value::Map(map) => match map.get(name) {
                Some(found) => found,
                None if MAPS.contains(&above) => return Ok(Found::Absent),
                None if LEFT_OUT.contains(&name) => {
                    return Ok(Found::Value(Value::String("".into())));
                }
                None => {
                    let why = format!("map has no entry for key {name:?}");
                    return Err(TemplateError::Exec(why));
                }
            },
            Value::Nil if MAPS.contains(&above) => return Ok(Found::Absent),
            Value::Nil => {
                let why = format!("nil data; no entry for key {name:?}");
                return Err(TemplateError::Exec(why));
            }
            other => {
                let of = other.type_name();
                let why = format!("can't evaluate field {name} in type {of}");
                return Err(TemplateError::Exec(why));
            }
        };
        above = name;
    }
    Ok(Found::Value(value.clone()))
}
