//! Go's and Docker's functions on values, and how values are printed.

use super::TemplateError;
use serde_json::{Number, Value};
use std::cmp::Ordering;
use std::fmt::Write;

type Result<T> = std::result::Result<T, TemplateError>;

pub(super) fn apply(name: &str, values: &[Value]) -> Result<Value> {
    let wrong = || TemplateError::new(format!("wrong arguments for {name:?}"));
    Ok(match (name, values) {
        ("json", [value]) => value.to_string().into(),
        ("upper", [value]) => text(value).to_uppercase().into(),
        ("lower", [value]) => text(value).to_lowercase().into(),
        ("title", [value]) => title(&text(value)).into(),
        ("print", values) => values.iter().map(text).collect::<String>().into(),
        ("println", values) => {
            let words: Vec<_> = values.iter().map(text).collect();
            format!("{}\n", words.join(" ")).into()
        }
        ("join", [Value::Array(items), separator]) => {
            let items: Vec<_> = items.iter().map(text).collect();
            items.join(&text(separator)).into()
        }
        ("join", [Value::Null, _]) => "".into(),
        ("split", [value, separator]) => text(value)
            .split(&text(separator))
            .map(Value::from)
            .collect(),
        ("truncate", [value, Value::Number(len)]) => {
            let len = len.as_u64().and_then(|len| usize::try_from(len).ok());
            let len = len.ok_or_else(wrong)?;
            text(value).chars().take(len).collect::<String>().into()
        }
        ("len", [value]) => length(value).ok_or_else(wrong)?.into(),
        ("index", [value, keys @ ..]) => index(value, keys)?,
        ("eq", [first, rest @ ..]) if !rest.is_empty() => rest.contains(first).into(),
        ("ne", [a, b]) => (a != b).into(),
        ("lt", [a, b]) => compare(a, b).ok_or_else(wrong)?.is_lt().into(),
        ("le", [a, b]) => compare(a, b).ok_or_else(wrong)?.is_le().into(),
        ("gt", [a, b]) => compare(a, b).ok_or_else(wrong)?.is_gt().into(),
        ("ge", [a, b]) => compare(a, b).ok_or_else(wrong)?.is_ge().into(),
        ("printf", [Value::String(format), values @ ..]) => printf(format, values).into(),
        ("pad", [value, Value::Number(before), Value::Number(after)]) => {
            let spaces = |n: &Number| {
                let count = n
                    .as_u64()
                    .filter(|count| *count <= MAX_WIDTH)
                    .ok_or_else(wrong)?;
                Ok(" ".repeat(usize::try_from(count).unwrap_or(0)))
            };
            let value = text(value);
            // Docker leaves what is empty alone.
            if value.is_empty() {
                value.into()
            } else {
                format!("{}{value}{}", spaces(before)?, spaces(after)?).into()
            }
        }
        ("not", [value]) => (!truth(value)).into(),
        ("and", [.., last]) => values.iter().find(|v| !truth(v)).unwrap_or(last).clone(),
        ("or", [.., last]) => values.iter().find(|v| truth(v)).unwrap_or(last).clone(),
        (
            "json" | "upper" | "lower" | "title" | "join" | "split" | "truncate" | "len" | "index"
            | "eq" | "ne" | "lt" | "le" | "gt" | "ge" | "printf" | "pad" | "not" | "and" | "or",
            _,
        ) => return Err(wrong()),
        _ => {
            return Err(TemplateError::new(format!(
                "no function is called {name:?}"
            )));
        }
    })
}

fn index(value: &Value, keys: &[Value]) -> Result<Value> {
    let mut value = value;
    for key in keys {
        value = match (value, key) {
            (Value::Array(items), Value::Number(at)) => at
                .as_u64()
                .and_then(|at| items.get(usize::try_from(at).ok()?))
                .ok_or_else(|| TemplateError::new(format!("index {at} is out of range")))?,
            (Value::Object(map), Value::String(key)) => match map.get(key) {
                Some(found) => found,
                // Go's zero value of a map of strings.
                None if map.values().all(Value::is_string) => return Ok("".into()),
                None => &Value::Null,
            },
            (Value::Null, Value::String(_)) => return Ok("".into()),
            _ => return Err(TemplateError::new("cannot index that")),
        };
    }
    Ok(value.clone())
}

fn compare(a: &Value, b: &Value) -> Option<Ordering> {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => match (a.as_i64(), b.as_i64()) {
            (Some(a), Some(b)) => Some(a.cmp(&b)),
            _ => a.as_f64()?.partial_cmp(&b.as_f64()?),
        },
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        _ => None,
    }
}

/// Widths and precisions beyond this are a mistake.
const MAX_WIDTH: u64 = 1000;

/// Go's `printf` with the verbs `v`, `s`, `d`, `q`, `x`, `t` and `f`, widths and precisions. What does
/// not fit shows itself in the output, as in Go.
fn printf(format: &str, values: &[Value]) -> String {
    let mut out = String::new();
    let mut values = values.iter();
    let mut rest = format;
    while let Some((before, after)) = rest.split_once('%') {
        out.push_str(before);
        let end = after.find(|c: char| !"+-# 0123456789.".contains(c));
        let Some(end) = end else {
            out.push_str("%!(NOVERB)");
            return out;
        };
        let (flags, verb) = (&after[..end], after[end..].chars().next().unwrap_or('%'));
        rest = &after[end + verb.len_utf8()..];
        if verb == '%' {
            out.push('%');
            continue;
        }
        match values.next() {
            Some(value) => out.push_str(&formatted(flags, verb, value)),
            None => {
                let _ = write!(out, "%!{verb}(MISSING)");
            }
        }
    }
    out.push_str(rest);
    let extra: Vec<_> = values.map(text).collect();
    if !extra.is_empty() {
        let _ = write!(out, "%!(EXTRA {})", extra.join(", "));
    }
    out
}

fn formatted(flags: &str, verb: char, value: &Value) -> String {
    let left = flags.contains('-');
    let zeros = flags.trim_start_matches(['+', '#', ' ']).starts_with('0');
    let numbers = flags.trim_start_matches(['+', '-', '#', ' ', '0']);
    let (width, precision) = numbers.split_once('.').unwrap_or((numbers, ""));
    let number = |text: &str| {
        text.parse::<usize>()
            .ok()
            .filter(|n| *n as u64 <= MAX_WIDTH)
    };
    let text = match (verb, value) {
        ('d', Value::Number(number)) => number.to_string(),
        ('x', Value::Number(number)) => number
            .as_i64()
            .map_or_else(|| number.to_string(), |number| format!("{number:x}")),
        ('x', Value::String(text)) => text.bytes().map(|byte| format!("{byte:02x}")).collect(),
        ('f', Value::Number(value)) => {
            let places = number(precision).unwrap_or(6);
            format!("{:.places$}", value.as_f64().unwrap_or(0.0))
        }
        ('q', Value::String(_)) => value.to_string(),
        ('t', Value::Bool(value)) => value.to_string(),
        ('s' | 'v', value) => {
            let text = text(value);
            match number(precision) {
                Some(most) if verb == 's' => text.chars().take(most).collect(),
                _ => text,
            }
        }
        (verb, value) => format!("%!{verb}({})", text(value)),
    };
    let width = number(width).unwrap_or(0);
    match (left, zeros) {
        (true, _) => format!("{text:<width$}"),
        (false, true) => format!("{text:0>width$}"),
        (false, false) => format!("{text:>width$}"),
    }
}

fn length(value: &Value) -> Option<usize> {
    match value {
        Value::String(text) => Some(text.len()),
        Value::Array(items) => Some(items.len()),
        Value::Object(map) => Some(map.len()),
        Value::Null => Some(0),
        _ => None,
    }
}

fn title(text: &str) -> String {
    let mut chars = text.chars();
    chars
        .next()
        .map(|first| first.to_uppercase().chain(chars).collect())
        .unwrap_or_default()
}

pub(super) fn truth(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(map) => !map.is_empty(),
    }
}

/// As Go prints: lists as `[a b]`, maps as `map[k:v]`.
pub(super) fn text(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => {
            let items: Vec<_> = items.iter().map(text).collect();
            format!("[{}]", items.join(" "))
        }
        Value::Object(map) => {
            let mut out = String::from("map[");
            for (at, (key, value)) in map.iter().enumerate() {
                let gap = if at > 0 { " " } else { "" };
                let _ = write!(out, "{gap}{key}:{}", text(value));
            }
            out.push(']');
            out
        }
        other => other.to_string(),
    }
}
