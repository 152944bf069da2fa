//! Capabilities by Docker's names.

use super::units::ValueError;

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

/// What was added to [`DEFAULT`] and what dropped, by Docker's names, to make this mask.
#[must_use]
pub fn differences(mask: u64) -> (Vec<String>, Vec<String>) {
    let names = |mask: u64| -> Vec<String> {
        let numbered = NAMES.iter().enumerate();
        let named = numbered.filter(|(bit, _)| mask & (1 << bit) != 0);
        named.map(|(_, name)| format!("CAP_{name}")).collect()
    };
    match mask {
        ALL => (vec!["ALL".to_owned()], Vec::new()),
        0 => (Vec::new(), vec!["ALL".to_owned()]),
        _ => (names(mask & !DEFAULT), names(DEFAULT & !mask)),
    }
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
