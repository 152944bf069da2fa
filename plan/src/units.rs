//! Values as people type them: sizes, CPUs, signals, limits.

pub use hullbox_model::value::ValueError;
use std::fmt;
use std::str::FromStr;

/// Longest host name Linux takes, in bytes.
const MAX_HOSTNAME: usize = 64;

/// A number of bytes: `128m`, `1.5g`, `4096`, powers of 1024.
///
/// Not by `parse-size` (1.1.0), which takes `1e3`, `1_000`, `1 0` and `1.g` too, nor by `bytesize`
/// (2.7.0), in which `128m` is a power of 1000 and `20000000t` the largest number instead of none;
/// the test has these cases.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes(pub u64);

impl FromStr for Bytes {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let bad = || {
            ValueError::new(
                "not a size; expected a number and perhaps a unit b, k, m, g or t, such as 128m",
            )
        };
        let lower = text.trim().to_ascii_lowercase();
        let digits = lower
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(lower.len());
        let (number, unit) = lower.split_at(digits);
        let shift = match unit.trim_start() {
            "" | "b" => 0,
            "k" | "kb" | "kib" | "ki" => 10,
            "m" | "mb" | "mib" | "mi" => 20,
            "g" | "gb" | "gib" | "gi" => 30,
            "t" | "tb" | "tib" | "ti" => 40,
            "p" | "pb" | "pib" | "pi" => 50,
            _ => return Err(bad()),
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
        if whole.is_empty() || fraction.is_empty() {
            return Err(bad());
        }
        let too_large = || ValueError::new("too large");
        let whole: u64 = whole.parse().map_err(|_| too_large())?;
        let scaled = whole.checked_mul(1 << shift).ok_or_else(too_large)?;
        // Nine digits of a fraction are more than anybody means.
        let fraction = &fraction[..fraction.len().min(9)];
        let numerator: u64 = fraction.parse().map_err(|_| bad())?;
        let scale = u32::try_from(fraction.len()).map_err(|_| bad())?;
        let part = (u128::from(numerator) << shift) / 10u128.pow(scale);
        u64::try_from(part)
            .ok()
            .and_then(|part| scaled.checked_add(part))
            .map(Self)
            .ok_or_else(too_large)
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut value = self.0;
        let mut units = ["", "KiB", "MiB", "GiB", "TiB"].iter();
        let mut unit = units.next();
        while value >= 1024 && value.is_multiple_of(1024) && units.len() > 0 {
            value /= 1024;
            unit = units.next();
        }
        write!(f, "{value}{}", unit.copied().unwrap_or_default())
    }
}

/// A share of CPUs in billionths, as `--cpus 1.5`. Zero is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct NanoCpus(pub u64);

impl NanoCpus {
    /// One whole CPU.
    pub const ONE: u64 = 1_000_000_000;

    /// Whole CPUs that can deliver this.
    #[must_use]
    pub const fn whole(self) -> u64 {
        self.0.div_ceil(Self::ONE)
    }

    /// The quota in microseconds for each period of 100 ms; 0 for no limit.
    #[must_use]
    pub const fn quota_us(self) -> u64 {
        // Below 1 ms the kernel refuses.
        match self.0 / 10_000 {
            0 => 0,
            quota if quota < 1000 => 1000,
            quota => quota,
        }
    }
}

impl FromStr for NanoCpus {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let bad = || ValueError::new("not a number of CPUs, such as 2 or 1.5");
        let (whole, fraction) = text.trim().split_once('.').unwrap_or((text.trim(), ""));
        let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        if (whole.is_empty() && fraction.is_empty()) || !digits(whole) || !digits(fraction) {
            return Err(bad());
        }
        if fraction.len() > 9 {
            return Err(ValueError::new("more precise than a billionth of a CPU"));
        }
        let whole: u64 = if whole.is_empty() {
            0
        } else {
            whole.parse().map_err(|_| bad())?
        };
        let fraction: u64 = format!("{fraction:0<9}").parse().map_err(|_| bad())?;
        whole
            .checked_mul(Self::ONE)
            .and_then(|nanos| nanos.checked_add(fraction))
            .map(Self)
            .ok_or_else(|| ValueError::new("too many CPUs"))
    }
}

/// A Linux signal number, 1 to 64: `TERM`, `SIGTERM`, `15`, `RTMIN+3`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signal(pub u8);

impl Signal {
    /// What `stop` sends unless the image or the user says otherwise.
    pub const TERM: Self = Self(15);
    /// What has systemd end everything and itself (systemd(1)).
    pub const RTMIN_3: Self = Self(37);
    /// What cannot be refused.
    pub const KILL: Self = Self(9);
}

impl fmt::Display for Signal {
    /// As Docker shows it: `SIGTERM`, `SIGRTMIN+3`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = nix::sys::signal::Signal::try_from(i32::from(self.0));
        match (named, self.0.checked_sub(RTMIN)) {
            (Ok(named), _) => f.write_str(named.as_str()),
            (Err(_), Some(0)) => f.write_str("SIGRTMIN"),
            (Err(_), Some(more)) => write!(f, "SIGRTMIN+{more}"),
            (Err(_), None) => write!(f, "{}", self.0),
        }
    }
}

/// As glibc has them for programs.
const RTMIN: u8 = 34;
const RTMAX: u8 = 64;

impl FromStr for Signal {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let bad = || ValueError::new("not a signal, such as TERM, SIGTERM or 15");
        if let Ok(number) = text.parse::<u8>() {
            return (1..=RTMAX)
                .contains(&number)
                .then_some(Self(number))
                .ok_or_else(bad);
        }
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        let name = match name {
            "IOT" => "ABRT",
            "CLD" => "CHLD",
            "POLL" => "IO",
            name => name,
        };
        if let Ok(named) = format!("SIG{name}").parse::<nix::sys::signal::Signal>() {
            return u8::try_from(named as i32).map(Self).map_err(|_| bad());
        }
        let offset = |rest: &str| -> Option<u8> {
            if rest.is_empty() {
                Some(0)
            } else {
                rest.strip_prefix(['+', '-'])?.parse().ok()
            }
        };
        let number = if let Some(rest) = name.strip_prefix("RTMIN") {
            offset(rest)
                .filter(|_| !rest.starts_with('-'))
                .and_then(|n| RTMIN.checked_add(n))
        } else if let Some(rest) = name.strip_prefix("RTMAX") {
            offset(rest)
                .filter(|_| !rest.starts_with('+'))
                .and_then(|n| RTMAX.checked_sub(n))
        } else {
            None
        };
        number
            .filter(|number| (RTMIN..=RTMAX).contains(number))
            .map(Self)
            .ok_or_else(bad)
    }
}

/// `--ulimit nofile=1024:2048`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ulimit {
    /// `RLIMIT_*` number of Linux (x86 and ARM agree on these).
    pub resource: u32,
    /// Soft limit; `u64::MAX` is unlimited.
    pub soft: u64,
    /// Hard limit; `u64::MAX` is unlimited.
    pub hard: u64,
}

/// Position is the number.
const RLIMITS: [&str; 16] = [
    "cpu",
    "fsize",
    "data",
    "stack",
    "core",
    "rss",
    "nproc",
    "nofile",
    "memlock",
    "as",
    "locks",
    "sigpending",
    "msgqueue",
    "nice",
    "rtprio",
    "rttime",
];

/// The word of `--ulimit` for an `RLIMIT_*` number.
#[must_use]
pub fn rlimit_name(resource: u32) -> Option<&'static str> {
    RLIMITS.get(usize::try_from(resource).ok()?).copied()
}

impl FromStr for Ulimit {
    type Err = ValueError;

    /// The words for what is wrong are Docker's. Podman's `unlimited` and `as` are understood too.
    fn from_str(text: &str) -> Result<Self, ValueError> {
        let (name, values) = text
            .split_once('=')
            .ok_or_else(|| ValueError::new(format!("invalid ulimit argument: {text}")))?;
        let resource = RLIMITS
            .iter()
            .position(|known| *known == name)
            .and_then(|at| u32::try_from(at).ok())
            .ok_or_else(|| ValueError::new(format!("invalid ulimit type: {name}")))?;
        let value = |text: &str| match text {
            "-1" | "unlimited" => Ok(u64::MAX),
            number => number
                .parse()
                .map_err(|_| ValueError::new(format!("{number:?} is not a limit"))),
        };
        let (soft, hard) = values.split_once(':').unwrap_or((values, values));
        if hard.contains(':') {
            return Err(ValueError::new(format!(
                "too many limit value arguments - {values}, can only have up to two, `soft[:hard]`"
            )));
        }
        let limit = Self {
            resource,
            soft: value(soft)?,
            hard: value(hard)?,
        };
        if limit.soft > limit.hard {
            let order = if limit.soft == u64::MAX {
                format!("soft: -1 (unlimited), hard: {hard}")
            } else {
                format!("{soft} > {hard}")
            };
            return Err(ValueError::new(format!(
                "ulimit soft limit must be less than or equal to hard limit: {order}"
            )));
        }
        Ok(limit)
    }
}

/// `--umask 027`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Umask(pub u32);

impl FromStr for Umask {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        u32::from_str_radix(text, 8)
            .ok()
            .filter(|mask| *mask <= 0o777)
            .map(Self)
            .ok_or_else(|| ValueError::new("not an octal mask, such as 0022"))
    }
}

/// `--tmpfs /path[:options]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tmpfs {
    /// Absolute path in the container.
    pub path: String,
    /// Mount options as typed.
    pub options: String,
}

impl FromStr for Tmpfs {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let (path, options) = text.split_once(':').unwrap_or((text, ""));
        if !path.starts_with('/') {
            return Err(ValueError::new("the path must be absolute"));
        }
        if path.split('/').all(|part| part.is_empty() || part == ".") {
            return Err(ValueError::new("the path may not be the root"));
        }
        if path.split('/').any(|part| part == "..") {
            return Err(ValueError::new("the path may not contain '..'"));
        }
        Ok(Self {
            path: path.to_owned(),
            options: options.to_owned(),
        })
    }
}

/// Where a name of `--add-host` leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostAddress {
    /// An address.
    Ip(std::net::IpAddr),
    /// `host-gateway`: the host, as the container reaches it.
    Gateway,
}

/// Docker's word for it.
const HOST_GATEWAY: &str = "host-gateway";

impl fmt::Display for HostAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Gateway => f.write_str(HOST_GATEWAY),
        }
    }
}

/// `--add-host name:address`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostEntry {
    /// The name.
    pub name: String,
    /// Its address.
    pub address: HostAddress,
}

impl FromStr for HostEntry {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let (name, address) = text
            .split_once('=')
            .or_else(|| text.split_once(':'))
            .filter(|(name, _)| !name.is_empty())
            .ok_or_else(|| ValueError::new("expected NAME:ADDRESS"))?;
        let bare = address
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
            .unwrap_or(address);
        let address = match bare {
            HOST_GATEWAY => HostAddress::Gateway,
            _ => bare
                .parse()
                .map(HostAddress::Ip)
                .map_err(|_| ValueError::new(format!("{address:?} is not an IP address")))?,
        };
        check_hostname(name)?;
        Ok(Self {
            name: name.to_owned(),
            address,
        })
    }
}

/// Whether Linux and /etc/hosts can hold a name.
pub(crate) fn check_hostname(name: &str) -> Result<(), ValueError> {
    let plain = name
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
    if plain && (1..=MAX_HOSTNAME).contains(&name.len()) {
        return Ok(());
    }
    Err(ValueError::new(
        "a host name is 1 to 64 letters, digits, '-', '_' and '.'",
    ))
}

/// `--label key=value`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    /// The key, never empty.
    pub key: String,
    /// The value, perhaps empty.
    pub value: String,
}

impl FromStr for Label {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let (key, value) = text.split_once('=').unwrap_or((text, ""));
        if key.is_empty() {
            return Err(ValueError::new("the key is empty"));
        }
        Ok(Self {
            key: key.to_owned(),
            value: value.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &str) -> Option<u64> {
        text.parse::<Bytes>().ok().map(|bytes| bytes.0)
    }

    #[test]
    fn sizes_have_units_of_1024() {
        assert_eq!(bytes("0"), Some(0));
        assert_eq!(bytes("4096"), Some(4096));
        assert_eq!(bytes("10b"), Some(10));
        assert_eq!(bytes("2k"), Some(2048));
        assert_eq!(bytes("128M"), Some(128 << 20));
        assert_eq!(bytes("1.5g"), Some(3 << 29));
        assert_eq!(bytes("1 GiB"), Some(1 << 30));
        assert_eq!(bytes("0.1k"), Some(102));
        assert_eq!(bytes("18446744073709551615"), Some(u64::MAX));
        for bad in [
            "",
            "m",
            "-1",
            "1x",
            "lots",
            ".5g",
            "1.g",
            "1e3",
            "1_000",
            "1 0",
            "17179869184g",
            "20000000t",
            "1..2k",
        ] {
            assert_eq!(bytes(bad), None, "{bad}");
        }
        assert_eq!(Bytes(3 << 29).to_string(), "1536MiB");
    }

    #[test]
    fn cpus_become_quota_and_whole_cpus() {
        let cpus = |text: &str| text.parse::<NanoCpus>();
        assert_eq!(cpus("1.5").unwrap().whole(), 2);
        assert_eq!(cpus("1.5").unwrap().quota_us(), 150_000);
        assert_eq!(cpus(".25").unwrap().quota_us(), 25_000);
        assert_eq!(cpus("0").unwrap().quota_us(), 0);
        assert_eq!(cpus("0.001").unwrap().quota_us(), 1000);
        for bad in [
            "",
            ".",
            "-1",
            "two",
            "1.2.3",
            "0.0000000001",
            "99999999999999999999",
        ] {
            assert!(cpus(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn signals_have_names_and_numbers() {
        let signal = |text: &str| text.parse::<Signal>().ok().map(|signal| signal.0);
        assert_eq!(signal("SIGTERM"), Some(15));
        let shown = |number| Signal(number).to_string();
        assert_eq!(
            [shown(15), shown(34), shown(37)],
            ["SIGTERM", "SIGRTMIN", "SIGRTMIN+3"]
        );
        assert_eq!(signal("kill"), Some(9));
        assert_eq!(signal("64"), Some(64));
        assert_eq!(signal("SIGSYS"), Some(31));
        assert_eq!(signal("RTMIN+3"), Some(37));
        assert_eq!(signal("SIGRTMAX-1"), Some(63));
        for (number, name) in [
            (1, "SIGHUP"),
            (16, "SIGSTKFLT"),
            (29, "SIGIO"),
            (31, "SIGSYS"),
        ] {
            assert_eq!((signal(name), shown(number)), (Some(number), name.into()));
        }
        assert_eq!(
            [signal("IOT"), signal("cld"), signal("POLL")],
            [Some(6), Some(17), Some(29)]
        );
        assert_eq!([shown(32), shown(64)], ["32", "SIGRTMIN+30"]);
        for bad in [
            "",
            "0",
            "65",
            "-9",
            "SIG",
            "SIGSIGTERM",
            "TERM ",
            "SIGFOO",
            "RTMIN+99",
            "RTMAX+1",
            "RTMIN-1",
            "RTMAX-99",
        ] {
            assert_eq!(signal(bad), None, "{bad}");
        }
    }

    #[test]
    fn ulimits_name_a_resource() {
        let ulimit = |text: &str| text.parse::<Ulimit>();
        let limit = ulimit("nofile=1024:2048").unwrap();
        assert_eq!((limit.resource, limit.soft, limit.hard), (7, 1024, 2048));
        assert_eq!(ulimit("core=-1").unwrap().hard, u64::MAX);
        let half = ulimit("nofile=5:-1").unwrap();
        assert_eq!((half.soft, half.hard), (5, u64::MAX));
        // What docker 28.2 says of them.
        for (bad, why) in [
            ("nofile", "invalid ulimit argument: nofile"),
            ("files=1", "invalid ulimit type: files"),
            ("NOFILE=1", "invalid ulimit type: NOFILE"),
            ("nofile=2:1", "less than or equal to hard limit: 2 > 1"),
            ("nofile=-1:5", "hard limit: soft: -1 (unlimited), hard: 5"),
            ("nofile=1:2:3", "too many limit value arguments - 1:2:3,"),
            ("nofile=x", "\"x\" is not a limit"),
            ("nofile=1:", "\"\" is not a limit"),
            ("nofile= 1", "\" 1\" is not a limit"),
            ("nofile=-2", "\"-2\" is not a limit"),
            ("nofile=99999999999999999999", "is not a limit"),
        ] {
            let error = ulimit(bad).unwrap_err();
            assert!(error.to_string().contains(why), "{bad}: {error}");
        }
    }

    #[test]
    fn tmpfs_paths_are_absolute_and_plain() {
        assert_eq!(
            "/x:size=1m".parse::<Tmpfs>().unwrap(),
            Tmpfs {
                path: "/x".into(),
                options: "size=1m".into()
            }
        );
        for bad in ["x", "/", "//", "/a/../b", ":size=1m"] {
            assert!(bad.parse::<Tmpfs>().is_err(), "{bad}");
        }
    }

    #[test]
    fn hosts_take_both_separators_and_both_families() {
        let entry: HostEntry = "db:10.0.0.1".parse().unwrap();
        assert_eq!(entry.name, "db");
        let entry: HostEntry = "v6=[fe80::1]".parse().unwrap();
        assert_eq!(entry.address.to_string(), "fe80::1");
        assert!("v6:fe80::1".parse::<HostEntry>().is_ok());
        for text in ["host:host-gateway", "host=host-gateway"] {
            let entry: HostEntry = text.parse().unwrap();
            assert_eq!(entry.address, HostAddress::Gateway, "{text}");
            assert_eq!(entry.address.to_string(), "host-gateway");
        }
        for bad in [
            "db",
            "db:",
            ":1.2.3.4",
            "db:host",
            "a b:1.2.3.4",
            "a\nb:1.2.3.4",
        ] {
            assert!(bad.parse::<HostEntry>().is_err(), "{bad}");
        }
    }
}
