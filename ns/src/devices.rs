//! The host's devices that a container is given.

use hullbox_backend::bundle::Bundle;
use hullbox_protocol::{DeviceAccess, DeviceKind, DeviceNode};
use hullbox_security::devices::Device;
use hullbox_session::guard;
use rustix::fs::{AtFlags, CWD, FileType, Stat};
use rustix::io::Errno;
use std::path::Path;

/// Most devices of one container.
const MAX_DEVICES: usize = 4096;
/// Deepest directory of devices that is looked into.
const MAX_DEPTH: usize = 8;
/// What a container has of its own, whatever the host has; as Docker leaves them out.
const OWN: [&str; 10] = [
    "/dev/console",
    "/dev/fd",
    "/dev/full",
    "/dev/mqueue",
    "/dev/ptmx",
    "/dev/pts",
    "/dev/shm",
    "/dev/tty",
    "/dev/.lxc",
    "/dev/.udev",
];

/// Why a device cannot be given.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// It cannot be found.
    #[error("error gathering device information while adding custom device {path:?}")]
    Find {
        /// Its path on the host.
        path: String,
        /// Why not.
        #[source]
        source: Errno,
    },
    /// It is something else.
    #[error("{0:?} is not a device node")]
    NotADevice(String),
    /// A directory with more than anybody means.
    #[error("more than {MAX_DEVICES} devices")]
    TooMany,
}

/// The devices that a container is given beyond the usual.
pub(super) fn of(bundle: &Bundle) -> Result<Vec<DeviceNode>, DeviceError> {
    let mut found = Vec::new();
    if bundle.setup.access.privileged {
        let everything = Listing {
            device: None,
            from: "/dev",
            to: "/dev",
        };
        everything.collect(Path::new("/dev"), 0, &mut found)?;
        if bundle.setup.access.runs_systemd {
            found.retain(|node| !is_console(&node.path));
        }
    }
    for device in &bundle.devices {
        one(device, &mut found)?;
    }
    Ok(found)
}

/// Whether it is a virtual console: an init system would put a login on the host's screen.
fn is_console(path: &str) -> bool {
    let number = path.strip_prefix("/dev/tty").unwrap_or_default();
    !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
}

fn one(device: &Device, found: &mut Vec<DeviceNode>) -> Result<(), DeviceError> {
    // A link to a device is meant as the device.
    let stat = rustix::fs::stat(device.host.as_str()).map_err(|source| DeviceError::Find {
        path: device.host.clone(),
        source,
    })?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
        let listing = Listing {
            device: Some(device),
            from: &device.host,
            to: &device.container,
        };
        return listing.collect(Path::new(&device.host), 0, found);
    }
    let node = node(&device.container, &stat, device.access());
    let node = node.ok_or_else(|| DeviceError::NotADevice(device.host.clone()))?;
    // What is typed replaces what a privileged container has anyway.
    found.retain(|known| known.path != node.path);
    found.push(node);
    Ok(())
}

fn node(path: &str, stat: &Stat, access: DeviceAccess) -> Option<DeviceNode> {
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::CharacterDevice => DeviceKind::Char,
        FileType::BlockDevice => DeviceKind::Block,
        _ => return None,
    };
    Some(DeviceNode {
        path: path.to_owned(),
        kind,
        major: rustix::fs::major(stat.st_rdev),
        minor: rustix::fs::minor(stat.st_rdev),
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        access,
    })
}

/// All devices below a directory of the host.
struct Listing<'a> {
    device: Option<&'a Device>,
    from: &'a str,
    to: &'a str,
}

impl Listing<'_> {
    fn collect(
        &self,
        directory: &Path,
        depth: usize,
        found: &mut Vec<DeviceNode>,
    ) -> Result<(), DeviceError> {
        // What goes away meanwhile, or cannot be looked at, is not there.
        let entries = std::fs::read_dir(directory).into_iter().flatten();
        for entry in entries.flatten() {
            let path = entry.path();
            let Some(name) = path.to_str().filter(|path| !OWN.contains(path)) else {
                continue;
            };
            let Ok(stat) = rustix::fs::statat(CWD, &path, AtFlags::SYMLINK_NOFOLLOW) else {
                continue;
            };
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                if depth < MAX_DEPTH {
                    self.collect(&path, depth + 1, found)?;
                }
                continue;
            }
            let below = name.strip_prefix(self.from).unwrap_or(name);
            let access = self.device.map_or(DeviceAccess::ALL, Device::access);
            if let Some(node) = node(&format!("{}{below}", self.to), &stat, access) {
                if found.len() >= MAX_DEVICES {
                    return Err(DeviceError::TooMany);
                }
                found.push(node);
            }
        }
        Ok(())
    }
}

/// The program that guards them; none of a privileged container, which may use any.
pub(super) fn program(bundle: &Bundle, given: &[DeviceNode]) -> Option<Vec<u64>> {
    let access = &bundle.setup.access;
    let own: Vec<_> = given.iter().map(DeviceNode::rule).collect();
    let rules = guard::EVERYBODY
        .iter()
        .chain(&own)
        .chain(&access.device_rules);
    (!access.privileged).then(|| guard::devices(rules))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn devices(text: &str) -> Result<Vec<DeviceNode>, DeviceError> {
        let mut found = Vec::new();
        one(&text.parse().unwrap(), &mut found).map(|()| found)
    }

    #[test]
    fn devices_of_the_host_are_looked_up() {
        let found = devices("/dev/null:/dev/nothing:rw").unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].major, found[0].minor), (1, 3));
        assert_eq!(found[0].path, "/dev/nothing");
        assert!(!found[0].access.make);
        assert!(matches!(
            devices("/dev/no-such"),
            Err(DeviceError::Find { .. })
        ));
        assert!(matches!(
            devices("/etc/passwd"),
            Err(DeviceError::NotADevice(_))
        ));
        let within = devices("/dev:/dev/host").unwrap();
        assert!(within.iter().any(|node| node.path == "/dev/host/null"));
    }
}
