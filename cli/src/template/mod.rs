//! The part of Go's text/template that people use in `--format`: fields, variables, pipelines, `if`,
//! `range`, `with`, and Docker's functions, over a JSON value.

mod eval;
mod functions;
mod parse;

use serde_json::Value;

/// What is wrong with a template, or with the value it was applied to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct TemplateError(String);

impl TemplateError {
    fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

/// A template that parsed.
#[derive(Debug, Clone)]
pub(crate) struct Template {
    nodes: Vec<Node>,
}

impl Template {
    pub(crate) fn parse(text: &str) -> Result<Self, TemplateError> {
        parse::parse(text).map(|nodes| Self { nodes })
    }

    pub(crate) fn render(&self, value: &Value) -> Result<String, TemplateError> {
        eval::render(&self.nodes, value)
    }

    /// The heading of a table with these columns: each field's name in capitals.
    pub(crate) fn heading(&self) -> String {
        self.nodes.iter().map(Node::heading).collect()
    }
}

#[derive(Debug, Clone)]
enum Node {
    Text(String),
    Print(Pipeline),
    If(Pipeline, Vec<Node>, Vec<Node>),
    Range(Pipeline, Vec<Node>, Vec<Node>),
    With(Pipeline, Vec<Node>, Vec<Node>),
}

impl Node {
    fn heading(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Print(pipeline) => pipeline
                .0
                .iter()
                .flat_map(Call::fields)
                .next()
                .map_or_else(String::new, heading_of),
            Self::If(..) | Self::Range(..) | Self::With(..) => String::new(),
        }
    }
}

/// Docker's headings for its own field names; others are spelled out: `CreatedAt`, `CREATED AT`.
fn heading_of(name: &str) -> String {
    match name {
        "ID" => "ID".to_owned(),
        "RunningFor" | "CreatedSince" => "CREATED".to_owned(),
        _ => {
            let mut heading = String::new();
            let mut lower = false;
            for c in name.chars() {
                if c.is_uppercase() && lower {
                    heading.push(' ');
                }
                lower = c.is_lowercase();
                heading.extend(c.to_uppercase());
            }
            heading
        }
    }
}

/// Calls, each of which takes the result of the one before, and the variables that take the last.
#[derive(Debug, Clone)]
struct Pipeline(Vec<Call>, Option<Assignment>);

#[derive(Debug, Clone)]
struct Assignment {
    /// Without their `$`; two only for `range`.
    names: Vec<String>,
    /// `:=`, not `=`.
    declares: bool,
}

/// A function with arguments, or a lone operand.
#[derive(Debug, Clone)]
struct Call(Vec<Operand>);

impl Call {
    fn fields(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|operand| match operand {
            Operand::Field(_, path) | Operand::Variable(_, path) | Operand::FieldsOf(_, path) => {
                path.last().map(String::as_str)
            }
            _ => None,
        })
    }
}

#[derive(Debug, Clone)]
enum Operand {
    /// `.A.B`, or `$.A.B` where the flag is set; an empty path is the whole value.
    Field(bool, Vec<String>),
    /// `$name.A.B`.
    Variable(String, Vec<String>),
    Literal(Value),
    Function(String),
    Nested(Pipeline),
    /// `(…).A.B`.
    FieldsOf(Pipeline, Vec<String>),
}

#[cfg(test)]
mod tests;
