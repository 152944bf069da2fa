//! Nodes over a value.

use super::functions::{apply, text, truth};
use super::{Call, Node, Operand, Pipeline, TemplateError};
use serde_json::Value;

type Result<T> = std::result::Result<T, TemplateError>;

pub(super) fn render(nodes: &[Node], value: &Value) -> Result<String> {
    let mut scope = Scope {
        root: value,
        variables: Vec::new(),
    };
    let mut out = String::new();
    scope.nodes(nodes, value, &mut out)?;
    Ok(out)
}

struct Scope<'a> {
    root: &'a Value,
    /// The last one of a name counts.
    variables: Vec<(String, Value)>,
}

impl Scope<'_> {
    /// Nodes with variables of their own.
    fn block(&mut self, nodes: &[Node], dot: &Value, out: &mut String) -> Result<()> {
        let outer = self.variables.len();
        let done = self.nodes(nodes, dot, out);
        self.variables.truncate(outer);
        done
    }

    fn nodes(&mut self, nodes: &[Node], dot: &Value, out: &mut String) -> Result<()> {
        for node in nodes {
            match node {
                Node::Text(text) => out.push_str(text),
                Node::Print(pipeline) => {
                    let value = self.run(pipeline, dot)?;
                    if pipeline.1.is_none() {
                        out.push_str(&match (&value, shown_field(pipeline)) {
                            (Value::Null, Some(name)) => nothing(name).to_owned(),
                            (value, _) => text(value),
                        });
                    }
                }
                Node::If(condition, then, otherwise) => {
                    let outer = self.variables.len();
                    let value = self.run(condition, dot)?;
                    let branch = if truth(&value) { then } else { otherwise };
                    self.block(branch, dot, out)?;
                    self.leave(outer, condition);
                }
                Node::With(condition, then, otherwise) => {
                    let outer = self.variables.len();
                    let value = self.run(condition, dot)?;
                    if truth(&value) {
                        self.block(then, &value, out)?;
                    } else {
                        self.block(otherwise, dot, out)?;
                    }
                    self.leave(outer, condition);
                }
                Node::Range(over, body, otherwise) => {
                    self.range(over, body, otherwise, dot, out)?
                }
            }
        }
        Ok(())
    }

    /// A variable that a condition declared ends with its block.
    fn leave(&mut self, outer: usize, condition: &Pipeline) {
        if condition.1.is_some() {
            self.variables.truncate(outer);
        }
    }

    fn range(
        &mut self,
        over: &Pipeline,
        body: &[Node],
        otherwise: &[Node],
        dot: &Value,
        out: &mut String,
    ) -> Result<()> {
        let items: Vec<(Value, Value)> = match self.calls(over, dot)? {
            Value::Array(items) => {
                let numbered = items.into_iter().enumerate();
                numbered.map(|(at, item)| (at.into(), item)).collect()
            }
            Value::Object(map) => map
                .into_iter()
                .map(|(key, value)| (key.into(), value))
                .collect(),
            Value::Null => Vec::new(),
            _ => return Err(TemplateError::new("range needs a list")),
        };
        if items.is_empty() {
            return self.block(otherwise, dot, out);
        }
        let outer = self.variables.len();
        for (key, item) in items {
            match over.1.as_ref().map(|assignment| &assignment.names[..]) {
                Some([name]) => self.variables.push((name.clone(), item.clone())),
                Some([first, second, ..]) => {
                    self.variables.push((first.clone(), key));
                    self.variables.push((second.clone(), item.clone()));
                }
                _ => {}
            }
            self.block(body, &item, out)?;
            self.variables.truncate(outer);
        }
        Ok(())
    }

    fn run(&mut self, pipeline: &Pipeline, dot: &Value) -> Result<Value> {
        let value = self.calls(pipeline, dot)?;
        let Some(assignment) = &pipeline.1 else {
            return Ok(value);
        };
        let [name] = &assignment.names[..] else {
            return Err(TemplateError::new("only range gives two variables"));
        };
        if assignment.declares {
            self.variables.push((name.clone(), value.clone()));
        } else {
            let variables = self.variables.iter_mut().rev();
            let mut known = variables.filter(|(known, _)| known == name);
            known.next().ok_or_else(|| undefined(name))?.1 = value.clone();
        }
        Ok(value)
    }

    fn calls(&self, pipeline: &Pipeline, dot: &Value) -> Result<Value> {
        let mut piped = None;
        for call in &pipeline.0 {
            piped = Some(self.call(call, piped, dot)?);
        }
        Ok(piped.unwrap_or(Value::Null))
    }

    fn call(&self, call: &Call, piped: Option<Value>, dot: &Value) -> Result<Value> {
        let Some((Operand::Function(name), arguments)) = call.0.split_first() else {
            return match (call.0.first(), piped) {
                (Some(operand), None) => self.evaluate(operand, dot),
                _ => Err(TemplateError::new("cannot pipe into a value")),
            };
        };
        let mut values = arguments
            .iter()
            .map(|operand| self.evaluate(operand, dot))
            .collect::<Result<Vec<_>>>()?;
        values.extend(piped);
        apply(name, &values)
    }

    fn evaluate(&self, operand: &Operand, dot: &Value) -> Result<Value> {
        match operand {
            Operand::Literal(value) => Ok(value.clone()),
            Operand::Nested(pipeline) => self.calls(pipeline, dot),
            Operand::Function(name) => apply(name, &[]),
            Operand::Field(from_root, path) => {
                fields(if *from_root { self.root } else { dot }, path).cloned()
            }
            Operand::FieldsOf(pipeline, path) => fields(&self.calls(pipeline, dot)?, path).cloned(),
            Operand::Variable(name, path) => {
                let mut variables = self.variables.iter().rev();
                let found = variables.find(|(known, _)| known == name);
                let (_, value) = found.ok_or_else(|| undefined(name))?;
                fields(value, path).cloned()
            }
        }
    }
}

fn undefined(name: &str) -> TemplateError {
    TemplateError::new(format!("undefined variable: ${name}"))
}

/// Fields that are maps in Docker's structures: what they do not hold is nothing, not a slip.
const MAPS: [&str; 10] = [
    "DriverOpts",
    "ExposedPorts",
    "Labels",
    "Networks",
    "PortBindings",
    "Ports",
    "StorageOpt",
    "Sysctls",
    "Tmpfs",
    "Volumes",
];

/// The same for lists.
const LISTS: [&str; 23] = [
    "Aliases",
    "Binds",
    "CapAdd",
    "CapDrop",
    "Cmd",
    "DNSNames",
    "DeviceCgroupRules",
    "DeviceRequests",
    "Dns",
    "DnsOptions",
    "DnsSearch",
    "Entrypoint",
    "Env",
    "ExecIDs",
    "ExtraHosts",
    "GroupAdd",
    "Links",
    "OnBuild",
    "SecondaryIPAddresses",
    "SecondaryIPv6Addresses",
    "SecurityOpt",
    "Shell",
    "VolumesFrom",
];

/// The field that a pipeline shows as it is.
fn shown_field(pipeline: &Pipeline) -> Option<&str> {
    match &pipeline.0[..] {
        [Call(operands)] => match &operands[..] {
            [Operand::Field(_, path)] => path.last().map(String::as_str),
            _ => None,
        },
        _ => None,
    }
}

/// How Go prints a field without a value: what is a list or a map, as an empty one.
fn nothing(name: &str) -> &'static str {
    match name {
        name if LISTS.contains(&name) => "[]",
        name if MAPS.contains(&name) => "map[]",
        _ => "<nil>",
    }
}

/// A field that is not there is an error in a structure, as in Docker: a slip in the name should
/// not pass for emptiness.
fn fields<'a>(value: &'a Value, path: &[String]) -> Result<&'a Value> {
    let mut value = value;
    let mut above = "";
    for name in path {
        value = match value {
            Value::Object(map) => match map.get(name) {
                Some(found) => found,
                None if MAPS.contains(&above) => &Value::Null,
                None => {
                    return Err(TemplateError::new(format!("there is no field {name:?}")));
                }
            },
            Value::Null => &Value::Null,
            _ => {
                return Err(TemplateError::new(format!(
                    "{name:?} asked of what has no fields"
                )));
            }
        };
        above = name;
    }
    Ok(value)
}
