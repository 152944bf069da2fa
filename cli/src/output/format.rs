//! `--format`: a table, JSON, or a template, over rows that are JSON objects.

use super::failure::Failure;
use super::stdout::print;
use super::template::Template;
use super::text::table;
use serde_json::Value;

/// How rows are printed.
pub(crate) enum Format {
    /// The command's own columns.
    Table,
    Json,
    Template(Template),
    /// A table whose columns a template gives.
    TemplateTable(Template),
}

impl Format {
    pub(crate) fn parse(text: Option<&str>) -> Result<Self, Failure> {
        let parse = |text: &str| {
            // A shell's single quotes keep the backslash; Docker reads \t and \n here.
            let text = text.replace("\\t", "\t").replace("\\n", "\n");
            Template::parse(&text).map_err(|error| Failure::of("invalid --format", &error))
        };
        Ok(match text {
            // As Docker: an empty one is none.
            None | Some("" | "table") => Self::Table,
            Some("json") => Self::Json,
            // The same, where a template's names differ from those of the JSON.
            Some(text) if is_json(text) => Self::Json,
            Some(text) => match text.strip_prefix("table ") {
                Some(columns) => Self::TemplateTable(parse(columns)?),
                None => Self::Template(parse(text)?),
            },
        })
    }
}

/// Whether a template prints its whole object as JSON and nothing else.
fn is_json(text: &str) -> bool {
    let inner = text
        .strip_prefix("{{")
        .and_then(|text| text.strip_suffix("}}"));
    inner.is_some_and(|inner| inner.split_whitespace().eq(["json", "."]))
}

/// A column of a command's own table: its heading and the field it shows.
pub(crate) type Column = (&'static str, &'static str);

/// Prints rows.
pub(crate) fn rows(rows: &[Value], columns: &[Column], format: &Format) -> Result<(), Failure> {
    let text = match format {
        Format::Table => {
            let mut lines = vec![
                columns
                    .iter()
                    .map(|(heading, _)| (*heading).to_owned())
                    .collect(),
            ];
            lines.extend(rows.iter().map(|row| {
                let cell = |(_, field): &Column| match &row[*field] {
                    Value::String(text) => text.clone(),
                    other => other.to_string(),
                };
                columns.iter().map(cell).collect::<Vec<_>>()
            }));
            table(&lines)
        }
        Format::Json => rows.iter().map(|row| format!("{row}\n")).collect(),
        Format::Template(template) => {
            let mut text = String::new();
            for row in rows {
                text.push_str(&rendered(template, row)?);
                text.push('\n');
            }
            text
        }
        Format::TemplateTable(template) => {
            let split = |line: String| line.split('\t').map(str::to_owned).collect::<Vec<_>>();
            let heading = template.heading(columns);
            let heading = heading.map_err(|error| Failure::of("cannot apply --format", &error))?;
            let mut lines = vec![split(heading)];
            for row in rows {
                lines.push(split(rendered(template, row)?));
            }
            table(&lines)
        }
    };
    print(&text)
}

/// Prints one object: by a template, as JSON, or as the text `plain`.
pub(crate) fn one(value: &Value, format: Option<&str>, plain: &str) -> Result<(), Failure> {
    match Format::parse(format)? {
        Format::Table | Format::TemplateTable(_) => print(plain),
        Format::Json => print(&format!("{value}\n")),
        Format::Template(template) => print(&format!("{}\n", rendered(&template, value)?)),
    }
}

fn rendered(template: &Template, value: &Value) -> Result<String, Failure> {
    template
        .render(value)
        .map_err(|error| Failure::of("cannot apply --format", &error))
}
