//! What can go wrong between here and a registry. No text of these holds a credential or the query
//! of a URL: storage behind registries signs its links there.

use crate::manifest::ManifestError;
use hullbox_model::digest::Digest;
use std::fmt;
use std::path::PathBuf;

/// Why a request got no usable answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// No connection.
    #[error("cannot connect to {host}")]
    Connect {
        /// Host and port.
        host: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The proxy on the way, and not the host.
    #[error("cannot reach {host}: {why}")]
    Proxy {
        /// Host and port.
        host: String,
        /// The proxy, the variable that names it, and what it does.
        why: String,
    },
    /// The connection ended early or what came over it is no HTTP.
    #[error("the connection to {host} failed")]
    Broken {
        /// Host and port.
        host: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Nothing came in time, or too little.
    #[error("{host} sent {what} for {seconds} s")]
    Stalled {
        /// Host and port.
        host: String,
        /// `nothing`, or `almost nothing`.
        what: &'static str,
        /// For how long, in seconds.
        seconds: u64,
    },
    /// An answer that says no.
    #[error("{host} answered {status}{}", detail(.message))]
    Status {
        /// Host and port.
        host: String,
        /// HTTP's status.
        status: u16,
        /// What the registry says of it, if anything.
        message: String,
    },
    /// 429, after waiting as long as is sensible.
    #[error("{host} allows no more requests now{}{}", detail(.limit), detail(.message))]
    TooManyRequests {
        /// Host and port.
        host: String,
        /// The limit that the registry names.
        limit: String,
        /// What the registry says of it, if anything.
        message: String,
    },
    /// The registry wants a login, or another one.
    #[error("{host} denies access{}", detail(.message))]
    Denied {
        /// Host and port.
        host: String,
        /// What the registry says of it, if anything.
        message: String,
        /// Whether credentials were sent.
        has_credentials: bool,
    },
    /// A challenge that cannot be answered.
    #[error("{host} asks for a login in a way that is not supported: {challenge}")]
    Challenge {
        /// Host and port.
        host: String,
        /// What of it is not.
        challenge: String,
    },
    /// A redirect that is not followed.
    #[error("{host} redirects {why}")]
    Redirect {
        /// Host and port.
        host: String,
        /// What is wrong with it.
        why: String,
    },
    /// An answer larger than it may be.
    #[error("{host} sent more than {limit_bytes} bytes for {what}")]
    TooLarge {
        /// Host and port.
        host: String,
        /// What was asked for.
        what: &'static str,
        /// The limit, in bytes.
        limit_bytes: u64,
    },
    /// An answer that does not follow the protocol.
    #[error("{host} sent an answer that makes no sense: {what}")]
    Protocol {
        /// Host and port.
        host: String,
        /// What of it.
        what: String,
    },
    /// Certificates or credentials of this host that cannot be used.
    #[error(transparent)]
    Settings(#[from] crate::settings::error::SettingsError),
}

/// `: text`, or nothing.
fn detail(text: &str) -> String {
    if text.is_empty() {
        String::new()
    } else {
        format!(": {text}")
    }
}

/// A registry or mirror that was asked, and why it did not serve.
#[derive(Debug)]
pub struct Attempt {
    /// Which image there: `registry-1.docker.io/library/debian:12`. Empty if it is what was asked
    /// for by name.
    pub asked: String,
    /// Why not.
    pub why: RequestError,
}

/// The error with all its causes, as one line.
impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.asked.is_empty() {
            write!(f, "{}: ", self.asked)?;
        }
        write!(f, "{}", chain(&self.why))
    }
}

/// An error with its causes, as one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // HTTP's and TLS's errors repeat their causes.
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

/// Why an image or a blob is not served by any of the places it may come from.
#[derive(Debug)]
pub struct Tried(pub Vec<Attempt>);

impl Tried {
    /// Whether every place was reached and says that there is no such thing.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        !self.0.is_empty()
            && self
                .0
                .iter()
                .all(|one| matches!(one.why, RequestError::Status { status: 404, .. }))
    }

    /// Whether a place denied access.
    #[must_use]
    pub fn is_denied(&self) -> bool {
        self.0
            .iter()
            .any(|one| matches!(one.why, RequestError::Denied { .. }))
    }
}

impl fmt::Display for Tried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, attempt) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "; " };
            write!(f, "{comma}{attempt}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Tried {}

/// Why an image's name leads to no image.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ResolveError {
    /// `registries.conf` forbids it.
    #[error("{name} is blocked by registries.conf")]
    Blocked {
        /// The image.
        name: String,
    },
    /// `policy.json` or the key that was given refuses it.
    #[error("{name} is refused")]
    Policy {
        /// The image.
        name: String,
        /// Why.
        #[source]
        source: PolicyError,
    },
    /// There is no such image where it should be.
    #[error("{name} was not found")]
    NotFound {
        /// The image.
        name: String,
        /// Where it was looked for.
        #[source]
        source: Tried,
    },
    /// Nobody gave it.
    #[error("cannot get {name}")]
    Unavailable {
        /// The image.
        name: String,
        /// What was tried.
        #[source]
        source: Tried,
    },
    /// It is there, for others.
    #[error("{name} has no image for {platform}{}", detail(.offers))]
    NoPlatform {
        /// The image.
        name: String,
        /// What was asked for.
        platform: String,
        /// What there is: `it is for linux/arm64, …`, or nothing.
        offers: String,
    },
    /// What came is no image.
    #[error("{name} cannot be used")]
    Manifest {
        /// The image.
        name: String,
        /// Why.
        #[source]
        source: ManifestError,
    },
    /// Indexes in indexes without end.
    #[error("{name} has indexes in indexes, deeper than {limit}")]
    TooDeep {
        /// The image.
        name: String,
        /// The limit.
        limit: usize,
    },
}

/// Why an image is not trusted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// The policy says so.
    #[error("policy.json rejects it")]
    Rejected,
    /// A requirement that cannot be checked.
    #[error("policy.json demands {0:?}, which is not supported")]
    Unsupported(String),
    /// A key that is none.
    #[error("{} is not a public key in PEM that can be used: {why}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A key that cannot be read.
    #[error("cannot read the key {}", path.display())]
    KeyFile {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Nobody has signed it.
    #[error("it has no signature")]
    Unsigned,
    /// Signatures are there, but none that counts.
    #[error("none of its {count} signatures is valid: {why}")]
    NoValidSignature {
        /// How many there are.
        count: usize,
        /// What is wrong with the last one.
        why: String,
    },
    /// Signatures cannot be had.
    #[error("cannot get its signatures")]
    Signatures(#[source] Box<ResolveError>),
}

/// Why a blob did not come, whole and right.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BlobError {
    /// Nobody gave it.
    #[error("cannot download {digest}")]
    Unavailable {
        /// The blob.
        digest: Digest,
        /// What was tried.
        #[source]
        source: Tried,
    },
    /// Other bytes came.
    #[error("{from} sent other bytes than {digest}: they are {found}")]
    WrongDigest {
        /// Who sent it.
        from: String,
        /// The blob.
        digest: Digest,
        /// What came.
        found: Digest,
    },
    /// More bytes or fewer.
    #[error("{from} sent {found} bytes of {digest}, which has {expected}")]
    WrongLength {
        /// Who sent it.
        from: String,
        /// The blob.
        digest: Digest,
        /// Its length, in bytes.
        expected: u64,
        /// What came or was announced: `more`, or a number.
        found: String,
    },
    /// It is wanted in one piece and too large for that.
    #[error("{digest} has {size_bytes} bytes, and at most {limit_bytes} are read at once")]
    TooLarge {
        /// The blob.
        digest: Digest,
        /// Its length, in bytes.
        size_bytes: u64,
        /// The limit, in bytes.
        limit_bytes: u64,
    },
    /// Blocked by `registries.conf`.
    #[error("{name} is blocked by registries.conf")]
    Blocked {
        /// The image.
        name: String,
    },
}

/// Why something was not pushed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PushError {
    /// The registry did not take it.
    #[error("cannot push {what} to {target}")]
    Request {
        /// The blob or manifest.
        what: String,
        /// Where to.
        target: String,
        /// Why.
        #[source]
        source: RequestError,
    },
    /// What is to be pushed cannot be read.
    #[error("cannot read {digest}")]
    Source {
        /// The blob.
        digest: Digest,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// What was read is something else than was announced.
    #[error("{digest} is damaged: its bytes are {found}")]
    Damaged {
        /// The blob.
        digest: Digest,
        /// What its bytes are.
        found: String,
    },
    /// The registry names another digest than what it was given has.
    #[error("{target} stored {found} where {digest} was pushed")]
    OtherDigest {
        /// Where to.
        target: String,
        /// What was pushed.
        digest: Digest,
        /// What the registry says.
        found: String,
    },
    /// Blocked by `registries.conf`.
    #[error("{name} is blocked by registries.conf")]
    Blocked {
        /// The image.
        name: String,
    },
}

/// Why a login did not come about.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoginError {
    /// Not the name of a registry.
    #[error("{0:?} is not the name of a registry")]
    Server(String),
    /// The registry does not take them.
    #[error("login to {server} failed: it does not accept this user name and password")]
    Refused {
        /// The registry.
        server: String,
    },
    /// The registry was not reached.
    #[error("login to {server} failed")]
    Request {
        /// The registry.
        server: String,
        /// Why.
        #[source]
        source: RequestError,
    },
    /// They cannot be kept.
    #[error("cannot keep the credentials of {server}")]
    Store {
        /// The registry.
        server: String,
        /// Why.
        #[source]
        source: crate::settings::error::SettingsError,
    },
}

/// A cause that is kept as text.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Cause(pub String);
