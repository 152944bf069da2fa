//! Dockerfile instructions that change an image's configuration, for `--change`.

use crate::health;
use serde_json::{Map, Value, json};

/// What is wrong with an instruction.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChangeError {
    /// It is not one of those that make sense without a build.
    #[error(
        "{0} is not a valid change: CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK, LABEL, ONBUILD, STOPSIGNAL, USER, VOLUME and WORKDIR are"
    )]
    Unknown(String),
    /// Nothing behind the instruction.
    #[error("it needs an argument")]
    NoArgument,
    /// `ENV` or `LABEL` without `=`.
    #[error("{0:?} is not of the form NAME=VALUE")]
    NotAPair(String),
    /// A quote that does not end.
    #[error("a quote is not closed")]
    Quote,
    /// A port that is none.
    #[error("{0:?} is not a port")]
    Port(String),
    /// A health check that is neither `NONE` nor flags and `CMD`.
    #[error("expected NONE, or flags and CMD with a command")]
    HealthCheck,
}

/// The `config` object that these instructions make; the bad one with what is wrong with it.
pub(crate) fn apply(changes: &[String]) -> Result<Value, (String, ChangeError)> {
    apply_to(Map::new(), changes)
}

/// What these instructions make of `config`.
pub(crate) fn apply_to(
    mut config: Map<String, Value>,
    changes: &[String],
) -> Result<Value, (String, ChangeError)> {
    let mut has_command = false;
    for change in changes {
        let word = one(&mut config, change).map_err(|error| (change.clone(), error))?;
        has_command |= word == "CMD";
        // A command that was meant for another entry point would become this one's arguments.
        let entry = config.get("Entrypoint").and_then(Value::as_array);
        if word == "ENTRYPOINT" && !has_command && entry.is_some_and(|words| !words.is_empty()) {
            config.remove("Cmd");
        }
    }
    Ok(Value::Object(config))
}

/// Follows one instruction and answers its word.
fn one(config: &mut Map<String, Value>, change: &str) -> Result<String, ChangeError> {
    let change = change.trim();
    let (word, argument) = change
        .split_once(char::is_whitespace)
        .map_or((change, ""), |(word, rest)| (word, rest.trim()));
    let instruction = word.to_ascii_uppercase();
    if argument.is_empty() && !matches!(&instruction[..], "CMD" | "ENTRYPOINT") {
        return Err(ChangeError::NoArgument);
    }
    match &instruction[..] {
        "CMD" => set(config, "Cmd", command(argument)),
        "ENTRYPOINT" => set(config, "Entrypoint", command(argument)),
        "ENV" => {
            for (name, value) in pairs(argument)? {
                set_env(config, &name, &value);
            }
        }
        "LABEL" => {
            for (name, value) in pairs(argument)? {
                add(config, "Labels", name, value.into());
            }
        }
        "EXPOSE" => {
            for port in argument.split_whitespace() {
                add(config, "ExposedPorts", exposed(port)?, json!({}));
            }
        }
        "VOLUME" => {
            for volume in list(argument) {
                add(config, "Volumes", volume, json!({}));
            }
        }
        "USER" => set(config, "User", argument.into()),
        "STOPSIGNAL" => set(config, "StopSignal", argument.into()),
        "WORKDIR" => {
            let dir = work_dir(config, argument);
            set(config, "WorkingDir", dir.into());
        }
        "HEALTHCHECK" => {
            let words = |text: &str| words_of(&command(text));
            let check = health::instruction(argument, words).ok_or(ChangeError::HealthCheck)?;
            set(config, "Healthcheck", check.to_value());
        }
        "ONBUILD" => push(config, "OnBuild", argument.into()),
        _ => return Err(ChangeError::Unknown(instruction)),
    }
    Ok(instruction)
}

/// A relative directory goes on from the one before, and the first one from the root. As Docker
/// does, `..` is resolved here.
fn work_dir(config: &Map<String, Value>, argument: &str) -> String {
    let before = config.get("WorkingDir").and_then(Value::as_str);
    let before = before.filter(|_| !argument.starts_with('/')).unwrap_or("");
    let mut names = Vec::new();
    for name in before.split('/').chain(argument.split('/')) {
        match name {
            "" | "." => {}
            ".." => drop(names.pop()),
            name => names.push(name),
        }
    }
    format!("/{}", names.join("/"))
}

/// Appends to a list of the configuration.
fn push(config: &mut Map<String, Value>, key: &str, member: Value) {
    match config.get_mut(key).and_then(Value::as_array_mut) {
        Some(list) => list.push(member),
        None => set(config, key, json!([member])),
    }
}

fn set(config: &mut Map<String, Value>, key: &str, value: Value) {
    config.insert(key.to_owned(), value);
}

/// Adds a member to an object of the configuration.
fn add(config: &mut Map<String, Value>, key: &str, member: String, value: Value) {
    match config.get_mut(key).and_then(Value::as_object_mut) {
        Some(map) => {
            map.insert(member, value);
        }
        // Missing, or the null that Go writes for an empty one.
        None => set(config, key, json!({ member: value })),
    }
}

/// `["a", "b"]` as it is, anything else through the shell.
fn command(argument: &str) -> Value {
    match serde_json::from_str::<Vec<String>>(argument) {
        Ok(words) => words.into(),
        Err(_) if argument.is_empty() => json!([]),
        Err(_) => json!(["/bin/sh", "-c", argument]),
    }
}

fn words_of(list: &Value) -> Vec<String> {
    let words = list.as_array().into_iter().flatten();
    words.filter_map(Value::as_str).map(str::to_owned).collect()
}

/// A JSON list, or words.
fn list(argument: &str) -> Vec<String> {
    serde_json::from_str(argument)
        .unwrap_or_else(|_| argument.split_whitespace().map(str::to_owned).collect())
}

fn set_env(config: &mut Map<String, Value>, name: &str, value: &str) {
    let prefix = format!("{name}=");
    let mut list: Vec<Value> = config
        .get("Env")
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    list.retain(|old| !old.as_str().is_some_and(|old| old.starts_with(&prefix)));
    list.push(format!("{prefix}{value}").into());
    set(config, "Env", list.into());
}

fn exposed(port: &str) -> Result<String, ChangeError> {
    let (number, protocol) = port.split_once('/').unwrap_or((port, "tcp"));
    let valid = number.parse::<u16>().is_ok() && matches!(protocol, "tcp" | "udp" | "sctp");
    if valid {
        Ok(format!("{number}/{protocol}"))
    } else {
        Err(ChangeError::Port(port.to_owned()))
    }
}

/// `A=b C="d e"`, or the old `A b c` for one name.
fn pairs(argument: &str) -> Result<Vec<(String, String)>, ChangeError> {
    let words = words(argument)?;
    let first = words.first().ok_or(ChangeError::NoArgument)?;
    if !first.contains('=') {
        let (name, value) = argument
            .split_once(char::is_whitespace)
            .ok_or_else(|| ChangeError::NotAPair(argument.to_owned()))?;
        return Ok(vec![(name.to_owned(), value.trim().to_owned())]);
    }
    words
        .into_iter()
        .map(|word| match word.split_once('=') {
            Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
            _ => Err(ChangeError::NotAPair(word)),
        })
        .collect()
}

/// Splits at blanks outside quotes; a backslash takes the next character as it is.
fn words(text: &str) -> Result<Vec<String>, ChangeError> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some('\''), c) => word.get_or_insert_default().push(c),
            (_, '\\') => word.get_or_insert_default().extend(chars.next()),
            (None, '"' | '\'') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    if quote.is_some() {
        return Err(ChangeError::Quote);
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(changes: &[&str]) -> Result<Value, ChangeError> {
        let changes: Vec<_> = changes.iter().map(|&c| c.to_owned()).collect();
        apply(&changes).map_err(|(_, error)| error)
    }

    #[test]
    fn instructions_change_the_configuration() {
        let config = changed(&[
            "CMD [\"/bin/sh\", \"-l\"]",
            "entrypoint /start now",
            "ENV A=1 B=\"two words\" C='$x' D=a\\ b",
            "ENV A 2 and more",
            "LABEL a.b=c",
            "EXPOSE 80 53/udp",
            "VOLUME [\"/data\"]",
            "USER app:app",
            "WORKDIR /srv",
            "STOPSIGNAL SIGINT",
        ])
        .unwrap();
        assert_eq!(
            config,
            json!({
                "Cmd": ["/bin/sh", "-l"],
                "Entrypoint": ["/bin/sh", "-c", "/start now"],
                "Env": ["B=two words", "C=$x", "D=a b", "A=2 and more"],
                "Labels": {"a.b": "c"},
                "ExposedPorts": {"80/tcp": {}, "53/udp": {}},
                "Volumes": {"/data": {}},
                "User": "app:app",
                "WorkingDir": "/srv",
                "StopSignal": "SIGINT",
            })
        );
    }

    #[test]
    fn changes_build_on_what_is_there() {
        let base = json!({
            "Cmd": ["old"], "Env": ["A=1", "B=2"], "WorkingDir": "/srv/", "Labels": null,
        });
        let changed = |changes: &[&str]| {
            let changes: Vec<_> = changes.iter().map(|&c| c.to_owned()).collect();
            apply_to(base.as_object().unwrap().clone(), &changes).unwrap()
        };
        let flags = "HEALTHCHECK --interval=5s --retries=2 --start-interval=1s CMD test -e /x";
        assert_eq!(
            changed(&[flags])["Healthcheck"],
            json!({
                "Test": ["CMD-SHELL", "test -e /x"],
                "Interval": 5_000_000_000i64,
                "StartInterval": 1_000_000_000,
                "Retries": 2,
            })
        );
        assert_eq!(
            changed(&["HEALTHCHECK CMD [\"/c\"]", "healthcheck none"])["Healthcheck"],
            json!({"Test": ["NONE"]})
        );
        let config = changed(&["ENV A=3", "WORKDIR app", "LABEL x=y", "ONBUILD RUN x"]);
        assert_eq!(
            config,
            json!({
                "Cmd": ["old"], "Env": ["B=2", "A=3"], "WorkingDir": "/srv/app",
                "Labels": {"x": "y"}, "OnBuild": ["RUN x"],
            })
        );
        for (dirs, dir) in [
            (&["WORKDIR /"][..], "/"),
            (&["WORKDIR srv"], "/srv/srv"),
            (&["WORKDIR /a/./b//", "WORKDIR ../c"], "/a/c"),
            (&["WORKDIR ../../../x"], "/x"),
        ] {
            assert_eq!(changed(dirs)["WorkingDir"], dir, "{dirs:?}");
        }
        let fresh = apply(&["WORKDIR srv".to_owned()]).unwrap();
        assert_eq!(fresh["WorkingDir"], "/srv");
        assert_eq!(changed(&["ENTRYPOINT [\"/e\"]"]).get("Cmd"), None);
        assert_eq!(changed(&["ENTRYPOINT []"])["Cmd"], json!(["old"]));
        let both = changed(&["CMD [\"c\"]", "ENTRYPOINT [\"/e\"]"]);
        assert_eq!(both["Cmd"], json!(["c"]));
    }

    #[test]
    fn bad_instructions_say_what_is_bad() {
        use ChangeError as E;
        for (change, error) in [
            ("RUN x", E::Unknown("RUN".into())),
            ("ENV", E::NoArgument),
            ("ENV A", E::NotAPair("A".into())),
            ("ENV A=1 =2", E::NotAPair("=2".into())),
            ("ENV A=\"1", E::Quote),
            ("EXPOSE http", E::Port("http".into())),
            ("HEALTHCHECK CMD", E::HealthCheck),
            ("HEALTHCHECK --interval=x CMD y", E::HealthCheck),
            ("HEALTHCHECK --often CMD y", E::HealthCheck),
        ] {
            assert_eq!(changed(&[change]), Err(error), "{change}");
        }
    }
}
