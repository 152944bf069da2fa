//! The configuration file of the machine's initramfs.

use std::time::Duration;

const PATH: &str = "/machine/config";

/// See the contract.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Config {
    pub(super) root: String,
    pub(super) hostname: String,
    pub(super) modules: Option<String>,
    pub(super) volumes: Vec<String>,
    pub(super) data: Option<String>,
    pub(super) idle: Option<Duration>,
}

impl Config {
    /// What the file says; the defaults where it says nothing.
    pub(super) fn read() -> Self {
        Self::parse(&std::fs::read_to_string(PATH).unwrap_or_default())
    }

    fn parse(text: &str) -> Self {
        let mut config = Self {
            root: "host".into(),
            hostname: "hullbox-machine".into(),
            modules: None,
            volumes: Vec::new(),
            data: None,
            idle: None,
        };
        for (key, value) in text.lines().filter_map(|line| line.split_once('=')) {
            match key {
                "root" => config.root = value.into(),
                "hostname" => config.hostname = value.into(),
                "modules" => config.modules = Some(value.into()),
                "volume" => config.volumes.push(value.into()),
                "data" => config.data = Some(value.into()),
                "idle_s" => {
                    let seconds = value.parse().ok().filter(|&seconds| seconds > 0);
                    config.idle = seconds.map(Duration::from_secs);
                }
                _ => {}
            }
        }
        config
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_become_values() {
        let text = "root=r\nhostname=h\nmodules=/m\nvolume=/a=b\nvolume=/c d\nnew=1\nidle_s=9\n\n";
        let config = Config::parse(text);
        assert_eq!(config.root, "r");
        assert_eq!(config.volumes, ["/a=b", "/c d"]);
        assert_eq!(config.idle, Some(Duration::from_secs(9)));
        assert_eq!(config.data, None);
        assert_eq!(Config::parse("idle_s=0").idle, None);
    }
}
