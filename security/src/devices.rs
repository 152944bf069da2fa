//! `--device` and `--device-cgroup-rule`.

use hullbox_model::value::ValueError;
use hullbox_protocol::{DeviceAccess, DeviceKind, DeviceNode, DeviceRule};
use serde::{Deserialize, Serialize};
use std::str::FromStr;

/// `--device HOST[:CONTAINER[:rwm]]`, as Docker reads it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Where it is on the host; in a microVM, in the guest.
    pub host: String,
    /// Where it is to be in the container.
    pub container: String,
    /// `r`, `w` and `m`: what may be done with it.
    pub permissions: String,
}

/// Of the permissions of a device, those that Docker gives unless told otherwise.
const EVERYTHING: &str = "rwm";

impl FromStr for Device {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let parts: Vec<&str> = text.split(':').collect();
        let (host, container, permissions) = match parts[..] {
            [host] => (host, host, EVERYTHING),
            [host, mode] if access(mode).is_some() => (host, host, mode),
            [host, container] => (host, container, EVERYTHING),
            [host, container, mode] => (host, container, mode),
            _ => return Err(ValueError::new("expected HOST[:CONTAINER[:rwm]]")),
        };
        if access(permissions).is_none() {
            return Err(ValueError::new(format!(
                "{permissions:?} are not permissions of a device, such as rwm"
            )));
        }
        // Docker's other meaning of the flag: vendor.example/class=name.
        if !host.starts_with('/') && host.contains('=') {
            return Err(ValueError::new("devices of the CDI are not supported yet"));
        }
        let plain = |path: &str| {
            let mut parts = path.split('/').skip(1);
            path.starts_with('/')
                && path.len() > 1
                && !path.contains('\0')
                && parts.all(|part| part != "..")
        };
        for path in [host, container] {
            if !plain(path) {
                return Err(ValueError::new(format!("{path:?} is not an absolute path")));
            }
        }
        Ok(Self {
            host: host.to_owned(),
            container: container.to_owned(),
            permissions: permissions.to_owned(),
        })
    }
}

/// `r`, `w` and `m`, each at most once.
fn access(text: &str) -> Option<DeviceAccess> {
    let count = |wanted| text.chars().filter(|&c| c == wanted).count();
    let (read, write, make) = (count('r'), count('w'), count('m'));
    let known = read + write + make == text.len() && !text.is_empty();
    (known && read.max(write).max(make) == 1).then_some(DeviceAccess {
        read: read == 1,
        write: write == 1,
        make: make == 1,
    })
}

impl Device {
    /// What may be done with it.
    #[must_use]
    pub fn access(&self) -> DeviceAccess {
        access(&self.permissions).unwrap_or(DeviceAccess::ALL)
    }
}

/// `--device-cgroup-rule`: `c 10:* rwm`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupRule {
    /// As typed.
    pub text: String,
    /// What it says.
    pub rule: DeviceRule,
}

impl FromStr for CgroupRule {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let bad = || ValueError::new("expected TYPE MAJOR:MINOR rwm, such as c 10:229 rwm");
        let [kind, numbers, permissions] = text.split(' ').collect::<Vec<_>>()[..] else {
            return Err(bad());
        };
        let kind = match kind {
            "a" => None,
            "b" => Some(DeviceKind::Block),
            "c" => Some(DeviceKind::Char),
            _ => return Err(bad()),
        };
        let (major, minor) = numbers.split_once(':').ok_or_else(bad)?;
        let number = |text: &str| match text {
            "*" => Ok(None),
            digits => digits.parse().map(Some).map_err(|_| bad()),
        };
        Ok(Self {
            text: text.to_owned(),
            rule: DeviceRule {
                kind,
                major: number(major)?,
                minor: number(minor)?,
                access: access(permissions).ok_or_else(bad)?,
            },
        })
    }
}

/// A device that the kernel of a microVM has: path, sort, numbers, permissions of its node.
type Known = (&'static str, DeviceKind, u32, u32, u32);

const IN_A_VM: [Known; 11] = [
    ("/dev/null", DeviceKind::Char, 1, 3, 0o666),
    ("/dev/zero", DeviceKind::Char, 1, 5, 0o666),
    ("/dev/full", DeviceKind::Char, 1, 7, 0o666),
    ("/dev/random", DeviceKind::Char, 1, 8, 0o666),
    ("/dev/urandom", DeviceKind::Char, 1, 9, 0o666),
    ("/dev/kmsg", DeviceKind::Char, 1, 11, 0o644),
    ("/dev/tty", DeviceKind::Char, 5, 0, 0o666),
    ("/dev/hwrng", DeviceKind::Char, 10, 183, 0o600),
    ("/dev/net/tun", DeviceKind::Char, 10, 200, 0o666),
    ("/dev/fuse", DeviceKind::Char, 10, 229, 0o666),
    ("/dev/loop-control", DeviceKind::Char, 10, 237, 0o660),
];
/// Number of the driver of loop devices, and how many may be asked for.
const LOOP_MAJOR: u32 = 7;
const MAX_LOOPS: u32 = 256;

/// The node of a device that is the guest's own.
///
/// # Errors
/// A guest has none of the host's.
pub fn of_a_vm(device: &Device) -> Result<DeviceNode, ValueError> {
    let path = device.host.as_str();
    let known = IN_A_VM.iter().find(|known| known.0 == path).copied();
    let (_, kind, major, minor, mode) = known.or_else(|| a_loop(path)).ok_or_else(|| {
        ValueError::new(match path {
            "/dev/kvm" => "a microVM has no /dev/kvm: virtualization is hidden from it \
                 (--isolation=container shares this host's)"
                .to_owned(),
            _ => format!(
                "a microVM has no {path}: devices of this host stay with it (--isolation=container \
                 shares them); of its own it has /dev/fuse, /dev/net/tun, /dev/loop-control, \
                 /dev/loopN, /dev/kmsg and /dev/hwrng"
            ),
        })
    })?;
    Ok(DeviceNode {
        path: device.container.clone(),
        kind,
        major,
        minor,
        mode,
        uid: 0,
        gid: 0,
        access: device.access(),
    })
}

fn a_loop(path: &str) -> Option<Known> {
    let minor: u32 = path.strip_prefix("/dev/loop")?.parse().ok()?;
    // The kernel gives each but a part of the numbers, and this is enough.
    (minor < MAX_LOOPS).then_some(("", DeviceKind::Block, LOOP_MAJOR, minor, 0o660))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(text: &str) -> Option<[String; 3]> {
        let device: Device = text.parse().ok()?;
        Some([device.host, device.container, device.permissions])
    }

    #[test]
    fn a_device_is_typed_as_docker_has_it() {
        let is = |text: &str, expected: [&str; 3]| {
            assert_eq!(device(text).unwrap(), expected.map(str::to_owned), "{text}");
        };
        is("/dev/fuse", ["/dev/fuse", "/dev/fuse", "rwm"]);
        is("/dev/fuse:r", ["/dev/fuse", "/dev/fuse", "r"]);
        is("/dev/a:/dev/b", ["/dev/a", "/dev/b", "rwm"]);
        is("/dev/a:/dev/b:mr", ["/dev/a", "/dev/b", "mr"]);
        for bad in [
            "",
            "fuse",
            "/dev/fuse:",
            "/dev/fuse:x",
            "/dev/fuse:rr",
            "/dev/a:/dev/b:",
            "/dev/a:/dev/b:rwmx",
            "/dev/a:/dev/b:r:w",
            "/dev/a:b",
            "/dev/../etc",
            "vendor.com/net=nic0",
        ] {
            assert_eq!(device(bad), None, "{bad}");
        }
    }

    #[test]
    fn rules_are_typed_as_docker_has_them() {
        let rule = |text: &str| text.parse::<CgroupRule>().ok().map(|rule| rule.rule);
        let found = rule("c 10:* rw").unwrap();
        assert_eq!(
            (found.kind, found.major, found.minor),
            (Some(DeviceKind::Char), Some(10), None)
        );
        assert!(found.access.read && found.access.write && !found.access.make);
        assert_eq!(rule("a *:* rwm").unwrap().kind, None);
        for bad in [
            "", "c", "c 1:3", "x 1:3 r", "c 1 r", "c 1:x r", "c 1:3 q", "c 1:3  r",
        ] {
            assert_eq!(rule(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_microvm_has_devices_of_its_own_alone() {
        let node = |text: &str| of_a_vm(&text.parse().unwrap());
        let fuse = node("/dev/fuse:/dev/mine:rw").unwrap();
        assert_eq!(
            (fuse.major, fuse.minor, &*fuse.path),
            (10, 229, "/dev/mine")
        );
        assert_eq!(node("/dev/loop3").unwrap().minor, 3);
        for (text, why) in [
            ("/dev/kvm", "virtualization is hidden"),
            ("/dev/sda", "a microVM has no /dev/sda"),
            ("/dev/vda", "a microVM has no /dev/vda"),
            ("/dev/loop999", "a microVM has no"),
        ] {
            let error = node(text).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }
}
