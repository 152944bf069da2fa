//! Go's text/template with Docker's functions, for `--format`, over a JSON value.
//!
//! The language is the crate `gotmpl`'s. What it cannot know is added here: which JSON objects are
//! structures in Docker, where a field that is not there is a slip, and which are maps, where it is
//! no value; and how Go prints a `null` that Docker has as an empty list, an empty map or a nil
//! pointer. For that, each chain of fields in a parsed template becomes a call of a function that
//! looks them up (see [`rewrite`]).

mod functions;
mod lookup;
mod rewrite;

use gotmpl::parse::{ListNode, Node, Parser};
use serde_json::Value;
use std::collections::BTreeMap;

/// What the template itself is called among those that it may define.
const ROOT: &str = "\0main";
/// Behind the text of a template.
const END: &str = "_the_end";

/// What is wrong with a template, or with the value it was applied to.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TemplateError {
    /// Of the language.
    #[error(transparent)]
    Go(#[from] gotmpl::TemplateError),
    /// An unknown function, which Go reports before it runs anything.
    #[error("function {0:?} not defined")]
    NoFunction(String),
    /// Nor a variable.
    #[error("undefined variable {0:?}")]
    NoVariable(String),
    /// An `{{end}}` is missing.
    #[error("unexpected EOF")]
    NotClosed,
}

/// A template that parsed.
#[derive(Debug)]
pub(crate) struct Template {
    main: ListNode,
    defined: Vec<(String, ListNode)>,
    /// The last name of each chain of fields, which a table may have as a heading.
    fields: Vec<String>,
}

impl Template {
    pub(crate) fn parse(text: &str) -> Result<Self, TemplateError> {
        let (mut main, defined) = Parser::new(&format!("{text}{END}"), "{{", "}}")?.parse()?;
        take_end(&mut main)?;
        let mut defined: Vec<_> = defined
            .into_iter()
            .map(|define| (define.name.to_string(), define.body))
            .collect();
        let mut rewriter = rewrite::Rewriter::default();
        rewriter.body(&mut main);
        for (_, body) in &mut defined {
            rewriter.body(body);
        }
        if let Some(name) = rewriter.undefined {
            return Err(TemplateError::NoVariable(name));
        }
        let mut functions = rewriter.functions.into_iter();
        if let Some(unknown) = functions.find(|name| !functions::exists(name)) {
            return Err(TemplateError::NoFunction(unknown));
        }
        Ok(Self {
            main,
            defined,
            fields: rewriter.fields,
        })
    }

    pub(crate) fn render(&self, value: &Value) -> Result<String, TemplateError> {
        let template = functions::add(gotmpl::Template::new(""));
        self.run(template, &functions::from_json(value))
    }

    /// The heading of a table with these columns: as Docker does it, the template applied to each
    /// field's heading. `known` are the command's own, as heading and field.
    pub(crate) fn heading(&self, known: &[(&str, &str)]) -> Result<String, TemplateError> {
        let heading = |field: &String| {
            let own = known.iter().find(|(_, of)| of == field);
            let heading = own.map_or_else(|| heading_of(field), |(heading, _)| (*heading).into());
            (field.as_str().into(), gotmpl::Value::String(heading.into()))
        };
        let headings: BTreeMap<_, _> = self.fields.iter().map(heading).collect();
        let template = functions::add_of_heading(gotmpl::Template::new(""));
        self.run(template, &gotmpl::Value::Map(headings.into()))
    }

    fn run(
        &self,
        template: gotmpl::Template,
        value: &gotmpl::Value,
    ) -> Result<String, TemplateError> {
        let mut template = template;
        for (name, body) in &self.defined {
            template = template.add_parse_tree(name, body.clone());
        }
        let template = template.add_parse_tree(ROOT, self.main.clone());
        Ok(template.execute_template_to_string(ROOT, value)?)
    }
}

/// The parser takes the end of the text for as many `{{end}}` as are missing, and one too many for
/// the end of the text. Neither is the case where a mark behind the text is the last of the template.
fn take_end(main: &mut ListNode) -> Result<(), TemplateError> {
    match main.nodes.last_mut() {
        Some(Node::Text(last)) => {
            let text = last
                .text
                .strip_suffix(END)
                .ok_or(TemplateError::NotClosed)?;
            last.text = text.into();
            Ok(())
        }
        _ => Err(TemplateError::NotClosed),
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

#[cfg(test)]
mod tests;
