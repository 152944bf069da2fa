//! Capabilities by Docker's names.

use hullbox_model::value::ValueError;
use std::collections::BTreeSet;

/// Number is position (capabilities(7)).
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// What a container gets unless it says otherwise: Docker's fourteen.
pub const DEFAULT: u64 = 0xa804_25fb;

/// Every capability this program knows.
pub const ALL: u64 = (1 << NAMES.len()) - 1;

/// What was typed, as Docker's client says it: sorted, with `CAP_` before each name, and nothing
/// dropped that is added. ALL takes the others in.
#[must_use]
pub fn named(add: &[String], drop: &[String]) -> (Vec<String>, Vec<String>) {
    let names = |list: &[String]| -> BTreeSet<String> {
        let upper = list.iter().map(|name| name.to_ascii_uppercase());
        let names: BTreeSet<_> = upper
            .map(|name| match name.as_str() {
                "ALL" => name,
                other if other.starts_with("CAP_") => name,
                other => format!("CAP_{other}"),
            })
            .collect();
        if names.contains("ALL") {
            return BTreeSet::from(["ALL".to_owned()]);
        }
        names
    };
    let (add, mut drop) = (names(add), names(drop));
    drop.retain(|name| !add.contains(name));
    (add.into_iter().collect(), drop.into_iter().collect())
}

fn mask_of(name: &str) -> Result<u64, ValueError> {
    let upper = name.to_ascii_uppercase();
    if upper == "ALL" {
        return Ok(ALL);
    }
    let short = upper.strip_prefix("CAP_").unwrap_or(&upper);
    NAMES
        .iter()
        .position(|known| *known == short)
        .map(|bit| 1 << bit)
        .ok_or_else(|| ValueError::new(format!("no capability is called {name:?}")))
}

/// The mask that `--cap-add` and `--cap-drop` make of [`DEFAULT`]. As in Docker, adding ALL means
/// all but the dropped, dropping ALL means only the added, and otherwise adding beats dropping.
///
/// # Errors
/// An unknown name.
pub fn resolve(add: &[String], drop: &[String]) -> Result<u64, ValueError> {
    let has_all = |list: &[String]| list.iter().any(|name| name.eq_ignore_ascii_case("ALL"));
    let sum = |list: &[String]| -> Result<u64, ValueError> {
        list.iter()
            .filter(|name| !name.eq_ignore_ascii_case("ALL"))
            .try_fold(0, |mask, name| Ok(mask | mask_of(name)?))
    };
    let (added, dropped) = (sum(add)?, sum(drop)?);
    Ok(if has_all(add) && has_all(drop) {
        added
    } else if has_all(add) {
        ALL & !dropped
    } else if has_all(drop) {
        added
    } else {
        (DEFAULT & !dropped) | added
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mask(add: &[&str], drop: &[&str]) -> Result<u64, ValueError> {
        let own = |list: &[&str]| {
            list.iter()
                .map(|name| (*name).to_owned())
                .collect::<Vec<_>>()
        };
        resolve(&own(add), &own(drop))
    }

    #[test]
    fn names_are_told_as_dockers_client_tells_them() {
        let own = |list: &[&str]| {
            let list = list.iter().map(|name| (*name).to_owned());
            list.collect::<Vec<_>>()
        };
        for (add, drop, told_add, told_drop) in [
            (&[][..], &[][..], &[][..], &[][..]),
            (
                &["sys_time", "NET_ADMIN", "cap_net_admin"],
                &["mknod"],
                &["CAP_NET_ADMIN", "CAP_SYS_TIME"],
                &["CAP_MKNOD"],
            ),
            // A default capability that is added is told, too.
            (&["CHOWN"], &["chown"], &["CAP_CHOWN"], &[]),
            (&["all", "CHOWN"], &["SETUID"], &["ALL"], &["CAP_SETUID"]),
            (&["CHOWN"], &["ALL", "SETUID"], &["CAP_CHOWN"], &["ALL"]),
        ] {
            let told = named(&own(add), &own(drop));
            assert_eq!(told, (own(told_add), own(told_drop)));
        }
    }

    #[test]
    fn masks_follow_docker() {
        assert_eq!(mask(&[], &[]).unwrap().count_ones(), 14);
        assert_eq!(mask(&[], &["ALL"]).unwrap(), 0);
        assert_eq!(mask(&["NET_ADMIN"], &["all"]).unwrap(), 1 << 12);
        assert_eq!(mask(&["cap_net_admin"], &[]).unwrap(), DEFAULT | 1 << 12);
        assert_eq!(mask(&[], &["CAP_KILL"]).unwrap(), DEFAULT & !(1 << 5));
        assert_eq!(mask(&["ALL"], &[]).unwrap(), 0x1ff_ffff_ffff);
        assert_eq!(mask(&["ALL"], &["SYS_ADMIN"]).unwrap(), ALL & !(1 << 21));
        assert!(mask(&["FLY"], &[]).is_err());
    }
}
