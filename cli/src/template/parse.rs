//! Text to nodes.

use super::{Assignment, Call, Node, Operand, Pipeline, TemplateError};
use serde_json::Value;

/// How deep actions and parentheses may nest.
const MAX_DEPTH: usize = 32;

type Result<T> = std::result::Result<T, TemplateError>;

pub(super) fn parse(text: &str) -> Result<Vec<Node>> {
    let pieces = split(text)?;
    let mut blocks = Blocks {
        pieces: pieces.into_iter(),
    };
    let (nodes, end) = blocks.nodes(0)?;
    match end {
        None => Ok(nodes),
        Some(word) => Err(TemplateError::new(format!("unexpected {{{{{word}}}}}"))),
    }
}

enum Piece {
    Text(String),
    Action(String),
}

/// Cuts at `{{` and `}}`; a dash inside eats the white space outside.
fn split(text: &str) -> Result<Vec<Piece>> {
    let mut pieces = Vec::new();
    let mut rest = text;
    let mut trim_start = false;
    loop {
        let (before, after) = match rest.split_once("{{") {
            Some((before, after)) => (before, Some(after)),
            None => (rest, None),
        };
        let trim_end = after.is_some_and(|after| after.starts_with("- "));
        let mut plain = before;
        if trim_start {
            plain = plain.trim_start();
        }
        if trim_end {
            plain = plain.trim_end();
        }
        if !plain.is_empty() {
            pieces.push(Piece::Text(plain.to_owned()));
        }
        let Some(after) = after else {
            return Ok(pieces);
        };
        let end = action_end(after).ok_or_else(|| TemplateError::new("{{ without }}"))?;
        let (action, next) = (&after[..end], &after[end + 2..]);
        let action = action.strip_prefix("- ").unwrap_or(action);
        trim_start = action.ends_with(" -");
        let action = action.strip_suffix(" -").unwrap_or(action).trim();
        if !action.starts_with("/*") {
            pieces.push(Piece::Action(action.to_owned()));
        }
        rest = next;
    }
}

/// Where `}}` stands outside of a quoted string.
fn action_end(text: &str) -> Option<usize> {
    let mut quote = None;
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match (quote, c) {
            _ if escaped => escaped = false,
            (Some('"'), '\\') => escaped = true,
            (Some(open), c) if c == open => quote = None,
            (Some(_), _) => {}
            (None, '"' | '`') => quote = Some(c),
            (None, '}') if text[at..].starts_with("}}") => return Some(at),
            _ => {}
        }
    }
    None
}

struct Blocks {
    pieces: std::vec::IntoIter<Piece>,
}

impl Blocks {
    /// Nodes until the template's end, or the `end` or `else…` that closes them.
    fn nodes(&mut self, depth: usize) -> Result<(Vec<Node>, Option<String>)> {
        if depth > MAX_DEPTH {
            return Err(TemplateError::new("nested too deeply"));
        }
        let mut nodes = Vec::new();
        while let Some(piece) = self.pieces.next() {
            let action = match piece {
                Piece::Text(text) => {
                    nodes.push(Node::Text(text));
                    continue;
                }
                Piece::Action(action) => action,
            };
            let (word, rest) = action
                .split_once(char::is_whitespace)
                .unwrap_or((&action, ""));
            match word {
                "end" | "else" => return Ok((nodes, Some(action))),
                "if" | "range" | "with" => nodes.push(self.block(word, rest, depth)?),
                _ => nodes.push(Node::Print(pipeline(&action)?)),
            }
        }
        Ok((nodes, None))
    }

    fn block(&mut self, word: &str, condition: &str, depth: usize) -> Result<Node> {
        let condition = pipeline(condition)?;
        let (body, end) = self.nodes(depth + 1)?;
        let otherwise = match end.as_deref() {
            Some("end") => Vec::new(),
            Some("else") => {
                let (nodes, end) = self.nodes(depth + 1)?;
                if end.as_deref() != Some("end") {
                    return Err(TemplateError::new(format!(
                        "{{{{{word}}}}} without {{{{end}}}}"
                    )));
                }
                nodes
            }
            Some(chained) if chained.starts_with("else if ") => {
                vec![self.block("if", &chained["else if ".len()..], depth + 1)?]
            }
            _ => {
                return Err(TemplateError::new(format!(
                    "{{{{{word}}}}} without {{{{end}}}}"
                )));
            }
        };
        Ok(match word {
            "range" => Node::Range(condition, body, otherwise),
            "with" => Node::With(condition, body, otherwise),
            _ => Node::If(condition, body, otherwise),
        })
    }
}

fn pipeline(text: &str) -> Result<Pipeline> {
    let (assignment, text) = assignment(text)?;
    let mut pipeline = plain_pipeline(text)?;
    pipeline.1 = assignment;
    Ok(pipeline)
}

/// `$a := …`, `$a = …` or `$a, $b := …`, and what is assigned.
fn assignment(text: &str) -> Result<(Option<Assignment>, &str)> {
    if !text.starts_with('$') {
        return Ok((None, text));
    }
    let Some((before, after)) = text.split_once('=') else {
        return Ok((None, text));
    };
    let (names, declares) = match before.strip_suffix(':') {
        Some(names) => (names, true),
        None => (before, false),
    };
    let names: Option<Vec<_>> = names
        .split(',')
        .map(|name| name.trim().strip_prefix('$').map(str::to_owned))
        .collect();
    match names {
        Some(names) if names.len() <= 2 && names.iter().all(|name| is_name(name)) => {
            Ok((Some(Assignment { names, declares }), after))
        }
        // The sign stands in a string.
        _ if before.contains(['"', '`']) => Ok((None, text)),
        _ => Err(TemplateError::new(format!("cannot assign to {before:?}"))),
    }
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_alphanumeric() || c == '_')
}

fn plain_pipeline(text: &str) -> Result<Pipeline> {
    let tokens = tokens(text)?;
    let mut tokens = tokens.into_iter().peekable();
    let parsed = calls(&mut tokens, 0)?;
    match tokens.next() {
        None => Ok(parsed),
        Some(token) => Err(TemplateError::new(format!("unexpected {token:?}"))),
    }
}

type Tokens = std::iter::Peekable<std::vec::IntoIter<Token>>;

fn calls(tokens: &mut Tokens, depth: usize) -> Result<Pipeline> {
    if depth > MAX_DEPTH {
        return Err(TemplateError::new("nested too deeply"));
    }
    let mut calls = Vec::new();
    let mut operands = Vec::new();
    loop {
        match tokens.peek() {
            None | Some(Token::Close) => break,
            Some(Token::Pipe) => {
                tokens.next();
                calls.push(finish(std::mem::take(&mut operands))?);
            }
            Some(Token::Open) => {
                tokens.next();
                let nested = calls_in_parentheses(tokens, depth)?;
                operands.push(match tokens.peek() {
                    Some(Token::Fields(_)) => match tokens.next() {
                        Some(Token::Fields(path)) => Operand::FieldsOf(nested, path),
                        _ => Operand::Nested(nested),
                    },
                    _ => Operand::Nested(nested),
                });
            }
            Some(Token::Fields(_)) => {
                return Err(TemplateError::new("a field of nothing"));
            }
            Some(Token::Operand(_)) => {
                if let Some(Token::Operand(operand)) = tokens.next() {
                    operands.push(operand);
                }
            }
        }
    }
    calls.push(finish(operands)?);
    Ok(Pipeline(calls, None))
}

fn calls_in_parentheses(tokens: &mut Tokens, depth: usize) -> Result<Pipeline> {
    let nested = calls(tokens, depth + 1)?;
    match tokens.next() {
        Some(Token::Close) => Ok(nested),
        _ => Err(TemplateError::new("( without )")),
    }
}

fn finish(operands: Vec<Operand>) -> Result<Call> {
    match operands.first() {
        None => Err(TemplateError::new("an empty action")),
        Some(Operand::Function(_)) => Ok(Call(operands)),
        Some(_) if operands.len() == 1 => Ok(Call(operands)),
        Some(_) => Err(TemplateError::new("only functions take arguments")),
    }
}

#[derive(Debug)]
enum Token {
    Open,
    Close,
    Pipe,
    /// `.A.B` right behind a parenthesis.
    Fields(Vec<String>),
    Operand(Operand),
}

fn tokens(text: &str) -> Result<Vec<Token>> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(c) = rest.chars().next() {
        let (token, len) = match c {
            '(' => (Token::Open, 1),
            ')' => (Token::Close, 1),
            '|' => (Token::Pipe, 1),
            '"' | '`' => string(rest)?,
            _ => word(rest)?,
        };
        let closed = matches!(token, Token::Close);
        tokens.push(token);
        rest = &rest[len..];
        if let (true, Some(path)) = (closed, rest.strip_prefix('.')) {
            let end = path.find(|c: char| c.is_whitespace() || "()|\"`".contains(c));
            let path = &path[..end.unwrap_or(path.len())];
            tokens.push(Token::Fields(fields(path)?));
            rest = &rest[path.len() + 1..];
        }
        rest = rest.trim_start();
    }
    Ok(tokens)
}

fn string(text: &str) -> Result<(Token, usize)> {
    let unclosed = || TemplateError::new("a string without its closing quote");
    let mut chars = text.char_indices();
    let (_, quote) = chars.next().ok_or_else(unclosed)?;
    let mut value = String::new();
    while let Some((at, c)) = chars.next() {
        match c {
            c if c == quote => {
                return Ok((Token::Operand(Operand::Literal(value.into())), at + 1));
            }
            '\\' if quote == '"' => match chars.next().map(|(_, c)| c) {
                Some('n') => value.push('\n'),
                Some('t') => value.push('\t'),
                Some(c @ ('"' | '\\')) => value.push(c),
                _ => return Err(TemplateError::new("an unknown escape in a string")),
            },
            c => value.push(c),
        }
    }
    Err(unclosed())
}

fn word(text: &str) -> Result<(Token, usize)> {
    let len = text
        .find(|c: char| c.is_whitespace() || "()|\"`".contains(c))
        .unwrap_or(text.len());
    let word = &text[..len];
    let operand = match word {
        "true" => Operand::Literal(true.into()),
        "false" => Operand::Literal(false.into()),
        "nil" => Operand::Literal(Value::Null),
        "." => Operand::Field(false, Vec::new()),
        "$" => Operand::Field(true, Vec::new()),
        _ => {
            if let Some(path) = word.strip_prefix("$.") {
                Operand::Field(true, fields(path)?)
            } else if let Some(name) = word.strip_prefix('$') {
                let (name, path) = name.split_once('.').unwrap_or((name, ""));
                if !is_name(name) {
                    return Err(TemplateError::new(format!("cannot read {word:?}")));
                }
                let path = if path.is_empty() {
                    Vec::new()
                } else {
                    fields(path)?
                };
                Operand::Variable(name.to_owned(), path)
            } else if let Some(path) = word.strip_prefix('.') {
                Operand::Field(false, fields(path)?)
            } else if let Ok(number) = word.parse::<i64>() {
                Operand::Literal(number.into())
            } else if word.chars().all(|c| c.is_ascii_alphanumeric()) {
                Operand::Function(word.to_owned())
            } else {
                return Err(TemplateError::new(format!("cannot read {word:?}")));
            }
        }
    };
    Ok((Token::Operand(operand), len))
}

fn fields(path: &str) -> Result<Vec<String>> {
    path.split('.')
        .map(|name| {
            let plain = !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || c == '_');
            plain
                .then(|| name.to_owned())
                .ok_or_else(|| TemplateError::new(format!("bad field .{path}")))
        })
        .collect()
}
