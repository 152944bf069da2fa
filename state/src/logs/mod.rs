//! A container's log as it is on disk: one JSON object a line, as Docker's `json-file` driver
//! writes it, in a bounded number of files of bounded size.
//!
//! ```text
//! {"log":"hello\n","stream":"stdout","time":"2026-11-21T12:00:00.123456789Z"}
//! ```
//!
//! The newest file is `container.log`; `container.log.1` and so on are older. A file is never
//! written again once it has been renamed or unlinked. A line that is longer than 16 KiB, or
//! that waits for its end, is several objects, of which only the last one's `log` ends with a
//! newline and all but the first one have `continues`. What is not UTF-8 has U+FFFD in `log`, as
//! with Docker, and its bytes in `base64`. Docker's readers skip fields that they do not know.

mod backward;
mod follow;
mod reader;

pub use follow::LogFollower;
pub use reader::{LogError, LogReader};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hullbox_model::log::{LogLine, LogStream};
use serde::Deserialize;
use std::borrow::Cow;
use std::path::{Path, PathBuf};

/// The newest log file of a container.
#[must_use]
pub fn path(container_dir: &Path) -> PathBuf {
    container_dir.join("container.log")
}

/// An older one: 1 is the last before the newest.
#[must_use]
pub fn older(container_dir: &Path, number: u32) -> PathBuf {
    container_dir.join(format!("container.log.{number}"))
}

/// One object of the log.
#[derive(Deserialize)]
struct Object<'a> {
    #[serde(borrow)]
    log: Cow<'a, str>,
    stream: LogStream,
    #[serde(borrow)]
    time: Cow<'a, str>,
    #[serde(borrow)]
    base64: Option<Cow<'a, str>>,
    #[serde(default)]
    continues: bool,
}

/// Writes an object and its newline.
pub fn encode(to: &mut Vec<u8>, bytes: &[u8], stream: LogStream, continues: bool, time: &str) {
    let text = String::from_utf8_lossy(bytes);
    let name = match stream {
        LogStream::Stdout => "stdout",
        LogStream::Stderr => "stderr",
    };
    to.extend_from_slice(b"{\"log\":");
    // Writing a string to a vector cannot fail.
    let _ = serde_json::to_writer(&mut *to, &text);
    to.extend_from_slice(format!(",\"stream\":\"{name}\",\"time\":\"{time}\"").as_bytes());
    if matches!(text, Cow::Owned(_)) {
        to.extend_from_slice(format!(",\"base64\":\"{}\"", BASE64.encode(bytes)).as_bytes());
    }
    if continues {
        to.extend_from_slice(b",\"continues\":true");
    }
    to.extend_from_slice(b"}\n");
}

/// Reads an object. What is none was cut off by a full disk or a killed monitor.
fn decode(line: &[u8]) -> Option<LogLine> {
    let object: Object<'_> = serde_json::from_slice(line).ok()?;
    let bytes = object
        .base64
        .and_then(|text| BASE64.decode(text.as_bytes()).ok())
        .unwrap_or_else(|| object.log.into_owned().into_bytes());
    Some(LogLine {
        time_ns: hullbox_model::time::parse(&object.time).ok()?,
        stream: object.stream,
        partial: !bytes.ends_with(b"\n"),
        bytes,
        continues: object.continues,
    })
}

#[cfg(test)]
mod tests;
