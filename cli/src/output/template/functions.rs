//! Docker's functions beside Go's own.

use super::lookup;
use gotmpl::{Result, Template, TemplateError, Value};
use serde_json::Value as Json;

/// Widest padding, in columns.
const MAX_PAD: i64 = 1000;

type Function = fn(&[Value]) -> Result<Value>;

/// Over Go's functions of the same names, if there are.
const FUNCTIONS: [(&str, Function); 13] = [
    (lookup::FIELD, lookup::field),
    (lookup::SHOWN, lookup::shown),
    (lookup::LABEL, lookup::label),
    ("index", index),
    ("join", join),
    ("json", json),
    ("len", len),
    ("lower", |args| Ok(one(args)?.to_lowercase().into_value())),
    ("pad", pad),
    ("split", split),
    ("title", |args| Ok(title(&one(args)?).into_value())),
    ("truncate", truncate),
    ("upper", |args| Ok(one(args)?.to_uppercase().into_value())),
];

/// What Go's text/template has itself.
const BUILT_IN: [&str; 17] = [
    "and", "call", "eq", "ge", "gt", "html", "js", "le", "lt", "ne", "not", "or", "print",
    "printf", "println", "slice", "urlquery",
];

/// In a heading these leave what is there as it is.
const OF_VALUES: [&str; 7] = [
    "json", "join", "lower", "split", "title", "truncate", "upper",
];

pub(super) fn exists(name: &str) -> bool {
    BUILT_IN.contains(&name) || FUNCTIONS.iter().any(|(known, _)| *known == name)
}

pub(super) fn add(template: Template) -> Template {
    let add =
        |template: Template, (name, function): (&str, Function)| template.func(name, function);
    FUNCTIONS.into_iter().fold(template, add)
}

pub(super) fn add_of_heading(template: Template) -> Template {
    let same = |args: &[Value]| Ok(args.first().cloned().unwrap_or(Value::Nil));
    let name = |args: &[Value]| Ok(args.last().cloned().unwrap_or(Value::Nil));
    let template = add(template).func(lookup::LABEL, name);
    OF_VALUES
        .into_iter()
        .fold(template, |template, name| template.func(name, same))
}

trait IntoValue {
    fn into_value(self) -> Value;
}

impl IntoValue for String {
    fn into_value(self) -> Value {
        Value::String(self.into())
    }
}

pub(super) fn from_json(value: &Json) -> Value {
    match value {
        Json::Null => Value::Nil,
        Json::Bool(value) => Value::Bool(*value),
        Json::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(number), _) => Value::Int(number),
            (None, Some(number)) => Value::Uint(number),
            (None, None) => Value::Float(number.as_f64().unwrap_or(0.0)),
        },
        Json::String(text) => Value::String(text.as_str().into()),
        Json::Array(items) => Value::List(items.iter().map(from_json).collect()),
        Json::Object(map) => {
            let members = map
                .iter()
                .map(|(key, value)| (key.as_str().into(), from_json(value)));
            Value::Map(members.collect::<std::collections::BTreeMap<_, _>>().into())
        }
    }
}

fn to_json(value: &Value) -> Json {
    match value {
        Value::Nil | Value::Function(_) => Json::Null,
        Value::Bool(value) => Json::Bool(*value),
        Value::Int(number) => Json::from(*number),
        Value::Uint(number) => Json::from(*number),
        Value::Float(number) => Json::from(*number),
        Value::String(text) => Json::from(&**text),
        Value::List(items) => items.iter().map(to_json).collect(),
        Value::Map(map) => {
            let members = map
                .iter()
                .map(|(key, value)| (key.to_string(), to_json(value)));
            Json::Object(members.collect())
        }
    }
}

fn wrong(what: impl Into<String>) -> TemplateError {
    TemplateError::Exec(what.into())
}

fn count(args: &[Value], wanted: usize) -> Result<()> {
    if args.len() == wanted {
        return Ok(());
    }
    let got = args.len();
    Err(wrong(format!(
        "wrong number of args: want {wanted} got {got}"
    )))
}

/// The lone argument, as text.
fn one(args: &[Value]) -> Result<String> {
    count(args, 1)?;
    Ok(args[0].to_string())
}

fn json(args: &[Value]) -> Result<Value> {
    count(args, 1)?;
    Ok(to_json(&args[0]).to_string().into_value())
}

fn join(args: &[Value]) -> Result<Value> {
    count(args, 2)?;
    let separator = args[1].to_string();
    match &args[0] {
        Value::Nil => Ok(String::new().into_value()),
        Value::List(items) => {
            let words: Vec<_> = items.iter().map(ToString::to_string).collect();
            Ok(words.join(&separator).into_value())
        }
        other => {
            let got = other.type_name();
            Err(wrong(format!(
                "wrong type for value; expected []string; got {got}"
            )))
        }
    }
}

fn split(args: &[Value]) -> Result<Value> {
    count(args, 2)?;
    let (text, separator) = (args[0].to_string(), args[1].to_string());
    let words = text
        .split(&separator)
        .map(|word| word.to_owned().into_value());
    Ok(Value::List(words.collect()))
}

/// The first letter of each word.
fn title(text: &str) -> String {
    let mut before = ' ';
    let mut titled = String::new();
    for c in text.chars() {
        if before.is_alphanumeric() || before == '_' || before == '\'' {
            titled.push(c);
        } else {
            titled.extend(c.to_uppercase());
        }
        before = c;
    }
    titled
}

fn truncate(args: &[Value]) -> Result<Value> {
    count(args, 2)?;
    let most = args[1].as_int().and_then(|most| usize::try_from(most).ok());
    let most = most.ok_or_else(|| wrong("truncate needs a length"))?;
    let text = args[0].to_string();
    Ok(text.chars().take(most).collect::<String>().into_value())
}

fn pad(args: &[Value]) -> Result<Value> {
    count(args, 3)?;
    let spaces = |value: &Value| {
        let count = value.as_int().filter(|count| (0..=MAX_PAD).contains(count));
        let count = count.and_then(|count| usize::try_from(count).ok());
        Ok::<_, TemplateError>(" ".repeat(count.ok_or_else(|| wrong("pad needs two lengths"))?))
    };
    let text = args[0].to_string();
    // Docker leaves what is empty alone.
    if text.is_empty() {
        return Ok(text.into_value());
    }
    let (before, after) = (spaces(&args[1])?, spaces(&args[2])?);
    Ok(format!("{before}{text}{after}").into_value())
}

/// A `null` is a list or a map without members.
fn len(args: &[Value]) -> Result<Value> {
    count(args, 1)?;
    let len = match &args[0] {
        Value::Nil => Some(0),
        other => other.len(),
    };
    let len = len.ok_or_else(|| wrong(format!("len of type {}", args[0].type_name())))?;
    Ok(Value::Int(i64::try_from(len).unwrap_or(i64::MAX)))
}

/// What a map of strings does not hold is the empty string, Go's zero value of one.
fn index(args: &[Value]) -> Result<Value> {
    let Some((first, keys)) = args.split_first() else {
        return Err(wrong("index of nothing"));
    };
    let mut value = first.clone();
    for key in keys {
        value = match (&value, key) {
            (Value::Nil, Value::String(_)) => String::new().into_value(),
            (Value::Map(map), Value::String(key)) => match map.get(key) {
                Some(found) => found.clone(),
                None if map.values().all(|v| matches!(v, Value::String(_))) => {
                    String::new().into_value()
                }
                None => Value::Nil,
            },
            _ => value.index(key)?,
        };
    }
    Ok(value)
}
