//! Capabilities by Docker's names.

use ::caps::Capability;
use hullbox_model::value::ValueError;
use std::collections::BTreeSet;

/// What a container gets unless it says otherwise: Docker's fourteen.
pub const DEFAULT: u64 = 0xa804_25fb;

/// Every capability this program knows.
pub const ALL: u64 = (2 << Capability::CAP_CHECKPOINT_RESTORE as u8) - 1;

/// What was typed, as Docker's client says it: sorted, with `CAP_` before each name, and nothing
/// dropped that is added. ALL takes the others in.
#[must_use]
pub fn named(add: &[String], drop: &[String]) -> (Vec<String>, Vec<String>) {
    let names = |list: &[String]| -> BTreeSet<String> {
        if has_all(list) {
            return BTreeSet::from(["ALL".to_owned()]);
        }
        list.iter().map(|name| canonical(name)).collect()
    };
    let (add, mut drop) = (names(add), names(drop));
    drop.retain(|name| !add.contains(name));
    (add.into_iter().collect(), drop.into_iter().collect())
}

fn mask_of(name: &str) -> Result<u64, ValueError> {
    canonical(name)
        .parse()
        .map(|capability: Capability| capability.bitmask())
        .map_err(|_| ValueError::new(format!("no capability is called {name:?}")))
}

/// A name as capabilities(7) has it: `CAP_CHOWN`.
fn canonical(name: &str) -> String {
    let upper = name.to_ascii_uppercase();
    if upper.starts_with("CAP_") {
        return upper;
    }
    format!("CAP_{upper}")
}

fn has_all(list: &[String]) -> bool {
    list.iter().any(|name| is_all(name))
}

fn is_all(name: &str) -> bool {
    name.eq_ignore_ascii_case("ALL")
}

/// The mask that `--cap-add` and `--cap-drop` make of [`DEFAULT`]. As in Docker, adding ALL means
/// all but the dropped, dropping ALL means only the added, and otherwise adding beats dropping.
///
/// # Errors
/// An unknown name.
pub fn resolve(add: &[String], drop: &[String]) -> Result<u64, ValueError> {
    let sum = |list: &[String]| -> Result<u64, ValueError> {
        list.iter()
            .filter(|name| !is_all(name))
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
        assert_eq!(mask(&["CHECKPOINT_RESTORE"], &["ALL"]).unwrap(), 1 << 40);
        for bad in [
            "FLY",
            "",
            "CAP_",
            "CAP_CAP_KILL",
            "CAP_ALL",
            "\u{17f}YS_ADMIN",
            "KILL ",
        ] {
            assert!(mask(&[bad], &[]).is_err(), "{bad:?}");
        }
    }
}
