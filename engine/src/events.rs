//! What happened, for whoever wants to know: one JSON object a line, in a file that everybody
//! appends to. There is no daemon that could be asked.
//!
//! The objects are those of Docker's API. The file is bounded: once it is large it becomes
//! `events.log.1`, and a new one begins.

use crate::paths::Roots;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

/// Size at which a new file is begun, in bytes.
const MAX_SIZE: u64 = 4 << 20;

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Event {
    /// `container` or `image`.
    #[serde(rename = "Type")]
    pub kind: String,
    /// `create`, `start`, `die` and so on.
    pub action: String,
    /// To whom.
    pub actor: Actor,
    /// Always `local`.
    #[serde(rename = "scope")]
    pub scope: String,
    /// Seconds since 1970.
    #[serde(rename = "time")]
    pub time_s: i64,
    /// Nanoseconds since 1970.
    #[serde(rename = "timeNano")]
    pub time_ns: i64,
}

/// Whom an event is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Actor {
    /// Full id.
    #[serde(rename = "ID")]
    pub id: String,
    /// Name, image, labels, exit code.
    pub attributes: BTreeMap<String, String>,
}

/// The newest file, and the one before it.
#[must_use]
pub fn paths(roots: &Roots) -> [PathBuf; 2] {
    ["events.log", "events.log.1"].map(|name| roots.data.join(name))
}

/// Notes that something happened now. Nobody is stopped by a failure to.
pub fn emit(
    roots: &Roots,
    kind: &str,
    action: &str,
    id: &str,
    attributes: BTreeMap<String, String>,
) {
    let now = chrono::Utc::now();
    let event = Event {
        kind: kind.to_owned(),
        action: action.to_owned(),
        actor: Actor {
            id: id.to_owned(),
            attributes,
        },
        scope: "local".to_owned(),
        time_s: now.timestamp(),
        time_ns: now.timestamp_nanos_opt().unwrap_or(0),
    };
    let _ = append(roots, &event);
}

fn append(roots: &Roots, event: &Event) -> io::Result<()> {
    let mut line = serde_json::to_vec(event)?;
    line.push(b'\n');
    let [newest, older] = paths(roots);
    let open = || {
        File::options()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&newest)
    };
    let mut file = open()?;
    if file.metadata()?.len() > MAX_SIZE {
        flock(&file, FlockOperation::LockExclusive)?;
        // Somebody may have been faster: then this name is a new, small file.
        if fs::metadata(&newest)?.len() > MAX_SIZE {
            fs::rename(&newest, older)?;
        }
        file = open()?;
    }
    // One call, so that lines of several writers do not mix.
    file.write_all(&line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_lines_and_their_file_is_bounded() {
        let dir = std::env::temp_dir().join(format!("hullbox-events-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let roots = Roots {
            data: dir.clone(),
            runtime: dir.clone(),
        };
        let attributes = BTreeMap::from([("name".to_owned(), "x".repeat(1000))]);
        for _ in 0..5000 {
            emit(&roots, "container", "start", "abc", attributes.clone());
        }
        let [newest, older] = paths(&roots);
        assert!(fs::metadata(&newest).unwrap().len() <= MAX_SIZE + 2000);
        let text = fs::read_to_string(&newest).unwrap();
        let event: Event = serde_json::from_str(text.lines().last().unwrap()).unwrap();
        assert_eq!(
            (event.kind.as_str(), event.action.as_str()),
            ("container", "start")
        );
        assert!(text.contains("\"ID\":\"abc\"") && older.exists());
        fs::remove_dir_all(dir).unwrap();
    }
}
