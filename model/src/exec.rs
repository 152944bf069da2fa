//! A process beside the workload, in the shape of Docker's `/exec/ID/json`.

use serde::{Deserialize, Serialize};

/// What is known of an exec.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ExecInspect {
    /// 64 hexadecimal digits.
    #[serde(rename = "ID")]
    pub id: String,
    /// It was started and has not ended.
    pub running: bool,
    /// `null` until it has ended.
    pub exit_code: Option<u8>,
    /// What it runs.
    pub process_config: ProcessConfig,
    /// Its input is kept open.
    pub open_stdin: bool,
    /// Its client reads standard error.
    pub open_stderr: bool,
    /// Its client reads standard output.
    pub open_stdout: bool,
    /// It has ended, and is forgotten when there are many newer ones.
    pub can_remove: bool,
    /// The container's full id.
    #[serde(rename = "ContainerID")]
    pub container_id: String,
    /// Always empty: the keys are the client's own business.
    pub detach_keys: String,
    /// Process id, as the container's parent process sees it; 0 before it runs.
    pub pid: u32,
}

/// What an exec runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessConfig {
    /// On a terminal.
    pub tty: bool,
    /// The program.
    pub entrypoint: String,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// With all capabilities.
    pub privileged: bool,
    /// As whom, if that was said.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub user: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keys_are_dockers() {
        let value = serde_json::to_value(ExecInspect::default()).unwrap();
        let mut keys: Vec<_> = value.as_object().unwrap().keys().cloned().collect();
        keys.sort();
        let mut dockers = [
            "ID",
            "Running",
            "ExitCode",
            "ProcessConfig",
            "OpenStdin",
            "OpenStderr",
            "OpenStdout",
            "CanRemove",
            "ContainerID",
            "DetachKeys",
            "Pid",
        ];
        dockers.sort_unstable();
        assert_eq!(keys, dockers);
        assert!(value["ExitCode"].is_null());
    }
}
