//! Progress of transfers: bars on a terminal, lines elsewhere, JSON for programs.

use crate::args::registry::ProgressArg;
use crate::output::failure::Failure;
use crate::output::stdout;
use hullbox_engine::registry::{Progress, Step, Watch, Way};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use rustix::termios::isatty;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError};

/// Frames of a bar a second.
const FRAMES: u8 = 10;

/// Where the last lines go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Out {
    /// To standard output: the command is about them.
    Result,
    /// To standard error: the command is about something else.
    Aside,
}

enum Style {
    Quiet,
    Lines,
    Json,
    Bars(MultiProgress),
}

/// What is on the screen.
struct Shown {
    style: Style,
    way: Way,
    /// Blobs by the digits they are shown with.
    bars: BTreeMap<String, ProgressBar>,
    /// The last step of each blob that was printed.
    steps: BTreeMap<String, Step>,
}

/// Shows the progress of one transfer after the other.
pub(super) struct View {
    shown: Arc<Mutex<Shown>>,
    out: Out,
    quiet: bool,
    json: bool,
}

impl View {
    pub(super) fn new(progress: ProgressArg, quiet: bool, out: Out) -> Self {
        let terminal = isatty(io::stderr().as_fd());
        let style = match progress {
            _ if quiet => Style::Quiet,
            ProgressArg::Json => Style::Json,
            ProgressArg::Auto if terminal => {
                let target = ProgressDrawTarget::stderr_with_hz(FRAMES);
                Style::Bars(MultiProgress::with_draw_target(target))
            }
            ProgressArg::Auto | ProgressArg::Plain => Style::Lines,
        };
        Self {
            json: matches!(style, Style::Json),
            shown: Arc::new(Mutex::new(Shown {
                style,
                way: Way::Pull,
                bars: BTreeMap::new(),
                steps: BTreeMap::new(),
            })),
            out,
            quiet,
        }
    }

    /// What a transfer tells its progress.
    pub(super) fn watch(&self) -> Watch {
        let shown = Arc::clone(&self.shown);
        Arc::new(move |progress| {
            let mut shown = shown.lock().unwrap_or_else(PoisonError::into_inner);
            shown.show(progress);
        })
    }

    /// The bars stay as they are, and what follows is below them.
    pub(super) fn end(&self) {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        shown.leave_bars();
    }

    /// Shows what came of it: `lines`, and `name` alone where little is asked for.
    pub(super) fn result(&self, lines: &[String], name: &str) -> Result<(), Failure> {
        let mut text = String::new();
        if self.json {
            let name = (!name.is_empty()).then(|| name.to_owned());
            for status in lines.iter().cloned().chain(name) {
                text.push_str(&format!("{}\n", json!({ "status": status })));
            }
        } else {
            let all = lines.iter().filter(|_| !self.quiet);
            let all = all.map(String::as_str).chain([name]);
            for line in all.filter(|line| !line.is_empty()) {
                text.push_str(line);
                text.push('\n');
            }
        }
        match self.out {
            Out::Result => stdout::print(&text),
            Out::Aside => {
                // Progress that cannot be shown is no reason to fail.
                let _ = io::stderr().write_all(text.as_bytes());
                Ok(())
            }
        }
    }
}

impl Shown {
    fn show(&mut self, progress: Progress) {
        match progress {
            Progress::Begin {
                way,
                repository,
                tag,
            } => self.begin(way, &repository, &tag),
            Progress::Layer { id, step } => self.layer(id, step),
            Progress::Retry { why } => self.line(&plain(&why)),
            _ => {}
        }
    }

    fn begin(&mut self, way: Way, repository: &str, tag: &str) {
        self.leave_bars();
        self.way = way;
        let (repository, tag) = (plain(repository), plain(tag));
        match way {
            Way::Pull if matches!(self.style, Style::Json) => {
                let status = format!("Pulling from {repository}");
                print_json(&json!({ "status": status, "id": tag }));
            }
            Way::Pull => self.line(&format!("{tag}: Pulling from {repository}")),
            Way::Push => self.line(&format!("The push refers to repository [{repository}]")),
            Way::Copy => self.line(&format!("{tag}: Copying from {repository}")),
        }
    }

    /// A line of its own, above the bars.
    fn line(&self, text: &str) {
        match &self.style {
            Style::Quiet => {}
            Style::Json => print_json(&json!({ "status": text })),
            // Progress that cannot be shown is no reason to fail.
            Style::Lines => drop(writeln!(io::stderr(), "{text}")),
            Style::Bars(bars) => drop(bars.println(text)),
        }
    }

    fn layer(&mut self, id: String, step: Step) {
        let words = step.words(self.way);
        match &self.style {
            Style::Quiet => {}
            Style::Json => {
                let mut line = json!({ "status": words, "id": id, "progressDetail": {} });
                if let Step::Bytes(current, total) = step {
                    line["progressDetail"] = json!({ "current": current, "total": total });
                }
                print_json(&line);
            }
            Style::Lines => {
                let known = self.steps.insert(id.clone(), step);
                let is_new = known.is_none_or(|known| known.words(self.way) != words);
                if is_new && !matches!(step, Step::Bytes(..)) {
                    self.line(&format!("{id}: {words}"));
                }
            }
            Style::Bars(bars) => {
                let bar = self.bars.entry(id).or_insert_with_key(|id| {
                    // Shown once it has a style of ours: the library's own is a full bar.
                    let bar = ProgressBar::hidden().with_prefix(id.clone());
                    if let Ok(style) = ProgressStyle::with_template("{prefix}: {msg}") {
                        bar.set_style(style);
                    }
                    bars.add(bar)
                });
                draw(bar, step, words);
            }
        }
    }

    fn leave_bars(&mut self) {
        for bar in std::mem::take(&mut self.bars).into_values() {
            bar.abandon();
        }
        self.steps.clear();
    }
}

fn draw(bar: &ProgressBar, step: Step, words: &'static str) {
    let template = match step {
        Step::Bytes(bytes, total) => {
            bar.set_length(total);
            bar.set_position(bytes);
            "{prefix}: {msg} [{bar:30}] {decimal_bytes}/{decimal_total_bytes}"
        }
        _ => "{prefix}: {msg}",
    };
    // The templates are ours, and are templates.
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.set_message(words);
    if matches!(step, Step::Done | Step::Exists | Step::Mounted) {
        bar.abandon();
    }
}

/// Text of a registry without control characters, which could drive the reader's terminal.
fn plain(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

fn print_json(value: &Value) {
    // Whoever does not read progress any more gets none.
    let _ = writeln!(io::stdout(), "{value}");
}
