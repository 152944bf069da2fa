//! Credential helpers (docker-credential-helpers' protocol): `docker-credential-NAME get`, with the
//! server's name on its input. Nothing secret is in an argument.

use super::credentials::Credentials;
use super::places::Places;
use super::secret::Secret;
use serde::{Deserialize, Serialize};
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// Longest answer, in bytes.
const MAX_ANSWER_BYTES: u64 = 1 << 20;
/// A helper may ask its user for a passphrase.
const PATIENCE: Duration = Duration::from_secs(120);
/// What a helper says if it knows nothing of a server.
const UNKNOWN: &str = "credentials not found";
/// The user's name of an identity token.
const TOKEN_USER: &str = "<token>";

/// What a helper did instead; no word of its output, which may be secret.
#[derive(Debug)]
pub(super) struct HelperError(pub String);

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Entry<'a> {
    #[serde(rename = "ServerURL", default)]
    server: std::borrow::Cow<'a, str>,
    username: std::borrow::Cow<'a, str>,
    secret: std::borrow::Cow<'a, str>,
}

/// What a helper has for a server.
pub(super) fn get(
    places: &Places,
    name: &str,
    server: &str,
) -> Result<Option<Credentials>, HelperError> {
    let (is_ok, answer) = run(places, name, "get", server.as_bytes())?;
    if !is_ok {
        if String::from_utf8_lossy(&answer).contains(UNKNOWN) {
            return Ok(None);
        }
        return Err(HelperError("it failed".to_owned()));
    }
    let entry: Entry<'_> = serde_json::from_slice(&answer)
        .map_err(|_| HelperError("its answer is not the JSON of a helper".to_owned()))?;
    if entry.username.is_empty() && entry.secret.is_empty() {
        return Ok(None);
    }
    let secret = Secret::new(entry.secret);
    Ok(Some(if entry.username == TOKEN_USER {
        Credentials::Identity(secret)
    } else {
        Credentials::Password {
            user: entry.username.into_owned(),
            password: secret,
        }
    }))
}

/// Has a helper keep credentials.
pub(super) fn store(
    places: &Places,
    name: &str,
    server: &str,
    credentials: &Credentials,
) -> Result<(), HelperError> {
    let (username, secret) = match credentials {
        Credentials::Password { user, password } => (user.as_str(), password.reveal()),
        Credentials::Identity(token) => (TOKEN_USER, token.reveal()),
    };
    let entry = Entry {
        server: server.into(),
        username: username.into(),
        secret: secret.into(),
    };
    let input = serde_json::to_vec(&entry).map_err(|error| HelperError(error.to_string()))?;
    match run(places, name, "store", &input)? {
        (true, _) => Ok(()),
        (false, _) => Err(HelperError("it failed to keep them".to_owned())),
    }
}

/// Has a helper forget a server. `false` if it knew nothing of it.
pub(super) fn erase(places: &Places, name: &str, server: &str) -> Result<bool, HelperError> {
    match run(places, name, "erase", server.as_bytes())? {
        (true, _) => Ok(true),
        (false, answer) if String::from_utf8_lossy(&answer).contains(UNKNOWN) => Ok(false),
        (false, _) => Err(HelperError("it failed to forget them".to_owned())),
    }
}

/// The helper's program, found as a shell finds it.
fn program(places: &Places, name: &str) -> Result<PathBuf, HelperError> {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if name.is_empty() || !name.bytes().all(is_plain) {
        return Err(HelperError("that is not the name of a helper".to_owned()));
    }
    let file = format!("docker-credential-{name}");
    let path = places
        .variable("PATH")
        .unwrap_or("/usr/local/bin:/usr/bin:/bin");
    std::env::split_paths(path)
        .filter(|directory| directory.is_absolute())
        .map(|directory| directory.join(&file))
        .find(|path| path.is_file())
        .ok_or_else(|| HelperError("it is not installed".to_owned()))
}

/// Whether the helper succeeded, and what it wrote.
fn run(
    places: &Places,
    name: &str,
    verb: &str,
    input: &[u8],
) -> Result<(bool, Vec<u8>), HelperError> {
    let failed = |error: std::io::Error| HelperError(format!("it cannot be run: {error}"));
    let mut child = Command::new(program(places, name)?)
        .arg(verb)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(failed)?;
    let answer = converse(&mut child, input);
    if answer.is_none() {
        // It may have ended meanwhile.
        let _ = child.kill();
    }
    let status = child.wait().map_err(failed)?;
    match answer {
        Some(answer) => Ok((status.success(), answer)),
        None => Err(HelperError(format!(
            "it gave no answer within {} s",
            PATIENCE.as_secs()
        ))),
    }
}

/// Hands a helper its input and takes what it writes until its output ends.
fn converse(child: &mut Child, input: &[u8]) -> Option<Vec<u8>> {
    let mut stdout = child.stdout.take()?;
    let mut stdin = child.stdin.take()?;
    // A helper that does not read fails by itself; its answer tells.
    let _ = stdin.write_all(input);
    drop(stdin);
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut answer = Vec::new();
        let end = stdout
            .by_ref()
            .take(MAX_ANSWER_BYTES)
            .read_to_end(&mut answer);
        // Nobody waits any more: then nobody needs it.
        let _ = sender.send(end.map(|_| answer));
    });
    receiver.recv_timeout(PATIENCE).ok()?.ok()
}
