//! `events`: what happens to containers and images.

use crate::args::filters::filters;
use crate::args::system::EventsArgs;
use crate::engine;
use crate::output::failure::Failure;
use crate::output::format::{self, Format};
use crate::output::stdout::{self, piped_output};
use hullbox_engine::events::Query;
use hullbox_model::event::{self, Event, EventFilter};
use hullbox_model::time;

pub(crate) fn events(args: &EventsArgs) -> Result<(), Failure> {
    let format = Format::parse(args.format.as_deref())?;
    let query = Query {
        since_ns: args.since.as_deref().map(time::parse).transpose()?,
        until_ns: args.until.as_deref().map(time::parse).transpose()?,
        filter: EventFilter::new(filters(&args.filters, event::KEYS)?),
    };
    let engine = engine::open()?;
    let mut events = engine.events(query)?;
    while let Some(event) = events.next_event_for(piped_output())? {
        print_event(&event, &format)?;
    }
    Ok(())
}

fn print_event(event: &Event, format: &Format) -> Result<(), Failure> {
    match format {
        Format::Table => stdout::print(&event_line(event)),
        Format::Json => stdout::print(&format!("{}\n", event.to_api())),
        _ => format::rows(&[event.to_template()], &[], format),
    }
}

/// As Docker's client prints it.
fn event_line(event: &Event) -> String {
    let attributes: Vec<_> = event
        .actor
        .attributes
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    let mut line = format!(
        "{} {} {} {}",
        time::rfc3339(event.time_ns),
        event.kind.as_str(),
        event.action,
        event.actor.id,
    );
    if !attributes.is_empty() {
        line.push_str(&format!(" ({})", attributes.join(", ")));
    }
    let clean = |c: char| if c.is_control() { ' ' } else { c };
    line.chars().map(clean).chain(['\n']).collect()
}
