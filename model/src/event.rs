//! Events: what happened to containers and images, in the shape of Docker's `/events`.

mod filter;

pub use filter::{EventFilter, KEYS};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt;

/// What kind of object an event is about. What a newer program writes is kept as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum Kind {
    /// A container.
    Container,
    /// An image.
    Image,
    /// A network.
    Network,
    /// A volume.
    Volume,
    /// Something else, by Docker's word.
    Other(String),
}

impl Kind {
    /// Docker's word.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Container => "container",
            Self::Image => "image",
            Self::Network => "network",
            Self::Volume => "volume",
            Self::Other(word) => word,
        }
    }
}

impl From<String> for Kind {
    fn from(word: String) -> Self {
        match word.as_str() {
            "container" => Self::Container,
            "image" => Self::Image,
            "network" => Self::Network,
            "volume" => Self::Volume,
            _ => Self::Other(word),
        }
    }
}

impl From<Kind> for String {
    fn from(kind: Kind) -> Self {
        kind.as_str().to_owned()
    }
}

/// Declares [`Verb`] with Docker's word for each.
macro_rules! verbs {
    ($($(#[$doc:meta])* $name:ident = $word:literal,)*) => {
        /// What happened, without its detail.
        #[derive(Debug, Clone, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum Verb {
            $($(#[$doc])* $name,)*
            /// A word that this program does not know.
            Other(String),
        }

        impl Verb {
            /// Docker's word.
            #[must_use]
            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::$name => $word,)*
                    Self::Other(word) => word,
                }
            }

            fn parse(word: &str) -> Self {
                match word {
                    $($word => Self::$name,)*
                    _ => Self::Other(word.to_owned()),
                }
            }
        }
    };
}

verbs! {
    /// A client was attached to the streams.
    Attach = "attach",
    /// A path was copied out.
    ArchivePath = "archive-path",
    /// Saved as a snapshot.
    Checkpoint = "checkpoint",
    /// An image was made of it.
    Commit = "commit",
    /// A container was put into a network.
    Connect = "connect",
    /// Made.
    Create = "create",
    /// Removed (an image).
    Delete = "delete",
    /// Removed (a container, a network, a volume).
    Destroy = "destroy",
    /// A client left by its detach keys.
    Detach = "detach",
    /// A container was taken out of a network.
    Disconnect = "disconnect",
    /// The workload ended.
    Die = "die",
    /// A process beside the workload was asked for; the detail is its command.
    ExecCreate = "exec_create",
    /// A client left such a process by its detach keys.
    ExecDetach = "exec_detach",
    /// Such a process ended.
    ExecDie = "exec_die",
    /// Such a process is started; the detail is its command.
    ExecStart = "exec_start",
    /// Its root filesystem was written out.
    Export = "export",
    /// An archive was unpacked in it.
    ExtractToDir = "extract-to-dir",
    /// Its health changed; the detail is the new status.
    HealthStatus = "health_status",
    /// Made of an archive of files.
    Import = "import",
    /// A signal was sent to the workload.
    Kill = "kill",
    /// Read from an archive of images.
    Load = "load",
    /// A container that is started has a volume.
    Mount = "mount",
    /// The out-of-memory killer was at work in it.
    Oom = "oom",
    /// Frozen.
    Pause = "pause",
    /// What was not in use was removed.
    Prune = "prune",
    /// Fetched from a registry.
    Pull = "pull",
    /// Sent to a registry.
    Push = "push",
    /// A container was refused something by its network; ours, Docker has no such event.
    Refuse = "refuse",
    /// Given another name.
    Rename = "rename",
    /// Its terminal has another size.
    Resize = "resize",
    /// Stopped and started.
    Restart = "restart",
    /// Written to an archive.
    Save = "save",
    /// The workload runs.
    Start = "start",
    /// Stopped by `stop`.
    Stop = "stop",
    /// Given a name.
    Tag = "tag",
    /// Its processes were listed.
    Top = "top",
    /// A container that has a volume ended.
    Unmount = "unmount",
    /// Goes on.
    Unpause = "unpause",
    /// Lost a name.
    Untag = "untag",
    /// Its limits or its restart policy changed.
    Update = "update",
}

/// What happened: Docker's `Action`, such as `start` or `health_status: healthy`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct Action {
    /// The word.
    pub verb: Verb,
    /// What follows the colon; empty without one.
    pub detail: String,
}

impl Action {
    /// A verb with a detail, such as an exec's command.
    #[must_use]
    pub fn with(verb: Verb, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        Self { verb, detail }
    }
}

impl From<Verb> for Action {
    fn from(verb: Verb) -> Self {
        Self::with(verb, "")
    }
}

impl From<String> for Action {
    fn from(text: String) -> Self {
        match text.split_once(": ") {
            Some((verb, detail)) => Self::with(Verb::parse(verb), detail),
            None => Verb::parse(&text).into(),
        }
    }
}

impl From<Action> for String {
    fn from(action: Action) -> Self {
        action.to_string()
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.verb.as_str())?;
        if !self.detail.is_empty() {
            write!(f, ": {}", self.detail)?;
        }
        Ok(())
    }
}

/// Names of attributes, beside the labels.
pub mod attribute {
    /// Name of the container, or of the image as it was typed.
    pub const NAME: &str = "name";
    /// The container's image, as it was typed.
    pub const IMAGE: &str = "image";
    /// Exit code, of `die` and `exec_die`.
    pub const EXIT_CODE: &str = "exitCode";
    /// How long the workload ran, in seconds, of `die`.
    pub const EXEC_DURATION: &str = "execDuration";
    /// Signal number, of `kill`.
    pub const SIGNAL: &str = "signal";
    /// Which exec, of `exec_*`.
    pub const EXEC_ID: &str = "execID";
    /// The name before, with Docker's slash, of `rename`.
    pub const OLD_NAME: &str = "oldName";
    /// The new image's id, of `commit`.
    pub const IMAGE_ID: &str = "imageID";
    /// The new image's name, of `commit`.
    pub const IMAGE_REF: &str = "imageRef";
    /// The message, of `commit`.
    pub const COMMENT: &str = "comment";
    /// The path in the container, of `archive-path` and `extract-to-dir`.
    pub const PATH: &str = "path";
    /// Bytes that were given back, of `prune`.
    pub const RECLAIMED: &str = "reclaimed";

    /// The container's full id, of a network's `connect`, `disconnect` and `refuse`.
    pub const CONTAINER: &str = "container";
    /// The container's name, of `refuse`.
    pub const CONTAINER_NAME: &str = "containerName";
    /// What was refused.
    pub const TARGET: &str = "target";
    /// Why, in words.
    pub const REASON: &str = "reason";
    /// The rule that decided, if one did.
    pub const RULE: &str = "rule";
    /// How many other refusals there were before, of which there is no event because they were too many.
    pub const UNTOLD: &str = "untold";
    /// A network's driver.
    pub const TYPE: &str = "type";
    /// A volume's driver.
    pub const DRIVER: &str = "driver";
    /// Where a volume is mounted, of `mount`.
    pub const DESTINATION: &str = "destination";
    /// How it is mounted there.
    pub const PROPAGATION: &str = "propagation";
    /// Whether it can be written there.
    pub const READ_WRITE: &str = "read/write";

    /// All of them.
    pub const ALL: [&str; 23] = [
        NAME,
        IMAGE,
        EXIT_CODE,
        EXEC_DURATION,
        SIGNAL,
        EXEC_ID,
        OLD_NAME,
        IMAGE_ID,
        IMAGE_REF,
        COMMENT,
        PATH,
        RECLAIMED,
        CONTAINER,
        CONTAINER_NAME,
        TARGET,
        REASON,
        RULE,
        UNTOLD,
        TYPE,
        DRIVER,
        DESTINATION,
        PROPAGATION,
        READ_WRITE,
    ];
}

/// Whom an event is about.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Actor {
    /// Full id.
    #[serde(rename = "ID")]
    pub id: String,
    /// See [`attribute`]; of a container its labels too.
    pub attributes: BTreeMap<String, String>,
}

/// Something that happened. Serialised it is a line of the event log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Event {
    /// To what kind of object.
    #[serde(rename = "Type")]
    pub kind: Kind,
    /// What.
    pub action: Action,
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

impl Event {
    /// One that happened at this time, in nanoseconds since 1970.
    #[must_use]
    pub fn new(kind: Kind, action: impl Into<Action>, actor: Actor, time_ns: i64) -> Self {
        Self {
            kind,
            action: action.into(),
            actor,
            scope: "local".to_owned(),
            time_s: time_ns.div_euclid(1_000_000_000),
            time_ns,
        }
    }

    /// The same with one attribute more.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.actor.attributes.insert(name.to_owned(), value.into());
        self
    }

    /// An attribute.
    #[must_use]
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.actor.attributes.get(name).map(String::as_str)
    }

    /// The exit code of `die` and `exec_die`.
    #[must_use]
    pub fn exit_code(&self) -> Option<u8> {
        self.attribute(attribute::EXIT_CODE)?.parse().ok()
    }

    /// As Docker's API gives it: with the fields of its first version, which tools still read.
    #[must_use]
    pub fn to_api(&self) -> Value {
        let mut value = json!({
            "status": self.action.to_string(),
            "id": self.actor.id,
            "Type": self.kind.as_str(),
            "Action": self.action.to_string(),
            "Actor": {"ID": self.actor.id, "Attributes": self.actor.attributes},
            "scope": self.scope,
            "time": self.time_s,
            "timeNano": self.time_ns,
        });
        if let Some(image) = self.attribute(attribute::IMAGE) {
            value["from"] = image.into();
        }
        value
    }

    /// What a `--format` template sees: Docker's client names all fields with capitals.
    #[must_use]
    pub fn to_template(&self) -> Value {
        let mut value = self.to_api();
        for (name, field) in [
            ("Status", "status"),
            ("ID", "id"),
            ("Scope", "scope"),
            ("Time", "time"),
            ("TimeNano", "timeNano"),
        ] {
            value[name] = value[field].clone();
        }
        value["From"] = self.attribute(attribute::IMAGE).unwrap_or_default().into();
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_dockers_object_and_is_read_back() {
        let actor = Actor {
            id: "abc".to_owned(),
            attributes: BTreeMap::from([("image".to_owned(), "busybox".to_owned())]),
        };
        let action = Action::with(Verb::ExecCreate, "sh -c x: y");
        let event = Event::new(Kind::Container, action, actor, 1_500_000_000).with("execID", "e");
        let line = serde_json::to_string(&event).unwrap();
        assert!(
            line.starts_with(r#"{"Type":"container","Action":"exec_create: sh -c x: y""#),
            "{line}"
        );
        assert_eq!(serde_json::from_str::<Event>(&line).unwrap(), event);
        let api = event.to_api();
        assert_eq!(
            (&api["status"], &api["from"], &api["time"]),
            (
                &"exec_create: sh -c x: y".into(),
                &"busybox".into(),
                &1.into()
            )
        );
        assert_eq!(event.to_template()["ID"], "abc");
    }

    #[test]
    fn unknown_words_are_kept() {
        let action = Action::from("frobnicate: now".to_owned());
        assert_eq!(action.verb, Verb::Other("frobnicate".to_owned()));
        assert_eq!(action.to_string(), "frobnicate: now");
        assert_eq!(Kind::from("secret".to_owned()).as_str(), "secret");
        assert_eq!(Kind::from("volume".to_owned()), Kind::Volume);
        assert_eq!(Kind::from("network".to_owned()), Kind::Network);
    }
}
