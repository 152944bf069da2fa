//! What a container may do to the kernel that it runs on, as typed.

use crate::devices::{CgroupRule, Device};
use crate::seccomp::Seccomp;
use hullbox_model::value::ValueError;
use hullbox_protocol::{MASKED_PATHS, READ_ONLY_PATHS};
use serde::{Deserialize, Serialize};
use std::str::FromStr;

/// `--security-opt`, in Docker's words and podman's.
#[derive(Debug, Clone, PartialEq)]
pub enum SecurityOption {
    /// `no-new-privileges[=BOOL]`.
    NoNewPrivileges(bool),
    /// `seccomp=unconfined`, `seccomp=builtin`, or a profile as text.
    Seccomp(Box<Seccomp>),
    /// `seccomp=FILE`: whoever has the file reads it.
    SeccompFile(String),
    /// `systempaths=unconfined`.
    SystemPathsUnconfined,
    /// `apparmor=unconfined`, `label=…`: neither AppArmor nor SELinux confines a container here.
    Nothing,
    /// `mask=PATH:PATH`.
    Mask(Vec<String>),
    /// `unmask=ALL` or `unmask=PATH:PATH`.
    Unmask(Vec<String>),
}

impl FromStr for SecurityOption {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        // Docker takes both separators, the colon for compatibility.
        let at = text.find(['=', ':']).unwrap_or(text.len());
        let (key, value) = (&text[..at], text.get(at + 1..).unwrap_or_default());
        let invalid = || ValueError::new(format!("invalid security option {text:?}"));
        Ok(match (key, value) {
            ("no-new-privileges", "") if at == text.len() => Self::NoNewPrivileges(true),
            ("no-new-privileges", "true" | "1") => Self::NoNewPrivileges(true),
            ("no-new-privileges", "false" | "0") => Self::NoNewPrivileges(false),
            ("seccomp", "unconfined") => Self::Seccomp(Box::new(Seccomp::Unconfined)),
            ("seccomp", "builtin") => Self::Seccomp(Box::new(Seccomp::Default)),
            ("seccomp", "") => return Err(invalid()),
            ("seccomp", profile) if profile.trim_start().starts_with('{') => {
                Self::Seccomp(Box::new(Seccomp::parse(profile)?))
            }
            ("seccomp", file) => Self::SeccompFile(file.to_owned()),
            ("systempaths", "unconfined") => Self::SystemPathsUnconfined,
            ("apparmor", "unconfined") => Self::Nothing,
            ("apparmor", _) => {
                return Err(ValueError::new(format!(
                    "{text:?}: containers are not confined by AppArmor profiles here"
                )));
            }
            ("label", label) if is_label(label) => Self::Nothing,
            ("mask", paths) => Self::Mask(path_list(paths)?),
            ("unmask", all) if all.eq_ignore_ascii_case("all") => Self::Unmask(vec!["ALL".into()]),
            ("unmask", paths) => Self::Unmask(path_list(paths)?),
            ("no-new-privileges" | "systempaths" | "label", _) => return Err(invalid()),
            _ => {
                return Err(ValueError::new(format!(
                    "no security option is called {key:?}"
                )));
            }
        })
    }
}

fn is_label(label: &str) -> bool {
    const KEYS: [&str; 5] = ["user", "role", "type", "level", "filetype"];
    let (key, value) = label.split_once(':').unwrap_or((label, ""));
    matches!(label, "disable" | "nested") || (KEYS.contains(&key) && !value.is_empty())
}

fn path_list(text: &str) -> Result<Vec<String>, ValueError> {
    let paths: Vec<String> = text.split(':').map(str::to_owned).collect();
    let plain = |path: &String| path.starts_with('/') && !path.contains('\0');
    match paths.iter().all(plain) {
        true => Ok(paths),
        false => Err(ValueError::new(format!(
            "{text:?} is not a list of absolute paths, separated by colons"
        ))),
    }
}

/// `--systemd`, as podman has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Systemd {
    /// When the command is an init system.
    #[default]
    True,
    /// Never.
    False,
    /// Whatever the command is.
    Always,
}

/// `--cgroupns`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum CgroupNamespace {
    /// The container's own group is the root of what it sees.
    #[default]
    Private,
    /// It sees all of the kernel's.
    Host,
}

/// Everything of this module that was asked of one container.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Security {
    /// `--privileged`.
    pub privileged: bool,
    /// `--security-opt`, as typed.
    pub options: Vec<String>,
    /// Which system calls are filtered.
    pub seccomp: Seccomp,
    /// `no-new-privileges`.
    pub no_new_privileges: bool,
    /// `systempaths=unconfined`.
    pub system_paths_unconfined: bool,
    /// `mask=`.
    pub mask: Vec<String>,
    /// `unmask=`.
    pub unmask: Vec<String>,
    /// `--device`.
    pub devices: Vec<Device>,
    /// `--device-cgroup-rule`.
    pub device_rules: Vec<CgroupRule>,
    /// `--systemd`.
    pub systemd: Systemd,
    /// `--cgroupns`.
    pub cgroup_namespace: CgroupNamespace,
}

impl Security {
    /// Applies a `--security-opt`; of two that contradict each other the later one counts. A file
    /// must have been read by now, so [`SecurityOption::SeccompFile`] is ignored.
    pub fn apply(&mut self, text: &str, option: SecurityOption) {
        match option {
            SecurityOption::NoNewPrivileges(set) => self.no_new_privileges = set,
            SecurityOption::Seccomp(seccomp) => self.seccomp = *seccomp,
            SecurityOption::SystemPathsUnconfined => {
                self.system_paths_unconfined = true;
                // Docker tells of it by the lists of paths alone.
                return;
            }
            SecurityOption::Mask(paths) => self.mask.extend(paths),
            SecurityOption::Unmask(paths) => self.unmask.extend(paths),
            SecurityOption::Nothing | SecurityOption::SeccompFile(_) => {}
        }
        self.options.push(text.to_owned());
    }

    /// Paths that are covered and paths that are read-only, as Docker and podman decide it.
    #[must_use]
    pub fn paths(&self) -> (Vec<String>, Vec<String>) {
        let all = self.unmask.iter().any(|path| path == "ALL");
        let open = self.privileged || self.system_paths_unconfined || all;
        let usual = |paths: &[&str]| -> Vec<String> {
            let paths = if open { &[] } else { paths };
            let kept = paths.iter().filter(|path| !self.unmasks(path));
            kept.map(|&path| path.to_owned()).collect()
        };
        let mut masked = usual(&MASKED_PATHS);
        masked.extend(self.mask.iter().cloned());
        (masked, usual(&READ_ONLY_PATHS))
    }

    /// Podman's `unmask` takes patterns in which `*` stands for what is no slash.
    fn unmasks(&self, path: &str) -> bool {
        self.unmask.iter().any(|pattern| matches(pattern, path))
    }
}

fn matches(pattern: &str, path: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == path,
        Some((before, after)) => path.strip_prefix(before).is_some_and(|rest| {
            let within = rest.find('/').unwrap_or(rest.len());
            (0..=within).any(|at| rest.is_char_boundary(at) && matches(after, &rest[at..]))
        }),
    }
}

/// `--sysctl NAME=VALUE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sysctl {
    /// With dots between its parts.
    pub name: String,
    /// What it becomes.
    pub value: String,
}

/// Parameters of a container's own namespaces, as in Docker.
const OF_NAMESPACES: [&str; 8] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
];

impl FromStr for Sysctl {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let (name, value) = text
            .split_once('=')
            .ok_or_else(|| ValueError::new("expected NAME=VALUE"))?;
        let own = name.starts_with("net.")
            || name.starts_with("fs.mqueue.")
            || OF_NAMESPACES.contains(&name);
        let plain = name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
            && !name.contains("..");
        match own && plain {
            true => Ok(Self {
                name: name.to_owned(),
                value: value.to_owned(),
            }),
            false => Err(ValueError::new(format!(
                "{name:?} is not a parameter of a container's own"
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn security(options: &[&str]) -> Security {
        let mut security = Security::default();
        for text in options {
            security.apply(text, text.parse().unwrap());
        }
        security
    }

    #[test]
    fn options_are_those_of_docker_and_podman() {
        assert!(security(&["no-new-privileges"]).no_new_privileges);
        assert!(security(&["no-new-privileges:true"]).no_new_privileges);
        assert!(!security(&["no-new-privileges", "no-new-privileges=false"]).no_new_privileges);
        assert_eq!(
            security(&["seccomp=unconfined"]).seccomp,
            Seccomp::Unconfined
        );
        assert_eq!(
            security(&["seccomp=unconfined", "seccomp=builtin"]).seccomp,
            Seccomp::Default
        );
        let _ = security(&["apparmor=unconfined", "label=disable", "label=type:x_t"]);
        assert!(matches!(
            "seccomp=/etc/profile.json".parse(),
            Ok(SecurityOption::SeccompFile(file)) if file == "/etc/profile.json"
        ));
        for bad in [
            "",
            "no-new-privileges=maybe",
            "seccomp=",
            "apparmor=docker-default",
            "systempaths=confined",
            "label=nonsense",
            "mask=relative",
            "mask=/a:b",
            "unmask=",
            "frobnicate=1",
        ] {
            assert!(bad.parse::<SecurityOption>().is_err(), "{bad}");
        }
    }

    #[test]
    fn paths_are_masked_and_unmasked() {
        let (masked, read_only) = security(&[]).paths();
        assert_eq!((masked.len(), read_only.len()), (12, 5));
        let (masked, read_only) =
            security(&["mask=/etc/x:/etc/y", "unmask=/proc/sys:/proc/a*"]).paths();
        assert!(masked.ends_with(&["/etc/x".into(), "/etc/y".into()]));
        assert!(!masked.contains(&"/proc/acpi".to_owned()));
        assert!(!read_only.contains(&"/proc/sys".to_owned()));
        assert_eq!((masked.len(), read_only.len()), (12, 4));
        for open in ["unmask=ALL", "systempaths=unconfined"] {
            let (masked, read_only) = security(&[open, "mask=/etc/x"]).paths();
            assert_eq!(masked, ["/etc/x"]);
            assert!(read_only.is_empty());
        }
        assert!(matches("/proc/*", "/proc/acpi") && !matches("/proc/*", "/proc/a/b"));
    }

    #[test]
    fn parameters_of_namespaces_may_be_set() {
        let sysctl = |text: &str| text.parse::<Sysctl>().ok().map(|sysctl| sysctl.name);
        assert_eq!(
            sysctl("net.ipv4.ip_forward=1").unwrap(),
            "net.ipv4.ip_forward"
        );
        assert_eq!(sysctl("kernel.shmmax=1").unwrap(), "kernel.shmmax");
        for bad in [
            "net.ipv4.ip_forward",
            "kernel.core_pattern=|/x",
            "vm.swappiness=1",
            "net.../../kernel=1",
            "net./x=1",
        ] {
            assert_eq!(sysctl(bad), None, "{bad}");
        }
    }
}
