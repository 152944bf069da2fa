//! An image, in the shape of Docker's `/images/NAME/json`.

use crate::container::{Config, Empty, GraphDriver, Set, fill_config};
use crate::health::HealthConfig;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// All that is known of an image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Inspect {
    /// `sha256:` and 64 hexadecimal digits.
    pub id: String,
    /// Its names.
    pub repo_tags: Vec<String>,
    /// Its names with the digest of its manifest.
    pub repo_digests: Vec<String>,
    /// Always empty: what it was built on is not kept.
    pub parent: String,
    /// What its maker said of its last step.
    pub comment: String,
    /// When it was made, if it says so.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub created: String,
    /// Always empty.
    pub docker_version: String,
    /// Who made it.
    pub author: String,
    /// How it wants to be run.
    pub config: Config,
    /// For which processor.
    pub architecture: String,
    /// For which kind of it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub variant: String,
    /// For which system.
    pub os: String,
    /// Bytes of the files in all its layers.
    pub size: u64,
    /// The same.
    pub virtual_size: u64,
    /// What holds its layers.
    pub graph_driver: GraphDriver,
    /// Its layers.
    #[serde(rename = "RootFS")]
    pub root_fs: RootFs,
    /// What this store knows of it.
    pub metadata: Metadata,
}

/// What a listing tells of an image: `/images/json`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Summary {
    /// `sha256:` and 64 hexadecimal digits.
    pub id: String,
    /// Always empty: what it was built on is not kept.
    pub parent_id: String,
    /// Its names.
    pub repo_tags: Vec<String>,
    /// Its names with the digest of its manifest.
    pub repo_digests: Vec<String>,
    /// When it says it was made, in seconds since 1970, or [`crate::time::NEVER_S`].
    pub created: i64,
    /// Bytes of the files in all its layers.
    pub size: u64,
    /// Always -1: not counted.
    pub shared_size: i64,
    /// Its labels.
    pub labels: Option<BTreeMap<String, String>>,
    /// Containers that are made from it; -1 where they were not counted.
    pub containers: i64,
}

/// A step that made an image: an element of `/images/NAME/history`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct HistoryItem {
    /// The image on its topmost step, else `<missing>`.
    pub id: String,
    /// When it was done, in seconds since 1970, or [`crate::time::NEVER_S`].
    pub created: i64,
    /// What was done.
    pub created_by: String,
    /// Names of that image.
    pub tags: Option<Vec<String>>,
    /// Bytes of the files in its layer.
    pub size: u64,
    /// What was said of it.
    pub comment: String,
}

/// An image's layers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct RootFs {
    /// `layers`.
    #[serde(rename = "Type")]
    pub kind: String,
    /// Digests of their archives, lowest first.
    pub layers: Vec<String>,
}

/// What a store knows of an image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Metadata {
    /// When it was last given a name.
    pub last_tag_time: String,
}

impl Inspect {
    /// As a template sees it: what JSON leaves out is a field without a value.
    ///
    /// # Errors
    /// None is known.
    pub fn to_template(&self) -> serde_json::Result<Value> {
        let mut value = serde_json::to_value(self)?;
        for (name, text) in [("Created", &self.created), ("Variant", &self.variant)] {
            value[name] = text.as_str().into();
        }
        value["OsVersion"] = "".into();
        fill_config(&mut value["Config"]);
        Ok(value)
    }
}

/// Reads the `config` object of an image's configuration. An image's author may write anything
/// there: a field of the wrong kind is as if it were not there.
#[must_use]
pub fn read_config(config: &Value) -> Config {
    Config {
        hostname: field(config, "Hostname"),
        domainname: field(config, "Domainname"),
        user: field(config, "User"),
        attach_stdin: field(config, "AttachStdin"),
        attach_stdout: field(config, "AttachStdout"),
        attach_stderr: field(config, "AttachStderr"),
        exposed_ports: set(config, "ExposedPorts"),
        tty: field(config, "Tty"),
        open_stdin: field(config, "OpenStdin"),
        stdin_once: field(config, "StdinOnce"),
        env: field(config, "Env"),
        cmd: field(config, "Cmd"),
        healthcheck: config.get("Healthcheck").and_then(read_health),
        args_escaped: field(config, "ArgsEscaped"),
        image: field(config, "Image"),
        volumes: set(config, "Volumes"),
        working_dir: field(config, "WorkingDir"),
        entrypoint: field(config, "Entrypoint"),
        on_build: field(config, "OnBuild"),
        labels: field(config, "Labels"),
        stop_signal: field(config, "StopSignal"),
        stop_timeout: field(config, "StopTimeout"),
        shell: field(config, "Shell"),
    }
}

/// Reads a `Healthcheck` object.
#[must_use]
pub fn read_health(check: &Value) -> Option<HealthConfig> {
    HealthConfig::deserialize(check).ok()
}

fn field<T: DeserializeOwned + Default>(config: &Value, name: &str) -> T {
    config
        .get(name)
        .and_then(|value| T::deserialize(value).ok())
        .unwrap_or_default()
}

/// Go programs write `{}`, `null` or nothing for the members of a set.
fn set(config: &Value, name: &str) -> Option<Set> {
    let members: Option<BTreeMap<String, Value>> = field(config, name);
    Some(members?.into_keys().map(|key| (key, Empty {})).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_an_images_author_writes_is_taken_where_it_makes_sense() {
        let config = read_config(&json!({
            "Env": ["A=1"],
            "Cmd": "not a list",
            "Volumes": { "/data": null, "/more": {} },
            "ExposedPorts": [],
            "Labels": null,
            "OnBuild": [1, 2],
            "Healthcheck": { "Test": ["CMD", "true"], "Interval": "often" },
            "Entrypoint": ["sh"],
        }));
        let wanted = Config {
            env: Some(vec!["A=1".to_owned()]),
            volumes: Some(Set::from([
                ("/data".to_owned(), Empty {}),
                ("/more".to_owned(), Empty {}),
            ])),
            entrypoint: Some(vec!["sh".to_owned()]),
            ..Config::default()
        };
        assert_eq!(config, wanted);
        assert_eq!(read_config(&Value::Null), Config::default());
    }

    #[test]
    fn a_time_that_nobody_knows_is_left_out_of_json_only() {
        let image = Inspect::default();
        let json = serde_json::to_value(&image).unwrap();
        assert!(json.get("Created").is_none() && json["Config"].get("Healthcheck").is_none());
        let template = image.to_template().unwrap();
        assert_eq!(template["Created"], "");
        assert!(template["Config"]["Healthcheck"].is_null());
    }
}
