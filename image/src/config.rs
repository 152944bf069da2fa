//! Reading an image's configuration: the specification's, as Go programs write it.

use crate::health::{HealthCheck, HealthCheckError};
use oci_spec::image::ImageConfiguration;
use serde_json::{Map, Value, json};

/// The name as any configuration writes it; escapes in it are nobody's habit.
const KEY: &[u8] = b"\"Healthcheck\"";

/// Parses a configuration. Empty lists and maps that Go wrote as `null` are empty, and a platform
/// left out is the one Docker takes it for.
pub(crate) fn parse(bytes: &[u8]) -> Result<ImageConfiguration, serde_json::Error> {
    let mut document: Value = serde_json::from_slice(bytes)?;
    if let Value::Object(fields) = &mut document {
        default(fields, "architecture", json!("amd64"));
        default(fields, "os", json!("linux"));
        if let Some(Value::Object(rootfs)) = fields.get_mut("rootfs") {
            default(rootfs, "diff_ids", json!([]));
        }
        if let Some(Value::Object(config)) = fields.get_mut("config") {
            for set in ["ExposedPorts", "Volumes"] {
                if let Some(Value::Object(members)) = config.get_mut(set) {
                    members.values_mut().for_each(|value| *value = json!({}));
                }
            }
        }
    }
    serde_json::from_value(document)
}

/// The `HEALTHCHECK` of a configuration that [`parse`] takes.
pub(crate) fn health(bytes: &[u8]) -> Option<Result<HealthCheck, HealthCheckError>> {
    #[derive(serde::Deserialize)]
    struct Document {
        config: Option<Value>,
    }
    // Most images have none, and every start comes here: one look, and no second parsing.
    bytes
        .windows(KEY.len())
        .any(|window| window == KEY)
        .then(|| serde_json::from_slice::<Document>(bytes).ok()?.config)
        .flatten()
        .and_then(|config| HealthCheck::of_config(&config))
}

fn default(fields: &mut Map<String, Value>, key: &str, value: Value) {
    let field = fields.entry(key).or_insert(Value::Null);
    if field.is_null() {
        *field = value;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_go_leaves_out_is_empty() {
        let config = parse(
            br#"{"config": {"Volumes": {"/a": null}, "Env": null, "ExposedPorts": null},
                 "history": null, "rootfs": {"type": "layers", "diff_ids": null}}"#,
        )
        .unwrap();
        assert!(config.rootfs().diff_ids().is_empty());
        assert_eq!(
            (config.os().to_string(), config.architecture().to_string()),
            ("linux".into(), "amd64".into())
        );
        let volumes = config.config().as_ref().unwrap().volumes().clone();
        assert_eq!(volumes, Some(vec!["/a".to_owned()]));
        for bad in [
            "",
            "[]",
            "{}",
            "null",
            r#"{"rootfs": {"type": "layers", "diff_ids": 1}}"#,
        ] {
            assert!(parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
