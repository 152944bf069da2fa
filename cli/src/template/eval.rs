//! Nodes over a value.

use super::{Call, Node, Operand, Pipeline, TemplateError};
use serde_json::Value;
use std::fmt::Write;

type Result<T> = std::result::Result<T, TemplateError>;

pub(super) fn render(nodes: &[Node], value: &Value) -> Result<String> {
    let mut out = String::new();
    nodes_into(nodes, value, value, &mut out)?;
    Ok(out)
}

fn nodes_into(nodes: &[Node], root: &Value, dot: &Value, out: &mut String) -> Result<()> {
    for node in nodes {
        match node {
            Node::Text(text) => out.push_str(text),
            Node::Print(pipeline) => out.push_str(&text(&run(pipeline, root, dot)?)),
            Node::If(condition, then, otherwise) => {
                let branch = if truth(&run(condition, root, dot)?) {
                    then
                } else {
                    otherwise
                };
                nodes_into(branch, root, dot, out)?;
            }
            Node::With(condition, then, otherwise) => {
                let value = run(condition, root, dot)?;
                if truth(&value) {
                    nodes_into(then, root, &value, out)?;
                } else {
                    nodes_into(otherwise, root, dot, out)?;
                }
            }
            Node::Range(over, body, otherwise) => {
                let items = match run(over, root, dot)? {
                    Value::Array(items) => items,
                    Value::Object(map) => map.into_iter().map(|(_, value)| value).collect(),
                    Value::Null => Vec::new(),
                    _ => return Err(TemplateError::new("range needs a list")),
                };
                if items.is_empty() {
                    nodes_into(otherwise, root, dot, out)?;
                }
                for item in &items {
                    nodes_into(body, root, item, out)?;
                }
            }
        }
    }
    Ok(())
}

fn run(pipeline: &Pipeline, root: &Value, dot: &Value) -> Result<Value> {
    let mut piped = None;
    for call in &pipeline.0 {
        piped = Some(call_one(call, piped, root, dot)?);
    }
    Ok(piped.unwrap_or(Value::Null))
}

fn call_one(call: &Call, piped: Option<Value>, root: &Value, dot: &Value) -> Result<Value> {
    let Some((Operand::Function(name), arguments)) = call.0.split_first() else {
        let operand = call.0.first();
        return match (operand, piped) {
            (Some(operand), None) => evaluate(operand, root, dot),
            _ => Err(TemplateError::new("cannot pipe into a value")),
        };
    };
    let mut values = arguments
        .iter()
        .map(|operand| evaluate(operand, root, dot))
        .collect::<Result<Vec<_>>>()?;
    values.extend(piped);
    apply(name, &values)
}

fn evaluate(operand: &Operand, root: &Value, dot: &Value) -> Result<Value> {
    match operand {
        Operand::Literal(value) => Ok(value.clone()),
        Operand::Nested(pipeline) => run(pipeline, root, dot),
        Operand::Function(name) => apply(name, &[]),
        Operand::Field(from_root, path) => {
            let mut value = if *from_root { root } else { dot };
            for name in path {
                value = field(value, name)?;
            }
            Ok(value.clone())
        }
    }
}

/// A field that is not there is an error in a structure, as in Docker: a slip in the name should
/// not pass for emptiness. Null and maps without the key give null.
fn field<'a>(value: &'a Value, name: &str) -> Result<&'a Value> {
    match value {
        Value::Object(map) => map
            .get(name)
            .ok_or_else(|| TemplateError::new(format!("there is no field {name:?}"))),
        Value::Null => Ok(&Value::Null),
        _ => Err(TemplateError::new(format!(
            "{name:?} asked of what has no fields"
        ))),
    }
}

fn apply(name: &str, values: &[Value]) -> Result<Value> {
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
        ("not", [value]) => (!truth(value)).into(),
        ("and", [.., last]) => values.iter().find(|v| !truth(v)).unwrap_or(last).clone(),
        ("or", [.., last]) => values.iter().find(|v| truth(v)).unwrap_or(last).clone(),
        (
            "json" | "upper" | "lower" | "title" | "join" | "split" | "truncate" | "len" | "index"
            | "eq" | "ne" | "not" | "and" | "or",
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
            (Value::Object(map), Value::String(key)) => map.get(key).unwrap_or(&Value::Null),
            _ => return Err(TemplateError::new("cannot index that")),
        };
    }
    Ok(value.clone())
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

fn truth(value: &Value) -> bool {
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
fn text(value: &Value) -> String {
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
