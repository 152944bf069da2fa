//! Chains of fields become calls of [`super::lookup`]'s functions.

use super::lookup::{FIELD, LABEL, MAPS, SHOWN};
use gotmpl::parse::{BranchNode, CommandNode, Expr, ListNode, Node, PipeNode, Pos};

/// What to change, and what was met on the way.
#[derive(Debug, Default)]
pub(super) struct Rewriter {
    /// Functions that are called.
    pub(super) functions: Vec<String>,
    /// Last names of chains.
    pub(super) fields: Vec<String>,
    /// A variable that is not declared.
    pub(super) undefined: Option<String>,
    /// The field that `.` is, where a map is.
    dot: String,
    /// Declared variables. They end with the block that they are declared in.
    variables: Vec<String>,
}

impl Rewriter {
    /// A whole template.
    pub(super) fn body(&mut self, list: &mut ListNode) {
        // The value that it is applied to.
        self.variables = vec!["$".to_owned()];
        self.list(list);
    }

    fn list(&mut self, list: &mut ListNode) {
        for node in &mut list.nodes {
            self.node(node);
        }
    }

    fn node(&mut self, node: &mut Node) {
        match node {
            Node::List(list) => self.list(list),
            Node::Action(action) => self.action(&mut action.pipe),
            Node::If(branch) => self.branch(branch, None),
            Node::Range(branch) => self.branch(branch, Some(String::new())),
            Node::With(branch) => {
                let dot = last_name(&branch.pipe).filter(|name| MAPS.contains(name));
                let dot = dot.unwrap_or_default().to_owned();
                self.branch(branch, Some(dot));
            }
            Node::Template(template) => {
                if let Some(pipe) = &mut template.pipe {
                    self.pipe(pipe);
                }
            }
            Node::Define(_) | Node::Text(_) | Node::Break(_) | Node::Continue(_) => {}
        }
    }

    /// `dot` is what `.` is in the body, if it changes.
    fn branch(&mut self, branch: &mut BranchNode, dot: Option<String>) {
        let outside = self.variables.len();
        self.pipe(&mut branch.pipe);
        let inside = self.variables.len();
        let outer = self.dot.clone();
        if let Some(dot) = dot {
            self.dot = dot;
        }
        self.list(&mut branch.body);
        self.dot = outer;
        self.variables.truncate(inside);
        if let Some(body) = &mut branch.else_body {
            self.list(body);
        }
        self.variables.truncate(outside);
    }

    /// A lone chain is printed in its own way.
    fn action(&mut self, pipe: &mut PipeNode) {
        let lone = pipe.decl.is_empty() && pipe.commands.len() == 1;
        match pipe
            .commands
            .first_mut()
            .map(|command| &mut command.args[..])
        {
            Some([expr]) if lone => self.expr(expr, SHOWN),
            _ => self.pipe(pipe),
        }
    }

    fn pipe(&mut self, pipe: &mut PipeNode) {
        for command in &mut pipe.commands {
            method(command);
            for expr in &mut command.args {
                self.expr(expr, FIELD);
            }
        }
        for name in &pipe.decl {
            if pipe.is_assign {
                self.variable(name);
            } else {
                self.variables.push(name.to_string());
            }
        }
    }

    fn variable(&mut self, name: &str) {
        if !self.variables.iter().any(|known| known == name) {
            self.undefined.get_or_insert_with(|| name.to_owned());
        }
    }

    fn expr(&mut self, expr: &mut Expr, function: &'static str) {
        let pos = expr.pos();
        if let Expr::Variable(_, name, _) = expr {
            self.variable(name);
        }
        let (of, names) = match expr {
            Expr::Pipe(_, pipe) => return self.pipe(pipe),
            Expr::Identifier(_, name) => return self.functions.push(name.to_string()),
            Expr::Field(_, names) => (Expr::Dot(pos), names),
            Expr::Variable(_, name, names) if !names.is_empty() => {
                (Expr::Variable(pos, name.clone(), Vec::new()), names)
            }
            Expr::Chain(_, inner, names) => {
                self.expr(inner, FIELD);
                ((**inner).clone(), names)
            }
            _ => return,
        };
        self.fields.extend(names.last().map(ToString::to_string));
        let above = match of {
            Expr::Dot(_) => self.dot.as_str(),
            _ => "",
        };
        let text = |text: &str| Expr::String(pos, text.into());
        let mut args = vec![
            Expr::Identifier(pos, function.into()),
            of.clone(),
            text(above),
        ];
        args.extend(names.iter().map(|name| text(name)));
        *expr = call(pos, args);
    }
}

/// `.Label "name"`, the one method that Docker's rows have, as the call of a function.
fn method(command: &mut CommandNode) {
    if let [Expr::Field(pos, names), _] = &command.args[..]
        && names.len() == 1
        && names[0] == "Label"
    {
        let pos = *pos;
        let labels = Expr::Field(pos, vec!["Labels".into()]);
        command
            .args
            .splice(..1, [Expr::Identifier(pos, LABEL.into()), labels]);
    }
}

fn call(pos: Pos, args: Vec<Expr>) -> Expr {
    let pipe = PipeNode {
        pos,
        decl: Vec::new(),
        commands: vec![CommandNode { pos, args }],
        is_assign: false,
    };
    Expr::Pipe(pos, pipe)
}

/// The last name of the chain that a pipeline is.
fn last_name(pipe: &PipeNode) -> Option<&str> {
    let [command] = &pipe.commands[..] else {
        return None;
    };
    match &command.args[..] {
        [Expr::Field(_, names) | Expr::Variable(_, _, names) | Expr::Chain(_, _, names)] => {
            names.last().map(gotmpl::parse::SmolStr::as_str)
        }
        _ => None,
    }
}
