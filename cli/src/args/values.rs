//! Values of flags that several commands share.

use clap::{Args, ValueEnum};
use hullbox_engine::plan::security::SecurityOption;
use hullbox_engine::plan::units::{Bytes, ValueError};
use std::str::FromStr;

/// `--log-driver`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogDriver {
    // The empty one is Docker's word for no choice.
    #[value(aliases = ["local", ""])]
    JsonFile,
    None,
}

/// `--log-opt`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogOpt {
    MaxSize(u64),
    MaxFile(u32),
    /// Says what is so anyway.
    Same,
}

impl FromStr for LogOpt {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some(("max-size", size)) => {
                // As Docker has it.
                if size == "-1" {
                    return Ok(Self::MaxSize(u64::MAX));
                }
                let Bytes(bytes) = size.parse().map_err(|error| format!("max-size: {error}"))?;
                if bytes == 0 {
                    return Err("max-size must be more than 0, or -1 for no limit".to_owned());
                }
                Ok(Self::MaxSize(bytes))
            }
            Some(("max-file", count)) => match count.parse() {
                Ok(count @ 1..=1000) => Ok(Self::MaxFile(count)),
                _ => Err(format!(
                    "max-file: {count:?} is not a number from 1 to 1000"
                )),
            },
            // The log never holds a workload back, and no buffer is needed for that.
            Some(("mode", "blocking" | "non-blocking")) => Ok(Self::Same),
            Some(("mode", _)) => Err("mode is blocking or non-blocking".to_owned()),
            Some(("max-buffer-size", size)) => match size.parse::<Bytes>() {
                Ok(_) => Ok(Self::Same),
                Err(error) => Err(format!("max-buffer-size: {error}")),
            },
            Some(("compress", "false")) => Ok(Self::Same),
            Some(("compress", _)) => Err("log files are not compressed".to_owned()),
            Some((name @ ("labels" | "labels-regex" | "env" | "env-regex" | "tag"), _)) => Err(
                format!("{name} is not supported: lines carry no attributes"),
            ),
            Some((name, _)) => Err(format!("there is no log option {name:?}")),
            None => Err("expected max-size=SIZE or max-file=N".to_owned()),
        }
    }
}

/// `--detach-keys`.
#[derive(Debug, Clone)]
pub(crate) struct DetachKeys(pub(crate) Vec<u8>);

impl Default for DetachKeys {
    /// Docker's: Ctrl-P, Ctrl-Q.
    fn default() -> Self {
        Self(vec![16, 17])
    }
}

impl FromStr for DetachKeys {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut keys = Vec::new();
        for key in text.split(',').filter(|_| !text.is_empty()) {
            let byte = match key.as_bytes() {
                [byte] if byte.is_ascii() => *byte,
                [
                    b'c',
                    b't',
                    b'r',
                    b'l',
                    b'-',
                    letter @ (b'a'..=b'z' | b'@' | b'['..=b'_'),
                ] => letter & 0x1f,
                _ => return Err(format!("{key:?} is no key: a letter, or ctrl-X")),
            };
            keys.push(byte);
        }
        Ok(Self(keys))
    }
}

/// A value that may be empty, which is none, as in Docker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Given<T>(pub(crate) Option<T>);

impl<T: FromStr> FromStr for Given<T> {
    type Err = T::Err;

    fn from_str(text: &str) -> Result<Self, T::Err> {
        Ok(Self(match text {
            "" => None,
            text => Some(text.parse()?),
        }))
    }
}

/// The same for a value that is read by a function.
pub(crate) fn given<T, E>(
    read: impl Fn(&str) -> Result<T, E> + Clone + Send + Sync + 'static,
) -> impl Fn(&str) -> Result<Given<T>, E> + Clone + Send + Sync + 'static {
    move |text| match text {
        "" => Ok(Given(None)),
        text => read(text).map(|value| Given(Some(value))),
    }
}

/// `--storage-opt`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StorageOpt {
    /// Size of the writable layer.
    pub(crate) size: Bytes,
}

impl FromStr for StorageOpt {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some(("size", size)) => size
                .parse()
                .map(|size| Self { size })
                .map_err(|error| format!("{error}")),
            _ => Err("expected size=SIZE".to_owned()),
        }
    }
}

/// `--security-opt`, as typed too.
#[derive(Debug, Clone)]
pub(crate) struct SecurityOpt(pub(crate) String, pub(crate) SecurityOption);

impl FromStr for SecurityOpt {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        Ok(Self(text.to_owned(), text.parse()?))
    }
}

/// How `--timing` is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum TimingFormat {
    Table,
    Json,
}

/// `--timing`, of every command that starts or joins a process.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct TimingArgs {
    /// Show on standard error how long each phase took: as a table, or as a line of JSON
    #[arg(
        long,
        value_enum,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "table",
        hide_possible_values = true,
        value_name = "table|json"
    )]
    pub(crate) timing: Option<TimingFormat>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_options_are_dockers_or_refused_with_a_reason() {
        let option = |text: &str| text.parse::<LogOpt>();
        assert_eq!(option("max-size=1k"), Ok(LogOpt::MaxSize(1024)));
        assert_eq!(option("max-size=-1"), Ok(LogOpt::MaxSize(u64::MAX)));
        assert_eq!(option("max-file=1"), Ok(LogOpt::MaxFile(1)));
        for same in ["mode=non-blocking", "max-buffer-size=4m", "compress=false"] {
            assert_eq!(option(same), Ok(LogOpt::Same), "{same}");
        }
        for (bad, why) in [
            ("max-size=0", "more than 0"),
            ("max-size=x", "max-size"),
            ("max-file=0", "max-file"),
            ("tag=x", "not supported"),
            ("compress=true", "not compressed"),
            ("frob=1", "frob"),
            ("max-size", "expected"),
        ] {
            let error = option(bad).unwrap_err();
            assert!(error.contains(why), "{bad}: {error}");
        }
    }

    #[test]
    fn keys_are_letters_or_controls() {
        let keys = |text: &str| text.parse::<DetachKeys>().map(|keys| keys.0);
        assert_eq!(keys("ctrl-p,ctrl-q"), Ok(vec![16, 17]));
        assert_eq!(keys("a,ctrl-]"), Ok(vec![b'a', 29]));
        assert_eq!(keys(""), Ok(vec![]));
        assert!(keys("ctrl-pp").is_err());
    }
}
